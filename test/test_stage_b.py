"""Stage B on a small rendered film: what it learns, that it repeats and resumes exactly, what it refuses and skips."""

import dataclasses

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from depth_pose_ros import cli  # noqa: E402
from depth_pose_ros.camera import PinholeCamera  # noqa: E402
from depth_pose_ros.engines import load_depth, load_flow  # noqa: E402
from depth_pose_ros.errors import ConfigError, SequenceError  # noqa: E402
from depth_pose_ros.geometry.se3 import so3_exp  # noqa: E402
from depth_pose_ros.networks.matching_flow import MatchingFlow, MatchingFlowConfig  # noqa: E402
from depth_pose_ros.networks.paper_flow import PaperFlow, PaperFlowConfig  # noqa: E402
from depth_pose_ros.networks.small_depth import SmallDepth, SmallDepthConfig  # noqa: E402
from depth_pose_ros.sequences import open_sequence  # noqa: E402
from depth_pose_ros.training.frames import Clip, PairItems, close_pairs, store_clip  # noqa: E402
from depth_pose_ros.training.stage_b import (  # noqa: E402
    STAGES,
    PairChoice,
    StageB,
    StageBConfig,
    TermWeights,
    choose_pairs,
    fit,
)

pytestmark = pytest.mark.usefixtures("one_thread")

CAMERA = PinholeCamera(192, 128, 100.0, 104.0, 93.0, 66.0)
LIGHT = {"accelerator": "cpu", "devices": 1}


# ---- A film of the inside of a box, ray by ray -----------------------------------------------------------------------


def colours(points):
    """A texture that is a function of the place alone, (N, 3) -> (N, 3) in [0, 1]."""
    rng = np.random.default_rng(5)
    out = np.zeros_like(points)
    for scale in (1.5, 4.0, 9.0, 20.0):
        for _ in range(4):
            wave, phase, colour = rng.normal(size=3) * scale, rng.uniform(0, 6.3), rng.normal(size=3)
            out += np.sin(points @ wave + phase)[:, None] * colour / np.sqrt(scale)
    return np.clip(0.5 + 0.1 * out, 0, 1)


def view(position, rotation=(0.0, 0.0, 0.0)):
    """Image (h, w, 3) uint8 and depth (h, w) of the box from inside."""
    y, x = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = CAMERA.rays(np.stack([x.ravel(), y.ravel()], 1))
    turned = rays @ so3_exp(np.array(rotation)).T
    depth = np.full(len(rays), np.inf)
    for axis, places in ((0, (-2.0, 2.5)), (1, (-1.2, 1.5)), (2, (9.0,))):
        for place in places:
            with np.errstate(divide="ignore", invalid="ignore"):
                distance = (place - position[axis]) / turned[:, axis]
            depth = np.where((distance > 0) & (distance < depth), distance, depth)
    image = colours(np.array(position) + turned * depth[:, None])
    shape = CAMERA.height, CAMERA.width
    return np.rint(255 * image).astype(np.uint8).reshape(*shape, 3), depth.reshape(shape)


def film(count=8, step=(0.12, 0.02, 0.04), turn=(0.004, -0.01, 0.002)):
    frames = [view(np.array(step) * i, np.array(turn) * i) for i in range(count)]
    return Clip("film", np.stack([f[0] for f in frames]), CAMERA), [f[1] for f in frames]


@pytest.fixture(scope="module")
def moving():
    return film()


class DisFlow(torch.nn.Module):
    """OpenCV's DIS behind the contract of a flow network: a flow that works, without any training."""

    stride, multiple_of = 4, 4

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, image_1, image_2):
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flows = [[], []]
        for pair in zip(image_1, image_2):
            gray = [cv2.cvtColor((i * 255).byte().permute(1, 2, 0).numpy(), cv2.COLOR_BGR2GRAY) for i in pair]
            for k, (first, second) in enumerate((gray, gray[::-1])):
                flow = torch.from_numpy(dis.calc(first, second, None)).permute(2, 0, 1)[None]
                flows[k].append(torch.nn.functional.avg_pool2d(flow, 4)[0])
        return {"forward": torch.stack(flows[0]) * self.gain, "backward": torch.stack(flows[1]), "sigma": None}


def small_depth(seed=0):
    torch.manual_seed(seed)
    network = SmallDepth(SmallDepthConfig(channels=(8, 12, 16, 24, 32)))
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.3  # runs are short here
    return network


