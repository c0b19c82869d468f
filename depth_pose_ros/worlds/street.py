"""Streets: a road with markings and kerbs, what lines it on either side, traffic, and a sky."""

from dataclasses import dataclass

import numpy as np

from . import props
from .props import Stage, pose
from .render import Light, RigidObject, Scene
from .surfaces import Builder, Look


@dataclass(frozen=True)
class Course:
    """The road's middle line: straight, then bending with constant curvature, over gentle hills.

    s is the distance along it in m, d the offset to the left.
    """

    curvature: float
    bend_start: float
    hill: float
    hill_length: float

    def heading(self, s: np.ndarray | float) -> np.ndarray:
        """Direction (rad) of the road at s."""
        return self.curvature * np.clip(np.asarray(s, np.float64) - self.bend_start, 0, None)

    def height(self, s: np.ndarray | float) -> np.ndarray:
        """Height (m) of the road at s."""
        return self.hill * (1 - np.cos(np.asarray(s, np.float64) / self.hill_length))

    def point(self, s: np.ndarray | float, d: np.ndarray | float = 0.0, z: float = 0.0) -> np.ndarray:
        """(..., 3) world point."""
        s, d = np.broadcast_arrays(np.asarray(s, np.float64), np.asarray(d, np.float64))
        bend = np.clip(s - self.bend_start, 0, None)
        straight = s - bend
        a = self.curvature * bend
        k = self.curvature if abs(self.curvature) > 1e-9 else 1.0
        x = straight + (np.sin(a) / k if abs(self.curvature) > 1e-9 else bend)
        y = (1 - np.cos(a)) / k if abs(self.curvature) > 1e-9 else np.zeros_like(s)
        return np.stack([x - d * np.sin(a), y + d * np.cos(a), self.height(s) + z], -1)

    def pose(self, s: float, d: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
        """(4, 4): standing at (s, d), x along the road plus ``yaw``, upright."""
        p = self.point(s, d, z)
        return pose(p[0], p[1], p[2], float(self.heading(s)) + yaw)


@dataclass(frozen=True)
class Follower(RigidObject):
    """A vehicle that keeps to its lane: pose by the course instead of by constant turn.

    s, d: where it is at time 0; speed: m/s along the course, negative when it comes towards.
    """

    course: Course | None = None
    s: float = 0.0
    d: float = 0.0
    speed: float = 0.0

    def pose(self, time: float) -> np.ndarray:
        """T_world_object (4, 4) at ``time`` s."""
        return self.course.pose(self.s + self.speed * time, self.d, 0.0, np.pi if self.speed < 0 else 0.0)


def _strip(stage: Stage, course: Course, s: np.ndarray, d0: float, d1: float, z0: float, z1: float, look: Look,
           bumps: float = 0.0) -> None:  # fmt: skip
    """Ground between the offsets d0 < d1 (m, to the left), its right border at height z0 and its left at z1."""
    right, left = course.point(s, d0), course.point(s, d1)
    right[:, 2] += z0
    left[:, 2] += z1
    if bumps:
        left[:, 2] += stage.rng.normal(0, bumps, len(s))
    a, b, c, d = right[:-1], right[1:], left[1:], left[:-1]
    corners = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    # One surface, so that its inner borders cost no supersampling.
    stage.builder.triangles(corners, look, np.repeat(flat[:, None], 3, 1), one_sided=False)


def sun_and_sky(rng: np.random.Generator, clear: bool = False) -> Light:
    """From clear noon to overcast to low evening sun; ``clear``: no clouds before the sun and no mist."""
    overcast = rng.random() < 0.4 and not clear
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(15, 70))
    if overcast:
        elevation = np.deg2rad(rng.uniform(60, 85))
    direction = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    warm = np.clip(1.2 - elevation, 0, 1) * 0.25
    sun = np.array([1 - 1.3 * warm, 1 - 0.5 * warm, 1.0]) * (
        rng.uniform(0.0, 0.25) if overcast else rng.uniform(0.7, 1.2)
    )
    level = rng.uniform(0.45, 0.8) if overcast else rng.uniform(0.16, 0.4)
    blue = 0.08 if overcast else rng.uniform(0.15, 0.6)
    sky = level * np.array([1 + blue, 1.0, 1 - 0.6 * blue])
    horizon = sky.mean() * rng.uniform(0.9, 2.2) * np.array([1 + 0.2 * blue, 1.0, 1 - 0.1 * blue])
    return Light(
        direction=direction,
        sun=sun,
        sky=sky,
        bounce=0.35 * sky.mean() * np.array([0.85, 0.95, 1.0]),
        horizon=horizon,
        haze=float(rng.choice([rng.uniform(120, 500), rng.uniform(500, 3000)], p=[0.0, 1.0] if clear else [0.5, 0.5])),
        clouds=float(rng.choice([0.0, rng.uniform(0.2, 0.9)])),
        softness=3 if overcast else 1,
    )


