"""Messages as a broken or hostile publisher may send them, and what must hold for whatever we make of them.

Each property is a function of one generated example; test_fuzz.py runs some hundred examples of each, soak.py as many
as it is told.
"""

import collections
import re

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointField, RegionOfInterest
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from depth_pose_ros.camera import CameraModel, FrameRectifier
from depth_pose_ros.config import InputConfig
from depth_pose_ros.errors import CameraError, ImageError
from depth_pose_ros.images import IMAGE_ENCODINGS
from depth_pose_ros.nodes import camera_input, messages, transforms
from depth_pose_ros.nodes.pose_node import LIMIT, PoseNode
from depth_pose_ros.nodes.transforms import TransformListener

UINT32 = 2**32 - 1
SIDES = st.one_of(st.integers(0, 40), st.sampled_from([1, 2, 7, 8, 64, 4096, 65535, 2**31 - 1, 2**31, UINT32]))
BYTES = st.one_of(st.binary(max_size=64), st.integers(0, 6000).map(lambda n: bytes(n % 251 for n in range(n))))
NUMBERS = st.one_of(
    st.floats(-1e4, 1e4), st.floats(), st.sampled_from([0.0, -0.0, 1.0, 1e-300, 1e300, np.nan, np.inf, -np.inf])
)
HEADERS = st.builds(
    Header,
    stamp=st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, UINT32)),
    frame_id=st.text(max_size=8),
)


@st.composite
def images(draw):
    """A sensor_msgs/Image: half of them right but for what is spoilt afterwards."""
    encoding = draw(
        st.one_of(st.sampled_from(IMAGE_ENCODINGS), st.sampled_from(["BGR8", "16UC1", "jpeg"]), st.text(max_size=6))
    )
    height, width = draw(st.integers(0, 20)), draw(st.integers(0, 20))
    size = {"16": 2, "32": 4}.get("".join(c for c in encoding if c.isdigit())[:2], 1)
    channels = 4 if "a" in encoding[:5] and "bayer" not in encoding else 3 if "gb" in encoding[:3].lower() else 1
    step = width * size * channels + draw(st.integers(0, 5))
    count = height * step * 3 // 2 if encoding.startswith("nv") else height * step
    message = Image(header=draw(HEADERS), height=height, width=width, encoding=encoding, step=step)
    message.is_bigendian = draw(st.integers(0, 255))
    data = draw(st.binary(min_size=count, max_size=count))
    if draw(st.booleans()):
        message.height, message.width, message.step = draw(SIDES), draw(SIDES), draw(SIDES)
    if draw(st.integers(0, 3)) == 0:
        data = draw(BYTES)
    messages.fill(message, np.frombuffer(data, np.uint8))
    return message


def _picture(extension, gray):
    image = np.random.default_rng(0).integers(0, 255, (24, 32) if gray else (24, 32, 3), np.uint8)
    return cv2.imencode(extension, image)[1].tobytes()


PICTURES = [_picture(extension, gray) for extension in (".jpg", ".png") for gray in (True, False)]


