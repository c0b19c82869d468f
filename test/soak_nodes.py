"""Real nodes over DDS for as long as one likes, while their camera and their neighbours do everything wrong in turn.

vo_node, and the three split nodes in the namespace /split, see the same rendered room. After each fault the images are
good again, and a node has to be tracking within GOOD_FRAMES of those that it answers. At the end no process may have
ended by itself, no pose may have jumped, and memory must not have grown.
"""

import csv
import itertools
import os
import resource
import signal
import time
from collections import deque
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from fuzz import camera_infos, compressed_images, images, match_clouds
from hypothesis import HealthCheck, Phase, given, settings
from nav_msgs.msg import Odometry
from ros_helpers import NodeProcess, Peer, Room, values
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger

from benchmark.result import rss_mib
from benchmark.sustained import slope_mib_per_hour
from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.geometry.se3 import make_pose, so3_exp
from depth_pose_ros.nodes import messages
from depth_pose_ros.nodes.running import keep_freed_memory, use_large_shared_memory

GOOD_FRAMES = 3
MAX_GAP_NS = round(1e9 * OdometryConfig().max_gap)
WIDE = PinholeCamera(320, 192, 200.0, 200.0, 159.5, 95.5)
OTHER = PinholeCamera(256, 160, 170.0, 170.0, 127.5, 79.5)
SMALL = ("-p", "network_width:=320", "-p", "network_height:=192", "-p", "threads:=1", "-p", "backend:=cpu")
SPLIT = ("-r", "__ns:=/split", "-r", "image:=/image", "-r", "camera_info:=/camera_info")
UNSCALED = [f"{topic}:=network_{topic}" for topic in ("depth/image", "depth/camera_info", "points")]
NODES = {
    "vo_node": SMALL,
    "flow_node": (*SMALL, *SPLIT),
    "depth_node": (*SMALL, *SPLIT, *(w for rule in UNSCALED for w in ("-r", rule)), "-p", "depth_at_image_size:=false"),
    "pose_node": SPLIT,
}
STATUS = {"vo_node": "/status", "pose_node": "/split/status"}
FOUND = ("tracking", "stationary")
CALM = 8.0  # s between two faults
STEP = 0.06  # m from frame to frame, to and fro
PATIENCE = 90.0
LEAK = 60.0  # MiB per hour; the trajectory that is kept grows by 15 at 30 Hz
JUMP = 30.0  # times the usual speed
FAST = 8.0  # likewise, above which the messages around it are shown
AROUND = 3  # messages before and after


