"""Flat pictures that slide over each other: a background and a few shapes, each under its own homography.

They have no depth, but any motion and exact flow in a few milliseconds, which is what a flow network
learns matching from.
"""

import cv2
import numpy as np
import torch

from .sample import Sample
from .textures import fractal_noise, random_texture

# Blur (texels) of every texture before it is sampled at about one texel a pixel, as a lens blurs; against aliasing.
_LENS_BLUR = 0.45


def layered_sample(seed: int, width: int, height: int) -> Sample:
    """One pair of a background and two to four moving shapes.

    A third of the pairs move less than 3 px; the rest by a log-normal amount with a heavy tail. All pairs together
    have a mean flow of about 15 px at width 320, in proportion at other widths. ``depth`` is 0, ``K`` and ``T_2_1``
    are the identity and ``moving_1`` is True everywhere: there is no camera to speak of.
    """
    rng = np.random.default_rng([int(seed), 0x1A7E])
    if rng.random() < 1 / 3:
        magnitude = rng.uniform(0.0, 2.0)
    else:
        magnitude = min(rng.lognormal(np.log(24.0), 0.7), 130.0) * width / 320.0

    motion_background = _motion(rng, width, height, magnitude)
    layers = [_background(rng, width, height) + (motion_background,)]
    for _ in range(int(rng.integers(2, 5))):
        own = _motion(rng, width, height, magnitude * rng.uniform(0.1, 1.2))
        motion = own @ motion_background if rng.random() < 0.7 else own
        layers.append(_shape(rng, width, height) + (motion,))

    images, alphas = zip(*(_draw(layers, view, width, height) for view in range(2)), strict=True)
    motions = [motion for *_, motion in layers]
    forward, occluded_1 = _truth(alphas[0], alphas[1], motions, width, height)
    backward, occluded_2 = _truth(alphas[1], alphas[0], [np.linalg.inv(M) for M in motions], width, height)
    image_1, image_2 = (torch.from_numpy(i.transpose(2, 0, 1).copy()) for i in images)
    return Sample(
        image_1=image_1,
        image_2=image_2,
        flow_forward=torch.from_numpy(forward),
        flow_backward=torch.from_numpy(backward),
        occluded_1=torch.from_numpy(occluded_1),
        occluded_2=torch.from_numpy(occluded_2),
        depth_1=torch.zeros(height, width),
        depth_2=torch.zeros(height, width),
        T_2_1=torch.eye(4, dtype=torch.float64),
        K=torch.eye(3, dtype=torch.float64),
        moving_1=torch.ones(height, width, dtype=torch.bool),
        kind="layered",
    )


