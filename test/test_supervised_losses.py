"""Stage A's losses against slow plain NumPy, and their gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from depth_pose_ros.training.supervised import (  # noqa: E402
    MOST_OFF,
    OCCLUDED_WEIGHT,
    depth_loss,
    flow_loss,
    pair_loss,
    pyramid_flow_loss,
)

H, W = 16, 32
N8 = (H // 8) * (W // 8)


def tensor(values):
    return torch.from_numpy(np.ascontiguousarray(values)).double()


def world(seed=0):
    """A depth image (2, 1, H, W) with sky and unknown pixels, and a prediction (2, 1, H/2, W/2) of its inverse."""
    r = np.random.default_rng(seed)
    depth = np.exp(r.normal(1.0, 0.7, (2, 1, H, W)))
    depth[0, 0, :5] = np.inf
    depth[:, :, 9, 4:20] = 0.0
    predicted = np.exp(r.normal(1.2, 0.7, (2, 1, H // 2, W // 2)))
    predicted[1, 0, 3, 3] = 300.0  # so far off that more does not count for more
    return depth, 1.0 / predicted


def np_depth_terms(inverse, depth):
    """The terms, pixel by pixel."""
    shape, absolute, sky, abs_rel, delta_1 = [], [], [], [], []
    maps = []
    for d, i in zip(depth[:, 0, ::2, ::2], inverse[:, 0], strict=True):
        known = np.isfinite(d) & (d > 0)
        error = np.zeros_like(d)
        for y, x in zip(*np.nonzero(known), strict=True):
            error[y, x] = np.log(1.0 / i[y, x]) - np.log(d[y, x])
        mean = error[known].mean()
        # torch's median of an even number is the lower of the middle two
        median = np.sort(error[known])[(known.sum() - 1) // 2]
        for e in error[known]:
            off = e - mean
            shape.append(0.5 * abs(off) + 0.5 * abs(np.exp(min(off, MOST_OFF)) - 1.0))
            absolute.append(abs(e))
            abs_rel.append(abs(np.exp(e - median) - 1.0))
            delta_1.append(np.exp(abs(e - median)) < 1.25)
        sky += [max(np.log(120.0) + np.log(v), 0.0) for v in i[np.isinf(d)]]
        maps.append((error, known))
    gradient = 0.0
    for _ in range(4):
        for dy, dx in ((1, 0), (0, 1)):
            steps = []
            for error, known in maps:
                for y in range(error.shape[0] - dy):
                    for x in range(error.shape[1] - dx):
                        if known[y, x] and known[y + dy, x + dx]:
                            steps.append(abs(error[y + dy, x + dx] - error[y, x]))
            gradient += np.mean(steps) if steps else 0.0
        if min(maps[0][0].shape) < 4:
            break
        maps = [(error[::2, ::2], known[::2, ::2]) for error, known in maps]
    terms = {"shape": shape, "absolute": absolute, "sky": sky, "abs_rel": abs_rel, "delta_1": delta_1}
    terms = {name: np.mean(values) for name, values in terms.items()} | {"gradient": gradient}
    loss = 0.7 * terms["shape"] + 0.3 * terms["absolute"] + 0.2 * terms["sky"] + 0.25 * gradient
    return terms | {"loss": loss}


def test_depth_loss_is_that_of_plain_numpy():
    depth, inverse = world()
    terms = depth_loss(tensor(inverse), tensor(depth))
    expected = np_depth_terms(inverse, depth)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-6), name


def test_pair_loss_is_that_of_plain_numpy():
    depth, inverse = (np.concatenate([a, b]) for a, b in zip(world(3), world(4), strict=True))
    depth[3, 0, :, 8:] = 0.0  # the second pair: too little is known in one of its images
    means = []
    for d, i in zip(depth[:, 0, ::2, ::2], inverse[:, 0], strict=True):
        known = np.isfinite(d) & (d > 0)
        means.append(np.mean(np.log(1.0 / i[known]) - np.log(d[known])))
    assert float(pair_loss(tensor(inverse), tensor(depth))) == pytest.approx(abs(means[0] - means[1]), rel=1e-6)
    assert float(pair_loss(tensor(inverse[2:]), tensor(depth[2:]))) == 0.0


def test_gradient_of_depth_loss():
    depth, inverse = world(1)
    loss = lambda i: depth_loss(i, tensor(depth))["loss"] + pair_loss(i, tensor(depth))  # noqa: E731
    leaf = tensor(inverse).requires_grad_()
    assert torch.autograd.gradcheck(loss, [leaf], eps=1e-8, atol=1e-5, fast_mode=True)


def test_an_image_without_known_depth_teaches_nothing():
    depth, inverse = world(2)
    depth[:] = 0.0
    leaf = tensor(inverse).requires_grad_()
    (depth_loss(leaf, tensor(depth))["loss"] + pair_loss(leaf, tensor(depth))).backward()
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def matched(seed=0):
    """What MatchingFlow.match_all gives for a batch of one pair of H x W, and the truth of it."""
    r = np.random.default_rng(seed)
    field = lambda stride, channels=2, size=4.0: r.normal(0, size, (2, channels, H // stride, W // stride))  # noqa: E731
    out = {
        "similarity": r.normal(0, 1, (1, N8, N8)),
        "flow_8": field(8),
        "matched_4": field(4),
        "flow_4": field(4),
        "flow": field(4),
        "log_sigma": field(4, 1, 1.0),
    }
    forward, backward = r.normal(0, 5, (2, 1, 2, H, W))
    hidden_1, hidden_2 = (r.random((2, 1, 1, H, W)) < 0.15).astype(float)
    return out, (forward, backward, hidden_1, hidden_2)


def np_cells(values, stride):
    """(C, H, W) -> (C, h, w): the mean of the four pixels around the centre of each cell."""
    out = np.zeros((len(values), values.shape[1] // stride, values.shape[2] // stride))
    for i, j in np.ndindex(out.shape[1:]):
        y, x = stride * i + stride // 2 - 1, stride * j + stride // 2 - 1
        out[:, i, j] = values[:, y : y + 2, x : x + 2].mean((1, 2))
    return out


def np_cross_entropy(similarity, truth, visible):
    """Cells of image 1 against all cells of image 2; (N, N), (2, h, w), (h, w)."""
    _, height, width = truth.shape
    losses = []
    for i, j in np.ndindex(height, width):
        x, y = j + truth[0, i, j] / 8.0, i + truth[1, i, j] / 8.0
        if not visible[i, j] or not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            continue
        row = similarity[i * width + j]
        logp = row - np.log(np.exp(row).sum())
        for v, u in np.ndindex(height, width):
            share = max(0.0, 1 - abs(u - x)) * max(0.0, 1 - abs(v - y))
            logp_here = logp[v * width + u]
            losses.append((i, j, -share * logp_here))
    cells = {(i, j) for i, j, _ in losses}
    return sum(value for *_, value in losses) / max(len(cells), 1e-6)


def np_flow_terms(out, forward, backward, hidden_1, hidden_2):
    truths, hiddens = (forward[0], backward[0]), (hidden_1[0], hidden_2[0])
    similarity = out["similarity"][0]
    sums = {name: [0.0, 0.0] for name in ("flow_8", "matched_4", "flow_4", "flow", "sigma", "epe", "under_1px")}

    def add(name, value, weight):
        sums[name][0] += weight * value
        sums[name][1] += weight

    cells = []
    for k, (truth, hidden) in enumerate(zip(truths, hiddens, strict=True)):
        truth_8, hidden_8 = np_cells(truth, 8), np_cells(hidden, 8)[0] > 0.25
        cells.append(np_cross_entropy(similarity.T if k else similarity, truth_8, ~hidden_8))
        for i, j in np.ndindex(hidden_8.shape):
            error = np.linalg.norm(out["flow_8"][k][:, i, j] - truth_8[:, i, j])
            add("flow_8", (error / 8 + 0.01) ** 0.6, OCCLUDED_WEIGHT if hidden_8[i, j] else 1.0)
        truth_4, hidden_4 = np_cells(truth, 4), np_cells(hidden, 4)[0] > 0.25
        for i, j in np.ndindex(hidden_4.shape):
            # Twice as fine, bilinear between the centres of the cells.
            y, x = (np.clip((c + 0.5) / 2 - 0.5, 0, n - 1) for c, n in zip((i, j), hidden_8.shape, strict=True))
            y0, x0 = int(min(y, hidden_8.shape[0] - 2)), int(min(x, hidden_8.shape[1] - 2))
            f, ay, ax = out["flow_8"][k], y - y0, x - x0
            coarse = (1 - ay) * ((1 - ax) * f[:, y0, x0] + ax * f[:, y0, x0 + 1])
            coarse = coarse + ay * ((1 - ax) * f[:, y0 + 1, x0] + ax * f[:, y0 + 1, x0 + 1])
            true, seen = truth_4[:, i, j], not hidden_4[i, j]
            weight = 1.0 if seen else OCCLUDED_WEIGHT
            errors = {n: np.linalg.norm(out[n][k][:, i, j] - true) for n in ("matched_4", "flow_4", "flow")}
            if seen and np.abs(coarse - true).max() < 7.0:
                add("matched_4", (errors["matched_4"] / 4 + 0.01) ** 0.6, 1.0)
            for name in ("flow_4", "flow"):
                add(name, (errors[name] / 4 + 0.01) ** 0.6, weight)
            log_sigma = np.clip(out["log_sigma"][k][0, i, j], -4, 6)
            add("sigma", errors["flow"] * np.exp(-log_sigma) + log_sigma, weight)
            add("epe", errors["flow"], float(seen))
            add("under_1px", float(errors["flow"] < 1), float(seen))
    terms = {name: total / weight for name, (total, weight) in sums.items()} | {"cells": np.mean(cells)}
    parts = {"cells": 0.5, "flow_8": 1.0, "matched_4": 1.0, "flow_4": 2.0, "flow": 4.0, "sigma": 0.1}
    return terms | {"loss": sum(factor * terms[name] for name, factor in parts.items())}


def test_flow_loss_is_that_of_plain_numpy():
    out, truth = matched()
    terms = flow_loss({name: tensor(value) for name, value in out.items()}, *map(tensor, truth))
    expected = np_flow_terms(out, *truth)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("learned", ["similarity", "flow_8", "matched_4", "flow_4", "flow"])
def test_gradient_of_flow_loss(learned):
    """Sigma's own term holds the error of the flow fixed, so it is left out where the flow is what learns."""
    out, truth = matched(1)
    rest = {name: tensor(value) for name, value in out.items()}

    def loss(value):
        terms = flow_loss(rest | {learned: value}, *map(tensor, truth))
        return terms["loss"] - 0.1 * terms["sigma"]

    leaf = tensor(out[learned]).requires_grad_()
    assert torch.autograd.gradcheck(loss, [leaf], eps=1e-7, atol=1e-5, fast_mode=True)


