"""The image decoder against hand-made truth, OpenCV and (where installed) rosbags-image as an independent decoder."""

import array
import resource
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from depth_pose_ros.errors import ImageError
from depth_pose_ros.images import (
    IMAGE_ENCODINGS,
    INLIER,
    OUTLIER,
    decode_compressed,
    decode_depth,
    decode_image,
    matches_picture,
    read_image,
    read_mask,
)

HEIGHT, WIDTH = 24, 36
RANDOM = np.random.default_rng(5)
BGR = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
GRAY = BGR[..., 0].copy()
SMOOTH = cv2.GaussianBlur(cv2.resize(BGR[:4, :6], (WIDTH, HEIGHT)), (0, 0), 2)


def decode(pixels: np.ndarray, encoding: str, padding: int = 0, is_bigendian: bool = False, **options) -> np.ndarray:
    """The pixels (H, W[, C]) laid out as a publisher would, with rows padded by 0xAA, and decoded."""
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAA)
    height = len(pixels) * 2 // 3 if encoding in ("nv12", "nv21") else len(pixels)
    return decode_image(
        height, pixels.shape[1], encoding, rows.shape[1], is_bigendian, array.array("B", rows.tobytes()), **options
    )


def mosaic(encoding: str, bgr: np.ndarray) -> np.ndarray:
    """What a sensor with that Bayer pattern records of a picture."""
    out = np.zeros(bgr.shape[:2], np.uint8)
    for i, letter in enumerate(encoding.split("_")[1][:4]):
        out[i // 2 :: 2, i % 2 :: 2] = bgr[i // 2 :: 2, i % 2 :: 2, "bgr".index(letter)]
    return out


def uyvy(bgr: np.ndarray) -> np.ndarray:
    """Packed 4:2:2 by OpenCV's own YUV planes (BT.601, studio range)."""
    y, u, v = _planes(bgr)
    out = np.empty((*bgr.shape[:2], 2), np.uint8)
    out[..., 1], out[:, 0::2, 0], out[:, 1::2, 0] = y, u[:, ::2], v[:, ::2]
    return out


def nv12(bgr: np.ndarray) -> np.ndarray:
    y, u, v = _planes(bgr)
    return np.vstack([y, np.stack([u[::2, ::2], v[::2, ::2]], -1).reshape(HEIGHT // 2, WIDTH)])


def _planes(bgr: np.ndarray) -> list[np.ndarray]:
    b, g, r = (bgr[..., i].astype(np.float64) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    return [np.rint(plane).clip(0, 255).astype(np.uint8) for plane in (y, u, v)]


def alpha(image: np.ndarray) -> np.ndarray:
    return np.dstack([image, RANDOM.integers(0, 256, image.shape[:2]).astype(image.dtype)])


def wide(image: np.ndarray) -> np.ndarray:
    return image.astype(np.uint16) * 257


EXACT = {  # encoding -> (what is sent, what must come back)
    "bgr8": (BGR, BGR),
    "8UC3": (BGR, BGR),
    "rgb8": (BGR[..., ::-1], BGR),
    "bgra8": (alpha(BGR), BGR),
    "8UC4": (alpha(BGR), BGR),
    "rgba8": (alpha(BGR[..., ::-1]), BGR),
    "mono8": (GRAY, np.dstack([GRAY] * 3)),
    "8UC1": (GRAY, np.dstack([GRAY] * 3)),
    "mono16": (wide(GRAY), np.dstack([GRAY] * 3)),
    "16UC1": (wide(GRAY), np.dstack([GRAY] * 3)),
    "bgr16": (wide(BGR), BGR),
    "rgb16": (wide(BGR[..., ::-1]), BGR),
    "bgra16": (wide(alpha(BGR)), BGR),
    "rgba16": (wide(alpha(BGR[..., ::-1])), BGR),
    "32FC1": ((GRAY / 255).astype(np.float32), np.dstack([GRAY] * 3)),
}
BAYER = [name for name in IMAGE_ENCODINGS if name.startswith("bayer")]


@pytest.mark.parametrize("padding", [0, 4, 7])
@pytest.mark.parametrize("encoding", EXACT)
def test_pixels_come_back_as_sent(encoding, padding):
    sent, expected = EXACT[encoding]
    image = decode(sent, encoding, padding)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("encoding", [name for name in EXACT if "16" in name or "32" in name])
def test_big_endian(encoding):
    sent, expected = EXACT[encoding]
    swapped = sent.astype(sent.dtype.newbyteorder(">"))
    assert np.array_equal(decode(swapped, encoding, padding=2, is_bigendian=True), expected)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", BAYER)
def test_bayer_mosaic_gets_its_colours(encoding, padding):
    sent = mosaic(encoding, SMOOTH)
    image = decode(wide(sent) if encoding.endswith("16") else sent, encoding, padding)
    assert np.abs(image[2:-2, 2:-2].astype(int) - SMOOTH[2:-2, 2:-2]).mean() < 2.5


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"])
def test_yuv_gets_its_colours(encoding, padding):
    sent = {
        "yuv422": uyvy,
        "uyvy": uyvy,
        "yuv422_yuy2": lambda bgr: uyvy(bgr)[..., ::-1],
        "yuyv": lambda bgr: uyvy(bgr)[..., ::-1],
        "nv12": nv12,
        "nv21": lambda bgr: np.vstack(
            [nv12(bgr)[:HEIGHT], nv12(bgr)[HEIGHT:].reshape(-1, 2)[:, ::-1].reshape(-1, WIDTH)]
        ),
    }[encoding](SMOOTH)
    image = decode(np.ascontiguousarray(sent), encoding, padding)
    assert image.shape == SMOOTH.shape
    assert np.abs(image.astype(int) - SMOOTH).mean() < 6  # colour has half the resolution


INDEPENDENT = {  # encoding -> bytes of a pixel; what rosbags-image turns into BGR, from noise to noise
    **dict.fromkeys(("bgr8", "rgb8", "8UC3"), 3),
    **dict.fromkeys(("bgra8", "rgba8"), 4),
    **dict.fromkeys(("bgr16", "rgb16"), 6),
    **dict.fromkeys(("bgra16", "rgba16"), 8),
    **dict.fromkeys(("mono16", "yuv422", "uyvy", "yuv422_yuy2", "yuyv"), 2),
    "mono8": 1,
    **{name: 2 if name.endswith("16") else 1 for name in BAYER},
}


@pytest.mark.parametrize(
    ("encoding", "is_bigendian"),
    [(name, False) for name in INDEPENDENT] + [(name, True) for name in INDEPENDENT if name.endswith("16")],
)
def test_agrees_with_rosbags_image(encoding, is_bigendian):
    """An independent decoder gives the same pixels (it knows no row padding; that is tested above)."""
    rosbags_image = pytest.importorskip("rosbags.image")
    step = WIDTH * INDEPENDENT[encoding]
    data = RANDOM.integers(0, 256, HEIGHT * step).astype(np.uint8)
    ours = decode_image(HEIGHT, WIDTH, encoding, step, is_bigendian, data)
    message = SimpleNamespace(
        height=HEIGHT, width=WIDTH, encoding=encoding, step=step, is_bigendian=is_bigendian, data=data
    )
    theirs = rosbags_image.message_to_cvimage(message, "bgr8")
    # 16 bit: it truncates where we round, and gives a mosaic its colours before the scaling to 8 bit
    assert np.abs(ours.astype(int) - theirs).max() <= (1 if encoding.endswith("16") else 0)


def test_bgr8_is_not_copied():
    data = array.array("B", BGR.tobytes())
    image = decode_image(HEIGHT, WIDTH, "bgr8", WIDTH * 3, False, data)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))
    gray = decode_image(HEIGHT, WIDTH * 3, "mono8", WIDTH * 3, False, data, keep_gray=True)
    assert gray.shape == (HEIGHT, WIDTH * 3) and np.shares_memory(gray, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("container", [bytes, bytearray, memoryview, lambda b: array.array("B", b), np.array])
def test_any_buffer_is_read(container):
    data = container(np.frombuffer(BGR.tobytes(), np.uint8) if container is np.array else BGR.tobytes())
    assert np.array_equal(decode_image(HEIGHT, WIDTH, "bgr8", WIDTH * 3, False, data), BGR)


def test_keep_gray_keeps_one_channel_and_colour_stays_colour():
    assert np.array_equal(decode(GRAY, "mono8", 3, keep_gray=True), GRAY)
    assert np.array_equal(decode(wide(GRAY), "mono16", keep_gray=True), GRAY)
    assert decode(BGR, "rgb8", keep_gray=True).shape == BGR.shape
    assert decode(GRAY, "bayer_rggb8", keep_gray=True).shape == BGR.shape


def test_nan_in_a_float_image_is_black():
    pixels = np.full((4, 5), 0.5, np.float32)
    pixels[1, 2] = np.nan
    image = decode(pixels, "32FC1", keep_gray=True)
    assert image[1, 2] == 0 and (np.delete(image, 7) == 128).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encoding": "rgb9"}, "'rgb9' is not known"),
        ({"encoding": ""}, "is not known"),
        ({"height": 0}, "empty"),
        ({"width": 0}, "empty"),
        ({"step": 0}, "step = 108 or more"),
        ({"step": WIDTH * 3 - 1}, "less than a row"),
        ({"data": b""}, "0 bytes"),
        ({"data": BGR.tobytes()[:-1]}, "expected 2592"),
        ({"data": BGR.tobytes() + b"x"}, "expected 2592"),
        ({"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1}, "less than a row"),
        ({"height": 2**32 - 1, "step": 2**32 - 1}, "bytes of data"),
        ({"width": WIDTH + 1}, "less than a row"),
        ({"encoding": "yuv422", "width": 35}, "must be even"),
        ({"encoding": "nv12", "height": 23, "step": WIDTH}, "must be even"),
        ({"encoding": "bayer_rggb8", "height": 2, "step": WIDTH, "data": bytes(2 * WIDTH)}, "at least 4 x 4"),
        ({"data": None}, "NoneType"),
        ({"data": [1, 2, 3]}, "list"),
        ({"data": "text"}, "str"),
    ],
)
def test_a_bad_image_says_what_is_wrong(changes, says):
    good = {"height": HEIGHT, "width": WIDTH, "encoding": "bgr8", "step": WIDTH * 3, "is_bigendian": False}
    with pytest.raises(ImageError, match=says):
        decode_image(**(good | {"data": BGR.tobytes()} | changes))


@pytest.mark.parametrize("value", [37.2, -3.0, np.inf])
def test_a_depth_image_is_not_taken_as_a_camera_image(value):
    with pytest.raises(ImageError, match="depth image cannot"):
        decode(np.full((4, 4), value, np.float32), "32FC1")


@pytest.mark.parametrize("padding", [0, 4])
def test_depth_in_metres_and_millimetres(padding):
    metres = np.array([[1.5, np.nan, np.inf], [0.0, -2.0, 0.25]], np.float32)
    expected = np.array([[1.5, np.nan, np.nan], [np.nan, np.nan, 0.25]], np.float32)
    millimetres = np.array([[1500, 0, 0], [0, 0, 250]], np.uint16)
    for sent, encoding in ((metres, "32FC1"), (millimetres, "16UC1")):
        rows = np.pad(sent.view(np.uint8).reshape(2, -1), ((0, 0), (0, padding)))
        depth = decode_depth(2, 3, encoding, rows.shape[1], False, rows.tobytes())
        assert depth.dtype == np.float32
        assert np.allclose(depth, expected, equal_nan=True)
    with pytest.raises(ImageError, match="expected 32FC1"):
        decode_depth(2, 3, "mono8", 3, False, bytes(6))


@pytest.mark.parametrize("format", ["png", "rgb8; png compressed bgr8", "bgr8; jpeg compressed bgr8"])
def test_compressed_colour(format):
    extension = ".jpg" if "jpeg" in format else ".png"
    data = cv2.imencode(extension, SMOOTH)[1].tobytes()
    assert np.abs(decode_compressed(format, data).astype(int) - SMOOTH).max() <= (12 if extension == ".jpg" else 0)


def test_compressed_gray_and_mosaic():
    data = cv2.imencode(".png", GRAY)[1].tobytes()
    assert np.array_equal(decode_compressed("mono8; png compressed ", data), np.dstack([GRAY] * 3))
    assert np.array_equal(decode_compressed("mono8; png compressed ", data, keep_gray=True), GRAY)
    data = cv2.imencode(".png", mosaic("bayer_grbg8", SMOOTH))[1].tobytes()
    colours = decode_compressed("bayer_grbg8; png compressed bayer_grbg8", data)
    assert np.abs(colours[2:-2, 2:-2].astype(int) - SMOOTH[2:-2, 2:-2]).mean() < 2.5


def test_exif_orientation_is_ignored():
    """A rotated picture would no longer fit its intrinsics."""
    jpeg = cv2.imencode(".jpg", SMOOTH)[1].tobytes()
    orientation_6 = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    jpeg = jpeg[:2] + b"\xff\xe1" + (len(orientation_6) + 2).to_bytes(2, "big") + orientation_6 + jpeg[2:]
    assert decode_compressed("jpeg", jpeg).shape == SMOOTH.shape


@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("jpeg", b""),
        ("jpeg", b"not an image at all"),
        ("png", cv2.imencode(".png", BGR)[1].tobytes()[:40]),
        ("16UC1; compressedDepth png", cv2.imencode(".png", BGR)[1].tobytes()),
    ],
)
def test_bad_compressed_data_is_refused(format, data):
    with pytest.raises(ImageError, match="format"):
        decode_compressed(format, data)


def test_image_files(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), BGR)
    assert np.array_equal(read_image(tmp_path / "a.png"), BGR)
    (tmp_path / "b.png").write_bytes(b"nothing")
    for name in ("b.png", "missing.png"):
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)


