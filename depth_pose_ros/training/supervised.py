"""Stage A: losses against the exact truth of the worlds.

Flow: cross-entropy of the true cell at 1/8 (what makes the features match), robust end-point errors of every stage, and
the Laplace likelihood that teaches sigma. Depth: scale-invariant and absolute error of log depth (Eigen et al., NIPS
2014), the former also relative to depth, with the multi-scale gradient matching of MegaDepth (Li and Snavely, CVPR
2018).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_OFF = 1.2
"""log of how many times too far a depth may be predicted and still count for more the farther it is."""

OCCLUDED_WEIGHT = 0.2
"""Weight of pixels that no matching can find; their flow is a guess from context."""


def at_cells(values: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) sampled at the centres of stride x stride cells: the mean of the four pixels around each centre."""
    half = stride // 2
    rows = (values[:, :, half - 1 :: stride] + values[:, :, half::stride]) / 2.0
    return (rows[:, :, :, half - 1 :: stride] + rows[:, :, :, half::stride]) / 2.0


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values`` with ``weight``; zero, with a gradient of zero, where there is no weight at all."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def end_point_error(flow: Tensor, truth: Tensor) -> Tensor:
    """(B, 1, H, W) length of the difference of two flows (B, 2, H, W), px."""
    return ((flow - truth).square().sum(1, keepdim=True) + 1e-8).sqrt()


def cell_cross_entropy(similarity: Tensor, truth: Tensor, visible: Tensor) -> Tensor:
    """Cross-entropy of the true cell among all cells of the other image.

    similarity: (B, N, N), rows cells of image 1. truth: (B, 2, h, w) flow at 1/8 in input pixels. visible: (B, 1, h, w)
    1 where the cell has a match. The truth lies between four cells, which share the target bilinearly.
    """
    batch, _, height, width = truth.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=truth.device), torch.arange(width, device=truth.device), indexing="ij"
    )
    to_x, to_y = x + truth[:, 0] / 8.0, y + truth[:, 1] / 8.0
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    weight = visible[:, 0] * inside
    x0 = to_x.floor().clamp(0, max(width - 2, 0))
    y0 = to_y.floor().clamp(0, max(height - 2, 0))
    ax, ay = (to_x - x0).clamp(0, 1), (to_y - y0).clamp(0, 1)
    logp = similarity.log_softmax(2)
    loss = torch.zeros_like(to_x)
    for dx, wx in ((0, 1 - ax), (1, ax)):
        for dy, wy in ((0, 1 - ay), (1, ay)):
            index = ((y0 + dy) * width + x0 + dx).long().flatten(1).unsqueeze(2)
            loss = loss - wx * wy * logp.gather(2, index).reshape(batch, height, width)
    return weighted_mean(loss, weight)


def flow_loss(out: dict[str, Tensor], forward: Tensor, backward: Tensor, hidden_1: Tensor, hidden_2: Tensor) -> dict:
    """Terms of the flow loss for `MatchingFlow.match_all`'s output.

    forward, backward: (B, 2, H, W) true flow, px. hidden_1, hidden_2: (B, 1, H, W) 1.0 where there is no visible match.
    """
    truth = torch.cat([forward, backward])
    hidden = torch.cat([hidden_1, hidden_2])
    terms = {}
    truth_8, hidden_8 = at_cells(truth, 8), (at_cells(hidden, 8) > 0.25).float()
    visible_8 = 1.0 - hidden_8
    half = forward.shape[0]
    terms["cells"] = (
        cell_cross_entropy(out["similarity"], truth_8[:half], visible_8[:half])
        + cell_cross_entropy(out["similarity"].transpose(1, 2), truth_8[half:], visible_8[half:])
    ) / 2.0

    weight_8 = visible_8 + OCCLUDED_WEIGHT * hidden_8
    terms["flow_8"] = weighted_mean(robust(end_point_error(out["flow_8"], truth_8) / 8.0), weight_8)

    truth_4, hidden_4 = at_cells(truth, 4), (at_cells(hidden, 4) > 0.25).float()
    visible_4 = 1.0 - hidden_4
    weight_4 = visible_4 + OCCLUDED_WEIGHT * hidden_4
    coarse = F.interpolate(out["flow_8"].detach(), scale_factor=2.0, mode="bilinear")
    reach = ((coarse - truth_4).abs().amax(1, keepdim=True) < 7.0).float() * visible_4
    terms["matched_4"] = weighted_mean(robust(end_point_error(out["matched_4"], truth_4) / 4.0), reach)
    terms["flow_4"] = weighted_mean(robust(end_point_error(out["flow_4"], truth_4) / 4.0), weight_4)
    error = end_point_error(out["flow"], truth_4)
    terms["flow"] = weighted_mean(robust(error / 4.0), weight_4)
    log_sigma = out["log_sigma"].clamp(-4.0, 6.0)
    terms["sigma"] = weighted_mean(error.detach() * (-log_sigma).exp() + log_sigma, weight_4)
    terms["loss"] = (
        0.5 * terms["cells"]
        + terms["flow_8"]
        + terms["matched_4"]
        + 2.0 * terms["flow_4"]
        + 4.0 * terms["flow"]
        + 0.1 * terms["sigma"]
    )
    terms["epe"] = weighted_mean(error.detach(), visible_4)
    terms["under_1px"] = weighted_mean((error.detach() < 1.0).float(), visible_4)
    return terms


