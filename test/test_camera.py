"""Camera model and rectification against OpenCV's own projection as exact truth."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from depth_pose_ros.camera import CameraModel, FrameRectifier, PinholeCamera, Rectifier
from depth_pose_ros.errors import CameraError, ImageError

WIDTH, HEIGHT = 320, 240
K = np.array([[200.0, 0, 158.3], [0, 205.0, 121.7], [0, 0, 1]])
DISTORTIONS = {
    "plumb_bob": [-0.28, 0.07, 2e-4, -3e-4, 0.01],
    "plumb_bob_4": [-0.28, 0.07, 2e-4, -3e-4],
    "rational_polynomial": [0.4, -0.2, 1e-3, -5e-4, 0.02, 0.7, -0.1, 0.03],
    "rational_polynomial_12": [0.2, -0.1, 1e-3, -5e-4, 0.01, 0.3, -0.1, 0.02, 1e-3, 2e-4, -1e-3, 1e-4],
    "rational_polynomial_14": [0.2, -0.1, 1e-3, -5e-4, 0.01, 0.3, -0.1, 0.02, 1e-3, 2e-4, -1e-3, 1e-4, 0.01, -0.02],
    "equidistant": [-0.02, 0.01, -0.004, 0.001],
}


def model_of(name: str, **changes) -> CameraModel:
    fields = {"D": DISTORTIONS[name], "distortion_model": name.rstrip("_0123456789"), "K": K}
    return CameraModel(**{"width": WIDTH, "height": HEIGHT, **fields, **changes})


def scene(pixels: np.ndarray) -> np.ndarray:
    """A smooth picture as a function of the raw pixel, so that any sampling of it is known exactly."""
    x, y = pixels[..., 0], pixels[..., 1]
    return 127 + 60 * np.sin(x / 9.0) + 60 * np.cos(y / 11.0)


def grid(width: int, height: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float64)


def raw_image(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.rint(scene(grid(width, height))).astype(np.uint8)


def raw_pixels_of(model: CameraModel, camera: PinholeCamera, raw_K: np.ndarray) -> np.ndarray:
    """(h, w, 2) raw pixel that each rectified pixel must show, by OpenCV's projection of the pixel's ray."""
    rays = camera.rays(grid(camera.width, camera.height).reshape(-1, 2)) @ model.R  # = R^T ray, row vectors
    if model.distortion_model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(rays[:, None], np.zeros(3), np.zeros(3), raw_K, model.D)
    else:
        pixels, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), raw_K, model.D if len(model.D) else None)
    return pixels.reshape(camera.height, camera.width, 2)


def assert_shows(image: np.ndarray, raw_pixels: np.ndarray, width: int, height: int, tolerance: float) -> None:
    """The image shows the scene at raw_pixels wherever these lie inside the raw image."""
    x, y = raw_pixels[..., 0], raw_pixels[..., 1]
    inside = (x > 2) & (y > 2) & (x < width - 3) & (y < height - 3)
    assert inside.mean() > 0.5
    error = np.abs(image.astype(np.float64) - scene(raw_pixels))[inside]
    assert np.median(error) < 0.6  # rounding to 8 bit, twice
    assert error.max() < tolerance


def test_pinhole_rays_and_projection_are_inverse():
    camera = PinholeCamera(640, 480, 500.0, 510.0, 320.5, 239.25)
    pixels = np.array([[0.0, 0.0], [639.0, 479.0], [320.5, 239.25], [12.5, 400.0]])
    rays = camera.rays(pixels)
    assert np.allclose(rays @ camera.K.T, np.column_stack([pixels, np.ones(4)]))
    assert np.allclose(camera.project(rays * [[2.0], [5.0], [0.1], [40.0]]), pixels)
    assert np.allclose(camera.K @ camera.K_inv, np.eye(3))


def test_resized_camera_agrees_with_cv2_resize():
    """A blob's centre found in the resized image lies where the resized camera projects it."""
    camera = PinholeCamera(300, 200, 250.0, 250.0, 149.5, 99.5)
    centre = np.array([[103.0, 71.0]])
    image = (255 * np.exp(-((grid(300, 200) - centre) ** 2).sum(-1) / 2 / 12.0**2)).astype(np.float32)
    small = cv2.resize(image, (120, 100), interpolation=cv2.INTER_AREA)
    found = (grid(120, 100) * small[..., None]).sum((0, 1)) / small.sum()
    expected = camera.resized(120, 100).project(camera.rays(centre))[0]
    assert np.allclose(found, expected, atol=0.02)
    assert camera.resized(300, 200) is camera


