"""Scenes: what the truth says must be what the pictures show."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from depth_pose_ros.errors import ConfigError
from depth_pose_ros.worlds import pool
from depth_pose_ros.worlds.camera_effects import CameraEffects, apply_camera_effects
from depth_pose_ros.worlds.drive import render_drive
from depth_pose_ros.worlds.layered import layered_sample
from depth_pose_ros.worlds.motions import T_BODY_OPTICAL
from depth_pose_ros.worlds.render import render_pair
from depth_pose_ros.worlds.scenes import KINDS, make_scene, sample_pairs, scene_sample
from depth_pose_ros.worlds.street import Follower

SIZE = (160, 96)


@pytest.fixture(scope="module")
def samples():
    """Two pairs with motion of each kind of scene, and layered ones."""
    found = {}
    for kind in KINDS:
        pairs = []
        for scene, v in sample_pairs(kind, 19, 3, *SIZE):
            sample = render_pair(scene, v.T_world_camera_1, v.T_world_camera_2, v.K, *SIZE, v.times)
            if sample.flow_forward.abs().max() > 0.5:
                pairs.append(sample)
            if len(pairs) == 2:
                break
        found[kind] = pairs
    found["layered"] = [layered_sample(seed, *SIZE) for seed in range(6)]
    return found


@pytest.fixture(scope="module")
def street():
    """One street with traffic and one view of it."""
    return next(sample_pairs("street", 19, 1, *SIZE))


ALL = [*KINDS, "layered"]


def pixels(width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    return x, y


def sample_at(image: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Bilinear values (C, H, W) at pixel coordinates."""
    h, w = image.shape[-2:]
    grid = torch.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], -1)[None].to(torch.float32)
    return F.grid_sample(image[None].float(), grid, align_corners=False, padding_mode="border")[0]


@pytest.mark.parametrize("kind", ALL)
def test_second_image_along_the_flow_is_the_first(samples, kind):
    for s in samples[kind]:
        x, y = pixels(*SIZE)
        warped = sample_at(s.image_2, x + s.flow_forward[0], y + s.flow_forward[1])
        error = (warped - s.image_1.float()).abs().mean(0)[~s.occluded_1]
        unwarped = (s.image_2.float() - s.image_1.float()).abs().mean(0)[~s.occluded_1]
        assert error.median() < 3.0
        assert error.mean() < 8.0
        if s.flow_forward.norm(dim=0).mean() > 1.5:
            assert error.mean() < 0.7 * unwarped.mean()


@pytest.mark.parametrize("kind", KINDS)
def test_flow_is_the_reprojection_of_depth(samples, kind):
    for s in samples[kind]:
        x, y = pixels(*SIZE)
        still = ~s.moving_1 & torch.isfinite(s.depth_1)
        z = torch.where(still, s.depth_1, 1.0).double()
        K, T = s.K, s.T_2_1
        X = torch.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z]).reshape(3, -1)
        X = (T[:3, :3] @ X + T[:3, 3:]).reshape(3, *z.shape)
        u, v = K[0, 0] * X[0] / X[2] + K[0, 2] - x, K[1, 1] * X[1] / X[2] + K[1, 2] - y
        judged = still & (X[2] > 0.05) & (s.flow_forward.abs().amax(0) < 500)
        assert judged.float().mean() > 0.2
        assert (u - s.flow_forward[0]).abs()[judged].max() < 0.01
        assert (v - s.flow_forward[1]).abs()[judged].max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_sky_moves_by_rotation_alone(samples, kind):
    for s in samples[kind]:
        sky = torch.isinf(s.depth_1)
        if not sky.any():
            continue
        x, y = pixels(*SIZE)
        p = torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)
        q = (s.K @ s.T_2_1[:3, :3] @ torch.linalg.inv(s.K) @ p).reshape(3, *x.shape)
        assert (q[0] / q[2] - x - s.flow_forward[0]).abs()[sky].max() < 0.01


@pytest.mark.parametrize("kind", ALL)
def test_backward_flow_undoes_forward_flow_where_both_see(samples, kind):
    for s in samples[kind]:
        x, y = pixels(*SIZE)
        tx, ty = x + s.flow_forward[0], y + s.flow_forward[1]
        back = sample_at(s.flow_backward, tx, ty)
        # Interpolation mixes the flow of neighbours at borders; away from them it must close.
        closed = (s.flow_forward + back).norm(dim=0)
        seen = ~s.occluded_1
        tolerance = 0.05 + 0.02 * s.flow_forward.norm(dim=0)
        assert (closed < tolerance)[seen].float().mean() > 0.85


