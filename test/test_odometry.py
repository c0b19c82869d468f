"""VisualOdometry on rendered corridors with exact truth (corridor.py), and on real images where they are at hand."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from corridor import CAMERA, DRIVE, GROUND, SMALL, Corridor, DISFlow, SceneDepth, pose, render, turn_deg

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.geometry import correspondences, refine, se3
from depth_pose_ros.odometry import Frame, State, VisualOdometry, keeps_reference


# ---------------------------------------------------------------------------------------------------------- tracking
@pytest.mark.parametrize("unit", [1.0, 0.3])
def test_drive_in_the_unit_of_the_network(unit):
    corridor = Corridor(SceneDepth(unit), scale_source="network")
    first = corridor.see(DRIVE[0])
    assert first.state is State.INITIALISING and first.reason and first.dt == 0.0
    np.testing.assert_array_equal(first.T_odom_camera, np.eye(4))
    for i, T in enumerate(DRIVE[1:], 1):
        estimate = corridor.see(T)
        assert (estimate.state, estimate.reason) == (State.TRACKING, "")
        assert estimate.dt == pytest.approx(0.1) and estimate.stamp_ns == corridor.time_ns
        assert turn_deg(estimate.T_odom_camera, T) < 0.1
        assert np.linalg.norm(estimate.T_odom_camera[:3, 3] / unit - T[:3, 3]) < 0.06 * np.linalg.norm(T[:3, 3])
        step = se3.inverse(DRIVE[i - 1]) @ T
        assert turn_deg(estimate.T_previous_current, step) < 0.1
        assert np.linalg.norm(estimate.T_previous_current[:3, 3] / unit - step[:3, 3]) < 0.05
        # The depth has the unit of the translation, and its camera its pixels.
        truth = render(T)[1]
        ours = cv2.resize(estimate.depth, (CAMERA.width, CAMERA.height), interpolation=cv2.INTER_NEAREST) / unit
        assert abs(np.median(np.log(ours / truth))) < 0.06
        assert estimate.camera == CAMERA.resized(160, 80)
        assert estimate.scale.source == "network" and not estimate.scale.is_metric and estimate.scale.ok
        assert estimate.matches > 800 and estimate.inliers > 0.7 * estimate.matches and estimate.parallax_px > 1.0
        assert len(estimate.points_1) == len(estimate.points_2) == len(estimate.inlier_mask) == estimate.matches
        assert estimate.flow is not None
        for C in (estimate.motion_covariance, estimate.pose_covariance):
            assert np.linalg.eigvalsh(C).min() > 0
        assert set(estimate.timings_ms) >= {
            "flow",
            "depth",
            "correspondences",
            "refine",
            "pose",
            "triangulation",
            "scale",
        }


def test_errors_are_about_as_large_as_the_covariance_says():
    ratios = []
    # This flow has no errors that neighbours share, as a network's has: the covariance is cautious here.
    corridor = Corridor(SceneDepth(), scale_source="network", shared_error_px=0.0)
    for i in range(12):
        estimate = corridor.see(pose(z=0.4 * i, yaw=0.5 * i))
        if i:
            step = pose(z=0.4, yaw=0.5)
            step[:3, 3] = pose(yaw=0.5 * (i - 1))[:3, :3].T @ [0, 0, 0.4]
            error = se3.so3_log(estimate.T_previous_current[:3, :3] @ step[:3, :3].T)
            ratios.append(error @ np.linalg.solve(estimate.motion_covariance[3:, 3:], error) / 3.0)
    assert 0.005 < np.mean(ratios) < 3.0


def test_no_motion_is_said_to_be_known_better_than_the_shared_error():
    corridor = Corridor(SceneDepth(), scale_source="network", shared_error_px=2.0)
    corridor.see(pose())
    estimate = corridor.see(pose(z=0.4))
    shared = 2.0 * CAMERA.width / 1000.0 / np.sqrt(CAMERA.fx * CAMERA.fy)
    assert np.linalg.eigvalsh(estimate.motion_covariance[3:, 3:]).min() > 0.99 * shared**2


def test_start_pose():
    corridor = Corridor(SceneDepth(), scale_source="network")
    start = pose(x=5, yaw=90)
    corridor.odometry.reset(start)
    for T in DRIVE[:3]:
        estimate = corridor.see(T)
    np.testing.assert_allclose(estimate.T_odom_camera, start @ DRIVE[2], atol=0.06)


# ------------------------------------------------------------------------------------------------------------- scale
def test_camera_height_gives_metres_with_and_without_a_depth_network():
    for depth in (SceneDepth(0.4), None):
        corridor = Corridor(depth, scale_source="camera_height", camera_height=GROUND)
        for i in range(6):
            estimate = corridor.see(pose(z=0.4 * i))
        assert estimate.scale.is_metric and estimate.scale.source == "camera_height"
        assert estimate.T_odom_camera[2, 3] == pytest.approx(2.0, rel=0.08)
        if depth is not None:
            truth = cv2.resize(render(pose(z=2.0))[1], (160, 80), interpolation=cv2.INTER_NEAREST)
            assert abs(np.median(np.log(estimate.depth / truth))) < 0.08


def test_median_depth_is_fixed():
    corridor = Corridor(SceneDepth(0.4), scale_source="median_depth", median_depth=50.0, correct_depth=False)
    for T in DRIVE[:4]:
        estimate = corridor.see(T)
        assert np.median(estimate.depth) == pytest.approx(50.0, rel=0.02)
    unit = 50.0 / np.median(render(DRIVE[3])[1])
    assert np.linalg.norm(estimate.T_previous_current[:3, 3]) / unit == pytest.approx(0.42, rel=0.15)
    assert not estimate.scale.is_metric


def test_without_scale_the_first_baseline_is_one_and_the_rest_follows():
    for depth in (None, SceneDepth(7.0)):
        corridor = Corridor(depth, scale_source="none")
        lengths = []
        for z in (0.0, 0.3, 0.6, 1.2, 1.5):
            estimate = corridor.see(pose(z=z))
            lengths.append(np.linalg.norm(estimate.T_previous_current[:3, 3]))
            assert not estimate.scale.is_metric and estimate.scale.source == "none"
        np.testing.assert_allclose(lengths[1:], [1.0, 1.0, 2.0, 1.0], rtol=0.08)


def test_a_scale_that_cannot_be_had_is_not_claimed():
    for source in ("network", "median_depth"):
        corridor = Corridor(None, scale_source=source)
        for T in DRIVE[:3]:
            estimate = corridor.see(T)
            assert estimate.scale.source == "none" and not estimate.scale.is_metric and estimate.depth is None
    corridor = Corridor(SceneDepth(), scale_source="camera_height")
    assert not corridor.see(DRIVE[0]).scale.is_metric  # no ground seen yet


# ------------------------------------------------------------------------------------ little motion, and none at all
@pytest.mark.parametrize("depth", [None, SceneDepth()], ids=["no depth", "depth"])
def test_at_rest_nothing_drifts(depth):
    corridor = Corridor(depth, scale_source="none" if depth is None else "network")
    corridor.see(DRIVE[0])
    moving = corridor.see(DRIVE[1])
    rng = np.random.default_rng(0)
    for _ in range(4):
        frame = corridor.frame(DRIVE[1])
        noisy = np.clip(frame.gray + rng.normal(0, 3, frame.gray.shape), 0, 255).astype(np.uint8)
        if depth is not None:
            depth.of_image[frame.image.tobytes()] = render(DRIVE[1])[1]
        estimate = corridor.odometry.process(replace(frame, gray=noisy))
        assert estimate.state is State.STATIONARY and "standing still" in estimate.reason
        np.testing.assert_array_equal(estimate.T_previous_current, np.eye(4))
        np.testing.assert_array_equal(estimate.T_odom_camera, moving.T_odom_camera)
        assert (np.diag(estimate.motion_covariance) > 0).all()
    assert corridor.see(DRIVE[2]).state is State.TRACKING


def test_noise_is_no_motion_of_a_camera_at_rest():
    """When it gets dark, matches err by more than the threshold of standing still."""
    corridor, rng = Corridor(SceneDepth(), scale_source="network", stationary_px=0.3), np.random.default_rng(0)
    for i in range(9):
        sigma = 1.0 if i < 3 else 5.0
        frame = corridor.frame(
            DRIVE[0], lambda gray, sigma=sigma: (0.3 * gray + 80 + rng.normal(0, sigma, gray.shape)).astype(np.uint8)
        )
        estimate = corridor.odometry.process(frame)
        assert i == 0 or estimate.state is State.STATIONARY, i
        np.testing.assert_array_equal(estimate.T_odom_camera, np.eye(4))
    assert estimate.parallax_px > 0.3 * CAMERA.width / 1000


def test_slow_motion_adds_up():
    corridor = Corridor(SceneDepth(), scale_source="network")
    states = []
    for i in range(20):
        estimate = corridor.see(pose(x=0.004 * i))  # about a third of a pixel each
        states.append(estimate.state)
    assert State.LOST not in states and states[1] is State.STATIONARY and states[-1] is State.TRACKING
    np.testing.assert_allclose(estimate.T_odom_camera[:3, 3], [0.076, 0, 0], atol=0.015)


def test_pure_rotation_is_a_rotation():
    corridor = Corridor(SceneDepth(), scale_source="network")
    for i in range(5):
        estimate = corridor.see(pose(yaw=2.0 * i))
    assert estimate.state is State.TRACKING and estimate.model in ("rotation", "pnp")
    assert turn_deg(estimate.T_odom_camera, pose(yaw=8.0)) < 0.15
    assert np.linalg.norm(estimate.T_odom_camera[:3, 3]) < 0.03


# --------------------------------------------------------------------------------------------------- what goes wrong
def test_a_black_frame_is_told_and_bridged():
    corridor = Corridor(SceneDepth(), scale_source="network")
    corridor.see(DRIVE[0])
    before = corridor.see(DRIVE[1])
    frame = corridor.frame(DRIVE[2])
    black = corridor.odometry.process(replace(frame, image=np.zeros_like(frame.image), gray=np.zeros_like(frame.gray)))
    assert black.state is State.LOST and "uniform" in black.reason
    np.testing.assert_array_equal(black.T_odom_camera, before.T_odom_camera)
    assert np.trace(black.pose_covariance) > 4 * np.trace(before.pose_covariance)
    after = corridor.see(DRIVE[3])
    assert after.state is State.TRACKING
    assert np.linalg.norm(after.T_odom_camera[:3, 3] - DRIVE[3][:3, 3]) < 0.12  # nothing of the motion is missing
    assert np.trace(after.pose_covariance) < np.trace(black.pose_covariance)


def test_seeing_ahead_changes_nothing():
    corridor = Corridor(SceneDepth(), scale_source="network")
    frames = [corridor.frame(T) for T in DRIVE[:5]]
    frames[2] = replace(frames[2], image=np.zeros_like(frames[2].image), gray=np.zeros_like(frames[2].gray))
    one_by_one = [corridor.odometry.process(frame) for frame in frames]
    odometry = VisualOdometry(corridor.odometry.flow, corridor.depth, corridor.odometry.config)
    views = [odometry.see(frame) for frame in frames]  # all of them before the first is solved
    for wanted, view in zip(one_by_one, views):
        estimate = odometry.solve(view)
        assert (estimate.stamp_ns, estimate.state, estimate.reason) == (wanted.stamp_ns, wanted.state, wanted.reason)
        np.testing.assert_array_equal(estimate.T_odom_camera, wanted.T_odom_camera)
        np.testing.assert_array_equal(estimate.pose_covariance, wanted.pose_covariance)
    assert [e.state for e in one_by_one[1:]] == [State.TRACKING, State.LOST, State.TRACKING, State.TRACKING]


def test_noise_is_lost_and_the_way_goes_on_from_the_last_pose():
    corridor = Corridor(SceneDepth(), scale_source="network")
    rng = np.random.default_rng(0)
    for T in DRIVE[:2]:
        before = corridor.see(T)
    for _ in range(3):
        frame = corridor.frame(DRIVE[2])
        gray = rng.integers(0, 256, frame.gray.shape, np.uint8)
        image = rng.integers(0, 256, frame.image.shape, np.uint8)
        corridor.depth.of_image[image.tobytes()] = render(DRIVE[2])[1]
        lost = corridor.odometry.process(replace(frame, gray=gray, image=image))
        assert lost.state is State.LOST and lost.reason and lost.model == "none"
        np.testing.assert_array_equal(lost.T_odom_camera, before.T_odom_camera)
    # Somewhere else: the old reference is of no use, the last good frame is.
    elsewhere = [pose(x=-1, z=9, yaw=60), pose(x=-1, z=9.1, yaw=61), pose(x=-1, z=9.2, yaw=62)]
    states = [corridor.see(T).state for T in elsewhere]
    assert states[-1] is State.TRACKING
    step = corridor.see(pose(x=-1, z=9.3, yaw=63))
    assert turn_deg(step.T_previous_current, pose(yaw=1.0)) < 0.2


def test_gaps_and_stamps_that_go_back_start_a_new_pair_at_the_old_pose():
    corridor = Corridor(SceneDepth(), scale_source="network", max_gap=1.0)
    for T in DRIVE[:2]:
        before = corridor.see(T)
    for jump_ns, word in ((2_000_000_000, "2.10 s"), (-9_000_000_000, "went back")):
        corridor.time_ns += jump_ns
        again = corridor.see(DRIVE[3])
        assert again.state is State.INITIALISING and word in again.reason and again.dt == 0.0
        np.testing.assert_array_equal(again.T_odom_camera, before.T_odom_camera)
        on = corridor.see(DRIVE[4])
        assert on.state is State.TRACKING
        expected = before.T_odom_camera @ se3.inverse(DRIVE[3]) @ DRIVE[4]
        np.testing.assert_allclose(on.T_odom_camera, expected, atol=0.05)
        before = on


def test_a_camera_that_changes_starts_a_new_pair():
    corridor = Corridor(None, scale_source="none")
    corridor.see(DRIVE[0])
    frame = corridor.frame(DRIVE[1])
    other = replace(frame, gray=cv2.resize(frame.gray, (240, 120)), camera=CAMERA.resized(240, 120))
    estimate = corridor.odometry.process(other)
    assert estimate.state is State.INITIALISING and "camera" in estimate.reason


def test_flow_that_is_not_finite_is_lost_and_no_error():
    class Broken(DISFlow):
        def flow(self, features_1, features_2):
            flow = super().flow(features_1, features_2)
            flow.forward[...] = np.nan
            return flow

    corridor = Corridor(None, scale_source="none")
    corridor.odometry.flow = Broken(*SMALL)
    corridor.see(DRIVE[0])
    estimate = corridor.see(DRIVE[1])
    assert estimate.state is State.LOST and "0 matches" in estimate.reason


# --------------------------------------------------------------------------------------- matches from another process
def test_matches_from_elsewhere_give_the_same_motion():
    corridor, split = Corridor(SceneDepth(), scale_source="network"), VisualOdometry(None, None)
    flow, reference = DISFlow(*SMALL), None
    for i, T in enumerate([DRIVE[0], DRIVE[0], pose(x=0.002), *DRIVE[1:]]):
        frame = corridor.frame(T)
        whole = corridor.odometry.process(frame)
        matches = correspondences.Matches.empty()
        if reference is not None:
            field = flow.flow(flow.features(reference.image), flow.features(frame.image))
            matches = correspondences.select(field, 2000).resized(CAMERA.width / SMALL[0], CAMERA.height / SMALL[1])
            matches = refine.refine(reference.gray, frame.gray, matches)
        part = split.process_matches(
            frame.stamp_ns,
            CAMERA,
            reference.stamp_ns if reference else None,
            matches.points_1,
            matches.points_2,
            matches.scores,
            corridor.depth.depth(frame.image),
        )
        if reference is None or not keeps_reference(matches, CAMERA, split.config):
            reference = frame
        assert part.state is whole.state, i
        np.testing.assert_allclose(part.T_odom_camera, whole.T_odom_camera, atol=1e-9)


def test_a_reference_that_is_kept_over_a_gap_is_still_known():
    """As flow_node keeps it while the camera stands still, whatever time passes."""
    odometry = VisualOdometry(None, None, OdometryConfig(scale_source="none"))
    v, u = np.mgrid[10:230:10, 10:470:10]
    points = np.stack([u.ravel(), v.ravel()], 1).astype(np.float32)
    rest = points, points, np.ones(len(points)), None
    none = points[:0], points[:0], np.ones(0), None
    assert odometry.process_matches(0, CAMERA, None, *none).state is State.INITIALISING
    assert odometry.process_matches(100_000_000, CAMERA, 0, *rest).state is State.STATIONARY
    late = odometry.process_matches(7_100_000_000, CAMERA, 0, *rest)
    assert late.state is State.INITIALISING and "7.00 s since" in late.reason
    assert odometry.process_matches(7_200_000_000, CAMERA, 0, *rest).state is State.STATIONARY


@pytest.mark.parametrize("source", ["network", "median_depth"])
def test_a_first_motion_without_depth_of_its_own_is_as_long_as_earlier_depth_says(source):
    """The camera stands still with depth of one frame in three, as of a slow depth_node, and then sets out."""
    odometry = VisualOdometry(None, None, OdometryConfig(scale_source=source, median_depth=3.0))
    v, u = np.mgrid[10:230:10, 60:470:10]
    points = np.stack([u.ravel(), v.ravel()], 1).astype(np.float32)
    scores, flow = np.ones(len(points)), np.array([CAMERA.fx * 0.1 / 5.0, 0.0], np.float32)  # of a wall, in 5 m
    wall, sources, lengths = np.full((60, 120), 1.5, np.float32), set(), []
    for index in range(10):
        here = points + flow * max(index - 7, 0)
        before = points + flow * max(index - 8, 0)
        depth = wall if index % 3 == 0 and index < 9 else None
        reference = None if index == 0 else (index - 1) * 10**8
        estimate = odometry.process_matches(index * 10**8, CAMERA, reference, before, here, scores, depth)
        sources.add(estimate.scale.source)
        lengths.append(np.linalg.norm(estimate.T_previous_current[:3, 3]))
    assert sources == {source}
    unit = {"network": 1.5, "median_depth": 3.0}[source] / 5.0
    np.testing.assert_allclose(lengths, [0.0] * 8 + [0.1 * unit] * 2, rtol=0.05)
    assert estimate.scale.spread > 0.3 and not estimate.scale.ok


def test_depth_of_a_frame_at_rest_serves_the_reference_that_has_none():
    odometry = VisualOdometry(None, None, OdometryConfig(scale_source="network"))
    v, u = np.mgrid[10:230:10, 60:470:10]
    points = np.stack([u.ravel(), v.ravel()], 1).astype(np.float32)
    scores, flow = np.ones(len(points)), np.array([CAMERA.fx * 0.1 / 5.0, 0.0], np.float32)  # of a wall, in 5 m
    wall = np.full((60, 120), 1.5, np.float32)
    for index in range(9):
        here, depth = points + flow * max(index - 6, 0), wall if index == 3 else None
        estimate = odometry.process_matches(
            index * 10**8, CAMERA, None if index == 0 else 0, points, here, scores, depth
        )
        if index > 6:
            assert estimate.scale.ok and estimate.scale.spread < 0.45 and not estimate.reason
            assert np.linalg.norm(estimate.T_previous_current[:3, 3]) == pytest.approx(0.03, rel=0.05)


def test_matches_from_a_frame_that_never_came():
    odometry = VisualOdometry(None, None, OdometryConfig(scale_source="none"))
    none = np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32), None
    assert odometry.process_matches(100, CAMERA, None, *none).state is State.INITIALISING
    few = odometry.process_matches(200, CAMERA, 100, *none)
    assert few.state is State.LOST and "0 matches" in few.reason
    unknown = odometry.process_matches(300, CAMERA, 150, *none)
    assert unknown.state is State.INITIALISING and "not received" in unknown.reason
    bad = np.full((200, 2), np.nan, np.float32)
    assert odometry.process_matches(400, CAMERA, 300, bad, bad, np.ones(200), None).state is State.LOST


# --------------------------------------------------------------------------------------------------------- real images
def real_frames(folder, pattern, small, start=0, count=None):
    values = [line for line in (folder / "intrinsics.txt").read_text().splitlines() if not line.startswith("#")]
    fx, fy, cx, cy = (float(v) for v in " ".join(values).split()[:4])
    for i, path in enumerate(sorted(folder.glob(pattern))[start:][:count]):
        image = cv2.imread(str(path))
        camera = PinholeCamera(image.shape[1], image.shape[0], fx, fy, cx, cy)
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        yield Frame(i * 100_000_000, cv2.resize(image, small, interpolation=cv2.INTER_AREA), gray, camera)


def true_poses(folder):
    rows = [line.split() for line in (folder / "groundtruth_tum.txt").read_text().splitlines() if line[0] != "#"]
    poses = [se3.make_pose(se3.matrix_from_quaternion(np.float64(r[4:8])), np.float64(r[1:4])) for r in rows]
    return poses


def test_kitti_frame_to_frame_and_the_length_of_the_path_in_metres(shared_data):
    folder = shared_data / "kitti06_f000-050"
    odometry = VisualOdometry(DISFlow(640, 192), None, OdometryConfig(scale_source="camera_height", camera_height=1.65))
    frames, truth = (
        list(real_frames(folder, "image_0/*.png", (640, 192), start=25, count=14)),
        true_poses(folder)[25:39],
    )
    turns, directions, length = [], [], 0.0
    for i, frame in enumerate(frames):
        estimate = odometry.process(frame)
        if i:
            assert estimate.state is State.TRACKING
            step = se3.inverse(truth[i - 1]) @ truth[i]
            turns.append(turn_deg(estimate.T_previous_current, step))
            a, b = estimate.T_previous_current[:3, 3], step[:3, 3]
            directions.append(np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))
            length += np.linalg.norm(a)
    assert np.median(turns) < 0.03 and np.median(directions) < 0.4
    assert estimate.scale.is_metric
    true_length = sum(np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in pairwise(truth))
    assert length == pytest.approx(true_length, rel=0.1)


def test_a_drone_on_the_floor_stands_still(shared_data):
    odometry = VisualOdometry(DISFlow(512, 320), None, OdometryConfig(scale_source="none"))
    frames = real_frames(shared_data / "euroc_v101_stationary_40", "cam0/**/*.png", (512, 320), count=12)
    for i, frame in enumerate(frames):
        estimate = odometry.process(frame)
        assert i == 0 or estimate.state is State.STATIONARY
        np.testing.assert_array_equal(estimate.T_odom_camera, np.eye(4))
