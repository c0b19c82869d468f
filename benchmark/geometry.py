"""What the geometry costs and how well it does, beside OpenCV's solvers and TrianFlow's settings, on the same matches.

    python -m benchmark geometry [--keep]
    python -m benchmark.geometry [--trials N] [--matches N] [--out FILE.json]

TrianFlow's settings take a second and more a trial: they are run fewer times. Errors are medians over trials of which
each has its own scene, motion and noise; a trial fails above 0.5 deg of rotation or 10 deg of direction. Costs are
medians of CPU time on one core, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmark.result import Guarded, Result, Table, markdown
from benchmark.side_by_side import essential, trianflow
from benchmark.timing import Reference, Spread
from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.evaluation.files import write_text
from depth_pose_ros.geometry import correspondences, covariance, se3
from depth_pose_ros.geometry.ground_plane import find_ground
from depth_pose_ros.geometry.motion import estimate_motion
from depth_pose_ros.geometry.point_cloud import PointCloud
from depth_pose_ros.geometry.refine import refine
from depth_pose_ros.geometry.scale import align_scale
from depth_pose_ros.geometry.synthetic import TwoViews, two_views
from depth_pose_ros.geometry.triangulation import triangulate

SCENES = {
    "street, forward": {},
    "street, 0.1 m forward": {"translation": (0.0, 0.0, 0.1)},
    "street, sideways": {"translation": (0.8, 0.0, 0.05)},
    "street, 0.15 m sideways": {"translation": (0.15, 0.0, 0.0)},
    "room, sideways": {"scene": "room", "translation": (0.3, 0.0, 0.02)},
    "room, forward": {"scene": "room", "translation": (0.02, -0.02, 0.25)},
    "ground alone, forward": {"scene": "ground"},
    "ground alone, sideways": {"scene": "ground", "translation": (0.8, 0.0, 0.05)},
    "wall alone, forward": {"scene": "wall"},
    "pure rotation": {"translation": (0.0, 0.0, 0.0)},
}
OUTLIERS = (0.1, 0.3, 0.5)
NOISE_PX = 0.5
SELDOM_TRIALS = 8  # of TrianFlow's settings
OURS, ORIGINAL = "ours, with depth", "TrianFlow's settings"


def scene(case: dict, matches: int, seed: int) -> TwoViews:
    """One trial: a scene with a motion, noise and depth errors of its own."""
    rng = np.random.default_rng(seed)
    options = {"translation": (0.0, 0.0, rng.uniform(0.3, 1.5)), "rotation_deg": rng.normal(0, (0.2, 1.0, 0.2))}
    unit = float(np.exp(rng.normal(0, 0.1)))
    return two_views(**{**options, **case}, matches=matches, noise_px=NOISE_PX, depth_scale=unit, seed=seed)


def solvers(views: TwoViews) -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """By name: what gives (R, t) from the matches."""
    camera, p, q = views.camera, views.points_1, views.points_2

    def ours(depth: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        motion = estimate_motion(
            np.ascontiguousarray(camera.rays(p).T),
            np.ascontiguousarray(camera.rays(q).T),
            views.scores,
            float(np.sqrt(camera.fx * camera.fy)),
            covariance.tiles(p, camera.width, camera.height),
            depth,
            min_parallax_px=camera.width / 1000.0,
        )
        return motion.R, motion.t

    return {
        OURS: lambda: ours(views.network_depth_1),
        "ours, without": lambda: ours(None),
        "USAC_MAGSAC": lambda: essential(p, q, camera.K, cv2.USAC_MAGSAC, 1.0),
        "USAC_FAST": lambda: essential(p, q, camera.K, cv2.USAC_FAST, 1.0),
        "USAC_ACCURATE": lambda: essential(p, q, camera.K, cv2.USAC_ACCURATE, 1.0),
        "RANSAC": lambda: essential(p, q, camera.K, cv2.RANSAC, 1.0),
        ORIGINAL: lambda: trianflow(p, q, camera.K),
    }


def compare(trials: int, matches: int, reference: Reference | None = None) -> dict[str, dict[str, list[list[float]]]]:
    """By scene and share of outliers, and by solver: rotation deg, direction deg, failed, ms of each trial."""
    results: dict[str, dict[str, list[list[float]]]] = {}
    for name, case in SCENES.items():
        for share in OUTLIERS:
            rows = results.setdefault(f"{name}, {100 * share:.0f} %", {})
            if reference is not None:
                reference.measure()
            for seed in range(trials):
                views = scene({**case, "outliers": share}, matches, seed)
                R, t = views.T_2_1[:3, :3], views.T_2_1[:3, 3]
                for solver, solve in solvers(views).items():
                    if solver == ORIGINAL and seed >= SELDOM_TRIALS:
                        continue
                    cv2.setRNGSeed(seed)
                    start = time.process_time()
                    try:
                        R_found, t_found = solve()
                    except cv2.error:
                        R_found, t_found = np.eye(3), np.array([0.0, 1.0, 0.0])
                    ms = 1e3 * (time.process_time() - start)
                    turn = np.degrees(se3.rotation_angle(R_found @ R.T))
                    lengths = np.linalg.norm(t) * np.linalg.norm(t_found)
                    away = np.degrees(np.arccos(np.clip(t_found @ t / lengths, -1, 1))) if lengths > 0 else 90.0
                    away = away if t.any() else np.nan  # a rotation has no direction to miss
                    rows.setdefault(solver, []).append([turn, away, float(turn > 0.5 or away > 10.0), ms])
    return results


def run(
    options: argparse.Namespace | None = None,
    reference: Reference | None = None,
    trials: int = 10,
    matches: int = 2000,
) -> Result:
    """The comparison and the stages, as tables; means over the trials in the details.

    The options of ``python -m benchmark`` change nothing.
    """
    cv2.setNumThreads(1)
    result = Result("geometry", {"trials": trials, "matches": matches, "noise_px": NOISE_PX, "seeds": [0, trials - 1]})
    compared = compare(trials, matches, reference)
    names = list(solvers(scene({}, 20, 0)))
    cells = []
    for title, rows in compared.items():
        line = [title]
        for name in names:
            turn, away, failed, _ = np.transpose(rows[name])
            direction = f"{np.median(away):.2f}" if np.isfinite(away).all() else "-"
            line.append(f"{np.median(turn):.3f} / {direction} / {100 * failed.mean():.0f}")
        cells.append(line)
    times = {name: [row[3] for rows in compared.values() for row in rows[name]] for name in names}
    cost = {name: float(np.median(ms)) for name, ms in times.items()}
    cells.append(["CPU time, ms", *(f"{cost[name]:.1f}" for name in names)])
    better = [_count_better(list(compared.values()), i) for i in (0, 1)]
    note = (
        f"Median rotation error deg / direction error deg / failures %, {trials} trials each, TrianFlow's settings "
        f"{min(trials, SELDOM_TRIALS)}. Ours with depth takes {cost[ORIGINAL] / cost[OURS]:.0f} times less CPU time "
        f"than those; on the same trials its rotation is better in {better[0]}, its direction in {better[1]}."
    )
    result.tables = [
        Table(f"Motion from {matches} matches", ["", *names], cells, note),
        stages(max(trials, 20), matches),
    ]
    for i, what in enumerate(("rotation", "direction")):
        errors = [np.median([row[i] for row in rows[OURS]]) for rows in compared.values()]
        result.guarded.append(Guarded(f"{what}, mean over rows, deg", "error", float(np.nanmean(errors))))
    result.guarded.append(Guarded("the solver", "ms, one core", Spread.of(times[OURS]).low))
    result.details = {
        "columns": ["rotation deg", "direction deg", "failed", "ms"],
        "means": {
            title: {name: np.mean(of, 0).tolist() for name, of in rows.items()} for title, rows in compared.items()
        },
    }
    return result


def _count_better(compared: list[dict[str, list[list[float]]]], column: int) -> str:
    """In how many rows the median error of ours is below that of TrianFlow's settings, on the trials of both."""
    better = of = 0
    for rows in compared:
        count = len(rows[ORIGINAL])
        ours, original = (np.median([row[column] for row in rows[name][:count]]) for name in (OURS, ORIGINAL))
        if np.isfinite(ours):
            better, of = better + int(ours < original), of + 1
    return f"{better} of {of} rows"


