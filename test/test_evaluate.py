"""``depth_pose evaluate`` and ``compare``: numbers equal to evo's and to a hand's, reports that are whole."""

import csv
import json
import re
import sys
import zipfile
from importlib.metadata import entry_points
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("evo")
pytest.importorskip("matplotlib")

from test_cli import DisFlow, make_drive
from test_evaluation import winding

from depth_pose_ros import cli
from depth_pose_ros import run as run_command
from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.evaluation.depth import EIGEN_CROP, DepthErrors, eigen_crop, mean_depth_errors
from depth_pose_ros.evaluation.evaluate import DepthComparison
from depth_pose_ros.evaluation.evaluation import evaluate_trajectory
from depth_pose_ros.evaluation.metrics import aligned_errors, kitti_errors
from depth_pose_ros.evaluation.record import Record, read_record
from depth_pose_ros.evaluation.trajectory import Trajectory, matched, write_kitti, write_tum
from depth_pose_ros.geometry.se3 import make_pose, se3_exp, so3_exp
from depth_pose_ros.odometry import VisualOdometry
from depth_pose_ros.sequences import open_sequence

WORLD = make_pose(so3_exp(np.array([0.3, -1.0, 2.0])), np.array([5.0, 6.0, 7.0]))


def evaluate(*arguments) -> int:
    return cli.main(["evaluate", *(str(argument) for argument in arguments)])


def compare(*arguments) -> int:
    return cli.main(["compare", *(str(argument) for argument in arguments)])


def noisy(truth: Trajectory, scale: float = 0.4, seed: int = 0) -> Trajectory:
    """Elsewhere, at another scale, every pose off by 5 cm and 1 deg."""
    rng = np.random.default_rng(seed)
    poses = []
    for pose in truth.poses:
        pose = pose @ se3_exp(np.concatenate([rng.normal(0, 0.05, 3), rng.normal(0, 0.02, 3)]))
        pose[:3, 3] *= scale
        poses.append(WORLD @ pose)
    return Trajectory(truth.stamps_ns, np.array(poses))


# ------------------------------------------------------------------------------------------------------- the numbers
@pytest.mark.parametrize(
    ("alignment", "options"), [("se3", ["-a"]), ("sim3", ["-as"]), ("scale", ["-s", "--align_origin"])]
)
def test_ate_and_rpe_are_those_of_evos_command_line(tmp_path, monkeypatch, alignment, options):
    """The files that we write, through the commands evo_ape and evo_rpe."""
    truth = winding()
    estimate = noisy(truth)
    write_tum(tmp_path / "truth.tum", truth)
    write_tum(tmp_path / "estimate.tum", estimate)
    files = ["tum", str(tmp_path / "truth.tum"), str(tmp_path / "estimate.tum")]

    def evo(command, *more) -> dict[str, float]:
        result = tmp_path / "result.zip"
        result.unlink(missing_ok=True)
        words = [*files, *options, *more, "--save_results", str(result), "--no_warnings", "--silent"]
        monkeypatch.setattr(sys, "argv", [command, *words])
        (script,) = entry_points(group="console_scripts", name=command)
        assert not script.load()()
        with zipfile.ZipFile(result) as archive:
            return json.loads(archive.read("stats.json"))

    ours = aligned_errors(estimate, truth, alignment)
    ape = evo("evo_ape")
    assert (ours.ate, ours.ate_mean, ours.ate_median, ours.ate_max) == pytest.approx(
        (ape["rmse"], ape["mean"], ape["median"], ape["max"]), rel=1e-5
    )
    step = ("--delta", "1", "--delta_unit", "f")
    assert ours.rpe == pytest.approx(evo("evo_rpe", *step)["rmse"], rel=1e-5)
    degrees = evo("evo_rpe", *step, "-r", "angle_deg")
    assert ours.rpe_rotation == pytest.approx(degrees["rmse"], rel=1e-5)


