"""The dataclasses of ``config.py`` as ROS parameters, and as the default parameter file.

Every parameter gets a descriptor (help, unit, range, read-only). A change that ``config.py`` refuses is refused with
its reason; one that it takes is given to the node at once.
"""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Callable, Collection

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from depth_pose_ros.config import NODE_CONFIGS, Tunable, Tunables, tunables
from depth_pose_ros.errors import ConfigError

Configs = dict[type[Tunables], Tunables]


def descriptor(item: Tunable) -> ParameterDescriptor:
    """The ROS descriptor of one tunable."""
    result = ParameterDescriptor(
        name=item.name,
        description=item.help + (f" [{item.unit}]" if item.unit else ""),
        additional_constraints=item.allowed,
        read_only=item.read_only,
    )
    if item.minimum is not None or item.maximum is not None:
        low = -math.inf if item.minimum is None else item.minimum
        high = math.inf if item.maximum is None else item.maximum
        if item.type is int:
            low, high = max(low, -(2**63)), min(high, 2**63 - 1)
            result.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
        else:
            result.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    return result


def declare(node: Node, *config_classes: type[Tunables], leave_out: Collection[str] = ()) -> Configs:
    """Declare the tunables of the classes on the node and return one config of each, with the values set at start.

    leave_out: tunables that mean nothing to this node; they keep their defaults.
    ConfigError, in one sentence, when a value has the wrong type or is out of range.
    """
    configs: Configs = {}
    for config_class in config_classes:
        values = {}
        for item in tunables(config_class):
            if item.name in leave_out:
                continue
            try:
                values[item.name] = node.declare_parameter(item.name, item.default, descriptor(item)).value
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                hint = " (write a number with a point, e.g. 1.0)" if item.type is float else ""
                raise ConfigError(f"parameter {item.name}: {error}; allowed: {item.allowed}{hint}") from error
        configs[config_class] = config_class.from_dict(values)
    return configs


def unknown(node: Node) -> list[str]:
    """A sentence for each parameter that was given at start and that no node of this package has."""
    known = [item.name for config_class in NODE_CONFIGS for item in tunables(config_class)]
    sentences = []
    for name in getattr(node, "_parameter_overrides", {}):  # rclpy ignores those that nobody declares, silently
        if name not in known and not node.has_parameter(name):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            if name.startswith("qos_overrides."):
                hint = "; the topic is written as it is after remapping, with its namespace"
            sentences.append(f"parameter {name} means nothing to this node and is ignored{hint}")
    return sentences


def on_change(node: Node, configs: Configs, apply: Callable[[Tunables], None]) -> None:
    """From now on check each change of parameters as a whole, and give every config that changed to ``apply``.

    configs: as :func:`declare` returned them; kept up to date here.
    apply:   may refuse with ConfigError; then nothing is changed.
    """
    owner = {item.name: config_class for config_class in configs for item in tunables(config_class)}

    def change(parameters: list[Parameter]) -> SetParametersResult:
        changed: dict[type[Tunables], dict] = {}
        for parameter in parameters:
            if parameter.name in owner:
                config_class = owner[parameter.name]
                values = changed.setdefault(config_class, configs[config_class].to_dict())
                values[parameter.name] = parameter.value
        try:
            made = [config_class.from_dict(values) for config_class, values in changed.items()]
            for config in made:
                apply(config)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        configs.update({type(config): config for config in made})
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(change)


def default_yaml(*config_classes: type[Tunables]) -> str:
    """The default parameter file: every parameter with its default, and its help and range as comments."""
    lines = [
        "# Parameters of vo_node, depth_node, flow_node and pose_node, with their defaults; a node takes those it has.",
        "# Made from depth_pose_ros/config.py by `python -m depth_pose_ros.nodes.parameters`; a test keeps them equal.",
        "/**:",
        "  ros__parameters:",
    ]
    for config_class in config_classes:
        lines += ["", f"    # {config_class.__doc__.splitlines()[0]}"]
        for item in tunables(config_class):
            fixed = "; set at start only" if item.read_only else ""
            lines += textwrap.wrap(
                f"{item.help} ({item.allowed}{fixed})", 108, initial_indent="    # ", subsequent_indent="    # "
            )
            lines.append(f"    {item.name}: {_yaml(item.default)}")
    return "\n".join(lines) + "\n"


def _yaml(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    print(default_yaml(*NODE_CONFIGS), end="")
