"""Things that stand about in scenes, at their true size in metres, built of pieces.

Each function adds one thing to a ``Builder`` at the builder's place: standing on z = 0 with its front towards +x.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from .materials import VARIANTS
from .surfaces import Builder, Look


def pose(x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """(4, 4) transform: turned by ``yaw`` about z, then moved."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])


def rotation(rng: np.random.Generator, tilt: float) -> np.ndarray:
    """(3, 3) random heading with a random tilt of about ``tilt`` rad."""
    yaw, axis, angle = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), rng.normal(0, tilt)
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    k = np.array([np.cos(axis), np.sin(axis), 0])
    K = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    return (np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K) @ turn


@dataclass
class Stage:
    """A builder with a random generator and a choice of textures: what the props draw with.

    Only ``variety`` of the variants of each texture name occur in one scene, as real places repeat their materials.
    """

    builder: Builder
    rng: np.random.Generator
    variety: int = 4

    def __post_init__(self) -> None:
        self._chosen: dict[str, np.ndarray] = {}

    @contextmanager
    def at(self, T: np.ndarray):
        """Within the block, what is added stands at ``T`` relative to the present place."""
        before = self.builder.place
        self.builder.place = before @ T
        try:
            yield self
        finally:
            self.builder.place = before

    def look(self, name: str, repeat: float | None = None, tint=None, spread: float = 0.15, **kwargs) -> Look:
        """A look with texture ``name`` in one of the scene's variants, its tint slightly changed."""
        if name not in self._chosen:
            self._chosen[name] = self.rng.choice(VARIANTS, min(self.variety, VARIANTS), replace=False)
        variant = int(self.rng.choice(self._chosen[name]))
        base = np.ones(3) if tint is None else np.asarray(tint, np.float64)
        factor = base * np.exp(self.rng.normal(0, spread)) * np.exp(self.rng.normal(0, 0.25 * spread, 3))
        return Look((name, variant), tuple(np.clip(factor, 0.02, 1.6)), repeat, **kwargs)

    def any(self, names: list[str], repeat: float | None = None, **kwargs) -> Look:
        """A look with one of several textures."""
        return self.look(str(self.rng.choice(names)), repeat, **kwargs)

    def colour(self, saturation: float = 0.5) -> np.ndarray:
        """(3,) BGR tint: mostly white to black, some colours."""
        value = self.rng.uniform(0.08, 1.0)
        if self.rng.random() > saturation:
            return np.full(3, value) * (1 + self.rng.normal(0, 0.03, 3))
        weak = self.rng.uniform(0.1, 0.75, 3)
        weak[self.rng.integers(3)] = 1.0
        return weak * max(value, 0.3)


CAR_PAINTS = np.array(
    [[0.95, 0.95, 0.95], [0.7, 0.72, 0.72], [0.4, 0.42, 0.42], [0.12, 0.12, 0.13], [0.1, 0.1, 0.6], [0.45, 0.2, 0.08],
     [0.3, 0.35, 0.15], [0.2, 0.25, 0.35], [0.15, 0.55, 0.7], [0.6, 0.65, 0.7]]
)  # fmt: skip


