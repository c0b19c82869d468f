"""Stage B: losses that need no truth, after Zhao et al., CVPR 2020 (TrianFlow); equation names as there.

Flow learns from the images themselves (photometric, smooth where the image is smooth). Depth learns from what the
matches triangulate to: the motion between two images comes from robust geometry on the matches, without gradient, and
the depth of each match from its two rays.

Pixel centres are at integer coordinates; points and flow are (x, y) in pixels of the networks' input, whatever grid
they are given on: cell (i, j) of a grid with stride k stands for the pixel ((j + 0.5) k - 0.5, (i + 0.5) k - 0.5).
`X_2 = R X_1 + t`.

Each term is a `Term`: one value per pair, and whether the pair counts. A pair without a usable pixel (nothing matches,
no baseline, no overlap) does not count: its value is 0 and so is its gradient, and the other pairs of the batch are
not touched. (The released code fails on it, or zeroes the whole batch.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossConstants:
    """The constants of the method, as in the released code where it and the paper differ."""

    scales: int = 3
    """Photometric loss at 1, 1/2, ... of the input size."""
    ssim_c1: float = 0.01**2
    ssim_c2: float = 0.03**2
    smooth_edge: float = 10.0
    """How fast flow smoothness gives way to an image edge (colours in 0..1)."""
    flow_unit: float = 20.0
    """Flow is measured in this many pixels in its smoothness term, px."""
    consistency_px: float = 3.0
    consistency_ratio: float = 0.05
    """Forward and backward flow cancel to within max(consistency_px, ratio * |flow|)."""
    score_offset: float = 0.1
    """Keeps the score M_s finite, px: at most 1 / offset."""
    rigid_px: float = 0.5
    """A match this close to its epipolar line may belong to the rigid scene (1.0 indoors in the paper's NYU runs)."""
    inlier_px: float = 0.1
    """A match this close is as good as exact: the geometric flow loss leaves it alone."""
    match_share: float = 0.2
    """Share of the pixels, the best by score, that are triangulated."""
    least_sine: float = 0.001
    """Sine of the parallax below which a match is not triangulated."""
    least_depth: float = 0.01
    """Triangulated depths below this are wrong, in baselines."""
    gross_ratio: float = 3.0
    """A depth so many times off its triangulation, after alignment, tells of a wrong match or motion and is left out.
    (The released code keeps it, and a few near points then rule the squares of L_d.)"""
    least_share: float = 0.005
    """A pair counts for a term if at least this share of its pixels has weight there."""


class Term(NamedTuple):
    """One loss term of a batch of pairs."""

    value: Tensor
    """(B,), 0 where the pair does not count."""
    counts: Tensor
    """(B,) bool."""

    def mean(self) -> Tensor:
        """Mean over the pairs that count; 0 with a gradient of 0 when none does."""
        return self.value.sum() / self.counts.sum().clamp(min=1)


# ---- Grids, sampling, means ----


def pixel_grid(height: int, width: int, stride: float, like: Tensor) -> Tensor:
    """(1, 2, height, width) input pixels (x, y) of the cells of a grid."""
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) * stride - 0.5
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) * stride - 0.5
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((x, y))[None]


def sample(values: Tensor, points: Tensor, stride: float, padding: str = "border") -> Tensor:
    """Bilinear samples (B, C, h, w) of ``values`` (B, C, h', w'), a grid of ``stride``, at ``points`` (B, 2, h, w) px.

    Outside the grid: the nearest value (``border``) or zero (``zeros``). Points that are not finite or absurdly far are
    outside.
    """
    height, width = values.shape[2:]
    points = torch.where(points.detach().abs() < 1e6, points, torch.full_like(points, -1e6))
    x = (points[:, 0] + 0.5) * (2.0 / (stride * width)) - 1.0
    y = (points[:, 1] + 0.5) * (2.0 / (stride * height)) - 1.0
    return F.grid_sample(values, torch.stack((x, y), -1), "bilinear", padding, align_corners=False)


