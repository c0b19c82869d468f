"""The tunables of ``config.py`` as options of a command, and values that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any, TypeVar

from depth_pose_ros.config import Tunable, Tunables, tunables

T = TypeVar("T", bound=Tunables)


def add_option(group: Any, item: Tunable) -> None:
    """Add ``--name`` with the tunable's type, default and help to a parser or one of its groups."""
    name = "--" + item.name.replace("_", "-")
    default = str(item.default).lower() if item.type is bool else item.default
    text = f"{item.help} ({item.allowed}; default: {default})".replace("%", "%%")
    if item.type is bool:
        group.add_argument(name, action=argparse.BooleanOptionalAction, default=item.default, help=text)
    else:
        metavar = item.name.rpartition("_")[2].upper()
        group.add_argument(name, type=item.type, default=item.default, metavar=metavar, help=text)


def configured(config: type[T], arguments: argparse.Namespace, names: Collection[str] | None = None) -> T:
    """A config from the options (names: those there are; None: all). ConfigError names the one that is out of range."""
    names = [item.name for item in tunables(config)] if names is None else names
    return config.from_dict({name: getattr(arguments, name) for name in names})


def parse_size(text: str) -> tuple[int, int]:
    """``640x192`` -> (640, 192)."""
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected WIDTHxHEIGHT, e.g. 640x192") from None
    if width <= 0 or height <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}; both sides must be above 0")
    return width, height
