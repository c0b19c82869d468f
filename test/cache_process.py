"""A process that opens one engine, of a plan made up here, and is killed on request: ``FOLDER DIE SECONDS``.

DIE: empty, or ``write N``: killed when the N-th file is complete under its temporary name, before it gets its own.
SECONDS: how long it builds.
"""

import os
import signal
import sys
import time
from pathlib import Path

from depth_pose_ros.engines.cache import EngineCache, EngineKey
from depth_pose_ros.engines.listener import Listener

KEY = EngineKey("net", "fp16", 640, 192, "ab" * 32, "tensorrt 10.3.0", "12.6", "Orin", "8.7")
PLAN = b"plan" * 5000


class Talking(Listener):
    def info(self, text):
        print("info", text, flush=True)

    def busy(self, text):
        print("busy", text, flush=True)


def main(folder, die, seconds):
    def build():
        print("building", flush=True)
        time.sleep(float(seconds))
        return PLAN

    fsync, writes = os.fsync, []

    def count(number):
        writes.append(number)
        if die == f"write {len(writes)}":
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(number)

    os.fsync = count
    print("got", len(EngineCache(Path(folder), "auto", Talking()).open(KEY, build, bytes)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