def small_flow(kind="matching"):
    torch.manual_seed(1)
    if kind == "paper":
        return PaperFlow(PaperFlowConfig((8, 8, 8, 8, 8, 8), (8, 8, 8, 8, 8), (8,) * 6))
    return MatchingFlow(MatchingFlowConfig((8, 12, 16, 16), 16, 12, (8, 8), (8, 8)))


def pairs_of(clip, strides=(2, 3)):
    return close_pairs([clip], strides)


def depth_run(clip, out, steps, **settings):
    config = StageBConfig(**{"stage": "depth", "steps": steps, "batch": 2, "learning_rate": 2e-3} | settings)
    return fit(StageB(DisFlow(), small_depth(), config, [clip], pairs_of(clip)), out, checkpoint_every=3, **LIGHT)


def parameters(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# ---- Learning --------------------------------------------------------------------------------------------------------


def test_depth_learns_a_scene_without_truth(moving, tmp_path):
    clip, depths = moving

    def error(network):
        network.eval()
        errors = []
        for image, depth in zip(clip.images, depths):
            with torch.no_grad():
                inverse = network(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0)[0, 0]
            truth = cv2.resize(depth, inverse.shape[::-1], interpolation=cv2.INTER_AREA)
            estimate = 1.0 / inverse.numpy()
            estimate *= np.median(truth) / np.median(estimate)
            errors.append(np.mean(np.abs(estimate - truth) / truth))
        return np.mean(errors)

    untrained = error(small_depth())
    module = depth_run(clip, tmp_path, steps=45, learning_rate=3e-3)
    assert error(module.depth) < 0.8 * untrained


@pytest.mark.parametrize("kind", ["matching", "paper"])
@pytest.mark.parametrize("stage", ["flow", "joint"])
def test_each_stage_trains_what_it_says(moving, kind, stage):
    clip, _ = moving
    flow, depth = small_flow(kind), small_depth()
    module = StageB(flow, depth, StageBConfig(stage=stage, batch=2), [clip], pairs_of(clip)).train()
    batch = torch.utils.data.default_collate([PairItems([clip], pairs_of(clip), 1, 2).item(i) for i in range(2)])
    terms = module.terms(batch)
    weights = dataclasses.asdict(STAGES[stage])
    assert set(terms) == {name for name, weight in weights.items() if weight and name != "worlds"}
    sum(weights[name] * term.mean() for name, term in terms.items()).backward()
    by_flow = sum(p.grad.abs().sum() for p in flow.parameters() if p.grad is not None)
    assert torch.isfinite(by_flow) and by_flow > 0
    assert all(p.requires_grad == (stage == "joint") for p in depth.parameters())


def test_flow_stage_lowers_the_photometric_loss(moving, tmp_path):
    small = CAMERA.resized(96, 64)
    clip = Clip(
        "small", np.stack([cv2.resize(i, (96, 64), interpolation=cv2.INTER_AREA) for i in moving[0].images]), small
    )
    config = StageBConfig(stage="flow", steps=15, batch=2, learning_rate=1e-3)
    module = StageB(small_flow(), small_depth(), config, [clip], pairs_of(clip, (1,)))
    batch = torch.utils.data.default_collate([PairItems([clip], pairs_of(clip, (1,)), 9, 4).item(i) for i in range(4)])

    def loss():
        with torch.no_grad():
            return sum(getattr(STAGES["flow"], name) * t.mean().item() for name, t in module.terms(batch).items())

    before = loss()
    fit(module, tmp_path, **LIGHT)
    assert loss() < 0.9 * before


def test_frozen_parts_do_not_move(moving, tmp_path):
    clip, _ = moving
    flow, depth = DisFlow(), small_depth()
    before = parameters(depth)
    config = StageBConfig(stage="depth", steps=2, batch=2, freeze_batch_norm=True)
    fit(StageB(flow, depth, config, [clip], pairs_of(clip)), tmp_path, **LIGHT)
    after = parameters(depth)
    assert flow.gain.item() == 1.0
    assert all(torch.equal(before[n], after[n]) for n in before if "running" in n or "num_batches" in n)
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_networks_are_saved_where_they_can_be_loaded(moving, tmp_path):
    from depth_pose_ros.networks.registry import load_network

    module = depth_run(moving[0], tmp_path, steps=1)
    network, provenance = load_network(tmp_path / "depth.pt")
    assert same(parameters(network), parameters(module.depth))
    assert provenance["stage_b"]["training"]["stage"] == "depth"
    assert not (tmp_path / "flow.pt").exists()


# ---- The same run, always --------------------------------------------------------------------------------------------


def test_identical_seeds_give_identical_steps(moving, tmp_path):
    runs = [depth_run(moving[0], tmp_path / name, steps=3) for name in "ab"]
    other = depth_run(moving[0], tmp_path / "c", steps=3, seed=2)
    assert same(parameters(runs[0]), parameters(runs[1]))
    assert not same(parameters(runs[0]), parameters(other))


def test_interrupted_run_resumes_to_the_same_place(moving, tmp_path):
    whole = depth_run(moving[0], tmp_path / "whole", steps=6)
    depth_run(moving[0], tmp_path / "parts", steps=3)
    resumed = depth_run(moving[0], tmp_path / "parts", steps=6)
    assert same(parameters(whole), parameters(resumed))


def test_items_are_the_same_for_any_number_of_loader_processes(moving):
    clip, _ = moving
    order = []
    for workers in (0, 2):
        items = PairItems([clip], pairs_of(clip), seed=3, batch=2, start=5)
        loader = torch.utils.data.DataLoader(items, batch_size=2, num_workers=workers)
        batches = iter(loader)
        order.append([next(batches)["image_1"] for _ in range(4)])
        del batches
    assert all(torch.equal(a, b) for a, b in zip(*order))


def test_devices_share_the_items_without_overlap(moving):
    clip, _ = moving

    def first(rank, world, count):
        items = iter(PairItems([clip], pairs_of(clip), 3, 2, 0, rank, world))
        return [next(items)["image_1"] for _ in range(count)]

    alone = first(0, 1, 8)
    shared = [first(rank, 2, 4) for rank in (0, 1)]
    together = [*shared[0][:2], *shared[1][:2], *shared[0][2:], *shared[1][2:]]
    assert all(torch.equal(a, b) for a, b in zip(alone, together))


# ---- Frames and pairs ------------------------------------------------------------------------------------------------


def test_mirrored_items_have_a_mirrored_camera(moving):
    clip, _ = moving
    items = PairItems([clip], np.array([[0, 2, 4]]), seed=1, batch=1)
    seen = set()
    for index in range(40):
        item = items.item(index)
        images = [(item[name] * 255).round().byte().permute(1, 2, 0).numpy() for name in ("image_1", "image_2")]
        mirrored = item["K"][0, 2].item() != pytest.approx(CAMERA.cx)
        if mirrored:
            images = [image[:, ::-1] for image in images]
            assert item["K"][0, 2].item() == pytest.approx(CAMERA.width - 1 - CAMERA.cx)
        swapped = np.array_equal(images[0], clip.images[4])
        assert np.array_equal(images[1], clip.images[2 if swapped else 4])
        seen.add((mirrored, swapped))
    assert len(seen) == 4


@pytest.fixture(scope="module")
def folder(moving, tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    for i, image in enumerate(moving[0].images):
        cv2.imwrite(str(path / f"{i:03d}.png"), image)
    values = (CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy, CAMERA.width, CAMERA.height)
    (path / "intrinsics.txt").write_text(" ".join(map(str, values)))
    return path


def test_frames_are_stored_once_at_the_networks_size(folder, moving, tmp_path):
    clip = store_clip(open_sequence(folder), tmp_path, CAMERA.width, CAMERA.height)
    assert np.array_equal(clip.images, moving[0].images)
    assert clip.camera == CAMERA
    written = (tmp_path / f"{clip.name}.raw").stat().st_mtime_ns
    store_clip(open_sequence(folder), tmp_path, CAMERA.width, CAMERA.height)
    assert (tmp_path / f"{clip.name}.raw").stat().st_mtime_ns == written
    half = store_clip(open_sequence(folder), tmp_path, 96, 64, first=2, last=6)
    assert half.images.shape == (4, 64, 96, 3)
    assert half.camera == CAMERA.resized(96, 64)


def test_unreadable_frame_is_left_out(folder, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "003.png").write_bytes(b"not an image")
    clip = store_clip(open_sequence(broken), tmp_path, CAMERA.width, CAMERA.height)
    assert len(clip.images) == 7


def test_sequence_without_a_camera_is_refused(folder, tmp_path):
    sequence = open_sequence(folder)
    sequence.camera = None
    with pytest.raises(SequenceError, match="--camera"):
        store_clip(sequence, tmp_path, 96, 64)


def test_pairs_have_parallax(moving):
    clip, _ = moving
    chosen = choose_pairs(DisFlow(), [clip], PairChoice(strides=(1, 2, 3), least_parallax=0.02), 1000)
    apart = chosen[:, 2] - chosen[:, 1]
    assert (apart > 1).all(), "neighbours are too close together"
    assert len(chosen) >= 5
    with pytest.raises(ConfigError, match="parallax"):
        choose_pairs(DisFlow(), [clip], PairChoice(strides=(1,), least_parallax=0.5), 1000)


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.0, 0.02, 0.0)], ids=["standing still", "turning"])
def test_no_pair_without_translation(turn):
    clip, _ = film(count=5, step=(0.0, 0.0, 0.0), turn=turn)
    with pytest.raises(ConfigError, match="moves sideways or forward"):
        choose_pairs(DisFlow(), [clip], PairChoice(strides=(1, 2, 3)), 1000)