class Rig:
    """A camera in a room, the nodes that see it, and what they say."""

    def __init__(self, rate, folder):
        self.rate, self.folder = rate, folder
        self.views = {camera: _render(camera) for camera in (WIDE, OTHER)}
        self.camera = WIDE
        self.sent = self._at = 0
        self.states = {name: {} for name in STATUS}  # by stamp
        self.reasons = {name: {} for name in STATUS}  # likewise, of the last few
        self.waiting = 0  # answers of pose_node before it heard depth_node
        self.speeds = {name: [] for name in STATUS}  # from each odometry message to the next, units/s, and stamp
        self.memory = []  # second, node, MiB
        self._last = {}
        self._way = {name: deque(maxlen=2 * AROUND + 2) for name in STATUS}  # the last odometry messages, in words
        self._fast = dict.fromkeys(STATUS, 0)  # messages to come before those around a fast one are shown
        self._died = {}  # stamp of the last frame that a killed node may have answered
        self._stamp = time.time_ns()
        self._due = self._started = self._sampled = time.monotonic()
        path = str(folder / "trajectory")
        self.nodes = {
            name: NodeProcess(name, *words, "-p", f"trajectory_path:={path}")
            if name == "vo_node"
            else NodeProcess(name, *words)
            for name, words in NODES.items()
        }
        self.enter()

    # ---------------------------------------------------------------------------------------------------- the camera
    def enter(self):
        """Come up as a new camera driver, with a listener."""
        self.peer = Peer()
        for name, topic in STATUS.items():
            self.peer.node.create_subscription(DiagnosticArray, topic, self._take_status(name), 50)
            self.peer.node.create_subscription(Odometry, topic.replace("status", "odom"), self._take_odometry(name), 50)

    def leave(self):
        self.peer.close()

    def _take_status(self, name):
        def take(message):
            found, stamp = values(message), messages.stamp_ns(message.header.stamp)
            reason = f"{found.get('reason', '')} (scale {found.get('scale_source')}, ok {found.get('scale_ok')})"
            state = "waiting" if reason.startswith("waiting for a frame with depth") else found.get("state", "")
            self.waiting += state == "waiting"
            for kept, one, limit in ((self.states[name], state, 5000), (self.reasons[name], reason, 12)):
                kept[stamp] = one
                while len(kept) > limit:
                    del kept[next(iter(kept))]

        return take

    def _take_odometry(self, name):
        def take(message):
            p, stamp = message.pose.pose.position, messages.stamp_ns(message.header.stamp)
            place = np.array([p.x, p.y, p.z])
            assert np.isfinite(place).all() and np.isfinite(message.pose.covariance).all()
            if stamp <= self._died.get(name, -1):
                return  # of the dead one, late; the next begins anew at its origin
            speeds, speed = self.speeds[name], 0.0
            if name in self._last and (dt := 1e-9 * (stamp - self._last[name][1])) > 0:
                speed = float(np.linalg.norm(place - self._last[name][0])) / dt
                speeds.append(speed)
            self._last[name] = place, stamp
            self._way[name].append((stamp, f"{speed:.2f} units/s to {place.round(3)} in {message.header.frame_id}"))
            if len(speeds) > 50 and speed > FAST * np.median(speeds[-500:]):
                self._fast[name] = AROUND + 1
            if self._fast[name] > 0:
                self._fast[name] -= 1
                if self._fast[name] == 0:
                    print(f"    {name}: a step that is far faster than usual ({np.median(speeds[-500:]):.2f} units/s):")
                    self._show(name, dict(self._way[name]))

        return take

    def _show(self, name, way):
        """What was said of the frames since the first of ``way``: odometry in words by stamp."""
        told = self.reasons[name]
        for stamp in sorted({*way, *(stamp for stamp in told if stamp >= min(way))}):
            state = f"{self.states[name].get(stamp, 'no status')}: {told.get(stamp, '')}"
            print(f"    {1e-9 * stamp % 1000:8.3f} s: {way.get(stamp, 'no odometry')}; {state}", flush=True)

    def send(self, ahead_ns=None):
        """One good frame, or with ``ahead_ns`` one from the same place, so much later; its stamp."""
        views = self.views[self.camera]
        self.sent += 1
        self._at += ahead_ns is None
        at = self._at % (2 * len(views) - 2)
        self._stamp += ahead_ns or round(1e9 / self.rate)
        self.peer.send(views[at if at < len(views) else 2 * len(views) - 2 - at], self._stamp, self.camera)
        return self._stamp

    def drive(self, seconds):
        """Good frames at the rate; their stamps."""
        stamps, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            stamps.append(self.send())
            self._due = max(self._due + 1.0 / self.rate, time.monotonic() - 1.0 / self.rate)
            self.peer.spin(max(self._due - time.monotonic(), 0.001))
            self.sample()
        return stamps

    def wait(self, seconds):
        """No frames."""
        self.peer.spin(seconds)
        self._stamp += round(1e9 * seconds)

    def stamps_start_again(self):
        self._stamp -= 60_000_000_000
        self._died.clear()

    # ----------------------------------------------------------------------------------------------------- the nodes
    def sample(self):
        """Memory, every five seconds."""
        now = time.monotonic()
        if now - self._sampled > 5.0:
            self._sampled = now
            for name, node in self.nodes.items():
                self.memory.append((now - self._started, name, rss_mib(node.pid)))

    def wait_until_all_answer(self):
        """Good frames until both odometries answer; their stamps."""
        end, stamps = time.monotonic() + PATIENCE, []
        while time.monotonic() < end:
            stamps += self.drive(1.0)
            if all(any(stamp in states for stamp in stamps) for states in self.states.values()):
                return stamps
        raise AssertionError(f"no answer within {PATIENCE:.0f} s:\n" + "\n".join(n.said for n in self.nodes.values()))

    def recovery(self, stamps):
        """Good frames that each odometry answered up to the first that it tracked, and the seconds that this took.

        stamps: of the good frames that were sent already.
        """
        start, found = time.monotonic(), {}
        while len(found) < len(STATUS) and time.monotonic() - start < PATIENCE:
            stamps += self.drive(0.2)
            for name in STATUS:
                if name not in found and (count := _frames_to_track(self.states[name], stamps)):
                    found[name] = count, round(time.monotonic() - start, 1)
        return {name: found.get(name, (None, None)) for name in STATUS}

    def kill(self, name):
        """A node dies without a word, and is started again; the stamps of the good frames meanwhile."""
        process = self.nodes[name]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        self.peer.spin(0.5)  # most of what it had sent
        self._died[name] = self._stamp
        self._last.pop(name, None)
        self.nodes[name] = NodeProcess(name, *NODES[name])
        ready = " runs at " if name != "pose_node" else "scale_source"
        stamps = []
        self.nodes[name].wait_for(ready, spin=lambda _: stamps.extend(self.drive(0.3)))
        return stamps

    def close(self):
        ends = {name: node.stop() for name, node in self.nodes.items()}
        self.leave()
        return ends