def straight(metres: int) -> Trajectory:
    """A pose each metre along the optical axis, ten a second."""
    poses = np.stack([make_pose(np.eye(3), np.array([0.0, 0.0, i])) for i in range(metres + 1)])
    return Trajectory(np.arange(metres + 1) * 100_000_000, poses)


def bent(metres: int) -> Trajectory:
    """The same with a step to the right half way."""
    path = straight(metres)
    path.poses[metres // 2 :, 0, 3] = 0.5
    return path


def test_kitti_errors_by_hand():
    """2 % too long; and turning by 0.01 deg each metre. A segment ends at the first pose beyond its length: L + 1 m."""
    truth = straight(450)
    long = Trajectory(truth.stamps_ns, truth.poses.copy())
    long.poses[:, :3, 3] *= 1.02
    found = kitti_errors(long, truth)
    assert list(found.by_length) == [100, 200, 300, 400]
    for length, (t_rel, r_rel, segments) in found.by_length.items():
        assert t_rel == pytest.approx(2.0 * (length + 1) / length)
        assert r_rel == pytest.approx(0, abs=1e-6)
        assert segments == (450 - length - 1) // 10 + 1
    assert found.segments == 35 + 25 + 15 + 5
    assert found.t_rel == pytest.approx((35 * 2.02 + 25 * 2.01 + 15 * 2 * 301 / 300 + 5 * 2.005) / 80)
    assert kitti_errors(long, truth, scale=1 / 1.02).t_rel == pytest.approx(0, abs=1e-9)

    turn = make_pose(so3_exp(np.array([0, np.radians(0.01), 0])), np.array([0.0, 0.0, 1.0]))
    poses = [np.eye(4)]
    while len(poses) < len(truth):
        poses.append(poses[-1] @ turn)
    found = kitti_errors(Trajectory(truth.stamps_ns, np.array(poses)), truth, lengths=(100.0,))
    assert found.r_rel == pytest.approx(101 * 0.01, rel=1e-6)  # deg per 100 m


def test_a_path_too_short_for_kitti_is_told():
    truth = straight(60)
    evaluation = evaluate_trajectory(Record("short", truth, truth))
    assert evaluation.kitti is None
    assert any("the true path is 60.0 m, KITTI's shortest sub-length 100 m" in note for note in evaluation.notes)
    evaluation = evaluate_trajectory(Record("short", truth, truth), lengths=(20.0, 40.0))
    assert evaluation.kitti.segments == 4 + 2
    assert any("not over KITTI's" in note for note in evaluation.notes)


def test_a_metric_run_is_judged_as_it_is():
    truth = bent(150)
    longer = Trajectory(truth.stamps_ns, truth.poses.copy())
    longer.poses[:, :3, 3] *= 1.1
    for metric, t_rel in (("true", 10.05), ("false", 0.0)):
        evaluation = evaluate_trajectory(Record("run", longer, truth, [{"metric": metric, "state": "tracking"}]))
        assert evaluation.kitti.t_rel == pytest.approx(t_rel, abs=0.1)
        assert evaluation.kitti.scaled == (metric == "false")
        assert any("not said to be metric" in note for note in evaluation.notes) == (metric == "false")


def test_one_point_has_no_alignment():
    truth = winding()
    still = Trajectory(truth.stamps_ns, np.stack([np.eye(4)] * len(truth)))
    assert aligned_errors(still, truth, "sim3") is None
    assert aligned_errors(winding(2), truth, "se3") is None
    with pytest.raises(ValueError, match="umeyama"):
        aligned_errors(truth, truth, "umeyama")
    assert evaluate_trajectory(Record("still", still, truth)).aligned == {}


def test_eigen_crop_and_means():
    inside = eigen_crop(375, 1242)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (124, 342, 44, 1197)  # as published for this size
    assert len(EIGEN_CROP) == 4
    a, b = DepthErrors(0.1, 1, 2, 3, 0.5, 0.6, 0.7, 10, 2.0), DepthErrors(0.3, 3, 4, 5, 0.7, 0.8, 0.9, 30, 4.0)
    mean = mean_depth_errors([a, b])
    assert (mean.abs_rel, mean.pixels, mean.scale) == (pytest.approx(0.2), 40, 3.0)


# ------------------------------------------------------------------------------------------------------- the commands
def is_whole(page: str) -> bool:
    """Closed, without a link to anything outside, and every figure inside."""
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    return page.rstrip().endswith("</html>") and "nan" not in re.sub(r'src="data:[^"]*"', "", page)


def test_a_trajectory_file_against_another(tmp_path, capsys):
    truth = winding(40)
    write_tum(tmp_path / "truth.tum", truth)
    write_tum(tmp_path / "mine [1].tum", noisy(truth))
    assert evaluate(tmp_path / "mine [1].tum", "--truth", tmp_path / "truth.tum", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "Sim(3)" in said and "[m]" in said and "KITTI's shortest sub-length 100 m" in said
    numbers = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    wanted = aligned_errors(noisy(truth), truth, "sim3")
    assert numbers["name"] == "mine [1]" and numbers["ate_sim3_m"] == pytest.approx(wanted.ate, rel=1e-6)
    assert numbers["scale_sim3"] == pytest.approx(2.5, rel=0.05) and "kitti_t_rel_percent" not in numbers
    (row,) = csv.DictReader((tmp_path / "out" / "evaluation.csv").open())
    assert float(row["ate_sim3_m"]) == pytest.approx(wanted.ate, rel=1e-6)
    page = (tmp_path / "out" / "report.html").read_text()
    assert is_whole(page) and page.count("data:image/svg+xml") == 3  # path, errors, scale


def test_kitti_files_take_the_stamps_of_the_other_side(tmp_path):
    truth = winding()
    write_tum(tmp_path / "a.tum", truth)
    write_kitti(tmp_path / "a.txt", truth)
    for estimate, reference in (("a.tum", "a.txt"), ("a.txt", "a.tum"), ("a.txt", "a.txt")):
        record = read_record(tmp_path / estimate, tmp_path / reference)
        assert len(matched(record.estimate, record.truth)[0]) == 30, (estimate, reference)
        assert np.allclose(record.estimate.poses, record.truth.poses, atol=1e-6)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """Six frames with true depth beside them, all of 4 m."""
    folder = tmp_path_factory.mktemp("drive")
    make_drive(folder, bend=True)
    (folder / "depth").mkdir()
    for i in range(6):
        cv2.imwrite(str(folder / "depth" / f"{i}.png"), np.full((192, 320), 4 * 256, np.uint16))
    (folder / "depth" / "depth.yaml").write_text("factor: 256\n")
    return folder


@pytest.fixture
def without_networks(monkeypatch):
    def load(network_config, engine_config, odometry_config, image_size, size):
        size = size or image_size
        return VisualOdometry(DisFlow(*size), None, odometry_config), size, []

    monkeypatch.setattr(run_command, "_load", load)


@pytest.mark.usefixtures("without_networks")
def test_a_sequence_is_run_then_its_folder_can_be_evaluated_and_compared(drive, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate(drive, "--scale-source", "none", "--out", out) == 0
    numbers = json.loads((out / "evaluation.json").read_text())
    assert numbers["frames"] == 6 and numbers["frames_tracking"] == 5 and numbers["total_median_ms"] > 0
    assert numbers["direction_median_deg"] < 3 and numbers["ate_sim3_m"] < 0.1
    page = (out / "report.html").read_text()
    assert is_whole(page)
    for heading in ("Trajectory", "Error over time", "Scale over time", "States and matches", "Time"):
        assert f"<h2>{heading}</h2>" in page

    again = evaluate_trajectory(read_record(out)).numbers()
    assert again == pytest.approx({k: v for k, v in numbers.items() if k in again}, rel=1e-3, abs=1e-5)
    assert set(numbers) - set(again) == {"name", "notes"}

    stamps = open_sequence(drive).stamps_ns
    write_tum(tmp_path / "other.tum", Trajectory(stamps, winding(6).poses))
    capsys.readouterr()
    assert compare(out, tmp_path / "other.tum", "--out", tmp_path / "both") == 0
    said = capsys.readouterr().out
    assert "ATE Sim(3) [m]" in said and "other" in said
    rows = list(csv.DictReader((tmp_path / "both" / "compare.csv").open()))
    assert [row["name"] for row in rows] == ["out", "other"]
    assert float(rows[0]["ate_sim3_m"]) == pytest.approx(numbers["ate_sim3_m"], rel=1e-4)
    assert is_whole((tmp_path / "both" / "report.html").read_text())


def test_depth_of_a_run_against_the_truth(drive):
    """Twice too near everywhere: wrong as it is, right after median scaling."""
    sequence = open_sequence(drive)
    comparison = DepthComparison(sequence, SimpleNamespace(rectify="auto", max_depth=80.0), total=6)
    camera = PinholeCamera(80, 48, 65, 65, 39.5, 23.5)
    for stamp in sequence.stamps_ns.tolist():
        depth = np.full((48, 80), 2.0, np.float32)
        frame = SimpleNamespace(stamp_ns=stamp, image=np.zeros((48, 80, 3), np.uint8))
        comparison.add(frame, SimpleNamespace(depth=depth, camera=camera))
    means = comparison.means()
    assert comparison.count == 6 and len(comparison.strips) == 4
    assert means["as it is"].abs_rel == pytest.approx(0.5) and means["as it is"].delta_1 == 0
    assert means["median scaled"].abs_rel == pytest.approx(0, abs=1e-6) and means["median scaled"].scale == 2.0
    assert "median scaled, Eigen crop" not in means  # this is not KITTI
    np.testing.assert_allclose(comparison.strips[0].estimate, 4.0)


def test_flow_of_two_images_without_a_camera(tmp_path, capsys):
    """The shipped flow network on a texture that moves by 3 pixels."""
    rng = np.random.default_rng(5)
    texture = cv2.resize(rng.uniform(0, 255, (60, 90)).astype(np.float32), (600, 400), interpolation=cv2.INTER_CUBIC)
    texture = np.clip(texture, 0, 255).astype(np.uint8)
    folder = tmp_path / "pair"
    folder.mkdir()
    cv2.imwrite(str(folder / "frame10.png"), texture[100:292, 103:423])
    cv2.imwrite(str(folder / "frame11.png"), texture[100:292, 100:420])
    flow = np.full((192, 320, 2), (3.0, 0.0), "<f4")
    (folder / "flow10.flo").write_bytes(b"PIEH" + np.array([320, 192], "<i4").tobytes() + flow.tobytes())
    assert evaluate(folder, "--out", tmp_path / "out") == 0
    numbers = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert numbers["flow_pixels"] == 192 * 320 and numbers["flow_pairs"] == 1
    assert numbers["flow_median"] < 1.0 and numbers["flow_under_1px"] > 0.5
    assert "only its flow" in capsys.readouterr().out
    assert is_whole((tmp_path / "out" / "report.html").read_text())


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["evaluate", "missing.tum"], "missing.tum does not exist"),
        (["evaluate", "A", "--truth", "LATER"], "the truth"),
        (["evaluate", "EMPTY"], "has no poses"),
        (["compare", "A", "A"], "holds its truth"),
        (["compare", "DIR"], "--truth"),
        (["compare", "DIR", "--truth", "A"], "holds no trajectory.tum"),
    ],
)
def test_what_cannot_be_evaluated_is_told(tmp_path, capsys, command, says):
    truth = winding()
    write_tum(tmp_path / "a.tum", truth)
    write_tum(tmp_path / "later.tum", Trajectory(truth.stamps_ns + 10**12, truth.poses))
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "dir").mkdir()
    files = {"A": "a.tum", "LATER": "later.tum", "EMPTY": "empty.txt", "DIR": "dir"}
    words = [str(tmp_path / files[word]) if word in files else word for word in command]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
