"""Furniture and small things indoors, in metres; each stands on z = 0, its back at x = 0, its front towards +x."""

import numpy as np

from . import props
from .props import Stage, pose
from .surfaces import Look

WOODS = ["wood", "wood", "plain", "plain", "noise"]


def item(stage: Stage, size: float = 1.0) -> None:
    """One small thing: book, papers, mug, bottle, bowl, box, laptop, monitor, pot plant, lamp or toy."""
    b, rng = stage.builder, stage.rng
    kind = int(rng.integers(11))
    if kind == 0:  # a pile of books or magazines
        z = 0.0
        for _ in range(int(rng.integers(1, 5))):
            w, d, h = rng.uniform(0.15, 0.3), rng.uniform(0.12, 0.24), rng.uniform(0.004, 0.04)
            look = stage.look("poster")
            b.box(
                [0, 0, z + h / 2], [w, d, h], stage.look("plain", tint=(0.9, 0.9, 0.9)), look, rng.normal(0, 0.3), False
            )
            z += h
    elif kind == 1:  # papers
        for k in range(int(rng.integers(1, 4))):
            angle, w, d = rng.uniform(0, np.pi), 0.21, 0.297
            eu, ev = d * np.array([np.cos(angle), np.sin(angle), 0]), w * np.array([-np.sin(angle), np.cos(angle), 0])
            centre = np.array([*rng.normal(0, 0.06, 2), 0.003 + 0.001 * k])
            b.quad(centre - eu / 2 - ev / 2, eu, ev, stage.any(["text", "poster", "paint"]))
    elif kind == 2:  # mug, tin, glass
        r, h = rng.uniform(0.03, 0.05), rng.uniform(0.07, 0.14)
        look = stage.any(["paint", "poster", "stripes", "plain"], tint=stage.colour())
        b.cylinder([0, 0, 0], r, h, look, r * rng.uniform(0.9, 1.15), 9, cap=stage.look("plain", tint=(0.2, 0.2, 0.2)))
    elif kind == 3:  # bottle, spray, vase
        r, h = rng.uniform(0.03, 0.06), rng.uniform(0.15, 0.3)
        look = stage.any(["paint", "poster", "glass", "plain"], tint=stage.colour())
        b.cylinder([0, 0, 0], r, 0.65 * h, look, columns=8)
        b.cylinder([0, 0, 0.65 * h], r, 0.15 * h, look, 0.4 * r, columns=8)
        b.cylinder([0, 0, 0.8 * h], 0.4 * r, 0.2 * h, stage.look("paint", tint=stage.colour()), columns=6, cap=look)
    elif kind == 4:  # fruit, ball, bowl, toy
        look = stage.any(["paint", "noise", "stripes", "shapes"], 0.3, tint=stage.colour(0.9))
        r = rng.uniform(0.04, 0.12) * rng.uniform(0.7, 1.2, 3)
        b.ellipsoid([0, 0, 0.8 * r[2]], r, look, fine=False)
    elif kind in (5, 6):  # box, tin, appliance
        s = rng.uniform([0.08, 0.08, 0.05], [0.35, 0.35, 0.32])
        b.box(
            [0, 0, s[2] / 2],
            s,
            stage.any(["carton", "poster", "plain", "wood", "shapes", "cupboard"]),
            yaw=rng.normal(0, 0.4),
        )
    elif kind == 7:  # laptop
        w, d, lean = 0.34, 0.24, rng.uniform(0.02, 0.12)
        dark = stage.look("plain", tint=np.full(3, rng.choice([0.15, 0.7])))
        b.box([0, 0, 0.01], [d, w, 0.02], dark, stage.look("checks", 0.1, tint=(0.3, 0.3, 0.3)))
        b.quad([-d / 2, -w / 2, 0.02], [0, w, 0], [-lean, 0, 0.21], stage.look("screen", glow=0.3))
    elif kind == 8:  # monitor or picture frame on a foot
        w = rng.uniform(0.35, 0.7)
        h = w * rng.uniform(0.55, 0.8)
        dark = stage.look("plain", tint=np.full(3, rng.choice([0.08, 0.1, 0.7])))
        b.box([0, 0, 0.05], [0.05, 0.06, 0.1], dark)
        b.box([0, 0, 0.01], [0.18, 0.25, 0.02], dark)
        b.box([0, 0, 0.1 + h / 2], [0.05, w, h], dark)
        b.quad(
            [0.027, -w / 2 + 0.02, 0.12], [0, w - 0.04, 0], [0, 0, h - 0.04], stage.any(["screen", "poster"], glow=0.2)
        )
    elif kind == 9:  # pot plant
        b.cylinder([0, 0, 0], 0.06, 0.13, stage.look("plain", tint=stage.colour()), 0.08, cap=stage.look("soil"))
        leaf = stage.look("foliage", 0.5, tint=rng.uniform(0.7, 1.2, 3), alpha=True)
        for _ in range(2):
            h = rng.uniform(0.1, 0.3)
            b.ellipsoid(
                [*rng.normal(0, 0.04, 2), 0.13 + 0.7 * h], [0.5 * h + 0.04, 0.5 * h + 0.04, h], leaf, one_sided=False
            )
    else:  # table lamp
        h = rng.uniform(0.2, 0.45)
        b.cylinder([0, 0, 0], 0.07, 0.02, stage.look("plain", tint=stage.colour()), cap=stage.look("plain"))
        b.cylinder([0, 0, 0], 0.012, h, stage.look("plain", tint=(0.3, 0.3, 0.3)), columns=5)
        b.cylinder([0, 0, h], 0.12, 0.16, stage.look("carpet", tint=(1, 1.1, 1.2), glow=rng.uniform(0, 0.6)), 0.07)


