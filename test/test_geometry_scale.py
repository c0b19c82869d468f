"""Triangulated depth, its scale, the ground, covariances along a path, and clouds."""

import numpy as np
import pytest

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.geometry import covariance, se3
from depth_pose_ros.geometry.ground_plane import find_ground
from depth_pose_ros.geometry.point_cloud import PointCloud
from depth_pose_ros.geometry.scale import align_scale
from depth_pose_ros.geometry.synthetic import CAMERA_HEIGHT, two_views
from depth_pose_ros.geometry.triangulation import signed_inverse_depth, triangulate


def parts(views):
    rays = (np.ascontiguousarray(views.camera.rays(p).T) for p in (views.points_1, views.points_2))
    return views.T_2_1[:3, :3], views.T_2_1[:3, 3], *rays


# --------------------------------------------------------------------------------------------------- triangulation
@pytest.mark.parametrize("translation", [(0, 0, 1.0), (0, 0, -1.0), (0.7, 0.1, 0.2)])
def test_triangulated_depth_is_exact_in_both_views(translation):
    views = two_views(translation=translation, noise_px=0.0, outliers=0.0)
    points = triangulate(*parts(views))
    assert points.ok.mean() > 0.9
    np.testing.assert_allclose(points.depth_1[points.ok], views.depth_1[points.ok], rtol=1e-7)
    np.testing.assert_allclose(points.depth_2[points.ok], views.depth_2[points.ok], rtol=1e-7)
    np.testing.assert_allclose(signed_inverse_depth(*parts(views)), 1 / views.depth_1, rtol=1e-6, atol=1e-9)
    assert np.isnan(points.depth_1[~points.ok]).all()
    assert (np.abs(points.angle[~points.ok]) <= 0.001).all()


def test_points_behind_the_cameras_and_rays_that_diverge_are_refused():
    views = two_views(noise_px=0.0, outliers=0.0)
    R, t, rays_1, rays_2 = parts(views)
    points = triangulate(R, -t, rays_1, rays_2)
    assert not points.ok.any() and (points.angle <= 1e-6).all()
    assert (signed_inverse_depth(R, -t, rays_1, rays_2) < 0).mean() > 0.99


def test_without_baseline_nothing_is_triangulated():
    views = two_views(translation=(0, 0, 0), noise_px=0.3)
    with np.errstate(all="raise"):
        assert triangulate(*parts(views)).ok.mean() < 0.01


# ----------------------------------------------------------------------------------------------------------- scale
@pytest.mark.parametrize("outliers, limit", [(0.0, 0.01), (0.1, 0.01), (0.3, 0.02), (0.5, 0.06)])
def test_scale_in_spite_of_one_sided_outliers(outliers, limit):
    rng = np.random.default_rng(5)
    depth = rng.uniform(2, 60, 3000)
    reference = 1.7 * depth * np.exp(rng.normal(0, 0.12, 3000))
    wrong = rng.random(3000) < outliers
    reference[wrong] *= np.exp(rng.uniform(0.2, 1.5, wrong.sum()))
    fit = align_scale(depth, reference)
    assert abs(np.log(fit.value / 1.7)) < limit
    assert fit.residual_spread == pytest.approx(0.12, rel=0.5)


def test_spread_of_the_scale_counts_regions_and_not_points():
    rng = np.random.default_rng(6)
    regions = np.repeat(np.arange(50), 60)
    errors = []
    for _ in range(40):
        depth = rng.uniform(2, 60, 3000)
        reference = depth * np.exp(rng.normal(0, 0.15, 50)[regions] + rng.normal(0, 0.05, 3000))
        fit = align_scale(depth, reference, clusters=regions)
        errors.append((np.log(fit.value), fit.spread))
    actual, claimed = np.std([e for e, _ in errors]), np.mean([s for _, s in errors])
    assert 0.5 < claimed / actual < 2.0


