"""Output files that are whole or not there: written beside their place under another name, then moved into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that takes its place at ``path`` when the block ends; an error in the block leaves nothing.

    Folders that are missing are made. OSError when the place cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))


def write_ply(path: str | Path, points: np.ndarray, colours: np.ndarray) -> None:
    """Write a coloured point cloud as binary PLY, atomically.

    points: (N, 3) float; colours: (N, 3) uint8, BGR as everywhere in this package.
    """
    vertices = np.empty(len(points), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices["xyz"] = points
    vertices["rgb"] = colours[:, ::-1]
    properties = [f"property float {axis}" for axis in "xyz"]
    properties += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    with atomic_file(path) as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(vertices.tobytes())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