def clutter(stage: Stage, depth: float, width: float, density: float) -> None:
    """Small things on a surface that reaches from x = 0 to ``depth`` and +-``width`` / 2 in y."""
    rng = stage.rng
    for _ in range(int(rng.poisson(density * depth * width * 9))):
        x, y = rng.uniform(0.12, max(depth - 0.12, 0.13)), rng.uniform(-0.5, 0.5) * (width - 0.25)
        with stage.at(pose(x, y, 0, rng.normal(0, 0.5))):
            item(stage)


def counter(stage: Stage, width: float) -> float:
    """Kitchen counter with cupboards below, often a tiled wall and cupboards above. Returns its depth (m)."""
    b, rng = stage.builder, stage.rng
    h, d = rng.uniform(0.82, 0.95), rng.uniform(0.55, 0.65)
    front = stage.look("cupboard")
    b.box([d / 2 - 0.03, 0, 0.05], [d - 0.1, width, 0.1], stage.look("plain", tint=(0.25, 0.25, 0.25)))
    count = max(1, round(width / rng.uniform(0.5, 1.0)))
    b.box([d / 2 - 0.02, 0, 0.1 + (h - 0.14) / 2], [d - 0.04, width, h - 0.14], Look(front.texture, front.tint))
    for k in range(count):
        y = -width / 2 + k * width / count
        b.quad([d - 0.038, y, 0.1], [0, width / count, 0], [0, 0, h - 0.14], front)
    top = stage.any(["plain", "noise", "wood", "pebbles"], 1.0)
    b.box([d / 2, 0, h - 0.02], [d, width, 0.04], top)
    if rng.random() < 0.5:
        sink = stage.look("plain", tint=(0.5, 0.5, 0.5))
        y = rng.uniform(-0.3, 0.3) * width
        b.quad([0.12, y - 0.25, h + 0.002], [0.4, 0, 0], [0, 0.5, 0], sink)
        b.cylinder([0.08, y, h], 0.015, 0.25, stage.look("paint", tint=(0.6, 0.6, 0.6)), columns=6)
    if rng.random() < 0.5:
        y = rng.uniform(-0.3, 0.3) * width
        b.quad([0.06, y - 0.28, h + 0.002], [0.5, 0, 0], [0, 0.56, 0], stage.look("glass", tint=(0.3, 0.3, 0.3)))
    with stage.at(pose(0.02, 0, h)):
        clutter(stage, d, width, rng.uniform(0.3, 1.6))
    if rng.random() < 0.6:
        b.quad(
            [0.012, -width / 2, h],
            [0, width, 0],
            [0, 0, 0.55],
            stage.any(["tiles", "paving", "brick"], rng.uniform(0.5, 1.5)),
        )
    if rng.random() < 0.65:
        z, tall = rng.uniform(1.35, 1.6), rng.uniform(0.5, 0.8)
        for k in range(count):
            y = -width / 2 + (k + 0.5) * width / count
            if rng.random() < 0.85:
                b.box([0.17, y, z + tall / 2], [0.34, width / count - 0.005, tall], Look(front.texture, front.tint))
    return d