def car(stage: Stage) -> float:
    """Hatchback, saloon, estate, off-roader or van; wheels on z = 0, middle at the origin. Returns its length (m)."""
    b, rng = stage.builder, stage.rng
    kind = rng.choice(["hatch", "saloon", "estate", "suv", "van"], p=[0.32, 0.22, 0.18, 0.16, 0.12])
    length = {"hatch": 4.0, "saloon": 4.6, "estate": 4.6, "suv": 4.5, "van": 5.2}[kind] * rng.uniform(0.93, 1.07)
    width = {"suv": 1.88, "van": 1.98}.get(kind, 1.78) * rng.uniform(0.96, 1.04)
    height = {"hatch": 1.48, "saloon": 1.44, "estate": 1.48, "suv": 1.7, "van": 2.1}[kind] * rng.uniform(0.96, 1.05)
    belt = height * (0.62 if kind != "van" else 0.52)
    paint = stage.look("paint", tint=CAR_PAINTS[rng.integers(len(CAR_PAINTS))], spread=0.2)
    under = stage.look("plain", tint=(0.1, 0.1, 0.1))
    glass = stage.look("glass", tint=(0.8, 0.8, 0.8))
    f, r, floor = length / 2, -length / 2, 0.2
    nose = belt * rng.uniform(0.72, 0.85)
    body = [(r + 0.05, floor), (f - 0.08, floor), (f, floor + 0.22), (f - 0.03, nose * 0.85), (f - 0.25, nose)]
    windscreen = f - {"van": 0.8}.get(kind, 1.25) * rng.uniform(0.9, 1.1)
    rear = {"saloon": r + 0.95, "hatch": r + 0.25, "van": r + 0.05}.get(kind, r + 0.15)
    body += [(windscreen, belt), (rear - 0.12 if kind != "saloon" else rear, belt)]
    body += [(r + 0.04, belt * 0.97), (r, floor + 0.4)]
    b.extrusion(np.array(body), width, paint, smooth=bool(rng.random() < 0.7))
    # The cabin narrows towards the roof: four trapezoids of glass, and the roof.
    w0, w1 = width * 0.94 / 2, width * 0.76 / 2
    slope_f, slope_r = rng.uniform(0.55, 0.8), {"hatch": 0.35, "saloon": 0.6, "van": 0.05}.get(kind, 0.25)
    x0, x1 = rear - 0.05, windscreen + 0.02
    y0, y1 = x0 + slope_r, x1 - slope_f * (0.6 if kind == "van" else 1.0)
    run = x1 - x0
    rise = height - belt
    side_looks = [glass, glass] if kind != "van" or rng.random() < 0.4 else [paint, paint]
    for sign, look in zip((1, -1), side_looks, strict=True):
        taper = ((y0 - x0) / run, (x1 - y1) / run) if sign < 0 else ((x1 - y1) / run, (y0 - x0) / run)
        start = np.array([x0 if sign < 0 else x1, sign * w0, belt])
        eu = np.array([run if sign < 0 else -run, 0, 0])
        # edge_v is measured at u = 0; the top edge starts at u = left.
        b.quad(start, eu, [0, -sign * (w0 - w1), rise], look, taper, one_sided=True)
        # Pillars and frame: narrow painted pieces just outside the glass.
        for share in (0.0, rng.uniform(0.4, 0.5), 0.97):
            xa = x0 + share * run
            xb = y0 + share * (y1 - y0)
            o = np.array([xa, sign * (w0 + 0.004), belt])
            b.quad(o, [0.07, 0, 0], [xb - xa, -sign * (w0 - w1), rise], paint)
    t = 0.5 * (1 - w1 / w0)
    b.quad([x1, -w0, belt], [0, 2 * w0, 0], [y1 - x1, 0, rise], glass, (t, t), one_sided=True)
    b.quad(
        [x0, w0, belt], [0, -2 * w0, 0], [y0 - x0, 0, rise], glass if kind != "van" else paint, (t, t), one_sided=True
    )
    b.quad([y0, -w1, height], [y1 - y0, 0, 0], [0, 2 * w1, 0], paint)
    tyre, rim = stage.look("plain", tint=(0.12, 0.12, 0.12)), stage.look("wheel", tint=(0.8, 0.8, 0.8))
    radius = rng.uniform(0.3, 0.36)
    for x in (f - 0.2 * length, r + 0.19 * length):
        for sign in (1, -1):
            b.cylinder([x, sign * (width / 2 - 0.18), radius], radius, 0.2, tyre, columns=9, axis=(0, sign, 0), cap=rim)
            arch = [x - radius * 1.15, sign * (width / 2 + 0.003), floor]
            b.quad(arch, [2.3 * radius, 0, 0], [0, 0, radius * 1.45], under, (0.22, 0.22))
    lamp = stage.look("plain", tint=(0.9, 0.95, 1.0))
    tail = stage.look("plain", tint=(0.15, 0.12, 0.8))
    plate = stage.look("text", tint=(1, 1, 1))
    for sign in (1, -1):
        y = sign * (width / 2 - 0.25)
        b.quad([f + 0.005, y - 0.18, nose * 0.68], [0, 0.36, 0], [-0.03, 0, 0.14], lamp)
        b.quad([r - 0.005, y - 0.13, belt * 0.68], [0, 0.26, 0], [0.01, 0, 0.2], tail)
    b.quad([f + 0.01, -0.26, 0.42], [0, 0.52, 0], [0, 0, 0.12], plate)
    b.quad([r - 0.01, 0.26, belt * 0.55], [0, -0.52, 0], [0, 0, 0.12], plate)
    b.quad([f + 0.004, -0.5, nose * 0.5], [0, 1.0, 0], [0, 0, 0.15], under)
    return float(length)


