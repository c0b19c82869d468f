"""Trajectory files and the metrics, against values worked out by hand and against evo."""

import os
import resource
from contextlib import contextmanager

import numpy as np
import pytest

from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.depth import depth_errors
from depth_pose_ros.evaluation.files import atomic_file, write_ply, write_text
from depth_pose_ros.evaluation.flow import flow_errors, read_flo
from depth_pose_ros.evaluation.trajectory import (
    Trajectory,
    compare,
    read_kitti,
    read_tum,
    relative_errors,
    seconds_to_ns,
    write_kitti,
    write_tum,
)
from depth_pose_ros.geometry.se3 import inverse, make_pose, se3_exp, so3_exp

START_NS = 1_700_000_000_123_456_789


def winding(n: int = 30, seed: int = 3) -> Trajectory:
    """A smooth path with every kind of turn, 10 Hz."""
    rng = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for _ in range(n - 1):
        poses.append(poses[-1] @ se3_exp(np.concatenate([[0.1, 0.02, 1.0], rng.normal(0, 0.1, 3)])))
    return Trajectory(START_NS + np.arange(n) * 100_000_000, np.array(poses))


def test_tum_file_round_trip_keeps_nanoseconds(tmp_path):
    path = tmp_path / "deep" / "trajectory.tum"
    sent = winding()
    write_tum(path, sent)
    got = read_tum(path)
    assert np.array_equal(got.stamps_ns, sent.stamps_ns)
    assert np.allclose(got.poses, sent.poses, atol=1e-8)


def test_kitti_file_round_trip(tmp_path):
    path = tmp_path / "poses.txt"
    sent = winding()
    write_kitti(path, sent)
    got = read_kitti(path, sent.stamps_ns)
    assert np.allclose(got.poses, sent.poses, atol=1e-8)


def test_tum_file_is_read_by_evo(tmp_path):
    file_interface = pytest.importorskip("evo.tools.file_interface")
    sent = winding()
    write_tum(tmp_path / "a.tum", sent)
    theirs = file_interface.read_tum_trajectory_file(str(tmp_path / "a.tum"))
    assert np.allclose(np.array(theirs.poses_se3), sent.poses, atol=1e-8)
    write_kitti(tmp_path / "a.kitti", sent)
    theirs = file_interface.read_kitti_poses_file(str(tmp_path / "a.kitti"))
    assert np.allclose(np.array(theirs.poses_se3), sent.poses, atol=1e-8)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1.0 0 0 0 0 0 0\n", "line 1: 7 values"),
        ("# t\n1.0 0 0 0 0 0 0 1\n2.0 0 0 x 0 0 0 1\n", "line 3"),
        ("1.0 0 0 nan 0 0 0 1\n", "not finite"),
        ("now 0 0 0 0 0 0 1\n", "'now' is not a time"),
        ("inf 0 0 0 0 0 0 1\n", "'inf' is not a time"),
        ("1.0 0 0 0 0 0 0 0\n", "no length"),
        ("2.0 0 0 0 0 0 0 1\n1.0 0 0 0 0 0 0 1\n", "go back"),
    ],
)
def test_a_bad_tum_file_says_what_is_wrong(tmp_path, text, says):
    path = tmp_path / "bad.tum"
    path.write_text(text)
    with pytest.raises(SequenceError, match=says):
        read_tum(path)