def resize(values: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize of (B, C, h, w); half-pixel rule, so that cells keep their place. Values are not scaled."""
    if values.shape[2:] == (height, width):
        return values
    return F.interpolate(values, (height, width), mode="bilinear", align_corners=False)


def weighted_term(values: Tensor, weight: Tensor, least_share: float) -> Term:
    """Mean of ``values`` (B, C, h, w) with ``weight`` (B, 1, h, w), pair by pair.

    A pair counts if more than ``least_share`` of its weight map is not 0 and its mean is finite.
    """
    channels = values.shape[1]
    used = weight > 0
    total = weight.sum((1, 2, 3))
    value = (torch.where(used, values, 0.0) * weight).sum((1, 2, 3)) / (channels * total).clamp(min=1e-12)
    counts = (used.float().mean((1, 2, 3)) > least_share) & torch.isfinite(value.detach())
    return Term(torch.where(counts, value, 0.0), counts)


def add(terms: Sequence[Term]) -> Term:
    """Sum of terms; a pair counts if it counts in any of them."""
    return Term(sum(t.value for t in terms), torch.stack([t.counts for t in terms]).any(0))


# ---- Occlusion, consistency, score ----


@torch.no_grad()
def visible_mask(flow_21: Tensor, stride: float) -> Tensor:
    """M_o: how much of each pixel of image 1 is seen in image 2, (B, 1, h, w) in [0, 1], soft, without gradient.

    A one at each pixel of image 2 is splatted bilinearly to where ``flow_21`` (B, 2, h, w) says it lies in image 1; the
    sum is clamped to 1 (Wang et al., CVPR 2018). What lands outside is lost.
    """
    batch, _, height, width = flow_21.shape
    cells = flow_21 / stride + pixel_grid(height, width, 1.0, flow_21)
    # A margin of one cell takes what lands outside, so that no corner needs a test of its own.
    x = torch.nan_to_num(cells[:, 0], nan=-1.0).clamp(-1.0, width)
    y = torch.nan_to_num(cells[:, 1], nan=-1.0).clamp(-1.0, height)
    x0, y0 = x.floor(), y.floor()
    ax, ay = x - x0, y - y0
    corner = ((y0 + 1) * (width + 3) + x0 + 1).long().flatten(1)
    landed = flow_21.new_zeros(batch, (height + 3) * (width + 3))
    for dx, wx in ((0, 1 - ax), (1, ax)):
        for dy, wy in ((0, 1 - ay), (1, ay)):
            landed.scatter_add_(1, corner + dy * (width + 3) + dx, (wx * wy).flatten(1))
    landed = landed.reshape(batch, 1, height + 3, width + 3)[:, :, 1 : height + 1, 1 : width + 1]
    return landed.clamp(max=1.0)


def forward_backward_difference(flow_12: Tensor, flow_21: Tensor, stride: float) -> Tensor:
    """|F_12(p) + F_21(p + F_12(p))| per component, (B, 2, h, w) px; outside the image F_21 is taken as 0."""
    points = pixel_grid(*flow_12.shape[2:], stride, flow_12) + flow_12
    return (flow_12 + sample(flow_21, points, stride, "zeros")).abs()


class Score(NamedTuple):
    """What the flow says about its own pixels; no gradient."""

    valid: Tensor
    """(B, 1, h, w) in [0, 1]: visible and consistent."""
    score: Tensor
    """(B, 1, h, w) M_s = valid / (offset + mean |difference|), in 1/px."""


@torch.no_grad()
def score_maps(
    flow_12: Tensor, flow_21: Tensor, stride: float, constants: LossConstants, sigma: Tensor | None = None
) -> Score:
    """Occlusion, consistency and score M_s of image 1's pixels (paper, sections 3.1 and 3.2).

    ``sigma`` (B, 1, h, w) px is the network's own expected error of ``flow_12``; the score's denominator grows by it.
    """
    difference = forward_backward_difference(flow_12, flow_21, stride)
    limit = (constants.consistency_ratio * flow_12.norm(dim=1, keepdim=True)).clamp(min=constants.consistency_px)
    consistent = difference.norm(dim=1, keepdim=True) < limit
    valid = visible_mask(flow_21, stride) * consistent
    expected_error = constants.score_offset + torch.nan_to_num(difference.mean(1, keepdim=True))
    return Score(valid, valid / (expected_error if sigma is None else expected_error + sigma))


# ---- Flow from images ----


def ssim(a: Tensor, b: Tensor, constants: LossConstants) -> Tensor:
    """Structural similarity of two images (B, C, H, W) over 3x3 windows, zero-padded (Wang et al., TIP 2004)."""
    mean_a, mean_b = F.avg_pool2d(a, 3, 1, 1), F.avg_pool2d(b, 3, 1, 1)
    var_a = F.avg_pool2d(a * a, 3, 1, 1) - mean_a**2
    var_b = F.avg_pool2d(b * b, 3, 1, 1) - mean_b**2
    cov = F.avg_pool2d(a * b, 3, 1, 1) - mean_a * mean_b
    c1, c2 = constants.ssim_c1, constants.ssim_c2
    return (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def photometric(image_1: Tensor, image_2: Tensor, flow_12: Tensor, mask: Tensor, c: LossConstants) -> tuple[Term, Term]:
    """Pixel and SSIM terms of image 1 (B, 3, H, W) against image 2 warped by ``flow_12`` (B, 2, H, W), all of one size.

    ``pixel = mean(|I_1 - I_2(p + F)| M) / mean(M)`` and
    ``ssim = mean(clamp((1 - SSIM(I_1 M, I_2(p + F) M)) / 2, 0, 1)) / mean(M)``, with mask M (B, 1, H, W).
    """
    warped = sample(image_2, pixel_grid(*flow_12.shape[2:], 1.0, flow_12) + flow_12, 1.0, "zeros")
    pixel = weighted_term((image_1 - warped).abs(), mask, c.least_share)
    distance = ((1.0 - ssim(image_1 * mask, warped * mask, c)) / 2.0).clamp(0.0, 1.0)
    # The mask is inside the SSIM, so the map itself is summed whole.
    value = distance.mean((1, 2, 3)) / mask.mean((1, 2, 3)).clamp(min=1e-12)
    return pixel, Term(torch.where(pixel.counts, value, 0.0), pixel.counts)


def flow_smoothness(flow: Tensor, image: Tensor, constants: LossConstants) -> Tensor:
    """(B,) second-order, edge-aware: ``(|d2F/dx2| exp(-a mean_c |dI/dx|) + same in y) / 2``, F in units of 20 px."""
    flow = flow / constants.flow_unit
    weight_x = (-constants.smooth_edge * image.diff(dim=3).abs().mean(1, keepdim=True)).exp()
    weight_y = (-constants.smooth_edge * image.diff(dim=2).abs().mean(1, keepdim=True)).exp()
    bend_x = (weight_x[:, :, :, 1:] * flow.diff(n=2, dim=3).abs()).mean((1, 2, 3))
    bend_y = (weight_y[:, :, 1:] * flow.diff(n=2, dim=2).abs()).mean((1, 2, 3))
    return (bend_x + bend_y) / 2.0


def flow_terms(
    image_1: Tensor, image_2: Tensor, flows_12: Sequence[Tensor], flows_21: Sequence[Tensor], constants: LossConstants
) -> dict[str, Term]:
    """``pixel``, ``ssim`` and ``flow_smooth``, summed over both directions and all scales.

    image_1, image_2: (B, 3, H, W) in [0, 1]. flows_12, flows_21: one flow per scale (fine first), each (B, 2, h, w) in
    input pixels on any grid; a shorter list is continued with its last flow.
    """
    pixel, structure, smooth = [], [], []
    for scale in range(constants.scales):
        size = image_1.shape[2] >> scale, image_1.shape[3] >> scale
        images = [F.adaptive_avg_pool2d(image, size) for image in (image_1, image_2)]
        flows = [f[min(scale, len(f) - 1)] for f in (flows_12, flows_21)]
        flows = [resize(flow, *size) / 2.0**scale for flow in flows]
        for first, second in ((0, 1), (1, 0)):
            mask = score_maps(flows[first], flows[second], 1.0, constants).valid
            p, s = photometric(images[first], images[second], flows[first], mask, constants)
            pixel.append(p)
            structure.append(s)
            smooth.append(Term(flow_smoothness(flows[first], images[first], constants), p.counts))
    # Smoothness alone would pull a pair without any match to a constant flow.
    terms = {"pixel": add(pixel), "ssim": add(structure), "flow_smooth": add(smooth)}
    counts = terms["pixel"].counts
    return {name: Term(torch.where(counts, term.value, 0.0), counts) for name, term in terms.items()}


# ---- Two-view geometry ----


def fundamental_matrix(K: Tensor, R: Tensor, t: Tensor) -> Tensor:
    """F = K^-T [t]x R K^-1 (B, 3, 3), so that x_2' F x_1 = 0 in pixels. K, R: (B, 3, 3); t: (B, 3)."""
    zero = torch.zeros_like(t[:, 0])
    x, y, z = t.unbind(1)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), 1).reshape(-1, 3, 3)
    K_inv = torch.linalg.inv(K)
    return K_inv.transpose(1, 2) @ cross @ R @ K_inv


