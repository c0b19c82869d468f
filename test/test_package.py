"""The package as a whole: one version, one list of dependencies, walls that hold, documents that tell the truth."""

import importlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import depth_pose_ros
from depth_pose_ros.nodes import __main__ as executables

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "depth_pose_ros"
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()

# Python modules by the rosdep key that brings them; messages and ROS packages have the name of their module.
ROSDEP_KEYS = {"cv2": "python3-opencv", "numpy": "python3-numpy", "onnxruntime": "python3-onnxruntime-pip"}
ROSDEP_KEYS["yaml"] = "python3-yaml"
ROS_MODULES = ("msgs", "srvs", "interfaces")


def test_one_version_everywhere():
    versions = {
        "package.xml": MANIFEST.findtext("version"),
        "CITATION.cff": re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE).group(1),
        "CHANGELOG.md": re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).group(1),
    }
    assert set(versions.values()) == {depth_pose_ros.__version__}, versions


def imported_modules(files: list[Path]) -> set[str]:
    pattern = re.compile(r"^\s*(?:from|import) ([a-zA-Z_][a-zA-Z0-9_]*)", re.MULTILINE)
    return {name for file in files for name in pattern.findall(file.read_text())}


def test_package_xml_names_what_the_nodes_import():
    run_time = [file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] in ("nodes", "engines")]
    run_time += [*PACKAGE.glob("*.py"), *(PACKAGE / "geometry").glob("*.py"), *(ROOT / "launch").glob("*.py")]
    imported = imported_modules(run_time)
    keys = {ROSDEP_KEYS[name] for name in imported if name in ROSDEP_KEYS}
    keys |= {name for name in imported if name.endswith(ROS_MODULES) or name in ("rclpy", "launch", "launch_ros")}
    declared = {element.text for element in MANIFEST.findall("exec_depend")}
    assert keys <= declared, f"missing in package.xml: {sorted(keys - declared)}"


def test_every_console_script_exists():
    setup = (ROOT / "setup.py").read_text()
    scripts = re.findall(r'"(\w+) = ([\w.]+):(\w+)"', setup)
    assert {"vo_node", "depth_node", "flow_node", "pose_node", "depth_pose"} <= {name for name, *_ in scripts}
    for name, module, function in scripts:
        assert callable(getattr(importlib.import_module(module), function)), name
    for name in executables.NAMES:
        text = (PACKAGE / "nodes" / f"{name}.py").read_text()
        assert "\ndef main(" in text and (name, executables.__name__, name) in scripts, name


def test_without_ros_an_executable_says_so_in_one_sentence():
    code = "import sys; sys.modules['rclpy'] = None; from depth_pose_ros.nodes import __main__ as m; "
    for name in ("vo_node", "check_camera"):
        words = [sys.executable, "-c", f"{code}sys.exit(m.start('{name}', []))"]
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith(f"{name}: ") and "rclpy" in result.stderr and "source a ROS 2" in result.stderr


def test_walls_between_the_rooms_hold():
    pytest.importorskip("importlinter")
    check = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_module_escapes_the_walls():
    contract = (ROOT / "pyproject.toml").read_text().split("[[tool.importlinter.contracts]]")[1]
    listed = set(re.findall(r'"depth_pose_ros\.(\w+)"', contract))
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert modules - {"__init__"} == listed, "name every module in the first import contract of pyproject.toml"


