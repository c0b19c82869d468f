"""MatchingFlow: the small optical flow network, made of learned features and matching (0.5 M parameters).

Features are compared, not decoded: at 1/8 every cell of image 1 is compared with every cell of image 2 and a
soft-argmax around the best one gives the flow (as GMFlow, Xu et al., CVPR 2022, does globally); at 1/4 the second
features are warped by it and a soft-argmax over a 5x5 window makes it finer. Since the gradient goes straight into the
features, it learns within minutes where a cost-volume decoder (PWC-Net) stays at zero flow for thousands of steps. Two
light heads repair what has no match (occlusions, leaving pixels, blank walls).

Features of cells of 4 pixels tell little below half a pixel, the brightness of the images does: one step of Lucas and
Kanade from that flow measures the rest, and a third head decides where to believe it and says how far each vector may
be off.

The features of an image are computed once: `encode` per frame, `match` per pair, both directions from one similarity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_pose_ros.networks.correlation import local_correlation
from depth_pose_ros.networks.warp import warp

DAMPING = 1e-3
"""Added to the squared gradients in `lucas_kanade`, in variances of the image: where they are less, nothing is seen."""


@dataclass(frozen=True)
class MatchingFlowConfig:
    """Widths of MatchingFlow. The defaults are the shipped network."""

    channels: tuple[int, int, int, int] = (24, 48, 72, 96)
    """Encoder widths at 1/2, 1/4, 1/8, 1/16."""
    feature_8: int = 48
    """Channels compared at 1/8."""
    feature_4: int = 48
    """Channels compared at 1/4."""
    context: tuple[int, int] = (32, 16)
    """Channels of the first image that the heads at 1/8 and 1/4 see."""
    head: tuple[int, int] = (48, 32)
    """Width of the head at 1/8 and of the two at 1/4."""
    radius: int = 2
    """Half the search window at 1/4, cells."""


class Features(NamedTuple):
    """What is kept of one image: unit-length features to compare, and context for the heads."""

    match_8: Tensor
    """(B, feature_8, H/8, W/8)"""
    match_4: Tensor
    """(B, feature_4, H/4, W/4)"""
    context_8: Tensor
    """(B, context[0], H/8, W/8)"""
    context_4: Tensor
    """(B, context[1], H/4, W/4)"""
    light_2: Tensor
    """(B, 1, H/2, W/2) brightness, with mean 0 and variance 1 over the image; not learned."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance normalisation and a shortcut; stride 2 halves the size."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.InstanceNorm2d(outputs, affine=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.InstanceNorm2d(outputs, affine=True)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Head(nn.Module):
    """Dilated convolutions that turn evidence of the motion and context into flow corrections and log sigma."""

    def __init__(self, inputs: int, width: int, dilations: tuple[int, ...], outputs: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 1)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in dilations)
        self.last = nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W) -> outputs (B, outputs, H, W) and what they come from (B, width, H, W)."""
        x = F.relu(self.first(x))
        for conv in self.body:
            x = x + F.relu(conv(x))
        return self.last(x), x


class MatchingFlow(nn.Module):
    """Flow both ways between two images, at 1/4 of their size.

    Input images are (B, 3, H, W) float BGR in [0, 1]; H and W multiples of 16. Flow is (x, y) in pixels of the input,
    at cell centres ((j + 0.5) * 4 - 0.5, (i + 0.5) * 4 - 0.5). Sigma is the expected end-point error in pixels.
    """

    stride = 4
    multiple_of = 16
    features: ClassVar[dict[str, int]] = {"match_8": 8, "match_4": 4, "context_8": 8, "context_4": 4, "light_2": 2}
    """What `encode` gives, by name, with the image pixels per cell of each."""

    def __init__(self, config: MatchingFlowConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MatchingFlowConfig()
        c2, c4, c8, c16 = config.channels
        self.stem = nn.Conv2d(3, c2, 5, 2, 2, bias=False)
        self.stem_norm = nn.InstanceNorm2d(c2, affine=True)
        self.down_4 = ResidualBlock(c2, c4, 2)
        self.down_8 = ResidualBlock(c4, c8, 2)
        self.down_16 = ResidualBlock(c8, c16, 2)
        self.lateral_8 = nn.Conv2d(c16, c8, 1)
        self.merge_8 = ResidualBlock(c8, c8)
        self.lateral_4 = nn.Conv2d(c8, c4, 1)
        self.merge_4 = nn.Conv2d(c4, c4, 3, padding=1)
        self.match_8 = nn.Conv2d(c8, config.feature_8, 1)
        self.match_4 = nn.Conv2d(c4, config.feature_4, 1)
        self.context_8 = nn.Conv2d(c8, config.context[0], 1)
        self.context_4 = nn.Conv2d(c4, config.context[1], 1)
        window = (2 * config.radius + 1) ** 2
        self.head_8 = Head(config.context[0] + 4, config.head[0], (1, 2, 4, 8))
        self.head_4 = Head(config.context[1] + window + 4, config.head[1], (1, 2))
        self.refine_4 = Head(config.head[1] + 11, config.head[1], (1, 2), outputs=4)
        self.log_sharpness_8 = nn.Parameter(torch.tensor(2.5))
        self.log_sharpness_4 = nn.Parameter(torch.tensor(2.5))
        self.prior_4 = nn.Parameter(torch.tensor(0.1))
        """What a shift by one cell loses at 1/4; d cells lose d^2 times as much."""
        self.log_prior = nn.Parameter(torch.tensor(-1.0))
        """Weight of the prior that cells move little; the similarity at distance d (in 16 cells) loses prior * d^2."""

    def encode(self, image: Tensor) -> Features:
        """Features of one image (B, 3, H, W), BGR in [0, 1]."""
        x = (image - 0.45) / 0.225
        x4 = self.down_4(F.relu(self.stem_norm(self.stem(x))))
        x8 = self.down_8(x4)
        x16 = self.down_16(x8)
        x8 = self.merge_8(x8 + F.interpolate(self.lateral_8(x16), scale_factor=2.0, mode="bilinear"))
        x4 = F.relu(self.merge_4(x4 + F.interpolate(self.lateral_4(x8), scale_factor=2.0, mode="bilinear")))
        return Features(
            unit_length(self.match_8(x8)),
            unit_length(self.match_4(x4)),
            F.relu(self.context_8(x8)),
            F.relu(self.context_4(x4)),
            brightness(image),
        )

    def similarity_8(self, match_1: Tensor, match_2: Tensor) -> Tensor:
        """All-pairs similarity at 1/8, (B, N, N) with N = H/8 * W/8: rows are cells of image 1, columns of image 2.

        The prior of small motion, -p |x1 - x2|^2, is folded into the product as four more channels.
        """
        grid = cell_grid(match_1) / 16.0
        prior = self.log_prior.exp()
        square = -prior * (grid * grid).sum(1, keepdim=True)
        scaled = (2.0 * prior).sqrt() * grid
        one = torch.ones_like(square)
        batch = match_1.shape[0]
        scaled, square, one = (x.expand(batch, -1, -1, -1) for x in (scaled, square, one))
        sharpness = self.log_sharpness_8.exp()
        a = torch.cat([sharpness * match_1, scaled, square, one], 1)
        b = torch.cat([match_2, scaled, one, square], 1)
        return torch.matmul(a.flatten(2).transpose(1, 2), b.flatten(2))

    def match(self, features_1: Sequence[Tensor], features_2: Sequence[Tensor]) -> dict[str, Tensor]:
        """Flow both ways: forward and backward (B, 2, H/4, W/4) px, sigma (B, 1, H/4, W/4) px of the forward one."""
        out = self.match_all(Features(*features_1), Features(*features_2))
        forward, backward = out["flow"].chunk(2)
        return {"forward": forward, "backward": backward, "sigma": out["log_sigma"].chunk(2)[0].exp()}

    def match_all(self, features_1: Features, features_2: Features) -> dict[str, Tensor]:
        """Everything `match` computes, both directions stacked along the batch (forward first), for training."""
        first = Features(*(torch.cat([a, b]) for a, b in zip(features_1, features_2, strict=True)))
        second = Features(*(torch.cat([b, a]) for a, b in zip(features_1, features_2, strict=True)))

        similarity = self.similarity_8(features_1.match_8, features_2.match_8)
        matched_8, evidence = match_both_ways(similarity, features_1.match_8)
        out_8, _ = self.head_8(torch.cat([first.context_8, matched_8 / 32.0, evidence], 1))
        flow_8, log_sigma_8 = matched_8 + 32.0 * out_8[:, :2], out_8[:, 2:]

        coarse = F.interpolate(flow_8, scale_factor=2.0, mode="bilinear")
        cost = local_correlation(first.match_4, warp(second.match_4, coarse / 4.0), self.config.radius)
        cost = cost * self.log_sharpness_4.exp()
        penalty = self.prior_4 * window_offsets(self.config.radius, cost).square().sum(1)
        shift, best = soft_argmax(cost - penalty[:, None, None], self.config.radius)
        shift = shift * 4.0
        matched_4 = coarse + shift
        upsigma = F.interpolate(log_sigma_8, scale_factor=2.0, mode="bilinear")
        evidence_4 = torch.cat([first.context_4, cost / 8.0, shift / 8.0, upsigma, best], 1)
        out_4, seen = self.head_4(evidence_4)
        flow_4 = matched_4 + 8.0 * out_4[:, :2]

        # The head decides how far to follow the measurement, which hardly depends on its start, and mends the rest.
        with torch.no_grad():
            measured, evidence = lucas_kanade(first.light_2, second.light_2, flow_4)
        out, _ = self.refine_4(torch.cat([seen, evidence], 1))
        flow = flow_4 + out[:, :1].sigmoid() * (measured - flow_4) + 4.0 * out[:, 1:3]
        log_sigma = out_4[:, 2:] + out[:, 3:]
        return {
            "similarity": similarity,
            "matched_8": matched_8,
            "flow_8": flow_8,
            "log_sigma_8": log_sigma_8,
            "matched_4": matched_4,
            "flow_4": flow_4,
            "flow": flow,
            "log_sigma": log_sigma,
        }

    def forward(self, image_1: Tensor, image_2: Tensor) -> dict[str, Tensor]:
        """`match` of two images (B, 3, H, W); both are encoded in one batch."""
        both = self.encode(torch.cat([image_1, image_2]))
        pairs = [x.chunk(2) for x in both]
        return self.match(Features(*(p[0] for p in pairs)), Features(*(p[1] for p in pairs)))


def unit_length(x: Tensor) -> Tensor:
    """Each cell's channels scaled to length one."""
    return x * torch.rsqrt((x * x).sum(1, keepdim=True) + 1e-6)