def epipolar_distance(fundamental: Tensor, points_1: Tensor, points_2: Tensor) -> Tensor:
    """(B, 1, h, w) distance of ``points_2`` from the epipolar line of ``points_1``, both (B, 2, h, w), px."""
    line = torch.einsum("bij,bjhw->bihw", fundamental, F.pad(points_1, (0, 0, 0, 0, 0, 1), value=1.0))
    residual = (line[:, :2] * points_2).sum(1, keepdim=True) + line[:, 2:]
    square = (line[:, :2] ** 2).sum(1, keepdim=True)
    # At the epipole the line vanishes, and with it the root's derivative.
    return residual.abs() / torch.where(square > 0, square, torch.ones_like(square)).sqrt().clamp(min=1e-12)


@torch.no_grad()
def inlier_score(distance: Tensor, constants: LossConstants) -> Tensor:
    """M_r = [distance < rigid_px] / (1 + distance), from the epipolar distance in px."""
    return (distance < constants.rigid_px) / (1.0 + distance)


def geometric_flow_loss(distance: Tensor, constants: LossConstants) -> Term:
    """geo: mean epipolar distance (B, 1, h, w) of matches that are rigid but not yet exact, inlier_px to rigid_px."""
    ring = ((distance >= constants.inlier_px) & (distance < constants.rigid_px)).to(distance.dtype)
    return weighted_term(distance, ring, constants.least_share)


