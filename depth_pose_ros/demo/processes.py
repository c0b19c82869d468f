"""The processes of the demo: start, lines of output, stop."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path


class Process:
    """One of our executables in a process of its own; its log goes to a file, its output line by line to us."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "depth_pose_ros.nodes", name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "RCUTILS_COLORIZED_OUTPUT": "0"},
                start_new_session=True,  # Ctrl-C comes to us, who then stop it in order
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        """Of the process, also after its end."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def line(self, timeout: float) -> str | None:
        """The next line of its standard output; None when none comes within ``timeout`` seconds."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None

    def finished(self) -> bool:
        """Whether it has ended and every line of its output was taken."""
        return self.exit_code is not None and not self._reader.is_alive() and self._lines.empty()

    def stop(self) -> None:
        """Interrupt it, and end it by force when that does not help."""
        for number, patience in ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            if self.exit_code is not None:
                break
            self._process.send_signal(number)
            end = time.monotonic() + patience
            while self.exit_code is None and time.monotonic() < end:
                time.sleep(0.02)
        self._reader.join(timeout=5.0)

    def last_words(self, count: int = 8) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-count:])
