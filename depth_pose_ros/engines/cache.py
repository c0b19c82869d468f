"""Compiled engines on disk: each built once, by one process, for one machine, and never trusted unread.

An engine is ``<network>.<precision>.<size>.<key>.plan`` with a ``.json`` beside it that says what it was built from and
for (:class:`EngineKey`), and how long and what sha256 the plan has. The JSON is written last, and both atomically: a
process that is killed leaves an engine or none, never half of one. The folder can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from depth_pose_ros.engines.listener import Listener
from depth_pose_ros.errors import EngineError

T = TypeVar("T")


class UnusableEngine(EngineError):
    """A plan that cannot be used here, although it is the one that was written for this machine."""


def cache_folder(given: str = "") -> Path:
    """The folder of compiled engines: the one given, else ``depth_pose_ros/engines`` in the user's cache folder."""
    if given:
        return Path(given).expanduser()
    # The XDG specification has relative paths ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "depth_pose_ros" / "engines"


def write_atomically(path: Path, content: bytes) -> None:
    """Make ``path`` hold ``content``, or leave it as it was, whatever happens meanwhile; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


WORDS = {
    "onnx": "the ONNX file",
    "library": "TensorRT",
    "cuda": "CUDA",
    "gpu": "the GPU",
    "compute_capability": "its compute capability",
    "builder": "this package's way of building",
}
"""What the fields of an EngineKey are, in words, in the order in which a difference is told."""


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on. One that differs in any of these is another engine.

    network: name of the graph.
    width, height: of the image.
    onnx:    sha256 of the file.
    library: e.g. ``tensorrt 10.3.0``.
    cuda:    version that the driver supports, e.g. ``12.6``.
    compute_capability: e.g. ``8.7``.
    builder: goes up when ``tensorrt.py`` builds in another way.
    """

    network: str
    precision: str
    width: int
    height: int
    onnx: str
    library: str
    cuda: str
    gpu: str
    compute_capability: str
    builder: int = 1

    def to_dict(self) -> dict[str, str | int]:
        """Its fields by name."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """sha256 of all of it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def stem(self) -> str:
        """Name of the engine's files, without ending."""
        return f"{self.network}.{self.precision}.{self.width}x{self.height}.{self.digest[:12]}"

    def __str__(self) -> str:
        return f"{self.network} ({self.precision}, {self.width}x{self.height})"

    def differences(self, other: dict[str, Any]) -> list[str]:
        """In which fields another key differs, in words."""

        def short(value: object) -> str:
            text = str(value)
            return f"{text[:12]}..." if len(text) == 64 else text

        mine = self.to_dict()
        return [
            f"{WORDS[name]} was {short(other.get(name))} and is {short(mine[name])}"
            for name in WORDS
            if other.get(name) != mine[name]
        ]


