"""Whether the covariances tell the truth: errors on rendered sequences in units of what the odometry says of itself.

    python -m benchmark covariance [--keep]
    python -m benchmark.covariance [--seed S] [--count N] [--cache DIR] [--out FILE.json]

NEES is the normalised estimation error squared over its degrees of freedom: 1 where a covariance is right, more where
it promises too much. The errors of one scene go together, so it is the mean over scenes of their means, and its bounds
are those of one error a scene: 95 % of right covariances lie between them, or more. Within 1, 2 and 3 sigma is what
holds 68.3, 95.4 and 99.7 % of errors of that many dimensions. The unit of the odometry is not the metre: each sequence
is brought to the true length by one factor. Where the camera translates by what can be seen, it is that of its motion,
so the scale counts only as far as it varies; where it does not, as when it turns on the spot, the lengths of the steps
are noise and say nothing of the unit: there it is that of the depth in the first frame. A camera that sees nothing but
the sky is judged by its rotation alone.
"""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from benchmark.result import Guarded, Result, Table, markdown, note
from benchmark.timing import Reference
from benchmark.world_sequences import MOTIONS, RATE_HZ, WorldSequence, cached_sequence, first_depth
from depth_pose_ros.camera import PinholeCamera, network_size
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.engines import load_depth, load_flow
from depth_pose_ros.engines.engine import DepthEstimator, FlowEstimator
from depth_pose_ros.evaluation.files import write_text
from depth_pose_ros.geometry import se3
from depth_pose_ros.odometry import Estimate, Frame, State, VisualOdometry

SEED, COUNT = 7600, 12  # of the sequences; the constants were chosen on others, of seeds 5000 to 7500
SIGMAS = (0.683, 0.954, 0.997)  # what holds of errors within 1, 2 and 3 of them
SEEN = 0.004  # of the distance of the scene: the median true step from which on the unit is taken from the motion
FLOOR = 1e-18  # added to variances, so that a motion that is known exactly can be divided by


