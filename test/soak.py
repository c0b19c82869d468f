"""A long run with faults on purpose: messages and frames without number, then real nodes over DDS for half an hour.

    make soak [ARGS="messages --count 10000"] [ARGS="states --count 1000000"] [ARGS="nodes --minutes 30 --rate 10"]

  messages  so many generated messages of each kind through every decoder and every callback (fuzz.py)
  frames    so many frames of matches of every kind through geometry and the state machine (fuzz_frames.py)
  states    so many conclusions of geometry of every kind through the state machine alone (fuzz_frames.py)
  nodes     vo_node and the three split nodes see the same camera while one fault follows the other (soak_nodes.py)

Without a word all four, one after the other. Exit code 1 when something did not hold.
"""

import argparse
import collections
import gc
import json
import math
import resource
import sys
import time
from pathlib import Path

import fuzz
import fuzz_frames
import hypothesis
import rclpy


def rss_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def counted(check, calls):
    def one(message):
        calls.append(None)
        check(message)

    return one


ROUND = 1000
"""Messages of one kind that are generated at once: hypothesis remembers all of them until the last."""


def soak_messages(options):
    """``count`` examples of each property; what was used, what was refused with which reason.

    Memory is that at the end of the first round and of the last.
    """
    many = hypothesis.settings(
        max_examples=min(ROUND, options.count),
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    rclpy.init(args=["--ros-args", "--log-level", "fatal"])
    handlers, told = fuzz.Handlers(), {}
    for messages, check in fuzz.PROPERTIES + handlers.properties:
        fuzz.refusals.clear()
        calls, memory, start = [], [], time.monotonic()
        for turn in range(math.ceil(options.count / ROUND)):
            hypothesis.seed(options.seed + turn)(many(hypothesis.given(messages)(counted(check, calls))))()
            gc.collect()
            memory.append(rss_mib())
        told[check.__name__] = {
            "messages": len(calls),
            "refused": sum(fuzz.refusals.values()),
            "reasons": len(fuzz.refusals),
            "seconds": round(time.monotonic() - start, 1),
            "memory_grown_mib": round(memory[-1] - memory[0], 1),
        }
        print(f"{check.__name__}: {told[check.__name__]}", flush=True)
    handlers.close()
    rclpy.shutdown()
    return told, []


POLICIES = [
    {"lost_policy": "hold", "scale_source": "none"},
    {"lost_policy": "predict", "scale_source": "network"},
    {"lost_policy": "stop", "scale_source": "camera_height", "planar": True},
    {"lost_policy": "hold", "scale_source": "median_depth"},
]


def soak_frames(options):
    """``count`` frames of matches, a fresh odometry for every policy."""
    return _soak_odometry("frames", fuzz_frames.Frames, options)


def soak_states(options):
    """``count`` conclusions of geometry, likewise."""
    return _soak_odometry("states", fuzz_frames.Pairs, options)


def _soak_odometry(part, source, options):
    """Numbers; memory is that at a tenth and at the end."""
    start, states, memory = time.monotonic(), collections.Counter(), []
    done = 0
    for index, policy in enumerate(POLICIES):
        frames = source(options.seed + index, refine=False, **policy)
        for count in range(options.count // len(POLICIES)):
            if count % 1000 == 0:
                memory.append(rss_mib())
                if time.monotonic() - start > options.most_minutes * 60 * (index + 1) / len(POLICIES):
                    break
            frames.step()
            done += 1
        states.update({state.value: n for state, n in frames.states.items()})
    seconds = time.monotonic() - start
    grown = memory[-1] - memory[len(memory) // 10]
    told = {"frames": done, "seconds": round(seconds), "states": dict(states), "memory_grown_mib": round(grown, 1)}
    print(f"{part}: {told}", flush=True)
    failures = [] if grown < 20.0 else [f"{part}: memory grew by {grown:.1f} MiB"]
    if done < options.count // len(POLICIES) * len(POLICIES):
        print(f"{part}: stopped after {options.most_minutes:g} minutes, before {options.count}")
    return told, failures


def soak_nodes(options):
    import soak_nodes as nodes

    return nodes.soak(options)


PARTS = {"messages": soak_messages, "frames": soak_frames, "states": soak_states, "nodes": soak_nodes}
DEFAULT_COUNT = {"messages": 10_000, "frames": 20_000, "states": 1_000_000}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=PARTS, help="default: all of them")
    parser.add_argument("--count", type=int, help="messages of each kind (10000), frames (20000), states (1000000)")
    parser.add_argument(
        "--most-minutes", type=float, default=30.0, help="frames, states: stop after so long (default: 30)"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="nodes: how long (default: 30)")
    parser.add_argument("--rate", type=float, default=30.0, help="nodes: images a second (default: 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="folder of the results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    count, failures = options.count, []
    for part in [options.part] if options.part else PARTS:
        options.count = count or DEFAULT_COUNT.get(part)
        told, wrong = PARTS[part](options)
        (options.out / f"{part}.json").write_text(json.dumps(told, indent=1) + "\n")
        failures += wrong
    for failure in failures:
        print(f"soak: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
