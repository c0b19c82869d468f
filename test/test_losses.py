"""The self-supervised losses against slow plain NumPy, their gradients, and what they do with nothing to learn from."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from depth_pose_ros.training import self_supervised as losses  # noqa: E402
from depth_pose_ros.training.self_supervised import LossConstants, Motion, Term  # noqa: E402

C = LossConstants()
H, W = 12, 16


def rng(seed=0):
    return np.random.default_rng(seed)


def tensor(*arrays):
    """Plain (C, H, W) arrays -> batch of doubles."""
    return torch.from_numpy(np.stack(arrays)).double()


def smooth(r, channels, height=H, width=W, cells=4):
    """A random map with structure, so that no gradient is all noise."""
    coarse = r.random((channels, cells, cells))
    y = np.linspace(0, cells - 1, height)
    x = np.linspace(0, cells - 1, width)
    rows = np.stack([[np.interp(y, range(cells), c[:, j]) for j in range(cells)] for c in coarse])
    return np.stack([[np.interp(x, range(cells), row) for row in c.T] for c in rows])


# ---- Plain NumPy, pixel by pixel -------------------------------------------------------------------------------------


def np_bilinear(values, x, y, border):
    """One sample of (C, H, W) at a point in cells."""
    channels, height, width = values.shape
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    out = np.zeros(channels)
    if border:
        x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
        x0, y0 = int(np.floor(x)), int(np.floor(y))
    for i, wy in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
        for j, wx in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
            if 0 <= i < height and 0 <= j < width:
                out += wx * wy * values[:, i, j]
    return out


def np_warp(image, flow):
    out = np.zeros_like(image)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            out[:, i, j] = np_bilinear(image, j + flow[0, i, j], i + flow[1, i, j], border=False)
    return out


def np_visible(flow_21):
    _, height, width = flow_21.shape
    landed = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            x, y = j + flow_21[0, i, j], i + flow_21[1, i, j]
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            for k, wy in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
                for m, wx in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
                    if 0 <= k < height and 0 <= m < width:
                        landed[k, m] += wx * wy
    return np.minimum(landed, 1.0)


def np_score(flow_12, flow_21):
    difference = np.abs(flow_12 + np_warp(flow_21, flow_12))
    limit = np.maximum(3.0, 0.05 * np.sqrt((flow_12**2).sum(0)))
    valid = np_visible(flow_21) * (np.sqrt((difference**2).sum(0)) < limit)
    return valid, valid / (0.1 + difference.mean(0))


def np_ssim(a, b):
    def window(values):
        out = np.zeros_like(values)
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
        for i in range(values.shape[1]):
            for j in range(values.shape[2]):
                out[:, i, j] = padded[:, i : i + 3, j : j + 3].sum((1, 2)) / 9.0
        return out

    ma, mb = window(a), window(b)
    va, vb, cov = window(a * a) - ma**2, window(b * b) - mb**2, window(a * b) - ma * mb
    return (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))


def np_photometric(image_1, image_2, flow, mask):
    warped = np_warp(image_2, flow)
    pixel = (np.abs(image_1 - warped) * mask).mean() / mask.mean()
    structure = np.clip((1 - np_ssim(image_1 * mask, warped * mask)) / 2, 0, 1).mean() / mask.mean()
    return pixel, structure


def np_flow_smoothness(flow, image):
    flow = flow / 20.0
    _, height, width = flow.shape
    total_x, total_y = [], []
    for i in range(height):
        for j in range(1, width - 1):
            edge = np.exp(-10 * np.abs(image[:, i, j + 1] - image[:, i, j]).mean())
            total_x += [edge * abs(f[i, j + 1] - 2 * f[i, j] + f[i, j - 1]) for f in flow]
    for i in range(1, height - 1):
        for j in range(width):
            edge = np.exp(-10 * np.abs(image[:, i + 1, j] - image[:, i, j]).mean())
            total_y += [edge * abs(f[i + 1, j] - 2 * f[i, j] + f[i - 1, j]) for f in flow]
    return (np.mean(total_x) + np.mean(total_y)) / 2


def np_midpoint(p1, p2, K, R, t):
    """Closest points of two rays by least squares on their parameters: not the formula of the code under test."""
    d1, d2 = np.linalg.inv(K) @ [*p1, 1.0], R.T @ np.linalg.inv(K) @ [*p2, 1.0]
    centre = -R.T @ t
    (a1, a2), *_ = np.linalg.lstsq(np.stack([d1, -d2], 1), centre, rcond=None)
    point = (a1 * d1 + centre + a2 * d2) / 2
    return point[2], (R @ point + t)[2]


# ---- A pair of views of a smooth scene -------------------------------------------------------------------------------


def pose(angle=(0.02, -0.03, 0.01), t=(0.9, 0.1, 0.3)):
    from depth_pose_ros.geometry.se3 import so3_exp

    t = np.array(t)
    return so3_exp(np.array(angle)), t / np.linalg.norm(t)


K = np.array([[14.0, 0.0, 7.4], [0.0, 15.0, 5.6], [0.0, 0.0, 1.0]])


def scene(seed=0, noise=0.0, stride=1, far=6.0):
    """Depth of view 1 (1, H, W), exact flow (2, H, W) in px of a grid of ``stride``, and the motion."""
    r = rng(seed)
    R, t = pose()
    depth = far + 3 * smooth(r, 1)
    flow = np.zeros((2, H, W))
    for i in range(H):
        for j in range(W):
            p = np.array([(j + 0.5) * stride - 0.5, (i + 0.5) * stride - 0.5, 1.0])
            q = K @ (R @ (np.linalg.inv(K) @ p * depth[0, i, j]) + t)
            flow[:, i, j] = q[:2] / q[2] - p[:2]
    return depth, flow + noise * r.normal(size=flow.shape), R, t


def motion_of(R, t, count=1, ok=True):
    return Motion(tensor(*[R] * count), tensor(*[t] * count), torch.full((count,), ok))


def grid(stride=1.0):
    return losses.pixel_grid(H, W, stride, torch.zeros(1, dtype=torch.float64))


# ---- Equality with plain NumPy ---------------------------------------------------------------------------------------


def test_visible_mask_is_the_clamped_bilinear_splat():
    flow = 5 * (smooth(rng(1), 2) - 0.5) + 2.0 * rng(2).normal(size=(2, H, W))
    assert np.allclose(losses.visible_mask(tensor(flow), 1.0)[0, 0].numpy(), np_visible(flow), atol=1e-12)


def test_visible_mask_takes_flow_in_input_pixels_of_a_coarser_grid():
    flow = 5 * (smooth(rng(1), 2) - 0.5)
    coarse = losses.visible_mask(tensor(4 * flow), 4.0)
    assert np.allclose(coarse[0, 0].numpy(), np_visible(flow), atol=1e-12)


def test_score_maps():
    forward = 4 * (smooth(rng(3), 2) - 0.3)
    backward = -forward + rng(4).normal(size=forward.shape)
    backward[:, :4] += 5.0  # inconsistent there
    maps = losses.score_maps(tensor(forward), tensor(backward), 1.0, C)
    valid, score = np_score(forward, backward)
    assert 0.1 < (valid > 0).mean() < 0.9
    assert np.allclose(maps.valid[0, 0].numpy(), valid, atol=1e-9)
    assert np.allclose(maps.score[0, 0].numpy(), score, atol=1e-9)


def test_photometric():
    r = rng(5)
    image_1, image_2, mask = smooth(r, 3), smooth(r, 3), r.random((1, H, W)) * (r.random((1, H, W)) > 0.3)
    flow = 4 * (smooth(r, 2) - 0.5)
    pixel, structure = losses.photometric(tensor(image_1), tensor(image_2), tensor(flow), tensor(mask), C)
    expected = np_photometric(image_1, image_2, flow, mask)
    assert pixel.value.item() == pytest.approx(expected[0], rel=1e-9)
    assert structure.value.item() == pytest.approx(expected[1], rel=1e-9)


def test_flow_smoothness():
    flow, image = 20 * smooth(rng(6), 2), smooth(rng(7), 3)
    value = losses.flow_smoothness(tensor(flow), tensor(image), C).item()
    assert value == pytest.approx(np_flow_smoothness(flow, image), rel=1e-9)


def test_flow_terms_sum_directions_and_scales():
    r = rng(8)
    images = [smooth(r, 3), smooth(r, 3)]
    forward = 3 * (smooth(r, 2) - 0.5)
    flows = [forward, -forward + 0.2 * r.normal(size=forward.shape)]
    terms = losses.flow_terms(*map(tensor, images), [tensor(flows[0])], [tensor(flows[1])], C)

    def mean_of_cells(values, k):
        return sum(values[:, i::k, j::k] for i in range(k) for j in range(k)) / k**2

    def centres(values, k):  # bilinear: the four pixels round the centre of a cell
        first, second = slice(max(k // 2 - 1, 0), None, k), slice(k // 2, None, k)
        return sum(values[:, i][:, :, j] for i in (first, second) for j in (first, second)) / 4

    expected = np.zeros(3)
    for k in (1, 2, 4):
        pooled = [mean_of_cells(image, k) for image in images]
        resized = [centres(flow, k) / k for flow in flows]
        for a, b in ((0, 1), (1, 0)):
            mask = np_score(resized[a], resized[b])[0][None]
            expected += (
                *np_photometric(pooled[a], pooled[b], resized[a], mask),
                np_flow_smoothness(resized[a], pooled[a]),
            )
    actual = [terms[name].value.item() for name in ("pixel", "ssim", "flow_smooth")]
    assert actual == pytest.approx(expected, rel=1e-9)


def test_epipolar_distance_score_and_ring():
    _, flow, R, t = scene(noise=0.25)
    F = losses.fundamental_matrix(tensor(K), tensor(R), tensor(t))
    distance = losses.epipolar_distance(F, grid(), grid() + tensor(flow))[0, 0].numpy()
    K_inv, tx = np.linalg.inv(K), np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    for i in range(H):
        for j in range(W):
            line = K_inv.T @ tx @ R @ K_inv @ [j, i, 1.0]
            q = np.array([j + flow[0, i, j], i + flow[1, i, j], 1.0])
            assert distance[i, j] == pytest.approx(abs(q @ line) / np.hypot(*line[:2]), rel=1e-8)
    score = losses.inlier_score(torch.from_numpy(distance), C).numpy()
    assert np.allclose(score, np.where(distance < 0.5, 1 / (1 + distance), 0.0))
    ring = distance[(distance >= 0.1) & (distance < 0.5)]
    assert losses.geometric_flow_loss(torch.from_numpy(distance)[None, None], C).value.item() == pytest.approx(
        ring.mean()
    )


def test_triangulation_meets_in_the_middle_of_both_rays():
    _, flow, R, t = scene(noise=0.1)
    found = losses.triangulate(grid(), grid() + tensor(flow), tensor(K), tensor(R), tensor(t), C)
    assert found.usable.float().mean() > 0.9
    for i, j in np.argwhere(found.usable[0, 0].numpy()):
        z1, z2 = np_midpoint((j, i), (j + flow[0, i, j], i + flow[1, i, j]), K, R, t)
        assert found.depth_1[0, 0, i, j].item() == pytest.approx(z1, rel=1e-6)
        assert found.depth_2[0, 0, i, j].item() == pytest.approx(z2, rel=1e-6)


def test_triangulation_of_exact_matches_is_the_depth():
    depth, flow, R, t = scene()
    found = losses.triangulate(grid(), grid() + tensor(flow), tensor(K), tensor(R), tensor(t), C)
    assert found.usable.all()
    assert np.allclose(found.depth_1[0].numpy(), depth, rtol=1e-9)


def test_triangulation_leaves_out_diverging_and_parallel_rays():
    _, flow, R, t = scene()
    far = scene(far=1e6)[1]  # sine of the parallax 1e-6
    assert not losses.triangulate(grid(), grid() + tensor(far), tensor(K), tensor(R), tensor(t), C).usable.any()
    # With the translation turned round the same matches diverge.
    assert not losses.triangulate(grid(), grid() + tensor(flow), tensor(K), tensor(R), -tensor(t), C).usable.any()


def test_depth_gain_is_the_least_squares_gain():
    r = rng(9)
    target, weight = 2 + r.random((1, H, W)), (r.random((1, H, W)) > 0.4).astype(float)
    depth = 7.0 * target * (1 + 0.2 * r.normal(size=target.shape))
    ratio = (depth / target)[weight > 0]
    expected = ratio.sum() / (ratio**2).sum()
    actual = losses.depth_gain(tensor(depth), tensor(target), tensor(weight), C.gross_ratio).item()
    assert actual == pytest.approx(expected, rel=1e-9)
    assert np.mean((1 - expected * ratio) ** 2) < min(np.mean((1 - g * expected * ratio) ** 2) for g in (0.99, 1.01))


def test_depth_gain_is_not_drawn_by_gross_errors():
    target = 2 + rng(9).random((1, H, W))
    depth = 7.0 * target
    depth[:, 0] *= 100.0
    gain = losses.depth_gain(tensor(depth), tensor(target), torch.ones(1, 1, H, W), C.gross_ratio).item()
    assert gain == pytest.approx(1 / 7.0, rel=1e-9)


def test_triangulation_loss():
    r = rng(10)
    depth, target, weight = 2 + r.random((1, H, W)), 2 + r.random((1, H, W)), (r.random((1, H, W)) > 0.4).astype(float)
    term = losses.triangulation_loss(tensor(depth), tensor(target), tensor(weight), C.least_share)
    assert term.value.item() == pytest.approx(np.mean((1 - depth / target)[weight > 0] ** 2), rel=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
def test_reprojection_losses(stride):
    r = rng(11)
    depth, flow, R, t = scene(noise=0.3, stride=stride)
    predicted, inverse_2 = depth * (1 + 0.1 * smooth(r, 1)), 1 / (depth * (1 + 0.2 * smooth(r, 1)))
    rigid, score = r.random((1, H, W)) * (r.random((1, H, W)) > 0.3), r.random((1, H, W))
    there = losses.reproject(tensor(predicted), stride, tensor(K), tensor(R), tensor(t))
    l_pd = losses.reprojection_depth_loss(there, 1 / tensor(inverse_2), stride, tensor(rigid * score), 0.0)
    l_pf = losses.reprojection_flow_loss(tensor(flow), there, stride, tensor(rigid), 0.0)

    sums = np.zeros(4)
    for i in range(H):
        for j in range(W):
            p = np.array([(j + 0.5) * stride - 0.5, (i + 0.5) * stride - 0.5, 1.0])
            X = R @ (np.linalg.inv(K) @ p * predicted[0, i, j]) + t
            q = (K @ X)[:2] / X[2]
            sums += (0, 0, rigid[0, i, j] * np.abs(flow[:, i, j] + p[:2] - q).mean(), rigid[0, i, j])
            if 0 < q[0] < W * stride - 1 and 0 < q[1] < H * stride - 1:
                x, y = (q + 0.5) / stride - 0.5
                seen = 1 / np_bilinear(inverse_2, x, y, border=True)[0]
                weight = rigid[0, i, j] * score[0, i, j]
                sums += (weight * abs(1 - X[2] / seen), weight, 0, 0)
    assert l_pd.value.item() == pytest.approx(sums[0] / sums[1], rel=1e-6)
    assert l_pf.value.item() == pytest.approx(sums[2] / sums[3], rel=1e-6)


def test_depth_smoothness():
    r = rng(12)
    inverse, image = 0.1 + smooth(r, 1), smooth(r, 3)
    disparity = inverse[0] / inverse.mean()
    expected = 0.0
    for axis in (0, 1):
        edge = np.exp(-np.abs(np.diff(image, axis=axis + 1)).mean(0))
        expected += (np.abs(np.diff(disparity, axis=axis)) * edge).mean()
    assert losses.depth_smoothness(tensor(inverse), tensor(image)).item() == pytest.approx(expected, rel=1e-9)


def test_best_share_keeps_the_best_of_those_that_have_a_score():
    score = torch.zeros(2, 1, 4, 5)
    score[0].view(-1)[:] = torch.arange(20)
    score[1, 0, 0, :2] = 1.0
    kept = losses.best_share(score, 0.2)
    assert kept[0].flatten().nonzero().flatten().tolist() == [16, 17, 18, 19]
    assert kept[1].sum() == 2


def plane(stride=1, tilt=1.0):
    """Depth of both views of one plane, each on its own grid, and the exact flow both ways."""
    R, t = pose()
    normal, offset = np.array([0.3 * tilt, 0.5, 1.0]), 6.0
    pixels = grid(stride)[0].reshape(2, -1).numpy()
    rays = np.linalg.inv(K) @ np.vstack([pixels, np.ones(H * W)])
    normal_2 = R @ normal
    depths = offset / (normal @ rays), (offset + normal_2 @ t) / (normal_2 @ rays)
    there = R @ (rays * depths[0]) + t[:, None], R.T @ (rays * depths[1] - t[:, None])
    flows = [(K @ X)[:2] / X[2] - pixels for X in there]
    return [d.reshape(1, H, W) for d in depths], [f.reshape(2, H, W) for f in flows], R, t


@pytest.mark.parametrize("stride", [1, 2])
def test_true_depth_costs_nothing_and_a_wrong_shape_costs(stride):
    """In any unit, as long as both views share it."""
    depth, flow, R, t = plane(stride)
    image = torch.nn.functional.interpolate(tensor(smooth(rng(13), 3)), scale_factor=stride)
    flows = [tensor(f) for f in flow]
    true = geometry(image, *flows, tensor(0.2 / depth[0]), tensor(0.2 / depth[1]), R, t)
    assert true["triangulation"].counts.all()
    assert true["geo"].value.item() == 0
    for name in ("triangulation", "reprojection", "flow_error"):
        # Outside the outer cell centres of a coarse grid the nearest value stands for the plane.
        assert true[name].value.item() < (1e-6 if stride == 1 else 1e-4), name
    tilted = [d * np.linspace(0.8, 1.25, W) for d in depth]
    wrong_shape = geometry(image, *flows, *(tensor(0.2 / d) for d in tilted), R, t)
    wrong_unit = geometry(image, *flows, tensor(0.2 / depth[0]), tensor(0.3 / depth[1]), R, t)
    for wrong in (wrong_shape, wrong_unit):
        assert wrong["triangulation"].value.item() > 1e-3
        assert wrong["reprojection"].value.item() > 1e-2


def geometry(image, flow_12, flow_21, inverse_1, inverse_2, R, t, ok=True):
    count = len(flow_12)
    return losses.geometry_terms(
        image, image, flow_12, flow_21, inverse_1, inverse_2, tensor(*[K] * count), motion_of(R, t, count, ok), C
    )


# ---- Gradients -------------------------------------------------------------------------------------------------------


def leaf(values):
    return values.clone().requires_grad_(True)


def check(function, *inputs):
    """Analytic against numerical gradient, in doubles; steps small enough to stay between the kinks of |x|."""
    assert torch.autograd.gradcheck(function, [leaf(i) for i in inputs], eps=1e-7, atol=1e-5, fast_mode=True)


def test_gradient_of_photometric():
    r = rng(20)
    image_1, image_2, mask = (tensor(smooth(r, c)) for c in (3, 3, 1))
    flow = tensor(3 * (smooth(r, 2) - 0.5))
    check(lambda f: losses.photometric(image_1, image_2, f, mask, C)[0].value, flow)
    check(lambda f: losses.photometric(image_1, image_2, f, mask, C)[1].value, flow)


def test_gradient_of_smoothness():
    image = tensor(smooth(rng(21), 3))
    check(lambda f: losses.flow_smoothness(f, image, C), tensor(5 * rng(22).random((2, H, W))))
    check(lambda d: losses.depth_smoothness(d, image), tensor(0.1 + rng(23).random((1, H, W))))


def test_gradient_of_epipolar_distance():
    _, flow, R, t = scene(noise=0.3)
    F = losses.fundamental_matrix(tensor(K), tensor(R), tensor(t))
    check(lambda f: losses.geometric_flow_loss(losses.epipolar_distance(F, grid(), grid() + f), C).value, tensor(flow))


def test_gradient_of_depth_losses():
    depth, flow, R, t = scene(noise=0.3)
    r = rng(24)
    target, weight = tensor(depth), tensor(r.random((1, H, W)))
    predicted, other = tensor(depth * (1 + 0.2 * smooth(r, 1))), tensor(depth * (1 + 0.2 * smooth(r, 1)))
    check(lambda d: losses.triangulation_loss(d, target, weight, 0.0).value, predicted)

    def reprojection(d1, d2):
        there = losses.reproject(d1, 1, tensor(K), tensor(R), tensor(t))
        return losses.reprojection_depth_loss(there, d2, 1, weight, 0.0).value

    check(reprojection, predicted, other)
    there = losses.reproject(predicted, 1, tensor(K), tensor(R), tensor(t))
    check(lambda f: losses.reprojection_flow_loss(f, there, 1, weight, 0.0).value, tensor(flow))


def test_flow_error_trains_the_flow_alone():
    depth, flow, R, t = scene(noise=0.3)
    inverse, moved = leaf(tensor(1 / depth)), leaf(tensor(flow))
    image = tensor(smooth(rng(25), 3))
    terms = geometry(image, moved, -moved.detach(), inverse, tensor(1 / depth), R, t)
    by_depth, by_flow = torch.autograd.grad(terms["flow_error"].mean(), (inverse, moved), allow_unused=True)
    assert by_depth is None
    assert by_flow.abs().sum() > 0


def test_depth_losses_train_the_depth_alone():
    depth, flow, R, t = scene(noise=0.3)
    inverse, moved = leaf(tensor(1 / (depth * np.linspace(0.8, 1.2, W)))), leaf(tensor(flow))
    terms = geometry(tensor(smooth(rng(25), 3)), moved, -moved.detach(), inverse, tensor(1 / depth), R, t)
    for name in ("triangulation", "reprojection"):
        by_depth, by_flow = torch.autograd.grad(
            terms[name].mean(), (inverse, moved), allow_unused=True, retain_graph=True
        )
        assert by_depth.abs().sum() > 0, name
        assert by_flow is None, name


def test_scale_of_the_depth_is_free():
    """No term pulls the network's unit: the gradient along a common factor of both predictions vanishes."""
    depth, flow, R, t = scene(noise=0.3)
    log_scale = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    inverse = [tensor(1 / (depth * (1 + 0.3 * smooth(rng(s), 1)))) * torch.exp(log_scale) for s in (30, 31)]
    terms = geometry(tensor(smooth(rng(32), 3)), tensor(flow), -tensor(flow), *inverse, R, t)
    (slope,) = torch.autograd.grad(terms["triangulation"].mean(), log_scale)
    assert abs(slope.item()) < 1e-6