def test_picture_of_matches():
    """A match that agrees, one that does not, and one that leaves the image; the image itself stays as it is."""
    image = np.full((40, 60, 3), 200, np.uint8)
    points_1 = np.array([[10.0, 10.0], [10.0, 30.0], [50.0, 20.0]])
    points_2 = np.array([[20.0, 10.0], [20.0, 30.0], [900.0, 20.0]])
    picture = matches_picture(image, points_1, points_2, np.array([True, False, True]))

    def is_line(picture, row: int, rgb) -> bool:
        """Antialiased: nearly the colour along the line, and nothing of it a little aside."""
        near = np.abs(picture[row, 11:20].astype(int) - rgb[::-1]).max() < 30
        return near and (picture[[row - 4, row + 4]] == 200).all()

    assert (image == 200).all()
    assert is_line(picture, 10, INLIER) and is_line(picture, 30, OUTLIER)
    assert (picture[10, 20] == INLIER[::-1]).all() and (picture[30, 20] == OUTLIER[::-1]).all()
    assert np.abs(picture[20, 52:].astype(int) - INLIER[::-1]).max() < 30
    assert (matches_picture(image, points_1[:0], points_2[:0], np.zeros(0, bool)) == image).all()
    half = matches_picture(image, points_1[:2], points_2[:2], np.array([True, False]), most=1)
    assert is_line(half, 10, INLIER) and (half[30] == 200).all()