def lorry(stage: Stage) -> float:
    """Lorry, bus or box van. Returns its length (m)."""
    b, rng = stage.builder, stage.rng
    length, width, height = rng.uniform(6, 12), rng.uniform(2.2, 2.5), rng.uniform(2.6, 3.8)
    cab = rng.uniform(1.6, 2.2)
    paint = stage.look("paint", tint=CAR_PAINTS[rng.integers(len(CAR_PAINTS))])
    box = stage.any(["plain", "stripes", "text", "poster", "paint"], rng.choice([2.5, 4.0]))
    glass = stage.look("glass")
    f = length / 2
    cab_height = height * rng.uniform(0.75, 0.95)
    b.box([f - cab / 2, 0, 0.5 + (cab_height - 0.5) / 2], [cab, width * 0.97, cab_height - 0.5], paint)
    b.quad([f + 0.01, -width * 0.43, cab_height * 0.55], [0, width * 0.86, 0], [0, 0, cab_height * 0.35], glass)
    for sign in (1, -1):
        b.quad([f - cab + 0.5, sign * (width * 0.485 + 0.01), cab_height * 0.55], [cab * 0.6, 0, 0], [0, 0, 0.8], glass)
    rest = length - cab - 0.15
    bus = rng.random() < 0.3
    b.box([-f + rest / 2, 0, 0.9 + (height - 0.9) / 2], [rest, width, height - 0.9], paint if bus else box)
    if bus:
        for sign in (1, -1):
            b.quad([-f + 0.3, sign * (width / 2 + 0.01), 1.5], [rest - 0.5, 0, 0], [0, 0, 1.0], glass)
    b.box([0, 0, 0.7], [length - 0.3, width * 0.7, 0.4], stage.look("plain", tint=(0.12, 0.12, 0.12)))
    tyre, rim = stage.look("plain", tint=(0.1, 0.1, 0.1)), stage.look("wheel")
    for x in (f - 0.9, -f + 1.2, -f + 2.4):
        for sign in (1, -1):
            b.cylinder([x, sign * (width / 2 - 0.32), 0.5], 0.5, 0.3, tyre, axis=(0, sign, 0), cap=rim)
    stripe = stage.look("stripes", tint=(0.3, 0.5, 1.0))
    b.quad([-f - 0.01, width / 2, 0.75], [0, -width, 0], [0, 0, 0.18], stripe)
    b.quad([-f - 0.012, 0.25, 0.55], [0, -0.5, 0], [0, 0, 0.12], stage.look("text"))
    return float(length)


def person(stage: Stage) -> None:
    """Standing or walking, 1.5 to 1.9 m tall, facing +x."""
    b, rng = stage.builder, stage.rng
    h = rng.uniform(1.5, 1.9)
    step = rng.uniform(0, 0.25)
    trousers = stage.any(["plain", "carpet"], 0.5, tint=stage.colour() * 0.7)
    top = stage.any(["plain", "stripes", "carpet"], 0.6, tint=stage.colour())
    skin = stage.look("paint", tint=np.array([0.5, 0.6, 0.85]) * rng.uniform(0.4, 1.0))
    for sign in (1, -1):
        foot = np.array([sign * step, sign * 0.1, 0.0])
        hip = np.array([0, sign * 0.09, 0.5 * h])
        axis = hip - foot
        b.cylinder(foot, 0.075, float(np.linalg.norm(axis)), trousers, 0.09, columns=6, axis=axis)
        hand = np.array([-sign * step * 0.8, sign * 0.27, 0.45 * h])
        shoulder = np.array([0, sign * 0.2, 0.8 * h])
        axis = shoulder - hand
        b.cylinder(hand, 0.045, float(np.linalg.norm(axis)), top, 0.06, columns=5, axis=axis)
    b.ellipsoid([0, 0, 0.66 * h], [0.14, 0.22, 0.21 * h], top, fine=False)
    b.ellipsoid([0, 0, 0.925 * h], [0.1, 0.085, 0.075 * h], skin, fine=False)
    hair = stage.look("paint", tint=np.array([0.1, 0.13, 0.18]) * rng.uniform(0.3, 2.5))
    b.ellipsoid([-0.02, 0, 0.945 * h], [0.1, 0.09, 0.068 * h], hair, fine=False)


