"""The demo's parts over real DDS, in processes of their own, and the numbers it tells."""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from depth_pose_ros.demo.processes import Process
from depth_pose_ros.demo.recording import Recording
from depth_pose_ros.demo.summary import Played, summarise
from depth_pose_ros.errors import ImageError
from depth_pose_ros.evaluation.trajectory import Trajectory
from depth_pose_ros.geometry.se3 import make_pose
from depth_pose_ros.sequences import open_sequence
from depth_pose_ros.sequences.arguments import (
    add_sequence_arguments,
    chosen_count,
    chosen_frames,
    open_chosen,
    sequence_words,
)

pytest.importorskip("rclpy")
ROOT = Path(__file__).resolve().parents[1]


def write_sequence(folder: Path, count: int) -> list[np.ndarray]:
    """A folder of gray PNG images at 20 Hz with intrinsics; the images."""
    random = np.random.default_rng(3)
    images = [random.integers(0, 255, (48, 64), np.uint8) for _ in range(count)]
    folder.mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.png"), image)
    (folder / "times.txt").write_text("".join(f"{12.5 + 0.05 * i:.3f}\n" for i in range(count)))
    (folder / "intrinsics.txt").write_text("60 61 31.5 23.5 64 48\n")
    return images


def test_player_and_recorder_keep_every_image_and_stamp(tmp_path):
    from rosbags.rosbag2 import Reader
    from rosbags.typesys import Stores, get_typestore

    images = write_sequence(tmp_path / "sequence", 8)
    recorder = Process("bag_recorder", [str(tmp_path / "bag"), "image", "camera_info"], tmp_path / "recorder.txt")
    player = Process("camera_player", [str(tmp_path / "sequence"), "--rate", "2"], tmp_path / "player.txt")
    try:
        frames = []
        while not player.finished():
            if line := player.line(timeout=0.1):
                frames.append(json.loads(line))
        time.sleep(1.0)  # what the recorder's middleware has is not yet in its bag
    finally:
        player.stop()
        recorder.stop()
    assert (player.exit_code, recorder.exit_code) == (0, 0), player.last_words() + recorder.last_words()
    stamps = [12_500_000_000 + 50_000_000 * i for i in range(8)]
    assert [frame["stamp_ns"] for frame in frames] == stamps
    pace = (frames[-1]["published_ns"] - frames[0]["published_ns"]) / 1e9
    assert 0.15 <= pace < 2.0, "0.35 s of recording at twice its pace"

    typestore = get_typestore(Stores.LATEST)
    recorded = {"/image": [], "/camera_info": []}
    with Reader(tmp_path / "bag") as reader:
        for connection, _, data in reader.messages():
            recorded[connection.topic].append(typestore.deserialize_cdr(data, connection.msgtype))
    for messages in recorded.values():
        assert [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages] == stamps
    for message, image in zip(recorded["/image"], images, strict=True):
        assert (message.encoding, message.header.frame_id) == ("mono8", "camera_optical_frame")
        np.testing.assert_array_equal(message.data.reshape(48, 64), image)
    info = recorded["/camera_info"][0]
    np.testing.assert_array_equal(info.k, [60, 0, 31.5, 0, 61, 23.5, 0, 0, 1])