@st.composite
def compressed_images(draw):
    """A sensor_msgs/CompressedImage: a JPEG or PNG, cut, with some bytes changed, or none at all."""
    data = bytearray(draw(st.one_of(st.sampled_from(PICTURES), BYTES)))
    for _ in range(draw(st.integers(0, 6))):
        if data:
            at = draw(st.integers(0, min(len(data) - 1, draw(st.sampled_from([30, 200, 10**6])))))
            data[at] = draw(st.integers(0, 255))
    data = data[: draw(st.sampled_from([len(data), len(data) // 2, 25, 3]))]
    message = CompressedImage(
        header=draw(HEADERS), format=draw(st.sampled_from(["jpeg", "png", "", "bayer_rggb8; jpeg"]))
    )
    messages.fill(message, np.frombuffer(bytes(data), np.uint8))
    return message


@st.composite
def camera_infos(draw):
    """A sensor_msgs/CameraInfo: a good one, of which some fields are spoilt."""
    K = [20.0, 0.0, 15.5, 0.0, 21.0, 11.5, 0.0, 0.0, 1.0]
    message = CameraInfo(header=draw(HEADERS), width=32, height=24, distortion_model="plumb_bob", k=K)
    message.d = [0.1, -0.05, 0.001, 0.002, 0.01]
    for name in draw(st.sets(st.sampled_from(["size", "model", "d", "k", "r", "p", "binning", "roi"]), max_size=3)):
        if name == "size":
            message.width, message.height = draw(SIDES), draw(SIDES)
        elif name == "model":
            known = ["plumb_bob", "rational_polynomial", "equidistant", "fisheye", ""]
            message.distortion_model = draw(st.one_of(st.sampled_from(known), st.text(max_size=5)))
        elif name == "d":
            message.d = draw(st.lists(NUMBERS, max_size=15))
        elif name == "binning":
            message.binning_x, message.binning_y = draw(SIDES), draw(SIDES)
        elif name == "roi":
            message.roi = RegionOfInterest(
                x_offset=draw(SIDES), y_offset=draw(SIDES), width=draw(SIDES), height=draw(SIDES)
            )
        else:
            size = {"k": 9, "r": 9, "p": 12}[name]
            values = draw(st.lists(NUMBERS, min_size=size, max_size=size))
            if name == "k" and draw(st.booleans()):
                values = [v if draw(st.booleans()) else w for v, w in zip(K, values)]
            setattr(message, name, values)
    return message


@st.composite
def match_clouds(draw):
    """A sensor_msgs/PointCloud2 of matches, of which some fields are spoilt."""
    count = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    points = rng.uniform(-5, 400, (4, count)).astype(np.float32)
    matches = messages.Matches(points[:2].T, points[2:].T, rng.uniform(-1, 5, count).astype(np.float32))
    stamp = draw(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
    message = messages.matches_message(
        messages.StampedMatches(stamp, "c", draw(st.sampled_from([None, 0, 5])), matches)
    )
    message.header = draw(HEADERS)
    for name in draw(st.sets(st.sampled_from(["size", "step", "data", "fields", "endian", "values"]), max_size=2)):
        if name == "size":
            message.height, message.width = draw(SIDES), draw(SIDES)
        elif name == "step":
            message.point_step, message.row_step = draw(SIDES), draw(SIDES)
        elif name == "data":
            messages.fill(message, np.frombuffer(draw(BYTES), np.uint8))
        elif name == "fields":
            kinds = st.builds(
                PointField,
                name=st.sampled_from([*messages.MATCH.names, "x"]),
                offset=SIDES,
                datatype=st.integers(0, 255),
                count=SIDES,
            )
            message.fields = draw(st.lists(kinds, max_size=9))
        elif name == "endian":
            message.is_bigendian = not message.is_bigendian
        else:
            values = np.frombuffer(bytes(message.data), np.uint8).copy()
            values[:: draw(st.integers(1, 9))] = 255
            messages.fill(message, values)
    return message


TRANSFORMS = st.builds(
    TransformStamped,
    header=HEADERS,
    child_frame_id=st.text(max_size=5),
    transform=st.builds(
        Transform,
        translation=st.builds(Vector3, x=NUMBERS, y=NUMBERS, z=NUMBERS),
        rotation=st.builds(Quaternion, x=NUMBERS, y=NUMBERS, z=NUMBERS, w=NUMBERS),
    ),
)


# ----------------------------------------------------------------------------------------------------- what must hold
refusals = collections.Counter()
"""By reason, its numbers left out."""


def _or_refused(read, message, *errors):
    """What was read, or None where it was refused with a reason."""
    try:
        return read(message)
    except errors as error:
        assert len(str(error)) > 20, repr(error)
        refusals[re.sub(r"'.*?'|\[.*?\]|[-+.\d]+", "_", str(error))[:60]] += 1
        return None


def check_image(message):
    image = _or_refused(messages.image_from_message, message, ImageError)
    if image is not None:
        assert image.shape in ((message.height, message.width), (message.height, message.width, 3))
        assert image.dtype == np.uint8 and image.flags.c_contiguous


def check_depth(message):
    depth = _or_refused(messages.depth_from_message, message, ImageError)
    if depth is not None:
        assert depth.shape == (message.height, message.width) and depth.dtype == np.float32
        assert ((depth > 0) | np.isnan(depth)).all() and not np.isinf(depth).any()


def check_compressed(message):
    image = _or_refused(messages.image_from_compressed, message, ImageError)
    if image is not None:
        assert image.dtype == np.uint8 and image.shape[0] * image.shape[1] <= 1 << 26


def check_camera_info(message):
    model = _or_refused(CameraModel.from_camera_info, message, CameraError)
    if model is None:
        return
    assert model == CameraModel.from_camera_info(message) and hash(model) == hash(model)
    pinhole = _or_refused(lambda m: m.pinhole, model, CameraError)
    if pinhole is not None and pinhole.width * pinhole.height < 10_000:
        rectifier = _or_refused(lambda m: FrameRectifier(m, (16, 16), (20, 20)), model, CameraError)
        if rectifier is not None:
            image, gray = rectifier(np.zeros((pinhole.height, pinhole.width), np.uint8))
            assert image.shape == (16, 16, 3) and gray.shape == (20, 20)


def check_match_cloud(message):
    stamped = _or_refused(messages.matches_from_message, message, ImageError)
    if stamped is not None:
        matches = stamped.matches
        assert matches.points_1.shape == matches.points_2.shape == (len(matches), 2)
        assert np.isfinite(matches.points_1).all() and np.isfinite(matches.scores).all()


def check_transform(message):
    T = _or_refused(messages.transform_from_message, message, ValueError)
    if T is not None:
        assert np.isfinite(T).all() and np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max() < 1e-6


PROPERTIES = [
    (images(), check_image),
    (images(), check_depth),
    (compressed_images(), check_compressed),
    (camera_infos(), check_camera_info),
    (match_clouds(), check_match_cloud),
    (TRANSFORMS, check_transform),
]


# ------------------------------------------------------------------------------------------------------- the handlers
class Handlers:
    """The callbacks of the nodes, with nothing of DDS between: pose_node's, the camera's of the others, and TF's."""

    def __init__(self):
        self._wait, camera_input.CAMERA_INFO_WAIT = camera_input.CAMERA_INFO_WAIT, 0.0
        self.pose_node = PoseNode()
        self.pose_node.start()
        self._node = rclpy.create_node("fuzz")
        self._camera = camera_input.CameraInput(self._node, InputConfig())
        self._camera.pause(False)
        self._tf = TransformListener(self._node)
        take = {topic: subscription.callback for topic, subscription in self.pose_node._inputs.items()}
        self.properties = [
            (images(), self.check_camera_image),
            (camera_infos(), self.check_camera_camera_info),
            (match_clouds(), self._check_pose_node(take["flow/matches"], "pose_node_matches")),
            (camera_infos(), self._check_pose_node(take["flow/camera_info"], "pose_node_camera_info")),
            (images(), self._check_pose_node(take["network_depth/image"], "pose_node_depth")),
            (TRANSFORMS, self.check_tf),
        ]

    def close(self):
        camera_input.CAMERA_INFO_WAIT = self._wait
        self.pose_node.close()
        self.pose_node.destroy_node()
        self._node.destroy_node()

    def check_camera_image(self, message):
        self._camera._take_image(message)
        assert len(self._camera._slot) == 1
        _or_refused(lambda waiting: self._camera._check(*waiting), self._camera._slot.pop(), ImageError, CameraError)

    def check_camera_camera_info(self, message):
        self._camera._take_camera_info(message)
        assert len(self._camera._models) <= 8

    def check_tf(self, message):
        self._tf._listen(TFMessage(transforms=[message]))
        assert len(self._tf._links) <= transforms.MAX_FRAMES

    def _check_pose_node(self, take, name):
        node = self.pose_node

        def check(message):
            refused = node.refused
            take(message)
            if node.refused > refused:
                assert len(node.refusal) > 20, node.refusal
                refusals[name] += node.refused - refused
            assert max(len(node._waiting), len(node._cameras), len(node._depths)) <= LIMIT + 1

        check.__name__ = f"check_{name}"
        return check
