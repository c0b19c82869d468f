"""The paper's networks and their two building blocks, against slow and plain references."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_weights import he_weights

from depth_pose_ros.networks.correlation import local_correlation
from depth_pose_ros.networks.paper_depth import PaperDepth, PaperDepthConfig
from depth_pose_ros.networks.paper_flow import PaperFlow, PaperFlowConfig
from depth_pose_ros.networks.warp import warp

SMALL_FLOW = PaperFlowConfig(
    pyramid=(6, 8, 10, 12, 14, 18), decoder=(16, 14, 12, 10, 8), context=(12, 14, 12, 10, 8, 6)
)
SMALL_DEPTH = PaperDepthConfig(encoder=(8, 8, 12, 16, 20), decoder=(16, 12, 10, 8, 6))


pytestmark = pytest.mark.usefixtures("one_thread")


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def random_images(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, height // 8, width // 8), generator=generator)
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


# Correlation


def slow_correlation(a, b, radius):
    """Written out: channel (dy, dx), dy slow, is the dot product with the feature (dy, dx) away, zero outside."""
    batch, _, height, width = a.shape
    window = 2 * radius + 1
    out = np.zeros((batch, window * window, height, width))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            for y in range(height):
                for x in range(width):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        k = (dy + radius) * window + dx + radius
                        out[:, k, y, x] = (a[:, :, y, x] * b[:, :, y + dy, x + dx]).sum(1)
    return out


@pytest.mark.parametrize("radius", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (6, 16), (3, 21)])
def test_correlation_equals_the_written_out_one(radius, height, width):
    a, b = np.random.default_rng(radius).normal(size=(2, 2, 5, height, width))
    actual = local_correlation(torch.tensor(a), torch.tensor(b), radius).numpy()
    np.testing.assert_allclose(actual, slow_correlation(a, b, radius), atol=1e-12)


def test_correlation_in_single_precision():
    a, b = np.random.default_rng(0).normal(size=(2, 1, 32, 12, 20))
    actual = local_correlation(torch.tensor(a).float() / 32, torch.tensor(b).float(), 4).numpy()
    np.testing.assert_allclose(actual, slow_correlation(a, b, 4) / 32, atol=1e-6)


def test_correlation_peaks_where_the_image_went():
    a = torch.randn((1, 16, 20, 24), generator=torch.Generator().manual_seed(0))
    a = a / a.norm(dim=1, keepdim=True)
    b = torch.roll(a, (3, -2), (2, 3))  # image 2 is moved 3 down and 2 left: flow (-2, 3)
    best = local_correlation(a, b, 4).argmax(1)[0, 5:15, 5:15]
    assert (best == (3 + 4) * 9 + (-2 + 4)).all()


def test_correlation_gradient():
    a, b = torch.randn((2, 1, 3, 4, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a.requires_grad_(True)
    b.requires_grad_(True)
    torch.autograd.gradcheck(lambda x, y: local_correlation(x, y, 2), (a, b))


# Warp


def slow_warp(values, flow):
    """out(p) = values(p + flow(p)): bilinear, corners outside the image count as zero."""
    _, height, width = values.shape
    out = np.zeros_like(values)
    for y in range(height):
        for x in range(width):
            u, v = x + flow[0, y, x], y + flow[1, y, x]
            for j in (int(np.floor(v)), int(np.floor(v)) + 1):
                for i in (int(np.floor(u)), int(np.floor(u)) + 1):
                    if 0 <= i < width and 0 <= j < height:
                        out[:, y, x] += (1 - abs(u - i)) * (1 - abs(v - j)) * values[:, j, i]
    return out


def test_warp_equals_the_written_out_one():
    rng = np.random.default_rng(0)
    values, flow = rng.normal(size=(3, 11, 17)), rng.normal(scale=4.0, size=(2, 11, 17))
    actual = warp(torch.tensor(values)[None].float(), torch.tensor(flow)[None].float())[0].numpy()
    np.testing.assert_allclose(actual, slow_warp(values, flow), atol=2e-5)


def test_warp_by_whole_pixels_moves_pixels_exactly():
    values = torch.randn((1, 2, 9, 832), generator=torch.Generator().manual_seed(0))
    flow = torch.zeros((1, 2, 9, 832))
    flow[:, 0], flow[:, 1] = 5.0, -2.0
    warped = warp(values, flow)
    torch.testing.assert_close(warped[:, :, 2:, :-5], values[:, :, :-2, 5:], atol=5e-4, rtol=0)
    assert (warped[:, :, :2] == 0).all()


def test_warp_samples_half_precision_features_at_exact_places():
    """At x = 800 an fp16 coordinate would be rounded to half pixels."""
    ramp = (torch.arange(832.0) % 2).expand(1, 1, 4, 832)
    flow = torch.zeros((1, 2, 4, 832))
    flow[:, 0] = 0.125
    warped = warp(ramp.half(), flow)
    assert warped.dtype == torch.float16
    torch.testing.assert_close(warped[..., 800], torch.full((1, 1, 4), 0.125).half(), atol=1e-3, rtol=0)


# FlowNet


def test_flow_net_has_the_papers_parameters():
    assert parameters(PaperFlow()) == 5_134_324


def reference_flow(weights, image_1, image_2, radius=4):
    """TrianFlow's FlowNet from its description, forward only: flow at 1/4, 1/8, 1/16, 1/32 in cells of each level."""

    def conv(x, name, stride=1, dilation=1, leaky=True):
        y = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, dilation, dilation)
        return torch.where(y > 0, y, 0.1 * y) if leaky else y

    def features(x):
        levels = []
        for i in range(6):
            x = conv(conv(x, f"pyramid.{i}.0", stride=2), f"pyramid.{i}.1")
            levels.append(x)
        return levels

    def cost_volume(a, b):
        height, width = a.shape[2:]
        b = F.pad(b, [radius] * 4)
        shifts = [(dy, dx) for dy in range(2 * radius + 1) for dx in range(2 * radius + 1)]
        return torch.stack([(a * b[:, :, dy : dy + height, dx : dx + width]).mean(1) for dy, dx in shifts], 1)

    def pixel_exact_warp(x, flow):
        height, width = x.shape[2:]
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack([2 * (u + flow[:, 0]) / (width - 1) - 1, 2 * (v + flow[:, 1]) / (height - 1) - 1], -1)
        return F.grid_sample(x, grid, "bilinear", "zeros", align_corners=True)

    first, second = features(image_1), features(image_2)
    flows, up = [], None
    for i, level in enumerate((5, 4, 3, 2, 1)):
        if up is None:
            x = cost_volume(first[level], second[level])
        else:
            warped = pixel_exact_warp(second[level], up)
            x = torch.cat([cost_volume(first[level], warped), first[level], up], 1)
        x0 = conv(x, f"decoders.{i}.convs.0")
        x1 = conv(x0, f"decoders.{i}.convs.1")
        x2 = conv(torch.cat([x0, x1], 1), f"decoders.{i}.convs.2")
        x3 = conv(torch.cat([x1, x2], 1), f"decoders.{i}.convs.3")
        x4 = conv(torch.cat([x2, x3], 1), f"decoders.{i}.convs.4")
        flow = conv(torch.cat([x3, x4], 1), f"decoders.{i}.residual", leaky=False)
        flow = flow if up is None else flow + up
        flows.append(flow)
        up = 2.0 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)
    x = torch.cat([flow, x4], 1)
    for k, dilation in enumerate((1, 2, 4, 8, 16, 1)):
        x = conv(x, f"context.{k}", dilation=dilation)
    flows[-1] = flow + conv(x, "context.6", leaky=False)
    return flows[:0:-1]


