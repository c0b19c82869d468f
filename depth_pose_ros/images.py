"""Image buffers -> arrays: the encodings of sensor_msgs/Image and CompressedImage, checked before they are touched;
and optical flow as a picture.

Knows nothing of ROS: every function takes the fields of the message. ``cv_bridge`` is not used because its Python side
ignores the row padding and reads 16UC1 as 8 bit, and its wheel does not know OpenCV 5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from depth_pose_ros.errors import ImageError


class _Encoding(NamedTuple):
    dtype: str
    channels: int
    to_bgr: int | None = None  # cv2 colour conversion; None when it is BGR or one channel already


# OpenCV names a Bayer pattern by its second row, second and third pixel, ROS by its first row: rggb is BayerBG.
_ENCODINGS = {
    "bgr8": _Encoding("u1", 3),
    "rgb8": _Encoding("u1", 3, cv2.COLOR_RGB2BGR),
    "bgra8": _Encoding("u1", 4, cv2.COLOR_BGRA2BGR),
    "rgba8": _Encoding("u1", 4, cv2.COLOR_RGBA2BGR),
    "mono8": _Encoding("u1", 1),
    "8uc1": _Encoding("u1", 1),
    "8uc3": _Encoding("u1", 3),
    "8uc4": _Encoding("u1", 4, cv2.COLOR_BGRA2BGR),
    "bgr16": _Encoding("u2", 3),
    "rgb16": _Encoding("u2", 3, cv2.COLOR_RGB2BGR),
    "bgra16": _Encoding("u2", 4, cv2.COLOR_BGRA2BGR),
    "rgba16": _Encoding("u2", 4, cv2.COLOR_RGBA2BGR),
    "mono16": _Encoding("u2", 1),
    "16uc1": _Encoding("u2", 1),
    "32fc1": _Encoding("f4", 1),
    "bayer_rggb8": _Encoding("u1", 1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": _Encoding("u1", 1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": _Encoding("u1", 1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": _Encoding("u1", 1, cv2.COLOR_BayerGB2BGR),
    "bayer_rggb16": _Encoding("u2", 1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr16": _Encoding("u2", 1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg16": _Encoding("u2", 1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg16": _Encoding("u2", 1, cv2.COLOR_BayerGB2BGR),
    "yuv422": _Encoding("u1", 2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": _Encoding("u1", 2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": _Encoding("u1", 2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": _Encoding("u1", 2, cv2.COLOR_YUV2BGR_YUY2),
    "nv12": _Encoding("u1", 1, cv2.COLOR_YUV2BGR_NV12),
    "nv21": _Encoding("u1", 1, cv2.COLOR_YUV2BGR_NV21),
}
_PLANAR = ("nv12", "nv21")  # a plane of luminance, then one of half the height with colour
_EVEN_WIDTH = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv", *_PLANAR)

MAX_PIXELS = 1 << 26
"""Of a compressed image, 8192 x 8192: a few kilobytes can say to be of gigabytes."""

IMAGE_ENCODINGS = tuple(_ENCODINGS)
"""What decode_image reads, in lower case."""


def decode_image(
    height: int, width: int, encoding: str, step: int, is_bigendian: bool, data: Any, keep_gray: bool = False
) -> np.ndarray:
    """The fields of a sensor_msgs/Image -> (height, width, 3) uint8 BGR, C-contiguous.

    With keep_gray a one-channel encoding stays (height, width), which saves a copy. bgr8 (and mono8 with keep_gray)
    without row padding is a view of ``data``, read-only where that is. 16-bit values are scaled by 255/65535 as in
    cv_bridge; 32FC1 is an intensity from 0 to 1, NaN black. 8UC3 is taken as BGR.

    Raises ImageError for an unknown encoding, or sizes that do not fit each other or the data.
    """
    name = encoding.lower()
    if name not in _ENCODINGS:
        raise ImageError(
            f"image encoding '{encoding}' is not known; known are {', '.join(IMAGE_ENCODINGS)}. "
            "Convert the image before (image_proc) or set another encoding in the driver"
        )
    pixels = _pixels(height, width, name, step, is_bigendian, data)
    kind = _ENCODINGS[name]
    if kind.dtype == "f4":
        pixels = _gray_of_float(pixels)
    elif kind.dtype == "u2":
        pixels = cv2.convertScaleAbs(pixels, alpha=255.0 / 65535.0)
    if kind.to_bgr is not None:
        if name.startswith("bayer") and min(height, width) < 4:
            raise ImageError(f"Bayer image of {width} x {height} pixels; its colours need at least 4 x 4")
        return cv2.cvtColor(pixels, kind.to_bgr)
    if pixels.ndim == 2 and not keep_gray:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(pixels)


def decode_depth(height: int, width: int, encoding: str, step: int, is_bigendian: bool, data: Any) -> np.ndarray:
    """The fields of a depth image -> (height, width) float32 metres along Z, NaN where unknown (REP-118).

    32FC1 is metres; 16UC1 (and mono16) millimetres with 0 = unknown. Infinite, zero and negative depth is unknown too.
    Raises ImageError as decode_image does.
    """
    name = encoding.lower()
    if name not in ("32fc1", "16uc1", "mono16"):
        raise ImageError(f"depth image with encoding '{encoding}'; expected 32FC1 (metres) or 16UC1 (millimetres)")
    pixels = _pixels(height, width, name, step, is_bigendian, data)
    depth = pixels.astype(np.float32) if name == "32fc1" else pixels.astype(np.float32) * np.float32(0.001)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def decode_compressed(
    format: str, data: Any, keep_gray: bool = False, max_pixels: int | None = MAX_PIXELS
) -> np.ndarray:
    """The fields of a sensor_msgs/CompressedImage -> (height, width, 3) uint8 BGR, or (height, width) with keep_gray.

    ``format`` is what image_transport writes ("jpeg", "rgb8; jpeg compressed bgr8", ...); the data themselves tell the
    codec. A JPEG of a raw Bayer mosaic gets its colours. An EXIF orientation is ignored: the intrinsics are the
    sensor's. Raises ImageError for compressed depth, for data that OpenCV cannot decode, for anything but JPEG and PNG,
    and for those that say to be of more than ``max_pixels``, before anything is allocated. None: all, as of own files.
    """
    if "compresseddepth" in format.lower():
        raise ImageError(f"compressed image of format '{format}' is a depth image; expected a camera's (jpeg or png)")
    buffer = _as_bytes(data)
    known = max_pixels is None
    if max_pixels is not None:
        width, height = _told_size(buffer)
        known = width * height > 0
        if width * height > max_pixels:
            raise ImageError(
                f"compressed image of {len(buffer)} bytes says to be of {width} x {height} pixels; at most "
                f"{max_pixels} pixels are decoded"
            )
    image = None
    if known and len(buffer):
        try:
            image = cv2.imdecode(buffer, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error as error:
            raise ImageError(f"compressed image of {len(buffer)} bytes, format '{format}': {error.err}") from error
    if image is None:
        raise ImageError(
            f"compressed image of {len(buffer)} bytes, format '{format}', cannot be decoded; "
            "expected a whole JPEG or PNG"
        )
    mosaic = _ENCODINGS.get(format.split(";")[0].strip().lower())
    if image.ndim == 2 and mosaic is not None and mosaic.channels == 1 and mosaic.to_bgr is not None:
        return cv2.cvtColor(image, mosaic.to_bgr)
    return _with_channels(image, keep_gray)


def read_image(path: str | Path, keep_gray: bool = False) -> np.ndarray:
    """An image file -> (height, width, 3) uint8 BGR, or (height, width) for a gray one with keep_gray.

    An EXIF orientation is ignored, as in decode_compressed. Raises ImageError when the file is missing or no image.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror}") from error
    try:
        return decode_compressed(Path(path).suffix.lstrip("."), data, keep_gray, max_pixels=None)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def flow_picture(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """(h, w, 2) optical flow in pixels -> (h, w, 3) uint8 BGR: hue is the direction, saturation the length.

    largest: length in pixels of full saturation; None: the 99th percentile of this flow, at least one pixel.
    """
    length, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1], angleInDegrees=True)
    if largest is None:
        largest = max(1.0, float(np.percentile(length, 99)))
    hsv = np.empty((*flow.shape[:2], 3), np.uint8)
    hsv[..., 0] = angle * 0.5
    hsv[..., 1] = np.minimum(length * (255.0 / largest), 255.0)
    hsv[..., 2] = 255
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _told_size(data: np.ndarray) -> tuple[int, int]:
    """(width, height) that the header of a JPEG or PNG tells; (0, 0) for anything else."""
    head = data[: 1 << 16].tobytes()
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if not head.startswith(b"\xff\xd8"):
        return 0, 0
    data, at = data.tobytes(), 2
    while at + 9 <= len(data):  # a JPEG is a row of segments: 0xFF, kind, length of what follows
        if data[at] != 0xFF:
            return 0, 0
        kind = data[at + 1]
        if kind == 0xFF:  # fill
            at += 1
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # start of frame
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0