# ---- Nothing to learn from -------------------------------------------------------------------------------------------


def degenerate(kind):
    """A pair that must not count for depth: flow both ways, inverse depth, motion."""
    depth, flow, R, t = scene(noise=0.1)
    forward, backward, inverse, ok = tensor(flow), -tensor(flow), tensor(1 / depth), True
    if kind == "no motion found":
        ok = False
    elif kind == "standing still":
        forward, backward = torch.zeros_like(forward), torch.zeros_like(forward)
        R, t = np.eye(3), np.array([1.0, 0.0, 0.0])
    elif kind == "all out of view":
        forward, backward = forward + 1000.0, backward - 1000.0
    elif kind == "inconsistent":
        backward = backward + 50.0
    elif kind == "not finite":
        forward = torch.full_like(forward, float("nan"))
    elif kind == "infinite":
        forward, backward = torch.full_like(forward, float("inf")), torch.full_like(forward, float("-inf"))
    elif kind == "wrong way":
        t = -t
    return forward, backward, inverse, R, t, ok


DEGENERATE = [
    "no motion found",
    "standing still",
    "all out of view",
    "inconsistent",
    "not finite",
    "infinite",
    "wrong way",
]


@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_pair_is_skipped_and_the_others_count(kind):
    good_forward, good_backward, good_inverse, R, t, _ = degenerate("none")
    forward, backward, inverse, bad_R, bad_t, ok = degenerate(kind)
    image = tensor(smooth(rng(40), 3))

    def run(pairs):
        f, b, i = (torch.cat([p[k] for p in pairs]) for k in range(3))
        i = leaf(i)
        f = leaf(f)
        motion = Motion(
            tensor(*[p[3] for p in pairs]), tensor(*[p[4] for p in pairs]), torch.tensor([p[5] for p in pairs])
        )
        images = image.expand(len(f), -1, -1, -1)
        terms = losses.geometry_terms(images, images, f, b, i, i, tensor(*[K] * len(f)), motion, C)
        return terms, i, f

    good = (good_forward, good_backward, good_inverse, R, t, True)
    alone, alone_inverse, _ = run([good])
    mixed, mixed_inverse, mixed_flow = run([good, (forward, backward, inverse, bad_R, bad_t, ok)])
    assert mixed["triangulation"].counts.tolist() == [True, False]
    for name in ("triangulation", "reprojection", "depth_smooth"):
        assert mixed[name].mean().item() == pytest.approx(alone[name].mean().item(), rel=1e-9), name
    loss = sum(term.mean() for term in mixed.values())
    by_depth, by_flow = torch.autograd.grad(loss, (mixed_inverse, mixed_flow))
    assert torch.isfinite(by_depth).all()
    assert torch.isfinite(by_flow).all()
    assert by_depth[1].abs().sum() == 0
    (reference,) = torch.autograd.grad(sum(term.mean() for term in alone.values()), alone_inverse)
    assert torch.allclose(by_depth[:1], reference, atol=1e-9)


