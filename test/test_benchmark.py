"""The benchmark's own logic: statistics, bisection, the guard, results as files. No time of this machine decides."""

import json
import math
import re

import numpy as np
import pytest

from benchmark import chart, docs, guard, result
from benchmark.__main__ import PARTS, main, parse
from benchmark.drive import Drive
from benchmark.result import Guarded, Result, Table
from benchmark.side_by_side import dis, essential, klt
from benchmark.stages import GROUPS
from benchmark.sustained import slope_mib_per_hour
from benchmark.timing import Reference, Spread, Stopwatch, middle_mean, spreads_by_stage


# ---------------------------------------------------------------------------------------------------------- statistics
def test_spread_is_of_the_values() -> None:
    spread = Spread.of(list(range(101)))
    assert (spread.count, spread.low, spread.median, spread.p95) == (101, 20, 50, 95)
    assert math.isnan(Spread.of([]).median)


def test_middle_mean_drops_the_best_and_the_worst() -> None:
    assert middle_mean([100.0, 2.0, 3.0, 4.0, -50.0]) == 3.0
    assert middle_mean([1.0, 3.0]) == 2.0


def test_slope_of_memory_ignores_warming_up_and_single_steps() -> None:
    seconds = np.arange(0.0, 600.0)
    growing = 300.0 + seconds / 3600.0 * 12.0
    growing[:100] -= 80.0  # buffers that fill at the start
    growing[400] += 50.0
    assert slope_mib_per_hour(seconds, growing) == pytest.approx(12.0, abs=0.01)
    assert math.isnan(slope_mib_per_hour(seconds[:4], growing[:4]))


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Work:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def inner(self) -> str:
        self.clock.now += 0.002
        return "done"

    def outer(self) -> str:
        self.clock.now += 0.003
        return self.inner()


def test_stopwatch_counts_the_inner_call_for_itself_and_puts_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("benchmark.timing.time", clock)
    work, original = Work(clock), Work.inner
    with Stopwatch() as watch:
        watch.watch(Work, "inner", "inner")
        watch.watch(work, "outer", "outer")
        work.inner()  # before the first frame: not counted
        for _ in range(3):
            watch.next_frame()
            assert work.outer() == "done"
            work.inner()
    assert Work.inner is original
    spreads = spreads_by_stage(watch.frames)
    assert spreads["inner"].median == pytest.approx(4.0) and spreads["outer"].median == pytest.approx(3.0)
    assert spreads["inner"].count == 3


# ------------------------------------------------------------------------------------------------ the rate, and playing
def test_highest_rate_finds_what_a_node_keeps_up_with() -> None:
    over_dds = pytest.importorskip("benchmark.over_dds", reason="needs ROS 2")
    for capacity in (1.3, 9.7, 58.0):
        found = over_dds.highest_rate(lambda rate, capacity=capacity: rate <= capacity, 1.0, 60.0)
        assert capacity / 1.05 <= found <= capacity
    assert over_dds.highest_rate(lambda rate: False, 1.0, 60.0) == 0.0
    assert over_dds.highest_rate(lambda rate: True, 1.0, 60.0) == 60.0


def test_highest_rate_survives_one_disturbance() -> None:
    over_dds = pytest.importorskip("benchmark.over_dds", reason="needs ROS 2")
    asked = []

    def disturbed_once(rate: float) -> bool:
        asked.append(rate)
        return rate <= 20.0 and len(asked) != 4

    assert 19.0 <= over_dds.highest_rate(disturbed_once, 1.0, 60.0) <= 20.0


def test_a_run_counts_images_without_odometry_as_lost() -> None:
    over_dds = pytest.importorskip("benchmark.over_dds", reason="needs ROS 2")
    node = pytest.importorskip("benchmark.node")
    run = over_dds.Run(10.0, np.array([20.0, np.nan, 30.0, 40.0]), {"vo_node": 50.0, "vo_node: ROS": 5.0})
    assert (run.sent, run.lost, run.spread.count, run.spread.median) == (4, 0.25, 3, 30.0)
    nothing = over_dds.Run(10.0, np.full(4, np.nan), {"vo_node": 5.0, "vo_node: ROS": 5.0})
    of = node.summary([run, run, run, nothing, run])
    assert of["lost"] == 0.25 and of["latency_ms"] == 30.0 and of["cpu_ms_per_image"]["vo_node"] == 50.0


