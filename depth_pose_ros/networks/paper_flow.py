"""PaperFlow: TrianFlow's FlowNet, a light PWC-Net (5.1 M parameters).

Zhao et al., "Towards Better Generalization: Joint Depth-Pose Learning without PoseNet", CVPR 2020, after PWC-Net (Sun
et al., CVPR 2018): two convolutions per pyramid level instead of three, decoders that see only their last two layers,
and no activation on the cost volume. Layer for layer the published network, so its checkpoints import
(``depth_pose import-trianflow``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_pose_ros.networks.correlation import local_correlation
from depth_pose_ros.networks.warp import warp


@dataclass(frozen=True)
class PaperFlowConfig:
    """Widths of PaperFlow. The defaults are the published network."""

    pyramid: tuple[int, int, int, int, int, int] = (16, 32, 64, 96, 128, 196)
    """Channels at 1/2, 1/4, ... 1/64."""
    decoder: tuple[int, int, int, int, int] = (128, 128, 96, 64, 32)
    """Channels of the five convolutions of each decoder."""
    context: tuple[int, ...] = (128, 128, 128, 96, 64, 32)
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1)
    """Of the context network at 1/4."""
    radius: int = 4
    """Half the search window of each level, cells."""


class ConvLeaky(nn.Conv2d):
    """3x3 convolution and LeakyReLU(0.1)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride), rounded up."""
        return F.leaky_relu(super().forward(x), 0.1)


class Decoder(nn.Module):
    """Flow residual of one level; each convolution sees the outputs of the two before it."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        w = widths
        self.convs = nn.ModuleList(
            [
                ConvLeaky(inputs, w[0]),
                ConvLeaky(w[0], w[1]),
                ConvLeaky(w[0] + w[1], w[2]),
                ConvLeaky(w[1] + w[2], w[3]),
                ConvLeaky(w[2] + w[3], w[4]),
            ]
        )
        self.residual = nn.Conv2d(w[3] + w[4], 2, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs, h, w) -> flow residual (B, 2, h, w) in cells, and the last features (B, widths[4], h, w)."""
        before = self.convs[0](x)
        last = self.convs[1](before)
        for conv in self.convs[2:]:
            before, last = last, conv(torch.cat((before, last), 1))
        return self.residual(torch.cat((before, last), 1)), last


class PaperFlow(nn.Module):
    """Flow both ways between two images, at 1/4 of their size.

    Input images are (B, 3, H, W) float BGR in [0, 1]. Flow is (x, y) in pixels of the input, at cell centres
    ((j + 0.5) * 4 - 0.5, (i + 0.5) * 4 - 0.5). H and W are multiples of 4; the published network takes multiples of 64,
    where nothing is cropped on the way down the pyramid, and there the two are the same.
    """

    stride = 4
    multiple_of = 4
    features: ClassVar[dict[str, int]] = {f"level_{cell}": cell for cell in (4, 8, 16, 32, 64)}
    """What `encode` gives, by name, with the image pixels per cell of each."""

    def __init__(self, config: PaperFlowConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PaperFlowConfig()
        inputs = (3, *config.pyramid[:-1])
        self.pyramid = nn.ModuleList(
            nn.Sequential(ConvLeaky(i, o, stride=2), ConvLeaky(o, o)) for i, o in zip(inputs, config.pyramid)
        )
        costs = (2 * config.radius + 1) ** 2
        features = (c + 2 for c in reversed(config.pyramid[1:-1]))
        self.decoders = nn.ModuleList(Decoder(costs + more, config.decoder) for more in (0, *features))
        widths = (config.decoder[-1] + 2, *config.context)
        layers = [ConvLeaky(i, o, dilation=d) for i, o, d in zip(widths, config.context, config.dilations)]
        self.context = nn.Sequential(*layers, nn.Conv2d(widths[-1], 2, 3, padding=1))

    def encode(self, image: Tensor) -> list[Tensor]:
        """Features of images (B, 3, H, W) at 1/4, 1/8, ... 1/64."""
        features = []
        x = image
        for level in self.pyramid:
            x = level(x)
            features.append(x)
        return features[1:]

    def match(self, features_1: Sequence[Tensor], features_2: Sequence[Tensor]) -> dict[str, Tensor | None]:
        """Flow both ways: forward and backward (B, 2, H/4, W/4) in pixels; sigma is None."""
        forward, backward = self.match_levels(features_1, features_2)[0].chunk(2)
        return {"forward": forward, "backward": backward, "sigma": None}

    def match_levels(self, features_1: Sequence[Tensor], features_2: Sequence[Tensor]) -> list[Tensor]:
        """Flow (2 B, 2, h, w) in pixels of the input at 1/4, 1/8, ... 1/64, both directions along the batch.

        Forward comes first.
        """
        both = [(torch.cat((f1, f2)), torch.cat((f2, f1))) for f1, f2 in zip(features_1, features_2)]
        flow = None
        flows = []
        for decoder, (first, second) in zip(self.decoders, reversed(both)):
            if flow is None:
                residual, last = decoder(self._costs(first, second))
                flow = residual
            else:
                # Odd sizes: a level is as large as its finer one rounded up, so twice its size is cut.
                coarse = 2.0 * F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
                coarse = coarse[:, :, : first.shape[2], : first.shape[3]]
                costs = self._costs(first, warp(second, coarse))
                residual, last = decoder(torch.cat((costs, first, coarse), 1))
                flow = coarse + residual
            flows.append(flow)
        flows[-1] = flow + self.context(torch.cat((flow, last), 1))
        levels = range(len(flows) + 1, 1, -1)
        return [flow * 2.0**level for flow, level in zip(flows, levels)][::-1]

    def forward(self, image_1: Tensor, image_2: Tensor) -> dict[str, Tensor | None]:
        """`match` of two images (B, 3, H, W); both are encoded in one batch."""
        pairs = [features.chunk(2) for features in self.encode(torch.cat((image_1, image_2)))]
        return self.match([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def _costs(self, first: Tensor, second: Tensor) -> Tensor:
        # Mean over channels; the factor goes on the operand that is not copied into two blocks.
        return local_correlation(first * (1.0 / int(first.shape[1])), second, self.config.radius)
