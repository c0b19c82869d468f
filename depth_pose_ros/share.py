"""The files that come with the code: models, launch files, configuration, the drive of the demo."""

from __future__ import annotations

from pathlib import Path


def share_folders() -> list[Path]:
    """Where they may lie: the source checkout, then the share folder of every prefix this package may be under."""
    package = Path(__file__).resolve().parent
    checkout = [package.parent] if (package.parent / "package.xml").is_file() else []
    # <prefix>/lib/python3.x/site-packages/depth_pose_ros, whatever the prefix: a virtual environment, an install space
    # of colcon, /usr/local, ~/.local.
    return checkout + [prefix / "share" / "depth_pose_ros" for prefix in package.parents]


def share_path(name: str) -> Path | None:
    """The file or folder ``name``, e.g. ``config/fastdds.xml``; None where it was not installed."""
    return next((folder / name for folder in share_folders() if (folder / name).exists()), None)
