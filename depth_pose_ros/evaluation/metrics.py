"""Errors of a whole trajectory: ATE and RPE after an alignment (by evo), and KITTI's errors over sub-lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depth_pose_ros.evaluation.trajectory import Trajectory, matched
from depth_pose_ros.geometry.se3 import inverse, rotation_angle

ALIGNMENTS = {
    "se3": "rotation and translation",
    "sim3": "rotation, translation and scale",
    "scale": "scale only, first poses equal",
}
"""What each alignment frees. On evo's command line: ``-a``, ``-as``, and ``-s --align_origin``."""

KITTI_LENGTHS = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0)
"""Sub-lengths of the KITTI odometry benchmark, m (Geiger et al., CVPR 2012)."""

KITTI_STEP = 10
"""The benchmark starts a segment at every tenth frame."""


@dataclass(frozen=True, eq=False)
class AlignedErrors:
    """A trajectory against the truth after one alignment (a key of ALIGNMENTS), over the matched poses.

    scale:        what the estimate was multiplied by; 1 for se3.
    ate, ate_mean, ate_median, ate_max: distance between the positions, m; ate is its root mean square.
    rpe:          translation of the error of the motion over one frame, root mean square, m.
    rpe_rotation: its rotation, root mean square, deg; no alignment changes it.
    positions:    (N, 3) aligned positions, m, in the truth's axes; distances: (N,) m to the true ones.
    """

    alignment: str
    scale: float
    ate: float
    ate_mean: float
    ate_median: float
    ate_max: float
    rpe: float
    rpe_rotation: float
    positions: np.ndarray
    distances: np.ndarray


def aligned_errors(estimate: Trajectory, truth: Trajectory, alignment: str) -> AlignedErrors | None:
    """ATE and RPE as evo's ``evo_ape`` and ``evo_rpe`` have them; None for fewer than three matched poses, or when all
    positions lie in one point or exactly on a line, for which evo defines no alignment.

    alignment: a key of ALIGNMENTS. ImportError without evo (pip install 'depth_pose_ros[eval]').
    """
    from evo.core.geometry import GeometryException
    from evo.core.metrics import APE, RPE, PoseRelation, StatisticsType, Unit
    from evo.core.trajectory import PoseTrajectory3D

    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment '{alignment}'; expected one of {', '.join(ALIGNMENTS)}")
    ours, theirs = matched(estimate, truth)
    if len(ours) < 3:
        return None
    seconds = (truth.stamps_ns[theirs] - truth.stamps_ns[theirs[0]]) / 1e9
    x, y = (
        PoseTrajectory3D(poses_se3=[pose.copy() for pose in poses], timestamps=seconds)
        for poses in (estimate.poses[ours], truth.poses[theirs])
    )
    try:
        *_, scale = x.align(y, correct_scale=alignment == "sim3", correct_only_scale=alignment == "scale")
    except GeometryException:
        return None
    if alignment == "scale":
        x.align_origin(y)
    ape = APE(PoseRelation.translation_part)
    ape.process_data((y, x))
    rpe = {}
    for relation in (PoseRelation.translation_part, PoseRelation.rotation_angle_deg):
        metric = RPE(relation, delta=1, delta_unit=Unit.frames)
        metric.process_data((y, x))
        rpe[relation] = metric.get_statistic(StatisticsType.rmse)
    return AlignedErrors(
        alignment=alignment,
        scale=float(scale),
        ate=float(ape.get_statistic(StatisticsType.rmse)),
        ate_mean=float(ape.get_statistic(StatisticsType.mean)),
        ate_median=float(ape.get_statistic(StatisticsType.median)),
        ate_max=float(ape.get_statistic(StatisticsType.max)),
        rpe=float(rpe[PoseRelation.translation_part]),
        rpe_rotation=float(rpe[PoseRelation.rotation_angle_deg]),
        positions=np.array(x.positions_xyz),
        distances=np.array(ape.error),
    )


@dataclass(frozen=True, eq=False)
class KittiErrors:
    """Errors over the sub-lengths of the KITTI odometry benchmark.

    t_rel:     mean over all segments of the translation error over the length, in %.
    r_rel:     likewise of the rotation error, in deg per 100 m.
    segments:  how many.
    by_length: length in m -> (t_rel, r_rel, segments) of that length.
    scaled:    whether the estimate was first multiplied by its best scale, as a path that is not metric needs.
    """

    t_rel: float
    r_rel: float
    segments: int
    by_length: dict[float, tuple[float, float, int]]
    scaled: bool


def kitti_errors(
    estimate: Trajectory, truth: Trajectory, scale: float | None = None, lengths: tuple[float, ...] = KITTI_LENGTHS
) -> KittiErrors | None:
    """The benchmark's errors over the matched poses; None when the true path is shorter than the shortest length.

    scale: what the estimate is multiplied by before; None leaves it as it is, which only a metric one can stand.
    """
    ours, theirs = matched(estimate, truth)
    E, G = estimate.poses[ours].copy(), truth.poses[theirs]
    if len(ours) < 2:
        return None
    if scale is not None:
        E[:, :3, 3] *= scale
    distance = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(G[:, :3, 3], axis=0), axis=1))])
    by_length: dict[float, tuple[float, float, int]] = {}
    all_t, all_r = [], []
    for length in lengths:
        t, r = [], []
        for first in range(0, len(G), KITTI_STEP):
            last = int(np.searchsorted(distance, distance[first] + length, side="right"))
            if last >= len(G):
                break
            error = inverse(inverse(E[first]) @ E[last]) @ (inverse(G[first]) @ G[last])
            t.append(100 * np.linalg.norm(error[:3, 3]) / length)
            r.append(100 * np.degrees(rotation_angle(error[:3, :3])) / length)
        if t:
            by_length[length] = (float(np.mean(t)), float(np.mean(r)), len(t))
            all_t += t
            all_r += r
    if not all_t:
        return None
    return KittiErrors(float(np.mean(all_t)), float(np.mean(all_r)), len(all_t), by_length, scale is not None)
