"""What CameraInput makes of a camera's topics: the images that can be used, and a name for what is missing."""

import threading

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_helpers import PERIOD, SENSOR, START, Peer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import InputConfig
from depth_pose_ros.errors import CameraError
from depth_pose_ros.nodes import camera_input, messages
from depth_pose_ros.nodes.camera_input import CameraInput

CAMERA = PinholeCamera(64, 48, 50.0, 50.0, 31.5, 23.5)
IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def ros():
    rclpy.init(args=[])
    yield
    rclpy.shutdown()


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.setattr(camera_input, "SILENCE", 0.3)
    monkeypatch.setattr(camera_input, "CAMERA_INFO_WAIT", 0.2)
    one = Peer("camera")
    yield one
    one.close()


@pytest.fixture
def listen(peer):
    """A CameraInput beside the peer, and the images that it let through."""
    made = []

    def make(remappings=(), **config):
        arguments = ["--ros-args", *(part for rule in remappings for part in ("-r", rule))]
        node = rclpy.create_node("listener", namespace="camera", cli_args=arguments)
        given = CameraInput(node, InputConfig(**config))
        given.pause(False)
        images = []

        def work():
            while (image := given.next()) is not None:
                images.append(image)

        worker = threading.Thread(target=work)
        worker.start()
        peer.add(node)
        made.append((node, given, worker))
        return given, images

    yield make
    for node, given, worker in made:
        given.close()
        worker.join()
        node.destroy_node()


def connect(peer, given, publisher=None):
    publisher = publisher or peer.images
    peer.spin_until(lambda: publisher.get_subscription_count() > 0, what="a subscriber")
    peer.spin(0.2)


def problems(peer, given, play=lambda: None):
    """What is missing once nothing has come through for SILENCE."""
    found = []

    def told():
        play()
        peer.spin(0.05)
        found[:] = given.problems()
        return bool(found)

    peer.spin_until(told, what="a problem")
    return " | ".join(found)


def test_an_image_comes_with_its_camera(peer, listen):
    given, images = listen()
    connect(peer, given)
    peer.images.publish(messages.image_message(IMAGE, messages.header(START, "optical")))
    peer.infos.publish(messages.camera_info_message(CAMERA, messages.header(START, "optical")))  # after its image
    peer.spin_until(lambda: images, what="the image")
    np.testing.assert_array_equal(images[0].image, IMAGE)
    assert (images[0].stamp_ns, images[0].frame_id, images[0].model.pinhole) == (START, "optical", CAMERA)
    assert not images[0].jumped_back and given.problems() == []


def test_the_camera_info_whose_size_fits_is_taken(peer, listen):
    given, images = listen()
    connect(peer, given)
    for index, camera in enumerate((CAMERA, CAMERA.resized(32, 24), CAMERA)):
        image = np.zeros((camera.height, camera.width), np.uint8)
        peer.infos.publish(messages.camera_info_message(CAMERA.resized(128, 96), messages.header(START, "c")))
        peer.send(image, START + index * PERIOD, camera)
        peer.spin_until(lambda n=index: len(images) > n, what="the image")
    assert [image.model.image_width for image in images] == [64, 32, 64]


def test_the_camera_may_come_from_a_file(peer, listen, tmp_path):
    file = tmp_path / "camera.yaml"
    file.write_text(
        "image_width: 64\nimage_height: 48\ncamera_matrix: {data: [50, 0, 31.5, 0, 50, 23.5, 0, 0, 1]}\n"
        "distortion_model: plumb_bob\ndistortion_coefficients: {data: [0, 0, 0, 0, 0]}\n"
    )
    given, images = listen(camera_info_url=f"file://{file}", camera_frame="mine")
    connect(peer, given)
    peer.send(IMAGE, START, None, frame_id="")
    peer.spin_until(lambda: images, what="the image")
    assert (images[0].model.pinhole, images[0].frame_id) == (CAMERA, "mine")
    with pytest.raises(CameraError, match=r"nowhere\.yaml"):
        listen(camera_info_url="nowhere.yaml")