def test_a_drive_is_played_to_and_fro_without_a_jump() -> None:
    drive = Drive("x", None, [0, 1, 2, 3], [np.zeros((1, 1))] * 4, None)
    assert list(drive.to_and_fro(9)) == [0, 1, 2, 3, 2, 1, 0, 1, 2]


# ----------------------------------------------------------------------------------------------------------- the guard
def document(
    values: dict[str, tuple[str, float]], reference_ms: float = 10.0, part: str = "stages", **settings
) -> dict:
    of_reference = {name: {"low": reference_ms} for name in ("one core", "all cores")}
    guarded = [{"name": name, "kind": kind, "value": value} for name, (kind, value) in values.items()]
    return {"part": part, "settings": settings, "reference_ms": of_reference, "guarded": guarded}


def test_guard_names_what_became_worse_in_one_sentence_each() -> None:
    before = document({"pose": ("ms, one core", 8.0), "rate": ("per second", 20.0), "rotation": ("error", 0.02)})
    now = document({"pose": ("ms, one core", 12.0), "rate": ("per second", 10.0), "rotation": ("error", 0.05)})
    found = guard.regressions(before, now)
    assert [re.search(r"stages: (\w+) is", sentence)[1] for sentence in found] == ["pose", "rate", "rotation"]
    assert "12 ms, 1.50 times worse" in found[0] and "2.00 times worse" in found[1]
    assert not guard.regressions(before, before)


def test_guard_forgives_a_slow_machine_but_not_a_slow_program_on_a_fast_one() -> None:
    values = {"flow": ("ms, all cores", 50.0), "rate": ("per second", 20.0)}
    slow_machine = document({"flow": ("ms, all cores", 98.0), "rate": ("per second", 10.5)}, reference_ms=20.0)
    assert not guard.regressions(document(values), slow_machine)
    fast_machine = document(values, reference_ms=5.0)
    assert len(guard.regressions(document(values), fast_machine)) == 2


def test_guard_compares_no_times_where_the_reference_work_was_not_timed() -> None:
    before = document({"pose": ("ms, one core", 7.0), "rotation": ("error", 0.01)})
    before["reference_ms"] = {cores: {"low": None} for cores in before["reference_ms"]}
    now = document({"pose": ("ms, one core", 70.0), "rotation": ("error", 0.1)})
    assert [sentence.split(" is ")[0] for sentence in guard.regressions(before, now)] == ["stages: rotation"]


def test_guard_does_not_scale_errors_and_memory_with_the_machine() -> None:
    before = document({"direction": ("error", 0.3), "memory": ("MiB", 400.0)})
    now = document({"direction": ("error", 0.5), "memory": ("MiB", 600.0)}, reference_ms=20.0)
    assert len(guard.regressions(before, now)) == 2


def test_guard_ignores_what_is_tiny_new_or_gone_and_tells_what_cannot_be_measured_any_more() -> None:
    before = document({"decode": ("ms, one core", 0.05), "gone": ("error", 1.0), "pose": ("error", 0.1)})
    now = document({"decode": ("ms, one core", 0.15), "new": ("error", 9.0), "pose": ("error", None)})
    found = guard.regressions(before, now)
    assert len(found) == 1 and "pose could not be measured" in found[0]


def test_guard_does_not_compare_other_settings() -> None:
    before, now = document({}, sequence="street_drive", frames=80), document({}, sequence="kitti06", frames=80)
    assert guard.incomparable(before, now).startswith("stages: not compared, because sequence is 'kitti06'")
    assert guard.incomparable(before, before) == ""


