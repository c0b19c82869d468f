"""Rooms and corridors: walls, floor and ceiling, furniture along the walls and in the middle, lamps."""

import numpy as np

from . import furniture, props
from .props import Stage, pose
from .render import Light, RigidObject, Scene
from .surfaces import Builder, Look


def lamp_light(rng: np.random.Generator, lamp: np.ndarray) -> Light:
    """Light of one lamp and what the walls throw back, from cold to warm."""
    warm = rng.uniform(-0.08, 0.25)
    tint = np.array([1 - warm, 1.0, 1 + 0.5 * warm])
    ambient = rng.uniform(0.12, 0.45)
    tilt, turn = rng.uniform(0.05, 0.5), rng.uniform(0, 2 * np.pi)
    direction = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)])
    return Light(
        direction=direction,
        sun=rng.uniform(0.3, 1.0) * tint,
        sky=ambient * tint,
        bounce=ambient * rng.uniform(0.5, 0.95) * tint * np.array([0.95, 1.0, 1.03]),
        horizon=np.ones(3),
        lamp=lamp,
        softness=int(rng.integers(1, 4)),
    )


def _walls(stage: Stage, x1: float, y1: float, height: float, looks: list[Look]) -> list[tuple[np.ndarray, float]]:
    """Four walls seen from inside, each with its foot. Returns pose (x into the room, origin mid-wall) and length."""
    b = stage.builder
    corners = [(0.0, 0.0), (x1, 0.0), (x1, y1), (0.0, y1)]
    skirting = stage.any(["plain", "wood"], 1.0)
    places = []
    for k in range(4):
        p, q = np.array([*corners[k], 0.0]), np.array([*corners[(k + 1) % 4], 0.0])
        length = float(np.linalg.norm(q - p))
        along = (q - p) / length
        inward = np.array([-along[1], along[0], 0.0])
        look = looks[k]
        # edge_u x edge_v points into the room.
        b.quad(q, p - q, [0, 0, height], Look(look.texture, look.tint, look.repeat, ground=True), one_sided=True)
        b.quad(q + 0.012 * inward, p - q, [0, 0, 0.09], skirting, one_sided=True)
        middle = 0.5 * (p + q)
        places.append((pose(middle[0], middle[1], 0, float(np.arctan2(inward[1], inward[0]))), length))
    return places


def _outlook(stage: Stage, y: float, width: float, low: float, tall: float) -> None:
    """A window in the wall x = 0."""
    b, rng = stage.builder, stage.rng
    view = stage.any(["gradient", "gradient", "facade", "leaves", "paint"], glow=float(rng.uniform(0.6, 2.5)))
    frame = stage.look("plain", tint=(1, 1, 1))
    b.quad([0.01, y - width / 2, low], [0, width, 0], [0, 0, tall], view)
    for k in range(int(rng.integers(2, 5))):
        b.box([0.03, y - width / 2 + k * width / 3, low + tall / 2], [0.06, 0.06, tall], frame)
    for z in (low, low + tall):
        b.box([0.05, y, z], [0.12, width + 0.1, 0.06], frame)
    if rng.random() < 0.35:
        cloth = stage.any(["carpet", "stripes", "plain"], 1.0)
        for sign in (-1, 1):
            b.box([0.08, y + sign * 0.55 * width, low + tall / 2 - 0.2], [0.1, 0.3 * width, tall + 0.6], cloth)


_ALONG_WALLS = {
    "counter": (furniture.counter, 1.2, 3.5),
    "shelf": (furniture.shelf, 0.6, 2.0),
    "desk": (furniture.desk, 1.0, 1.8),
    "sofa": (furniture.sofa, 0.9, 2.2),
    "tall": (furniture.tall, 0.5, 1.8),
    "low": (furniture.low, 0.8, 1.8),
    "radiator": (furniture.radiator, 0.6, 1.6),
    "cartons": (furniture.cartons, 0.6, 1.4),
}
_USES = {
    "kitchen": ("counter", "counter", "counter", "tall", "shelf", "radiator"),
    "office": ("desk", "desk", "shelf", "tall", "low", "cartons"),
    "living": ("sofa", "shelf", "low", "low", "tall", "radiator"),
    "store": ("shelf", "shelf", "cartons", "cartons", "tall", "desk"),
    "mixed": tuple(_ALONG_WALLS),
}


