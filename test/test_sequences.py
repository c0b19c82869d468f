"""Sequences of every format: small ones written here, and the real clips where they lie beside the repository."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from depth_pose_ros.camera import CameraModel, PinholeCamera
from depth_pose_ros.errors import CameraError, DepthPoseError, ImageError, SequenceError
from depth_pose_ros.evaluation.trajectory import Trajectory, write_kitti, write_tum
from depth_pose_ros.geometry.se3 import make_pose, quaternion_from_matrix, so3_exp
from depth_pose_ros.sequences import open_sequence

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
WIDTH, HEIGHT = 40, 30
COUNT = 12


def picture(i: int, gray: bool = False) -> np.ndarray:
    """A picture that tells its number in every pixel."""
    image = np.full((HEIGHT, WIDTH, 3), (i, 2 * i, 200), np.uint8)
    return image[..., 0].copy() if gray else image


def write_images(folder: Path, names: list[str], gray: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), picture(i, gray))


def poses(n: int = COUNT) -> np.ndarray:
    return np.array(
        [make_pose(so3_exp(np.array([0.01, 0.02, 0.03]) * i), np.array([0.1, 0, 1.0]) * i) for i in range(n)]
    )


def assert_images(sequence, count: int = COUNT, gray: bool = False) -> None:
    """Frame i shows picture i, by index and by iteration."""
    assert len(sequence) == count
    frames = list(sequence)
    assert len(frames) == count
    for i, (stamp, image) in enumerate(frames):
        expected = picture(i, gray)
        assert np.array_equal(image, expected if image.ndim == expected.ndim else cv2.merge([expected] * 3))
        again = sequence[i]
        assert again[0] == stamp and np.array_equal(again[1], image)
    assert sequence[-1][0] == frames[-1][0]
    with pytest.raises(IndexError):
        sequence[count]


def write_depth(path: Path, metres: float, factor: float, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """All of it at one depth, but for a corner pixel that is unknown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    depth = np.full(size, round(metres * factor), np.uint16)
    depth[0, 0] = 0
    assert cv2.imwrite(str(path), depth)