def stages(trials: int, matches: int) -> Table:
    """Every stage of one frame after the networks, and whole point clouds."""
    views = scene({"outliers": 0.3}, matches, 0)
    camera = views.camera
    focal = float(np.sqrt(camera.fx * camera.fy))
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 0.3, (2, 48, 160, 2)).astype(np.float32)
    field = FlowField(flow[0] + 3.0, flow[1] - 3.0, None, 4)
    chosen = correspondences.select(field, matches).resized(1226 / 640, 370 / 192)
    gray = cv2.GaussianBlur(rng.integers(0, 256, (370, 1226), np.uint8), (0, 0), 1.5)
    R, t = views.T_2_1[:3, :3], views.T_2_1[:3, 3]
    rays_1, rays_2 = (np.ascontiguousarray(camera.rays(p).T) for p in (views.points_1, views.points_2))
    points = triangulate(R, t, rays_1, rays_2)
    regions = covariance.tiles(views.points_1, camera.width, camera.height)
    solve = solvers(views)
    big = PinholeCamera(640, 192, 370.0, 370.0, 319.5, 95.5)
    cloud, depth, image = PointCloud(big), np.full((192, 640), 9.0, np.float32), np.zeros((192, 640, 3), np.uint8)

    def measure_scale() -> None:
        both = np.concatenate([points.depth_1, points.depth_2])
        network = np.concatenate([views.network_depth_1, views.network_depth_2])
        align_scale(both, network, 0.01, np.tile(regions, 2))

    work = {
        "occlusion, score, selection (160 x 48 cells)": lambda: correspondences.select(field, matches),
        "motion, with depth": solve[OURS],
        "triangulation": lambda: triangulate(R, t, rays_1, rays_2),
        "scale, both frames": measure_scale,
        "ground plane (scale_source camera_height)": lambda: find_ground(
            rays_2, 1 / points.depth_2, focal * np.maximum(points.angle, 1e-6) * points.depth_2, -t, regions
        ),
    }
    beside = {
        "sub-pixel refinement (1226 x 370)": lambda: refine(gray, gray, chosen),
        "point cloud xyz + rgb (640 x 192)": lambda: cloud.xyz_rgb(depth, image),
        "USAC_MAGSAC, for comparison": solve["USAC_MAGSAC"],
    }
    rows, total = [], np.zeros(2)
    for name, function in {**work, **beside}.items():
        ms = []
        for _ in range(trials):
            start = time.process_time()
            function()
            ms.append(1e3 * (time.process_time() - start))
        cost = np.array([np.median(ms), np.min(ms)])
        total += cost if name in work else 0.0
        rows.append([name, float(cost[0]), float(cost[1])])
    rows.insert(len(work), ["together, of these", float(total[0]), float(total[1])])
    return Table(f"Stages on one core, {matches} matches", ["", "median ms", "best ms"], rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10, help="trials a scene (default: 10)")
    parser.add_argument("--matches", type=int, default=2000, help="matches (default: 2000)")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    arguments = parser.parse_args()
    reference = Reference()
    document = run(None, reference, arguments.trials, arguments.matches).document(reference)
    print(markdown(document))
    if arguments.out:
        write_text(arguments.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