def shelf(stage: Stage, width: float) -> float:
    """Open shelf or rack with books, boxes and small things. Returns its depth (m)."""
    b, rng = stage.builder, stage.rng
    h, d = rng.uniform(0.8, 2.3), rng.uniform(0.25, 0.45)
    board = stage.any(WOODS, 1.0)
    levels = max(2, round(h / rng.uniform(0.28, 0.45)))
    for sign in (-1, 1):
        b.box([d / 2, sign * (width / 2 - 0.01), h / 2], [d, 0.025, h], board)
    if rng.random() < 0.7:
        b.quad([0.01, -width / 2, 0], [0, width, 0], [0, 0, h], board)
    for k in range(levels + 1):
        z = 0.05 + k * (h - 0.05) / levels
        b.box([d / 2, 0, z], [d, width, 0.022], board)
        gap = (h - 0.05) / levels
        if k == levels:
            with stage.at(pose(0, 0, z + 0.01)):
                clutter(stage, d, width, 0.5)
            break
        y = -width / 2 + 0.03
        while y < width / 2 - 0.2:
            run = min(rng.uniform(0.15, 0.7), width / 2 - 0.02 - y)
            if rng.random() < 0.55:
                tall, deep = gap * rng.uniform(0.6, 0.92), d * rng.uniform(0.6, 0.95)
                look = stage.look("books")
                b.box(
                    [deep / 2, y + run / 2, z + 0.011 + tall / 2],
                    [deep, run, tall],
                    look,
                    stage.look("plain"),
                    bottom=False,
                )
            elif rng.random() < 0.8:
                with stage.at(pose(d * 0.5, y + run / 2, z + 0.011)):
                    item(stage)
            y += run + rng.uniform(0.0, 0.08)
    return d


def table(stage: Stage, depth: float, width: float, height: float, density: float) -> None:
    """Table or desk from x = 0 to ``depth``, with clutter."""
    b, rng = stage.builder, stage.rng
    top = stage.any(WOODS, rng.uniform(0.7, 1.5))
    t = rng.uniform(0.02, 0.05)
    if rng.random() < 0.15:
        b.cylinder([depth / 2, 0, height - t], 0.5 * min(depth, width), t, top, columns=14, cap=top)
        b.cylinder([depth / 2, 0, 0], 0.05, height - t, stage.look("plain", tint=(0.3, 0.3, 0.3)))
    else:
        b.box([depth / 2, 0, height - t / 2], [depth, width, t], top)
        leg = rng.uniform(0.03, 0.08)
        look = stage.any(WOODS, 1.0)
        for x in (leg, depth - leg):
            for y in (-width / 2 + leg, width / 2 - leg):
                b.box([x, y, (height - t) / 2], [leg, leg, height - t], look, bottom=False)
    with stage.at(pose(0, 0, height)):
        clutter(stage, depth, width, density)


def desk(stage: Stage, width: float) -> float:
    """Office desk with a monitor and what goes with it. Returns its depth (m)."""
    rng, b = stage.rng, stage.builder
    d, h = rng.uniform(0.6, 0.85), rng.uniform(0.7, 0.78)
    table(stage, d, width, h, rng.uniform(0.2, 1.2))
    for _ in range(int(rng.integers(1, 3))):
        w = rng.uniform(0.45, 0.65)
        y = rng.uniform(-0.35, 0.35) * width
        dark = stage.look("plain", tint=(0.1, 0.1, 0.1))
        b.box([0.2, y, h + 0.06], [0.06, 0.08, 0.12], dark)
        b.box([0.2, y, h + 0.28], [0.04, w, w * 0.6], dark)
        b.quad(
            [0.222, y - w / 2 + 0.01, h + 0.1], [0, w - 0.02, 0], [0, 0, w * 0.6 - 0.03], stage.look("screen", glow=0.3)
        )
        b.box([0.5, y, h + 0.01], [0.14, 0.44, 0.02], dark, stage.look("checks", 0.15, tint=(0.4, 0.4, 0.4)))
    if rng.random() < 0.6:
        b.box([d / 2, width / 2 - 0.22, 0.3], [d * 0.8, 0.42, 0.58], stage.look("cupboard"))
    with stage.at(pose(d + 0.35, rng.normal(0, 0.2), 0, np.pi + rng.normal(0, 0.6))):
        chair(stage)
    return d


def chair(stage: Stage) -> None:
    """Chair, its seat in the middle, facing +x."""
    b, rng = stage.builder, stage.rng
    h, w = rng.uniform(0.42, 0.48), rng.uniform(0.4, 0.48)
    wood = stage.any(WOODS, 0.8)
    seat = stage.any(["carpet", "wood", "plain", "noise"], 0.6)
    b.box([0, 0, h], [w, w, rng.uniform(0.03, 0.08)], seat)
    back = rng.uniform(0.35, 0.5)
    if rng.random() < 0.3:  # swivel chair
        dark = stage.look("plain", tint=(0.12, 0.12, 0.12))
        b.cylinder([0, 0, 0.08], 0.03, h - 0.1, dark, columns=6)
        for angle in np.arange(5) * 2 * np.pi / 5:
            b.box([0.15 * np.cos(angle), 0.15 * np.sin(angle), 0.07], [0.3, 0.04, 0.04], dark, yaw=angle)
        b.box([-w / 2, 0, h + 0.15 + back / 2], [0.05, w * 0.9, back], seat)
        b.box([-w / 2, 0, h + 0.1], [0.03, 0.06, 0.2], dark)
        return
    for x in (-w / 2 + 0.02, w / 2 - 0.02):
        for y in (-w / 2 + 0.02, w / 2 - 0.02):
            top = h + back if x < 0 else h
            b.box([x, y, top / 2], [0.04, 0.04, top], wood, bottom=False)
    if rng.random() < 0.6:
        for z in np.linspace(h + 0.14, h + back - 0.04, int(rng.integers(2, 5))):
            b.box([-w / 2 + 0.02, 0, z], [0.02, w - 0.06, 0.06], wood)
    else:
        b.box([-w / 2 + 0.02, 0, h + 0.62 * back], [0.025, w - 0.06, 0.7 * back], seat)


