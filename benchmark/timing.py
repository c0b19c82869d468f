"""Times: their statistics, a stopwatch inside running code, and the work that a machine is measured by."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class Spread:
    """Many measurements of one thing in four numbers.

    low: the 20th percentile: what it takes when nothing else disturbs it, without believing a single lucky value.
    """

    count: int
    median: float
    p95: float
    low: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """NaN where there are no values."""
        if not len(values):
            return cls(0, *[float("nan")] * 3)
        median, p95, low = np.percentile(values, [50, 95, 20])
        return cls(len(values), float(median), float(p95), float(low))

    def to_dict(self, digits: int = 3) -> dict[str, float]:
        """For JSON."""
        return {key: round(value, digits) for key, value in asdict(self).items()}


def middle_mean(values: Sequence[float]) -> float:
    """Mean without the best and the worst, as ros2_benchmark reports five runs; of fewer than three, the mean."""
    ordered = sorted(values)
    return float(np.mean(ordered[1:-1] if len(ordered) > 2 else ordered))


# -------------------------------------------------------------------------------------------------------- the stopwatch
class Stopwatch:
    """Times calls of functions that are looked up by name, while the ``with`` block runs.

    A stage's time is its own: what is spent in a wrapped call inside another wrapped call counts for the inner one.
    Calls from several threads at once are kept apart, and each counts its whole wall time.
    """

    def __init__(self) -> None:
        self.frames: list[dict[str, float]] = []
        """ms by stage, one entry for each :meth:`next_frame`."""
        self._replaced: list[tuple[Any, str, Any]] = []
        self._inner = threading.local()
        self._lock = threading.Lock()

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, original in reversed(self._replaced):
            setattr(owner, name, original)
        self._replaced.clear()

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Count the time of ``owner.name(...)`` for ``stage``; owner is a module, a class or an object."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return original(*args, **kwargs)

        self._replaced.append((owner, name, owner.__dict__.get(name, original)))
        setattr(owner, name, timed)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block for a stage."""
        outer = getattr(self._inner, "ms", 0.0)
        self._inner.ms = 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            whole = 1e3 * (time.perf_counter() - start)
            self.add(name, whole - self._inner.ms)
            self._inner.ms = outer + whole

    def add(self, stage: str, ms: float) -> None:
        """Count a time that was measured elsewhere."""
        if self.frames:
            with self._lock:
                self.frames[-1][stage] = self.frames[-1].get(stage, 0.0) + ms

    def next_frame(self) -> None:
        """What follows belongs to a new frame; before the first, nothing is counted."""
        self.frames.append({})


def spreads_by_stage(frames: Sequence[dict[str, float]]) -> dict[str, Spread]:
    """By stage, over the frames in which it ran; frames as :attr:`Stopwatch.frames` has them."""
    stages = dict.fromkeys(stage for frame in frames for stage in frame)
    return {stage: Spread.of([frame[stage] for frame in frames if stage in frame]) for stage in stages}


# -------------------------------------------------------------------------------------------------------- the reference
class Reference:
    """A fixed piece of work that is timed beside everything else: how fast is this machine right now?

    It filters, gathers and sorts in OpenCV and NumPy, which release the interpreter's lock, so that the same work can
    run on all cores at once. Ratios to it tell a slower program from a slower (or busier) machine.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._image = rng.random((480, 640), np.float32)
        self._values = rng.random(200_000, np.float32)
        y, x = np.mgrid[:480, :640].astype(np.float32)
        self._maps = (x + 8 * np.sin(y / 20), y + 8 * np.cos(x / 20))
        self._ms: dict[str, list[float]] = {"one core": [], "all cores": []}

    def measure(self) -> None:
        """Do it once on one core and once on all of them."""
        threads_before = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for cores, name in ((1, "one core"), (cores_of_this_process(), "all cores")):
                threads = [threading.Thread(target=self._work) for _ in range(cores - 1)]
                start = time.perf_counter()
                for thread in threads:
                    thread.start()
                self._work()
                for thread in threads:
                    thread.join()
                self._ms[name].append(1e3 * (time.perf_counter() - start))
        finally:
            cv2.setNumThreads(threads_before)

    def _work(self) -> None:
        for _ in range(3):
            blurred = cv2.GaussianBlur(self._image, (0, 0), 3.0)
            cv2.remap(blurred, *self._maps, cv2.INTER_LINEAR)
            np.sort(self._values)

    def add(self, other: Reference) -> None:
        """Take over what was measured in another process."""
        for name, ms in other._ms.items():
            self._ms[name] += ms

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Its times so far, for JSON."""
        return {name: Spread.of(ms).to_dict() for name, ms in self._ms.items()}


def cores_of_this_process() -> int:
    """Cores that the process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def timed_ms(work: Callable[[], Any], repeats: int) -> list[float]:
    """ms of each of so many calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return times
