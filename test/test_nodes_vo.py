"""vo_node over real DDS: the node in a process of its own, a camera in this one."""

import signal
from itertools import pairwise

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry, Path
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from ros_helpers import LATCHED, PERIOD, START, NodeProcess, Peer, Room, stamps, unlike, values
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.engines import available_models
from depth_pose_ros.engines.manifest import DEFAULT_MODELS
from depth_pose_ros.evaluation.trajectory import read_tum
from depth_pose_ros.geometry.se3 import inverse, make_pose, so3_exp
from depth_pose_ros.images import INLIER
from depth_pose_ros.nodes import messages
from depth_pose_ros.nodes.publishers import R_BODY_OPTICAL

pytestmark = pytest.mark.skipif(
    not set(DEFAULT_MODELS.values()) <= set(available_models()), reason="the default networks are not in models/"
)

CAMERA = PinholeCamera(320, 192, 200.0, 200.0, 159.5, 95.5)
STEP = 0.15  # m per frame


@pytest.fixture(scope="module", autouse=True)
def ros():
    rclpy.init(args=[])
    yield
    rclpy.shutdown()


@pytest.fixture(scope="module")
def room():
    return Room(CAMERA)


@pytest.fixture
def start():
    """Start nodes, and see at the end that those still running stop without a stack trace."""
    started = []

    def start_node(node: str = "vo_node", *ros_arguments: str, **environment: str) -> NodeProcess:
        started.append(NodeProcess(node, *ros_arguments, **environment))
        return started[-1]

    yield start_node
    for process in started:
        if process.is_running:
            assert process.stop() == 0, process.said
            assert "Traceback" not in process.said


@pytest.fixture
def peer():
    peers = []

    def make(namespace: str = "") -> Peer:
        peers.append(Peer(namespace))
        return peers[-1]

    yield make
    for one in peers:
        one.close()


def forward(count, yaw=0.0):
    """Poses of a camera that goes forward and turns by ``yaw`` (rad, to the left) with each frame."""
    T, step = np.eye(4), make_pose(so3_exp(np.array([0.0, -yaw, 0.0])), np.array([0.0, 0.0, STEP]))
    T[2, 3] = -3.0
    for _ in range(count):
        yield T.copy()
        T = T @ step


def drive(peer, room, count=6, first=0, yaw=0.0, frame_id="camera", camera=CAMERA):
    """Show the room to the node, each frame after the one before it was answered. Returns the stamps."""
    sent = []
    for index, T in enumerate(forward(count, yaw)):
        stamp = START + (first + index) * PERIOD
        peer.send(room.view(T), stamp, camera, frame_id)
        peer.spin_until(lambda s=stamp: s in stamps(peer.got["status"]), what=f"status of frame {index}")
        sent.append(stamp)
    peer.spin(0.3)
    return sent


def count_of_colour(picture, rgb):
    """Pixels of a BGR picture that have just this colour."""
    return int((picture == rgb[::-1]).all(axis=2).sum())