def street(
    seed: int, device: str = "cpu", length: float = 130.0, curved: bool | None = None, calm: bool = False
) -> Scene:
    """A street of ``length`` m. ``curved``: force a bend or a straight; ``calm``: exactly one moving car, for demos."""
    rng = np.random.default_rng([int(seed), 0x57E7])
    stage = Stage(Builder(), rng, variety=int(rng.integers(2, 6)))
    b = stage.builder
    b.textures[("clouds", 0)] = 0
    if curved is None:
        curved = rng.random() < 0.35
    hilly = rng.random() < 0.4 and not calm
    course = Course(
        curvature=float(rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(1 / 120), np.log(1 / 25)))) if curved else 0.0,
        bend_start=float(rng.uniform(15, 60)),
        hill=float(rng.uniform(0.1, 1.2)) if hilly else 0.0,
        hill_length=float(rng.uniform(15, 40)),
    )
    start, end = -25.0, length
    step = 3.0 if (curved or hilly) else (end - start)
    s = np.linspace(start, end, max(2, int((end - start) / step) + 1))
    far = 90.0

    # The road and its markings.
    lanes = int(rng.choice([1, 2, 2, 2, 3, 4]))
    lane = rng.uniform(2.8, 3.7)
    parking = [calm or rng.random() < 0.55, rng.random() < 0.55]
    half = lanes * lane / 2
    edges = [half + (2.1 if parking[i] else 0.0) for i in range(2)]  # right, left
    asphalt = stage.look("asphalt", rng.uniform(3, 7), ground=True)
    _strip(stage, course, s, -edges[0], edges[1], 0, 0, asphalt)
    paint = stage.look("marking", 1.5, spread=0.1, ground=True)
    marks = s if len(s) > 2 else np.arange(start, end + 0.1, 20.0)

    def line(d: float, width: float, dash: float, gap: float) -> None:
        if gap == 0:
            _strip(stage, course, marks, d - width / 2, d + width / 2, 0.004, 0.004, paint)
            return
        for a in np.arange(start + rng.uniform(0, gap), end, dash + gap):
            _strip(stage, course, np.array([a, a + dash]), d - width / 2, d + width / 2, 0.004, 0.004, paint)

    if lanes > 1 and rng.random() < 0.85:
        for k in range(1, lanes):
            line(
                -half + k * lane,
                rng.uniform(0.1, 0.16),
                rng.uniform(2, 6),
                0.0 if rng.random() < 0.2 else rng.uniform(3, 8),
            )
    for side in (-1, 1):
        if rng.random() < 0.4:
            line(side * (half - 0.15), 0.12, 1.0, 0.0)
    for _ in range(int(rng.integers(0, 3))):  # crossings, patches, manholes
        at = rng.uniform(5, end - 10)
        kind = rng.integers(3)
        if kind == 0:
            for d in np.arange(-half + 0.3, half - 0.3, 1.0):
                _strip(stage, course, np.array([at, at + 3.0]), d, d + 0.5, 0.004, 0.004, paint)
        elif kind == 1:
            tar = stage.look("asphalt", 3.0, tint=np.full(3, rng.uniform(0.5, 0.9)), ground=True)
            _strip(
                stage,
                course,
                np.array([at, at + rng.uniform(1, 12)]),
                *np.sort(rng.uniform(-half, half, 2)),
                0.003,
                0.003,
                tar,
            )
        else:
            with stage.at(course.pose(at, rng.uniform(-half, half), 0.005)):
                b.cylinder(
                    [0, 0, -0.02], 0.35, 0.02, asphalt, cap=stage.look("checks", tint=(0.35, 0.35, 0.35), ground=True)
                )

    # What lines it: on each side kerb, pavement, verge, then one of several worlds.
    free: list[tuple[float, float, float]] = []
    for side in (-1, 1):
        kind = str(
            rng.choice(["blocks", "houses", "park", "woods", "barrier", "field"], p=[0.3, 0.27, 0.13, 0.1, 0.08, 0.12])
        )
        edge = edges[0 if side < 0 else 1]
        _side(stage, course, s, side, edge, kind, start, end, far, free)
        # Parked cars.
        if parking[0 if side < 0 else 1]:
            at = start + rng.uniform(0, 8)
            density = rng.uniform(0.2, 0.95)
            while at < end - 5:
                if rng.random() < density:
                    facing = 0.0 if (side < 0) == (rng.random() < 0.9) else np.pi
                    with stage.at(
                        course.pose(at, side * (edge - 1.0 + rng.normal(0, 0.1)), 0, facing + rng.normal(0, 0.03))
                    ):
                        at += 0.5 * (props.lorry(stage) if rng.random() < 0.04 else props.car(stage)) + 2.6
                else:
                    at += 5.5
                at += rng.uniform(0.5, 1.5)

    # Moving traffic.
    objects: list[RigidObject] = []
    wanted = 1 if calm else int(rng.choice([0, 1, 2, 3, 4], p=[0.25, 0.25, 0.2, 0.2, 0.1]))
    queue = (not calm) and rng.random() < 0.3
    for k in range(wanted + (3 if queue else 0)):
        index = int(rng.integers(lanes))
        d = -half + (index + 0.5) * lane + rng.normal(0, 0.15)
        oncoming = d > 0.3 and rng.random() < 0.8
        at = rng.uniform(8, end - 10) if not calm else 26.0
        if calm:
            d, oncoming = -half + 0.5 * lane, False  # it leads, in the lane of whoever drives here
        if queue and k < 3:
            at = rng.uniform(6, 40)
        speed = (
            rng.uniform(0, 3) if queue else rng.choice([0.0, rng.uniform(1, 8), rng.uniform(6, 16)], p=[0.1, 0.4, 0.5])
        )
        if calm:
            speed = 8.0
        speed = -max(float(speed), 1e-9) if oncoming else float(speed)
        objects.append(Follower(course.pose(at, d), course=course, s=float(at), d=float(d), speed=speed))
        b.object, b.place = len(objects), np.eye(4)
        _ = props.lorry(stage) if rng.random() < 0.15 and not calm else props.car(stage)
    for _ in range(int(rng.choice([0, 0, 1, 2, 4]))):
        side = rng.choice([-1, 1])
        edge = edges[0 if side < 0 else 1]
        d = side * (edge + rng.uniform(0.6, 1.8)) if calm or rng.random() < 0.8 else rng.uniform(-half, half)
        raised = 0.12 if abs(d) > edge else 0.0
        T = course.pose(rng.uniform(4, 50), d, raised, rng.choice([0, np.pi]) + rng.normal(0, 0.3))
        objects.append(RigidObject(T, (float(rng.choice([0.0, rng.uniform(0.8, 1.8)])), 0.0, 0.0, 0.0)))
        b.object, b.place = len(objects), np.eye(4)
        props.person(stage)
    b.object, b.place = 0, np.eye(4)

    # The land beyond, and what closes the view: far trees or roofs.
    soil = stage.any(["grass", "soil", "asphalt"], 6.0, ground=True)
    b.quad([-400, -400, -0.35], [1200, 0, 0], [0, 800, 0], soil)
    if rng.random() < 0.85:
        line_look = stage.look("treeline", None, tint=rng.uniform(0.5, 1.0, 3), alpha=True)
        middle = course.point(60.0)
        for k in range(16):
            a, c = 2 * np.pi * k / 16, 2 * np.pi * (k + 1) / 16
            radius = rng.uniform(150, 260)
            p, q = (middle + radius * np.array([np.cos(t), np.sin(t), 0]) for t in (a, c))
            if rng.random() < 0.8:
                b.quad([p[0], p[1], -2], q - p, [0, 0, rng.uniform(6, 22)], line_look)
    crowd = np.random.default_rng([int(seed), 0x7AF1])  # of its own, so that streets without are what they were
    if not calm and crowd.random() < 0.4:
        _standing_traffic(stage, course, lanes, lane, end, [v.d for v in objects if isinstance(v, Follower)])
    if not calm and crowd.random() < 0.2:
        _bridge(stage, course, crowd.uniform(12, end - 20), max(edges))

    xy = course.point(np.linspace(start, end, 30))
    extent = (xy[:, 0].min() - 15, xy[:, 1].min() - 30, xy[:, 0].max() + 10, xy[:, 1].max() + 30)
    return Scene(
        "street",
        b,
        sun_and_sky(rng, clear=calm),
        extent,
        0.16,
        objects,
        device,
        {
            "course": course,
            "half": half,
            "edges": edges,
            "lane": lane,
            "lanes": lanes,
            "end": end,
            "traffic": [v for v in objects if isinstance(v, Follower)],
        },
    )


