"""One training pair with its exact truth."""

from dataclasses import dataclass

import torch


@dataclass
class Sample:
    """Two images of one scene and what truly happened between them. Pixel centres are at integer coordinates.

    image_1, image_2:  (3, H, W) uint8, BGR.
    flow_forward:      (2, H, W) float32 px, (x, y): where each pixel of image 1 lies in image 2. 0 is "not moved".
    flow_backward:     (2, H, W) float32 px: where each pixel of image 2 lies in image 1.
    occluded_1:        (H, W) bool, True where the pixel of image 1 is not visible in image 2 (covered or out of view).
    occluded_2:        (H, W) bool, the same for image 2 in image 1.
    depth_1, depth_2:  (H, W) float32 m along Z; inf is sky, 0 is "no depth in this kind of scene".
    T_2_1:             (4, 4) float64, maps camera 1's coordinates into camera 2's.
    K:                 (3, 3) float64 of both images.
    moving_1:          (H, W) bool, True where image 1 shows something that moves by itself.
    kind:              what made it: "street", "room", "corridor", "rubble", "layered".
    """

    image_1: torch.Tensor
    image_2: torch.Tensor
    flow_forward: torch.Tensor
    flow_backward: torch.Tensor
    occluded_1: torch.Tensor
    occluded_2: torch.Tensor
    depth_1: torch.Tensor
    depth_2: torch.Tensor
    T_2_1: torch.Tensor
    K: torch.Tensor
    moving_1: torch.Tensor
    kind: str

    @property
    def has_depth(self) -> bool:
        """Whether depth, pose and intrinsics are those of a 3-D scene (False for layered pictures)."""
        return self.kind != "layered"