def assert_depth(sequence, index: int, metres: float) -> None:
    depth = sequence.true_depth(index)
    assert sequence.has_true_depth and depth.dtype == np.float32
    assert np.isnan(depth[0, 0]) and depth[depth.shape[0] // 2, depth.shape[1] // 2] == pytest.approx(metres, rel=1e-3)


# ---------------------------------------------------------------------------------------------------- plain folder
def test_plain_folder_in_natural_order(tmp_path):
    write_images(tmp_path, [f"frame{i}.png" for i in range(COUNT)])
    (tmp_path / "notes.txt").write_text("not an image")
    sequence = open_sequence(tmp_path, fps=20)
    assert_images(sequence)
    assert [stamp for stamp, _ in sequence] == [i * 50_000_000 for i in range(COUNT)]
    assert sequence.camera is None and sequence.ground_truth is None
    assert (sequence.name, sequence.format) == (tmp_path.name, "images")


def test_what_lies_beside_the_images_is_used(tmp_path):
    write_images(tmp_path / "images", [f"{i:03d}.jpg" for i in range(COUNT)])
    (tmp_path / "times.txt").write_text("\n".join(f"{5 + 0.1 * i:.3f}" for i in range(COUNT)))
    (tmp_path / "intrinsics.txt").write_text("# fx fy cx cy width height\n30 31 19.5 14.5 40 30 -0.1 0.01 0 0\n")
    stamps = [5_000_000_000 + i * 100_000_000 for i in range(COUNT)]
    write_tum(tmp_path / "groundtruth_tum.txt", Trajectory(stamps, poses()))
    sequence = open_sequence(tmp_path)
    assert [stamp for stamp, _ in sequence] == stamps
    assert sequence.camera.pinhole == PinholeCamera(40, 30, 30, 31, 19.5, 14.5)
    assert sequence.camera.D.tolist() == [-0.1, 0.01, 0, 0]
    assert np.allclose(sequence.ground_truth.poses, poses(), atol=1e-8)
    (tmp_path / "times.txt").write_text("1 2 3")
    with pytest.raises(SequenceError, match="3 stamps for 12 images"):
        open_sequence(tmp_path)


def test_true_depth_and_flow_beside_the_images(tmp_path):
    write_images(tmp_path, ["a.png", "b.png", "c.png"])
    write_depth(tmp_path / "depth" / "000000.png", 3.5, 256)
    for i in (1, 2):
        write_depth(tmp_path / "depth" / f"{i:06d}.png", 3.5 + i, 256)
    (tmp_path / "depth" / "depth.yaml").write_text("factor: 256\nunit: metre\n")
    flow = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    flow[..., 2], flow[..., 1], flow[..., 0] = (
        32768 + 64 * 5,
        32768 - 32,
        1,
    )  # u, v and what is known, in OpenCV's order
    flow[0, 0, 0] = 0
    (tmp_path / "flow").mkdir()
    for i in (0, 1):
        cv2.imwrite(str(tmp_path / "flow" / f"{i}.png"), flow)
    sequence = open_sequence(tmp_path)
    assert_depth(sequence, 1, 4.5)
    assert sequence.has_true_flow and sequence.true_flow(2) is None
    assert np.isnan(sequence.true_flow(0)[0, 0]).all() and sequence.true_flow(1)[5, 5].tolist() == [5.0, -0.5]
    (tmp_path / "depth" / "depth.yaml").write_text("scale: 256\n")
    with pytest.raises(SequenceError, match="factor"):
        open_sequence(tmp_path)


def test_gray_images_are_three_equal_channels_or_stay_one(tmp_path):
    write_images(tmp_path, [f"{i}.png" for i in range(COUNT)], gray=True)
    assert open_sequence(tmp_path)[3][1].shape == (HEIGHT, WIDTH, 3)
    assert_images(open_sequence(tmp_path), gray=True)
    assert open_sequence(tmp_path, keep_gray=True)[3][1].shape == (HEIGHT, WIDTH)


def test_iteration_goes_on_after_a_damaged_image(tmp_path):
    write_images(tmp_path, [f"{i}.png" for i in range(4)])
    (tmp_path / "1.png").write_bytes(b"damaged")
    frames = iter(open_sequence(tmp_path))
    next(frames)
    with pytest.raises(ImageError, match=r"1\.png"):
        next(frames)
    assert np.array_equal(next(frames)[1], picture(2))


# ---------------------------------------------------------------------------------------------------- a given camera
def test_a_given_camera_wins(tmp_path):
    write_images(tmp_path, ["0.png", "1.png"])
    (tmp_path / "intrinsics.txt").write_text("30 30 19.5 14.5 40 30")
    wanted = PinholeCamera(WIDTH, HEIGHT, 50, 51, 20, 15)
    (tmp_path / "my.yaml").write_text("width: 40\nheight: 30\nk: [50, 0, 20, 0, 51, 15, 0, 0, 1]\n")
    model = CameraModel.from_pinhole(wanted)
    yaml = tmp_path / "my.yaml"
    for given in (wanted, model, (50, 51, 20, 15), ["50", "51", "20", "15"], yaml, str(yaml), [str(yaml)]):
        assert open_sequence(tmp_path, camera=given).camera.pinhole == wanted
    for bad in ((1, 2, 3), ["a", "b", "c", "d"], (0, 1, 2, 3), "missing.yaml", ["missing.yaml"]):
        with pytest.raises(CameraError):
            open_sequence(tmp_path, camera=bad)


# -------------------------------------------------------------------------------------------------------------- KITTI
def make_kitti_odometry(root: Path) -> None:
    write_images(root / "image_0", [f"{i:06d}.png" for i in range(COUNT)], gray=True)
    write_images(root / "image_2", [f"{i:06d}.png" for i in range(COUNT)])
    (root / "times.txt").write_text("\n".join(f"{0.1 * i:e}" for i in range(COUNT)))
    P0, P2 = "20 0 19 0 0 21 14 0 0 0 1 0", "20 0 19 4 0 21 14 0 0 0 1 0.003"
    (root / "calib.txt").write_text(f"P0: {P0}\nP1: {P0}\nP2: {P2}\nP3: {P0}\nTr: {P0}\n")


def test_kitti_odometry(tmp_path):
    root = tmp_path / "sequences" / "07"
    make_kitti_odometry(root)
    (tmp_path / "poses").mkdir()
    write_kitti(tmp_path / "poses" / "07.txt", Trajectory(range(COUNT), poses()))
    colour, gray = open_sequence(root), open_sequence(root, topic="image_0")
    assert_images(colour)
    assert_images(gray, gray=True)
    assert [stamp for stamp, _ in colour] == [i * 100_000_000 for i in range(COUNT)]
    assert colour.format == "KITTI odometry"
    assert colour.camera.pinhole == PinholeCamera(WIDTH, HEIGHT, 20, 21, 19, 14)
    assert np.allclose(gray.ground_truth.poses, poses(), atol=1e-6)
    # what camera 2 sees at its origin is where K [I | t] puts it in camera 0: (x + 4 - 19 * 0.003) / 20 = 0 at z = -t
    T_0_2 = np.linalg.inv(gray.ground_truth.poses) @ colour.ground_truth.poses
    assert np.allclose(T_0_2[:, :3, 3], [-(4 - 19 * 0.003) / 20, 14 * 0.003 / 21, -0.003], atol=1e-6)
    assert np.array_equal(open_sequence(root / "image_0")[5][1], gray[5][1])
    with pytest.raises(SequenceError, match="image_2, image_0"):
        open_sequence(root, topic="image_7")


def test_kitti_with_a_bad_calibration_or_times(tmp_path):
    make_kitti_odometry(tmp_path)
    calib = (tmp_path / "calib.txt").read_text()
    (tmp_path / "calib.txt").write_text("P0: 1 2 3\n")
    with pytest.raises(SequenceError, match="not a 3 x 4"):
        open_sequence(tmp_path)
    (tmp_path / "calib.txt").write_text(calib)
    (tmp_path / "times.txt").write_text("0.0\n0.1\n")
    with pytest.raises(SequenceError, match="2 stamps for 12 images"):
        open_sequence(tmp_path)
    (tmp_path / "times.txt").write_text("0.1\n" * COUNT)
    with pytest.raises(SequenceError, match="not after"):
        open_sequence(tmp_path)


def test_kitti_raw(tmp_path):
    root = tmp_path / "2011_09_26" / "drive_0001"
    write_images(root / "image_02" / "data", [f"{i:010d}.png" for i in range(COUNT)])
    lines = [f"2011-09-26 13:02:{25 + i:02d}.964389445" for i in range(COUNT)]
    (root / "image_02" / "timestamps.txt").write_text("\n".join(lines) + "\n")
    P = "20 0 19 4 0 21 14 0 0 0 1 0"
    (root.parent / "calib_cam_to_cam.txt").write_text(f"calib_time: now\nP_rect_02: {P}\nS_rect_02: 4 3\n")
    sequence = open_sequence(root)
    assert_images(sequence)
    assert sequence.format == "KITTI raw"
    assert sequence[0][0] == 1_317_042_145_964_389_445
    assert sequence[1][0] - sequence[0][0] == 10**9
    assert sequence.camera.pinhole.fx == 20
    assert not sequence.has_true_depth
    write_depth(root / "proj_depth" / "groundtruth" / "image_02" / f"{3:010d}.png", 7.0, 256)
    sequence = open_sequence(root)
    assert_depth(sequence, 3, 7.0)
    assert sequence.true_depth(2) is None


# ----------------------------------------------------------------------------------------------------- TUM and EuRoC
def test_tum(tmp_path):
    root = tmp_path / "rgbd_dataset_freiburg1_xyz"
    names = [f"{1305031102.175304 + 0.033 * i:.6f}.png" for i in range(COUNT)]
    write_images(root / "rgb", names)
    lines = [f"{name[:-4]} rgb/{name}" for name in names]
    (root / "rgb.txt").write_text("# color images\n# timestamp filename\n" + "\n".join(lines) + "\n")
    truth = Trajectory([1305031102_000000000 + i * 10_000_000 for i in range(COUNT)], poses())
    write_tum(root / "groundtruth.txt", truth)
    sequence = open_sequence(root)
    assert_images(sequence)
    assert sequence[0][0] == 1_305_031_102_175_304_000
    assert sequence.camera.K[0, 0] == pytest.approx(517.306408) and not sequence.camera.is_rectified
    assert np.allclose(sequence.ground_truth.poses, poses(), atol=1e-8)
    for i in range(0, COUNT, 2):  # half as often as colour, and 5 ms late
        write_depth(root / "depth" / f"{i}.png", 1.0 + i, 5000)
    lines = [f"{1305031102.180304 + 0.033 * i:.6f} depth/{i}.png" for i in range(0, COUNT, 2)]
    (root / "depth.txt").write_text("# depth maps\n" + "\n".join(lines) + "\n")
    sequence = open_sequence(root)
    assert_depth(sequence, 4, 5.0)
    assert sequence.true_depth(5) is None
    (root / "rgb.txt").write_text("1305031102.175304\n")
    with pytest.raises(SequenceError, match="expected a stamp and a file"):
        open_sequence(root)


def make_euroc(root: Path, T_body_camera: np.ndarray) -> None:
    camera = root / "mav0" / "cam0"
    stamps = [1403715273262142976 + 50_000_000 * i for i in range(COUNT)]
    write_images(camera / "data", [f"{stamp}.png" for stamp in stamps])
    (camera / "data.csv").write_text("#timestamp [ns],filename\r\n" + "\r\n".join(f"{s},{s}.png" for s in stamps))
    T = ", ".join(str(value) for value in T_body_camera.ravel())
    (camera / "sensor.yaml").write_text(
        f"%YAML:1.0\nT_BS:\n  cols: 4\n  rows: 4\n  data: [{T}]\nresolution: [40, 30]\ncamera_model: pinhole\n"
        "intrinsics: [30, 31, 19, 14] #fu\ndistortion_model: radial-tangential\n"
        "distortion_coefficients: [-0.28, 0.07, 0.0002, 1.8e-05]\n"
    )
    states = root / "mav0" / "state_groundtruth_estimate0"
    states.mkdir()
    rows = ["#timestamp, p_RS_R_x [m], ..."]
    for stamp, pose in zip(stamps, poses() @ np.linalg.inv(T_body_camera)):
        q = quaternion_from_matrix(pose[:3, :3])
        rows.append(",".join(str(v) for v in (stamp, *pose[:3, 3], q[3], *q[:3], 0, 0, 0)))
    (states / "data.csv").write_text("\n".join(rows))


def test_euroc(tmp_path):
    T_body_camera = make_pose(so3_exp(np.array([0.1, 1.5, -0.2])), np.array([0.02, -0.06, 0.01]))
    root = tmp_path / "V1_01_easy"
    make_euroc(root, T_body_camera)
    for path in (root, root / "mav0", root / "mav0" / "cam0"):
        sequence = open_sequence(path)
        assert_images(sequence)
        assert sequence.format == "EuRoC"
        assert sequence[1][0] == 1403715273312142976
        assert sequence.camera.pinhole == PinholeCamera(40, 30, 30, 31, 19, 14)
        assert sequence.camera.distortion_model == "plumb_bob" and len(sequence.camera.D) == 4
        assert np.allclose(sequence.ground_truth.poses, poses(), atol=1e-8)  # of the camera, not of the body
    with pytest.raises(SequenceError, match="no camera 'cam1'; it has cam0"):
        open_sequence(root, topic="cam1")
    (root / "mav0" / "cam0" / "sensor.yaml").write_text("resolution: [40]\n")
    with pytest.raises(CameraError, match="expected resolution"):
        open_sequence(root)


def test_seven_scenes(tmp_path):
    names = [f"frame-{i:06d}.color.png" for i in range(COUNT)]
    write_images(tmp_path / "frames", names)
    for i, pose in enumerate(poses()):
        cv2.imwrite(str(tmp_path / "frames" / f"frame-{i:06d}.depth.png"), np.zeros((4, 4), np.uint16))
        if i == 5:
            pose = np.full((4, 4), -np.inf)
        elif i != 7:
            pose[:3, :3] *= 1.0005  # as in the real data
        if i != 9:
            np.savetxt(tmp_path / "frames" / f"frame-{i:06d}.pose.txt", pose)
    sequence = open_sequence(tmp_path)
    assert_images(sequence)
    kept = [i for i in range(COUNT) if i not in (5, 9)]
    assert np.allclose(sequence.ground_truth.poses, poses()[kept], atol=1e-8)
    assert sequence.ground_truth.stamps_ns.tolist() == [round(i * 1e9 / 30) for i in kept]
    assert len(open_sequence(tmp_path / "frames")) == COUNT
    assert not sequence.has_true_depth, "no camera is known to see it"

    # A wall's left half is nearer: its edge lies 100 pixels right of the middle of the depth camera.
    (tmp_path / "intrinsics.txt").write_text("525 525 320 240 640 480\n")
    depth = np.full((480, 640), 4000, np.uint16)
    depth[:, :420] = 2000
    depth[:, 600:] = 65535
    cv2.imwrite(str(tmp_path / "frames" / "frame-000000.depth.png"), depth)
    seen = open_sequence(tmp_path).true_depth(0)
    assert seen.shape == (480, 640) and np.isnan(seen[240, 575]) and np.isnan(seen[0, 0])  # beyond the depth camera
    edge = np.flatnonzero(np.diff(seen[240, 100:500]) > 1)
    assert edge + 100 == pytest.approx(320 + 100 * 525 / 585, abs=1)


# -------------------------------------------------------------------------------------------------------------- video
def test_video(tmp_path):
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (WIDTH * 2, HEIGHT * 2))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write videos")
    for i in range(COUNT):
        writer.write(np.full((HEIGHT * 2, WIDTH * 2, 3), 20 * i, np.uint8))
    writer.release()
    sequence = open_sequence(path)
    frames = list(sequence)
    assert len(sequence) == len(frames) == COUNT
    assert [stamp for stamp, _ in frames] == [i * 40_000_000 for i in range(COUNT)]
    for i, (_, image) in enumerate(frames):
        assert abs(float(image.mean()) - 20 * i) < 3
    assert abs(float(sequence[7][1].mean()) - 140) < 3
    assert open_sequence(path, fps=10)[3][0] == 300_000_000
    path.with_suffix(".yaml").write_text("width: 80\nheight: 60\nk: [50, 0, 40, 0, 50, 30, 0, 0, 1]\n")
    assert open_sequence(path).camera.pinhole.fx == 50
    path.write_bytes(b"this is no video" * 100)
    with pytest.raises(SequenceError, match="video"):
        open_sequence(path)