def test_scale_needs_points():
    nothing = np.full(100, np.nan)
    assert align_scale(nothing, np.ones(100)) is None
    assert align_scale(np.ones(10), np.ones(10)) is None
    mixed = np.concatenate([nothing, -np.ones(10), np.zeros(10), np.ones(30)])
    assert align_scale(mixed, np.full(150, 2.0)).value == pytest.approx(2.0)


# ---------------------------------------------------------------------------------------------------------- ground
def look_for_ground(views, unit=1.0, pitch=0.0):
    """Points of view 2 in a camera that is tilted down by ``pitch`` rad."""
    R, t, rays_1, rays_2 = parts(views)
    points = triangulate(R, unit * t, rays_1, rays_2)
    tilt = se3.so3_exp(np.array([-pitch, 0.0, 0.0]))
    X = tilt @ (rays_2 * points.depth_2)
    parallax_px = 484.0 * points.angle
    good = points.ok & (parallax_px > 2.0) & views.inliers
    X, z = X[:, good], X[2, good]
    direction = -tilt @ t / np.linalg.norm(t)
    regions = covariance.tiles(views.points_2[good], views.camera.width, views.camera.height)
    return find_ground(X / z, 1 / z, parallax_px[good] * z, direction, regions), tilt


@pytest.mark.parametrize("scene", ["street", "ground"])
@pytest.mark.parametrize("pitch", [0.0, 0.15])
@pytest.mark.parametrize("unit", [1.0, 0.2])
def test_camera_height_over_the_ground(scene, pitch, unit):
    for seed in range(3):
        views = two_views(scene, rotation_deg=(0, 0, 0), noise_px=0.3, outliers=0.0, seed=seed)
        ground, tilt = look_for_ground(views, unit, pitch)
        assert ground.height == pytest.approx(unit * CAMERA_HEIGHT, rel=0.03)
        assert np.degrees(np.arccos(ground.normal @ tilt @ [0, 1, 0])) < 1.0
        assert 0.0 < ground.spread < 0.05
        assert ground.inliers > 0.3 * ground.points


def test_no_ground_where_there_is_none():
    for scene in ("wall", "random"):
        views = two_views(scene, rotation_deg=(0, 0, 0), noise_px=0.3, outliers=0.0)
        assert look_for_ground(views)[0] is None
    few = np.ones((3, 10))
    assert find_ground(few, np.ones(10), np.ones(10), np.array([0, 0, 1.0]), np.zeros(10, int)) is None


# ------------------------------------------------------------------------------------------------------ covariance
def test_covariance_along_a_path_is_that_of_sampled_paths():
    rng = np.random.default_rng(7)
    poses = [se3.se3_exp(np.array([0.2, 0.1, 1.0, 0.05, 0.3, -0.1])) for _ in range(3)]
    A = rng.normal(0, 1, (6, 6))
    C_step = 1e-6 * (A @ A.T)

    def noisy(T):
        d = rng.multivariate_normal(np.zeros(6), C_step)
        return se3.make_pose(se3.so3_exp(d[3:]) @ T[:3, :3], T[:3, 3] + d[:3])

    spread, kept = 0.003, 0.6  # of the unit, and how much of its error is left in the next step
    T, C = np.eye(4), covariance.of_start()
    for step in poses:
        C = covariance.along_path(T, C, step, C_step, spread, kept)
        T = T @ step
    samples = []
    for _ in range(4000):
        S, unit = np.eye(4), rng.standard_normal()
        for step in poses:
            unit = kept * unit + np.sqrt(1 - kept**2) * rng.standard_normal()
            scaled = step.copy()
            scaled[:3, 3] *= 1 + spread * unit
            S = S @ noisy(scaled)
        turn = se3.so3_log(S[:3, :3] @ T[:3, :3].T)
        samples.append(np.concatenate([S[:3, 3] - T[:3, 3], turn, [unit]]))
    found, sd = np.cov(np.transpose(samples)), np.sqrt(C.diagonal())
    np.testing.assert_allclose(found / np.outer(sd, sd), C / np.outer(sd, sd), atol=0.12)