def _frames_to_track(states, stamps):
    """How many of the frames were answered up to the first that was tracked, 0 if none was. Those that a slow machine
    answers farther apart than max_gap cannot be compared: there is another gap, and counting starts again. Those that
    a new pose_node answers before it hears depth_node are not whole.
    """
    count, before = 0, None
    for stamp in stamps:
        if stamp in states and states[stamp] != "waiting":
            count = 1 if before is not None and stamp - before > MAX_GAP_NS else count + 1
            before = stamp
            if states[stamp] in FOUND:
                return count
    return 0


def _render(camera):
    room = Room(camera)
    there = [make_pose(so3_exp(np.array([0, 0.004 * k, 0])), np.array([0, 0, -3 + STEP * k])) for k in range(60)]
    return [room.view(T) for T in there]


# -------------------------------------------------------------------------------------------------------------- faults
# Each may return the stamps of good frames that it has sent since all is well again.
def garbage(rig, round_):
    """Whatever fuzz.py generates, on every topic that a node listens to."""
    topics = [
        (images(), Image, "/image"),
        (camera_infos(), CameraInfo, "/camera_info"),
        (compressed_images(), CompressedImage, "/image/compressed"),
        (match_clouds(), PointCloud2, "/split/flow/matches"),
        (camera_infos(), CameraInfo, "/split/flow/camera_info"),
        (images(), Image, "/split/network_depth/image"),
    ]
    some = settings(
        max_examples=80,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for kind, message_type, topic in topics:
        publisher = rig.peer.node.create_publisher(message_type, topic, 10)
        rig.peer.spin(0.5)
        some(given(kind)(_sender(rig, publisher)))()
        rig.peer.node.destroy_publisher(publisher)


def _sender(rig, publisher):
    def send(message):
        publisher.publish(message)
        rig.peer.spin(0.005)

    return send


def flood(rig, round_):
    """Five hundred good images as fast as they can be sent."""
    for _ in range(500):
        rig.send(ahead_ns=1_000_000)
        rig.peer.spin(0.0005)


def stall(rig, round_):
    """No image for seven seconds: longer than a pair, and longer than the silence that is told."""
    rig.wait(7.0)


def restart(rig, round_):
    """The camera's driver ends and starts anew; every other time its stamps start again, too."""
    rig.leave()
    if round_ % 2:
        rig.stamps_start_again()
    rig.enter()
    return rig.wait_until_all_answer()


def resolution(rig, round_):
    """Another size and shape of image for five seconds, and back."""
    rig.camera = OTHER
    rig.drive(5.0)
    rig.camera = WIDE


def killed(rig, round_):
    """One of the split nodes is killed and started again."""
    return rig.kill(("flow_node", "depth_node", "pose_node")[round_ % 3])


def full_disk(rig, round_):
    """No file may grow beyond 1000 bytes while ~/save_trajectory is called; then it works again."""
    pid = rig.nodes["vo_node"].pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        answer = rig.peer.call(Trigger, "/vo_node/save_trajectory", Trigger.Request())
        assert not answer.success and "cannot write the trajectory" in answer.message, answer
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    answer = rig.peer.call(Trigger, "/vo_node/save_trajectory", Trigger.Request())
    assert answer.success, answer


FAULTS = (garbage, flood, stall, restart, resolution, killed, full_disk)


def soak(options):
    """Faults by turns for ``options.minutes``. Numbers, and what did not hold, in sentences."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    keep_freed_memory()
    use_large_shared_memory()
    rclpy.init(args=[])
    rig, failures = Rig(options.rate, options.out.resolve()), []
    recovered = {fault.__name__: [] for fault in FAULTS}
    calm = dict.fromkeys(("tracking", "stationary", "lost", "initialising", "waiting"), 0)
    segments = _segments()
    rig.wait_until_all_answer()
    end = time.monotonic() + 60.0 * options.minutes
    for turn, fault in enumerate(itertools.cycle(FAULTS)):
        if time.monotonic() > end:
            break
        for stamp in rig.drive(CALM):
            for states in rig.states.values():
                if stamp in states:
                    calm[states[stamp]] += 1
        found = rig.recovery(fault(rig, turn // len(FAULTS)) or [])
        recovered[fault.__name__].append(found)
        print(f"{(time.monotonic() - rig._started) / 60:5.1f} min: {fault.__name__}: {found}", flush=True)
        for name, (frames, _) in found.items():
            if frames is None or frames > GOOD_FRAMES:
                failures.append(f"{fault.__name__} {turn}: {name} tracked after {frames} good frames")
                for stamp, reason in rig.reasons[name].items():
                    print(f"    {name} at {1e-9 * stamp % 1000:.2f} s: {rig.states[name][stamp]}: {reason}", flush=True)
        failures += [f"{name} ended by itself" for name, node in rig.nodes.items() if not node.is_running]
    ends = rig.close()
    rclpy.shutdown()
    failures += [f"{name} ended with {code}" for name, code in ends.items() if code]
    failures += [f"a stack trace of {name}" for name, node in rig.nodes.items() if "Traceback" in node.said]
    told = {
        "minutes": options.minutes,
        "rate": options.rate,
        "sent": rig.sent,
        "calm": calm,
        "frames of pose_node before it heard depth_node": rig.waiting,
        "recovered": recovered,
        "segments_left": _segments() - segments,
    }
    for name, speeds in rig.speeds.items():
        told[f"{name} fastest over usual"] = round(float(max(speeds) / np.median(speeds)), 1)
        if max(speeds) > JUMP * np.median(speeds):
            failures.append(f"{name} jumped: {max(speeds):.2f} units/s where {np.median(speeds):.2f} is usual")
    seconds, rss = np.array([(second, mib) for second, name, mib in rig.memory if name == "vo_node"]).T
    memory = {"first": rss[0], "last": rss[-1], "most": rss.max(), "slope per hour": slope_mib_per_hour(seconds, rss)}
    told["vo_node MiB"] = {name: round(float(value), 1) for name, value in memory.items()}
    if options.minutes >= 10 and told["vo_node MiB"]["slope per hour"] > LEAK:
        failures.append(f"memory of vo_node grows by {told['vo_node MiB']['slope per hour']:.0f} MiB per hour")
    with (options.out / "memory.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("second", "node", "mib"), *rig.memory])
    print({key: value for key, value in told.items() if key != "recovered"})
    for name, all_found in recovered.items():
        for node in STATUS:
            frames = [found[node][0] for found in all_found]
            print(f"{name}, {node}: {len(frames)} times, frames to recover {sorted(frames, key=str)}")
    return told, failures


def _segments():
    return len([name for name in Path("/dev/shm").glob("fastdds_*") if "port" not in name.name])