def _line(stage: Stage, length: float, height: float, use: tuple[str, ...], density: float, bare: float) -> None:
    """Furniture, doors, windows and pictures along the wall x = 0, |y| <= length / 2."""
    b, rng = stage.builder, stage.rng
    y = -length / 2 + rng.uniform(0.05, 0.5)
    while y < length / 2 - 0.7:
        room = length / 2 - y - 0.05
        kind = rng.random()
        if kind < density:
            make, shortest, longest = _ALONG_WALLS[str(rng.choice(use))]
            width = min(rng.uniform(shortest, longest), room)
            if width < 0.5:
                break
            with stage.at(pose(0.02, y + width / 2)):
                make(stage, width)
        elif kind < density + 0.12 and room > 1.0:
            width = 0.95
            b.quad([0.015, y, 0], [0, width, 0], [0, 0, 2.05], stage.look("door"))
            b.box([0.02, y + width / 2, 2.08], [0.05, width + 0.12, 0.08], stage.look("plain"))
        elif kind < density + 0.3 and room > 1.0:
            width = min(rng.uniform(0.8, 2.2), room)
            low = rng.uniform(0.5, 1.1)
            _outlook(stage, y + width / 2, width, low, min(rng.uniform(0.9, 1.6), height - low - 0.2))
        else:
            width = rng.uniform(0.4, 1.2)
        if rng.random() < 1 - bare:
            for _ in range(int(rng.integers(1, 5))):
                w, h = rng.uniform(0.15, 0.8), rng.uniform(0.15, 0.8)
                z = rng.uniform(1.1, max(height - h - 0.1, 1.2))
                at = y + rng.uniform(0, 1) * width
                b.quad([0.006, at - w / 2, z], [0, w, 0], [0, 0, h], stage.look("poster"))
        y += width + (rng.uniform(0.0, 0.8) if rng.random() < 0.6 else 0.02)


def _wall_tint(rng: np.random.Generator) -> np.ndarray:
    """(3,) BGR tint of painted walls: mostly near white."""
    return np.clip(rng.uniform(0.6, 1.05) * (1 + rng.normal(0, rng.choice([0.03, 0.06, 0.15]), 3)), 0.1, 1.1)


def _ceiling(stage: Stage, x1: float, y1: float, height: float) -> None:
    b, rng = stage.builder, stage.rng
    look = stage.any(["paint", "paint", "paint", "tiles", "concrete", "wood"], rng.uniform(1, 3), glow=0.02)
    b.quad([0, 0, height], [0, y1, 0], [x1, 0, 0], look, one_sided=True)
    bright = stage.look("paint", glow=float(rng.uniform(1.5, 6.0)))
    step = rng.uniform(1.6, 3.5)
    long = rng.random() < 0.5
    for x in np.arange(rng.uniform(0.8, 1.5), x1, step):
        for y in np.arange(rng.uniform(0.6, 1.0), y1, step):
            if long:
                b.box([x, y, height - 0.04], [1.2, 0.16, 0.06], bright)
            else:
                b.cylinder([x, y, height], 0.15, 0.08, bright, axis=(0, 0, -1), cap=bright)