def test_missing_and_binary_trajectory_files(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00" * 9)
    for name in ("missing", "binary"):
        with pytest.raises(SequenceError, match=name):
            read_tum(tmp_path / name)


def test_kitti_file_of_another_length(tmp_path):
    write_kitti(tmp_path / "poses.txt", winding(5))
    with pytest.raises(SequenceError, match="5 poses for 6 frames"):
        read_kitti(tmp_path / "poses.txt", range(6))


def test_seconds_are_exact():
    assert seconds_to_ns("1403715273.262142976") == 1_403_715_273_262_142_976
    assert seconds_to_ns("1.305031102175304e9") == 1_305_031_102_175_304_000


def test_nearest_pose_in_time():
    path = winding(3)
    asked = START_NS + np.array([-30_000_000, -10_000_000, 0, 60_000_000, 109_000_000, 219_000_000, 10**12])
    assert path.at(asked).tolist() == [-1, 0, 0, -1, 1, 2, -1]


def test_a_perfect_estimate_has_no_error_in_any_frame_and_scale():
    truth = winding()
    world = make_pose(so3_exp(np.array([0.3, -1.0, 2.0])), np.array([5.0, 6.0, 7.0]))
    poses = truth.poses.copy()
    poses[:, :3, 3] *= 0.25
    estimate = Trajectory(truth.stamps_ns + 4_000_000, world @ poses)
    errors = relative_errors(estimate, truth)
    assert errors.pairs == 29
    assert errors.rotation.max() < 1e-6 and errors.direction.max() < 1e-6
    assert np.allclose(errors.log_scale, np.log(0.25)) and errors.scale_spread < 1e-9


def test_relative_errors_measure_what_was_put_in():
    """Each motion turned by 0.5 deg about z and lengthened alternately by 10 % shows up as just that."""
    truth = winding()
    poses = [np.eye(4)]
    for i, (a, b) in enumerate(zip(truth.poses, truth.poses[1:])):
        motion = inverse(b) @ a
        motion[:3, :3] = so3_exp(np.array([0, 0, np.radians(0.5)])) @ motion[:3, :3]
        motion[:3, 3] *= 1.1 if i % 2 else 1.0
        poses.append(poses[-1] @ inverse(motion))
    errors = relative_errors(Trajectory(truth.stamps_ns, np.array(poses)), truth)
    assert np.allclose(errors.rotation, 0.5)
    assert errors.direction.max() < 1e-6
    assert np.allclose(np.exp(errors.log_scale), [1.0 + 0.1 * (i % 2) for i in range(29)])


def test_standing_still_has_no_direction():
    still = Trajectory([0, 10**8, 2 * 10**8], np.stack([np.eye(4)] * 3))
    errors = relative_errors(still, still)
    assert errors.pairs == 2 and len(errors.direction) == 0 and np.isnan(errors.scale_spread)


def test_position_error_frees_first_pose_and_scale_alone():
    truth = winding()
    world = make_pose(so3_exp(np.array([0.3, -1.0, 2.0])), np.array([5.0, 6.0, 7.0]))
    scaled = truth.poses.copy()
    scaled[:, :3, 3] *= 0.25
    assert compare(Trajectory(truth.stamps_ns, world @ scaled), truth).position_error < 1e-9
    # Turned by 1 deg at the start: a similarity over the whole path would hide it.
    turned = truth.poses.copy()
    turned[1:] = make_pose(so3_exp(np.array([0, np.radians(1.0), 0])), np.zeros(3)) @ turned[1:]
    distance = np.linalg.norm(truth.poses[:, :3, 3], axis=1)
    error = compare(Trajectory(truth.stamps_ns, turned), truth).position_error
    assert error == pytest.approx(np.radians(1.0) * np.sqrt((distance**2).mean()), rel=0.05)
    assert compare(Trajectory(truth.stamps_ns + 10**10, turned), truth) is None


def test_depth_errors_by_hand():
    truth = np.array([[2.0, 4.0, 8.0, np.nan, np.inf, 100.0, 0.0]], np.float32)
    estimate = np.array([[2.0, 5.0, 4.0, 1.0, 1.0, 1.0, 1.0]], np.float32)
    errors = depth_errors(estimate, truth, median_scaling=False)
    assert errors.pixels == 3 and errors.scale == 1
    assert errors.abs_rel == pytest.approx((0 + 1 / 4 + 4 / 8) / 3)
    assert errors.sq_rel == pytest.approx((0 + 1 / 4 + 16 / 8) / 3)
    assert errors.rmse == pytest.approx(np.sqrt((0 + 1 + 16) / 3))
    assert errors.rmse_log == pytest.approx(np.sqrt((np.log(1.25) ** 2 + np.log(2) ** 2) / 3))
    assert (errors.delta_1, errors.delta_2, errors.delta_3) == pytest.approx((1 / 3, 2 / 3, 2 / 3))


def test_median_scaling_removes_the_unit():
    truth = np.random.default_rng(1).uniform(2, 30, (20, 30))
    errors = depth_errors(truth * 0.07, truth, median_scaling=True)
    assert errors.abs_rel < 1e-12 and errors.scale == pytest.approx(1 / 0.07)
    assert depth_errors(truth * 0.07, truth, median_scaling=False).abs_rel == pytest.approx(0.93)


def test_depth_that_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="resize"):
        depth_errors(np.ones((2, 3)), np.ones((3, 2)), False)
    with pytest.raises(ValueError, match="no pixel"):
        depth_errors(np.full((2, 2), np.nan), np.ones((2, 2)), True)