@pytest.mark.parametrize("kind", ["all out of view", "inconsistent", "not finite", "infinite"])
def test_flow_terms_skip_a_pair_without_matches(kind):
    good_forward, good_backward, *_ = degenerate("none")
    forward, backward, *_ = degenerate(kind)
    image_1, image_2 = tensor(smooth(rng(41), 3)), tensor(smooth(rng(42), 3))
    f, b = leaf(torch.cat((good_forward, forward))), leaf(torch.cat((good_backward, backward)))
    both = [image.expand(2, -1, -1, -1) for image in (image_1, image_2)]
    terms = losses.flow_terms(*both, [f], [b], C)
    alone = losses.flow_terms(image_1, image_2, [good_forward], [good_backward], C)
    for name, term in terms.items():
        assert term.counts.tolist() == [True, False]
        assert term.mean().item() == pytest.approx(alone[name].mean().item(), rel=1e-9)
    for gradient in torch.autograd.grad(sum(term.mean() for term in terms.values()), (f, b)):
        assert torch.isfinite(gradient).all()
        assert gradient[0].abs().sum() > 0


def test_batch_without_any_usable_pair_gives_zero_with_a_gradient():
    forward, backward, inverse, R, t, ok = degenerate("no motion found")
    inverse = leaf(inverse)
    terms = geometry(tensor(smooth(rng(43), 3)), forward, backward, inverse, inverse, R, t, ok)
    loss = sum(term.mean() for term in terms.values())
    (gradient,) = torch.autograd.grad(loss, inverse)
    assert loss.item() == 0
    assert (gradient == 0).all()


def test_mean_of_a_term_is_over_the_pairs_that_count():
    term = Term(torch.tensor([2.0, 0.0, 4.0]), torch.tensor([True, False, True]))
    assert term.mean().item() == 3.0