def room(seed: int, device: str = "cpu") -> Scene:
    """A furnished room: kitchen, office, living room, store or a mixture, 2.6 to 9 m long."""
    rng = np.random.default_rng([int(seed), 0x3003])
    stage = Stage(Builder(), rng, variety=int(rng.integers(2, 7)))
    b = stage.builder
    x1, y1 = np.exp(rng.uniform(np.log(2.8), np.log(9.0))), np.exp(rng.uniform(np.log(2.6), np.log(6.5)))
    height = rng.uniform(2.3, 3.4)
    names = ["paint", "paint", "paint", "plain", "stripes", "concrete"]
    paint = stage.any(names, rng.uniform(1.5, 3), tint=_wall_tint(rng))
    looks = [
        paint if rng.random() < 0.75 else stage.any(["plain", "brick", "wood", "tiles", "noise"], 1.5) for _ in range(4)
    ]
    floor = stage.any(
        ["wood", "wood", "carpet", "carpet", "tiles", "noise", "asphalt", "checks"], rng.uniform(0.8, 2.5), ground=True
    )
    b.quad([0, 0, 0], [x1, 0, 0], [0, y1, 0], floor, one_sided=True)
    _ceiling(stage, x1, y1, height)
    use = _USES[str(rng.choice(list(_USES)))]
    density, bare = rng.uniform(0.45, 0.9), rng.uniform(0.2, 0.8)
    for place, length in _walls(stage, x1, y1, height, looks):
        with stage.at(place):
            _line(stage, length, height, use, density, bare)

    # The middle: a table with chairs, a rug, boxes, a column, somebody.
    if min(x1, y1) > 3.0:
        for _ in range(int(rng.integers(1, 3))):
            depth, width = rng.uniform(0.6, 1.0), rng.uniform(0.8, 1.9)
            cx, cy = rng.uniform(1.2, x1 - 1.2), rng.uniform(1.2, y1 - 1.2)
            low = rng.random() < 0.25
            with stage.at(pose(cx, cy, 0, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15))):
                furniture.table(stage, depth, width, 0.42 if low else rng.uniform(0.7, 0.78), rng.uniform(0.2, 1.4))
                for _ in range(0 if low else int(rng.integers(0, 5))):
                    side = rng.choice([-1, 1])
                    x, yaw = (-0.25, 0.0) if side < 0 else (depth + 0.25, np.pi)
                    with stage.at(pose(x, rng.uniform(-0.4, 0.4) * width, 0, yaw + rng.normal(0, 0.3))):
                        furniture.chair(stage)
    if rng.random() < 0.35:
        w, d = rng.uniform(1.0, 2.2, 2)
        rug = stage.any(["carpet", "stripes", "checks", "shapes", "leaves"], 1.5, ground=True)
        b.quad(
            [rng.uniform(0.3, max(x1 - w, 0.4)), rng.uniform(0.3, max(y1 - d, 0.4)), 0.006], [w, 0, 0], [0, d, 0], rug
        )
    for _ in range(int(rng.poisson(2.0))):
        with stage.at(pose(rng.uniform(0.5, x1 - 0.5), rng.uniform(0.5, y1 - 0.5), 0, rng.uniform(0, 6.3))):
            kind = rng.integers(4)
            if kind == 0:
                furniture.cartons(stage, 0.5)
            elif kind == 1:
                furniture.chair(stage)
            elif kind == 2:
                props.bollard_or_bin(stage)
            else:
                furniture.item(stage)
    objects = _people(stage, x1, y1)
    lamp = np.array([x1 / 2 + rng.normal(0, 0.5), y1 / 2 + rng.normal(0, 0.5), height - 0.15])
    outlook = {"floor": (0.3, 0.3, x1 - 0.3, y1 - 0.3), "height": height}
    return Scene("room", b, lamp_light(rng, lamp), (-0.2, -0.2, x1 + 0.2, y1 + 0.2), 0.025, objects, device, outlook)


def _people(stage: Stage, x1: float, y1: float) -> list[RigidObject]:
    """Somebody who walks through, sometimes; a thing that is carried or rolls."""
    b, rng = stage.builder, stage.rng
    objects: list[RigidObject] = []
    for _ in range(int(rng.choice([0, 0, 0, 1, 2]))):
        T = pose(rng.uniform(0.6, x1 - 0.6), rng.uniform(0.6, y1 - 0.6), 0, rng.uniform(0, 6.3))
        objects.append(RigidObject(T, (float(rng.uniform(0, 1.2)), 0.0, 0.0, float(rng.normal(0, 0.4)))))
        b.object, b.place = len(objects), np.eye(4)
        props.person(stage)
    if rng.random() < 0.2:
        T = pose(rng.uniform(0.6, x1 - 0.6), rng.uniform(0.6, y1 - 0.6), rng.uniform(0.0, 1.2), rng.uniform(0, 6.3))
        objects.append(RigidObject(T, (*(float(v) for v in rng.normal(0, 0.5, 3)), float(rng.normal(0, 1.0)))))
        b.object, b.place = len(objects), np.eye(4)
        size = rng.uniform(0.15, 0.5, 3)
        b.box([0, 0, size[2] / 2], size, stage.any(["carton", "poster", "shapes"]))
    b.object, b.place = 0, np.eye(4)
    return objects