def test_every_topic_of_a_drive(start, peer, room):
    node, camera = start(), peer()
    topics = {"odom": Odometry, "/tf": TFMessage, "path": Path, "depth/image": Image}
    topics |= {"depth/camera_info": CameraInfo, "points": PointCloud2, "flow/image": Image, "matches/image": Image}
    for topic, message_type in topics.items():
        camera.listen(message_type, topic)
        camera.listen_raw(message_type, topic)
    camera.listen(DiagnosticArray, "status", LATCHED)
    camera.listen_raw(DiagnosticArray, "status", LATCHED)
    camera.listen(DiagnosticArray, "/diagnostics")
    camera.wait_for_node(node)
    sent = drive(camera, room, count=6, yaw=0.02)
    got = camera.got

    # Every frame is answered under its own stamp; the first has no motion yet.
    assert stamps(got["status"]) == sent
    for topic in ("odom", "flow/image"):
        assert stamps(got[topic]) == sent[1:], topic
    for topic in ("path", "depth/image", "depth/camera_info", "points", "matches/image"):
        assert stamps(got[topic]) == sent, topic
    transforms = [transform for message in got["/tf"] for transform in message.transforms]
    assert [messages.stamp_ns(t.header.stamp) for t in transforms] == sent[1:]

    # Frames: odom has body axes (forward is x), its child is the optical frame. TF says the same.
    for odom, transform in zip(got["odom"], transforms):
        assert (odom.header.frame_id, odom.child_frame_id) == ("odom", "camera")
        assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "camera")
        assert transform.transform.translation.x == odom.pose.pose.position.x
        assert transform.transform.rotation == odom.pose.pose.orientation
    path = np.array([[p.pose.position.x, p.pose.position.y, p.pose.position.z] for p in got["path"][-1].poses])
    assert len(path) == len(sent)
    straight = path[-1] - path[0]
    assert straight[0] > 0.9 * np.linalg.norm(straight) > 0, path  # forward ...
    assert straight[1] > 0, path  # ... and to the left
    odom = got["odom"][-1]
    assert odom.twist.twist.linear.z > 0  # forward in the optical frame of the child
    assert -0.3 < odom.twist.twist.angular.y < -0.1  # 0.2 rad/s to the left is negative about y, which points down
    covariance = np.array(odom.pose.covariance).reshape(6, 6)
    assert np.allclose(covariance, covariance.T) and np.linalg.eigvalsh(covariance).min() > 0

    # Depth: metres or the network's unit, along Z, at the image's size, with the camera of the rectified image.
    depth = messages.depth_from_message(got["depth/image"][-1])
    assert depth.shape == (192, 320) and got["depth/image"][-1].encoding == "32FC1"
    assert got["depth/image"][-1].header.frame_id == "camera"
    assert np.nanmin(depth) > 0
    assert messages.camera_from_message(got["depth/camera_info"][-1]) == CAMERA
    cloud = got["points"][-1]
    xyz = messages.read_cloud(cloud, ["x", "y", "z", "rgb"])
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb"] and cloud.header.frame_id == "camera"
    assert len(xyz) > 1000 and np.isfinite(xyz["z"]).all()
    pixels = CAMERA.project(np.stack([xyz["x"], xyz["y"], xyz["z"]], axis=1))
    assert pixels.min() > -1 and pixels[:, 0].max() < 320 and pixels[:, 1].max() < 192
    flow = got["flow/image"][-1]
    assert flow.encoding == "bgr8" and flow.width > 100
    green = [count_of_colour(messages.image_from_message(picture), INLIER) for picture in got["matches/image"]]
    assert green[0] == 0 and min(green[1:]) > 100, green

    # Another implementation of the message format reads the same in the same bytes.
    try:
        from rosbags.typesys import Stores, get_typestore

        store = get_typestore(Stores.LATEST)
    except ImportError:  # a ROS 2 installation does not bring it
        camera.raw.clear()
    for topic, raw in camera.raw.items():
        kind = topics.get(topic, DiagnosticArray)
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        assert len(raw) == len(got[topic]) > 0, topic
        for data, message in zip(raw, got[topic]):
            assert unlike(store.deserialize_cdr(bytes(data), name), message) == [], topic

    # Status tells the state and where the scale comes from.
    last = values(got["status"][-1])
    assert last["state"] == "tracking" and last["scale_source"] == "network" and last["metric"] == "false", last
    assert int(last["inliers"]) > 100 and int(last["dropped"]) == 0 and "onnxruntime" in last["backend"]
    camera.spin_until(lambda: len(got["/diagnostics"]) > 2, what="diagnostics")
    names = {status.name for status in got["/diagnostics"][-1].status}
    assert names == {"vo_node: output", "vo_node: images", "vo_node: networks", "vo_node: odometry"}
    assert "NOT metric" in node.said
    assert stamps(got["/diagnostics"])[-1] > sent[-1]  # these have the time of the clock, not of an image