def tree(stage: Stage, height: float, detailed: bool = True) -> None:
    """A tree with leaves (crown of blobs with holes) or a conifer (stacked cones)."""
    b, rng = stage.builder, stage.rng
    bark = stage.any(["noise", "wood"], 1.0, tint=np.array([0.35, 0.42, 0.5]) * rng.uniform(0.6, 1.4))
    leaf = stage.look("foliage", tint=np.full(3, rng.uniform(0.6, 1.25)), alpha=True)
    dark = stage.look("leaves", tint=np.array(leaf.tint) * 0.55)
    if rng.random() < 0.22:
        b.cylinder([0, 0, 0], 0.04 * height * 0.5, 0.2 * height, bark, columns=6)
        levels = int(rng.integers(3, 6))
        for k in range(levels):
            z = height * (0.12 + 0.8 * k / levels)
            radius = height * 0.2 * (1 - k / (levels + 0.5)) + 0.2
            tall = height * (1.25 / levels)
            for scale, look in ((1.0, leaf), (0.75, dark)):
                b.cylinder([0, 0, z], radius * scale, tall, look.__class__(look.texture, look.tint, 1.5, look.alpha),
                           0.02, columns=8)  # fmt: skip
        return
    trunk = height * rng.uniform(0.2, 0.4)
    lean = rng.normal(0, 0.03, 2)
    girth = max(0.025 * height * rng.uniform(0.6, 1.3), 0.04)
    b.cylinder([0, 0, 0], girth, height * 0.65, bark, girth * 0.4, columns=7, axis=(*lean, 1.0))
    width = height * rng.uniform(0.16, 0.34)
    blobs = int(rng.integers(3, 7)) if detailed else 2
    for k in range(blobs):
        spread = 0.0 if k == 0 else 0.75
        angle = rng.uniform(0, 2 * np.pi)
        centre = np.array([np.cos(angle), np.sin(angle), 0]) * width * spread
        centre += [
            *(lean * height * 0.6),
            rng.uniform(trunk + 0.5 * width, height - 0.5 * width) if k else 0.5 * (trunk + height),
        ]
        size = width * rng.uniform(0.5, 0.85) if k else width
        radii = np.array([size, size * rng.uniform(0.8, 1.1), size * rng.uniform(0.65, 1.1)])
        if k == 0:
            radii[2] = 0.5 * (height - trunk)
        repeat = rng.uniform(1.2, 2.2)
        turn = rotation(rng, 0.4)
        b.ellipsoid(centre, radii, Look(leaf.texture, leaf.tint, repeat, True), turn, fine=detailed, one_sided=False)
        if k < 3:
            b.ellipsoid(centre, radii * 0.72, Look(dark.texture, dark.tint, repeat, False), turn, fine=False)


def bush(stage: Stage, size: float) -> None:
    """A round bush of about ``size`` m."""
    b, rng = stage.builder, stage.rng
    leaf = stage.look("foliage", 1.0, tint=np.full(3, rng.uniform(0.6, 1.2)), alpha=True)
    dark = stage.look("leaves", 1.0, tint=np.array(leaf.tint) * 0.6)
    for _ in range(int(rng.integers(1, 4))):
        centre = [rng.normal(0, size * 0.4), rng.normal(0, size * 0.4), size * rng.uniform(0.3, 0.45)]
        radii = size * rng.uniform(0.35, 0.65, 3)
        b.ellipsoid(centre, radii, leaf, rotation(rng, 0.3), fine=False, one_sided=False)
        b.ellipsoid(centre, radii * 0.8, dark, fine=False)


def street_lamp(stage: Stage) -> None:
    """Lamp post, arm towards +x."""
    b, rng = stage.builder, stage.rng
    h = rng.uniform(4, 9)
    metal = stage.look("plain", 1.0, tint=np.full(3, rng.uniform(0.15, 0.7)))
    b.cylinder([0, 0, 0], 0.09, h, metal, 0.05, columns=6)
    arm = rng.uniform(0.3, 1.8)
    b.box([arm / 2, 0, h], [arm, 0.06, 0.06], metal)
    b.box([arm, 0, h - 0.05], [0.6, 0.25, 0.12], stage.look("paint"))