def _standing_traffic(stage: Stage, course: Course, lanes: int, lane: float, end: float, driven: list[float]) -> None:
    """A jam: cars, vans and lorries at rest, close enough that little of the street is seen past them.

    driven: d (m) of what moves; its lanes stay free.
    """
    rng = stage.rng
    lorries = rng.uniform(0.05, 0.5)
    for k in range(lanes):
        d = (k + 0.5 - lanes / 2) * lane
        facing = np.pi if d > 0.3 and rng.random() < 0.6 else 0.0
        if rng.random() < 0.2 or any(abs(d - other) < 0.8 * lane for other in driven):
            continue
        density, at = rng.uniform(0.3, 1.0), rng.uniform(-20.0, 5.0)
        while at < min(end - 5, 90.0):
            kind, room = (props.lorry, 12.5) if rng.random() < lorries else (props.car, 5.6)
            if rng.random() < density:
                with stage.at(course.pose(at + room / 2, d + rng.normal(0, 0.2), 0, facing + rng.normal(0, 0.03))):
                    kind(stage)
            at += room + rng.uniform(0.5, 9.0)


def _bridge(stage: Stage, course: Course, at: float, edge: float) -> None:
    """A bridge across the street at ``at`` m, ``edge`` m from its middle to its pillars at least."""
    b, rng = stage.builder, stage.rng
    look = stage.any(["concrete", "plain", "brick"], rng.uniform(2, 5), spread=0.3)
    clearance, thickness, width = rng.uniform(4.5, 7.5), rng.uniform(0.5, 1.6), rng.uniform(3.0, 14.0)
    reach = edge + rng.uniform(1.0, 6.0)
    with stage.at(course.pose(at, 0.0, 0.0, rng.normal(0, 0.2))):
        b.box([0, 0, clearance + thickness / 2], [width, 160.0, thickness], look)
        for side in (-1, 1):
            b.box([side * width / 2, 0, clearance + thickness + 0.5], [0.15, 160.0, 1.0], look)
            b.box([0, side * reach, clearance / 2], [width * rng.uniform(0.2, 0.9), 0.8, clearance], look, bottom=False)


