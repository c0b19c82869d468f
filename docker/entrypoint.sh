#!/usr/bin/env bash
# Sources ROS 2 and the workspace, then runs the command.
set -e
source "/opt/ros/$ROS_DISTRO/setup.bash"
source /workspace/install/setup.bash
exec "$@"