@pytest.mark.parametrize("module", ["cli", "config", "odometry", "geometry.two_view", "sequences", "share", "engines"])
def test_light_modules_import_nothing_heavy(module):
    heavy = ("torch", "tensorrt", "onnxruntime", "rclpy", "matplotlib", "evo", "rosbags", "rich", "lightning")
    code = f"import sys, depth_pose_ros.{module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_tables_of_the_readme_are_those_of_the_code():
    result = subprocess.run(
        [sys.executable, "tools/update_tables.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_links_in_the_documents_lead_somewhere():
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    for document in documents:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def rows_of_table(text: str, heading: str) -> dict[str, str]:
    """First and second column of the README's table under a heading row."""
    table = text.split(heading, 1)[1].split("\n\n", 1)[0]
    return dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", table, re.MULTILINE))


def test_the_security_policy_lists_what_the_nodes_have():
    """Topics and services by node, as sros2 expects them: https://design.ros2.org/articles/ros2_access_control_policies"""
    rclpy = pytest.importorskip("rclpy")
    profiles = (
        ElementTree.parse(ROOT / "config" / "sros2_policy.xml").getroot().findall("enclaves/enclave/profiles/profile")
    )
    nodes = {
        "vo_node": "VisualOdometryNode",
        "flow_node": "FlowNode",
        "depth_node": "DepthNode",
        "pose_node": "PoseNode",
    }
    assert [profile.get("node") for profile in profiles] == list(nodes)
    namespace = "/policy"  # no node of somebody else in the same domain
    arguments = ["-r", f"__ns:={namespace}", "-p", "use_sim_time:=true", "-p", "base_frame:=base_link"]
    rclpy.init(args=["--ros-args", *arguments])
    try:
        for profile in profiles:
            name = profile.get("node")
            told = {kind: set() for kind in ("publish", "subscribe", "reply")}
            for group in profile:
                (kind,) = group.keys()
                names = [item.text.replace("~", name) for item in group]
                told[kind] |= {n if n.startswith("/") else f"{namespace}/{n}" for n in names}
            node = getattr(importlib.import_module(f"depth_pose_ros.nodes.{name}"), nodes[name])()
            node.start()
            has = {
                "publish": node.get_publisher_names_and_types_by_node(name, namespace),
                "subscribe": node.get_subscriber_names_and_types_by_node(name, namespace),
                "reply": node.get_service_names_and_types_by_node(name, namespace),
            }
            assert not node.get_client_names_and_types_by_node(name, namespace)
            node.close()
            node.destroy_node()
            for kind, entries in has.items():
                # The first with image_transport: compressed; the second came with Jazzy.
                other = {f"{namespace}/image/compressed", f"{namespace}/{name}/get_type_description"}
                found = {n for n, _ in entries}
                assert found | other >= told[kind] and found <= told[kind], (name, kind)
    finally:
        rclpy.shutdown()


def test_topics_and_services_of_the_readme_are_those_of_the_node():
    rclpy = pytest.importorskip("rclpy")
    from depth_pose_ros.nodes.camera_input import OUTPUTS
    from depth_pose_ros.nodes.vo_node import VisualOdometryNode

    rclpy.init(args=["--ros-args", "-r", "__ns:=/readme"])  # no vo_node of somebody else in the same domain
    try:
        node = VisualOdometryNode()
        try:
            node.start()
            own = ("vo_node", "/readme")
            topics = dict(node.get_publisher_names_and_types_by_node(*own))
            topics |= dict(node.get_subscriber_names_and_types_by_node(*own))
            services = dict(node.get_service_names_and_types_by_node(*own))
        finally:
            node.close()
            node.destroy_node()
    finally:
        rclpy.shutdown()
    of_rclpy = ("rcl_", "type_desc", "lifecycle_msgs")  # what every node has, and every lifecycle node
    topics = {name: types[0] for name, types in topics.items() if name != "/rosout"}
    topics = {name: kind for name, kind in topics.items() if not kind.startswith(of_rclpy)}
    services = {name: types[0] for name, types in services.items() if not types[0].startswith(of_rclpy)}
    text = (ROOT / "README.md").read_text()
    rows = rows_of_table(text, "| Topic | Type |").items()
    told = {name if name.startswith("/") else f"/readme/{name}": kind for name, kind in rows}
    assert told == topics
    pictures = {name for name, kind in told.items() if kind == "sensor_msgs/msg/Image"}
    assert pictures == {f"/readme/{name}" for name in ("image", *OUTPUTS)}, (
        "else a node proposes them as a camera's topic"
    )
    told = {
        name.replace("~", "/readme/vo_node"): kind for name, kind in rows_of_table(text, "| Service | Type |").items()
    }
    assert told == services


def test_commands_of_the_jetson_page_are_understood():
    """Every `depth_pose build-engines ...` line, by the command's own parser."""
    import argparse
    import shlex

    from depth_pose_ros import build_engines

    text = (ROOT / "docs" / "jetson.md").read_text() + (ROOT / "docker" / "Dockerfile.jetson").read_text()
    lines = re.findall(r"depth_pose build-engines((?: +--?[\w-]+| +\d+x\d+)+)", text)
    assert len(lines) >= 3
    for line in lines:
        parser = argparse.ArgumentParser()
        build_engines.add_arguments(parser)
        parser.parse_args(shlex.split(line))


def test_dockerfiles_copy_and_start_what_there_is():
    files = sorted((ROOT / "docker").glob("Dockerfile.*"))
    assert [path.name for path in files] == ["Dockerfile.jazzy", "Dockerfile.jetson"]
    for path in files:
        text = path.read_text()
        assert 'CMD ["ros2", "launch", "depth_pose_ros", "vo.launch.py"]' in text
        (entry,) = re.findall(r'ENTRYPOINT \["/workspace/src/depth_pose_ros/(\S+)"\]', text)
        assert (ROOT / entry).stat().st_mode & 0o111
    assert (ROOT / "launch" / "vo.launch.py").is_file()