@torch.no_grad()
def test_flow_net_equals_its_description():
    network = he_weights(PaperFlow(SMALL_FLOW), seed=3)
    image_1, image_2 = random_images(2, 128, 192).split(1)
    actual = network.match_levels(network.encode(image_1), network.encode(image_2))
    ours = network(image_1, image_2)
    forward = reference_flow(network.state_dict(), image_1, image_2)
    backward = reference_flow(network.state_dict(), image_2, image_1)
    assert forward[0].abs().mean() > 0.5  # in cells of 4 pixels; or the comparison would prove little
    for level in range(4):
        torch.testing.assert_close(actual[level][:1], forward[level] * 2.0 ** (level + 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(ours["forward"], 4.0 * forward[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(ours["backward"], 4.0 * backward[0], atol=1e-3, rtol=0)
    assert ours["sigma"] is None


@torch.no_grad()
def test_flow_net_encodes_once_for_every_pair():
    network = he_weights(PaperFlow(SMALL_FLOW))
    image_1, image_2 = random_images(2, 64, 128).split(1)
    both = network(image_1, image_2)
    kept = network.match(network.encode(image_1), network.encode(image_2))
    swapped = network(image_2, image_1)
    torch.testing.assert_close(both["forward"], kept["forward"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both["forward"], swapped["backward"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(96, 320), (100, 132), (64, 64)])
def test_flow_net_takes_any_multiple_of_four(height, width):
    network = he_weights(PaperFlow(SMALL_FLOW))
    flow = network(*random_images(2, height, width).split(1))["forward"]
    assert flow.shape == (1, 2, height // 4, width // 4)
    assert torch.isfinite(flow).all()


# DepthNet


def test_depth_net_has_the_papers_parameters():
    assert parameters(PaperDepth()) == 14_327_217


def reference_disparity(w, image):
    """TrianFlow's DepthNet from its description."""

    def norm(x, name):
        scale = w[f"{name}.weight"] / torch.sqrt(w[f"{name}.running_var"] + 1e-5)
        shift = w[f"{name}.bias"] - w[f"{name}.running_mean"] * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def block(x, name, stride):
        y = norm(F.conv2d(x, w[f"{name}.conv1.weight"], None, stride, 1), f"{name}.bn1").clamp(min=0)
        y = norm(F.conv2d(y, w[f"{name}.conv2.weight"], None, 1, 1), f"{name}.bn2")
        if f"{name}.downsample.0.weight" in w:
            x = norm(F.conv2d(x, w[f"{name}.downsample.0.weight"], None, stride), f"{name}.downsample.1")
        return (x + y).clamp(min=0)

    def reflected(x, name):
        padded = torch.cat([x[:, :, 1:2], x, x[:, :, -2:-1]], 2)
        padded = torch.cat([padded[..., 1:2], padded, padded[..., -2:-1]], 3)
        return F.conv2d(padded, w[f"{name}.weight"], w[f"{name}.bias"])

    def elu(x):
        return torch.where(x > 0, x, torch.expm1(x))

    x = norm(F.conv2d((image - 0.45) / 0.225, w["encoder.conv1.weight"], None, 2, 3), "encoder.bn1").clamp(min=0)
    features = [x]
    x = F.max_pool2d(x, 3, 2, 1)
    for layer, stride in enumerate((1, 2, 2, 2), start=1):
        x = block(block(x, f"encoder.layer{layer}.0", stride), f"encoder.layer{layer}.1", 1)
        features.append(x)
    for i in range(5):
        x = elu(reflected(x, f"decoder.{i}.before"))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        if i < 4:
            x = torch.cat([x, features[3 - i]], 1)
        x = elu(reflected(x, f"decoder.{i}.after"))
    return 1.0 / (1.0 + torch.exp(-reflected(x, "head")))


@torch.no_grad()
def test_depth_net_equals_its_description():
    network = he_weights(PaperDepth(SMALL_DEPTH), seed=1)
    image = random_images(2, 96, 128)
    expected = reference_disparity(network.state_dict(), image)
    assert expected.std() > 0.02
    torch.testing.assert_close(network.disparity(image), expected, atol=1e-5, rtol=1e-4)
    # Zhao et al.: depth = 1 / (0.01 + 9.99 disparity), from 0.1 to 100.
    torch.testing.assert_close(network(image), 0.01 + 9.99 * expected, atol=1e-4, rtol=1e-4)