def _draw(layers: list, view: int, width: int, height: int) -> tuple[np.ndarray, list]:
    """The picture (h, w, 3) uint8 of one view, and each layer's alpha in it, (h, w) float32 or None where empty."""
    image, alphas = None, []
    for texture, alpha, place, motion in layers:
        H = motion @ place if view else place
        texture = _prefilter(texture, H)
        if alpha is None:
            image = cv2.warpPerspective(
                texture, H, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
            alphas.append(None)
            continue
        x0, y0, x1, y1 = _bounds(H, alpha.shape, width, height)
        if x1 - x0 < 2 or y1 - y0 < 2:
            alphas.append(None)
            continue
        crop = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]]) @ H
        size = (x1 - x0, y1 - y0)
        colour = cv2.warpPerspective(texture, crop, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpPerspective(alpha, crop, size, flags=cv2.INTER_LINEAR, borderValue=0)
        mask = mask.astype(np.float32) * np.float32(1 / 255)
        part = image[y0:y1, x0:x1]
        part[:] = cv2.blendLinear(np.ascontiguousarray(part), colour, 1 - mask, mask)
        full = np.zeros((height, width), np.float32)
        full[y0:y1, x0:x1] = mask
        alphas.append(full)
    return image, alphas


def _prefilter(texture: np.ndarray, H: np.ndarray) -> np.ndarray:
    """Blur a texture by what one pixel covers of it at its centre, so that minification does not alias."""
    h, w = texture.shape[:2]
    corner = np.array([[w / 2, w / 2 + 1, w / 2], [h / 2, h / 2, h / 2 + 1], [1, 1, 1]])
    p = H @ corner
    p = p[:2] / p[2]
    texels = 1 / max(np.sqrt(abs(np.linalg.det(p[:, 1:] - p[:, :1]))), 0.25)
    return cv2.GaussianBlur(texture, (0, 0), np.hypot(_LENS_BLUR, 0.5 * np.sqrt(max(texels**2 - 1, 0))))


def _bounds(H: np.ndarray, shape: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """Pixel rectangle x0, y0, x1, y1 that a canvas of ``shape`` can touch under ``H``."""
    h, w = shape
    corners = H @ np.array([[0, w, 0, w], [0, 0, h, h], [1, 1, 1, 1.0]])
    if (corners[2] < 0.05).any():
        return 0, 0, width, height
    x, y = corners[:2] / corners[2]
    x0, y0 = max(int(x.min()) - 1, 0), max(int(y.min()) - 1, 0)
    return x0, y0, min(int(x.max()) + 2, width), min(int(y.max()) + 2, height)


def _motion(rng: np.random.Generator, width: int, height: int, magnitude: float) -> np.ndarray:
    """A homography (3, 3) about the image's centre that moves points by about ``magnitude`` pixels."""
    direction = rng.uniform(0, 2 * np.pi)
    # Cameras turn and drive sideways more than up and down.
    shift = magnitude * rng.uniform(0.3, 1.2) * np.array([np.cos(direction), rng.uniform(0.3, 1.0) * np.sin(direction)])
    reach = 0.5 * np.hypot(width, height)
    angle = np.clip(rng.normal(0, 0.35) * magnitude / reach, -0.6, 0.6)
    zoom = np.exp(np.clip(rng.normal(0, 0.35) * magnitude / reach, -0.45, 0.45))
    aspect = np.exp(np.clip(rng.normal(0, 0.08) * magnitude / reach, -0.1, 0.1))
    shear = np.clip(rng.normal(0, 0.1) * magnitude / reach, -0.15, 0.15)
    c, s = np.cos(angle), np.sin(angle)
    linear = np.array([[c, -s], [s, c]]) @ np.array([[zoom * aspect, shear], [0, zoom / aspect]])
    H = np.eye(3)
    H[:2, :2] = linear
    H[:2, 2] = shift
    H[2, :2] = np.clip(rng.normal(0, 0.15, 2) * magnitude / reach, -0.15, 0.15) / reach
    centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    return centre @ H @ np.linalg.inv(centre)


def _background(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, None, np.ndarray]:
    """Texture, no alpha, and the homography from texels to pixels of image 1."""
    h, w = int(1.3 * height), int(1.3 * width)
    texture = random_texture(rng, h, w)
    if rng.random() < 0.4:  # a second pattern on the same plane, as walls carry posters and roads carry marks
        field = fractal_noise(rng, h, w, 64, 0.5)
        cut = rng.uniform(0.4, 0.6)
        blend = np.clip((field - cut) * rng.uniform(8, 60), 0, 1)[..., None]
        texture = (texture * (1 - blend) + random_texture(rng, h, w) * blend).astype(np.uint8)
    zoom = rng.uniform(0.75, 1.3)
    angle = rng.uniform(-0.3, 0.3)
    place = zoom * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1 / zoom]])
    place[:2, 2] = np.array([width / 2, height / 2]) - place[:2, :2] @ np.array([w / 2, h / 2])
    return texture, None, place


