"""SmallDepth: the small depth network, a residual encoder and a skip-connected decoder (2.9 M parameters).

The shape of monodepth2's DepthNet (Godard et al., ICCV 2019) at a third of ResNet-18's width, with zero padding and
ReLU, which are cheaper on a CPU than reflection padding and ELU. It looks at the image at half its size: depth needs a
wide view more than fine detail, and a quarter of the pixels pays for the wider layers.

What one image can tell is depth over focal length: an object twice as far through a lens twice as long looks the same.
The network therefore predicts the inverse of ``depth * reference_focal / fx``; with fx known the caller undoes it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SmallDepthConfig:
    """Widths and range of SmallDepth. The defaults are the shipped network."""

    channels: tuple[int, int, int, int, int] = (24, 48, 80, 128, 192)
    """Encoder widths at 1/2, 1/4, 1/8, 1/16, 1/32."""
    min_depth: float = 0.1
    max_depth: float = 300.0
    """Range of the prediction at the reference focal length."""
    reference_focal: float = 320.0
    """fx in pixels of the input at which the prediction is in metres, px."""
    shrink: int = 2
    """The image is averaged over cells of this many pixels before anything else sees it."""


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class BasicBlock(nn.Module):
    """ResNet's basic block (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2 = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class SmallDepth(nn.Module):
    """Inverse depth of one image, at a quarter of its size.

    Input (B, 3, H, W) float BGR in [0, 1]; H and W multiples of 16. Output (B, 1, H/4, W/4), the inverse of
    ``depth * reference_focal / fx`` in 1/m, with fx in pixels of the input.
    """

    stride = 4
    multiple_of = 16
    trained_size = (320, 96)
    """(width, height) of images that stage A trains for. Others are brought to about as many pixels: what is known of
    the sizes of things on the image is known at this scale. Twice the size is four times the work for each image."""

    def __init__(self, config: SmallDepthConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SmallDepthConfig()
        c2, c4, c8, c16, c32 = config.channels
        self.stem = conv_bn(3, c2, 5, 2)
        self.layer_4 = nn.Sequential(BasicBlock(c2, c4, 2), BasicBlock(c4, c4))
        self.layer_8 = nn.Sequential(BasicBlock(c4, c8, 2), BasicBlock(c8, c8))
        self.layer_16 = nn.Sequential(BasicBlock(c8, c16, 2), BasicBlock(c16, c16))
        self.layer_32 = nn.Sequential(BasicBlock(c16, c32, 2), BasicBlock(c32, c32))
        # Where in the image a cell lies and what the whole image is (street or room): both matter for its depth.
        self.coordinates = nn.Conv2d(2, c32, 1)
        self.scene = nn.Linear(c32, c32)
        self.up_16 = conv_bn(c32, c16)
        self.join_16 = conv_bn(2 * c16, c16)
        self.up_8 = conv_bn(c16, c8)
        self.join_8 = conv_bn(2 * c8, c8)
        self.up_4 = conv_bn(c8, c4)
        self.join_4 = conv_bn(2 * c4, c4)
        self.up_2 = conv_bn(c4, c2)
        self.join_2 = conv_bn(2 * c2, c2)
        self.head = nn.Conv2d(c2, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> inverse depth (B, 1, H/4, W/4)."""
        return self.shrunk(F.avg_pool2d(image, self.config.shrink))

    def shrunk(self, image: Tensor) -> Tensor:
        """`forward` from an image that is already shrunk: (B, 3, h, w) -> (B, 1, h/2, w/2). Training renders those."""
        x2 = self.stem((image - 0.45) / 0.225)
        x4 = self.layer_4(x2)
        x8 = self.layer_8(x4)
        x16 = self.layer_16(x8)
        x32 = self.layer_32(x16)
        scene = self.scene(x32.mean((2, 3)))[:, :, None, None]
        x = F.relu(x32 + self.coordinates(unit_grid(x32)) + scene)
        x = self.join_16(torch.cat([resized(self.up_16(x), x16), x16], 1))
        x = self.join_8(torch.cat([resized(self.up_8(x), x8), x8], 1))
        x = self.join_4(torch.cat([resized(self.up_4(x), x4), x4], 1))
        x = self.join_2(torch.cat([resized(self.up_2(x), x2), x2], 1))
        return self.inverse_depth(self.head(x))

    def inverse_depth(self, logit: Tensor) -> Tensor:
        """Logits -> inverse depth, spread evenly over the logarithm of the range."""
        logit = logit.float()  # three digits of bfloat16 over four decades of depth are too few
        near, far = 1.0 / self.config.min_depth, 1.0 / self.config.max_depth
        return far * torch.exp(torch.sigmoid(logit) * torch.log(torch.tensor(near / far)).item())


def resized(x: Tensor, like: Tensor) -> Tensor:
    """To the height and width of ``like``, bilinear: twice the size, or one less where an odd size was halved."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear")


def unit_grid(like: Tensor) -> Tensor:
    """(1, 2, H, W) cell centres (x, y) of a map (B, C, H, W), from -1 to 1; made from the map, so any size exports."""
    ones = torch.ones_like(like[:1, :1])
    x, y = ones.cumsum(3), ones.cumsum(2)
    return torch.cat([(2.0 * x - 1.0) / x[:, :, :, -1:] - 1.0, (2.0 * y - 1.0) / y[:, :, -1:, :] - 1.0], 1)