# --------------------------------------------------------------------------------------------------------------- bags
def write_bag(path: Path, kind: str, topics: dict[str, str], camera: np.ndarray | None, damaged: int = -1) -> None:
    """A bag of COUNT pictures on each topic ("raw" or "compressed"), camera_info and ground truth, by rosbags."""
    rosbag1 = pytest.importorskip("rosbags.rosbag1")
    from rosbags import rosbag2
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if kind == "ros1" else Stores.ROS2_HUMBLE)
    types, letters = store.types, str.upper if kind == "ros1" else str
    header_type, time_type = types["std_msgs/msg/Header"], types["builtin_interfaces/msg/Time"]

    def header(stamp):
        fields = {"stamp": time_type(*divmod(stamp, 10**9)), "frame_id": "camera"}
        return header_type(seq=0, **fields) if kind == "ros1" else header_type(**fields)

    def encode(message):
        name = message.__msgtype__
        return store.serialize_ros1(message, name) if kind == "ros1" else store.serialize_cdr(message, name)

    if kind == "ros1":
        writer = rosbag1.Writer(path)
    else:
        plugin = rosbag2.StoragePlugin.MCAP if kind == "mcap" else rosbag2.StoragePlugin.SQLITE3
        writer = rosbag2.Writer(path, version=9, storage_plugin=plugin)
    with writer:

        def connect(topic, name):
            return writer.add_connection(topic, name, typestore=store)

        images = {}
        for topic, how in topics.items():
            images[topic] = connect(topic, f"sensor_msgs/msg/{'Image' if how == 'raw' else 'CompressedImage'}")
        info = connect("/camera/camera_info", "sensor_msgs/msg/CameraInfo") if camera is not None else None
        truth = connect("/ground_truth/pose", "geometry_msgs/msg/PoseStamped")
        for i in range(COUNT):
            stamp = 1_600_000_000_123_456_789 + i * 100_000_000
            for topic, how in topics.items():
                image = picture(i)
                if how == "raw":
                    message = types["sensor_msgs/msg/Image"](
                        header=header(stamp),
                        height=HEIGHT,
                        width=WIDTH,
                        encoding="bgr8" if i != damaged else "nonsense",
                        is_bigendian=0,
                        step=WIDTH * 3,
                        data=image.ravel(),
                    )
                else:
                    png = cv2.imencode(".png", image)[1].ravel()
                    message = types["sensor_msgs/msg/CompressedImage"](header=header(stamp), format="png", data=png)
                writer.write(images[topic], stamp + 5000, encode(message))
            if info is not None:
                roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
                fields = {"height": HEIGHT, "width": WIDTH, "distortion_model": "plumb_bob", "roi": roi}
                P = np.hstack([camera * [[0.5], [0.5], [1]], np.zeros((3, 1))])
                matrices = {
                    "d": np.array([-0.1, 0, 0, 0, 0]),
                    "k": camera.ravel(),
                    "r": np.eye(3).ravel(),
                    "p": P.ravel(),
                }
                fields |= {letters(name): value for name, value in matrices.items()}
                message = types["sensor_msgs/msg/CameraInfo"](header=header(stamp), binning_x=0, binning_y=0, **fields)
                writer.write(info, stamp + 5000, encode(message))
            pose = poses()[i]
            q = quaternion_from_matrix(pose[:3, :3])
            message = types["geometry_msgs/msg/PoseStamped"](
                header=header(stamp),
                pose=types["geometry_msgs/msg/Pose"](
                    types["geometry_msgs/msg/Point"](*pose[:3, 3]), types["geometry_msgs/msg/Quaternion"](*q)
                ),
            )
            writer.write(truth, stamp + 5000, encode(message))


