# The commands of this repository. Each does its own set-up in .venv; a second call does only what has changed.
#
#   make demo [INPUT=path] [ARGS="..."]   play a camera sequence through the nodes; results in out/
#   make test [ARGS="..."]                the tests (ARGS go to pytest)
#   make soak [ARGS="..."]                the long tests: messages and frames without number, nodes with faults
#   make lint                             style and import rules
#   make benchmark [ARGS="..."]           measure speed and accuracy; see docs/performance.md
#   make environment                      the set-up of `make demo` alone
#   make clean                            remove what the commands made, except .venv
#
# Without ROS 2 on the machine, rclpy and the messages come from PyPI wheels (x86-64) and tf2_msgs is built against
# them. With ROS 2 sourced (ROS_DISTRO and AMENT_PREFIX_PATH set, rclpy importable) nothing is fetched for ROS.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
INPUT ?=
OUT ?= out
ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test soak benchmark lint environment clean

BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
SOURCED_ROS := $(and $(ROS_DISTRO),$(AMENT_PREFIX_PATH),$(shell $(PYTHON) -c 'import rclpy' 2>/dev/null && echo yes))
ROS := $(if $(SOURCED_ROS),$(ROS_DISTRO),wheels)
TORCH_STAMP := $(STAMPS)/test-$(subst /,_,$(TORCH))

help:
	@sed -n '3,9s/^# *//p' Makefile

demo: environment
	@$(BIN)/python -m depth_pose_ros.demo $(if $(INPUT),"$(INPUT)") --out "$(OUT)" $(ARGS)

test: environment $(TORCH_STAMP)
	@ROS_PYTHON_CHECK_FIELDS=1 $(BIN)/python -m pytest $(ARGS)

soak: environment $(TORCH_STAMP)
	@ROS_PYTHON_CHECK_FIELDS=1 PYTHONPATH=. $(BIN)/python test/soak.py --out "$(OUT)/soak" $(ARGS)

benchmark: environment
	@$(BIN)/python -m benchmark $(if $(INPUT),--input "$(INPUT)") --out "$(OUT)/benchmark" $(ARGS)

lint: $(STAMPS)/lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

environment: $(STAMPS)/package

clean:
	rm -rf build install log $(OUT) .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# One virtual environment serves either the wheels or one sourced ROS 2, never both: their libraries would mix.
$(STAMPS)/venv-$(ROS):
	@tools/check_machine.sh "$(PYTHON)" "$(VENV)" "$(ROS)"
	@echo "Making $(VENV) with $$($(PYTHON) --version) for ROS 2: $(ROS)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(if $(SOURCED_ROS),--system-site-packages) $(VENV)
	@$(PIP) install --upgrade pip
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/ros-wheels: tools/install_ros_wheels.sh $(shell find interfaces -type f) | $(STAMPS)/venv-wheels
	@tools/install_ros_wheels.sh $(VENV)
	@touch $@

$(STAMPS)/ros-%: | $(STAMPS)/venv-%
	@touch $@

# A sourced ROS 2 was compiled against the system's NumPy: keep that one.
$(STAMPS)/package: setup.py setup.cfg $(STAMPS)/ros-$(ROS)
	@echo "Installing depth_pose_ros and what it needs to run"
	@$(BIN)/python -c 'import numpy; print("numpy==" + numpy.__version__)' >$(STAMPS)/constraints.txt
	@$(PIP) install $(if $(SOURCED_ROS),--constraint $(STAMPS)/constraints.txt) --editable '.[view]'
	@touch $@

$(TORCH_STAMP): setup.py $(STAMPS)/package
	@echo "Installing what tests and training need ($(TORCH))"
	@$(PIP) install $(if $(SOURCED_ROS),--constraint $(STAMPS)/constraints.txt) '$(TORCH)' --editable '.[test]'
	@touch $@

$(STAMPS)/lint: setup.py | $(STAMPS)/venv-$(ROS)
	@$(PIP) install 'ruff>=0.6' 'import-linter>=2.0'
	@touch $@