INLIER, OUTLIER = (60, 180, 90), (235, 80, 70)
"""Colours of matches that agree with the motion, and of those that do not; RGB."""


def matches_picture(
    image: np.ndarray, points_1: np.ndarray, points_2: np.ndarray, inliers: np.ndarray, most: int = 400
) -> np.ndarray:
    """A copy of an image (H, W, 3) BGR with its matches: a line from where each was, and a dot where it is.

    points_1, points_2: (N, 2) pixels of the frame before and of this one; inliers: (N,) bool, which decides the colour.
    most:               so many are drawn, evenly taken from them.
    """
    picture = image.copy()
    every = max(1, -(-len(points_2) // most))
    shift = 4  # bits of a pixel's fraction
    ends = np.round(np.stack([points_1, points_2], axis=1)[::every] * 2**shift).astype(int).tolist()
    for (start, end), agrees in zip(ends, inliers[::every]):
        colour = (INLIER if agrees else OUTLIER)[::-1]
        cv2.line(picture, start, end, colour, 1, cv2.LINE_AA, shift)
        cv2.circle(picture, end, 2**shift, colour, -1, cv2.LINE_AA, shift)
    return picture


def read_mask(path: str | Path) -> np.ndarray:
    """An image file -> (height, width) bool, False where it is black. Raises ImageError as read_image does."""
    image = read_image(path, keep_gray=True)
    return image > 0 if image.ndim == 2 else (image > 0).any(-1)


def _pixels(height: int, width: int, name: str, step: int, is_bigendian: bool, data: Any) -> np.ndarray:
    """(rows, width[, channels]) view of the data in the encoding's type, rows without their padding, native endian."""
    kind = _ENCODINGS[name]
    if height <= 0 or width <= 0:
        raise ImageError(f"{name} image of {width} x {height} pixels is empty; expected a width and height above 0")
    if name in _EVEN_WIDTH and width % 2:
        raise ImageError(f"{name} image of width {width}; two pixels share their colour, so it must be even")
    if name in _PLANAR and height % 2:
        raise ImageError(f"{name} image of height {height}; two rows share their colour, so it must be even")
    rows = height * 3 // 2 if name in _PLANAR else height
    dtype = np.dtype(kind.dtype).newbyteorder(">" if is_bigendian else "<")
    row_bytes = width * kind.channels * dtype.itemsize
    if step < row_bytes:
        raise ImageError(
            f"step = {step} bytes is less than a row of {width} {name} pixels; the publisher must set "
            f"step = {row_bytes} or more"
        )
    buffer = _as_bytes(data)
    if len(buffer) != rows * step:
        raise ImageError(
            f"{name} image of {width} x {height} pixels with step {step} has {len(buffer)} bytes of data; "
            f"expected {rows * step}; the publisher's height, step and data must agree"
        )
    strides = (step, kind.channels * dtype.itemsize, dtype.itemsize)
    pixels = np.ndarray((rows, width, kind.channels), dtype, buffer, strides=strides)
    if kind.channels == 1:
        pixels = pixels[..., 0]
    return pixels if dtype.isnative and dtype.itemsize == 1 else pixels.astype(dtype.newbyteorder("="))


def _as_bytes(data: Any) -> np.ndarray:
    """A (n,) uint8 view of bytes, array.array or numpy."""
    try:
        return np.frombuffer(data, np.uint8)
    except ValueError as error:
        # numpy refuses an empty buffer
        if len(data) == 0:
            return np.zeros(0, np.uint8)
        raise ImageError(f"image data of type {type(data).__name__} cannot be read as bytes: {error}") from error
    except TypeError as error:
        raise ImageError(f"image data of type {type(data).__name__}; expected bytes or an array of uint8") from error


def _gray_of_float(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float32 intensity from 0 to 1 -> uint8, NaN black."""
    pixels = np.nan_to_num(pixels, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if pixels.max() > 1.001 or pixels.min() < -0.001:
        raise ImageError(
            f"32FC1 image with values from {pixels.min():g} to {pixels.max():g}; expected an intensity from 0 to 1. "
            "A depth image cannot stand in for a camera's image"
        )
    return cv2.convertScaleAbs(np.clip(pixels, 0.0, 1.0), alpha=255.0)


def _with_channels(image: np.ndarray, keep_gray: bool) -> np.ndarray:
    if image.ndim == 2 and not keep_gray:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return image
