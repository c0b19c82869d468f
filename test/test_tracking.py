"""What the odometry does when its images do not show the camera's motion: lost, hidden, crowded, masked, on a plane."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from corridor import CAMERA, DRIVE, Corridor, Lorry, SceneDepth, pose, render, turn_deg

from depth_pose_ros import cli
from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.geometry import correspondences, se3
from depth_pose_ros.geometry.appearance import Look
from depth_pose_ros.geometry.planar import planar
from depth_pose_ros.geometry.rigidity import Scene
from depth_pose_ros.odometry import State
from depth_pose_ros.tracking.coasting import Coasting
from depth_pose_ros.tracking.crowd import Crowd, Mover
from depth_pose_ros.tracking.standard import Standard


def black(corridor, T):
    """What the odometry says to a black frame where there should be a view from ``T``."""
    frame = corridor.frame(T)
    return corridor.odometry.process(replace(frame, image=np.zeros_like(frame.image), gray=np.zeros_like(frame.gray)))


def sigmas(estimate, truth):
    """Errors of a pose in its standard deviations: the larger of position and rotation."""
    spread = np.sqrt(np.diag(estimate.pose_covariance))
    position = np.abs(estimate.T_odom_camera[:3, 3] - truth[:3, 3]) / spread[:3]
    rotation = np.abs(se3.so3_log(estimate.T_odom_camera[:3, :3] @ truth[:3, :3].T)) / spread[3:]
    return max(position.max(), rotation.max())


# ------------------------------------------------------------------------------------------------------------- lost
def straight(count, step=0.2):
    return [pose(z=step * i) for i in range(count)]


def test_a_lost_pose_is_held_and_doubted_more_and_more():
    corridor = Corridor(SceneDepth(), scale_source="network", lost_policy="hold")
    path = straight(12)
    for T in path[:4]:
        before = corridor.see(T)
    spreads = [np.trace(before.pose_covariance)]
    for T in path[4:9]:
        estimate = black(corridor, T)
        assert estimate.state is State.LOST and estimate.has_pose and estimate.dt == pytest.approx(0.1)
        np.testing.assert_array_equal(estimate.T_odom_camera, before.T_odom_camera)
        np.testing.assert_array_equal(estimate.T_previous_current, np.eye(4))
        spreads.append(np.trace(estimate.pose_covariance))
        assert sigmas(estimate, T) < 3.0
    assert (np.diff(spreads) > 0).all()
    # The first good frame finds the way again; its velocity is that of the whole time.
    after = corridor.see(path[9])
    assert after.state is State.TRACKING and after.dt == pytest.approx(0.6)
    assert np.linalg.norm(after.T_previous_current[:3, 3]) == pytest.approx(1.2, rel=0.1)
    assert corridor.see(path[10]).dt == pytest.approx(0.1)


def test_a_hand_that_turns_around_between_slow_frames_is_followed(shared_data, tmp_path):
    """Three frames a second: what the camera did before says little, and must not make the whole room a passer-by."""
    clip = shared_data / "7scenes_redkitchen_400"
    assert cli.main(["run", str(clip), "--step", "10", "--max-frames", "16", "--out", str(tmp_path)]) == 0
    rows = (tmp_path / "frames.csv").read_text().splitlines()[2:]
    assert [row.split(",")[1] for row in rows] == ["tracking"] * 15


def test_a_lost_pose_may_go_on_as_before():
    corridor = Corridor(SceneDepth(), scale_source="network", lost_policy="predict", lost_time=0.35)
    path = straight(12)
    for T in path[:4]:
        corridor.see(T)
    for T in path[4:7]:
        estimate = black(corridor, T)
        assert estimate.has_pose
        assert np.linalg.norm(estimate.T_odom_camera[:3, 3] - T[:3, 3]) < 0.1
    last = black(corridor, path[7])
    assert not last.has_pose  # for longer than lost_time
    assert np.linalg.norm(last.T_odom_camera[:3, 3] - path[3][:3, 3]) == pytest.approx(0.7, abs=0.1)
    assert corridor.see(path[8]).state is State.TRACKING


def test_a_lost_pose_may_be_given_up_at_once():
    corridor = Corridor(SceneDepth(), scale_source="network", lost_policy="stop")
    path = straight(5)
    for T in path[:3]:
        assert corridor.see(T).has_pose
    assert not black(corridor, path[3]).has_pose
    assert corridor.see(path[4]).has_pose


def test_after_two_seconds_in_the_dark_the_pose_goes_on_where_it_was():
    corridor = Corridor(SceneDepth(), scale_source="network")
    path = straight(26, step=0.1)
    for T in path[:3]:
        before = corridor.see(T)
    for T in path[3:22]:
        lost = black(corridor, T)
        assert sigmas(lost, T) < 3.0
    states = []
    for T in path[22:25]:
        after = corridor.see(T)
        states.append(after.state)
        assert sigmas(after, T) < 3.0
    assert states == [State.INITIALISING, State.TRACKING, State.TRACKING]
    moved = after.T_odom_camera[:3, 3] - before.T_odom_camera[:3, 3]
    np.testing.assert_allclose(moved, [0, 0, 0.2], atol=0.03)
    # What was not seen stays in doubt.
    assert np.trace(after.pose_covariance) > 0.9 * np.trace(lost.pose_covariance)


def test_a_gap_without_any_frame_is_doubted_as_well():
    corridor = Corridor(SceneDepth(), scale_source="network")
    for T in straight(3):
        before = corridor.see(T)
    corridor.time_ns += 2_000_000_000
    after = corridor.see(pose(z=3.0))
    assert after.state is State.INITIALISING and "2.10 s since" in after.reason
    np.testing.assert_array_equal(after.T_odom_camera, before.T_odom_camera)
    assert sigmas(after, pose(z=3.0)) < 3.0


def test_a_dark_start_is_no_loss():
    corridor = Corridor(SceneDepth(), scale_source="network")
    for _ in range(2):
        dark = black(corridor, DRIVE[0])
        assert dark.state is State.INITIALISING and "uniform" in dark.reason and dark.dt == 0.0
    assert corridor.see(DRIVE[0]).reason.startswith("the first frame")
    assert corridor.see(DRIVE[1]).state is State.TRACKING


def test_coasting_goes_on_at_the_last_velocity_and_doubts_with_time():
    coasting = Coasting()
    assert not coasting.knows
    step = se3.se3_exp(np.array([0.1, 0.0, 0.2, 0.0, 0.02, 0.0]))
    coasting.see(step, 0.1, distance=5.0)
    np.testing.assert_array_equal(coasting.motion(0.1), step)
    np.testing.assert_allclose(coasting.motion(0.3), step @ step @ step, atol=1e-9)
    for goes_on in (False, True):
        spread = [np.sqrt(np.diag(coasting.doubt(seconds, goes_on))) for seconds in (0.0, 1.0, 2.0)]
        np.testing.assert_allclose(spread[2], 2 * spread[1])
        assert not spread[0].any()
    held = np.sqrt(np.diag(coasting.doubt(1.0, goes_on=False)))
    assert held[0] > np.linalg.norm(step[:3, 3]) / 0.1 and held[3] > 0.2  # all that it may have missed
    for _ in range(50):
        coasting.see(np.eye(4), 0.1, distance=5.0)  # at rest for five seconds
    assert coasting.doubt(1.0, goes_on=False)[0, 0] < held[0] ** 2


# ---------------------------------------------------------------------------------------------------- why it is lost
GRAY = render(DRIVE[0])[0]


@pytest.mark.parametrize(
    "image, reason",
    [
        (GRAY, ""),
        (render(DRIVE[1])[0], ""),
        (np.clip(0.9 * GRAY + 20, 0, 255).astype(np.uint8), ""),
        ((0.03 * GRAY).astype(np.uint8), "% of the image is black"),
        (np.clip(GRAY * 4.0, 0, 255).astype(np.uint8), "% of the image is overexposed"),
        ((0.4 * GRAY).astype(np.uint8), "the exposure jumped"),
        (cv2.blur(GRAY, (25, 1)), "the image is blurred"),
        (cv2.blur(GRAY, (1, 25)), "the image is blurred"),
        ((110 + 0.1 * GRAY).astype(np.uint8), "there is little texture"),
    ],
    ids=["same", "next", "lighter", "black", "white", "darker", "across", "along", "fog"],
)
def test_what_is_wrong_with_an_image_is_said(image, reason):
    told = Look.of(image).why_unlike(Look.of(GRAY))
    assert reason in told if reason else told == "", told


def test_the_reason_of_a_loss_names_the_blur():
    corridor = Corridor(SceneDepth(), scale_source="network")
    for T in DRIVE[:2]:
        corridor.see(T)
    frame = corridor.frame(pose(z=3.0, x=1.0, yaw=60))
    blurred = replace(frame, gray=cv2.blur(frame.gray, (61, 1)), image=cv2.blur(frame.image, (41, 1)))
    corridor.depth.of_image[blurred.image.tobytes()] = render(DRIVE[2])[1]
    lost = corridor.odometry.process(blurred)
    assert lost.state is State.LOST and "the image is blurred" in lost.reason, lost.reason


# ------------------------------------------------------------------------------------- how far a motion is believed
def test_fewer_matches_and_blur_are_doubted_and_what_is_usual_is_not():
    standard, sharp = Standard(), Look.of(GRAY)
    assert standard.doubt(100, sharp, None) == 1.0  # nothing is usual yet
    standard.see(1000, sharp, 0.1)
    assert standard.doubt(150, sharp, sharp) == pytest.approx(1000 / 150)
    assert standard.doubt(1000, sharp, sharp) == pytest.approx(1.0) == standard.doubt(1200, None, None)
    assert standard.doubt(500, sharp, sharp) == pytest.approx(2.0)
    blurred = Look.of(cv2.blur(GRAY, (25, 1)))
    assert standard.doubt(1000, sharp, blurred) > 2.0 and standard.doubt(1000, blurred, sharp) > 2.0
    for _ in range(300):  # a place with fewer matches, for half a minute
        standard.see(500, sharp, 0.1)
    assert standard.doubt(500, sharp, sharp) == pytest.approx(1.0)


def white(gray):
    """A surface before the lens, darker towards the corners, with some noise."""
    v, u = np.mgrid[-1 : 1 : gray.shape[0] * 1j, -1 : 1 : gray.shape[1] * 1j]
    noise = np.random.default_rng(int(gray.sum()) % 1000).normal(0, 2.0, gray.shape)
    return np.clip(150 / (1 + 0.3 * (u**2 + v**2)) ** 2 + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "change, turn",
    [(None, 18.0), (lambda gray: cv2.blur(gray, (31, 1)), 4.0), (white, 0.0), (lambda gray: gray // 6, 0.0)],
    ids=["180 degrees a second", "blur", "white wall", "light"],
)
def test_a_pose_stays_within_its_three_sigma_whatever_is_seen(change, turn):
    """Mahalanobis distances of position and rotation, each of three dimensions; 99.7 % lie below 14.2."""
    corridor = Corridor(SceneDepth(), scale_source="network")
    yaw = 0.0
    for i in range(14):
        bad = 5 <= i < 9
        yaw += turn * bad
        T = pose(z=0.2 * i, yaw=yaw)
        estimate = corridor.see(T, change if bad else None)
        if i:
            C, found = estimate.pose_covariance, estimate.T_odom_camera
            moved, turned = found[:3, 3] - T[:3, 3], se3.so3_log(found[:3, :3] @ T[:3, :3].T)
            assert moved @ np.linalg.solve(C[:3, :3], moved) < 14.2, i
            assert turned @ np.linalg.solve(C[3:, 3:], turned) < 14.2, i
    assert estimate.state is State.TRACKING


# ------------------------------------------------------------------------------------------------------------ crowds
@pytest.mark.parametrize("depth", [None, SceneDepth()], ids=["no depth", "depth"])
def test_a_lorry_that_passes_does_not_move_a_camera_at_rest(depth):
    """It hides three quarters of the view from the first frame on."""
    corridor = Corridor(depth, Lorry(-6.0, 4.0), scale_source="none" if depth is None else "network")
    for i in range(12):
        estimate = corridor.see(np.eye(4))
        np.testing.assert_array_equal(estimate.T_odom_camera, np.eye(4), err_msg=str(i))
        assert i == 0 or estimate.state is State.STATIONARY


def test_a_lorry_that_hides_the_view_does_not_carry_a_moving_camera_along():
    """It comes from the right, is next to all that is seen for a second, and goes."""
    corridor = Corridor(SceneDepth(), Lorry(8.0, -8.0), scale_source="network")
    reasons, states = set(), []
    for i in range(34):
        T = pose(z=0.06 * i)
        estimate = corridor.see(T)
        states.append(estimate.state)
        reasons.add(estimate.reason)
        assert np.linalg.norm(estimate.T_previous_current[:3, 3]) < 3.0 * max(estimate.dt, 0.1), i  # the lorry: 8.0
    assert any("is not the world" in reason or "fills the view" in reason for reason in reasons), reasons
    assert states[-5:] == [State.TRACKING] * 5 and states.count(State.LOST) < 15
    assert np.linalg.norm(estimate.T_odom_camera[:3, 3] - T[:3, 3]) < 1.0
    assert turn_deg(estimate.T_odom_camera, T) < 10.0


def test_the_world_is_known_again_from_before_it_was_hidden():
    """While a lorry hides the view the camera turns back: what it did before says nothing of what it does after."""
    corridor = Corridor(SceneDepth(), Lorry(8.0, -10.0), scale_source="network")
    states = []
    for i in range(32):
        T = pose(z=0.06 * i if i < 16 else 0.9 - 0.09 * (i - 15))
        estimate = corridor.see(T)
        states.append(estimate.state)
    assert states[-7:] == [State.TRACKING] * 7, states
    assert np.linalg.norm(estimate.T_odom_camera[:3, 3] - T[:3, 3]) < 0.4


def test_only_a_camera_that_can_be_foretold_is_told_from_what_fills_its_view():
    rng = np.random.default_rng(2)
    rays_1 = np.stack([rng.uniform(-0.8, 0.8, 500), rng.uniform(-0.4, 0.4, 500), np.ones(500)])
    every = np.ones(500, bool)

    def judge(crowd, found, expected, suspect):
        points = found[:3, :3] @ (8.0 * rays_1) + found[:3, 3:]
        scene = Scene(rays_1, points / points[2], np.full(500, 8.0), 40.0, 300.0, 0.3)
        return crowd.judge(scene, found, every, expected, False, suspect).mover

    ahead, aside = pose(z=-0.3), pose(x=0.6)
    steady, shaken = Crowd(), Crowd()
    for i in range(10):
        assert judge(steady, ahead, ahead, ~every) is Mover.CAMERA
        assert judge(shaken, pose(x=0.3 * (-1) ** i, yaw=5.0 * (-1) ** i), ahead, ~every) is Mover.CAMERA
    assert judge(steady, aside, ahead, every) is Mover.PART
    assert judge(shaken, aside, ahead, every) is Mover.CAMERA


def test_what_passes_is_forgotten_where_nothing_is_known_again():
    """After the dark, what is seen then is the world."""
    corridor = Corridor(SceneDepth(), scale_source="network")
    for T in straight(4):
        corridor.see(T)
    corridor.odometry._crowd.note(corridor.odometry._stamp_ns, is_crowded=True)
    assert black(corridor, pose(z=0.8)).state is State.LOST
    assert corridor.odometry._crowd.since_ns is None
    corridor.see(pose(z=3.0, yaw=60.0))
    assert corridor.see(pose(z=3.2, yaw=60.0)).state is State.TRACKING


def test_what_passes_is_remembered_until_nothing_else_is_seen():
    crowd, second = Crowd(), 1_000_000_000
    crowd.note(10 * second, is_crowded=True)
    for later, is_clear, since in ((2, False, 10 * second), (4, False, 10 * second), (4, True, None)):
        crowd.note((10 + later) * second, is_crowded=False, is_clear=is_clear)
        assert crowd.since_ns == since
    crowd.note(20 * second, is_crowded=True)
    crowd.note(26 * second, is_crowded=False, is_clear=False)  # but not for ever
    assert crowd.since_ns is None


# ------------------------------------------------------------------------------------------- mask, plane, lost scale
def test_what_is_masked_is_not_matched():
    flow = FlowField(
        np.full((40, 80, 2), (8.0, 0.0), np.float32), np.full((40, 80, 2), (-8.0, 0.0), np.float32), None, 4
    )
    mask = np.ones((240, 480), bool)
    mask[180:] = False
    mask[:, 240:300] = False
    matches = correspondences.select(flow, 1000, mask)
    assert len(matches) > 300
    for points in (matches.points_1, matches.points_2):
        x, y = 1.5 * points.T
        assert y.max() < 181 and not ((x > 241) & (x < 299)).any()


def test_the_robots_own_body_under_a_mask_does_not_hold_it_back():
    """A quarter of the view rests, because it is the robot."""
    body = np.random.default_rng(5).integers(0, 255, (80, CAMERA.width), np.uint8)
    mask = np.ones((CAMERA.height, CAMERA.width), bool)
    mask[-80:] = False

    def drive(masked):
        corridor = Corridor(SceneDepth(), scale_source="network")
        for T in straight(5):
            frame = corridor.frame(T)
            depth = corridor.depth.of_image.pop(frame.image.tobytes())
            gray = frame.gray.copy()
            gray[-80:] = cv2.GaussianBlur(body, (0, 0), 1.5)
            image = cv2.cvtColor(cv2.resize(gray, (320, 160), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
            depth[-80:] = 0.5
            corridor.depth.of_image[image.tobytes()] = depth
            estimate = corridor.odometry.process(replace(frame, gray=gray, image=image, mask=mask if masked else None))
        return estimate

    estimate = drive(masked=True)
    assert estimate.T_odom_camera[2, 3] == pytest.approx(0.8, rel=0.1)
    assert np.isnan(estimate.depth[-25:]).all() and np.isfinite(estimate.depth[:-30]).all()
    assert (estimate.points_2[:, 1] < CAMERA.height - 75).all()


def test_a_planar_motion_turns_about_up_and_stays_level():
    up = np.array([0.0, -0.8, -0.6])
    T = se3.se3_exp(np.array([0.3, 0.1, 0.5, 0.02, -0.1, 0.04]))
    C = np.diag([1e-4] * 3 + [1e-5] * 3)
    level, C_level = planar(T, C, up)
    assert abs(level[:3, 3] @ up) < 1e-12
    np.testing.assert_allclose(level[:3, :3] @ up, up, atol=1e-12)
    np.testing.assert_allclose(np.cross(se3.so3_log(level[:3, :3]), up), 0, atol=1e-9)
    assert np.linalg.eigvalsh(C_level).min() > 0
    assert up @ C_level[:3, :3] @ up < 1e-8 and up @ C_level[3:, 3:] @ up == pytest.approx(1e-5)


def test_a_planar_camera_does_not_rise():
    corridor = Corridor(SceneDepth(), scale_source="network", planar=True)
    for i in range(5):
        estimate = corridor.see(pose(z=0.3 * i, y=-0.02 * i, yaw=2.0 * i, pitch=0.3 * i))
    assert estimate.T_odom_camera[1, 3] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(estimate.T_odom_camera[:3, 1], [0, 1, 0], atol=1e-9)
    assert estimate.T_odom_camera[2, 3] == pytest.approx(1.2, rel=0.06)
    assert turn_deg(estimate.T_odom_camera, pose(yaw=8.0)) < 0.3