def test_sigma_learns_how_far_the_flow_is_off():
    """The likelihood is best where sigma is the error: its gradient is 0 there."""
    out, truth = matched(2)
    true_4 = np.stack([np_cells(t[0], 4) for t in truth[:2]])
    out["log_sigma"] = np.log(np.sqrt(np.square(out["flow"] - true_4).sum(1, keepdims=True) + 1e-8))
    tensors = {name: tensor(value) for name, value in out.items()}
    tensors["log_sigma"].requires_grad_()
    flow_loss(tensors, *map(tensor, truth))["sigma"].backward()
    assert float(tensors["log_sigma"].grad.abs().max()) < 1e-6


def test_pyramid_flow_loss_is_that_of_plain_numpy():
    out, (forward, backward, hidden_1, hidden_2) = matched(3)
    flows = [out["flow_4"], out["flow_8"]]
    levels, ends = [], []
    for flow, stride in zip(flows, (4, 8), strict=True):
        total = weights = 0.0
        for k, (truth, hidden) in enumerate(((forward[0], hidden_1[0]), (backward[0], hidden_2[0]))):
            true, unseen = np_cells(truth, stride), np_cells(hidden, stride)[0] > 0.25
            for i, j in np.ndindex(unseen.shape):
                error = np.linalg.norm(flow[k][:, i, j] - true[:, i, j])
                weight = OCCLUDED_WEIGHT if unseen[i, j] else 1.0
                total, weights = total + weight * (error / 4 + 0.01) ** 0.6, weights + weight
                if stride == 4 and not unseen[i, j]:
                    ends.append(error)
        levels.append(total / weights)
    terms = pyramid_flow_loss([tensor(f) for f in flows], *map(tensor, (forward, backward, hidden_1, hidden_2)))
    assert float(terms["loss"]) == pytest.approx(np.mean(levels), rel=1e-5)
    assert float(terms["epe"]) == pytest.approx(np.mean(ends), rel=1e-5)
    assert float(terms["under_1px"]) == pytest.approx(np.mean(np.array(ends) < 1), rel=1e-6)