@pytest.mark.parametrize(
    "remappings, transport, image, info",
    [
        ((), "raw", "/camera/image", "/camera/camera_info"),
        (["image:=/front/image_raw"], "raw", "/front/image_raw", "/front/camera_info"),
        (["image:=/front/image_raw"], "compressed", "/front/image_raw/compressed", "/front/camera_info"),
        (["image:=/front/image_raw/compressed"], "compressed", "/front/image_raw/compressed", "/front/camera_info"),
        (["image:=/front/image", "camera_info:=/info"], "raw", "/front/image", "/info"),
        (["image:=rect"], "raw", "/camera/rect", "/camera/camera_info"),
    ],
)
def test_names_follow_image_transport(listen, remappings, transport, image, info):
    given, _ = listen(remappings, image_transport=transport)
    assert (given.topic, given.camera_info_topic) == (image, info)


@pytest.mark.parametrize(
    "topic, is_rectified", [("image_rect", True), ("image_rect_color", True), ("image_raw", False), ("image", False)]
)
def test_rectified_topics_are_known_by_their_names(listen, topic, is_rectified):
    given, _ = listen([f"image:=/front/{topic}"])
    assert given.is_rectified == is_rectified


def test_the_queue_keeps_the_latest(peer):
    node = rclpy.create_node("slow", namespace="camera")
    peer.add(node)
    given = CameraInput(node, InputConfig(queue_size=2))
    given.pause(False)
    connect(peer, given)
    for index in range(5):
        peer.send(IMAGE, START + index * PERIOD, CAMERA)
    peer.spin_until(lambda: given.received == 5, what="five images")
    assert given.dropped == 3
    assert [(given.next().stamp_ns - START) // PERIOD for _ in range(2)] == [3, 4]
    node.destroy_node()


def test_nobody_publishes(peer, listen):
    given, _ = listen(["image:=elsewhere"])
    told = problems(peer, given)
    assert "no publisher on /camera/elsewhere (there are images on /camera/image; remap image)" in told
    assert "no CameraInfo on /camera/camera_info; publish it, remap camera_info, or set camera_info_url" in told


def test_a_best_effort_camera_and_a_reliable_subscription(peer, listen):
    images = peer.node.create_publisher(Image, "unreliable", SENSOR)
    given, _ = listen(["image:=unreliable"], image_qos="reliable")
    assert images.topic_name == given.topic
    assert "incompatible QoS on /camera/unreliable: the publisher is best effort" in problems(peer, given)


def test_a_camera_that_is_silent(peer, listen):
    given, _ = listen()
    connect(peer, given)
    told = problems(peer, given)
    assert "1 publisher(s) on /camera/image, but nothing arrives" in told
    assert "set image_qos to reliable" in told


def test_a_topic_of_compressed_images(peer, listen):
    context = rclpy.Context()  # one DDS participant cannot have both types on one topic
    rclpy.init(args=[], context=context)
    try:
        other = rclpy.create_node("other", namespace="camera", context=context)
        other.create_publisher(CompressedImage, "small", QoSProfile(depth=1))
        given, _ = listen(["image:=small"])
        peer.spin_until(lambda: peer.node.count_publishers("small") > 0, what="the publisher")
        told = problems(peer, given)
        assert "carries sensor_msgs/msg/CompressedImage, expected sensor_msgs/msg/Image; set image_transport" in told
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    "info, reason",
    [
        (None, "no CameraInfo on /camera/camera_info; publish it, remap camera_info, or set camera_info_url"),
        (CameraInfo(width=64, height=48), "the camera is not calibrated"),
        (messages.camera_info_message(CAMERA.resized(128, 96), messages.header(0, "")), "is for 128 x 96"),
    ],
    ids=["none", "zero K", "another size"],
)
def test_images_without_a_camera(peer, listen, info, reason):
    given, images = listen()
    connect(peer, given)
    stamps = iter(range(START, START + 1000 * PERIOD, PERIOD))

    def play():
        if info is not None:
            peer.infos.publish(info)
        peer.send(IMAGE, next(stamps), None)

    assert reason in problems(peer, given, play)
    assert not images and given.refused > 0


def test_reliable_images_are_taken_by_a_best_effort_subscription(peer, listen):
    assert peer.images.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    given, images = listen()
    connect(peer, given)
    peer.send(IMAGE, START, CAMERA)
    peer.spin_until(lambda: images, what="the image")


def test_a_paused_camera_says_so(peer, listen):
    given, images = listen()
    connect(peer, given)
    given.pause(True)
    peer.send(IMAGE, START, CAMERA)
    peer.spin_until(lambda: given.received == 1, what="the image")
    assert given.problems() == ["paused; call ~/pause with data: false to go on"] and not images