def _side(stage: Stage, course: Course, s: np.ndarray, side: int, edge: float, kind: str, start: float, end: float,
          far: float, free: list) -> None:  # fmt: skip
    """Everything from the kerb outwards on one side (-1 right, 1 left)."""
    b, rng = stage.builder, stage.rng

    def strip(near: float, away: float, z0: float, z1: float, look: Look, bumps: float = 0.0) -> None:
        if side > 0:
            _strip(stage, course, s, near, away, z0, z1, look, bumps)
        else:
            _strip(stage, course, s, -away, -near, z1, z0, look)

    def stand(at: float, d: float, z: float, yaw: float = 0.0) -> np.ndarray:
        # The front (+x of a prop) looks at the road.
        return course.pose(at, side * d, z, -side * np.pi / 2 + yaw)

    out, z = edge, 0.0
    if kind in ("blocks", "houses") or rng.random() < 0.3:
        z = rng.uniform(0.08, 0.16)
        stone = stage.look("concrete", 1.0, ground=True)
        strip(out, out + 0.02, 0, z, stone)
        strip(out + 0.02, out + 0.2, z, z, stone)
        width = rng.uniform(1.4, 4.5)
        strip(out + 0.2, out + width, z, z, stage.any(["paving", "asphalt", "tiles"], rng.uniform(1.5, 3), ground=True))
        out += width
    verge = 0.0
    if kind in ("park", "woods", "field", "barrier"):
        verge = rng.uniform(1.0, 8.0)
    elif rng.random() < 0.35:
        verge = rng.uniform(0.8, 3.0)
    lawn = stage.any(["grass", "grass", "grass", "soil", "leaves"], rng.uniform(1.5, 4), ground=True)
    if verge:
        strip(out, out + verge, z, z + rng.normal(0, 0.1), lawn, 0.03)
    furniture = edge + (0.5 if z else 0.9)

    step = rng.uniform(18, 40)
    if rng.random() < 0.6:
        for at in np.arange(start + rng.uniform(0, step), end, step):
            with stage.at(stand(at, furniture, z)):
                props.street_lamp(stage)
    for _ in range(int(rng.integers(0, 7))):
        with stage.at(course.pose(rng.uniform(0, end), side * furniture, z, rng.normal(0, 0.2))):
            props.sign_post(stage)
    for _ in range(int(rng.integers(0, 8))):
        with stage.at(stand(rng.uniform(0, end), out - 0.3, z)):
            props.bollard_or_bin(stage) if rng.random() < 0.8 else props.bench(stage)
    if rng.random() < (0.45 if kind in ("blocks", "houses") else 0.6):
        spacing = rng.uniform(6, 18)
        tall = rng.uniform(3, 11)
        at_d = out + 0.5 * verge if verge else furniture + 0.3
        for at in np.arange(start + rng.uniform(0, spacing), end, spacing):
            if rng.random() < 0.85:
                with stage.at(stand(at + rng.normal(0, 0.5), at_d, z)):
                    props.tree(stage, tall * rng.uniform(0.8, 1.2), detailed=at < 45)
    out += verge

    if kind == "blocks":
        at = start
        low, high = sorted(rng.uniform(5, 24, 2))
        while at < end:
            length = rng.uniform(8, 26)
            if rng.random() < 0.9:
                heading = float(course.heading(at + length / 2))
                p = course.point(at + length / 2, side * (out + rng.uniform(0, 1.5)))
                with stage.at(pose(p[0], p[1], p[2] + z, heading - side * np.pi / 2)):
                    props.block(stage, length - rng.choice([0.0, 0.0, 1.5]), 12.0, rng.uniform(low, high))
            at += length
        strip(out, out + 20, z, z, stage.any(["paving", "asphalt", "grass"], 3.0, ground=True))
    elif kind == "houses":
        strip(out, out + 45, z, z, lawn)
        setback = rng.uniform(2.0, 9.0)
        border = rng.integers(4)
        at = start + rng.uniform(0, 8)
        while at < end:
            length, depth, height = rng.uniform(7, 14), rng.uniform(7, 11), rng.uniform(2.8, 7.0)
            with stage.at(stand(at + length / 2, out + setback + depth / 2, z, rng.normal(0, 0.05))):
                props.house(stage, length, depth, height)
            gap = rng.uniform(2.5, 9)
            run = length + (gap if rng.random() < 0.5 else 0.0)
            with stage.at(course.pose(at, side * (out + 0.3), z)):
                if border == 0:
                    props.hedge(stage, run, rng.uniform(0.8, 2.0))
                elif border == 1:
                    props.railing(stage, run, rng.uniform(0.8, 1.6))
            for _ in range(int(rng.integers(0, 4))):
                spot = stand(at + rng.uniform(0, length + gap), out + rng.uniform(0.8, setback), z)
                with stage.at(spot):
                    props.bush(stage, rng.uniform(0.6, 1.8))
            if rng.random() < 0.4:
                with stage.at(stand(at + length + gap / 2, out + rng.uniform(2, 12), z)):
                    props.tree(stage, rng.uniform(4, 10), detailed=at < 30)
            if rng.random() < 0.2 and gap > 3:
                with stage.at(stand(at + length + gap / 2, out + 3.0, z)):
                    props.car(stage)
            at += length + gap
    elif kind in ("park", "woods"):
        strip(out, out + far, z, z + rng.uniform(-0.3, 1.0), lawn, 0.1)
        count = int(rng.uniform(8, 20)) if kind == "park" else int(rng.uniform(30, 50))
        depth = 45 if kind == "park" else 18
        for _ in range(count):
            at, d = rng.uniform(start, end + 20), out + 1.5 + depth * rng.random() ** 1.3
            with stage.at(stand(at, d, z)):
                if rng.random() < 0.75:
                    props.tree(stage, rng.uniform(5, 15), detailed=False)
                else:
                    props.bush(stage, rng.uniform(0.8, 2.5))
    elif kind == "barrier":
        strip(out, out + far, z, z, lawn, 0.05)
        tall = rng.choice([0.8, rng.uniform(2.5, 5)])
        wall = stage.any(["concrete", "stripes", "wood", "brick"], rng.uniform(2, 4))
        for at in np.arange(start, end, 12.0):
            with stage.at(course.pose(at, side * (out + 0.3), z)):
                if tall < 1:
                    b.box([6, 0, 0.4], [12.2, 0.4, 0.8], wall, bottom=False)
                else:
                    b.box([6, 0, tall / 2], [12.2, 0.2, tall], wall, bottom=False)
            if rng.random() < 0.6:
                with stage.at(stand(at + rng.uniform(0, 12), out + rng.uniform(2, 12), z)):
                    props.tree(stage, rng.uniform(5, 12), detailed=False)
    else:
        strip(out, out + far, z, z + rng.uniform(-1.0, 1.5), lawn, 0.15)
        if rng.random() < 0.5:
            for at in np.arange(start, end, 10.0):
                with stage.at(course.pose(at, side * (out + 0.6), z)):
                    props.railing(stage, 10.0, rng.uniform(0.7, 1.3))
        for _ in range(int(rng.integers(0, 10))):
            with stage.at(stand(rng.uniform(start, end), out + rng.uniform(2, 40), z)):
                props.tree(stage, rng.uniform(5, 14), detailed=False) if rng.random() < 0.6 else props.bush(stage, 2.0)
        for _ in range(int(rng.integers(0, 4))):
            with stage.at(stand(rng.uniform(20, end + 10), out + rng.uniform(15, 55), z, rng.uniform(-1, 1))):
                props.house(stage, rng.uniform(8, 25), rng.uniform(8, 14), rng.uniform(3, 8))
