"""Does a backend compute what the network computed when it was exported? Compare with the stored images and outputs."""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from depth_pose_ros.engines.cache import write_atomically
from depth_pose_ros.engines.manifest import Manifest, sha256_of
from depth_pose_ros.errors import EngineError, ModelError

FLOW_LIMIT_PX = 0.1
DEPTH_LIMIT = 0.02
"""Mean errors that half precision stays under; a wrong kernel or layout is far above them."""
INT8_FLOW_LIMIT = 1e-4
"""Of the width of the image, for 8-bit files of flow: the stored images match so easily that more would hide a wrong
kernel (0.067 px at 320x96 and 0.15 px at 832x256 with every kernel mirrored; rightly made 0.006 and 0.032)."""


@dataclass(frozen=True)
class SelfCheck:
    """Outcome of a self-check.

    error: over the finite values; flow: mean end-point error in px, both directions; depth: mean relative error.
    limit: the largest error that passes.
    non_finite: how many output values are NaN or infinite.
    """

    model: str
    backend: str
    unit: str
    error: float
    limit: float
    non_finite: int

    @property
    def passed(self) -> bool:
        """Every value finite and the mean error under the limit."""
        return self.non_finite == 0 and self.error <= self.limit

    def __str__(self) -> str:
        verdict = "agrees" if self.passed else "DISAGREES"
        bad = f", {self.non_finite} values are not finite" if self.non_finite else ""
        return (
            f"{self.model} on {self.backend} {verdict} with its stored outputs: "
            f"mean error {self.error:.2g} {self.unit} (limit {self.limit:g}){bad}"
        )


def compare(
    manifest: Manifest, backend: str, outputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> SelfCheck:
    """Outputs (C, h, w) by name, as a backend gave them, against those that it should have given."""
    non_finite = sum(int(np.size(output) - np.isfinite(output).sum()) for output in outputs.values())
    with np.errstate(invalid="ignore", over="ignore"):
        if manifest.task == "flow":
            errors = [np.linalg.norm(outputs[name] - expected[name], axis=0) for name in ("forward", "backward")]
            unit, limit = "px", FLOW_LIMIT_PX
            if "int8" in backend:  # its words, see Runner.backend
                limit = INT8_FLOW_LIMIT * manifest.outputs.stride * expected["forward"].shape[2]
        else:
            name = manifest.outputs.names[0]
            errors = [np.abs(outputs[name] - expected[name]) / np.abs(expected[name])]
            unit, limit = "relative", DEPTH_LIMIT
    error = float(np.mean([np.mean(e[np.isfinite(e)]) if np.isfinite(e).any() else np.inf for e in errors]))
    return SelfCheck(manifest.name, backend, unit, error, limit, non_finite)


def reference(
    manifest: Manifest,
    width: int,
    height: int,
    on_cpu: Callable[[int, int], Callable[..., dict[str, np.ndarray]]],
    folder: Path,
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Images (height, width, 3) uint8 BGR, and the outputs that they must give at this size.

    An engine is built for one size, which is seldom that of the stored images. They are resized to it, and the CPU,
    once it has proved itself at their own size, says what must come out. Its answer is kept in ``folder``.

    on_cpu: width, height -> what runs the network on the CPU: images -> outputs by name.
    """
    stored = load_self_check(manifest)
    images = [stored[name] for name in manifest.inputs.names]
    own_height, own_width = images[0].shape[:2]
    if (own_width, own_height) == (width, height):
        return images, stored
    resized = [cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR) for image in images]
    identity = hashlib.sha256(f"{manifest.files['fp32'].sha256} {sha256_of(manifest.self_check)}".encode()).hexdigest()
    path = folder / f"{manifest.name}.{width}x{height}.{identity[:12]}.reference.npz"
    if (kept := _read(path, manifest.outputs.names)) is not None:
        return resized, kept
    proof = compare(manifest, "the CPU", on_cpu(own_width, own_height)(*images), stored)
    if not proof.passed:
        raise EngineError(f"{proof}; so it cannot judge another backend")
    expected = on_cpu(width, height)(*resized)
    content = io.BytesIO()
    np.savez(content, **expected)
    with contextlib.suppress(OSError):  # a folder that cannot be written costs a second at each start, nothing else
        write_atomically(path, content.getvalue())
    return resized, expected


def load_self_check(manifest: Manifest) -> dict[str, np.ndarray]:
    """The stored images (H, W, 3) uint8 BGR and outputs (C, h, w) float32, by the names of the network's own."""
    path = manifest.self_check
    if path is None:
        raise ModelError(f"{manifest.name} has no stored images for a self-check; export it again")
    try:
        return _load(path, (*manifest.inputs.names, *manifest.outputs.names))
    except READ_ERRORS as error:
        raise ModelError(f"cannot read the self-check {path}: {error}; export the network again") from error


READ_ERRORS = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)


def _load(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in names}


def _read(path: Path, names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """What was kept; None when there is nothing that can be used."""
    try:
        return _load(path, names)
    except READ_ERRORS:
        return None