def _shape(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture and alpha (uint8) of one moving piece, and the homography from texels to pixels of image 1."""
    side = int(np.clip(height * np.exp(rng.normal(-0.35, 0.5)), 16, 1.5 * height))
    h, w = side, int(np.clip(side * np.exp(rng.normal(0.1, 0.5)), 16, 0.9 * width))
    texture = random_texture(rng, h, w)
    alpha = _outline(rng, h, w)
    zoom, angle = rng.uniform(0.8, 1.2), rng.uniform(-np.pi, np.pi)
    place = zoom * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1 / zoom]])
    place[:2, 2] = rng.uniform([0, 0], [width, height]) - place[:2, :2] @ np.array([w / 2, h / 2])
    return texture, alpha, place


def _outline(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Alpha (h, w) uint8 of a shape that stays off the canvas's border, with a more or less soft edge."""
    alpha = np.zeros((h, w), np.uint8)
    kind = rng.integers(6)
    centre = np.array([w / 2, h / 2])
    if kind == 0:
        cv2.ellipse(alpha, (w // 2, h // 2), (int(0.45 * w), int(0.45 * h)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    elif kind == 1:
        alpha[int(0.06 * h) : int(0.94 * h), int(0.06 * w) : int(0.94 * w)] = 255
    elif kind == 2:  # a smooth star: radius as a short Fourier series
        angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        radius = 1 + sum(rng.normal(0, 0.35 / k) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(2, 8))
        radius = 0.46 * np.clip(radius, 0.15, None) / radius.max()
        points = centre + radius[:, None] * np.stack([w * np.cos(angle), h * np.sin(angle)], 1)
        cv2.fillPoly(alpha, [np.round(points * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    elif kind == 3:  # a polygon
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        points = centre + 0.46 * rng.uniform(0.4, 1, (len(angle), 1)) * np.stack(
            [w * np.cos(angle), h * np.sin(angle)], 1
        )
        cv2.fillPoly(alpha, [np.round(points * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    elif kind == 4:  # blobs of noise with holes: foliage, splashes
        field = fractal_noise(rng, h, w, max(h, w) / 3, rng.uniform(0.4, 0.7))
        y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
        alpha = (np.clip((field - 0.35 - 0.4 * (x**2 + y**2) ** 2) * 12, 0, 1) * 255).astype(np.uint8)
    else:  # bars: fences, poles, grids
        step, share = rng.uniform(0.15, 0.5), rng.uniform(0.25, 0.6)
        for x in np.arange(0.08, 0.9, step):
            alpha[int(0.05 * h) : int(0.95 * h), int(x * w) : int(min(x + share * step, 0.93) * w) + 1] = 255
        alpha[int(0.1 * h) : int(0.1 * h) + max(int(0.06 * h), 2), int(0.05 * w) : int(0.95 * w)] = 255
    if rng.random() < 0.3:
        alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.5, 1.5))
    alpha[[0, -1]] = 0
    alpha[:, [0, -1]] = 0
    return alpha


def _truth(
    alphas: list, alphas_other: list, motions: list[np.ndarray], width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flow (2, h, w) float32 of the uppermost layer at each pixel, and where the other view does not see it."""
    top = np.zeros((height, width), np.uint8)
    for i, alpha in enumerate(alphas):
        if alpha is not None:
            top[alpha > 0.5] = i
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    flow = np.empty((2, height, width))
    behind = np.zeros((height, width), bool)
    for i in np.unique(top):
        mask = top == i
        points = motions[i] @ np.stack([x[mask], y[mask], np.ones(int(mask.sum()))])
        behind[mask] = points[2] <= 0
        flow[:, mask] = points[:2] / points[2] - np.stack([x[mask], y[mask]])
    x2, y2 = x + flow[0], y + flow[1]
    occluded = behind | (x2 < 0) | (y2 < 0) | (x2 > width - 1) | (y2 > height - 1)
    map_x, map_y = x2.astype(np.float32), y2.astype(np.float32)
    for i, alpha in enumerate(alphas_other):
        if alpha is not None:
            occluded |= (top < i) & (cv2.remap(alpha, map_x, map_y, cv2.INTER_LINEAR) > 0.5)
    return flow.astype(np.float32), occluded
