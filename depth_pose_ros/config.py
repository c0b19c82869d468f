"""Every tunable once: name, type, default, unit, range and one line of help.

The ROS parameter descriptors, the default YAML, the command-line options and the table in the docs are all made from
these frozen dataclasses, so they cannot drift apart. To add a tunable, add one field here.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeVar

from depth_pose_ros.errors import ConfigError

T = TypeVar("T", bound="Tunables")


@dataclass(frozen=True)
class Tunable:
    """What is known of one tunable beside its value; made by :func:`tunables` from a field of a config class."""

    name: str
    type: type  # bool, int, float or str
    default: bool | int | float | str
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    read_only: bool = False  # can only be set at start

    @property
    def allowed(self) -> str:
        """The values it takes, in words, e.g. ``0.1 to 10 m`` or ``one of: a, b``."""
        if self.choices is not None:
            return "one of: " + ", ".join(repr(c) if c == "" else c for c in self.choices)
        unit = f" {self.unit}" if self.unit else ""
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}{unit}"
        if self.minimum is not None:
            return f"at least {self.minimum:g}{unit}"
        if self.maximum is not None:
            return f"at most {self.maximum:g}{unit}"
        return {bool: "true or false", int: "an integer", float: "a number", str: "text"}[self.type] + unit

    def check(self, value: Any) -> bool | int | float | str:
        """``value`` in the tunable's own type. ConfigError names the tunable, the value and what is allowed."""
        expected = {bool: "true or false", int: "an integer", float: "a number", str: "text"}[self.type]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if self.type is float and is_number:
            value = float(value)
        elif self.type is int and is_number and float(value).is_integer():
            value = int(value)
        elif type(value) is not self.type:
            raise ConfigError(f"{self.name} = {value!r} is not {expected}; allowed: {self.allowed}")
        if self.type is float and not math.isfinite(value):
            raise ConfigError(f"{self.name} = {value!r} is not finite; allowed: {self.allowed}")
        too_small = self.minimum is not None and value < self.minimum
        too_large = self.maximum is not None and value > self.maximum
        if too_small or too_large or (self.choices is not None and value not in self.choices):
            raise ConfigError(f"{self.name} = {value!r} is out of range; allowed: {self.allowed}")
        return value


def tunable(
    default: bool | int | float | str,
    help: str,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    read_only: bool = False,
) -> Any:
    """One field of a config dataclass, with all that descriptors, YAML, options and docs need to know of it."""
    metadata = dict(help=help, unit=unit, minimum=minimum, maximum=maximum, choices=choices, read_only=read_only)
    return field(default=default, metadata=metadata)