def test_close_pairs_of_too_short_a_clip_are_refused(moving):
    with pytest.raises(ConfigError, match="8 frames"):
        close_pairs([moving[0]], (8,))


def test_unknown_stage_is_refused():
    with pytest.raises(ConfigError, match="flow, depth, joint"):
        StageBConfig(stage="pose")


# ---- Nothing to learn from -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["flow", "depth", "joint"])
def test_blank_images_are_skipped(stage, tmp_path):
    clip = Clip("fog", np.full((4, CAMERA.height, CAMERA.width, 3), 127, np.uint8), CAMERA)
    depth = small_depth()
    before = parameters(depth)
    config = StageBConfig(stage=stage, steps=2, batch=2, freeze_batch_norm=True)
    module = fit(StageB(small_flow(), depth, config, [clip], pairs_of(clip, (1,))), tmp_path, **LIGHT)
    assert all(torch.isfinite(value).all() for value in parameters(module).values() if value.is_floating_point())
    if stage == "depth":
        assert same(before, parameters(depth))


def test_blank_pair_beside_a_good_one(moving):
    """The good pair counts as it does alone, although its neighbour has no motion."""
    clip, _ = moving
    images = np.concatenate([clip.images, np.full_like(clip.images[:2], 127)])
    both = Clip("film", images, CAMERA)
    items = PairItems([both], np.array([[0, 2, 4]]), 1, 1), PairItems([both], np.array([[0, 8, 9]]), 1, 1)
    module = StageB(DisFlow(), small_depth().eval(), StageBConfig(freeze_batch_norm=True), [both], pairs_of(both))
    alone = module.terms(torch.utils.data.default_collate([items[0].item(0)]))
    mixed = module.terms(torch.utils.data.default_collate([items[0].item(0), items[1].item(1)]))
    assert mixed["triangulation"].counts.tolist() == [True, False]
    for name in ("triangulation", "reprojection"):
        assert mixed[name].mean().item() == pytest.approx(alone[name].mean().item(), rel=1e-4)