@pytest.mark.parametrize("bad", [{"width": 0}, {"height": -1}, {"fx": 0.0}, {"fy": -3.0}, {"cx": np.nan}])
def test_bad_pinhole_is_refused(bad):
    with pytest.raises(CameraError):
        PinholeCamera(**{"width": 10, "height": 10, "fx": 5.0, "fy": 5.0, "cx": 5.0, "cy": 5.0, **bad})


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("size", [(0, 0), (256, 160)])
def test_rectified_image_shows_the_undistorted_view(name, size):
    model = model_of(name)
    rectifier = Rectifier(model, *size)
    assert (rectifier.camera.width, rectifier.camera.height) == (size if size[0] else (WIDTH, HEIGHT))
    rectified = rectifier(raw_image())
    assert_shows(rectified, raw_pixels_of(model, rectifier.camera, K), WIDTH, HEIGHT, tolerance=3)


def test_rectified_points_agree_with_undistort_points():
    """A corner drawn in the raw image appears where cv2.undistortPoints says."""
    model = model_of("plumb_bob")
    rectifier = Rectifier(model)
    for corner in np.array([[60.0, 50.0], [250.0, 180.0], [160.0, 30.0]]):
        blob = (255 * np.exp(-((grid(WIDTH, HEIGHT) - corner) ** 2).sum(-1) / 2 / 2.5**2)).astype(np.uint8)
        image = rectifier(blob).astype(np.float64)
        found = (grid(WIDTH, HEIGHT) * image[..., None]).sum((0, 1)) / image.sum()
        expected = cv2.undistortPoints(corner[None, None], model.K, model.D, P=rectifier.camera.K).ravel()
        assert np.allclose(found, expected, atol=0.2)  # a blob is not a point


@pytest.mark.parametrize("name", ["plumb_bob", "equidistant"])
def test_projection_and_rotation_of_the_rectified_image_are_used(name):
    """R and P of a stereo calibration: the rectified image is that of P after the rotation R."""
    R = cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))[0]
    P = np.array([[180.0, 0, 150, -20], [0, 180, 110, 0], [0, 0, 1, 0]])
    model = model_of(name, R=R, P=P)
    rectifier = Rectifier(model)
    assert rectifier.camera == PinholeCamera(WIDTH, HEIGHT, 180.0, 180.0, 150.0, 110.0)
    assert_shows(rectifier(raw_image()), raw_pixels_of(model, rectifier.camera, K), WIDTH, HEIGHT, tolerance=3)


