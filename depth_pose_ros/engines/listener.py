"""Who hears what opening a network has to say, and how long it still takes."""

import logging
import sys


class Listener:
    """Hears of long work and of what did not go as wished. This one tells Python's log; nodes and commands have theirs.

    The methods may be called from any thread.
    """

    def info(self, text: str) -> None:
        """Something a user may want to know."""
        logging.getLogger("depth_pose_ros").info(text)

    def warning(self, text: str) -> None:
        """Something a user should know."""
        logging.getLogger("depth_pose_ros").warning(text)

    def busy(self, text: str) -> None:
        """Long work goes on; said about once a second, e.g. ``building flow_small (fp16, 640x192): 43 s``.

        An exception raised here ends the work as soon as it can be ended.
        """

    def idle(self) -> None:
        """The long work is over."""


class Terminal(Listener):
    """Says it on the terminal."""

    def info(self, text: str) -> None:
        """See Listener."""
        print(text, flush=True)

    def warning(self, text: str) -> None:
        """See Listener."""
        print(f"WARNING: {text}", file=sys.stderr, flush=True)