@pytest.mark.parametrize("kind", ALL)
def test_occlusion_is_plausible(samples, kind):
    for s in samples[kind]:
        x, y = pixels(*SIZE)
        width, height = SIZE
        tx, ty = x + s.flow_forward[0], y + s.flow_forward[1]
        outside = (tx < -0.01) | (ty < -0.01) | (tx > width - 0.99) | (ty > height - 0.99)
        assert s.occluded_1[outside].all()
        inside = ~outside
        if kind != "layered" and inside.any():
            # Where depth in the other view is clearly nearer than the point, the point is hidden.
            assert s.occluded_1[inside].float().mean() < 0.5
        assert s.occluded_1.dtype == torch.bool
        assert s.occluded_2.dtype == torch.bool


@pytest.mark.parametrize("kind", KINDS)
def test_depth_seen_from_the_other_side_agrees(samples, kind):
    for s in samples[kind]:
        x, y = pixels(*SIZE)
        judged = ~s.occluded_1 & ~s.moving_1 & torch.isfinite(s.depth_1)
        z = torch.where(judged, s.depth_1, 1.0).double()
        X = torch.stack([(x - s.K[0, 2]) / s.K[0, 0] * z, (y - s.K[1, 2]) / s.K[1, 1] * z, z]).reshape(3, -1)
        z2 = (s.T_2_1[2, :3] @ X + s.T_2_1[2, 3]).reshape(z.shape)
        there = sample_at(1 / s.depth_2[None].clamp_min(1e-3), x + s.flow_forward[0], y + s.flow_forward[1])[0].double()
        relative = (there * z2 - 1).abs()[judged]
        assert (relative < 0.03).float().mean() > 0.85


