"""Configuration files and recipes for other programs: the topics that they name are there, with the right types, and
what comes on them is what these programs ask for.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_package import rows_of_table

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"
# The README's tables are held against the nodes themselves by test_package.
TOPICS = {
    name.lstrip("/"): kind for name, kind in rows_of_table((ROOT / "README.md").read_text(), "| Topic | Type |").items()
}
RVIZ = {
    "rviz_default_plugins/Odometry": "nav_msgs/msg/Odometry",
    "rviz_default_plugins/Path": "nav_msgs/msg/Path",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
}
PICTURES = {"image", "odom", "path", "points", "depth/image", "flow/image", "matches/image"}
"""What a viewer of the node's topics should show."""


def test_rviz_shows_every_picture_with_the_display_of_its_type():
    config = yaml.safe_load((CONFIG / "depth_pose.rviz").read_text())
    shown = {d["Topic"]["Value"]: d["Class"] for d in config["Visualization Manager"]["Displays"] if "Topic" in d}
    assert set(shown) == PICTURES
    for topic, display in shown.items():
        assert RVIZ[display] == TOPICS[topic], topic
    best_effort = PICTURES - {"odom", "path"}  # may be large, and a camera may offer no more
    for display in config["Visualization Manager"]["Displays"]:
        if display.get("Topic", {}).get("Value") in best_effort:
            assert display["Topic"]["Reliability Policy"] == "Best Effort"
    assert config["Visualization Manager"]["Global Options"]["Fixed Frame"] == "odom"


def test_foxglove_shows_every_picture_and_every_panel_has_its_place():
    layout = json.loads((CONFIG / "foxglove.json").read_text())
    panels = layout["configById"]

    def places(node) -> list[str]:
        return [node] if isinstance(node, str) else places(node["first"]) + places(node["second"])

    assert sorted(places(layout["layout"])) == sorted(panels)
    three = panels["3D!path"]
    named = {t for t, c in three["topics"].items() if c["visible"]}
    for panel in panels.values():
        mode = panel.get("imageMode", {})
        named |= {mode[key] for key in ("imageTopic", "calibrationTopic") if key in mode}
        named |= {panel[key].split(".")[0] for key in ("topicPath",) if key in panel}
        named |= {path["value"].split(".")[0] for path in panel.get("paths", ())}
        named |= {panel[key] for key in ("topicToRender",) if key in panel}
    assert three["followTf"] == "odom"
    assert all(name.startswith("/") for name in named)
    named = {name.lstrip("/") for name in named}
    assert named <= set(TOPICS)
    assert named >= PICTURES | {"camera_info", "depth/camera_info", "status", "diagnostics"}


def test_foxglove_plots_values_that_status_has():
    text = (CONFIG / "foxglove.json").read_text()
    keys = set(re.findall(r'key==\\"(\w+)\\"', text))
    publisher = (ROOT / "depth_pose_ros" / "nodes" / "publishers.py").read_text()
    assert keys and all(f'"{key}":' in publisher for key in keys)


def test_the_ekf_fuses_the_twist_and_nothing_else():
    config = yaml.safe_load((CONFIG / "ekf.yaml").read_text())["ekf_filter_node"]["ros__parameters"]
    assert TOPICS[config["odom0"]] == "nav_msgs/msg/Odometry"
    pose, twist, acceleration = (config["odom0_config"][i:j] for i, j in ((0, 6), (6, 12), (12, 15)))
    assert not any(pose) and all(twist) and not any(acceleration)
    assert (config["odom_frame"], config["world_frame"], config["base_link_frame"]) == ("odom", "odom", "base_link")


def test_nav2_and_rtabmap_take_our_topics():
    costmap = yaml.safe_load((CONFIG / "nav2_costmap.yaml").read_text())["local_costmap"]["local_costmap"]
    layer = costmap["ros__parameters"]["camera_layer"]
    source = layer[layer["observation_sources"]]
    assert TOPICS[source["topic"].lstrip("/")] == f"sensor_msgs/msg/{source['data_type']}"
    assert source["raytrace_max_range"] > source["obstacle_max_range"]
    rtabmap = yaml.safe_load((CONFIG / "rtabmap.yaml").read_text())["rtabmap"]["ros__parameters"]
    assert rtabmap["subscribe_depth"] and not rtabmap["approx_sync"] and not rtabmap["subscribe_odom_info"]
    own = {key: value for key, value in rtabmap.items() if "/" in key}
    assert own and all(isinstance(value, str) for value in own.values()), "rtabmap takes its own parameters as text"


def test_remapped_topics_of_the_recipes_are_topics_of_the_node():
    named = set(re.findall(r":=/?((?:depth|flow)/\w+)", (ROOT / "docs" / "recipes.md").read_text()))
    assert {"depth/image", "depth/camera_info"} <= named <= set(TOPICS)