def test_frames_that_cannot_be_used_are_refused_with_a_reason_and_the_node_lives(start, peer, room):
    node, camera = start(), peer()
    camera.listen(DiagnosticArray, "status", LATCHED)
    camera.wait_for_node(node)
    drive(camera, room, count=2)
    image = room.view(np.eye(4))
    next_stamp = START + 10 * PERIOD

    def send(spoil):
        nonlocal next_stamp
        next_stamp += PERIOD
        message = messages.image_message(image, messages.header(next_stamp, "camera"))
        spoil(message)
        camera.infos.publish(messages.camera_info_message(CAMERA, message.header))
        camera.images.publish(message)
        return next_stamp

    def refused(reason, spoil):
        send(spoil)
        node.wait_for(f"image refused: .*{reason}", spin=camera.spin)

    def answered(spoil):
        stamp = send(spoil)
        camera.spin_until(lambda: stamp in stamps(camera.got["status"]), what="status")
        return values(camera.got["status"][-1])

    refused("image encoding 'jpeg2000' is not known", lambda m: setattr(m, "encoding", "jpeg2000"))
    refused("is empty", lambda m: (setattr(m, "height", 0), setattr(m, "data", [])))
    refused("bytes of data", lambda m: setattr(m, "data", m.data[:-5]))
    refused("step = 7", lambda m: setattr(m, "step", 7))
    refused("names no frame_id", lambda m: setattr(m.header, "frame_id", ""))

    def pad(message):
        rows = np.zeros((192, 1024), np.uint8)
        rows[:, :960] = image.reshape(192, 960)
        message.step = 1024
        messages.fill(message, rows)

    answered(pad)

    def not_numbers(message):
        data = np.full((192, 320), np.nan, np.float32)
        message.encoding, message.step = "32FC1", 1280
        messages.fill(message, data)

    answered(not_numbers)
    black = answered(lambda m: messages.fill(m, np.zeros_like(image)))
    black = answered(lambda m: messages.fill(m, np.zeros_like(image)))
    assert black["state"] != "tracking" and black["reason"], black
    node.wait_for("tracking is lost: the image is almost uniform", spin=camera.spin)

    # Stamps that go back, and back again to where they were: one warning for the burst.
    for _ in range(3):
        camera.send(image, next_stamp, CAMERA)
        camera.spin(0.05)
    for _ in range(3):
        camera.send(image, next_stamp - PERIOD, CAMERA)
        camera.spin(0.05)
    node.wait_for("images must come in the order of their stamps", spin=camera.spin)
    answered(lambda m: None)
    assert sum("in the order of their stamps" in line for line in node.lines) == 1

    drive(camera, room, count=4, first=50)
    assert values(camera.got["status"][-1])["state"] == "tracking"
    node.wait_for("tracking again")
    assert "Traceback" not in node.said


def test_resolution_that_changes_in_flight_and_a_bag_that_starts_again(start, peer, room):
    node, camera = start(), peer()
    camera.listen(DiagnosticArray, "status", LATCHED)
    camera.listen(Odometry, "odom")
    camera.wait_for_node(node)
    drive(camera, room, count=3)
    before = camera.got["odom"][-1].pose.pose.position.x

    small = PinholeCamera(256, 128, 170.0, 170.0, 127.5, 63.5)
    drive(camera, Room(small), count=3, first=10, camera=small)
    node.wait_for("the camera changed to 256 x 128 pixels; going on from the last pose")
    assert camera.got["odom"][-1].pose.pose.position.x > before > 0

    drive(camera, Room(small), count=3, first=-1000, camera=small)
    node.wait_for("stamps jumped back by .* s .*going on from the last pose")
    positions = [odom.pose.pose.position.x for odom in camera.got["odom"]]
    assert all(after > before for before, after in pairwise(positions)), positions


def test_what_is_missing_is_named_after_five_seconds(start, peer, room):
    """One node without a camera; to the other the transform is missing. What else may be is in test_nodes_input.py."""
    nobody = start("vo_node", "-r", "__ns:=/nobody")
    no_base = start("vo_node", "-r", "__ns:=/no_base", "-p", "base_frame:=base_link")
    camera = peer("no_base")
    camera.listen(DiagnosticArray, "status", LATCHED)
    camera.listen(DiagnosticArray, "/diagnostics")
    camera.wait_for_node(no_base)
    indices = iter(range(1000))

    def play(seconds):
        camera.send(room.view(np.eye(4)), START + next(indices) * PERIOD, CAMERA)
        camera.spin(seconds)

    nobody.wait_for(
        r"no output for \d+ s: no publisher on /nobody/image .*there are images on .*/no_base/image",
        spin=play,
    )
    nobody.wait_for(r"no output for \d+ s: no CameraInfo on /nobody/camera_info; publish it, remap camera_info")
    no_base.wait_for(r"no transform between base_link and camera on /tf or /tf_static \(seen: none\)", spin=play)

    def told() -> bool:
        entries = [status for message in camera.got["/diagnostics"] for status in message.status]
        return any(entry.level == b"\2" and "no publisher on" in entry.message for entry in entries)

    camera.spin_until(told, what="the same on /diagnostics")