class Triangulation(NamedTuple):
    """Depth of matches from their two rays; no gradient."""

    depth_1: Tensor
    """(B, 1, h, w) along Z of camera 1, in baselines; 1 where not usable."""
    depth_2: Tensor
    """(B, 1, h, w) along Z of camera 2."""
    usable: Tensor
    """(B, 1, h, w) bool: enough parallax, rays that meet in front of both cameras."""


@torch.no_grad()
def triangulate(
    points_1: Tensor, points_2: Tensor, K: Tensor, R: Tensor, t: Tensor, constants: LossConstants
) -> Triangulation:
    """Midpoint triangulation of matches (B, 2, h, w) px, in double precision.

    The point is the middle of the shortest segment between the two rays. A match is usable if the angle from ray 1 to
    the foot of the perpendicular from camera 1 on ray 2 has a cosine above ``least_sine`` (the sine of the parallax,
    signed: diverging rays have none), and if both depths exceed ``least_depth``.
    """
    kind = points_1.dtype
    points_1, points_2, K, R, t = (v.double() for v in (points_1, points_2, K, R, t))
    K_inv = torch.linalg.inv(K)

    def directions(matrix: Tensor, points: Tensor) -> Tensor:
        rays = torch.einsum("bij,bjhw->bihw", matrix, F.pad(points, (0, 0, 0, 0, 0, 1), value=1.0))
        return rays / rays.norm(dim=1, keepdim=True)

    back = R.transpose(1, 2)
    ray_1, ray_2 = directions(K_inv, points_1), directions(back @ K_inv, points_2)
    origin_2 = -(back @ t[:, :, None])[:, :, None].expand_as(ray_1)

    foot = origin_2 - (origin_2 * ray_2).sum(1, keepdim=True) * ray_2
    sine = (ray_1 * foot).sum(1, keepdim=True) / foot.norm(dim=1, keepdim=True).clamp(min=1e-12)

    normal = torch.linalg.cross(ray_1, ray_2, dim=1)
    square = (normal**2).sum(1, keepdim=True).clamp(min=1e-12)
    along_1 = (torch.linalg.cross(origin_2, ray_2, dim=1) * normal).sum(1, keepdim=True) / square
    along_2 = (torch.linalg.cross(origin_2, ray_1, dim=1) * normal).sum(1, keepdim=True) / square
    point = (along_1 * ray_1 + origin_2 + along_2 * ray_2) / 2.0
    depth_1 = point[:, 2:]
    depth_2 = (torch.einsum("bij,bjhw->bihw", R, point) + t[:, :, None, None])[:, 2:]
    usable = (sine > constants.least_sine) & (depth_1 > constants.least_depth) & (depth_2 > constants.least_depth)
    usable &= torch.isfinite(depth_1) & torch.isfinite(depth_2)
    return Triangulation(*(torch.where(usable, d, 1.0).to(kind) for d in (depth_1, depth_2)), usable)


@torch.no_grad()
def best_share(score: Tensor, share: float) -> Tensor:
    """(B, 1, h, w) bool: the ``share`` of the pixels with the highest score, of those that have one."""
    flat = score.flatten(1)
    count = max(1, int(share * flat.shape[1]))
    limit = flat.topk(count, dim=1).values[:, -1]
    return (score >= limit[:, None, None, None]) & (score > 0)