def sign_post(stage: Stage) -> None:
    """Sign on a pole, facing -x (towards who drives along +x)."""
    b, rng = stage.builder, stage.rng
    h, w = rng.uniform(1.8, 3.0), rng.uniform(0.45, 0.9)
    b.cylinder([0, 0, 0], 0.035, h + 0.5 * w, stage.look("plain", 1.0, tint=(0.6, 0.6, 0.6)), columns=6)
    kind = rng.integers(3)
    look = stage.look("sign")
    if kind == 0:
        b.quad([-0.05, w / 2, h], [0, -w, 0], [0, 0, w], look)
    elif kind == 1:
        b.quad([-0.05, w / 2, h], [0, -w, 0], [0, 0, w * 0.87], look, (0.5, 0.5))
    else:
        b.cylinder([-0.04, 0, h + w / 2], w / 2, 0.03, look, axis=(-1, 0, 0), cap=look, columns=10)


def bollard_or_bin(stage: Stage) -> None:
    """Bollard, litter bin, hydrant, junction box or flower tub."""
    b, rng = stage.builder, stage.rng
    kind = rng.integers(4)
    if kind == 0:
        b.cylinder(
            [0, 0, 0], 0.08, rng.uniform(0.7, 1.0), stage.look("stripes", 0.6), columns=7, cap=stage.look("plain")
        )
    elif kind == 1:
        look = stage.any(["plain", "stripes", "poster"], tint=stage.colour())
        b.cylinder([0, 0, 0], 0.25, rng.uniform(0.8, 1.1), look, 0.28, cap=stage.look("plain", tint=(0.3, 0.3, 0.3)))
    elif kind == 2:
        size = rng.uniform([0.3, 0.5, 0.8], [0.5, 1.2, 1.5])
        b.box([0, 0, size[2] / 2], size, stage.any(["plain", "cupboard", "shapes", "poster"]))
    else:
        b.box([0, 0, 0.3], [1.0, 1.0, 0.6], stage.any(["concrete", "wood"], 1.0))
        with stage.at(pose(0, 0, 0.5)):
            bush(stage, 0.8)


def bench(stage: Stage) -> None:
    """Park bench, seat towards +x."""
    b = stage.builder
    plank, leg = stage.look("wood", 1.0), stage.look("plain", 1.0, tint=(0.2, 0.2, 0.2))
    for x in (-0.15, 0.05, 0.25):
        b.box([x, 0, 0.45], [0.14, 1.7, 0.04], plank)
    for z in (0.62, 0.8):
        b.box([-0.28, 0, z], [0.04, 1.7, 0.12], plank)
    for y in (-0.7, 0.7):
        b.box([0, y, 0.22], [0.5, 0.06, 0.44], leg)


def house(stage: Stage, length: float, depth: float, height: float) -> None:
    """Detached house with a pitched roof; front towards +x, ``length`` along y."""
    b, rng = stage.builder, stage.rng
    wall = stage.look("facade", 6.0)
    tiles = stage.look("roof", 4.0)
    b.box([0, 0, height / 2], [depth, length, height], wall, bottom=False)
    rise, over = rng.uniform(0.25, 0.5) * depth, 0.35
    ridge_along_y = rng.random() < 0.6
    a, c = (depth, length) if ridge_along_y else (length, depth)
    rise = min(rise, 0.5 * a)
    with stage.at(np.eye(4) if ridge_along_y else pose(0, 0, 0, np.pi / 2)):
        for sign in (1, -1):
            o = np.array([sign * (a / 2 + over), -sign * (c / 2 + over), height - rise * over / (a / 2)])
            eu, ev = (
                np.array([0, sign * (c + 2 * over), 0]),
                np.array([-sign * (a / 2 + over), 0, rise + rise * over / (a / 2)]),
            )
            b.quad(o, eu, ev, tiles)
            b.quad(
                [-sign * a / 2, -sign * c / 2, height],
                [sign * a, 0, 0],
                [0, 0, rise],
                Look(wall.texture, wall.tint, 6.0),
                (0.5, 0.5),
            )
    b.box([depth * 0.15, length * 0.2, height + rise * 0.9], [0.6, 0.6, 1.6], stage.any(["brick", "plain"], 1.2))
    front = depth / 2 + 0.02
    b.quad([front, rng.uniform(-0.3, 0.2) * length, 0], [0, 1.1, 0], [0, 0, 2.1], stage.look("door"))