def track(sequence: WorldSequence) -> list[Estimate]:
    """The real networks and the odometry over a sequence, one thread."""
    height, width = sequence.images.shape[1:3]
    K = sequence.K
    camera = PinholeCamera(width, height, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    size = network_size((width, height), (640, 192), 64)
    odometry = VisualOdometry(*_networks(size), OdometryConfig())
    return [odometry.process(frame) for frame in frames_of(sequence.images, camera, size)]


@lru_cache
def _networks(size: tuple[int, int]) -> tuple[FlowEstimator, DepthEstimator]:
    return load_flow("default", *size, "auto", 1), load_depth("default", *size, "auto", 1)


def frames_of(images: np.ndarray, camera: PinholeCamera, size: tuple[int, int]) -> list[Frame]:
    """Frames of (F, H, W, 3) images of one camera."""
    return [
        Frame(
            round((index + 1) * 1e9 / RATE_HZ),
            cv2.resize(image, size, interpolation=cv2.INTER_AREA),
            cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
            camera,
        )
        for index, image in enumerate(images)
    ]


def errors(estimates: list[Estimate], poses: np.ndarray, depth: np.ndarray) -> dict[str, list[tuple[float, int]]]:
    """By what is judged: squared Mahalanobis distances of the errors, each with its degrees of freedom.

    poses: (F, 4, 4) true poses of the camera. depth: (h, w) true depth in the first frame.
    """
    since = [max(1, round(estimate.dt * RATE_HZ)) for estimate in estimates]  # frames; more than one after a loss
    steps = [(estimates[k], se3.inverse(poses[k - since[k]]) @ poses[k]) for k in range(1, len(poses))]
    lengths = [np.linalg.norm(T[:3, 3]) for _, T in steps]
    known = depth[np.isfinite(depth)]
    is_sky = not len(known)  # and nothing else: it shows turns alone
    is_seen = is_sky or np.median(lengths) > SEEN * np.median(known)
    factor = _factor(steps) if is_seen else _factor_of_depth(estimates[0].depth, depth)
    found: dict[str, list[tuple[float, int]]] = {}
    for estimate, T in steps:
        if estimate.state in (State.TRACKING, State.STATIONARY):
            error, C = _error(estimate.T_previous_current, T, estimate.motion_covariance, factor)
            found.setdefault("rotation", []).append((_squared(error[3:], C[3:, 3:]), 3))
            found.setdefault("translation", []).append((_squared(error[:3], C[:3, :3]), 3))
            if (length := np.linalg.norm(T[:3, 3])) > 1e-4:
                axes = np.linalg.svd(T[:3, 3][None] / length)[2]  # along the true motion, then across
                along, across = axes[:1], axes[1:]
                found.setdefault("length", []).append((_squared(along @ error[:3], along @ C[:3, :3] @ along.T), 1))
                found.setdefault("direction", []).append(
                    (_squared(across @ error[:3], across @ C[:3, :3] @ across.T), 2)
                )
            found.setdefault("step", []).append((_squared(error, C), 6))
    last = estimates[-1]
    error, C = _error(last.T_odom_camera, se3.inverse(poses[0]) @ poses[-1], last.pose_covariance, factor)
    found["path"] = [(_squared(error, C), 6)]
    found["path, position"] = [(_squared(error[:3], C[:3, :3]), 3)]
    found["path, rotation"] = [(_squared(error[3:], C[3:, 3:]), 3)]
    return {kind: values for kind, values in found.items() if not is_sky or "rotation" in kind}


def _factor(steps: list[tuple[Estimate, np.ndarray]]) -> float:
    """Units of the odometry in a metre: the median over the steps that translate by both accounts, of the half of them
    that claim to know their length best."""
    found = []
    for estimate, T in steps:
        t, true = estimate.T_previous_current[:3, 3], np.linalg.norm(T[:3, 3])
        length = np.linalg.norm(t)
        if length > 1e-9 and true > 1e-4:
            found.append((np.sqrt(t @ estimate.motion_covariance[:3, :3] @ t) / length**2, np.log(length / true)))
    best = sorted(found)[: (len(found) + 1) // 2]
    return float(np.exp(np.median([log for _, log in best]))) if best else 1.0


def _factor_of_depth(found: np.ndarray, true: np.ndarray) -> float:
    """Units of the odometry in a metre: the median over the pixels of one image."""
    found = cv2.resize(found, true.shape[::-1], interpolation=cv2.INTER_AREA)
    ratio = (found / true)[np.isfinite(true)]
    return float(np.median(ratio))


def _error(found: np.ndarray, true: np.ndarray, covariance: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    turn = se3.so3_log(true[:3, :3] @ found[:3, :3].T)
    return np.concatenate([factor * true[:3, 3] - found[:3, 3], turn]), covariance + FLOOR * np.eye(6)


def _squared(error: np.ndarray, C: np.ndarray) -> float:
    return float(error @ np.linalg.solve(C, error))


def summary(found: dict[str, dict[str, list[list[tuple[float, int]]]]]) -> Table:
    """By motion: NEES, its median over its expected median, and the shares inside; a list for each scene."""
    from scipy.stats import chi2

    rows = []
    for motion, kinds in found.items():
        shares = _inside(kinds)
        for kind, scenes in kinds.items():
            squared, freedoms = np.array([v[0] for scene in scenes for v in scene]), scenes[0][0][1]
            by_scene = [np.mean([v[0] for v in scene]) / freedoms for scene in scenes]
            bounds = chi2.ppf([0.025, 0.975], freedoms * len(scenes)) / (freedoms * len(scenes))
            inside = shares[kind]
            rows.append(
                [
                    f"{motion}, {kind}",
                    len(scenes),
                    len(squared),
                    f"{np.mean(by_scene):.2f}",
                    f"{bounds[0]:.2f} to {bounds[1]:.2f}",
                    f"{np.median(squared) / chi2.ppf(0.5, freedoms):.2f}",
                    *(f"{100 * share:.1f}" for share in inside),
                ]
            )
    columns = [
        "",
        "scenes",
        "errors",
        "NEES",
        "95 % bounds",
        "median over expected",
        "in 1 sigma, %",
        "2 sigma",
        "3 sigma",
    ]
    return Table("Errors in units of the covariance", columns, rows, "Expected inside: 68.3, 95.4 and 99.7 %.")


def _inside(kinds: dict[str, list[list[tuple[float, int]]]]) -> dict[str, list[float]]:
    """By what is judged: the shares of the errors within 1, 2 and 3 sigma."""
    from scipy.stats import chi2

    return {
        kind: [float(np.mean([q < chi2.ppf(share, n) for scene in scenes for q, n in scene])) for share in SIGMAS]
        for kind, scenes in kinds.items()
    }


def run(
    options: argparse.Namespace | None = None,
    reference: Reference | None = None,
    seed: int = SEED,
    count: int = COUNT,
    frames: int = 16,
    cache: Path | None = None,
) -> Result:
    """``count`` sequences of each motion through the shipped networks; the options of ``python -m benchmark`` and its
    reference change nothing."""
    cv2.setNumThreads(1)
    result = Result("covariance", {"seed": seed, "count": count, "frames": frames})
    found: dict[str, dict[str, list[list[tuple[float, int]]]]] = {}
    for motion in MOTIONS:
        for index in range(count):
            sequence = cached_sequence(motion, seed + index, frames, cache)
            note(f"covariance: {motion}, seed {seed + index}")
            depth = first_depth(motion, seed + index)
            for kind, values in errors(track(sequence), sequence.T_world_camera, depth).items():
                found.setdefault(motion, {}).setdefault(kind, []).append(values)
    result.tables = [summary(found)]
    result.details = {"inside": {motion: _inside(kinds) for motion, kinds in found.items()}}
    result.guarded = [
        Guarded(f"outside 3 sigma, {motion}, {kind}", "error", 1.0 - result.details["inside"][motion][kind][2])
        for motion in MOTIONS[:4]
        for kind in ("rotation", "direction")
    ]
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=COUNT, help="sequences of each motion")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--cache", type=Path, help="folder in which rendered sequences are kept")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    options = parser.parse_args()
    reference = Reference()
    document = run(None, reference, options.seed, options.count, options.frames, options.cache).document(reference)
    print(markdown(document))
    if options.out:
        write_text(options.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
