"""Random crops, flips and photometry that turn a pool of rendered samples into training batches.

Everything is drawn from one NumPy generator per item, so that item i of a run is the same on every machine and after a
resume.
"""

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from depth_pose_ros.worlds.camera_effects import CameraEffects, apply_camera_effects
from depth_pose_ros.worlds.sample import Sample

EFFECTS = CameraEffects(gray=0.35)
"""Many robots have grey cameras, and the shapes of things do not depend on their colours."""


def recoloured(sample: Sample, rng: np.random.Generator) -> Sample:
    """The sample as another camera would have given it: camera effects, and half the time other colours."""
    if rng.random() < 0.5:
        order = rng.permutation(3)
        sample = replace(sample, image_1=sample.image_1[order], image_2=sample.image_2[order])
    return apply_camera_effects(sample, rng, EFFECTS)


def lit_otherwise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image (H, W, 3) uint8 in other light, as far as to black and white, and with other surfaces; shapes stay.

    Outdoors a seventh of a real picture may be white and a fifth black, and its textures are none of those rendered:
    a depth network that has learnt what light and textures are like in the worlds sees little in it.
    """
    height, width = image.shape[:2]
    image = image.astype(np.float32) / 255.0
    if rng.random() < 0.3:  # a random convolution: other textures on the same shapes (Xu et al., ICLR 2021)
        size = int(rng.choice([1, 3]))
        kernels = rng.normal(0, 1, (3, 3, size, size)).astype(np.float32)
        other = [
            sum(cv2.filter2D(image[..., c], -1, k[c], borderType=cv2.BORDER_REFLECT_101) for c in range(3))
            for k in kernels
        ]
        other = np.stack(other, 2)
        other = (other - other.mean((0, 1))) / (other.std((0, 1)) + 1e-3) * image.std((0, 1)) + image.mean((0, 1))
        share = np.float32(rng.uniform(0, 1))
        image = np.clip((1 - share) * image + share * other, 0, 1)
    if rng.random() < 0.3:  # light that differs from place to place
        light = np.exp(rng.normal(0, 0.5, (int(rng.integers(2, 5)), int(rng.integers(2, 6))))).astype(np.float32)
        light = cv2.resize(light, (width, height), interpolation=cv2.INTER_CUBIC).clip(0.05, 4)
        image = image * np.sqrt(light)[..., None]
    if rng.random() < 0.3:  # a shadow
        corners = (rng.uniform(-0.3, 1.3, (int(rng.integers(3, 6)), 2)) * (width, height)).astype(np.int32)
        shadow = cv2.fillPoly(np.zeros((height, width), np.float32), [cv2.convexHull(corners)], 1.0)
        image = image * (1 - shadow * np.float32(rng.uniform(0.2, 0.8)))[..., None]
    if rng.random() < 0.7:  # contrast and exposure
        contrast, pivot = np.exp(rng.normal(0.15, 0.45)), rng.uniform(0.2, 0.7)
        exposure = np.exp(rng.normal(0, 0.25))
        image = np.clip(pivot + (image * exposure - pivot) * contrast, 0, 1)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def flow_item(rng: np.random.Generator, sample: Sample, width: int, height: int) -> dict[str, Tensor]:
    """One training item for flow: a crop of width x height, flipped, with camera effects."""
    full_h, full_w = sample.image_1.shape[1:]
    x = int(rng.integers(0, full_w - width + 1))
    y = int(rng.integers(0, full_h - height + 1))
    window = np.s_[..., y : y + height, x : x + width]
    seen = ("image_1", "image_2", "flow_forward", "flow_backward", "occluded_1", "occluded_2")
    sample = recoloured(replace(sample, **{name: getattr(sample, name)[window] for name in seen}), rng)
    images = [np.asarray(i).astype(np.float32) / 255.0 for i in (sample.image_1, sample.image_2)]
    flows = [np.asarray(f).astype(np.float32) for f in (sample.flow_forward, sample.flow_backward)]
    hidden = [np.asarray(o).astype(np.float32)[None] for o in (sample.occluded_1, sample.occluded_2)]
    if rng.random() < 0.5:
        images, flows, hidden = ([v[..., ::-1] for v in values] for values in (images, flows, hidden))
        flows = [f * np.array([-1, 1], np.float32)[:, None, None] for f in flows]
    if rng.random() < 0.2:
        images, flows, hidden = ([v[..., ::-1, :] for v in values] for values in (images, flows, hidden))
        flows = [f * np.array([1, -1], np.float32)[:, None, None] for f in flows]
    if rng.random() < 0.5:
        images, flows, hidden = images[::-1], flows[::-1], hidden[::-1]
    # A match that left the crop has no match in it.
    grid_y, grid_x = np.mgrid[0:height, 0:width]
    for f, o in zip(flows, hidden, strict=True):
        to_x, to_y = grid_x + f[0], grid_y + f[1]
        o[0][(to_x < 0) | (to_x > width - 1) | (to_y < 0) | (to_y > height - 1)] = 1.0
    names = ("image_1", "image_2", "forward", "backward", "hidden_1", "hidden_2")
    values = (*images, *flows, *hidden)
    return {n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in zip(names, values, strict=True)}


SQUEEZE = 2.6
"""How much flatter than it was an image may come to the network: what a 4:3 image becomes at 640x192 (2.5)."""
INDOORS = 1.4
"""A flat crop of a room shows a strip of wall, and nothing tells its depth: rooms keep their height, nearly: what they
are squeezed by lies within this factor of all that they can be."""


def depth_item(
    rng: np.random.Generator, sample: Sample, width: int, height: int, reference_focal: float | None, zoom: float = 1.5
) -> dict[str, Tensor]:
    """One training item for depth: a random zoom and crop of one of the two images, squeezed half the time, relit.

    The depth is multiplied by ``reference_focal / fx`` of the zoomed image: what one image can tell (see SmallDepth);
    None leaves it in metres.
    Camera effects come last, at the size that the network sees.
    """
    first = rng.random() < 0.5
    image = np.asarray(sample.image_1 if first else sample.image_2)
    depth = np.asarray(sample.depth_1 if first else sample.depth_2)
    fx = float(sample.K[0, 0])
    full_h, full_w = image.shape[1:]
    least = max(width / full_w, height / full_h)
    scale = least * float(np.exp(rng.uniform(0.0, np.log(zoom))))
    crop_w, crop_h = min(full_w, round(width / scale)), min(full_h, round(height / scale))
    most = min(full_h / crop_h, SQUEEZE)
    if sample.kind == "room" or rng.random() < 0.5:
        low = max(most / INDOORS, 1.0) if sample.kind == "room" else 1.0
        crop_h = min(full_h, round(crop_h * float(np.exp(rng.uniform(np.log(low), np.log(most))))))
    x = int(rng.integers(0, full_w - crop_w + 1))
    y = int(rng.integers(0, full_h - crop_h + 1))
    scale_x = width / crop_w
    image = np.ascontiguousarray(image[:, y : y + crop_h, x : x + crop_w].transpose(1, 2, 0))
    interpolation = cv2.INTER_AREA if crop_h > height else cv2.INTER_LINEAR
    image = cv2.resize(image, (width, height), interpolation=interpolation)
    image = lit_otherwise(image, rng)
    depth = np.ascontiguousarray(depth[y : y + crop_h, x : x + crop_w], np.float32)
    depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
    seen = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    seen = replace(sample, image_1=seen, image_2=seen, flow_forward=sample.flow_forward * scale_x)
    image = recoloured(seen, rng).image_1.numpy().astype(np.float32) / 255.0
    if rng.random() < 0.5:
        image, depth = image[..., ::-1], depth[..., ::-1]
    if reference_focal is not None:
        depth = depth * np.float32(reference_focal / (fx * scale_x))
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image, np.float32)),
        "depth": torch.from_numpy(np.ascontiguousarray(depth)[None]),
    }


def depth_pair_item(
    rng: np.random.Generator, sample: Sample, width: int, height: int, reference_focal: float | None
) -> dict[str, Tensor]:
    """Both images of a sample as a `depth_item` each, in one crop and one light: (2, 3, H, W) and (2, 1, H, W)."""
    seed = int(rng.integers(1 << 62))
    swapped = replace(
        sample, image_1=sample.image_2, image_2=sample.image_1, depth_1=sample.depth_2, depth_2=sample.depth_1
    )
    items = [depth_item(np.random.default_rng(seed), s, width, height, reference_focal) for s in (sample, swapped)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}
