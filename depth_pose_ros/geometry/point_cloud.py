"""Depth to points: organised xyz, and xyz with colour packed as ROS and PCL expect it."""

import cv2
import numpy as np

from depth_pose_ros.camera import PinholeCamera


class PointCloud:
    """Turns depth images of one camera into points; what depends on the camera alone is computed once."""

    def __init__(self, camera: PinholeCamera):
        self.camera = camera
        self._x = ((np.arange(camera.width, dtype=np.float32) - camera.cx) / camera.fx).astype(np.float32)[None, :]
        self._y = ((np.arange(camera.height, dtype=np.float32) - camera.cy) / camera.fy).astype(np.float32)[:, None]
        self._planes = [np.empty((camera.height, camera.width), np.float32) for _ in range(4)]

    def xyz(self, depth: np.ndarray) -> np.ndarray:
        """(h, w) float32 depth along Z -> (h, w, 3) float32 in the optical frame; NaN where depth is not finite > 0."""
        return cv2.merge(self._fill(depth)[:3])

    def xyz_rgb(self, depth: np.ndarray, image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(h, w) depth and (h, w, 3) uint8 BGR -> (h, w, 4) float32: x, y, z, rgb.

        The bits of rgb are 0x00RRGGBB, as the field of that name in a PointCloud2. ``out`` is filled when given.
        """
        planes = self._fill(depth)
        packed = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)  # bytes B, G, R, A: little-endian 0xAARRGGBB
        packed = packed.view("<u4")[..., 0]
        np.bitwise_and(packed, np.uint32(0x00FFFFFF), out=planes[3].view(np.uint32))
        return cv2.merge(planes, out) if out is not None else cv2.merge(planes)

    def _fill(self, depth: np.ndarray) -> list[np.ndarray]:
        x, y, z, _ = self._planes
        if depth.shape != z.shape:
            raise ValueError(f"depth is {depth.shape}, but the camera of this cloud is {z.shape}; resize one of them")
        with np.errstate(invalid="ignore"):
            np.copyto(z, depth)
            z[~((z > 0) & (z < np.inf))] = np.nan
        np.multiply(z, self._x, out=x)
        np.multiply(z, self._y, out=y)
        return self._planes