# ---------------------------------------------------------------------------------------------------------- safety
def png_of_size(width, height):
    """A PNG whose header is right and tells this size; nothing of it needs to be there."""
    data = bytearray(cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def jpeg_of_size(width, height):
    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("data", [png_of_size(50_000, 50_000), jpeg_of_size(65_000, 65_000)], ids=["png", "jpeg"])
def test_a_small_file_that_says_to_be_huge_is_refused_before_anything_is_allocated(data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"says to be of (50000 x 50000|65000 x 65000) pixels; at most 67108864"):
        decode_compressed("jpeg", data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; decoded it would be 2.5 million


def test_a_message_may_be_jpeg_or_png_and_a_file_anything(tmp_path):
    data = cv2.imencode(".bmp", np.zeros((4, 4), np.uint8))[1].tobytes()
    with pytest.raises(ImageError, match="expected a whole JPEG or PNG"):
        decode_compressed("bmp", data)
    (tmp_path / "a.bmp").write_bytes(data)
    assert read_image(tmp_path / "a.bmp").shape == (4, 4, 3)


def test_a_mask_is_false_where_the_file_is_black(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    image[1:3, 2:5, 1] = 9
    cv2.imwrite(str(tmp_path / "mask.png"), image)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), image.any(-1))
    with pytest.raises(ImageError, match="cannot read"):
        read_mask(tmp_path / "none.png")