K = np.array([[30.0, 0, 19], [0, 31, 14], [0, 0, 1]])


@pytest.mark.parametrize("how", ["raw", "compressed"])
@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "ros1"])
def test_bags_of_every_kind(tmp_path, kind, how):
    path = tmp_path / ("drive.bag" if kind == "ros1" else "drive")
    topic = "/camera/image_raw" + ("/compressed" if how == "compressed" else "")
    write_bag(path, kind, {topic: how, "/camera/depth/image": "raw"}, K)
    files = [path] if kind == "ros1" else [path, next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))]
    for bag in files:
        sequence = open_sequence(bag)
        assert_images(sequence)
        assert sequence[0][0] == 1_600_000_000_123_456_789  # of the header, not of the recording
        assert sequence.topic == topic
        assert sequence.format == ("ROS 1 bag" if kind == "ros1" else "ROS 2 bag")
        assert np.allclose(sequence.camera.K, K) and not sequence.camera.is_rectified
        assert np.allclose(sequence.ground_truth.poses, poses(), atol=1e-8)


def test_choice_of_the_topic(tmp_path):
    topics = {"/left/image_raw": "raw", "/left/image_raw/compressed": "compressed", "/right/image_raw": "raw"}
    write_bag(tmp_path / "two", "mcap", topics, None)
    with pytest.raises(SequenceError, match=r"2 image topics.*--topic: /left/image_raw, /right/image_raw"):
        open_sequence(tmp_path / "two")
    for topic in (*topics, "left/image_raw"):
        sequence = open_sequence(tmp_path / "two", topic=topic)
        assert_images(sequence)
        assert sequence.camera is None and "no messages on" in sequence.camera_problem
    with pytest.raises(SequenceError, match="no image topic /top"):
        open_sequence(tmp_path / "two", topic="top")
    write_bag(tmp_path / "depth", "mcap", {"/depth/image": "raw"}, None)
    with pytest.raises(SequenceError, match="no topic with camera images"):
        open_sequence(tmp_path / "depth")