def corridor(seed: int, device: str = "cpu") -> Scene:
    """A passage with doors, lamps and things along the walls, 8 to 25 m long."""
    rng = np.random.default_rng([int(seed), 0xC033])
    stage = Stage(Builder(), rng, variety=int(rng.integers(2, 5)))
    b = stage.builder
    x1, y1, height = rng.uniform(8, 25), rng.uniform(1.4, 3.2), rng.uniform(2.2, 3.3)
    paint = stage.any(
        ["paint", "paint", "plain", "brick", "concrete", "tiles"], rng.uniform(1.5, 3), tint=_wall_tint(rng)
    )
    floor = stage.any(["tiles", "carpet", "wood", "asphalt", "noise", "checks"], rng.uniform(0.8, 2.5), ground=True)
    b.quad([0, 0, 0], [x1, 0, 0], [0, y1, 0], floor, one_sided=True)
    _ceiling(stage, x1, y1, height)
    doors = stage.look("door")
    for index, (place, length) in enumerate(_walls(stage, x1, y1, height, [paint] * 4)):
        with stage.at(place):
            if index % 2 == 1:
                b.quad([0.012, -0.6, 0], [0, 1.2, 0], [0, 0, 2.1], stage.any(["door", "glass", "gradient"], glow=0.3))
                continue
            step = rng.uniform(2.0, 5.0)
            for y in np.arange(-length / 2 + rng.uniform(0.5, step), length / 2 - 1.0, step):
                if rng.random() < 0.85:
                    b.quad([0.012, y, 0], [0, 0.95, 0], [0, 0, 2.05], doors)
                    b.box([0.02, y + 0.475, 2.09], [0.06, 1.1, 0.1], stage.look("plain"))
                    b.quad([0.013, y + 1.15, 1.5], [0, 0.2, 0], [0, 0, 0.15], stage.look("sign"))
            if rng.random() < 0.4:
                b.quad(
                    [0.008, -length / 2, 0],
                    [0, length, 0],
                    [0, 0, rng.uniform(0.8, 1.2)],
                    stage.any(["plain", "wood", "tiles"], 1.5),
                )
            if rng.random() < 0.3:
                b.cylinder(
                    [0.1, -length / 2, height - 0.2], 0.06, length, stage.look("plain", 1.0), axis=(0, 1, 0), columns=6
                )
            for _ in range(int(rng.poisson(0.5 * length))):
                y = rng.uniform(-0.5, 0.5) * (length - 1)
                kind = rng.random()
                if kind < 0.6:
                    w, h = rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.8)
                    b.quad([0.016, y, rng.uniform(1.0, 1.6)], [0, w, 0], [0, 0, h], stage.look("poster"))
                elif y1 > 1.8:
                    with stage.at(pose(0.02, y)):
                        [furniture.radiator, furniture.cartons, furniture.low, furniture.shelf][rng.integers(4)](
                            stage, rng.uniform(0.5, 1.0)
                        )
    for _ in range(int(rng.poisson(1.5))):
        with stage.at(pose(rng.uniform(2, x1 - 1), rng.choice([0.4, y1 - 0.4]), 0, rng.uniform(0, 6.3))):
            props.bollard_or_bin(stage) if rng.random() < 0.5 else furniture.chair(stage)
    objects = _people(stage, x1, y1)
    lamp = np.array([rng.uniform(0.3, 0.7) * x1, y1 / 2, height - 0.1])
    outlook = {"floor": (0.5, 0.25, x1 - 0.5, y1 - 0.25), "height": height, "along": 0.0}
    light = lamp_light(rng, lamp)
    return Scene("corridor", b, light, (-0.2, -0.2, x1 + 0.2, y1 + 0.2), 0.03, objects, device, outlook)
