"""PaperDepth: TrianFlow's DepthNet, a ResNet-18 encoder with a skip-connected decoder (14.3 M parameters).

Zhao et al., CVPR 2020, after monodepth2 (Godard et al., ICCV 2019) with bilinear instead of nearest upsampling and one
disparity map at full size. The encoder is ResNet-18 (He et al., CVPR 2016) without its classifier and carries the names
of torchvision's, so published checkpoints (``depth_pose import-trianflow``) and ImageNet weights fit.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class PaperDepthConfig:
    """Widths and range of PaperDepth. The defaults are the published network."""

    encoder: tuple[int, int, int, int, int] = (64, 64, 128, 256, 512)
    """Channels at 1/2, 1/4, ... 1/32."""
    decoder: tuple[int, int, int, int, int] = (256, 128, 64, 32, 16)
    """Channels at 1/16, 1/8, ... 1."""
    min_depth: float = 0.1
    max_depth: float = 100.0
    """Depths of disparity 1 and 0, in the network's own unit."""


class BasicBlock(nn.Module):
    """ResNet's basic block: two 3x3 convolutions with batch normalisation and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    """ResNet-18 up to its last feature map, with torchvision's parameter names."""

    def __init__(self, widths: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(widths[0], widths[1], 1), BasicBlock(widths[1], widths[1], 1))
        self.layer2 = nn.Sequential(BasicBlock(widths[1], widths[2], 2), BasicBlock(widths[2], widths[2], 1))
        self.layer3 = nn.Sequential(BasicBlock(widths[2], widths[3], 2), BasicBlock(widths[3], widths[3], 1))
        self.layer4 = nn.Sequential(BasicBlock(widths[3], widths[4], 2), BasicBlock(widths[4], widths[4], 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> features at 1/2, 1/4, ... 1/32."""
        x = F.relu(self.bn1(self.conv1((image - 0.45) / 0.225)))
        features = [x, self.layer1(self.maxpool(x))]
        for layer in (self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return features


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3 convolution, the image mirrored at its border."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")


class UpBlock(nn.Module):
    """Convolution, twice the size, the encoder's features beside it, convolution; ELU after each."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.before = conv3x3(inputs, outputs)
        self.after = conv3x3(outputs + skip, outputs)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """(B, inputs, h, w) and (B, skip, 2 h, 2 w) or None -> (B, outputs, 2 h, 2 w)."""
        x = F.interpolate(F.elu(self.before(x)), scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.elu(self.after(x if skip is None else torch.cat((x, skip), 1)))


class PaperDepth(nn.Module):
    """Inverse depth of one image, at its full size.

    Input (B, 3, H, W) float BGR in [0, 1]; H and W multiples of 32, at least 64 (reflection needs two cells at 1/32).
    Output (B, 1, H, W) between 1 / max_depth and 1 / min_depth, in the inverse of the network's own unit.
    """

    stride = 1
    multiple_of = 32

    def __init__(self, config: PaperDepthConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PaperDepthConfig()
        self.encoder = ResNet18(config.encoder)
        inputs = (config.encoder[-1], *config.decoder[:-1])
        skips = (*reversed(config.encoder[:-1]), 0)
        self.decoder = nn.ModuleList(UpBlock(i, s, o) for i, s, o in zip(inputs, skips, config.decoder))
        self.head = conv3x3(config.decoder[-1], 1)

    def disparity(self, image: Tensor) -> Tensor:
        """The network's own output, (B, 1, H, W) in (0, 1)."""
        *skips, x = self.encoder(image)
        for block, skip in zip(self.decoder, (*reversed(skips), None)):
            x = block(x, skip)
        return torch.sigmoid(self.head(x))

    def forward(self, image: Tensor) -> Tensor:
        """Inverse depth (B, 1, H, W): the disparity spread over the range of depths."""
        near, far = 1.0 / self.config.min_depth, 1.0 / self.config.max_depth
        return far + (near - far) * self.disparity(image)
