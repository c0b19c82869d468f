"""The last stage of MatchingFlow: sub-pixel motion measured on the brightness."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from depth_pose_ros.networks.matching_flow import brightness, lucas_kanade  # noqa: E402

HEIGHT, WIDTH = 96, 160


def texture(dx: float, dy: float) -> torch.Tensor:
    """(1, 3, H, W) image of waves of 12 to 60 px in all directions, moved by (dx, dy) px."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    angle, length = rng.uniform(0, 2 * np.pi, 30), rng.uniform(12, 60, 30)
    phase = rng.uniform(0, 2 * np.pi, 30)
    waves = [
        np.sin(2 * np.pi * (np.cos(a) * (x - dx) + np.sin(a) * (y - dy)) / n + p)
        for a, n, p in zip(angle, length, phase)
    ]
    image = 0.5 + 0.03 * np.sum(waves, axis=0)
    return torch.from_numpy(np.repeat(image[None, None], 3, 1)).float()


def middle(values: torch.Tensor) -> torch.Tensor:
    """Cells that no border reaches."""
    return values[:, :, 5:-5, 5:-5]


def flow_of(dx: float, dy: float) -> torch.Tensor:
    return torch.tensor([dx, dy])[None, :, None, None].expand(1, 2, HEIGHT // 4, WIDTH // 4)


def test_brightness_is_normalised_and_half_as_large():
    light = brightness(0.4 * texture(0, 0) + 0.3)
    assert light.shape == (1, 1, HEIGHT // 2, WIDTH // 2)
    assert abs(float(light.mean())) < 1e-4
    assert abs(float(light.std()) - 1.0) < 1e-2
    # A pixel of it lies in the middle of 2x2 pixels: a ramp stays a ramp, and turned images give turned brightness.
    image = texture(0, 0)
    torch.testing.assert_close(brightness(image.flip(3)), brightness(image).flip(3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("light", [(1.0, 0.0), (0.8, 0.1)])
def test_lucas_kanade_measures_what_is_left(light):
    gain, offset = light
    first, second = texture(0, 0), gain * texture(3.7, -2.2) + offset
    start = flow_of(3.0, -1.5)  # 1 px off
    measured, evidence = lucas_kanade(brightness(first), brightness(second), start)
    error = middle(measured - flow_of(3.7, -2.2)).norm(dim=1)
    assert float(error.median()) < 0.15
    assert float(error.quantile(0.95)) < 0.4
    assert evidence.shape == (1, 11, HEIGHT // 4, WIDTH // 4)
    # Nothing is left to measure from the right flow.
    measured, _ = lucas_kanade(brightness(first), brightness(second), flow_of(3.7, -2.2))
    assert float(middle(measured - flow_of(3.7, -2.2)).norm(dim=1).quantile(0.95)) < 0.1


def test_lucas_kanade_leaves_the_flow_where_nothing_is_seen():
    blank = torch.full((1, 3, HEIGHT, WIDTH), 0.5)
    start = flow_of(4.0, 1.0)
    measured, evidence = lucas_kanade(brightness(blank), brightness(blank), start)
    torch.testing.assert_close(measured, start, rtol=0, atol=1e-3)
    assert torch.isfinite(evidence).all()


def test_lucas_kanade_sees_only_across_an_edge():
    """Stripes tell the motion across them and nothing along them, and the evidence says so."""
    x = torch.arange(WIDTH).float()
    stripes = lambda dx: (0.5 + 0.2 * torch.sin((x - dx) / 4.0)).expand(1, 3, HEIGHT, WIDTH)  # noqa: E731
    measured, evidence = lucas_kanade(brightness(stripes(0.0)), brightness(stripes(0.8)), flow_of(0.0, 0.0))
    step = middle(measured)
    torch.testing.assert_close(step[:, 0], torch.full_like(step[:, 0], 0.8), rtol=0, atol=0.1)
    assert float(step[:, 1].abs().max()) < 0.05
    along_x = middle(evidence)[:, 9]  # (xx - yy) / trace
    assert float(along_x.min()) > 0.9