def sofa(stage: Stage, width: float) -> float:
    """Sofa or armchair with cushions. Returns its depth (m)."""
    b, rng = stage.builder, stage.rng
    d, cloth = rng.uniform(0.8, 1.0), stage.any(["carpet", "plain", "stripes", "noise"], 0.8)
    b.box([d / 2, 0, 0.2], [d, width, 0.4], cloth)
    b.box([0.12, 0, 0.6], [0.24, width, 0.42], cloth)
    for sign in (-1, 1):
        b.box([d / 2, sign * (width / 2 - 0.1), 0.5], [d, 0.2, 0.22], cloth)
    for _ in range(int(rng.integers(0, 4))):
        look = stage.any(["carpet", "stripes", "checks", "shapes", "leaves"], 0.4)
        centre = [0.35, rng.uniform(-0.4, 0.4) * (width - 0.5), 0.58]
        b.ellipsoid(centre, [0.1, 0.22, 0.2], look, props.rotation(rng, 0.3) if rng.random() < 0.3 else None)
    return d


def tall(stage: Stage, width: float) -> float:
    """Wardrobe, fridge, filing cabinet or machine. Returns its depth (m)."""
    b, rng = stage.builder, stage.rng
    d, h = rng.uniform(0.4, 0.7), rng.uniform(1.1, 2.2)
    front = stage.any(["cupboard", "cupboard", "door", "plain", "wood"])
    count = max(1, round(width / 0.9))
    b.box([d / 2, 0, h / 2], [d, width, h], stage.look("plain"), bottom=False)
    for k in range(count):
        b.quad([d + 0.003, -width / 2 + k * width / count, 0.04], [0, width / count, 0], [0, 0, h - 0.06], front)
    if rng.random() < 0.4:
        with stage.at(pose(0, 0, h)):
            clutter(stage, d, width, 0.8)
    return d


def low(stage: Stage, width: float) -> float:
    """Sideboard or chest with things on it, sometimes a television. Returns its depth (m)."""
    b, rng = stage.builder, stage.rng
    d, h = rng.uniform(0.35, 0.55), rng.uniform(0.4, 0.9)
    look = stage.look("cupboard")
    b.box([d / 2, 0, h / 2], [d, width, h], look, stage.any(WOODS, 1.0), bottom=False)
    if rng.random() < 0.4:
        w = min(width * 0.9, rng.uniform(0.8, 1.3))
        dark = stage.look("plain", tint=(0.06, 0.06, 0.06))
        b.box([d / 2, 0, h + 0.08 + 0.28 * w], [0.06, w, 0.56 * w], dark)
        b.quad(
            [d / 2 + 0.032, -w / 2 + 0.02, h + 0.1], [0, w - 0.04, 0], [0, 0, 0.52 * w], stage.look("screen", glow=0.2)
        )
    else:
        with stage.at(pose(0, 0, h)):
            clutter(stage, d, width, rng.uniform(0.4, 1.5))
    return d


def radiator(stage: Stage, width: float) -> float:
    """Radiator under a window. Returns its depth (m)."""
    b = stage.builder
    b.box([0.06, 0, 0.4], [0.1, width, 0.6], stage.look("stripes", 0.8, tint=(1.3, 1.3, 1.3)))
    return 0.12


def cartons(stage: Stage, width: float) -> float:
    """Piled boxes. Returns the depth (m)."""
    b, rng = stage.builder, stage.rng
    for _ in range(int(rng.integers(2, 6))):
        y, z = rng.uniform(-0.5, 0.5) * max(width - 0.4, 0.1), 0.0
        for _ in range(int(rng.integers(1, 4))):
            s = rng.uniform([0.25, 0.25, 0.15], [0.5, 0.6, 0.45])
            b.box([0.3, y, z + s[2] / 2], s, stage.any(["carton", "carton", "plain", "wood"]), yaw=rng.normal(0, 0.15))
            z += s[2]
    return 0.6
