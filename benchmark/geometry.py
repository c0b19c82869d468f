"""What the geometry costs and how well it does, beside OpenCV's essential matrix in the same run, on exact scenes.

    python -m benchmark.geometry [--trials N] [--matches N]

Errors are medians over trials of which each has its own scene, motion and noise; a trial fails above 0.5 deg of
rotation or 10 deg of direction. Costs are medians on one core; on a machine with other work, compare the ratios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.geometry import correspondences, covariance, se3
from depth_pose_ros.geometry.ground_plane import find_ground
from depth_pose_ros.geometry.motion import estimate_motion
from depth_pose_ros.geometry.point_cloud import PointCloud
from depth_pose_ros.geometry.refine import refine
from depth_pose_ros.geometry.scale import align_scale
from depth_pose_ros.geometry.synthetic import TwoViews, two_views
from depth_pose_ros.geometry.triangulation import triangulate

CASES = {
    "street": {"noise_px": 0.5, "outliers": 0.3},
    "street, clean": {"noise_px": 0.3, "outliers": 0.1},
    "street, hard": {"noise_px": 1.0, "outliers": 0.5},
    "slow: 0.1 m": {"noise_px": 0.5, "outliers": 0.3, "translation": (0.0, 0.0, 0.1)},
    "sideways": {"noise_px": 0.5, "outliers": 0.3, "translation": (0.8, 0.0, 0.05)},
    "ground alone": {"noise_px": 0.5, "outliers": 0.3, "scene": "ground"},
    "wall alone": {"noise_px": 0.5, "outliers": 0.3, "scene": "wall"},
    "pure rotation": {"noise_px": 0.5, "outliers": 0.3, "translation": (0.0, 0.0, 0.0)},
    "standing still": {"noise_px": 0.5, "outliers": 0.3, "translation": (0.0, 0.0, 0.0), "rotation_deg": (0, 0, 0)},
}


def scene(case: dict, matches: int, seed: int) -> TwoViews:
    rng = np.random.default_rng(seed)
    options = {"translation": (0.0, 0.0, rng.uniform(0.3, 1.5)), "rotation_deg": rng.normal(0, (0.2, 1.0, 0.2))}
    unit = float(np.exp(rng.normal(0, 0.1)))
    return two_views(**{**options, **case}, matches=matches, depth_scale=unit, seed=seed)


def solvers(views: TwoViews) -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """By name: what gives (R, t) from the matches."""
    camera = views.camera
    focal = float(np.sqrt(camera.fx * camera.fy))

    def opencv(method: int) -> tuple[np.ndarray, np.ndarray]:
        E, mask = cv2.findEssentialMat(views.points_1, views.points_2, camera.K, method, 0.999, 1.0)
        _, R, t, _ = cv2.recoverPose(E[:3], views.points_1, views.points_2, camera.K, mask=mask)
        return R, t.ravel()

    def ours(depth: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        motion = estimate_motion(
            np.ascontiguousarray(camera.rays(views.points_1).T),
            np.ascontiguousarray(camera.rays(views.points_2).T),
            np.ones(len(views.points_1)),
            focal,
            covariance.tiles(views.points_1, camera.width, camera.height),
            depth,
            min_parallax_px=camera.width / 1000.0,
        )
        return motion.R, motion.t

    return {
        "ours, with depth": lambda: ours(views.network_depth_1),
        "ours, without": lambda: ours(None),
        "cv2 USAC_MAGSAC": lambda: opencv(cv2.USAC_MAGSAC),
        "cv2 USAC_FAST": lambda: opencv(cv2.USAC_FAST),
    }


def compare(trials: int, matches: int) -> None:
    header = f"{'scene':16s} {'solver':18s} {'rot deg':>8s} {'dir deg':>8s} {'dir p90':>8s} {'fail':>5s} {'ms':>6s}"
    print(f"Motion from {matches} matches, {trials} trials a scene\n{header}  cost / MAGSAC")
    for name, case in CASES.items():
        errors: dict[str, list] = {}
        for seed in range(trials):
            views = scene(case, matches, seed)
            R, t = views.T_2_1[:3, :3], views.T_2_1[:3, 3]
            for solver, solve in solvers(views).items():
                start = time.perf_counter()
                try:
                    R_found, t_found = solve()
                except cv2.error:
                    R_found, t_found = np.eye(3), np.array([0.0, 1.0, 0.0])
                ms = 1e3 * (time.perf_counter() - start)
                turn = np.degrees(se3.rotation_angle(R_found @ R.T))
                lengths = np.linalg.norm(t) * np.linalg.norm(t_found)
                away = np.degrees(np.arccos(np.clip(t_found @ t / lengths, -1, 1))) if lengths > 0 else np.nan
                errors.setdefault(solver, []).append((turn, away, turn > 0.5 or away > 10.0, ms))
        for solver, rows in errors.items():
            turn, away, failed, ms = np.transpose(rows).astype(float)
            moves = np.isfinite(away).any()
            middle, high = (np.nanmedian(away), np.nanpercentile(away, 90)) if moves else (np.nan, np.nan)
            ratio = np.median(ms / np.transpose(errors["cv2 USAC_MAGSAC"])[3].astype(float))
            print(
                f"{name:16s} {solver:18s} {np.median(turn):8.4f} {middle:8.3f} {high:8.2f} {100 * failed.mean():4.0f}% "
                f"{np.median(ms):6.2f}  {ratio:.2f}"
            )


def stages(trials: int, matches: int) -> None:
    """Every stage of one frame after the networks, and whole point clouds."""
    views = scene(CASES["street"], matches, 0)
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
        "motion, with depth": solve["ours, with depth"],
        "triangulation": lambda: triangulate(R, t, rays_1, rays_2),
        "scale, both frames": measure_scale,
        "ground plane (scale_source camera_height)": lambda: find_ground(
            rays_2, 1 / points.depth_2, focal * np.maximum(points.angle, 1e-6) * points.depth_2, -t, regions
        ),
    }
    beside = {
        "sub-pixel refinement (1226 x 370)": lambda: refine(gray, gray, chosen),
        "point cloud xyz + rgb (640 x 192)": lambda: cloud.xyz_rgb(depth, image),
        "cv2 USAC_MAGSAC, for comparison": solve["cv2 USAC_MAGSAC"],
    }
    print(f"\nStages, {matches} matches{'':32s} median ms  best ms")
    total = np.zeros(2)
    for name, function in {**work, **beside}.items():
        ms = []
        for _ in range(max(20, trials)):
            start = time.perf_counter()
            function()
            ms.append(1e3 * (time.perf_counter() - start))
        cost = np.array([np.median(ms), np.min(ms)])
        total += cost if name in work else 0.0
        print(f"{name:50s} {cost[0]:8.2f} {cost[1]:8.2f}")
    print(f"{'selection, motion, triangulation, scale, ground':50s} {total[0]:8.2f} {total[1]:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30, help="trials a scene (default: 30)")
    parser.add_argument("--matches", type=int, default=2000, help="matches (default: 2000)")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    compare(arguments.trials, arguments.matches)
    stages(arguments.trials, arguments.matches)


if __name__ == "__main__":
    main()