def test_a_rectified_topic_is_not_rectified_again(tmp_path):
    """image_proc sends image_rect with the CameraInfo of the raw image."""
    write_bag(tmp_path / "rect", "mcap", {"/camera/image_rect_color": "raw"}, K)
    camera = open_sequence(tmp_path / "rect").camera
    assert camera.is_rectified and camera.pinhole.fx == 15


def test_a_bag_with_an_uncalibrated_camera_tells_so(tmp_path):
    write_bag(tmp_path / "zero", "mcap", {"/camera/image_raw": "raw"}, np.zeros((3, 3)))
    sequence = open_sequence(tmp_path / "zero")
    assert sequence.camera is None and "not calibrated" in sequence.camera_problem
    assert open_sequence(tmp_path / "zero", camera=(30, 30, 20, 15)).camera.pinhole.fx == 30


def test_iteration_of_a_bag_goes_on_after_an_image_that_cannot_be_decoded(tmp_path):
    write_bag(tmp_path / "bag", "mcap", {"/camera/image_raw": "raw"}, K, damaged=1)
    frames = iter(open_sequence(tmp_path / "bag"))
    next(frames)
    with pytest.raises(ImageError, match="nonsense"):
        next(frames)
    assert np.array_equal(next(frames)[1], picture(2))