def test_the_base_moves_as_the_base_does_once_its_transform_is_known(start, peer, room):
    """A camera that looks to the left of the base, which drives forward: the camera moves to its right."""
    node, camera = start("vo_node", "-p", "base_frame:=base_link", "-p", "invert_tf:=true"), peer()
    camera.listen(DiagnosticArray, "status", LATCHED)
    camera.listen(Odometry, "odom")
    camera.listen(TFMessage, "/tf")
    camera.wait_for_node(node)

    T_base_camera = make_pose(so3_exp(np.array([0.0, 0.0, np.pi / 2])) @ R_BODY_OPTICAL, np.array([0.3, 0.1, 0.8]))

    def drive_forward(first, count):
        for index in range(first, first + count):
            T_room_camera = make_pose(np.eye(3), np.array([-1.0 + STEP * index, 0.0, 0.0]))
            stamp = START + index * PERIOD
            camera.send(room.view(T_room_camera), stamp, CAMERA)
            camera.spin_until(lambda s=stamp: s in stamps(camera.got["status"]), what="status")

    drive_forward(0, 2)
    assert not camera.got["odom"]  # never an identity in its place
    statics = camera.node.create_publisher(TFMessage, "/tf_static", LATCHED)
    head = messages.header(START, "base_link")
    statics.publish(TFMessage(transforms=[messages.transform_message(T_base_camera, head, "camera")]))
    camera.spin(1.0)
    drive_forward(2, 5)
    node.wait_for(r"camera sits at \(0.300, 0.100, 0.800\) m in base_link")
    last = START + 6 * PERIOD  # each topic arrives in its own time
    camera.spin_until(lambda: last in stamps(camera.got["odom"]), what="odom")
    camera.spin_until(lambda: last in [stamps(m.transforms)[-1] for m in camera.got["/tf"]], what="tf")

    odom = camera.got["odom"][-1]
    assert (odom.header.frame_id, odom.child_frame_id) == ("odom", "base_link")
    position = np.array([odom.pose.pose.position.x, odom.pose.pose.position.y, odom.pose.pose.position.z])
    assert position[0] > 0.95 * np.linalg.norm(position) > 0, position
    velocity = odom.twist.twist.linear
    assert velocity.x > 0.95 * np.linalg.norm([velocity.x, velocity.y, velocity.z])
    transform = camera.got["/tf"][-1].transforms[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ("base_link", "odom")
    T_base_odom = messages.transform_from_message(transform)
    np.testing.assert_allclose(inverse(T_base_odom)[:3, 3], position, atol=1e-9)


def test_without_a_scale_nothing_is_presented_as_metric(start, peer, room):
    node, camera = start("vo_node", "-p", "scale_source:=none", "-p", "image_transport:=compressed"), peer()
    camera.listen(DiagnosticArray, "status", LATCHED)
    for message_type, topic in (
        (Odometry, "odom"),
        (TFMessage, "/tf"),
        (Image, "depth/image"),
        (PointCloud2, "points"),
    ):
        camera.listen(message_type, topic)
    compressed = camera.node.create_publisher(CompressedImage, "image/compressed", 10)
    node.wait_for(" runs at ", spin=camera.spin)
    camera.shake_hands("vo_node")

    def drive_compressed(first):
        for index, T in enumerate(forward(4)):
            stamp = START + (first + index) * PERIOD
            head = messages.header(stamp, "camera")
            data = cv2.imencode(".png", room.view(T))[1]
            camera.infos.publish(messages.camera_info_message(CAMERA, head))
            message = CompressedImage(header=head, format="png")
            messages.fill(message, data)
            compressed.publish(message)
            camera.spin_until(lambda s=stamp: s in stamps(camera.got["status"]), what="status")
        camera.spin(0.3)

    drive_compressed(0)
    assert {odom.header.frame_id for odom in camera.got["odom"]} == {"odom_unscaled"}
    assert not camera.got["/tf"] and not camera.got["depth/image"] and not camera.got["points"]
    status = values(camera.got["status"][-1])
    assert (status["scale_source"], status["metric"]) == ("none", "false")
    assert "lengths have NO scale" in node.said

    request = SetParametersAtomically.Request(
        parameters=[Parameter("allow_unscaled_tf", value=True).to_parameter_msg()]
    )
    assert camera.call(SetParametersAtomically, "/vo_node/set_parameters_atomically", request).result.successful
    drive_compressed(10)
    assert camera.got["odom"][-1].header.frame_id == "odom" and camera.got["/tf"]


def test_services_and_live_parameters(start, peer, room, tmp_path):
    stem = tmp_path / "runs" / "drive"
    node, camera = start("vo_node", "-p", f"trajectory_path:={stem}", "-r", "__ns:=/robot"), peer("robot")
    camera.listen(DiagnosticArray, "status", LATCHED)
    camera.listen(Odometry, "odom")
    camera.wait_for_node(node)
    empty = camera.call(Trigger, "/robot/vo_node/save_trajectory", Trigger.Request())
    assert not empty.success and empty.message.startswith("0 poses")
    sent = drive(camera, room, count=4)

    saved = camera.call(Trigger, "/robot/vo_node/save_trajectory", Trigger.Request())
    assert saved.success and saved.message.startswith("4 poses in "), saved.message
    trajectory = read_tum(f"{stem}.tum")
    assert trajectory.stamps_ns.tolist() == sent
    last = camera.got["odom"][-1].pose.pose.position
    np.testing.assert_allclose(trajectory.poses[-1, :3, 3], [last.x, last.y, last.z], atol=1e-8)
    kitti = np.loadtxt(f"{stem}.kitti.txt").reshape(-1, 3, 4)
    np.testing.assert_allclose(kitti[0], np.eye(4)[:3], atol=1e-9)
    np.testing.assert_allclose(kitti[-1][:, 3], [-last.y, -last.z, last.x], atol=1e-7)  # optical axes, as in KITTI
    assert sorted(path.name for path in stem.parent.iterdir()) == ["drive.kitti.txt", "drive.tum"]

    assert camera.call(SetBool, "/robot/vo_node/pause", SetBool.Request(data=True)).success
    camera.send(room.view(np.eye(4)), START + 5 * PERIOD, CAMERA)
    camera.spin(0.7)
    assert stamps(camera.got["status"])[-1] == sent[-1]
    assert camera.call(SetBool, "/robot/vo_node/pause", SetBool.Request(data=False)).success
    drive(camera, room, count=3, first=20)  # later than max_gap: a new pair of frames
    assert camera.got["odom"][-1].pose.pose.position.x > last.x  # the pose went on from where it was

    assert camera.call(Trigger, "/robot/vo_node/reset", Trigger.Request()).success
    drive(camera, room, count=2, first=40)
    assert 0 < camera.got["odom"][-1].pose.pose.position.x < last.x

    def set_parameter(name, value):
        request = SetParametersAtomically.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return camera.call(SetParametersAtomically, "/robot/vo_node/set_parameters_atomically", request).result

    assert set_parameter("max_depth", 5.0).successful
    assert not set_parameter("max_depth", -5.0).successful
    refused = set_parameter("scale_source", "wheel")
    assert not refused.successful and "one of: network, median_depth, camera_height, none" in refused.reason
    read_only = set_parameter("flow_model", "other")
    assert not read_only.successful and "read-only" in read_only.reason, read_only
    drive(camera, room, count=2, first=60)


def test_a_scale_that_needs_a_depth_network_is_refused_without_one(start, peer):
    node, camera = start("vo_node", "-p", "depth_model:=none", "-p", "scale_source:=none"), peer("front")
    node.wait_for("lengths have NO scale", spin=camera.spin)
    for source in ("network", "median_depth"):
        wanted = SetParametersAtomically.Request(
            parameters=[Parameter("scale_source", value=source).to_parameter_msg()]
        )
        result = camera.call(SetParametersAtomically, "/vo_node/set_parameters_atomically", wanted).result
        assert not result.successful and f"scale_source = '{source}' needs a depth network" in result.reason


def test_the_latest_frame_wins(start, peer, room):
    node, camera = start("vo_node", "-r", "image:=/front/image_raw"), peer("front")
    images = camera.node.create_publisher(Image, "/front/image_raw", 50)
    camera.listen(DiagnosticArray, "/status", LATCHED)
    node.wait_for(" runs at ", spin=camera.spin)
    root = peer()
    root.shake_hands("vo_node")  # and so the node knows the topics of the other, which were made before
    camera.spin_until(lambda: camera.node.count_publishers("/status") > 0, what="status")
    for index, T in enumerate(forward(40)):
        head = messages.header(START + index * PERIOD, "camera")
        camera.infos.publish(messages.camera_info_message(CAMERA, head))  # the sibling of the remapped image topic
        images.publish(messages.image_message(room.view(T), head))
    last = START + 39 * PERIOD
    camera.spin_until(lambda: last in stamps(camera.got["/status"]), what="the last frame")
    answered = stamps(camera.got["/status"])
    assert answered == sorted(answered)
    counts = values(camera.got["/status"][-1])
    assert int(counts["dropped"]) > 0
    # The first answers may be given before the listener is known to the node.
    assert len(answered) <= int(counts["received"]) - int(counts["dropped"]) < 40


@pytest.mark.parametrize(
    "moment, number",
    [
        ("loading", signal.SIGINT),
        ("idle", signal.SIGTERM),
        ("working", signal.SIGINT),
        ("working", signal.SIGTERM),
    ],
)
def test_a_signal_ends_the_node_quietly_at_any_moment(start, peer, room, moment, number):
    node = start("vo_node")
    camera = peer()
    if moment == "loading":
        node.wait_for("scale_source")
    else:
        node.wait_for(" runs at ")
    if moment == "working":
        camera.listen(DiagnosticArray, "status", LATCHED)
        camera.wait_for_node(node)
        for index, T in enumerate(forward(10)):
            camera.send(room.view(T), START + index * PERIOD, CAMERA)
        camera.spin(0.1)
    code = node.stop(number)
    assert "Traceback" not in node.said and "terminate called" not in node.said
    assert code == 0, node.said


@pytest.mark.parametrize(
    "argument, reason",
    [
        ("flow_model:=no_such_model", "no model is called 'no_such_model'; available: "),
        ("depth_model:=/nowhere/net.onnx", "no model at /nowhere/net.onnx"),
        ("depth_model:=flow_small", "a depth network is needed"),
        ("backend:=abacus", "backend"),
        ("camera_height:=2", "write a number with a point"),
        ("scale_source:=wheel", "one of: network, median_depth, camera_height, none"),
        ("depth_model:=none", "scale_source = 'network' needs a depth network"),
        ("camera_info_url:=/nowhere/camera.yaml", "/nowhere/camera.yaml"),
        ("network_width:=640", "set both, or neither"),
    ],
)
def test_what_cannot_work_ends_at_once_with_one_sentence(start, argument, reason):
    node = start("vo_node", "-p", argument)
    assert node.wait() == 1, node.said
    assert reason in node.said and "Traceback" not in node.said, node.said


def test_a_corrupt_model_ends_with_one_sentence(start, tmp_path):
    from depth_pose_ros.engines import model_path

    manifest = model_path(DEFAULT_MODELS["flow"])
    for file in manifest.parent.glob(manifest.stem + ".*"):
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 1000 if file.suffix == ".onnx" else None])
    node = start("vo_node", "-p", f"flow_model:={tmp_path / manifest.name}")
    assert node.wait() == 1
    assert "is not the file its manifest describes" in node.said and "Traceback" not in node.said, node.said
