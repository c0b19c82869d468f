"""Installation of depth_pose_ros: by ``colcon build`` in a ROS 2 workspace (ament_python) or by ``pip install``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "depth_pose_ros"
ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (ROOT / NAME / "__init__.py").read_text(), re.MULTILINE).group(1)

# What a user may install on top of the run-time needs, by what it is for.
RUN = ["rich", "rosbags>=0.10"]
VIEW = ["matplotlib", *RUN]
RERUN = ["rerun-sdk>=0.23"]
EVAL = ["evo>=1.30", *VIEW]
TRAIN = ["lightning>=2.2", "onnx>=1.16", "torch>=2.2", *RUN]
TEST = [
    *EVAL,
    *TRAIN,
    *RERUN,
    "hypothesis",
    "import-linter>=2.0",
    "pytest>=7.4",
    "pytest-rerunfailures",
    "pytest-timeout",
    "rosbags-image",
    "ruff>=0.6",
]


def share(folder: str) -> list[tuple[str, list[str]]]:
    """Every file below ``folder``, to be installed in the package's share directory with its path kept."""
    files = sorted(path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [(f"share/{NAME}/{path.parent.relative_to(ROOT)}", [str(path.relative_to(ROOT))]) for path in files]


setup(
    name=NAME,
    version=VERSION,
    description="One camera in; odometry, TF, depth and a point cloud out.",
    maintainer="depth_pose_ros maintainers",
    maintainer_email="maintainers@depth-pose-ros.example",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="ros2 robotics visual-odometry monocular depth optical-flow slam",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *share("launch"),
        *share("config"),
        *share("models"),
        *share("demo"),
    ],
    python_requires=">=3.10",
    install_requires=["numpy>=1.26", "onnxruntime>=1.17", "opencv-python-headless>=4.5", "pyyaml"],
    extras_require={"run": RUN, "view": VIEW, "rerun": RERUN, "eval": EVAL, "train": TRAIN, "test": TEST},
    zip_safe=True,
    entry_points={
        "console_scripts": [
            "bag_recorder = depth_pose_ros.nodes.__main__:bag_recorder",
            "camera_player = depth_pose_ros.nodes.__main__:camera_player",
            "check_camera = depth_pose_ros.nodes.__main__:check_camera",
            "demo = depth_pose_ros.demo.__main__:main",
            "depth_node = depth_pose_ros.nodes.__main__:depth_node",
            "depth_pose = depth_pose_ros.cli:main",
            "flow_node = depth_pose_ros.nodes.__main__:flow_node",
            "pose_node = depth_pose_ros.nodes.__main__:pose_node",
            "view_node = depth_pose_ros.nodes.__main__:view_node",
            "vo_node = depth_pose_ros.nodes.__main__:vo_node",
        ],
    },
)