def test_what_the_recipes_consume_is_what_vo_node_gives():
    """vo_node as in the recipes, on a rectified topic, heard with the QoS of each program that they start."""
    pytest.importorskip("rclpy", reason="needs ROS 2")
    import rclpy
    from geometry_msgs.msg import TransformStamped
    from nav_msgs.msg import Odometry
    from rcl_interfaces.srv import SetParametersAtomically
    from rclpy.parameter import Parameter
    from ros_helpers import LATCHED, PERIOD, SENSOR, START, NodeProcess, Peer, Room, stamps
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2
    from tf2_msgs.msg import TFMessage

    from depth_pose_ros.camera import PinholeCamera
    from depth_pose_ros.geometry.se3 import make_pose
    from depth_pose_ros.nodes import messages
    from depth_pose_ros.nodes.publishers import R_BODY_OPTICAL

    camera, height = PinholeCamera(320, 192, 160.0, 160.0, 159.5, 95.5), Room.HALF[1]
    T_base_camera = make_pose(R_BODY_OPTICAL, np.array([0.3, 0.0, 0.5]))
    rclpy.init(args=[])
    peer = Peer()
    words = ["image:=/camera/image_rect", "base_frame:=base_link", "scale_source:=camera_height"]
    words += [f"camera_height:={height}"]
    node = NodeProcess("vo_node", *(part for i, word in enumerate(words) for part in ("-p" if i else "-r", word)))
    try:
        images = peer.node.create_publisher(Image, "/camera/image_rect", 10)
        infos = peer.node.create_publisher(CameraInfo, "/camera/camera_info", 10)
        statics = peer.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        head = messages.header(0, "base_link")
        statics.publish(TFMessage(transforms=[messages.transform_message(T_base_camera, head, "optical")]))
        peer.listen(Image, "depth/image", 10)  # depth_image_proc asks for reliable, rtabmap with qos_image: 2 for less
        peer.listen(CameraInfo, "depth/camera_info", 10)
        peer.listen(PointCloud2, "points", SENSOR)  # nav2_costmap_2d
        peer.listen(Odometry, "odom", SENSOR)  # robot_localization
        peer.listen(TFMessage, "/tf", 100)
        node.wait_for(" runs at ", spin=peer.spin)
        peer.shake_hands("vo_node")
        peer.spin_until(lambda: images.get_subscription_count() and infos.get_subscription_count(), what="a camera")
        room, shown = Room(camera), []

        def drive(first: int, count: int) -> None:
            for index in range(first, first + count):
                shown.append(START + index * PERIOD)
                head = messages.header(shown[-1], "optical")
                infos.publish(messages.camera_info_message(camera, head))
                T = make_pose(np.eye(3), np.array([0.0, 0.0, -4.0 + 0.15 * index]))
                images.publish(messages.image_message(room.view(T), head))
                for topic in ("depth/image", "depth/camera_info"):
                    peer.spin_until(lambda t=topic: shown[-1] in stamps(peer.got[t]), what=topic)

        drive(0, 6)
        for topic in ("points", "odom", "/tf"):
            peer.spin_until(lambda t=topic: peer.got[t], what=topic)
        peer.spin(0.5)

        # depth_image_proc and rtabmap join by equal stamps, and refuse another size or frame.
        assert stamps(peer.got["depth/image"]) == stamps(peer.got["depth/camera_info"]) == shown
        for depth, info in zip(peer.got["depth/image"], peer.got["depth/camera_info"]):
            assert (depth.width, depth.height, depth.encoding) == (320, 192, "32FC1")
            assert depth.header.frame_id == info.header.frame_id == "optical"
            assert (info.width, info.height, [*info.k]) == (320, 192, [*camera.K.ravel()]) and not any(info.d)
        # What depth_image_proc makes of it are the points that Nav2 gets: the same surface in the same unit.
        cloud = peer.got["points"][-1]
        depth = peer.got["depth/image"][stamps(peer.got["depth/image"]).index(stamps([cloud])[0])]
        depth = messages.depth_from_message(depth)
        xyz = messages.read_cloud(cloud, ("x", "y", "z"))
        u, v = camera.project(np.stack([xyz["x"], xyz["y"], xyz["z"]], axis=1)).round().astype(int).T
        inside = (u >= 0) & (u < 320) & (v >= 0) & (v < 192)
        ratio = depth[v[inside], u[inside]] / xyz["z"][inside]
        assert inside.mean() > 0.95 and abs(np.nanmedian(ratio) - 1) < 0.01

        # robot_localization fuses the twist in base_link; a variance of zero or less would be made up there.
        for odom in peer.got["odom"]:
            assert (odom.header.frame_id, odom.child_frame_id) == ("odom", "base_link")
            covariance = np.array(odom.twist.covariance).reshape(6, 6)
            assert np.linalg.eigvalsh(covariance).min() > 0 and np.allclose(covariance, covariance.T)
        speed = np.median([odom.twist.twist.linear.x for odom in peer.got["odom"]])
        assert 1.0 < speed < 2.0, "1.5 m/s, in metres by the height of the camera"
        assert max(abs(odom.twist.twist.linear.y) for odom in peer.got["odom"]) < 0.3

        # Nav2 takes a cloud whose frame TF leads to odom at its stamp: optical is fixed to base_link.
        def transforms() -> list[TransformStamped]:
            return [transform for message in peer.got["/tf"] for transform in message.transforms]

        links = {(t.header.frame_id, t.child_frame_id, messages.stamp_ns(t.header.stamp)) for t in transforms()}
        assert cloud.header.frame_id == "optical" and ("odom", "base_link", stamps([cloud])[0]) in links

        # The filter broadcasts odom -> base_link itself.
        request = SetParametersAtomically.Request(parameters=[Parameter("publish_tf", value=False).to_parameter_msg()])
        service = "/vo_node/set_parameters_atomically"
        assert peer.call(SetParametersAtomically, service, request).result.successful
        drive(6, 3)
        peer.spin_until(lambda: shown[-1] in stamps(peer.got["odom"]), what="odom without TF")
        assert shown[-1] not in [messages.stamp_ns(t.header.stamp) for t in transforms()]
        assert node.stop() == 0 and "Traceback" not in node.said
    finally:
        peer.close()
        rclpy.shutdown()
