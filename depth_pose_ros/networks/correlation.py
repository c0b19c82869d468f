"""Local correlation (cost volume) as a few matrix products instead of one product per displacement."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 16
"""Pixels of a row in one matrix product; fewer make small, slow products, more compute what is thrown away."""


def local_correlation(features_1: Tensor, features_2: Tensor, radius: int = 4) -> Tensor:
    """Dot product of every feature of image 1 with the features of image 2 in a square window round it.

    features_1, features_2: (B, C, H, W). Returns (B, (2 * radius + 1)^2, H, W); channel ``(dy + radius) *
    (2 * radius + 1) + dx + radius`` holds ``sum_c features_1[c, y, x] * features_2[c, y + dy, x + dx]``: the vertical
    displacement is the slow index. Outside image 2 the features count as zero. It is the plain sum over channels: for
    PWC-Net's mean divide ``features_1`` by C before the call (Sun et al., CVPR 2018, section 3).

    Rows are cut into blocks of ``b`` pixels. The matches of a block lie in ``m = b + 2 * radius`` pixels of image 2, so
    each dy is one batched product (b x C) @ (C x m), of which a diagonal band is wanted. Padding the flattened b x m
    product by b and reading it as b x (m + 1) moves the band into the first columns. In ONNX these are a handful of
    nodes per displacement row, ten times faster on a CPU than slices, and sizes stay dynamic because every size comes
    from the tensors' shapes.
    """
    batch, channels = (int(size) for size in features_1.shape[:2])  # fixed when exported; height and width are not
    height, width = features_1.shape[2:]
    window = 2 * radius + 1
    block = BLOCK
    if 2 * radius > block:
        raise ValueError(f"radius {radius} is too large; expected at most {block // 2}")

    # Rows of `blocks` whole blocks; image 2 gets the radius more on both sides.
    fill = (block - width % block) % block
    blocks = (width + fill) // block
    left = F.pad(features_1, (0, fill)).reshape(batch, channels, height, blocks, block)
    left = left.permute(0, 2, 3, 4, 1)  # (B, H, blocks, b, C)
    right = F.pad(features_2, (radius, block - radius + fill, radius, radius))
    right = right.reshape(batch, channels, height + 2 * radius, blocks + 1, block).permute(0, 2, 3, 1, 4)
    right = torch.cat((right[:, :, :-1], right[:, :, 1:, :, : 2 * radius]), dim=-1)  # (B, H + 2 r, blocks, C, m)

    rows = [torch.matmul(left, right[:, dy : dy + height]) for dy in range(window)]
    product = torch.stack(rows, dim=1)  # (B, dy, H, blocks, b, m)
    product = F.pad(product.flatten(4), (0, block)).reshape(batch, window, height, blocks, block, block + window)
    band = product[..., :window].permute(0, 1, 5, 2, 3, 4)  # (B, dy, dx, H, blocks, b)
    return band.reshape(batch, window * window, height, blocks * block)[..., :width]