def test_flow_errors_by_hand():
    truth = np.zeros((1, 5, 2))
    truth[0, 4] = np.nan
    truth[0, 3] = (100, 0)
    estimate = np.zeros((1, 5, 2))
    estimate[0, 1] = (0.6, 0.8)
    estimate[0, 2] = (0, 5)
    estimate[0, 3] = (104, 0)
    errors = flow_errors(estimate, truth)
    assert errors.pixels == 4
    assert errors.epe == pytest.approx((0 + 1 + 5 + 4) / 4)
    assert (errors.under_1px, errors.under_3px) == (0.25, 0.5)
    assert errors.outliers == 0.25  # 4 px of 100 are less than 5 %
    assert flow_errors(estimate, truth, np.array([[True, False, False, False, False]])).epe == 0
    with pytest.raises(ValueError, match="no pixel"):
        flow_errors(estimate, truth, np.zeros((1, 5), bool))
    with pytest.raises(ValueError, match="shape"):
        flow_errors(estimate[..., :1], truth)


def test_a_flow_that_is_not_finite_is_an_error_not_a_gap():
    estimate = np.zeros((1, 2, 2))
    estimate[0, 0] = np.nan
    assert flow_errors(estimate, np.zeros((1, 2, 2))).under_1px == 0.5


def test_flo_file(tmp_path):
    flow = np.random.default_rng(2).normal(0, 5, (3, 4, 2)).astype("<f4")
    flow[1, 2] = 1e10
    data = b"PIEH" + np.array([4, 3], "<i4").tobytes() + flow.tobytes()
    (tmp_path / "a.flo").write_bytes(data)
    got = read_flo(tmp_path / "a.flo")
    assert np.isnan(got[1, 2]).all() and np.isnan(got).sum() == 2
    assert np.array_equal(got[0], flow[0])
    (tmp_path / "short.flo").write_bytes(data[:-4])
    (tmp_path / "other.flo").write_bytes(b"something else")
    for name in ("short.flo", "other.flo", "missing.flo"):
        with pytest.raises(SequenceError, match=name):
            read_flo(tmp_path / name)


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"half of the ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    write_text(path, "new")
    assert path.read_text() == "new"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_ply_file(tmp_path):
    points = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 9.0]])
    write_ply(tmp_path / "a.ply", points, np.array([[10, 20, 30], [40, 50, 60]], np.uint8))
    header, data = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    assert b"element vertex 2" in header
    vertices = np.frombuffer(data, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    assert np.array_equal(vertices["xyz"], points.astype("f4"))
    assert vertices["rgb"].tolist() == [[30, 20, 10], [60, 50, 40]]


@contextmanager
def full_disk():
    """No file may grow beyond 1000 bytes: what is written fails, as on a full disk. Not a fixture: that would last
    until pytest has told the outcome, which it may write to a file.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    short = Trajectory([0, 1], np.tile(np.eye(4), (2, 1, 1)))
    long = Trajectory(range(100), np.tile(np.eye(4), (100, 1, 1)))
    for write, name in ((write_tum, "a.tum"), (write_kitti, "a.txt")):
        write(tmp_path / name, short)
        before = (tmp_path / name).read_bytes()
        with pytest.raises(OSError), full_disk():
            write(tmp_path / name, long)
        assert (tmp_path / name).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tum", "a.txt"]
