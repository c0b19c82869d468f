"""Configuration files and recipes for other programs name only topics that there are, with the right types."""

import json
import re
from pathlib import Path

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
PICTURES = {"image", "odom", "path", "points", "depth/image", "flow/image"}
"""What a viewer of the node's topics should show."""


def test_rviz_shows_every_picture_with_the_display_of_its_type():
    config = yaml.safe_load((CONFIG / "depth_pose.rviz").read_text())
    shown = {d["Topic"]["Value"]: d["Class"] for d in config["Visualization Manager"]["Displays"] if "Topic" in d}
    assert set(shown) == PICTURES
    for topic, display in shown.items():
        assert RVIZ[display] == TOPICS[topic], topic
    best_effort = {"image", "points", "depth/image", "flow/image"}  # may be large, and a camera may offer no more
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
