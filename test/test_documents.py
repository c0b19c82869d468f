"""No command in the documents is stale: programs, sub-commands, options, targets, launch arguments and files exist."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from depth_pose_ros import cli
from depth_pose_ros.nodes.__main__ import NAMES

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def commands(document: Path) -> list[str]:
    """The lines of the shell blocks, continued ones joined, and what stands in backticks in the text."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [re.sub(r"\s#.*", "", line).strip() for line in lines]


def options_of(command: str) -> set[str]:
    """The long options of a sub-command of depth_pose."""
    module = pytest.importorskip(cli.COMMANDS[command].module)
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_can_still_be_given(document):
    launch_arguments = set(
        re.findall(r'^    "(\w+)": \(', (ROOT / "launch" / "vo.launch.py").read_text(), re.MULTILINE)
    )
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(document):
        if found := re.search(r"(?:^|/|\s)depth_pose ([a-z][\w-]+)(.*)", line):
            command, rest = found.groups()
            assert command in cli.COMMANDS, line
            told = set(re.findall(r"(?<!\S)(--[a-z][\w-]*)", rest))
            assert not told or told <= options_of(command), f"{told - options_of(command)} in: {line}"
        if found := re.search(r"ros2 launch depth_pose_ros (\S+)(.*)", line):
            assert (ROOT / "launch" / found[1]).is_file(), line
            told = set(re.findall(r"\s(\w+):=", found[2]))
            assert told <= launch_arguments, f"{told - launch_arguments} in: {line}"
        if found := re.search(r"ros2 run depth_pose_ros (\w+)", line):
            assert found[1] in (*NAMES, "depth_pose", "demo"), line
        if found := re.match(r"(?:\w+=\S+ )*make ([a-z]+)", line):
            assert found[1] in targets, line
        for script in re.findall(r"(?<![\w/])((?:tools|\.ci)/[\w./]+)", line):
            assert (ROOT / script).exists(), line
        for module in re.findall(r"python3? -m ((?:depth_pose_ros|benchmark)[\w.]*)", line):
            assert importlib.util.find_spec(module), line
        for file in re.findall(r"(?<![\w/.])((?:config|models|launch|demo|test|docs)/[\w/]+\.\w+)", line):
            assert (ROOT / file).exists(), line


def examples() -> list[str]:
    """The commands of ours that are given with arguments, and so should run as they stand."""
    lines = [line for document in DOCUMENTS for line in commands(document)]
    ours = r"(\.venv/bin/)?depth_pose [\w-]+ [^-\s]|make (demo|benchmark) .*ARGS=|ros2 run depth_pose_ros check_camera "
    return sorted({line for line in lines if re.match(ours, line) and "..." not in line})


@pytest.mark.parametrize("line", examples())
def test_the_parser_takes_the_example(line):
    from benchmark import __main__ as benchmark
    from depth_pose_ros.demo import __main__ as demo

    words = shlex.split(re.sub(r"\bFX FY CX CY\b", "500 500 320 240", line))
    if words[0] == "make":
        (given,) = (word.removeprefix("ARGS=") for word in words if word.startswith("ARGS="))
        {"demo": demo, "benchmark": benchmark}[words[1]].parse(shlex.split(given))
        return
    name, *arguments = ["check-camera", *words[4:]] if words[0] == "ros2" else words[1:]
    module = pytest.importorskip(cli.COMMANDS[name].module)
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    parser.parse_args(arguments)