def test_a_wrong_unit_does_not_average_out_along_a_path():
    step = se3.make_pose(np.eye(3), np.array([0.0, 0, 1.0]))
    T, at_once, anew = np.eye(4), covariance.of_start(), covariance.of_start()
    for _ in range(25):
        at_once = covariance.along_path(T, at_once, step, np.zeros((6, 6)), 0.1, kept=1.0)
        anew = covariance.along_path(T, anew, step, np.zeros((6, 6)), 0.1, kept=0.0)
        T = T @ step
    assert np.sqrt(at_once[2, 2]) == pytest.approx(2.5) and np.sqrt(anew[2, 2]) == pytest.approx(0.5)


def test_covariance_is_turned_into_the_first_view():
    rng = np.random.default_rng(8)
    R, t = se3.so3_exp(np.array([0.1, -0.4, 0.2])), np.array([0.3, -0.1, 1.0])
    A = rng.normal(0, 1e-3, (6, 6))
    T_1_2, samples = se3.inverse(se3.make_pose(R, t)), []
    C = covariance.with_scale(covariance.of_pose_in_first_view(R, t, A @ A.T), T_1_2[:3, 3], 0.02)
    for d, s in zip(rng.multivariate_normal(np.zeros(6), A @ A.T, 4000), rng.normal(0, 0.02, 4000)):
        S = se3.inverse(se3.make_pose(se3.so3_exp(d[3:]) @ R, t + d[:3]))
        samples.append(np.concatenate([(1 + s) * S[:3, 3] - T_1_2[:3, 3], se3.so3_log(S[:3, :3] @ T_1_2[:3, :3].T)]))
    np.testing.assert_allclose(np.cov(np.transpose(samples)), C, atol=0.12 * C.diagonal().max())


def test_tiles_cover_the_image_and_what_lies_outside():
    points = np.array([[-5.0, -5.0], [0, 0], [831, 255], [900, 300]])
    ids = covariance.tiles(points, 832, 256)
    assert ids.tolist() == [0, 0, ids[2], ids[2]] and 12 <= ids[2] < 12 * 5


# ------------------------------------------------------------------------------------------------------ point cloud
def test_cloud_projects_back_to_its_pixels_with_its_colours():
    camera = PinholeCamera(7, 5, 6.0, 8.0, 3.1, 1.9)
    rng = np.random.default_rng(9)
    depth = rng.uniform(1, 50, (5, 7)).astype(np.float32)
    image = rng.integers(0, 256, (5, 7, 3), np.uint8)
    cloud = PointCloud(camera)
    points = cloud.xyz_rgb(depth, image)
    assert points.shape == (5, 7, 4) and points.dtype == np.float32
    v, u = np.mgrid[:5, :7]
    projected = camera.project(points[..., :3].reshape(-1, 3)).reshape(5, 7, 2)
    np.testing.assert_allclose(projected, np.stack([u, v], -1), atol=1e-4)
    np.testing.assert_array_equal(points[..., 2], depth)
    packed = points[..., 3].view(np.uint32)
    for shift, channel in ((0, 0), (8, 1), (16, 2)):  # blue, green, red
        np.testing.assert_array_equal((packed >> shift) & 255, image[..., channel])
    assert (packed >> 24 == 0).all()
    np.testing.assert_array_equal(cloud.xyz(depth), points[..., :3])


def test_cloud_marks_what_is_no_depth_and_fills_a_given_array():
    cloud = PointCloud(PinholeCamera(4, 1, 4.0, 4.0, 1.5, 0.0))
    depth = np.float32([[np.nan, 0.0, np.inf, 2.0]])
    out = np.zeros((1, 4, 4), np.float32)
    assert cloud.xyz_rgb(depth, np.zeros((1, 4, 3), np.uint8), out) is out
    assert np.isnan(out[0, :3, :3]).all() and np.isfinite(out[0, 3, :3]).all()
    np.testing.assert_array_equal(depth, np.float32([[np.nan, 0.0, np.inf, 2.0]]))  # not changed
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(1, 4\)"):
        cloud.xyz(np.ones((2, 4), np.float32))