@pytest.mark.parametrize("shrink", [2.6, 3.3, 7.0])
def test_strong_shrinking_averages_instead_of_aliasing(shrink):
    """A pattern finer than the output's pixels becomes its mean; plain bilinear sampling would show moire."""
    fine = np.where((grid(640, 480).sum(-1) // 2) % 2, 255, 0).astype(np.uint8)
    for D in ([], [-0.02, 0.0, 0.0, 0.0]):
        model = CameraModel(640, 480, [400, 0, 319.5, 0, 400, 239.5, 0, 0, 1], D)
        out = Rectifier(model, int(640 / shrink), int(480 / shrink))(fine)
        plain = cv2.resize(fine, (int(640 / shrink), int(480 / shrink)))
        assert out[4:-4, 4:-4].std() < 0.75 * plain.std()


def test_nothing_to_do_returns_the_image_itself():
    image = raw_image()
    model = CameraModel(WIDTH, HEIGHT, K, np.zeros(5))
    assert model.is_rectified
    assert Rectifier(model)(image) is image


def test_only_a_resize_equals_cv2_resize():
    image = raw_image()
    out = Rectifier(CameraModel(WIDTH, HEIGHT, K), 288, 200)(image)
    assert np.array_equal(out, cv2.resize(image, (288, 200)))


def test_rectified_image_uses_the_projection_matrix():
    """REP-104: where D is zero the image is rectified and P, not K, describes it."""
    P = np.array([[150.0, 0, 140, 0], [0, 150, 115, 0], [0, 0, 1, 0]])
    model = CameraModel(WIDTH, HEIGHT, K, np.zeros(5), P=P)
    assert (model.pinhole.fx, model.pinhole.cx) == (150.0, 140.0)
    image = raw_image()
    assert Rectifier(model)(image) is image
    always = Rectifier(model, rectify="always")
    assert_shows(always(image), raw_pixels_of(model, always.camera, K), WIDTH, HEIGHT, tolerance=3)


def test_rectify_never_takes_a_distorted_info_as_that_of_image_rect():
    model = model_of("plumb_bob", P=np.array([[150.0, 0, 140, 0], [0, 150, 115, 0], [0, 0, 1, 0]]))
    image = raw_image()
    never = Rectifier(model, rectify="never")
    assert never(image) is image
    assert never.camera.fx == 150.0
    assert model.rectified().is_rectified and model.rectified().pinhole == model.pinhole
    with pytest.raises(CameraError, match="sometimes"):
        Rectifier(model, rectify="sometimes")


@pytest.mark.parametrize("binning", [1, 2])
@pytest.mark.parametrize("name", ["plumb_bob", "equidistant"])
def test_roi_and_binning_show_the_same_world(name, binning):
    """Cropping and binning the raw image and telling so in the camera info must not move the rectified rays."""
    x, y, w, h = roi = (40, 20, 240, 200)
    part = model_of(name, roi=roi, binning_x=binning, binning_y=binning)
    assert (part.image_width, part.image_height) == (w // binning, h // binning)
    image = raw_image()[y : y + h, x : x + w]
    image = cv2.resize(image, (w // binning, h // binning), interpolation=cv2.INTER_AREA)
    rectifier = Rectifier(part)
    truth = raw_pixels_of(part, rectifier.camera, K)  # raw pixels of the full resolution
    got = rectifier(image)
    px, py = truth[..., 0], truth[..., 1]
    inside = (px > x + 4) & (py > y + 4) & (px < x + w - 5) & (py < y + h - 5)
    assert inside.mean() > 0.5
    assert np.abs(got - scene(truth))[inside].max() < (3 if binning == 1 else 5)


def test_binning_of_zero_means_none():
    assert CameraModel(WIDTH, HEIGHT, K, binning_x=0, binning_y=0).image_width == WIDTH


@pytest.mark.parametrize("gray_input", [False, True])
@pytest.mark.parametrize("name", ["none", "plumb_bob"])
def test_frame_rectifier_gives_both_views_of_one_frame(gray_input, name):
    model = CameraModel(WIDTH, HEIGHT, K) if name == "none" else model_of(name)
    both = FrameRectifier(model, (128, 96))
    raw = raw_image()
    image, gray = both(raw if gray_input else cv2.merge([raw, raw, raw]))
    assert image.shape == (96, 128, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert gray.shape == (HEIGHT, WIDTH) and gray.dtype == np.uint8
    assert both.camera == Rectifier(model).camera
    assert np.abs(image[..., 0].astype(int) - Rectifier(model, 128, 96)(raw)).max() <= 1
    assert np.abs(gray.astype(int) - Rectifier(model)(raw)).max() <= 1
    reduced = FrameRectifier(model, (128, 96), gray_size=(160, 120))
    assert reduced(raw)[1].shape == (120, 160)
    assert reduced.camera == both.camera.resized(160, 120)


def test_a_mask_follows_the_image_and_covers_what_it_covers_in_part():
    raw = np.ones((HEIGHT, WIDTH), bool)
    raw[HEIGHT // 2 :, 100:200] = False
    model = model_of("plumb_bob")
    made = FrameRectifier(model, (128, 96), gray_size=(160, 120), mask=raw).mask
    assert made.shape == (120, 160) and made.dtype == bool
    shown = Rectifier(model, 160, 120)(np.where(raw, np.uint8(200), np.uint8(0)))
    np.testing.assert_array_equal(made, shown >= 200)
    half = FrameRectifier(model, (128, 96), gray_size=(160, 120), mask=raw[::2, ::2]).mask
    assert np.mean(half != made) < 0.02
    assert FrameRectifier(model, (128, 96)).mask is None
    with pytest.raises(CameraError, match="mask of 50 x 100 pixels for images of"):
        FrameRectifier(model, (128, 96), mask=np.ones((100, 50), bool))


@pytest.mark.parametrize(
    "image",
    [np.zeros((HEIGHT, WIDTH - 1), np.uint8), np.zeros((HEIGHT, WIDTH, 4), np.uint8), np.zeros((HEIGHT, WIDTH))],
)
def test_an_image_that_does_not_fit_its_camera_is_refused(image):
    for rectifier in (Rectifier(model_of("plumb_bob")), FrameRectifier(model_of("plumb_bob"), (64, 48))):
        with pytest.raises(ImageError, match=r"expected uint8|camera info"):
            rectifier(image)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"K": np.zeros(9)}, "not calibrated"),
        ({"K": np.full(9, np.nan)}, "not numbers"),
        ({"K": np.zeros(8)}, "8 values"),
        ({"K": [200, 0, 160, 0, -200, 120, 0, 0, 1]}, "positive"),
        ({"K": [200, 0, 0, 0, 200, 0, 160, 120, 1]}, "transposed"),
        ({"K": [200, 50, 160, 0, 200, 120, 0, 0, 1]}, "skew"),
        ({"P": [np.inf] * 12}, "not numbers"),
        ({"R": np.eye(3) * 2}, "not a rotation"),
        ({"D": [0.1, np.nan, 0, 0]}, "not numbers"),
        ({"D": [0.1, 0.2, 0.3]}, "needs 4 or 5"),
        ({"D": [0.1] * 5, "distortion_model": "equidistant"}, "needs 4"),
        ({"D": [0.1] * 4, "distortion_model": "double_sphere"}, "double_sphere"),
        ({"width": 0}, "size at which"),
        ({"height": -240}, "size at which"),
        ({"roi": (300, 0, 100, 100)}, "does not lie in"),
        ({"roi": (10, 10, 0, 0)}, "does not lie in"),
        ({"binning_x": -1}, "binning_x"),
        ({"binning_x": 1000}, "leaves nothing"),
    ],
)
def test_bad_camera_info_says_what_is_wrong(bad, says):
    with pytest.raises(CameraError, match=says):
        CameraModel(**{"width": WIDTH, "height": HEIGHT, "K": K, **bad})


def camera_info(**changes):
    """The fields of a sensor_msgs/CameraInfo."""
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    fields = {"width": WIDTH, "height": HEIGHT, "binning_x": 0, "binning_y": 0, "roi": roi}
    fields |= {"distortion_model": "plumb_bob", "k": K.ravel(), "d": [-0.2, 0.1, 0, 0, 0], "r": np.zeros(9)}
    return SimpleNamespace(**(fields | {"p": np.zeros(12)} | changes))


def test_camera_info_of_ros_2_and_ros_1_give_the_same_camera():
    info = camera_info()
    ros_1 = SimpleNamespace(**{k.upper() if len(k) == 1 else k: v for k, v in vars(info).items()})
    model = CameraModel.from_camera_info(info)
    assert model == CameraModel.from_camera_info(ros_1)
    assert hash(model) == hash(CameraModel.from_camera_info(ros_1))
    assert model != CameraModel.from_camera_info(camera_info(d=[-0.21, 0.1, 0, 0, 0]))
    assert model.pinhole == PinholeCamera(WIDTH, HEIGHT, 200.0, 205.0, 158.3, 121.7)


def test_camera_info_files_of_both_kinds(tmp_path):
    model = model_of("plumb_bob")
    P = [200.0, 0, 158.3, 0, 0, 205.0, 121.7, 0, 0, 0, 1, 0]
    calibration = {
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "camera_name": "front",
        "camera_matrix": {"rows": 3, "cols": 3, "data": K.ravel().tolist()},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": DISTORTIONS["plumb_bob"]},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": np.eye(3).ravel().tolist()},
        "projection_matrix": {"rows": 3, "cols": 4, "data": P},
    }
    message = {
        "width": WIDTH,
        "height": HEIGHT,
        "k": K.ravel().tolist(),
        "d": DISTORTIONS["plumb_bob"],
        "distortion_model": "plumb_bob",
        "roi": {"x_offset": 0, "y_offset": 0, "width": 0, "height": 0},
    }
    for fields, end in ((calibration, ""), (message, "---\n")):
        path = tmp_path / "camera.yaml"
        path.write_text(yaml.safe_dump(fields) + end)
        assert CameraModel.from_yaml(path) == model


@pytest.mark.parametrize("text", ["", "[1, 2", "just text", "image_width: 3", "image_width: x\nimage_height: 2\nk: 1"])
def test_a_file_that_is_no_camera_info_is_refused(tmp_path, text):
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    with pytest.raises(CameraError, match="camera"):
        CameraModel.from_yaml(path)


def test_missing_camera_info_file_is_refused(tmp_path):
    with pytest.raises(CameraError, match="nothing_here"):
        CameraModel.from_yaml(tmp_path / "nothing_here.yaml")
