"""The machinery that makes each tunable known in one place."""

from dataclasses import FrozenInstanceError, dataclass

import pytest

from depth_pose_ros.config import OdometryConfig, Tunables, markdown_table, tunable, tunables
from depth_pose_ros.errors import ConfigError


@dataclass(frozen=True)
class Example(Tunables):
    speed: float = tunable(1.5, "How fast.", unit="m/s", minimum=0.0, maximum=10.0)
    count: int = tunable(3, "How many.", minimum=1)
    mode: str = tunable("fast", "Which way.", choices=("fast", "", "safe"), read_only=True)
    enabled: bool = tunable(True, "Whether at all.")


def test_defaults_and_their_types():
    example = Example()
    assert example.to_dict() == {"speed": 1.5, "count": 3, "mode": "fast", "enabled": True}
    assert [item.type for item in tunables(Example)] == [float, int, str, bool]
    with pytest.raises(FrozenInstanceError):
        example.speed = 2.0


def test_numbers_take_the_field_s_own_type():
    example = Example(speed=2, count=4.0)
    assert (type(example.speed), example.speed) == (float, 2.0)
    assert (type(example.count), example.count) == (int, 4)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"speed": -0.1}, ["speed", "-0.1", "0 to 10 m/s"]),
        ({"speed": 10.5}, ["speed", "10.5"]),
        ({"speed": float("nan")}, ["speed", "nan", "finite"]),
        ({"speed": "3"}, ["speed", "'3'", "a number"]),
        ({"count": 0}, ["count", "at least 1"]),
        ({"count": 2.5}, ["count", "2.5", "an integer"]),
        ({"count": True}, ["count", "True", "an integer"]),
        ({"mode": "slow"}, ["mode", "'slow'", "fast", "''", "safe"]),
        ({"enabled": 1}, ["enabled", "true or false"]),
        ({"sped": 1.0}, ["sped", "speed"]),
    ],
)
def test_what_is_wrong_is_named(values, words):
    with pytest.raises(ConfigError) as error:
        Example.from_dict(values)
    for word in words:
        assert word in str(error.value)


def test_table_of_the_docs_has_a_row_for_each_tunable():
    rows = markdown_table(Example).splitlines()
    assert len(rows) == 2 + 4
    assert rows[2] == "| `speed` | `1.5` | 0 to 10 m/s | How fast. |"
    assert rows[4] == "| `mode` | `fast` | one of: fast, '', safe | Which way. Set at start only. |"
    assert rows[5].startswith("| `enabled` | `true` | true or false |")


def test_odometry_s_defaults_are_allowed_and_described():
    OdometryConfig()
    assert all(item.help.endswith(".") for item in tunables(OdometryConfig))
