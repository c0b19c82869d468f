"""The textures that scenes are covered with, each with its pyramid of averaged copies (mip map)."""

import zlib
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

from . import textures

SIZE = 256
"""Texels along each side of every texture; they repeat, so texture coordinates run on modulo 1."""

LEVELS = 9
LEVEL_OFFSET = [sum((SIZE >> k) ** 2 for k in range(level)) for level in range(LEVELS)]
TEXELS = LEVEL_OFFSET[-1] + 1

VARIANTS = 24
"""How many different textures of one name exist. A scene tints, scales and lights them anew each time."""


@lru_cache(maxsize=1200)
def pyramid(name: str, variant: int) -> np.ndarray:
    """All levels of one texture one after the other, (TEXELS,) int32, a texel is alpha << 24 | r << 16 | g << 8 | b."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), variant])
    image = textures.SURFACES[name](rng, SIZE, SIZE)
    if image.shape[2] == 3:
        image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    if name in textures.SEAMLESS:
        image = _without_seam(image)
    levels = []
    for level in range(LEVELS):
        if level:
            image = cv2.resize(image, (SIZE >> level, SIZE >> level), interpolation=cv2.INTER_AREA)
        levels.append(np.ascontiguousarray(image).view(np.int32).reshape(-1))
    return np.concatenate(levels)


def _without_seam(image: np.ndarray) -> np.ndarray:
    """Cross-fade a texture into its half-turned copy near the border, so that its repetition shows no edge."""
    ramp = np.clip((0.5 - np.abs(np.linspace(-0.5, 0.5, SIZE))) * 8, 0, 1)
    inner = (ramp[:, None] * ramp[None])[..., None].astype(np.float32)
    rolled = np.roll(image, (SIZE // 2, SIZE // 2), (0, 1))
    return (image * inner + rolled * (1 - inner)).astype(np.uint8)


@dataclass
class Atlas:
    """The textures of one scene. ``texels``: (T * TEXELS,) int32 on the scene's device."""

    texels: torch.Tensor

    @classmethod
    def of(cls, names: list[tuple[str, int]], device: torch.device | str) -> "Atlas":
        """Pack the textures ``(name, variant)`` in this order."""
        return cls(torch.from_numpy(np.concatenate([pyramid(*name) for name in names])).to(device))

    def _bilinear(
        self, base: torch.Tensor, level: torch.Tensor, s: torch.Tensor, t: torch.Tensor
    ) -> list[torch.Tensor]:
        """One level at (s, t) in texture repeats -> [b, g, r], each (N,) float32 in 0..255."""
        side = torch.bitwise_right_shift(SIZE, level)
        x, y = s * side - 0.5, t * side - 0.5
        x0, y0 = torch.floor(x), torch.floor(y)
        wx, wy = x - x0, y - y0
        x0, y0 = x0.to(torch.int32), y0.to(torch.int32)
        mask = side - 1
        x1, y1 = (x0 + 1) & mask, (y0 + 1) & mask
        x0, y0 = x0 & mask, y0 & mask
        base = base + _offsets(level.device).index_select(0, level)
        row_0, row_1 = base + y0 * side, base + y1 * side
        texels = self.texels
        total = None
        for index, weight in (
            (row_0 + x0, (1 - wx) * (1 - wy)),
            (row_0 + x1, wx * (1 - wy)),
            (row_1 + x0, (1 - wx) * wy),
            (row_1 + x1, wx * wy),
        ):
            packed = texels.index_select(0, index)
            part = [((packed >> shift) & 255) * weight for shift in (0, 8, 16)]
            total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
        return total

    def sample(self, texture: torch.Tensor, st: torch.Tensor, st_dx: torch.Tensor, st_dy: torch.Tensor) -> torch.Tensor:
        """Average of the texture over the parallelogram that a pixel covers.

        texture: (N,) int64 index; st: (2, N) float32 in repeats of the texture; st_dx, st_dy: (2, N) its change over
        one pixel to the right and down. Returns (3, N) float32 b, g, r in 0..255.

        Four samples along the longer side of the footprint, from the level that fits the shorter side (but at most
        four times finer than the longer): ground seen at a flat angle stays sharp across and does not shimmer along.
        """
        length_x, length_y = st_dx.square().sum(0).sqrt_(), st_dy.square().sum(0).sqrt_()
        major = torch.where((length_x > length_y)[None], st_dx, st_dy)
        longest = torch.maximum(length_x, length_y).clamp_min_(1e-8)
        area = (st_dx[0] * st_dy[1] - st_dx[1] * st_dy[0]).abs_()
        shortest = area / longest
        out = torch.empty(3, st.shape[1], device=st.device)
        base = texture.to(torch.int32) * TEXELS
        long = longest > 2.0 * shortest
        for taps, chosen in ((1, ~long), (4, long)):
            index = chosen.nonzero().squeeze(1)
            if not len(index):
                continue
            footprint = longest.index_select(0, index)
            if taps > 1:
                footprint = torch.maximum(shortest.index_select(0, index), footprint / taps)
            lod = torch.log2(footprint * SIZE).clamp_(0, LEVELS - 1)
            s, t, b = (a.index_select(0, index) for a in (st[0], st[1], base))
            if taps == 1:
                low = lod.floor()
                blend = lod - low
                level = low.to(torch.int32)
                fine = self._bilinear(b, level, s, t)
                coarse = self._bilinear(b, (level + 1).clamp_max_(LEVELS - 1), s, t)
                colour = [torch.lerp(f, c, blend) for f, c in zip(fine, coarse, strict=True)]
            else:
                level = (lod + 0.5).to(torch.int32).clamp_max_(LEVELS - 1)
                ms, mt = major[0].index_select(0, index), major[1].index_select(0, index)
                colour = None
                for k in range(taps):
                    offset = (k + 0.5) / taps - 0.5
                    part = self._bilinear(b, level, s + offset * ms, t + offset * mt)
                    colour = part if colour is None else [a + c for a, c in zip(colour, part, strict=True)]
                colour = [c / taps for c in colour]
            out[:, index] = torch.stack(colour)
        return out

    def alpha(self, texture: torch.Tensor, s: torch.Tensor, t: torch.Tensor, footprint: torch.Tensor) -> torch.Tensor:
        """Alpha (N,) in 0..255, nearest texel at the level of ``footprint`` (N,) texture repeats a pixel."""
        level = (torch.log2((footprint * SIZE).clamp_min(1.0)) + 0.5).to(torch.int32).clamp_max_(LEVELS - 1)
        side = torch.bitwise_right_shift(SIZE, level)
        x = torch.floor(s * side).to(torch.int32) & (side - 1)
        y = torch.floor(t * side).to(torch.int32) & (side - 1)
        base = _offsets(level.device).index_select(0, level)
        packed = self.texels.index_select(0, texture * TEXELS + base + y * side + x)
        return (packed >> 24) & 255


@lru_cache(maxsize=8)
def _offsets(device: torch.device) -> torch.Tensor:
    return torch.tensor(LEVEL_OFFSET, dtype=torch.int32, device=device)