def inside(points: Tensor, height: int, width: int) -> Tensor:
    """(B, 1, h, w) bool: which points (B, 2, h, w) px lie between the centres of the outer pixels of the input."""
    x, y = points[:, :1], points[:, 1:]
    return (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)


# ---- Depth from geometry ----


@torch.no_grad()
def depth_gain(depth: Tensor, target: Tensor, weight: Tensor, gross_ratio: float) -> Tensor:
    """(B,) factor that brings a predicted ``depth`` to the unit of ``target``, all (B, 1, h, w).

    The ratio of the medians first, then the least-squares gain a = sum(r) / sum(r^2), r = depth / target, which makes
    sum (1 - a r)^2 least. Ratios that are ``gross_ratio`` off after the first step are left out of the second. 1 where
    there is no weight.
    """
    gains = []
    for d, z, w in zip(depth, target, weight > 0, strict=True):
        if not w.any():
            gains.append(depth.new_ones(()))
            continue
        first = d[w].median() / z[w].median()
        ratio = d[w] / (z[w] * first)
        ratio = ratio[(ratio > 1.0 / gross_ratio) & (ratio < gross_ratio)]
        second = ratio.sum() / (ratio**2).sum() if len(ratio) else ratio.new_ones(())
        gains.append(second / first)
    return torch.stack(gains)


def triangulation_loss(depth: Tensor, target: Tensor, weight: Tensor, least_share: float) -> Term:
    """L_d: mean (1 - D / D_tri)^2 of the aligned prediction ``depth`` against ``target``, all (B, 1, h, w)."""
    target = torch.where(weight > 0, target, torch.ones_like(target))
    return weighted_term((1.0 - depth / target) ** 2, weight, least_share)


class Reprojection(NamedTuple):
    """Where the predicted depth of image 1 puts its pixels in image 2."""

    points: Tensor
    """(B, 2, h, w) p_bd, px."""
    depth: Tensor
    """(B, 1, h, w) Z_12, in camera 2."""
    in_front: Tensor
    """(B, 1, h, w) bool; the points are only meaningful there."""


def reproject(depth_1: Tensor, stride: float, K: Tensor, R: Tensor, t: Tensor) -> Reprojection:
    """Project the points of ``depth_1`` (B, 1, h, w), a grid of ``stride``, into image 2: K (R D_1 K^-1 p + t)."""
    pixels = pixel_grid(*depth_1.shape[2:], stride, depth_1).expand(len(depth_1), -1, -1, -1)
    rays = torch.einsum("bij,bjhw->bihw", torch.linalg.inv(K), F.pad(pixels, (0, 0, 0, 0, 0, 1), value=1.0))
    points = torch.einsum("bij,bjhw->bihw", R, depth_1 * rays) + t[:, :, None, None]
    z = points[:, 2:]
    in_front = z.detach() > 1e-3
    projected = torch.einsum("bij,bjhw->bihw", K, points)[:, :2] / torch.where(in_front, z, torch.ones_like(z))
    return Reprojection(projected, z, in_front)


def reprojection_depth_loss(there: Reprojection, depth_2: Tensor, stride: float, weight: Tensor, share: float) -> Term:
    """L_pd: weighted mean |1 - Z_12 / D_2(p_bd)|.

    depth_2: (B, 1, h, w) aligned prediction of image 2, a grid of ``stride``. weight: (B, 1, h, w) M_r times M_s; what
    projects outside image 2 or behind it has none.
    """
    height, width = depth_2.shape[2] * stride, depth_2.shape[3] * stride
    weight = weight * (there.in_front & inside(there.points.detach(), height, width))
    seen = 1.0 / sample(1.0 / depth_2, there.points, stride)
    return weighted_term((1.0 - there.depth / seen).abs(), weight, share)


def reprojection_flow_loss(flow_12: Tensor, there: Reprojection, stride: float, weight: Tensor, share: float) -> Term:
    """L_pf: weighted mean |F + p - p_bd| per component, px; p_bd is detached, so that it trains the flow alone.

    flow_12: (B, 2, h, w) on the grid of ``stride`` that ``there`` is on. weight: (B, 1, h, w), M_r.
    """
    pixels = pixel_grid(*flow_12.shape[2:], stride, flow_12)
    return weighted_term((flow_12 + pixels - there.points.detach()).abs(), weight * there.in_front, share)