@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "ros1"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.95])
def test_a_damaged_bag_is_refused_with_a_sentence(tmp_path, kind, kept):
    path = tmp_path / ("drive.bag" if kind == "ros1" else "drive")
    write_bag(path, kind, {"/camera/image_raw": "raw"}, K)
    file = path if kind == "ros1" else next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * kept)])
    for bag in {path, file}:
        with pytest.raises(DepthPoseError, match="drive"):
            list(open_sequence(bag))


# -------------------------------------------------------------------------------------------------- what is no sequence
def test_what_is_no_sequence_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "metadata.yaml").write_text("nothing: here\n")
    for name in ("missing", "empty", "text.txt", "bag"):
        with pytest.raises(SequenceError, match=name):
            open_sequence(tmp_path / name)
    write_images(tmp_path / "empty", ["0.png"])
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(SequenceError, match="fps"):
            open_sequence(tmp_path / "empty", fps=fps)


# -------------------------------------------------------------------------------------------------------- the real data
REAL = {
    "kitti06_f000-050": ("KITTI odometry", 51, (1226, 370), 707.091, 59.86),
    "kitti_raw_traffic_78": ("KITTI raw", 78, (1242, 375), 721.538, None),
    "7scenes_redkitchen_400": ("7-Scenes", 400, (640, 480), 525.0, 3.0),
    "euroc_v101_stationary_40": ("EuRoC", 40, (752, 480), 458.654, None),
    "ros2bag_kitti06_mcap": ("ROS 2 bag", 51, (1226, 370), 707.091, 59.86),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sequences(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"needs the real clip {name} in ../shared/data beside the repository")
    if "bag" in name:
        pytest.importorskip("rosbags")
    format, count, size, fx, length = REAL[name]
    sequence = open_sequence(DATA / name)
    assert (sequence.format, len(sequence)) == (format, count)
    assert (sequence.camera.image_width, sequence.camera.image_height) == size
    assert sequence.camera.pinhole.fx == fx
    stamps = [sequence[i][0] for i in (0, 1, count - 1)]
    assert stamps[0] < stamps[1] < stamps[2]
    assert all(sequence[i][1].shape == (size[1], size[0], 3) for i in (0, count - 1))
    if length is None:
        assert sequence.ground_truth is None
    else:
        assert sequence.ground_truth.length == pytest.approx(length, abs=0.01)
        assert (sequence.ground_truth.at(stamps) == [0, 1, count - 1]).all()


def test_the_bag_and_the_folder_show_the_same_images():
    folder, bag = DATA / "kitti06_f000-050", DATA / "ros2bag_kitti06_mcap"
    if not (folder.is_dir() and bag.is_dir()):
        pytest.skip("needs the real clips kitti06 and ros2bag_kitti06_mcap in ../shared/data beside the repository")
    pytest.importorskip("rosbags")
    a, b = open_sequence(folder), open_sequence(bag)
    for (stamp_a, image_a), (stamp_b, image_b), _ in zip(a, b, range(5)):
        assert np.array_equal(image_a, image_b)
        assert stamp_b - stamp_a == 1_600_000_000 * 10**9
    assert np.allclose(a.ground_truth.poses, b.ground_truth.poses, atol=1e-6)