def test_guarded_refuses_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind 'ms'; expected one of"):
        Guarded("pose", "ms", 1.0)
    assert set(guard.ALLOWED) == set(guard.SLACK) == set(result.KINDS)


# ------------------------------------------------------------------------------------------------------------- results
def test_result_tells_on_what_it_was_measured_and_is_read_back(tmp_path) -> None:
    measured = Result("stages", {"sequence": "street_drive"}, guarded=[Guarded("pose", "error", float("nan"))])
    measured.tables.append(Table("Stages", ["", "ms"], [["pose", 8.123456], ["nothing", float("nan")]], "A note."))
    reference = Reference()
    reference.measure()
    made = measured.document(reference)
    result.write(tmp_path, made)
    assert result.read(tmp_path, "stages") == json.loads(json.dumps(made)) and result.read(tmp_path, "node") is None
    assert made["guarded"][0]["value"] is None
    assert made["machine"]["cores"] >= 1 and made["versions"]["numpy"] == np.__version__
    assert made["reference_ms"]["one core"]["low"] > 0 and made["reference_ms"]["all cores"]["count"] == 1
    text = result.markdown(made)
    assert "| pose | 8.12 |" in text and "| nothing | - |" in text and "A note." in text and made["revision"] in text


def test_documentation_shows_the_committed_results() -> None:
    page = docs.PAGE.read_text(encoding="utf-8")
    assert page == docs.updated(page), "docs/performance.md is out of date; run python -m benchmark docs"
    assert {match[2] for match in docs.PLACE.finditer(page)} <= set(PARTS)


def test_options_are_checked() -> None:
    options = parse(["stages", "--sizes", "640x192,320x96", "--rates", "10"])
    assert options.parts == ["stages"] and options.sizes == ((640, 192), (320, 96)) and options.rates == (10.0,)
    for wrong in (["stagse"], ["--sizes", "640"], ["--rates", "0"], ["docs", "stages"]):
        with pytest.raises(SystemExit):
            parse(wrong)


@pytest.mark.slow
def test_every_part_runs_and_writes_its_result(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rclpy")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    arguments = ["--sizes", "320x192", "--frames", "3", "--max-frames", "4", "--out", str(tmp_path)]
    arguments += ["--seconds", "1", "--runs", "1", "--rates", "1", "--minutes", "0.2", "--rate", "1"]
    assert main(arguments) == 0
    for part in PARTS:
        made = result.read(tmp_path, part)
        assert made["tables"] and made["guarded"] and made["details"], part
    stages = {row[0] for row in result.read(tmp_path, "stages")["tables"][0]["rows"]}
    assert stages == {stage for group in GROUPS.values() for stage in group} | {"whole frame"}
    chart.stages_chart(tmp_path / "stages.svg", result.read(tmp_path, "stages"))
    chart.sustained_chart(tmp_path / "s.svg", tmp_path / "sustained.csv", result.read(tmp_path, "sustained"))
    assert (tmp_path / "stages.svg").stat().st_size > 5000 and (tmp_path / "s.svg").stat().st_size > 5000


# ------------------------------------------------------------------------------------------------- classical baselines
@pytest.mark.parametrize("match", [klt, dis])
def test_classical_baseline_finds_the_motion(match) -> None:
    from depth_pose_ros.geometry.se3 import inverse, rotation_angle
    from depth_pose_ros.sequences import open_sequence
    from depth_pose_ros.share import share_path

    sequence = open_sequence(str(share_path("demo/street_drive")))
    images = [np.ascontiguousarray(sequence[i][1].mean(axis=2).astype(np.uint8)) for i in (10, 11)]
    poses = sequence.ground_truth.poses
    T_2_1 = inverse(poses[11]) @ poses[10]
    R, t = essential(*match(*images), sequence.camera.pinhole.K, 38, 0.5)  # 38: cv2.USAC_MAGSAC
    assert np.degrees(rotation_angle(R @ T_2_1[:3, :3].T)) < 0.3
    assert t @ T_2_1[:3, 3] / np.linalg.norm(T_2_1[:3, 3]) > np.cos(np.radians(15))
