#!/usr/bin/env bash
# What `make` needs of the machine before it sets anything up, each missing thing with its remedy.
# usage: check_machine.sh PYTHON VENV wheels|ROS_DISTRO
set -euo pipefail
python=$1 venv=$2 ros=$3
packages="python3-dev python3-venv g++ make cmake"

stop() {
  printf 'depth_pose_ros: %s\n' "$@" >&2
  exit 1
}

command -v "$python" >/dev/null || stop "no $python here: sudo apt install $packages, or name yours: make ... PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  stop "Python 3.10 or newer is needed, $python is $("$python" --version): name a newer one: make ... PYTHON=/path/to/python3"
"$python" -c 'import ensurepip, venv' 2>/dev/null || stop "$python cannot make a virtual environment: sudo apt install python3-venv"

for stamp in "$venv"/.stamps/venv-*; do
  [ ! -e "$stamp" ] || [ "${stamp##*/venv-}" = "$ros" ] || stop \
    "$venv was made for ROS 2 '${stamp##*/venv-}', now it is '$ros'." \
    "Open a shell with the same ROS 2 as before, or remove $venv and run make again, or choose another: make ... VENV=.venv-$ros"
done

[ "$ros" = wheels ] || exit 0
[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || stop \
  "the ROS 2 wheels on PyPI are for x86-64 Linux, this is $(uname -s) $(uname -m)." \
  "Install ROS 2 from its own packages, source its setup.bash and run make again; nothing is fetched for ROS then."
command -v c++ >/dev/null || stop "no C++ compiler: sudo apt install g++"
command -v cmake >/dev/null || stop "no cmake: sudo apt install cmake"
"$python" - <<'PYTHON' || stop "the headers of $python are missing: sudo apt install python3-dev"
import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())
PYTHON
