"""vo.launch.py: what it starts, and that an argument beats the parameter file, which beats the defaults."""

import importlib.util
import os
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS 2 installation, not with the wheels")

import yaml
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node

from launch import LaunchContext

ROOT = Path(__file__).resolve().parents[1]


def load():
    spec = importlib.util.spec_from_file_location("vo_launch", ROOT / "launch" / "vo.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(**arguments):
    """The actions that follow from the arguments, and the context they were made in."""
    context = LaunchContext()
    description = load().generate_launch_description()
    context.launch_configurations.update({name: str(value) for name, value in arguments.items()})
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
    function = next(entity for entity in description.entities if isinstance(entity, OpaqueFunction))
    return function.execute(context), context


def command(node, context):
    """The command line of a node, as launch would run it; name and namespace are left to launch_ros."""
    node._perform_substitutions(context)
    context.extend_locals({"ros_specific_arguments": {"name": "", "ns": ""}})
    return ["".join(part.perform(context) for part in word) for word in node.cmd]


def nodes(actions):
    return [action for action in actions if isinstance(action, Node)]


def parameters(node, context):
    """The parameters that reach a node: by key of the files, in their order."""
    words = command(node, context)
    files = [words[i + 1] for i, word in enumerate(words) if word == "--params-file"]
    return [yaml.safe_load(Path(file).read_text()) for file in files]


def test_every_argument_is_described():
    for entity in load().generate_launch_description().entities:
        if isinstance(entity, DeclareLaunchArgument):
            assert len(entity.description) > 10, entity.name


def test_by_default_one_process_with_the_default_parameters_alone():
    actions, context = started()
    (node,) = nodes(actions)
    assert node.node_executable == "vo_node"
    (defaults,) = parameters(node, context)
    assert defaults == yaml.safe_load((ROOT / "config" / "depth_pose.yaml").read_text())


def test_an_argument_beats_the_parameter_file_and_is_the_only_one_passed_on(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("robot:\n  vo_node:\n    ros__parameters: {camera_height: 7.0, base_frame: mine}\n")
    actions, context = started(params_file=file, camera_height="2", namespace="robot")
    _, of_user, of_arguments = parameters(nodes(actions)[0], context)
    assert of_user == yaml.safe_load(file.read_text())
    # rcl prefers the key that names the node in full, whatever the file: only this one is sure to win.
    assert of_arguments == {"/robot/vo_node": {"ros__parameters": {"camera_height": 2.0}}}


def test_an_empty_base_frame_is_an_argument_too():
    actions, context = started(base_frame="")
    assert parameters(nodes(actions)[0], context)[-1]["/vo_node"]["ros__parameters"] == {"base_frame": ""}


def test_topics_are_remapped():
    actions, context = started(image="/front/image_raw", camera_info="/front/info")
    words = command(nodes(actions)[0], context)
    assert "image:=/front/image_raw" in words and "camera_info:=/front/info" in words


def test_split_nodes_are_wired_together():
    actions, context = started(composed="false", image="/front/image_raw")
    by_name = {node.node_executable: node for node in nodes(actions)}
    assert set(by_name) == {"flow_node", "depth_node", "pose_node"}
    depth = command(by_name["depth_node"], context)
    assert "depth/image:=network_depth/image" in depth and "image:=/front/image_raw" in depth
    last = parameters(by_name["depth_node"], context)[-1]
    assert last["/depth_node"]["ros__parameters"] == {"depth_at_image_size": False}
    assert not any(word.startswith("image:=") for word in command(by_name["pose_node"], context))


def test_a_bag_is_played_with_its_clock():
    actions, context = started(bag="/data/drive", rviz="true")
    (player,) = (action for action in actions if type(action) is ExecuteProcess)
    words = ["".join(part.perform(context) for part in word) for word in player.cmd]
    assert words == ["ros2", "bag", "play", "/data/drive", "--clock"]
    assert [node.node_executable for node in nodes(actions)] == ["vo_node", "rviz2"]
    assert parameters(nodes(actions)[0], context)[-1]["/vo_node"]["ros__parameters"] == {"use_sim_time": True}


@pytest.mark.parametrize("wrong", [{"composed": "maybe"}, {"params_file": "/nowhere.yaml"}, {"rviz": "2"}])
def test_wrong_arguments_are_told(wrong):
    with pytest.raises(RuntimeError, match=next(iter(wrong))):
        started(**wrong)


def test_shared_memory_for_images_unless_the_user_chose(monkeypatch):
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    actions, _ = started()
    assert sum(isinstance(action, SetEnvironmentVariable) for action in actions) == 1
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "mine.xml")
    actions, _ = started()
    assert not any(isinstance(action, SetEnvironmentVariable) for action in actions)
    assert os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] == "mine.xml"
