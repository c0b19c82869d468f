"""Threads of the libraries below this package."""

import os
from collections.abc import MutableMapping


def one_blas_thread(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let NumPy multiply in the thread that asks, unless the user chose otherwise. To be called before it is imported.

    OpenBLAS gives products of a few hundred rows to threads of its own, and those spin for milliseconds afterwards: a
    tenth of the CPU time of the odometry and more, and nothing becomes faster.
    """
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
