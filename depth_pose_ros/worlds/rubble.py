"""Uneven ground with slabs, rocks, beams and broken walls, under the sky or in a hall."""

import numpy as np

from . import props
from .props import Stage, pose
from .render import Scene
from .street import sun_and_sky
from .surfaces import Builder
from .textures import fractal_noise


def rubble(seed: int, device: str = "cpu") -> Scene:
    """A field of debris of about 20 m."""
    rng = np.random.default_rng([int(seed), 0xDEB1])
    stage = Stage(Builder(), rng, variety=int(rng.integers(2, 6)))
    b = stage.builder
    b.textures[("clouds", 0)] = 0
    size, n = 24.0, 33
    relief = rng.uniform(0.1, 1.6)
    field = fractal_noise(rng, n, n, float(rng.choice([8, 16])), rng.uniform(0.35, 0.6)) * relief
    axis = np.linspace(-size / 2, size / 2, n)
    x, y = np.meshgrid(axis, axis)
    points = np.stack([x, y, field], -1)
    dy, dx = np.gradient(field, axis, axis)
    normal = np.stack([-dx, -dy, np.ones_like(dx)], -1)

    def cells(a: np.ndarray) -> np.ndarray:
        p, q, r, s = a[:-1, :-1], a[:-1, 1:], a[1:, 1:], a[1:, :-1]
        return np.concatenate([np.stack([p, q, r], 2).reshape(-1, 3, 3), np.stack([p, r, s], 2).reshape(-1, 3, 3)])

    soil = stage.any(["soil", "soil", "grass", "asphalt", "pebbles"], rng.uniform(1.0, 3.0), ground=True)
    b.triangles(cells(points), soil, cells(normal), one_sided=False)
    b.quad([-300, -300, -0.4], [600, 0, 0], [0, 600, 0], stage.any(["soil", "grass"], 6.0, ground=True))

    def ground(px: float, py: float) -> float:
        i, j = np.clip(np.searchsorted(axis, [px, py]) - 1, 0, n - 2)
        return float(field[j : j + 2, i : i + 2].max())

    materials = ["concrete", "concrete", "brick", "wood", "plain", "noise", "pebbles", "carton", "stripes"]
    scale = rng.uniform(0.6, 1.8)
    for _ in range(int(rng.uniform(120, 350))):
        px, py = np.clip(rng.normal(0, 0.2, 2), -0.48, 0.48) * size
        z = ground(px, py)
        T = np.eye(4)
        T[:3, :3] = props.rotation(rng, rng.choice([0.1, 0.5, 1.2]))
        look = stage.any(materials, rng.uniform(0.5, 2.0))
        kind = rng.random()
        if kind < 0.45:  # slabs and blocks
            s = scale * np.exp(rng.normal(np.log([0.6, 0.4, 0.15]), 0.6))
            T[:3, 3] = [px, py, z + 0.3 * s.min()]
            with stage.at(T):
                b.box([0, 0, 0], s, look)
        elif kind < 0.75:  # rocks
            r = scale * np.exp(rng.normal(np.log(0.25), 0.6)) * rng.uniform(0.5, 1.2, 3)
            rock = stage.any(["noise", "pebbles", "concrete", "soil"], rng.uniform(0.5, 1.5))
            b.ellipsoid([px, py, z + 0.3 * r[2]], r, rock, T[:3, :3], fine=bool(r.max() > 0.4))
        elif kind < 0.92:  # beams and pipes
            length = scale * rng.uniform(0.8, 4.0)
            T[:3, 3] = [px, py, z + 0.1]
            with stage.at(T):
                if rng.random() < 0.5:
                    b.box([0, 0, 0], [length, rng.uniform(0.05, 0.25), rng.uniform(0.05, 0.25)], look)
                else:
                    b.cylinder(
                        [-length / 2, 0, 0], rng.uniform(0.03, 0.2), length, look, axis=(1, 0, 0), cap=look, columns=8
                    )
        else:
            with stage.at(pose(px, py, z)):
                props.bush(stage, rng.uniform(0.3, 1.2))
    for _ in range(int(rng.integers(0, 8))):  # broken walls
        px, py, yaw = *(rng.uniform(-0.5, 0.5, 2) * size), rng.uniform(0, 6.3)
        look = stage.any(["brick", "concrete", "facade", "plain"], rng.uniform(1.5, 5.0))
        with stage.at(pose(px, py, ground(np.clip(px, -11, 11), np.clip(py, -11, 11)) - 0.3, yaw)):
            at = 0.0
            for _ in range(int(rng.integers(2, 7))):
                w, h = rng.uniform(0.4, 1.5), rng.uniform(0.4, 4.0)
                b.box([at + w / 2, 0, h / 2], [w, 0.3, h], look, bottom=False)
                at += w
    if rng.random() < 0.5:
        trees = int(rng.integers(1, 10))
        for _ in range(trees):
            radius, angle = rng.uniform(9, 30), rng.uniform(0, 6.3)
            with stage.at(pose(radius * np.cos(angle), radius * np.sin(angle))):
                props.tree(stage, rng.uniform(4, 12), detailed=False)
    far = stage.look("treeline", None, tint=rng.uniform(0.5, 1.0, 3), alpha=True)
    for k in range(12):
        a, c = 2 * np.pi * k / 12, 2 * np.pi * (k + 1) / 12
        radius = rng.uniform(40, 120)
        p, q = (radius * np.array([np.cos(t), np.sin(t), 0]) for t in (a, c))
        if rng.random() < 0.8:
            b.quad([p[0], p[1], -1], q - p, [0, 0, rng.uniform(4, 14)], far)
    outlook = {"floor": (-6.0, -6.0, 6.0, 6.0), "height": 5.0, "ground": ground}
    half = size / 2 + 2
    return Scene("rubble", b, sun_and_sky(rng), (-half, -half, half, half), 0.05, [], device, outlook)