def test_weights_of_ones_own(moving, tmp_path):
    module = depth_run(moving[0], tmp_path, steps=1, weights=TermWeights(triangulation=1.0))
    assert module.weights.reprojection == 0


# ---- The command -----------------------------------------------------------------------------------------------------


def test_adapt_writes_models_that_run(folder, tmp_path, capsys):
    """From the shipped models and a folder of images of a known camera to models that the engines accept."""
    K = [str(v) for v in (CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)]
    command = ["adapt", str(folder), "--camera", *K, "--out", str(tmp_path), "--size", "192", "128", "--joint"]
    assert cli.main([*command, "--steps", "1", "--batch", "1", "--accelerator", "cpu"]) == 0
    assert "depth_adapted" in capsys.readouterr().out
    flow = load_flow(tmp_path / "flow_adapted.yaml", 192, 128, "cpu", 1)
    depth = load_depth(tmp_path / "depth_adapted.yaml", 192, 128, "cpu", 1)
    images = [view(np.array([0.12 * i, 0.0, 0.0]))[0] for i in range(2)]
    assert np.isfinite(depth.depth(images[0])).all()
    assert flow.flow(*map(flow.features, images)).forward[..., 0].mean() < -0.5


def test_adapt_without_a_recording(tmp_path, capsys):
    assert cli.main(["adapt", "--out", str(tmp_path)]) == 2
    assert "a folder of images, a video or a ROS bag" in capsys.readouterr().err
