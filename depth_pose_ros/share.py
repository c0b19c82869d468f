"""The files that come with the code (models, launch files, configuration, the demo's drive), and how to get more."""

from __future__ import annotations

import re
import shlex
import sys
from importlib import metadata
from pathlib import Path


def share_folders() -> list[Path]:
    """Where they may lie: the source checkout, then the share folder of every prefix this package may be under."""
    package = Path(__file__).resolve().parent
    checkout = [package.parent] if (package.parent / "package.xml").is_file() else []
    # <prefix>/lib/python3.x/site-packages/depth_pose_ros, whatever the prefix: a virtual environment, an install space
    # of colcon, /usr/local, ~/.local.
    return checkout + [prefix / "share" / "depth_pose_ros" for prefix in package.parents]


def install_extra(extra: str) -> str:
    """The command that installs what an extra of setup.py names, which works in a checkout and in a workspace."""
    try:
        told = metadata.requires("depth_pose_ros") or []
    except metadata.PackageNotFoundError:
        told = []
    quoted = [re.sub(r"\s*;.*", "", line) for line in told if re.search(rf"extra == [\"']{extra}[\"']", line)]
    packages = [shlex.quote(package) for package in quoted] or [f"'depth_pose_ros[{extra}]'"]
    return f"{sys.executable} -m pip install {' '.join(packages)}"


def share_path(name: str) -> Path | None:
    """The file or folder ``name``, e.g. ``config/fastdds.xml``; None where it was not installed."""
    return next((folder / name for folder in share_folders() if (folder / name).exists()), None)