class EngineCache:
    """The engines in one folder.

    rebuild:  ``auto`` builds what is missing, stale or damaged; ``never`` refuses, with the reason.
    listener: hears why an engine is built, and how that goes.
    """

    def __init__(self, folder: Path, rebuild: str = "auto", listener: Listener | None = None) -> None:
        self.folder = folder
        self._rebuild = rebuild
        self._listener = listener or Listener()

    def open(self, key: EngineKey, build: Callable[[], bytes], load: Callable[[bytes], T]) -> T:
        """The engine for ``key``, loaded; built before where there is none that can be used.

        build: makes the plan; takes minutes.
        load:  plan -> what runs it. UnusableEngine when it cannot be used; one that has just been built is not built
            again for that.

        EngineError when it may not be built, or cannot.
        """
        loaded, problem = self._try(key, load)
        if loaded is not None:
            return loaded
        if self._rebuild == "never":
            raise EngineError(
                f"{problem}, and engine_rebuild is never; run `depth_pose build-engines` on this machine with the same "
                "size and engine_cache, or set engine_rebuild to auto"
            )
        with self._alone(key):
            loaded, problem = self._try(key, load)  # another process may have built it meanwhile
            if loaded is not None:
                return loaded
            self._listener.info(f"{problem}; building it, once")
            plan = self._build(key, build)
        try:
            return load(plan)
        except UnusableEngine as error:
            raise EngineError(f"the engine {key} has just been built, but cannot be used: {error}") from error

    def build(self, key: EngineKey, build: Callable[[], bytes]) -> Path:
        """Have an engine for ``key`` in the folder without loading it, and return the path of its plan."""
        path = self.plan_path(key)
        with self._alone(key):
            if problem := self.problem(key):
                self._listener.info(f"{problem}; building it, once")
                self._build(key, build)
        if problem := self.problem(key):
            raise EngineError(problem)
        return path

    def plan_path(self, key: EngineKey) -> Path:
        """Where the plan for ``key`` is kept."""
        return self.folder / f"{key.stem}.plan"

    def problem(self, key: EngineKey) -> str:
        """Why there is no engine for ``key``, in a sentence; empty when there is one."""
        return self._read(key)[1]

    # --------------------------------------------------------------------------------------------------- reading
    def _try(self, key: EngineKey, load: Callable[[bytes], T]) -> tuple[T | None, str]:
        """The engine, loaded, or why not."""
        plan, problem = self._read(key)
        if plan is None:
            return None, problem
        try:
            return load(plan), ""
        except UnusableEngine as error:
            return None, f"the engine {self.plan_path(key)} cannot be used: {error}"

    def _read(self, key: EngineKey) -> tuple[bytes | None, str]:
        """The plan for a key, or why there is none."""
        path = self.plan_path(key)
        try:
            described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            size, sha256 = int(described["plan"]["bytes"]), str(described["plan"]["sha256"])
            differences = key.differences(described["key"])
        except FileNotFoundError:
            return None, self._nearest(key)
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            return None, f"the description of the engine {path} is damaged ({error})"
        if differences:
            return None, f"the engine {path} is described as another one: {'; '.join(differences)}"
        try:
            plan = path.read_bytes()
        except OSError as error:
            return None, f"the engine {path} cannot be read: {error.strerror}"
        if len(plan) != size:
            return None, f"the engine {path} is damaged: it has {len(plan)} bytes of {size}"
        if hashlib.sha256(plan).hexdigest() != sha256:
            return None, f"the engine {path} is damaged: its bytes have changed since it was written (sha256)"
        return plan, ""

    def _nearest(self, key: EngineKey) -> str:
        """Why an engine that is there is not the one for this key; or that there is none."""
        found: list[tuple[list[str], str]] = []
        for path in sorted(self.folder.glob(f"{key.network}.*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                other = json.loads(path.read_text(encoding="utf-8"))["key"]
                # Another size or precision of the network is not a stale one: both may be in use.
                if all(other[name] == getattr(key, name) for name in ("network", "precision", "width", "height")):
                    found.append((key.differences(other), path.with_suffix(".plan").name))
        if not found:
            return f"there is no TensorRT engine for {key} in {self.folder} yet"
        differences, name = min(found, key=lambda item: len(item[0]))
        return f"the engine {name} is stale: {'; '.join(differences)}"

    # -------------------------------------------------------------------------------------------------- building
    def _build(self, key: EngineKey, build: Callable[[], bytes]) -> bytes:
        start = time.monotonic()
        plan = build()
        seconds = time.monotonic() - start
        described = {
            "key": key.to_dict(),
            "plan": {"bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest()},
            "built": {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": round(seconds, 1)},
        }
        path = self.plan_path(key)
        try:
            # Left over by processes that were killed; nobody else writes while we are alone.
            for partial in self.folder.glob(f".{key.stem}.*.partial"):
                partial.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
            write_atomically(path, plan)
            write_atomically(path.with_suffix(".json"), json.dumps(described, indent=1).encode())
        except OSError as error:
            self._listener.warning(
                f"the engine for {key} cannot be kept in {self.folder} ({error.strerror}): it will be built again at "
                "the next start; set engine_cache to a folder that can be written"
            )
        else:
            self._listener.info(f"built {path} in {seconds:.0f} s, {len(plan) / 1e6:.1f} MB")
        return plan

    @contextlib.contextmanager
    def _alone(self, key: EngineKey) -> Iterator[None]:
        """While nobody else builds in this folder: two would time their kernels against each other.

        The operating system drops the lock of a process that dies.
        """
        import fcntl

        waited = False
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((self.folder / ".lock").open("a"))
            except OSError:  # told when the engine cannot be kept
                lock = None
            start = time.monotonic()
            try:
                while lock is not None:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        waited = True
                        self._listener.busy(
                            f"waiting for another process that builds engines, then {key}: "
                            f"{time.monotonic() - start:.0f} s"
                        )
                        time.sleep(0.2)
            finally:
                if waited:
                    self._listener.idle()
            yield