def test_chosen_frames_pass_over_what_cannot_be_read(tmp_path):
    write_sequence(tmp_path / "sequence", 9)
    (tmp_path / "sequence" / "4.png").write_bytes(b"not an image")
    parser = argparse.ArgumentParser()
    add_sequence_arguments(parser)
    options = parser.parse_args(["--step", "2", "--max-frames", "4", "--camera", "60", "61", "31.5", "23.5"])
    assert parser.parse_args(sequence_words(options)) == options
    sequence = open_chosen(str(tmp_path / "sequence"), options)
    assert chosen_count(sequence, options) == 4
    frames = list(chosen_frames(sequence, options))
    assert [(index, stamp) for index, stamp, _ in frames] == [
        (0, 12_500_000_000),
        (2, 12_600_000_000),
        (4, None),
        (6, 12_800_000_000),
    ]
    assert isinstance(frames[2][2], ImageError)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["/does/not/exist"], "/does/not/exist does not exist"),
        (["{sequence}", "--rate", "fast"], "argument --rate: 'fast'; expected auto or a number above 0"),
        (["{sequence}", "--rate", "-1"], "argument --rate: '-1'; expected auto or a number above 0"),
    ],
)
def test_player_says_what_is_wrong_with_its_arguments(tmp_path, arguments, message):
    write_sequence(tmp_path / "sequence", 1)
    arguments = [a.format(sequence=tmp_path / "sequence") for a in arguments]
    command = [sys.executable, "-m", "depth_pose_ros.nodes", "camera_player", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def recording_of(poses: np.ndarray, stamps: list[int]) -> Recording:
    """As if the node had answered the later stamps with these poses of the camera in body axes."""
    status = {"state": "tracking", "scale_source": "network", "scale_ok": "true", "scale_spread": "0.05"}
    return Recording(
        odom=Trajectory(np.array(stamps[1:]), poses[1:]),
        frames=("odom", "camera_optical_frame"),
        received_ns={stamp: stamp + 40_000_000 for stamp in stamps[1:]},
        status={stamp: {**status, "flow_ms": "12.0", "dropped": "0"} for stamp in stamps},
        counts={"odom": len(stamps) - 1},
        sizes={"odom": 700 * (len(stamps) - 1)},
        stamps={"odom": stamps[1:]},
    )


def test_summary_against_a_known_path():
    """A straight drive along the optical axis, told at half its length."""
    from depth_pose_ros.demo.summary import R_BODY_OPTICAL

    stamps = [100_000_000 * i for i in range(1, 12)]
    truth = np.stack([make_pose(np.eye(3), np.array([0.0, 0.0, 1.0 * i])) for i in range(11)])
    body = np.stack([make_pose(R_BODY_OPTICAL, R_BODY_OPTICAL @ T[:3, 3] * 0.5) for T in truth])
    played = [Played(i, stamp, stamp) for i, stamp in enumerate(stamps)]
    summary = summarise(recording_of(body, stamps), played, Trajectory(np.array(stamps), truth))
    assert (summary.played, summary.answered, summary.failure) == (11, 10, "")
    assert summary.latency == pytest.approx((40.0, 40.0))
    assert summary.stages == {"flow": 12.0}
    assert summary.topics == {"odom": (10, 10, 7000)}
    assert summary.pace == pytest.approx(1.0)
    assert (summary.truth.length, summary.truth.true_length) == pytest.approx((5.0, 10.0))
    assert summary.truth.position_error == pytest.approx(0.0, abs=1e-9)
    assert summary.truth.rotation == pytest.approx(0.0, abs=1e-6)


def test_a_frame_without_an_answer_is_a_failure():
    stamps = [100_000_000 * i for i in range(1, 6)]
    recording = recording_of(np.stack([np.eye(4)] * 5), stamps)
    del recording.received_ns[stamps[3]]
    summary = summarise(recording, [Played(i, stamp, stamp) for i, stamp in enumerate(stamps)], None)
    assert summary.failure == "1 of 4 frames after the first were not answered"


def test_the_shipped_drive_is_small_and_has_camera_and_truth():
    folder = ROOT / "demo" / "street_drive"
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 4e6
    sequence = open_sequence(folder)
    assert (len(sequence), sequence.camera.image_width, sequence.camera.image_height) == (80, 832, 256)
    assert sequence[0][1].shape == (256, 832, 3)
    np.testing.assert_array_equal(sequence.ground_truth.stamps_ns, sequence.stamps_ns)
    assert 45 < sequence.ground_truth.length < 60


def test_demo_from_end_to_end(tmp_path):
    """Node, player and recorder over DDS with the shipped networks: every frame answered, tables and pictures made."""
    command = [sys.executable, "-m", "depth_pose_ros.demo", "--max-frames", "6", "--step", "3", "--out", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["played"], summary["answered"], summary["dropped"]) == (6, 5, 0)
    for topic, messages in {"image": 6, "odom": 5, "status": 6, "depth/image": 6, "points": 6, "flow/image": 5}.items():
        assert summary["topics"][topic][:2] == [messages, messages], f"{topic}: count, and count with an image's stamp"
    assert summary["truth"]["pairs"] == 5
    for name in ("trajectory.png", "frames.png", "cloud.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 10, name
    assert len((tmp_path / "trajectory.tum").read_text().splitlines()) == 1 + 6
    # The bag is an MCAP with everything that the Foxglove layout shows.
    from rosbags.rosbag2 import Reader

    assert list((tmp_path / "bag").glob("*.mcap"))
    with Reader(tmp_path / "bag") as reader:
        recorded = {connection.topic for connection in reader.connections if connection.msgcount}
    shown = set(re.findall(r'"(/[a-z_/]+)', (ROOT / "config" / "foxglove.json").read_text()))
    assert {"/points", "/matches/image", "/odom", "/status"} <= shown <= recorded