def test_the_same_seed_gives_the_same_sample_and_another_seed_another():
    for make in (lambda seed: layered_sample(seed, *SIZE), lambda seed: scene_sample("rubble", seed, *SIZE)):
        a, b, c = make(5), make(5), make(6)
        for name in ("image_1", "image_2", "flow_forward", "flow_backward", "depth_1", "T_2_1", "K"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert not torch.equal(a.image_1, c.image_1)


def test_standing_still_gives_zero_flow(street):
    scene, v = street
    s = render_pair(scene, v.T_world_camera_1, v.T_world_camera_1, v.K, *SIZE, (0.3, 0.3))
    assert s.flow_forward.abs().max() < 1e-6
    assert torch.equal(s.image_1, s.image_2)
    assert not s.occluded_1.any()
    assert not s.moving_1.any()


def test_what_moves_by_itself_is_marked_and_moves(street):
    scene, v = street
    mover = max((o for o in scene.objects if isinstance(o, Follower)), key=lambda o: abs(o.speed))
    assert abs(mover.speed) > 1.0
    behind = np.eye(4)
    behind[:3, 3] = [-9.0, 0.0, 1.5]
    T = mover.pose(0.0) @ behind @ T_BODY_OPTICAL
    s = render_pair(scene, T, T, v.K, *SIZE, (0.0, 0.1))
    flow = s.flow_forward.norm(dim=0)
    assert flow[~s.moving_1].max() < 1e-6
    assert (flow[s.moving_1] > 0.05).sum() > 50


def test_ground_below_the_camera_is_as_far_as_the_camera_is_high():
    scene = make_scene("room", 19)
    height, (x0, y0, x1, y1) = 1.7, scene.outlook["floor"]
    T = np.eye(4)
    T[:3, :3] = np.diag([1.0, -1.0, -1.0])  # looks straight down
    K = np.array([[60.0, 0, 31.5], [0, 60.0, 31.5], [0, 0, 1]])
    deepest = 0.0
    for x in np.linspace(x0, x1, 4):
        T[:3, 3] = [x, 0.5 * (y0 + y1), height]
        deepest = max(deepest, float(render_pair(scene, T, T, K, 64, 64).depth_1.max()))
    assert abs(deepest - height) < 1e-5


def test_far_texture_does_not_shimmer(street):
    """A street seen twice with a tenth of a pixel of turn between must hardly change."""
    scene, v = street
    angle = 0.1 / v.K[0, 0]
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    s = render_pair(scene, v.T_world_camera_1, v.T_world_camera_1 @ turn, v.K, *SIZE)
    change = (s.image_1.float() - s.image_2.float()).abs().mean(0)
    assert change.mean() < 3.0


def test_layered_motion_spans_small_and_large():
    means = [float(layered_sample(seed, 320, 40).flow_forward.norm(dim=0).mean()) for seed in range(40)]
    assert 0.2 < np.mean(np.array(means) < 3) < 0.6
    assert max(means) > 30


def test_camera_effects_change_pictures_only_and_by_the_seed(samples):
    s = samples["street"][0]
    always = CameraEffects(**dict.fromkeys(CameraEffects.__dataclass_fields__, 1.0))
    a = apply_camera_effects(s, np.random.default_rng(1), always)
    b = apply_camera_effects(s, np.random.default_rng(1), always)
    assert torch.equal(a.image_1, b.image_1)
    assert not torch.equal(a.image_1, s.image_1)
    assert a.flow_forward is s.flow_forward
    assert a.image_1.dtype == torch.uint8
    never = CameraEffects(**dict.fromkeys(CameraEffects.__dataclass_fields__, 0.0))
    assert torch.equal(apply_camera_effects(s, np.random.default_rng(1), never).image_1, s.image_1)


@pytest.mark.parametrize("kind", ["street", "layered"])
def test_pool_round_trip(samples, tmp_path, kind):
    s = samples[kind][0]
    pool.write_sample(tmp_path / "s.npz", s)
    r = pool.read_sample(tmp_path / "s.npz")
    assert r.kind == s.kind
    for name in ("image_1", "image_2", "occluded_1", "occluded_2", "moving_1", "T_2_1", "K"):
        assert torch.equal(getattr(r, name), getattr(s, name)), name
    small = s.flow_forward.abs() < 500
    assert (r.flow_forward - s.flow_forward).abs()[small].max() <= 1 / 128 + 1e-6
    assert torch.equal(torch.isinf(r.depth_1), torch.isinf(s.depth_1))
    known = torch.isfinite(s.depth_1) & (s.depth_1 > 0)
    assert torch.equal(r.depth_1 > 0, s.depth_1 > 0)
    assert not known.any() or ((r.depth_1 / s.depth_1)[known] - 1).abs().max() < 2e-4


def test_pool_resumes_and_does_not_depend_on_interruption(tmp_path):
    mix = {"layered": 1.0}
    assert pool.render_pool(tmp_path / "a", 10, seed=3, width=64, height=48, mix=mix) == 10
    files = sorted((tmp_path / "a").glob("*.npz"))
    first = {path.name: path.read_bytes() for path in files}
    files[2].unlink()
    assert pool.render_pool(tmp_path / "a", 10, seed=3, width=64, height=48, mix=mix) == 1
    assert {path.name: path.read_bytes() for path in sorted((tmp_path / "a").glob("*.npz"))} == first
    dataset = pool.PoolDataset(tmp_path / "a", kinds={"layered"})
    assert len(dataset) == 10
    assert dataset[0].image_1.shape == (3, 48, 64)


def test_pool_says_what_is_wrong(tmp_path):
    with pytest.raises(ConfigError, match="no samples"):
        pool.PoolDataset(tmp_path)
    with pytest.raises(ConfigError, match="unknown kind of scene 'beach'"):
        pool.parse_mix("beach=1")
    with pytest.raises(ConfigError, match="share of 'room' is 'much'"):
        pool.parse_mix("room=much")
    assert pool.main(["--out", str(tmp_path), "--mix", "beach=1"]) == 2


def test_a_drive_is_coherent():
    frames = list(render_drive(frames=3, width=160, height=64, speed=5.0))
    step = np.linalg.inv(frames[1].T_world_camera) @ frames[2].T_world_camera
    assert 0.05 < step[2, 3] < 0.5
    assert frames[1].stamp_ns - frames[0].stamp_ns == 100_000_000
    assert frames[0].image.shape == (64, 160, 3)
    # Road straight ahead below the horizon lies as far as the camera's height says.
    K = frames[0].K
    row = 60
    flat = 1.5 / ((row - K[1, 2]) / K[1, 1])
    assert abs(np.median(frames[0].depth[row, 70:90]) / flat - 1) < 0.1
