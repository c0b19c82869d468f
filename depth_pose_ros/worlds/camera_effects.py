"""What a camera and its driver do to a picture, after the exact truth is known.

All effects leave geometry alone (no distortion, no rolling shutter): flow and depth stay true. Some are shared by the
two images of a pair (vignetting, defocus, JPEG quality), some change between them (exposure, white balance, noise).
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from .sample import Sample


@dataclass(frozen=True)
class CameraEffects:
    """How often each effect occurs (probability per pair) and how strong it gets."""

    exposure: float = 0.7
    """Brightness of both images changes by a factor with standard deviation 0.25 in its logarithm, and by a tenth to a
    half of that again between them."""
    gamma: float = 0.4
    white_balance: float = 0.4
    saturation: float = 0.3
    gray: float = 0.15
    vignetting: float = 0.35
    rolling_gain: float = 0.06
    """Bands that drift down the picture: artificial light against a rolling shutter."""
    defocus: float = 0.3
    motion_blur: float = 0.15
    noise: float = 0.7
    jpeg: float = 0.4


def apply_camera_effects(
    sample: Sample,
    rng: np.random.Generator,
    effects: CameraEffects = CameraEffects(),
) -> Sample:
    """The sample with both images as a real camera may have given them; all else is shared with the given sample."""
    images = [
        image.cpu().permute(1, 2, 0).numpy().astype(np.float32) / 255 for image in (sample.image_1, sample.image_2)
    ]
    height, width = images[0].shape[:2]

    def happens(probability: float) -> bool:
        return rng.random() < probability

    # Light reaching the sensor: the tone curve of the renderer (a square root) is undone and redone around it.
    gains = np.ones((2, 3), np.float32)
    if happens(effects.exposure):
        common = rng.normal(0, 0.25)
        change = rng.normal(0, rng.choice([0.03, 0.15])) if happens(0.6) else 0.0
        gains *= np.exp([[common], [common + change]]).astype(np.float32)
    if happens(effects.white_balance):
        tint = rng.normal(0, 0.08, 3)
        gains *= np.exp(np.stack([tint, tint + rng.normal(0, 0.015, 3)])).astype(np.float32)
    shading = np.ones((height, width, 1), np.float32)
    if happens(effects.vignetting):
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        centre = rng.normal(0, 0.08, 2)
        r2 = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 * (height / width) ** 2) / 1.2
        shading = (1 / (1 + rng.uniform(0.1, 0.9) * r2) ** 2)[..., None].astype(np.float32)
    for k in range(2):
        factor = gains[k] * shading
        if (gains[k] != 1).any() or shading.min() < 1:
            images[k] = np.sqrt(np.clip(images[k] ** 2 * factor, 0, 1))
    if happens(effects.rolling_gain):
        rows = np.arange(height, dtype=np.float32)[:, None, None]
        period, strength = rng.uniform(0.3, 2.0) * height, rng.uniform(0.02, 0.12)
        for k in range(2):
            images[k] = images[k] * (1 + strength * np.sin(2 * np.pi * rows / period + rng.uniform(0, 2 * np.pi)))
    if happens(effects.gamma):
        power = float(np.exp(rng.normal(0, 0.2)))
        images = [np.clip(image, 0, 1) ** power for image in images]
    if happens(effects.gray):
        images = [np.repeat(image @ np.array([[0.114], [0.587], [0.299]], np.float32), 3, 2) for image in images]
    elif happens(effects.saturation):
        amount = np.float32(np.exp(rng.normal(0, 0.35)))
        images = [image.mean(2, keepdims=True) * (1 - amount) + image * amount for image in images]

    if happens(effects.defocus):
        sigma = float(rng.choice([rng.uniform(0.3, 0.8), rng.uniform(0.6, 1.6)], p=[0.75, 0.25]))
        images = [cv2.GaussianBlur(image, (0, 0), sigma) for image in images]
    if happens(effects.motion_blur):
        # The whole picture is smeared along its mean motion, by a share of it as the shutter is open for a share of
        # the time; both images alike, centred, so that the flow stays right.
        mean = sample.flow_forward.flatten(1).median(1).values.cpu().numpy() * rng.uniform(0.1, 0.5)
        length = float(np.clip(np.hypot(*mean), 0, 9))
        if length > 1:
            images = [cv2.filter2D(image, -1, _line_kernel(length, np.arctan2(mean[1], mean[0]))) for image in images]
    if happens(effects.noise):
        read, shot = 10 ** rng.uniform(-2.8, -1.7), 10 ** rng.uniform(-2.8, -1.8)
        mono = happens(0.4)
        for k in range(2):
            grain = rng.standard_normal((height, width, 1 if mono else 3), dtype=np.float32)
            images[k] = images[k] + grain * np.sqrt(read**2 + shot**2 * np.clip(images[k], 0, 1))
    out = [np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8) for image in images]
    if happens(effects.jpeg):
        quality = int(rng.integers(45, 96))
        out = [
            cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
            for image in out
        ]
    image_1, image_2 = (torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in out)
    device = sample.image_1.device
    return replace(sample, image_1=image_1.to(device), image_2=image_2.to(device))


def _line_kernel(length: float, angle: float) -> np.ndarray:
    """Centred kernel of a smear of ``length`` px along ``angle``, summing to 1."""
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    half = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    centre = size // 2
    ends = [np.round((centre + sign * half) * 16).astype(int).tolist() for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    kernel = 0.5 * (kernel + kernel[::-1, ::-1])
    return kernel / kernel.sum()
