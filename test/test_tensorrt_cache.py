"""The cache of engines, between processes that build, wait and are killed. The plans are small, all else is real."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cache_process import KEY, PLAN

from depth_pose_ros.engines.cache import EngineCache, write_atomically
from depth_pose_ros.engines.listener import Listener


def run(folder, die="", seconds=0.0):
    script = Path(__file__).with_name("cache_process.py")
    path = os.pathsep.join([str(script.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(script), str(folder), die, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})


class Heard(Listener):
    def __init__(self):
        self.told = []

    def info(self, text):
        self.told.append(text)


def open_here(folder):
    """As the next start does; (plan, what was said, how often it was built)."""
    heard, built = Heard(), []

    def build():
        built.append(1)
        return PLAN

    return EngineCache(folder, "auto", heard).open(KEY, build, bytes), heard.told, len(built)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


CLEAN = sorted([".lock", f"{KEY.stem}.json", f"{KEY.stem}.plan"])


def test_two_processes_at_once_build_once(tmp_path):
    first, second = run(tmp_path, seconds=0.5), run(tmp_path, seconds=0.5)
    said = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert sum(text.count("building\n") for text in said) == 1
    assert all(f"got {len(PLAN)}" in text for text in said)
    assert files(tmp_path) == CLEAN


def test_process_that_waits_says_so(tmp_path):
    builder = run(tmp_path, seconds=60.0)
    while "building" not in builder.stdout.readline():
        pass
    waiting = run(tmp_path)
    while not (line := waiting.stdout.readline()).startswith("busy"):
        assert line, "ended without waiting"
    assert "waiting for another process that builds engines, then net (fp16, 640x192): 0 s" in line
    builder.kill()  # its lock goes with it
    builder.wait()
    said = waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0 and said.count("building\n") == 1
    assert files(tmp_path) == CLEAN


@pytest.mark.parametrize("moment", ["building", "write 1", "write 2"])
def test_process_that_is_killed_leaves_an_engine_or_none(tmp_path, moment):
    """In the middle of a build, of writing the plan, and between the plan and its description."""
    process = run(tmp_path, moment, seconds=60.0 if moment == "building" else 0.0)
    if moment == "building":
        while "building" not in process.stdout.readline():
            pass
        process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / f"{KEY.stem}.json").exists()
    plan, told, built = open_here(tmp_path)
    assert (plan, built) == (PLAN, 1) and "there is no TensorRT engine for net (fp16, 640x192)" in told[0]
    assert files(tmp_path) == CLEAN  # no part of a file is left over
    assert open_here(tmp_path) == (PLAN, [], 0)


def test_process_that_is_killed_while_it_replaces_an_engine(tmp_path):
    open_here(tmp_path)
    (tmp_path / f"{KEY.stem}.plan").write_bytes(b"damaged")
    process = run(tmp_path, "write 2")
    process.communicate(timeout=60)
    plan, _, built = open_here(tmp_path)
    assert (plan, built) == (PLAN, 1) and files(tmp_path) == CLEAN


def test_description_of_another_engine_is_not_believed(tmp_path):
    """Files that were renamed or put there by hand."""
    open_here(tmp_path)
    path = tmp_path / f"{KEY.stem}.json"
    content = json.loads(path.read_text())
    content["key"]["gpu"] = "Thor"
    path.write_text(json.dumps(content))
    _, told, built = open_here(tmp_path)
    assert built == 1 and "is described as another one: the GPU was Thor and is Orin" in told[0]


def test_nearest_engine_is_the_one_that_is_named(tmp_path):
    for change in ({"library": "tensorrt 10.7.0", "cuda": "13.0"}, {"cuda": "12.9"}):
        other = replace(KEY, **change)
        EngineCache(tmp_path).open(other, lambda: PLAN, bytes)
    (tmp_path / "net.broken.json").write_text("[")
    assert EngineCache(tmp_path).problem(KEY).endswith("is stale: CUDA was 12.9 and is 12.6")
    assert "yet" in EngineCache(tmp_path).problem(replace(KEY, width=320))
    assert EngineCache(tmp_path).problem(replace(KEY, cuda="12.9")) == ""


def test_every_field_of_the_key_makes_another_engine():
    for name, value in KEY.to_dict().items():
        other = replace(KEY, **{name: value + 1 if isinstance(value, int) else f"{value}x"})
        assert other.digest != KEY.digest and other.stem != KEY.stem, name


def test_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and files(tmp_path) == ["file"]


def test_disk_that_is_full_costs_a_warning_not_the_engine(tmp_path, monkeypatch):
    warned = []

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Listener, "warning", lambda self, text: warned.append(text))
    assert EngineCache(tmp_path).open(KEY, lambda: PLAN, bytes) == PLAN
    assert len(warned) == 1 and "No space left on device" in warned[0]
    assert files(tmp_path) == [".lock"]


def test_waiting_ends_when_the_listener_raises(tmp_path):
    class Leaving(Listener):
        def busy(self, text):
            raise KeyboardInterrupt

    builder = run(tmp_path, seconds=60.0)
    while "building" not in builder.stdout.readline():
        pass
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        EngineCache(tmp_path, "auto", Leaving()).open(KEY, lambda: PLAN, bytes)
    assert time.monotonic() - start < 30
    builder.kill()
    builder.wait()