class Tunables:
    """Base of the config dataclasses: checks every field when it is made and gives it the field's own type."""

    def __post_init__(self) -> None:
        for item in tunables(type(self)):
            object.__setattr__(self, item.name, item.check(getattr(self, item.name)))

    @classmethod
    def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
        """From names and values, e.g. of a YAML file; names that are left out keep their defaults.

        ConfigError on an unknown name, with the nearest known one.
        """
        known = [item.name for item in tunables(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)
                raise ConfigError(f"unknown parameter {name!r}; {hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, bool | int | float | str]:
        """Names and values, in the order of declaration."""
        return asdict(self)


def tunables(config_class: type[Tunables]) -> list[Tunable]:
    """The tunables of a config dataclass, in the order of declaration."""
    return [
        Tunable(name=f.name, type=f.type, default=f.default, **f.metadata)
        for f in fields(config_class)  # type: ignore[arg-type]
        if f.default is not MISSING and "help" in f.metadata
    ]


def markdown_table(config_class: type[Tunables]) -> str:
    """The table of the docs: name, default, allowed values, help."""
    rows = ["| Parameter | Default | Allowed | Meaning |", "|---|---|---|---|"]
    for item in tunables(config_class):
        default = (
            str(item.default).lower()
            if item.type is bool
            else repr(item.default)
            if item.default == ""
            else item.default
        )
        fixed = " Set at start only." if item.read_only else ""
        rows.append(f"| `{item.name}` | `{default}` | {item.allowed} | {item.help}{fixed} |")
    return "\n".join(rows) + "\n"


# ------------------------------------------------------------------------------------------------- OdometryConfig
SCALE_SOURCES = ("network", "median_depth", "camera_height", "none")


@dataclass(frozen=True)
class OdometryConfig(Tunables):
    """Tunables of :class:`depth_pose_ros.odometry.VisualOdometry`."""

    scale_source: str = tunable(
        "network",
        "What fixes the scale: the depth network's own unit, a fixed median depth, the known height of the camera "
        "above flat ground (metres), or none (first baseline = 1).",
        choices=SCALE_SOURCES,
    )
    camera_height: float = tunable(
        1.5,
        "Height of the camera above the ground, for scale_source camera_height.",
        unit="m",
        minimum=0.01,
        maximum=100.0,
    )
    median_depth: float = tunable(
        10.0,
        "Median of the network's depth that every frame is taken to have, for scale_source median_depth.",
        minimum=0.01,
        maximum=10000.0,
    )
    max_matches: int = tunable(
        2000, "Matches that are used for the pose, spread over the image.", minimum=100, maximum=20000
    )
    min_matches: int = tunable(
        50, "With fewer matches, or fewer of them agreeing on one motion, tracking is lost.", minimum=10, maximum=2000
    )
    refine: bool = tunable(True, "Refine the chosen matches to sub-pixel accuracy with Lucas-Kanade.")
    correct_depth: bool = tunable(
        True,
        "Bend the depth that is published to the points that the camera's motion triangulates: the network's shapes, "
        "with the distances of geometry.",
    )
    stationary_px: float = tunable(
        1.0,
        "Median parallax, after the best rotation is taken away, below which the camera is not taken to translate. "
        "In pixels of an image 1000 pixels wide.",
        unit="px",
        minimum=0.05,
        maximum=20.0,
    )
    shared_error_px: float = tunable(
        0.03,
        "Error that neighbouring matches, and all of a frame, have in common at least: no motion is said to be known "
        "better than this allows. In pixels of an image 1000 pixels wide.",
        unit="px",
        minimum=0.0,
        maximum=20.0,
    )
    max_gap: float = tunable(
        1.0,
        "Longest time between two frames that are still compared; after a longer gap a new pair starts at the old "
        "pose.",
        unit="s",
        minimum=0.01,
        maximum=60.0,
    )
    lost_policy: str = tunable(
        "hold",
        "What the pose does while no motion can be found, its covariance growing: hold (it stays), predict (it goes on "
        "at the last velocity) or stop (neither odometry nor TF is published).",
        choices=("hold", "predict", "stop"),
    )
    lost_time: float = tunable(
        5.0,
        "Longest time for which a lost pose is held or predicted; then it stops. Something that moves through the view "
        "and hides it is not taken for the world for as long.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
    )
    planar: bool = tunable(
        False,
        "The robot drives on a plane: what would lift, pitch or roll it is left out of every motion. Without "
        "base_frame the camera must be mounted level.",
    )


# ------------------------------------------------------------------------------------------------- the ROS nodes
@dataclass(frozen=True)
class NodeConfig(Tunables):
    """How a node starts."""

    autostart: bool = tunable(
        True,
        "Begin to work as soon as the node is started. false: wait, as a lifecycle node, to be configured and "
        "activated by `ros2 lifecycle set` or a lifecycle manager.",
        read_only=True,
    )


@dataclass(frozen=True)
class InputConfig(Tunables):
    """How a node takes its images."""

    image_transport: str = tunable(
        "raw",
        "raw: sensor_msgs/Image on `image`; compressed: sensor_msgs/CompressedImage on `image/compressed`.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    image_qos: str = tunable(
        "sensor_data",
        "Reliability of the image subscription. sensor_data (best effort) matches every publisher; reliable loses "
        "nothing, later, from a publisher whose shared memory is too small for its images.",
        choices=("sensor_data", "reliable"),
        read_only=True,
    )
    queue_size: int = tunable(
        1,
        "Images that may wait while one is worked on. 1: the latest frame wins; more: short stalls drop nothing.",
        minimum=1,
        maximum=1000,
        read_only=True,
    )
    camera_info_url: str = tunable(
        "",
        "Calibration file (camera_info YAML) for cameras that publish no CameraInfo; empty: take the topic.",
        read_only=True,
    )
    camera_frame: str = tunable("", "Optical frame of the camera; empty: what the images' headers say.", read_only=True)
    rectify: str = tunable(
        "auto",
        "Undo the lens distortion: auto (unless there is none, or the topic is named image_rect), always or never.",
        choices=("auto", "always", "never"),
        read_only=True,
    )
    mask: str = tunable(
        "",
        "Image file in the shape of the camera's images, black where they are not to be used, such as the robot's own "
        "body: no matches and no depth are taken from there. Empty: use all.",
        read_only=True,
    )
    max_width: int = tunable(
        1280,
        "Wider images are reduced to this width before matches are refined in them.",
        unit="px",
        minimum=64,
        maximum=8192,
        read_only=True,
    )


@dataclass(frozen=True)
class NetworkConfig(Tunables):
    """Which networks run, at which size and on what."""

    flow_model: str = tunable(
        "default", "Network for optical flow: a name in `models/` or a path to an ONNX file.", read_only=True
    )
    depth_model: str = tunable(
        "default",
        "Network for depth: a name in `models/`, a path to an ONNX file, or none.",
        read_only=True,
    )
    backend: str = tunable("auto", "What runs the networks; auto takes the fastest that works here.", read_only=True)
    network_width: int = tunable(
        0,
        "Width of the networks' input; 0: near 640 x 192 in area, in the shape of the image. A depth model that tells "
        "what it was trained for gets the image at about that size.",
        unit="px",
        minimum=0,
        maximum=4096,
        read_only=True,
    )
    network_height: int = tunable(
        0, "Height of the networks' input; 0: see network_width.", unit="px", minimum=0, maximum=4096, read_only=True
    )
    threads: int = tunable(
        0, "CPU threads of each network; 0: chosen from the cores.", minimum=0, maximum=256, read_only=True
    )


@dataclass(frozen=True)
class EngineConfig(Tunables):
    """How TensorRT engines are built and kept."""

    engine_cache: str = tunable(
        "",
        "Folder where compiled engines are kept; empty: depth_pose_ros/engines in the user's cache folder "
        "($XDG_CACHE_HOME or ~/.cache).",
        read_only=True,
    )
    engine_rebuild: str = tunable(
        "auto",
        "When there is no engine that fits this machine: auto builds one, which takes minutes; never refuses, with the "
        "reason (build it beforehand with depth_pose build-engines).",
        choices=("auto", "never"),
        read_only=True,
    )
    engine_precision: str = tunable(
        "auto",
        "Of TensorRT engines: auto takes fp16 where it passes its self-check, else fp32.",
        choices=("auto", "fp16", "fp32"),
        read_only=True,
    )
    engine_workspace: int = tunable(
        1024,
        "Scratch memory that TensorRT may use while it builds and runs an engine.",
        unit="MB",
        minimum=16,
        maximum=65536,
        read_only=True,
    )
    engine_cuda_graph: bool = tunable(
        False, "Record each engine's kernels once as a CUDA graph and launch them together.", read_only=True
    )


@dataclass(frozen=True)
class OutputConfig(Tunables):
    """What a node publishes, and in which frames."""

    odom_frame: str = tunable(
        "odom", "Frame in which the motion is expressed; starts at the first pose.", read_only=True
    )
    base_frame: str = tunable(
        "",
        "Frame whose motion is published, e.g. base_link: its transform to the camera is taken from TF, and waited "
        "for. Empty: the camera's optical frame itself.",
        read_only=True,
    )
    publish_tf: bool = tunable(True, "Broadcast the transform odom_frame -> base_frame.")
    invert_tf: bool = tunable(
        False, "Broadcast base_frame -> odom_frame instead, for a base that already has a parent.", read_only=True
    )
    allow_unscaled_tf: bool = tunable(
        False,
        "With scale_source none, publish TF, depth and points all the same, although their unit is not the metre.",
    )
    depth_at_image_size: bool = tunable(
        True, "Publish the depth image at the size of the input image; false: at the depth network's own size."
    )
    depth_interpolation: str = tunable(
        "edge_aware",
        "How depth is brought to the image's size: nearest, or edge_aware (linear on surfaces, nearest across edges).",
        choices=("nearest", "edge_aware"),
    )
    min_depth: float = tunable(
        0.0, "Nearer depth is published as NaN, in depth image and cloud.", unit="m", minimum=0.0, maximum=1000.0
    )
    max_depth: float = tunable(
        80.0, "Farther depth is published as NaN, in depth image and cloud.", unit="m", minimum=0.01, maximum=1e6
    )
    points_organized: bool = tunable(
        False, "Publish the cloud as an image of points, NaN where there is none; false: the valid points in a row."
    )
    points_stride: int = tunable(
        1, "Take every n-th row and column of the depth network's output into the cloud.", minimum=1, maximum=64
    )
    path_max_size: int = tunable(1000, "Poses in the published path; the oldest leave.", minimum=2, maximum=100000)
    trajectory_path: str = tunable(
        "trajectory",
        "Where ~/save_trajectory writes: this path with .tum and with .kitti.txt added.",
        read_only=True,
    )


NODE_CONFIGS = (NodeConfig, InputConfig, NetworkConfig, EngineConfig, OdometryConfig, OutputConfig)
"""All that the nodes take; each takes those that mean something to it."""
