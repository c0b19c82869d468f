"""Visual odometry: `ros2 launch depth_pose_ros vo.launch.py image:=/camera/image_raw`.

An argument that you give beats the parameter file, and that beats the defaults. `--show-args` lists all arguments.
"""

import os
from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from depth_pose_ros.nodes.running import use_large_shared_memory
from depth_pose_ros.share import share_path
from launch import LaunchContext, LaunchDescription

CONFIG = share_path("config")
UNSET = "(parameter file)"
"""Default of the arguments that are parameters of the nodes: nothing is passed on, so the parameter file decides."""

PARAMETERS = {
    "base_frame": (str, "frame whose motion is published, e.g. base_link; empty: the camera itself"),
    "backend": (str, "what runs the networks: auto, tensorrt, cuda, cpu_int8 or cpu"),
    "flow_model": (str, "network for optical flow: a name in models/ or a path"),
    "depth_model": (str, "network for depth: a name in models/, a path, or none"),
    "scale_source": (str, "network, median_depth, camera_height or none"),
    "camera_height": (float, "height of the camera above the ground in m, for scale_source camera_height"),
    "image_transport": (str, "raw or compressed"),
    "image_qos": (str, "sensor_data or reliable"),
}
"""Arguments that set a parameter of the same name."""

ARGUMENTS = {
    "image": ("image", "topic of the images (without /compressed)"),
    "camera_info": ("", "topic of their CameraInfo; empty: beside the image topic, as drivers have it"),
    "params_file": ("", "parameter file; its values beat the package's defaults, arguments beat it"),
    "namespace": ("", "namespace of the nodes and of their topics"),
    "composed": ("true", "true: one process (vo_node); false: flow_node, depth_node and pose_node"),
    "rviz": ("false", "start RViz with the package's configuration"),
    "view": ("false", "show everything in rerun, or record it to view.rrd without a screen (pip install rerun-sdk)"),
    "bag": ("", "play this bag, with its clock"),
    "use_sim_time": ("", "take the time from /clock; empty: with a bag"),
    "log_level": ("info", "log level of the nodes: debug, info, warn or error"),
}


def generate_launch_description() -> LaunchDescription:
    """The arguments, and one function that sees which of them were given."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    declared += [
        DeclareLaunchArgument(name, default_value=UNSET, description=text) for name, (_, text) in PARAMETERS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list:
    value = {name: LaunchConfiguration(name).perform(context) for name in (*ARGUMENTS, *PARAMETERS)}
    parameters: list = [str(CONFIG / "depth_pose.yaml")]
    if value["params_file"]:
        if not Path(value["params_file"]).is_file():
            raise RuntimeError(f"params_file {value['params_file']} does not exist")
        parameters.append(value["params_file"])
    given = {name: kind(value[name]) for name, (kind, _) in PARAMETERS.items() if value[name] != UNSET}
    clock = {}
    if value["use_sim_time"] or value["bag"]:
        clock["use_sim_time"] = _boolean("use_sim_time", value["use_sim_time"] or "true")
    if given or clock:
        parameters.append({**given, **clock})

    camera = [("image", value["image"])]
    if value["camera_info"]:
        camera.append(("camera_info", value["camera_info"]))

    def node(executable: str, remappings: list, more: dict | None = None) -> Node:
        return Node(
            package="depth_pose_ros",
            executable=executable,
            name=executable,
            namespace=value["namespace"],
            parameters=[*parameters, more] if more else parameters,
            remappings=remappings,
            arguments=["--ros-args", "--log-level", value["log_level"]],
            output="screen",
            emulate_tty=True,
        )

    actions = _shared_memory_for_images()
    if _boolean("composed", value["composed"]):
        actions.append(node("vo_node", camera))
    else:
        # The depth network's own output goes to pose_node at its own size; pose_node publishes it in the odometry's
        # scale under the usual name.
        unscaled = [("depth/image", "network_depth/image"), ("depth/camera_info", "network_depth/camera_info")]
        actions += [
            node("flow_node", camera),
            node(
                "depth_node", [*camera, *unscaled, ("points", "network_depth/points")], {"depth_at_image_size": False}
            ),
            node("pose_node", []),
        ]
    if _boolean("rviz", value["rviz"]):
        # RViz resolves the topics of its configuration in its own namespace.
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=value["namespace"],
                arguments=["-d", str(CONFIG / "depth_pose.rviz")],
                parameters=[clock] if clock else [],
                remappings=[("image", value["image"])],
            )
        )
    if _boolean("view", value["view"]):
        transport = "compressed" if given.get("image_transport") == "compressed" else "raw"
        actions.append(node("view_node", camera, {"image_transport": transport}))
    if value["bag"]:
        actions.append(ExecuteProcess(cmd=["ros2", "bag", "play", value["bag"], "--clock"], output="screen"))
    return actions


def _shared_memory_for_images() -> list:
    """For every process that is started here, the bag player too; a profile that the user chose stays."""
    environment = dict(os.environ)
    use_large_shared_memory(environment)
    return [SetEnvironmentVariable(name, text) for name, text in environment.items() if os.environ.get(name) != text]


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise RuntimeError(f"launch argument {name}:={text}; expected true or false")
    return text.lower() in ("true", "1")
