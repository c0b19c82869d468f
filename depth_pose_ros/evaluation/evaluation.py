"""All the numbers of one run against its truth."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.depth import DepthErrors
from depth_pose_ros.evaluation.flow import FlowErrors
from depth_pose_ros.evaluation.metrics import (
    ALIGNMENTS,
    KITTI_LENGTHS,
    AlignedErrors,
    KittiErrors,
    aligned_errors,
    kitti_errors,
)
from depth_pose_ros.evaluation.record import Record
from depth_pose_ros.evaluation.trajectory import (
    Comparison,
    RelativeErrors,
    compare,
    matched,
    relative_errors,
    scale_at_start,
)


@dataclass(frozen=True, eq=False)
class DepthStrip:
    """One frame whose depth is shown beside the truth.

    index:    of the frame in the sequence.
    image:    (H, W, 3) uint8 BGR or (H, W) gray.
    estimate: (H, W) float32 m after median scaling; truth: (H, W) float32 m; both NaN where unknown.
    """

    index: int
    image: np.ndarray
    estimate: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One run against its truth; what could not be measured is None or empty, and ``notes`` says why.

    motion:    from frame to frame; relative: the same for every pair.
    aligned:   ATE and RPE by alignment.
    depth:     by how it was compared, e.g. "median scaled"; means over the images.
    flow:      over the pixels of all pairs.
    """

    record: Record
    motion: Comparison | None = None
    relative: RelativeErrors | None = None
    aligned: dict[str, AlignedErrors] = field(default_factory=dict)
    kitti: KittiErrors | None = None
    depth: dict[str, DepthErrors] = field(default_factory=dict)
    depth_images: int = 0
    strips: list[DepthStrip] = field(default_factory=list)
    flow: FlowErrors | None = None
    flow_pairs: int = 0
    notes: list[str] = field(default_factory=list)

    def numbers(self) -> dict[str, Any]:
        """Every number by a name that says its unit, without NaN; for JSON and CSV."""
        record, found = self.record, {}
        found["frames"] = len(record.estimate)
        found |= {f"frames_{state}": count for state, count in record.states.items()}
        if self.motion is not None:
            m = self.motion
            found |= {
                "path_m": m.true_length,
                "path_estimated": m.length,
                "rotation_median_deg": m.rotation,
                "rotation_mean_deg": m.rotation_mean,
                "direction_median_deg": m.direction,
                "direction_mean_deg": m.direction_mean,
                "scale_spread": m.scale_spread,
                "position_error_m": m.position_error,
            }
        for name, errors in self.aligned.items():
            found |= {
                f"ate_{name}_m": errors.ate,
                f"ate_{name}_mean_m": errors.ate_mean,
                f"ate_{name}_median_m": errors.ate_median,
                f"ate_{name}_max_m": errors.ate_max,
                f"rpe_{name}_m": errors.rpe,
                f"scale_{name}": errors.scale,
                "rpe_rotation_deg": errors.rpe_rotation,
            }
        if self.kitti is not None:
            found |= {
                "kitti_t_rel_percent": self.kitti.t_rel,
                "kitti_r_rel_deg_per_100m": self.kitti.r_rel,
                "kitti_segments": self.kitti.segments,
                "kitti_scaled": self.kitti.scaled,
            }
            for length, (t, r, _) in self.kitti.by_length.items():
                found |= {f"kitti_t_rel_{length:g}m_percent": t, f"kitti_r_rel_{length:g}m_deg_per_100m": r}
        for name, errors in self.depth.items():
            key = name.replace(" ", "_").replace(",", "")
            found |= {f"depth_{key}_{error}": value for error, value in asdict(errors).items()}
        if self.depth:
            found["depth_images"] = self.depth_images
        if self.flow is not None:
            found |= {f"flow_{error}": value for error, value in asdict(self.flow).items()}
            found["flow_pairs"] = self.flow_pairs
        for stage, ms in record.stages.items():
            found |= {f"{stage}_median_ms": float(np.median(ms)), f"{stage}_p95_ms": float(np.percentile(ms, 95))}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}


def evaluate_trajectory(record: Record, lengths: tuple[float, ...] = KITTI_LENGTHS, **more: Any) -> Evaluation:
    """The errors of the path; ``more`` are fields of Evaluation that were measured elsewhere.

    ImportError without evo.
    """
    notes = list(more.pop("notes", []))
    if record.truth is None:
        notes.append("No true trajectory is known: the path was not measured.")
        return Evaluation(record, notes=notes, **more)
    motion = compare(record.estimate, record.truth)
    if motion is None:
        here, there = record.estimate.stamps_ns, record.truth.stamps_ns
        raise SequenceError(
            f"{record.name}: fewer than two poses have the time of a true one; the estimate spans "
            f"{here[0] / 1e9:.3f} to {here[-1] / 1e9:.3f} s, the truth {there[0] / 1e9:.3f} to {there[-1] / 1e9:.3f} s"
        )
    unmatched = len(record.estimate) - len(matched(record.estimate, record.truth)[0])
    if unmatched:
        notes.append(f"{unmatched} of {len(record.estimate)} poses have no true pose within 20 ms and were left out.")
    aligned = {name: errors for name in ALIGNMENTS if (errors := aligned_errors(record.estimate, record.truth, name))}
    if not aligned:
        notes.append("ATE and RPE were not measured: no alignment is defined for one point or a straight line.")
    scale = None
    if not record.metric:
        scale = aligned["sim3"].scale if aligned else scale_at_start(record.estimate, record.truth)
        notes.append(
            "The path is not said to be metric: only what frees the scale (Sim(3), scale only) judges it fairly."
        )
    kitti = kitti_errors(record.estimate, record.truth, scale, lengths)
    if kitti is not None and scale is not None:
        notes.append("t_rel and r_rel are those of the path multiplied by its best scale.")
    if kitti is None:
        shortest = min(lengths)
        whose = "KITTI's shortest sub-length" if tuple(lengths) == KITTI_LENGTHS else "the shortest sub-length"
        notes.append(
            f"t_rel and r_rel were not measured: the true path is {motion.true_length:.1f} m, {whose} {shortest:g} m."
        )
    elif tuple(lengths) != KITTI_LENGTHS:
        told = ", ".join(f"{length:g}" for length in lengths)
        notes.append(
            f"t_rel and r_rel are over {told} m, not over KITTI's 100 to 800 m: do not compare them with those."
        )
    relative = relative_errors(record.estimate, record.truth)
    return Evaluation(record, motion, relative, aligned, kitti, notes=notes, **more)