def pyramid_flow_loss(
    flows: Sequence[Tensor], forward: Tensor, backward: Tensor, hidden_1: Tensor, hidden_2: Tensor
) -> dict:
    """Terms of the flow loss for a network that gives flow at several scales, as `PaperFlow.match_levels` does.

    flows: (2 B, 2, h, w) in pixels of the input, fine first, both directions along the batch. The rest as `flow_loss`.
    Each scale counts the same, as a mean over its cells (PWC-Net, Sun et al., CVPR 2018, sums them instead).
    """
    truth, hidden = torch.cat([forward, backward]), torch.cat([hidden_1, hidden_2])
    terms, levels = {}, []
    for flow in flows:
        stride = truth.shape[3] // flow.shape[3]
        true, unseen = at_cells(truth, stride), (at_cells(hidden, stride) > 0.25).float()
        error = end_point_error(flow, true)
        levels.append(weighted_mean(robust(error / 4.0), 1.0 - unseen + OCCLUDED_WEIGHT * unseen))
        if len(levels) == 1:
            terms["epe"] = weighted_mean(error.detach(), 1.0 - unseen)
            terms["under_1px"] = weighted_mean((error.detach() < 1.0).float(), 1.0 - unseen)
    terms["loss"] = torch.stack(levels).mean()
    return terms


def robust(error: Tensor) -> Tensor:
    """Error to the power 0.6: small errors keep a gradient that matters for pose, large ones do not drown them."""
    return (error + 0.01) ** 0.6


def depth_loss(inverse_depth: Tensor, depth: Tensor, sky_depth: float = 120.0, absolute: float = 0.3) -> dict:
    """Terms of the depth loss.

    inverse_depth: (B, 1, h, w) prediction. depth: (B, 1, H, W) truth in the prediction's unit, inf for sky, 0 unknown;
    H, W a multiple of h, w. Sky is only asked to be farther than ``sky_depth``.
    """
    error, known, sky = log_error(inverse_depth, depth)
    weight = known.float()
    mean, enough = mean_of_known(error, known)
    # Of the depth itself as well as of its logarithm: that is what a robot bumps into, and what AbsRel measures.
    off = error - mean
    off = 0.5 * off.abs() + 0.5 * torch.expm1(off.clamp(max=MOST_OFF)).abs()
    terms = {
        "shape": weighted_mean(off, weight * enough),
        "absolute": weighted_mean(error.abs(), weight * enough),
        "sky": weighted_mean(F.relu(torch.tensor(sky_depth).log() + inverse_depth.log()), sky.float()),
    }
    gradient = error.new_zeros(())
    e, w = error, weight
    for _ in range(4):
        for axis in (2, 3):
            pair = w.narrow(axis, 1, w.shape[axis] - 1) * w.narrow(axis, 0, w.shape[axis] - 1)
            gradient = gradient + weighted_mean(e.diff(dim=axis).abs(), pair)
        if min(e.shape[2:]) < 4:
            break
        e, w = e[:, :, ::2, ::2], w[:, :, ::2, ::2]
    terms["gradient"] = gradient
    terms["loss"] = (
        (1.0 - absolute) * terms["shape"] + absolute * terms["absolute"] + 0.2 * terms["sky"] + 0.25 * gradient
    )
    with torch.no_grad():
        ratio = torch.exp((error - median_per_image(error, known)).abs())
        terms["abs_rel"] = weighted_mean((torch.exp(error - median_per_image(error, known)) - 1).abs(), weight)
        terms["delta_1"] = weighted_mean((ratio < 1.25).float(), weight)
    return terms


def pair_loss(inverse_depth: Tensor, depth: Tensor) -> Tensor:
    """How differently the two images of a pair are scaled: mean |difference of their mean errors of log depth|.

    As `depth_loss`, of (2 B, ...) images, those of a pair beside each other. The length of a step comes from the depth
    of its two images: where each has a scale of its own, the path is as uneven.
    """
    error, known, _ = log_error(inverse_depth, depth)
    mean, enough = mean_of_known(error, known)
    both = enough.view(-1, 2).amin(1)
    return weighted_mean(mean.view(-1, 2).diff(dim=1)[:, 0].abs(), both)


def log_error(inverse_depth: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Error of log depth (B, 1, h, w), 0 where it is not known; where it is known; where the sky is."""
    truth = at_cells_nearest(depth, depth.shape[3] // inverse_depth.shape[3])
    sky = torch.isinf(truth)
    known = (truth > 0) & ~sky
    error = -inverse_depth.log() - torch.where(known, truth, torch.ones_like(truth)).log()
    return torch.where(known, error, 0.0), known, sky


def mean_of_known(error: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, 1, 1) the mean error of each image, and 1.0 where enough is known for it to tell anything."""
    count = known.sum((1, 2, 3), keepdim=True)
    return error.sum((1, 2, 3), keepdim=True) / count.clamp(min=1), (count > 50).float()


def at_cells_nearest(values: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) at one pixel per cell (the one up and left of the centre), so that depth edges stay sharp."""
    return values[:, :, stride // 2 - 1 :: stride, stride // 2 - 1 :: stride] if stride > 1 else values


def median_per_image(values: Tensor, mask: Tensor) -> Tensor:
    """(B, 1, 1, 1) median of the masked values of each image, 0 where there are none."""
    medians = [v[m].median() if m.any() else v.new_zeros(()) for v, m in zip(values, mask, strict=True)]
    return torch.stack(medians)[:, None, None, None]