def block(stage: Stage, length: float, depth: float, height: float) -> None:
    """Town house or block of flats; front towards +x at x = 0, ``length`` along y, body behind."""
    b, rng = stage.builder, stage.rng
    wall = stage.look("facade", rng.uniform(5, 7.5))
    flat = stage.look("concrete", 4.0)
    b.box([-depth / 2, 0, height / 2], [depth, length, height], wall, top=flat, bottom=False)
    if rng.random() < 0.6:
        ground = rng.uniform(2.6, 3.6)
        look = stage.any(["shopfront", "shopfront", "concrete", "windows"])
        count = max(1, round(length / 6))
        for k in range(count):
            y = -length / 2 + k * length / count
            b.quad([0.04, y, 0], [0, length / count, 0], [0, 0, ground], look)
        if rng.random() < 0.4:
            awning = stage.look("stripes", tint=stage.colour())
            b.quad([0.05, -length / 2 + 0.5, ground], [0, length - 1, 0], [1.3, 0, -0.5], awning)
    if rng.random() < 0.5:
        b.box([0.1, 0, height], [0.5, length, 0.35], stage.look("plain", 2.0))
    if rng.random() < 0.35:  # balconies
        for z in np.arange(3.2, height - 2, 3.0):
            for y in np.arange(-length / 2 + 2, length / 2 - 2, rng.uniform(4, 7)):
                b.box([0.6, y, z], [1.2, 2.4, 0.15], flat)
                b.quad([1.2, y - 1.2, z], [0, 2.4, 0], [0, 0, 1.0], stage.look("fence", 1.2, alpha=True))
    if rng.random() < 0.5:
        rise = rng.uniform(1.5, 4)
        tiles = stage.look("roof", 4.0)
        b.quad([0.3, -length / 2, height], [0, length, 0], [-depth / 2, 0, rise], tiles)


def hedge(stage: Stage, length: float, height: float) -> None:
    """Hedge along x from the origin."""
    b, rng = stage.builder, stage.rng
    leaf = stage.look("leaves", 1.2, tint=np.full(3, rng.uniform(0.6, 1.1)))
    loose = Look(("foliage", leaf.texture[1]), leaf.tint, 1.0, True)
    depth = rng.uniform(0.5, 1.0)
    b.box([length / 2, 0, height / 2], [length, depth, height], leaf, bottom=False)
    for x in np.arange(0.4, length, 1.4):
        radii = [0.9, depth * 0.62, height * rng.uniform(0.5, 0.62)]
        b.ellipsoid([x, 0, height * 0.5], radii, loose, fine=False, one_sided=False)


def railing(stage: Stage, length: float, height: float) -> None:
    """Fence, wall or crash barrier along x from the origin."""
    b, rng = stage.builder, stage.rng
    kind = rng.integers(3)
    if kind == 0:
        b.quad([0, 0, 0.05], [length, 0, 0], [0, 0, height], stage.look("fence", rng.uniform(1.0, 2.0), alpha=True))
        post = stage.any(["wood", "plain"], 1.0)
        for x in np.arange(0, length, 2.5):
            b.box([x, 0, height / 2], [0.1, 0.1, height], post, bottom=False)
    elif kind == 1:
        wall = stage.any(["brick", "concrete", "pebbles", "plain"], 1.5)
        b.box([length / 2, 0, height / 2], [length, 0.25, height], wall, bottom=False)
        b.box([length / 2, 0, height], [length, 0.32, 0.08], stage.look("concrete", 2.0))
    else:
        metal = stage.look("plain", 2.0, tint=(0.65, 0.65, 0.65))
        for z in (0.45, 0.6):
            b.box([length / 2, 0, z], [length, 0.08, 0.13], metal)
        for x in np.arange(0, length, 2.0):
            b.box([x, 0.06, 0.3], [0.08, 0.08, 0.6], metal, bottom=False)