def depth_smoothness(inverse_depth: Tensor, image: Tensor) -> Tensor:
    """(B,) first-order, edge-aware: ``|d disp| exp(-mean_c |dI|)`` in x and y, disp = inverse depth over its mean.

    inverse_depth: (B, 1, h, w); image: (B, 3, h, w) of the same size.
    """
    disparity = inverse_depth / inverse_depth.mean((2, 3), keepdim=True).clamp(min=1e-12)
    total = 0.0
    for axis in (3, 2):
        weight = (-image.diff(dim=axis).abs().mean(1, keepdim=True)).exp()
        total = total + (disparity.diff(dim=axis).abs() * weight).mean((1, 2, 3))
    return total


class Motion(NamedTuple):
    """The motion between the two images of each pair, from robust geometry; no gradient."""

    R: Tensor
    """(B, 3, 3)"""
    t: Tensor
    """(B, 3), of length one."""
    ok: Tensor
    """(B,) bool; where False the rest is the identity and a placeholder."""


def geometry_terms(
    image_1: Tensor,
    image_2: Tensor,
    flow_12: Tensor,
    flow_21: Tensor,
    inverse_depth_1: Tensor,
    inverse_depth_2: Tensor,
    K: Tensor,
    motion: Motion,
    constants: LossConstants,
    sigma: Tensor | None = None,
) -> dict[str, Term]:
    """``geo``, ``triangulation`` (L_d), ``reprojection`` (L_pd), ``flow_error`` (L_pf) and ``depth_smooth``.

    image_1, image_2: (B, 3, H, W) in [0, 1]. flow_12, flow_21: (B, 2, h', w') px on any grid of the input.
    inverse_depth_1, inverse_depth_2: (B, 1, h, w), whose grid everything is computed on. K: (B, 3, 3) of the input.
    sigma: (B, 1, h', w') px, the network's expected error of ``flow_12``, where it tells one.

    Both predictions of a pair share one gain, so that L_d also asks the two images for one scale (the paper gives each
    its own).
    """
    height, width = inverse_depth_1.shape[2:]
    stride = image_1.shape[3] / width
    flow_12, flow_21 = (resize(flow, height, width) for flow in (flow_12, flow_21))
    points_1 = pixel_grid(height, width, stride, flow_12).expand(len(flow_12), -1, -1, -1)
    points_2 = points_1 + flow_12
    ok = motion.ok[:, None, None, None]

    maps = score_maps(flow_12, flow_21, stride, constants, None if sigma is None else resize(sigma, height, width))
    # At the epipole every line passes through the match: it says nothing there, and does no harm.
    distance = epipolar_distance(fundamental_matrix(K, motion.R, motion.t), points_1, points_2)
    rigid = inlier_score(distance, constants) * ok
    weight = (rigid * maps.score).detach()

    rays = triangulate(points_1, points_2.detach(), K, motion.R, motion.t, constants)
    chosen = rays.usable & inside(points_2.detach(), image_1.shape[2], image_1.shape[3])
    chosen = best_share(weight * chosen, constants.match_share).to(flow_12.dtype)

    depth_1 = 1.0 / inverse_depth_1
    depth_2_there = 1.0 / sample(inverse_depth_2, points_2.detach(), stride)
    both = torch.cat((depth_1, depth_2_there), 2)
    target, twice = torch.cat((rays.depth_1, rays.depth_2), 2), torch.cat((chosen, chosen), 2)
    gain = depth_gain(both, target, twice, constants.gross_ratio)[:, None, None, None]
    fits = (gain * both.detach() / target).log().abs() < math.log(constants.gross_ratio)
    triangulation = triangulation_loss(gain * both, target, twice * fits, constants.least_share)

    # Without triangulated points the unit of the prediction is unknown, and nothing can be reprojected.
    known = triangulation.counts[:, None, None, None]
    there = reproject(gain * depth_1, stride, K, motion.R, motion.t)
    smooth = depth_smoothness(inverse_depth_1, resize(image_1, height, width))
    smooth = smooth + depth_smoothness(inverse_depth_2, resize(image_2, height, width))
    least = constants.least_share
    return {
        "geo": geometric_flow_loss(torch.where(ok, distance, 0.0), constants),
        # Two views, added.
        "triangulation": Term(2.0 * triangulation.value, triangulation.counts),
        "reprojection": reprojection_depth_loss(there, gain / inverse_depth_2, stride, weight * known, least),
        "flow_error": reprojection_flow_loss(flow_12, there, stride, rigid * known, least),
        "depth_smooth": Term(torch.where(triangulation.counts, smooth, 0.0), triangulation.counts),
    }