def cell_grid(like: Tensor) -> Tensor:
    """(1, 2, H, W) cell coordinates (x, y) of a map (B, C, H, W), made from the map so that any size exports."""
    ones = torch.ones_like(like[:1, :1])
    return torch.cat([ones.cumsum(3) - 1.0, ones.cumsum(2) - 1.0], 1)


def window_offsets(radius: int, like: Tensor) -> Tensor:
    """((2 r + 1)^2, 2) offsets (x, y) of a search window; y is the slow index, as in `local_correlation`."""
    r = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    y, x = torch.meshgrid(r, r, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def soft_argmax(cost: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Mean offset (B, 2, H, W) in cells under the softmax of a cost volume (B, (2 r + 1)^2, H, W), and the largest
    probability (B, 1, H, W).

    Numerators and denominator come from one 1x1 convolution: softmax over channels as such is twelve times slower in
    ONNX Runtime.
    """
    weight = (cost - cost.amax(1, keepdim=True)).exp()
    offsets = window_offsets(radius, cost)
    sums = F.conv2d(weight, torch.cat([offsets, torch.ones_like(offsets[:, :1])], 1).t()[:, :, None, None])
    return sums[:, :2] / sums[:, 2:], 1.0 / sums[:, 2:]


def brightness(image: Tensor) -> Tensor:
    """Brightness (B, 1, H/2, W/2) of images (B, 3, H, W) BGR, smoothed, with mean 0 and variance 1 over each image."""
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=image.dtype, device=image.device) / 8.0
    luma = torch.tensor([0.114, 0.587, 0.299], dtype=image.dtype, device=image.device)
    kernel = luma[None, :, None, None] * tap[:, None] * tap
    with torch.autocast(image.device.type, enabled=False):
        return F.instance_norm(F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernel, stride=2))


def box(values: Tensor) -> Tensor:
    """Mean over the 5x5 cells around each cell; outside the map nothing counts."""
    return F.avg_pool2d(values, 5, 1, 2, count_include_pad=False)


def lucas_kanade(light_1: Tensor, light_2: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """One step of Lucas and Kanade (1981) from a flow: its sub-pixel part, measured on the brightness.

    light_1, light_2: (B, 1, H/2, W/2) from `brightness`. flow: (B, 2, H/4, W/4) px of the input. The flow is smoothed
    first, over the window of the step (5x5 cells, 20 px), since an error that changes within it cannot be measured.

    Returns the measured flow (B, 2, H/4, W/4) px and how much to make of it (B, 11, H/4, W/4): the step, the changes
    by the smoothing before and by another one after it, strength and direction of the texture, and what was left of
    the difference in brightness before the step.
    """
    smooth = box(flow)
    moved = warp(light_2, F.interpolate(smooth, scale_factor=2.0, mode="bilinear") / 2.0)
    change, mean = moved - light_1, (moved + light_1) / 2.0
    # Half the central difference, 0 at the border.
    along_x = F.pad(mean[:, :, :, 2:] - mean[:, :, :, :-2], (1, 1)) / 2.0
    along_y = F.pad(mean[:, :, 2:] - mean[:, :, :-2], (0, 0, 1, 1)) / 2.0
    first = torch.cat([along_x, along_y, change], 1)
    second = torch.cat([first * first, along_x * along_y, first[:, :2] * change], 1)
    sums = box(F.avg_pool2d(torch.cat([first, second], 1), 2))
    # Without the means: a change of the light within the window is no motion.
    x, y, t, xx, yy, tt, xy, xt, yt = sums.split(1, 1)
    xx, yy, tt = xx - x * x + DAMPING, yy - y * y + DAMPING, tt - t * t + DAMPING
    xy, xt, yt = xy - x * y, xt - x * t, yt - y * t
    determinant, trace = xx * yy - xy * xy, xx + yy
    step = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], 1) / determinant
    measured = smooth + (2.0 * step).clamp(-3.0, 3.0)
    strength = torch.cat([trace, determinant / trace, tt], 1).log() / 4.0
    direction = torch.cat([xx - yy, 2.0 * xy], 1) / trace
    changes = torch.cat([measured - smooth, flow - smooth, measured - box(measured)], 1).clamp(-3.0, 3.0) / 2.0
    return measured, torch.cat([changes, strength, direction], 1)


def match_both_ways(similarity: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Flow at 1/8 from all-pairs similarity, both ways: soft-argmax over the 5x5 cells around the best cell.

    similarity: (B, N, N), rows are cells of image 1, columns of image 2. like: (B, C, h, w) with h * w = N. Returns the
    flow (2 B, 2, h, w) in input pixels, forward first, and evidence (2 B, 2, h, w): the best similarity and the
    probability of the best cell within its window.
    """
    batch = similarity.shape[0]
    height, width = like.shape[2], like.shape[3]
    best_y, best_x = (
        torch.cat(pair).unsqueeze(2) for pair in zip(best_cells(similarity, like, 2), best_cells(similarity, like, 1))
    )
    offsets = window_offsets(2, similarity).to(best_x.dtype)
    x = (best_x + offsets[:, 0]).clamp(min=0)
    y = (best_y + offsets[:, 1]).clamp(min=0)
    inside_x = torch.minimum(x, torch.zeros_like(x) + (width - 1))
    inside_y = torch.minimum(y, torch.zeros_like(y) + (height - 1))
    cells_2, cells_1 = (inside_y * width + inside_x).split(batch)
    values = torch.cat([similarity.gather(2, cells_2), similarity.gather(1, cells_1.transpose(1, 2)).transpose(1, 2)])
    # A clamped cell would count twice: only offsets that stay inside take part.
    stays = (inside_x == best_x + offsets[:, 0]) & (inside_y == best_y + offsets[:, 1])
    probability = values.masked_fill(~stays, -1e4).softmax(2)
    to_x = (probability * inside_x.to(similarity.dtype)).sum(2)
    to_y = (probability * inside_y.to(similarity.dtype)).sum(2)
    target = torch.stack([to_x, to_y], 1).reshape(2 * batch, 2, height, width)
    strength = torch.stack([values.amax(2) / 16.0, probability.amax(2)], 1).reshape(2 * batch, 2, height, width)
    return (target - cell_grid(like)) * 8.0, strength


def best_cells(similarity: Tensor, like: Tensor, along: int) -> tuple[Tensor, Tensor]:
    """Row and column (B, N) of the most similar cell of image 2 (``along`` 2) or of image 1 (1), for each of the other.

    First the best row of cells, then the best cell in it: one fast pass over the similarity, where argmax over N
    values at once, let alone across rows in memory, is ten times slower in ONNX Runtime.
    """
    batch, cells = similarity.shape[:2]
    height, width = like.shape[2], like.shape[3]
    if along == 2:
        rows = similarity.reshape(batch, cells, height, width)
        row = rows.amax(3).argmax(2)
        in_row = rows.gather(2, row[:, :, None, None].expand(-1, -1, -1, width)).flatten(2)
    else:
        rows = similarity.reshape(batch, height, width, cells)
        row = rows.amax(2).argmax(1)
        in_row = rows.gather(1, row[:, None, None].expand(-1, -1, width, -1)).flatten(1, 2).transpose(1, 2)
    return row, in_row.argmax(2)
