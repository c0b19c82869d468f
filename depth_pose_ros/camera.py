"""Cameras: the pinhole the odometry works in, and the way from a raw image to it.

Pixel centres are at integer coordinates, so an image of width w covers [-0.5, w - 0.5). Resizing obeys the half-pixel
rule of cv2.resize: ``u' = (u + 0.5) * sx - 0.5``. Camera frames are optical: z forward, x right, y down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from depth_pose_ros.errors import CameraError, ImageError


@dataclass(frozen=True)
class PinholeCamera:
    """A camera without distortion: ``u = fx * X / Z + cx``, ``v = fy * Y / Z + cy``, all in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise CameraError(f"camera of {self.width} x {self.height} pixels; width and height must be positive")
        if not (math.isfinite(self.fx) and math.isfinite(self.fy) and self.fx > 0 and self.fy > 0):
            raise CameraError(f"focal lengths fx = {self.fx}, fy = {self.fy} pixels; both must be positive and finite")
        if not (math.isfinite(self.cx) and math.isfinite(self.cy)):
            raise CameraError(f"principal point ({self.cx}, {self.cy}); both must be finite")

    @property
    def K(self) -> np.ndarray:
        """(3, 3) float64, homogeneous pixels from coordinates in the optical frame."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def K_inv(self) -> np.ndarray:
        """(3, 3) float64, rays with z = 1 from homogeneous pixels."""
        return np.array(
            [[1 / self.fx, 0.0, -self.cx / self.fx], [0.0, 1 / self.fy, -self.cy / self.fy], [0.0, 0.0, 1.0]]
        )

    def resized(self, width: int, height: int) -> PinholeCamera:
        """The camera of the same view resized to width x height, each axis by its own factor (half-pixel rule)."""
        if (width, height) == (self.width, self.height):
            return self
        sx, sy = width / self.width, height / self.height
        return PinholeCamera(
            width, height, self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        )

    def rays(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) pixels -> (N, 3) float64 viewing rays in the optical frame with z = 1."""
        points = np.asarray(points, np.float64)
        rays = np.empty((len(points), 3))
        rays[:, 0] = (points[:, 0] - self.cx) / self.fx
        rays[:, 1] = (points[:, 1] - self.cy) / self.fy
        rays[:, 2] = 1.0
        return rays

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) points in the optical frame -> (N, 2) float64 pixels; only meaningful where z > 0."""
        points = np.asarray(points, np.float64)
        return points[:, :2] / points[:, 2:] * (self.fx, self.fy) + (self.cx, self.cy)


DISTORTION_LENGTHS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
"""How many coefficients each ROS distortion model has (sensor_msgs/distortion_models.hpp; 12 and 14 as OpenCV adds)."""

DISTORTION_ALIASES = {"fisheye": "equidistant", "radial-tangential": "plumb_bob", "radtan": "plumb_bob"}

Rectify = Literal["auto", "always", "never"]


@dataclass(frozen=True, eq=False)
class CameraModel:
    """A calibrated camera as a sensor_msgs/CameraInfo describes it (REP-104, image_geometry), checked.

    width, height:  pixels of the full resolution at which the camera was calibrated.
    K:              (3, 3) intrinsics of the raw image at full resolution.
    D:              (n,) distortion coefficients; empty or all zero for an image without distortion.
    distortion_model: "plumb_bob" (n = 4, 5), "rational_polynomial" (8, 12, 14) or "equidistant" (4).
    R:              (3, 3) rotation from the camera's frame to the rectified one (stereo); zeros mean identity.
    P:              (3, 4) projection of the rectified image at full resolution; zeros mean [K | 0].
    binning_x, binning_y: pixels of the full resolution that make one of the image; 0 means 1.
    roi:            (x_offset, y_offset, width, height) in full resolution, before binning; zeros mean all of it.

    Raises CameraError, which says what is wrong, for anything that is not a usable calibration.
    """

    width: int
    height: int
    K: np.ndarray
    D: np.ndarray = ()
    distortion_model: str = "plumb_bob"
    R: np.ndarray | None = None
    P: np.ndarray | None = None
    binning_x: int = 0
    binning_y: int = 0
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        def keep(name: str, value: Any) -> None:
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(self, name, value)

        if self.width <= 0 or self.height <= 0:
            raise CameraError(
                f"camera info for an image of {self.width} x {self.height} pixels; "
                "the driver or the file must give the size at which the camera was calibrated"
            )
        K = _matrix("K", self.K, (3, 3))
        if not K.any() or K[0, 0] == 0:
            raise CameraError(
                "camera info with K[0] = 0: the camera is not calibrated; calibrate it (camera_calibration) and load "
                "the file in the driver, or give the intrinsics yourself (fx fy cx cy)"
            )
        _check_intrinsics("K", K)
        R = np.eye(3) if self.R is None else _matrix("R", self.R, (3, 3))
        if not R.any():
            R = np.eye(3)
        if np.abs(R).max() > 2.0 or np.abs(R @ R.T - np.eye(3)).max() > 1e-3:
            raise CameraError(f"rectification R = {R.ravel().tolist()} is not a rotation; leave it zero if unknown")
        P = np.zeros((3, 4)) if self.P is None else _matrix("P", self.P, (3, 4))
        if not P.any():
            P = np.hstack([K, np.zeros((3, 1))])
        _check_intrinsics("P", P)
        keep("K", K)
        keep("R", R)
        keep("P", P)
        self._check_distortion(keep)
        self._check_binning_and_roi(keep)

    def _check_distortion(self, keep: Any) -> None:
        D = np.array(self.D, np.float64).ravel()
        if not np.isfinite(D).all():
            raise CameraError(
                f"distortion D = {D.tolist()} has values that are not numbers; calibrate the camera again"
            )
        if not D.any():
            keep("D", np.zeros(0))
            return
        name = DISTORTION_ALIASES.get(self.distortion_model.lower(), self.distortion_model.lower())
        if name not in DISTORTION_LENGTHS:
            raise CameraError(
                f"distortion_model '{self.distortion_model}' is not known; known are {', '.join(DISTORTION_LENGTHS)}. "
                "Rectify the image before (image_proc) and give its rectified topic"
            )
        if len(D) not in DISTORTION_LENGTHS[name]:
            wanted = " or ".join(str(n) for n in DISTORTION_LENGTHS[name])
            raise CameraError(
                f"distortion_model '{name}' with {len(D)} coefficients D = {D.tolist()}; it needs {wanted}"
            )
        keep("distortion_model", name)
        keep("D", D)

    def _check_binning_and_roi(self, keep: Any) -> None:
        for axis in ("binning_x", "binning_y"):
            if getattr(self, axis) < 0:
                raise CameraError(f"{axis} = {getattr(self, axis)}; it must be 1 or more, or 0 for no binning")
            keep(axis, max(1, int(getattr(self, axis))))
        x, y, w, h = (int(value) for value in self.roi)
        if (x, y, w, h) == (0, 0, 0, 0):
            w, h = self.width, self.height
        if min(x, y) < 0 or min(w, h) <= 0 or x + w > self.width or y + h > self.height:
            raise CameraError(
                f"roi of {w} x {h} at ({x}, {y}) does not lie in the full resolution {self.width} x {self.height}; "
                "correct it in the driver (all zero means the whole image)"
            )
        keep("roi", (x, y, w, h))
        if self.image_width <= 0 or self.image_height <= 0:
            raise CameraError(f"binning {self.binning_x} x {self.binning_y} leaves nothing of a roi of {w} x {h}")

    def __eq__(self, other: object) -> bool:
        """Whether two messages describe the same camera; what a node asks before it builds its maps again."""
        return isinstance(other, CameraModel) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple:
        arrays = tuple(array.tobytes() for array in (self.K, self.D, self.R, self.P))
        model = self.distortion_model if len(self.D) else ""
        return (self.width, self.height, *arrays, model, self.binning_x, self.binning_y, self.roi)

    @classmethod
    def from_pinhole(cls, camera: PinholeCamera, D: Sequence[float] = (), distortion_model: str = "plumb_bob"):
        """A camera from plain intrinsics, without distortion unless D is given."""
        return cls(camera.width, camera.height, camera.K, np.asarray(D, np.float64), distortion_model)

    @classmethod
    def from_camera_info(cls, info: Any) -> CameraModel:
        """From anything with the fields of sensor_msgs/CameraInfo, of ROS 2 (k, d, r, p) or ROS 1 (K, D, R, P)."""

        def field(name: str) -> Any:
            return getattr(info, name) if hasattr(info, name) else getattr(info, name.upper())

        roi = info.roi
        return cls(
            int(info.width),
            int(info.height),
            field("k"),
            np.asarray(field("d"), np.float64),
            info.distortion_model,
            field("r"),
            field("p"),
            int(info.binning_x),
            int(info.binning_y),
            (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
        )

    @classmethod
    def from_yaml(cls, path: str | Path) -> CameraModel:
        """From a camera_info YAML: the calibration file of camera_calibration, or a message as ros2 topic echo prints.

        Raises CameraError when the file is missing, is not YAML, lacks a field or holds no usable calibration.
        """
        import yaml

        try:
            text = Path(path).read_text(encoding="utf-8")
            fields = next(iter(yaml.safe_load_all(text)), None)
        except (OSError, UnicodeDecodeError) as error:
            raise CameraError(f"cannot read the camera info file {path}: {error}") from error
        except yaml.YAMLError as error:
            raise CameraError(f"{path} is not a YAML file: {error}") from error
        if not isinstance(fields, dict):
            raise CameraError(
                f"{path} is not a camera info file; expected image_width, image_height, camera_matrix, ..."
            )

        def field(calibration_name: str, message_name: str, default: Any = None) -> Any:
            value = fields.get(calibration_name, fields.get(message_name, default))
            if value is None:
                raise CameraError(
                    f"{path} has no '{calibration_name}' (nor '{message_name}'); is it a camera info file?"
                )
            return value.get("data", ()) if isinstance(value, dict) else value

        roi = fields.get("roi") or {}
        try:
            return cls(
                int(field("image_width", "width")),
                int(field("image_height", "height")),
                field("camera_matrix", "k"),
                np.array(field("distortion_coefficients", "d", ()), np.float64),
                str(field("distortion_model", "distortion_model", "plumb_bob")),
                field("rectification_matrix", "r", np.zeros(9)),
                field("projection_matrix", "p", np.zeros(12)),
                int(fields.get("binning_x", 0)),
                int(fields.get("binning_y", 0)),
                tuple(int(roi.get(name, 0)) for name in ("x_offset", "y_offset", "width", "height")),
            )
        except (TypeError, ValueError) as error:
            raise CameraError(f"{path}: {error}; every matrix must be a list of numbers") from error

    @property
    def image_width(self) -> int:
        """Width in pixels of the images the camera sends, after ROI and binning."""
        return self.roi[2] // self.binning_x

    @property
    def image_height(self) -> int:
        """Height in pixels of the images the camera sends, after ROI and binning."""
        return self.roi[3] // self.binning_y

    @property
    def is_rectified(self) -> bool:
        """Whether its images have no distortion, so that P describes them as they are."""
        return len(self.D) == 0

    def rectified(self) -> CameraModel:
        """The camera of the rectified image, for topics like image_rect whose CameraInfo still tells the raw D."""
        return CameraModel(
            self.width,
            self.height,
            self.P[:, :3],
            P=self.P,
            binning_x=self.binning_x,
            binning_y=self.binning_y,
            roi=self.roi,
        )

    @property
    def raw_K(self) -> np.ndarray:
        """(3, 3) intrinsics of the raw image as sent: K after ROI and binning."""
        return self._as_sent(self.K)

    @property
    def pinhole(self) -> PinholeCamera:
        """The rectified image of the size sent: P after ROI and binning."""
        K = self._as_sent(self.P[:, :3])
        fx, fy, cx, cy = K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()
        return PinholeCamera(self.image_width, self.image_height, fx, fy, cx, cy)

    def _as_sent(self, K: np.ndarray) -> np.ndarray:
        """Full-resolution intrinsics seen through ROI (a shift), then binning.

        A bin is the mean of its pixels (REP-104), so its centre follows the half-pixel rule. image_geometry divides
        cx by the binning instead, which is 0.25 pixels off at a binning of 2.
        """
        K = K.copy()
        for axis, (offset, binning) in enumerate(zip(self.roi[:2], (self.binning_x, self.binning_y), strict=True)):
            K[axis, axis] /= binning
            K[axis, 2] = (K[axis, 2] - offset + 0.5) / binning - 0.5
        return K


def _matrix(name: str, values: Any, shape: tuple[int, int]) -> np.ndarray:
    matrix = np.array(values, np.float64)
    if matrix.size != shape[0] * shape[1]:
        raise CameraError(f"{name} has {matrix.size} values; expected {shape[0]} x {shape[1]}")
    if not np.isfinite(matrix).all():
        raise CameraError(f"{name} = {matrix.ravel().tolist()} has values that are not numbers; calibrate again")
    return matrix.reshape(shape)


def _check_intrinsics(name: str, K: np.ndarray) -> None:
    if K[0, 0] <= 0 or K[1, 1] <= 0:
        raise CameraError(f"{name} has focal lengths fx = {K[0, 0]}, fy = {K[1, 1]} pixels; both must be positive")
    if abs(K[2, 0]) > 1e-9 or abs(K[2, 1]) > 1e-9 or abs(K[2, 2] - 1) > 1e-9:
        raise CameraError(f"the last row of {name} is {K[2].tolist()}; expected [0, 0, 1]; is the matrix transposed?")
    if abs(K[0, 1]) > 1e-3 * K[0, 0]:
        raise CameraError(f"{name} has a skew of {K[0, 1]} pixels; only cameras without skew are supported")


class Rectifier:
    """Raw image -> rectified image of a chosen size, in one cv2.remap, one cv2.resize, or nothing at all.

    model:         the camera.
    width, height: of the output; each axis has its own factor. 0, 0 for the rectified image at the size sent.
    rectify:       "auto" undistorts when the model has distortion; "always" also applies R and K -> P when it has none;
                   "never" takes the image as rectified already and uses P.

    Shrinking by more than 2 samples the image at twice (beyond 6, four times) the output's size and averages 2 x 2
    (4 x 4) pixels: as accurate as cv2.INTER_AREA at a third of its cost. Error of a known shift, found in the shrunk
    images of three real scenes, in pixels of the output: at a factor 4, 0.02 to 0.03 against 0.04 to 0.09 for plain
    bilinear; at 1.9, 0.015 to 0.022 against 0.024 to 0.029, which is not worth the three times higher cost. Maps are
    float: with OpenCV 5 as fast as fixed-point ones, and not rounded to 1/32 pixel.
    """

    camera: PinholeCamera
    """Of the output."""

    def __init__(self, model: CameraModel, width: int = 0, height: int = 0, rectify: Rectify = "auto") -> None:
        if rectify not in ("auto", "always", "never"):
            raise CameraError(f"rectify = '{rectify}'; expected 'auto', 'always' or 'never'")
        if rectify == "never":
            model = model.rectified()
        native = model.pinhole
        if (width, height) == (0, 0):
            width, height = native.width, native.height
        self.model = model
        self.camera = native.resized(width, height)
        raw_K = model.raw_K
        shrink = max(raw_K[0, 0] / self.camera.fx, raw_K[1, 1] / self.camera.fy)
        self._samples = 1 if shrink <= 2 else 2 if shrink <= 6 else 4
        self._sampled = native.resized(width * self._samples, height * self._samples)
        self._maps: tuple[np.ndarray, np.ndarray] | None = None
        if not model.is_rectified or (rectify == "always" and self._changes_view(model)):
            self._maps = _undistortion_maps(model, self._sampled)

    @staticmethod
    def _changes_view(model: CameraModel) -> bool:
        return not (np.allclose(model.R, np.eye(3), atol=1e-9) and np.allclose(model.K, model.P[:, :3], atol=1e-9))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W) or (H, W, 3) uint8 as sent -> the same channels at the size of ``camera``.

        The image itself comes back, not a copy, when there is nothing to do. What lies outside the raw image is black.
        Raises ImageError when the image is not of the size the camera info tells.
        """
        check_image_fits(image, self.model)
        size = (self._sampled.width, self._sampled.height)
        if self._maps is not None:
            image = cv2.remap(image, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        elif (image.shape[1], image.shape[0]) != size:
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        if self._samples > 1:
            image = cv2.resize(image, (self.camera.width, self.camera.height), interpolation=cv2.INTER_AREA)
        return image

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """(H, W) of any type, one per pixel as sent, e.g. true depth -> the nearest for each pixel of the output.

        What lies outside the raw image is NaN (of floats; else 0).
        """
        size = (self.camera.width, self.camera.height)
        if self._maps is None or self._samples > 1:
            if self._maps is None and (values.shape[1], values.shape[0]) == size:
                return values
            if self._maps is not None:
                raise CameraError("nearest values of an image shrunk more than twice are not supported; ask for more")
            return cv2.resize(values, size, interpolation=cv2.INTER_NEAREST)
        outside = math.nan if values.dtype.kind == "f" else 0
        return cv2.remap(values, *self._maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)


class FrameRectifier:
    """Raw image -> the two views of one frame: small BGR for the networks and gray for the sub-pixel refinement.

    Each is made straight from the raw image, and a gray camera's image stays one channel until the networks' size, so
    that no colour image is made at full size.

    image_size: (width, height) of the networks' input.
    gray_size:  (width, height) of the gray view, None for the rectified image at the size sent.
    mask:       (H, W) bool of the raw image, or of any size in its shape; None without one. CameraError for another.
    """

    camera: PinholeCamera
    """Of the gray view; that of the image is ``camera.resized(*image_size)``."""
    mask: np.ndarray | None
    """Of the gray view, False wherever the raw mask is, even in part."""

    def __init__(
        self,
        model: CameraModel,
        image_size: tuple[int, int],
        gray_size: tuple[int, int] | None = None,
        rectify: Rectify = "auto",
        mask: np.ndarray | None = None,
    ) -> None:
        self._image = Rectifier(model, *image_size, rectify=rectify)
        self._gray = Rectifier(model, *(gray_size or (0, 0)), rectify=rectify)
        self.model = model
        self.camera = self._gray.camera
        self.mask = None if mask is None else self._rectified(mask)

    def _rectified(self, mask: np.ndarray) -> np.ndarray:
        (h, w), (width, height) = mask.shape, (self.model.image_width, self.model.image_height)
        if abs(w * height - h * width) > 0.01 * w * height:
            raise CameraError(
                f"mask of {w} x {h} pixels for images of {width} x {height}; give one of that size, or of its shape"
            )
        white = np.where(mask, np.uint8(255), np.uint8(0))
        return self._gray(cv2.resize(white, (width, height), interpolation=cv2.INTER_NEAREST)) > 254

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) BGR or (H, W) gray, uint8 -> image (h, w, 3) uint8 BGR and gray (H', W') uint8, both rectified."""
        if image.ndim == 2:
            return cv2.cvtColor(self._image(image), cv2.COLOR_GRAY2BGR), self._gray(image)
        check_image_fits(image, self.model)
        return self._image(image), self._gray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def network_size(image_size: tuple[int, int], recommended: tuple[int, int], multiple: int = 1) -> tuple[int, int]:
    """(width, height) for a network's input: the shape of the image, about the recommended area, never enlarged.

    Both sides are multiples of ``multiple``.
    """
    if image_size[0] * image_size[1] < recommended[0] * recommended[1]:
        recommended = image_size
    return size_of_area(image_size, recommended, multiple)


def size_of_area(image_size: tuple[int, int], area: tuple[int, int], multiple: int = 1) -> tuple[int, int]:
    """(width, height) in the shape of ``image_size``, with about as many pixels as ``area``; multiples of a number."""
    scale = math.sqrt(area[0] * area[1] / (image_size[0] * image_size[1]))
    width, height = (max(multiple, round(side * scale / multiple) * multiple) for side in image_size)
    return width, height


def check_image_fits(image: np.ndarray, model: CameraModel) -> None:
    """Raise ImageError unless the image is (H, W) or (H, W, 3) uint8 of the size that the camera sends."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ImageError(f"image of shape {image.shape} and type {image.dtype}; expected uint8, gray or BGR")
    if image.shape[:2] != (model.image_height, model.image_width):
        raise ImageError(
            f"image of {image.shape[1]} x {image.shape[0]} pixels, but its camera info tells "
            f"{model.image_width} x {model.image_height}; give the camera info that belongs to this image "
            "(scaled with it, or with binning and roi set)"
        )


def _undistortion_maps(model: CameraModel, output: PinholeCamera) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the output lies in the raw image: two (height, width) float32 arrays, x and y."""
    size = (output.width, output.height)
    if not model.is_rectified and model.distortion_model == "equidistant":
        return cv2.fisheye.initUndistortRectifyMap(model.raw_K, model.D, model.R, output.K, size, cv2.CV_32FC1)
    D = model.D if len(model.D) else np.zeros(4)
    return cv2.initUndistortRectifyMap(model.raw_K, D, model.R, output.K, size, cv2.CV_32FC1)
