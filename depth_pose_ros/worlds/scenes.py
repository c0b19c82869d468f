"""All kinds of scenes by name, and pairs of views of them."""

from collections.abc import Callable, Iterator

import numpy as np

from ..errors import ConfigError
from .motions import ViewPair, draw_views
from .render import Scene, render_pair
from .room import corridor, room
from .rubble import rubble
from .sample import Sample
from .street import street

KINDS: dict[str, Callable[..., Scene]] = {"street": street, "room": room, "corridor": corridor, "rubble": rubble}


def make_scene(kind: str, seed: int, device: str = "cpu") -> Scene:
    """Scene of a kind ("street", "room", "corridor", "rubble"); the same for the same seed."""
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of scene '{kind}'; choose from {', '.join(KINDS)}")
    return KINDS[kind](seed, device=device)


def sample_brightness(seed: int) -> float:
    """Mean brightness (0..1) that the exposure of a sample aims at."""
    return float(np.random.default_rng([seed, 0xB1]).uniform(0.3, 0.55))


def sample_pairs(
    kind: str, seed: int, count: int, width: int, height: int, device: str = "cpu"
) -> Iterator[tuple[Scene, ViewPair]]:
    """``count`` pairs of views of a scene; where a scene is too crowded to stand in, the next seed's scene serves."""
    rng = np.random.default_rng([int(seed), 0x7A12])
    offset, done = 0, 0
    while done < count:
        scene = make_scene(kind, seed + 1_000_003 * offset, device)
        while done < count:
            views = draw_views(scene, rng, width, height)
            if views is None:
                break
            yield scene, views
            done += 1
        offset += 1


def scene_sample(kind: str, seed: int, width: int, height: int, device: str = "cpu") -> Sample:
    """One pair of a scene of its own."""
    scene, v = next(sample_pairs(kind, seed, 1, width, height, device))
    return render_pair(
        scene, v.T_world_camera_1, v.T_world_camera_2, v.K, width, height, v.times, sample_brightness(seed)
    )
