"""Stage B: train flow and depth on video without truth, in the three steps of Zhao et al., CVPR 2020 (TrianFlow).

``flow``: the flow network learns from the images. ``depth``: the flow network is frozen, and the depth network learns
what its matches triangulate to. ``joint``: both learn from images and geometry together.

From scratch these are run one after the other. To adapt shipped networks to one's own camera, ``depth`` alone with a
small learning rate does most of it (``depth_pose adapt``).

A run is a pure function of its seed, its frames and its settings, as in Stage A.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from depth_pose_ros.camera import PinholeCamera, size_of_area
from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.errors import ConfigError
from depth_pose_ros.geometry.appearance import MIN_CONTRAST, contrast
from depth_pose_ros.geometry.correspondences import TILE_PX, select
from depth_pose_ros.geometry.motion import estimate_motion
from depth_pose_ros.geometry.refine import refine
from depth_pose_ros.networks.registry import save_network
from depth_pose_ros.training.frames import Clip, PairItems
from depth_pose_ros.training.self_supervised import LossConstants, Motion, Term, flow_terms, geometry_terms
from depth_pose_ros.training.supervised import depth_loss


@dataclass(frozen=True)
class TermWeights:
    """What each term counts in the loss; a term of weight 0 is not computed where that saves work."""

    pixel: float = 0.0
    ssim: float = 0.0
    flow_smooth: float = 0.0
    geo: float = 0.0
    triangulation: float = 0.0
    reprojection: float = 0.0
    flow_error: float = 0.0
    depth_smooth: float = 0.0
    worlds: float = 0.0
    """Stage A's depth loss on rendered scenes, where a pool is given: what keeps the network from forgetting them."""


STAGES = {
    "flow": TermWeights(pixel=0.15, ssim=0.85, flow_smooth=10.0),
    "depth": TermWeights(triangulation=1.0, reprojection=0.1, depth_smooth=1e-4, worlds=1.0),
    # The paper's third stage for indoor video, in which both networks learn, with the L_pf of its outdoor one.
    "joint": TermWeights(0.15, 0.85, 10.0, geo=0.1, triangulation=0.1, reprojection=0.01, flow_error=0.01,
                         depth_smooth=1e-4, worlds=0.1),
}  # fmt: skip
"""Weights of the released configurations."""

LEAST_MATCHES = 50
"""A motion from fewer is not used."""

CONSENSUS_PX = 0.5
"""Matches farther from their epipolar lines have no part in the motion, px of the networks' input."""


@dataclass(frozen=True)
class StageBConfig:
    """Settings of one Stage B run."""

    stage: str = "depth"
    seed: int = 1
    steps: int = 10_000
    batch: int = 8
    learning_rate: float = 1e-4
    """Adam's, constant after ``warmup`` steps."""
    warmup: int = 20
    freeze_batch_norm: bool = False
    """Keep the statistics of batch normalisation: for small batches and short adaptations."""
    max_matches: int = 2000
    """Matches that the motion of a pair is found from."""
    weights: TermWeights | None = None
    """Instead of the stage's own."""

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ConfigError(f"unknown stage {self.stage!r}; expected one of {', '.join(STAGES)}")


@dataclass(frozen=True)
class PairMotion:
    """X_2 = R X_1 + t between two frames, t of length one, and how well it is founded."""

    R: np.ndarray
    t: np.ndarray
    inliers: float
    """Share of the matches that agree with it."""
    parallax: float
    """Median angle between a match and where the best rotation alone would put it, rad."""


def relative_motion(
    gray_1: np.ndarray, gray_2: np.ndarray, field: FlowField, camera: PinholeCamera, max_matches: int
) -> PairMotion | None:
    """Motion between two (H, W) uint8 images of ``camera`` from the best matches of their flow.

    None where an image is blank, the matches are too few, or they tell no translation.
    """
    if min(contrast(gray_1), contrast(gray_2)) < MIN_CONTRAST:
        return None
    matches = refine(gray_1, gray_2, select(field, max_matches))
    if len(matches) < LEAST_MATCHES:
        return None
    # A tight consensus first: there is time for it, and it halves the direction error where many matches are a little
    # off (7-Scenes, 5 to 20 frames apart: 16 deg without, 9 deg with).
    _, mask = cv2.findEssentialMat(
        matches.points_1.astype(np.float64),
        matches.points_2.astype(np.float64),
        camera.K,
        method=cv2.USAC_MAGSAC,
        prob=0.999,
        threshold=CONSENSUS_PX,
    )
    agree = np.zeros(len(matches), bool) if mask is None else mask.ravel() > 0
    if agree.sum() < LEAST_MATCHES:
        return None
    points_1, points_2, scores = (v[agree] for v in (matches.points_1, matches.points_2, matches.scores))
    rays_1, rays_2 = (np.ascontiguousarray(camera.rays(points).T) for points in (points_1, points_2))
    tiles = (points_1 // TILE_PX).astype(int) @ (1, camera.width)
    focal = float(np.sqrt(camera.fx * camera.fy))
    try:
        motion = estimate_motion(rays_1, rays_2, scores.astype(np.float64), focal, tiles)
    except np.linalg.LinAlgError:  # matches of which no motion can be solved, such as all on one point
        return None
    if motion.model != "essential":
        return None
    share = agree.mean() * motion.inliers.mean()
    return PairMotion(motion.R, motion.t, float(share), motion.parallax_px / focal)


def flow_levels(
    network: nn.Module, image_1: Tensor, image_2: Tensor
) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
    """Flow both ways, fine level first, and sigma: a pyramid's coarser levels are trained too, as the paper does."""
    if hasattr(network, "match_levels"):
        levels = network.match_levels(network.encode(image_1), network.encode(image_2))
        both = [level.chunk(2) for level in levels]
        return [b[0] for b in both], [b[1] for b in both], None
    out = network(image_1, image_2)
    return [out["forward"]], [out["backward"]], out["sigma"]


class StageB(L.LightningModule):
    """A flow and a depth network that learn from pairs of frames."""

    def __init__(
        self,
        flow: nn.Module,
        depth: nn.Module,
        config: StageBConfig,
        clips: Sequence[Clip],
        pairs: np.ndarray,
        constants: LossConstants | None = None,
        extra: Callable[[np.random.Generator], dict[str, Tensor]] | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.flow, self.depth, self.config = flow, depth, config
        self.constants = constants or LossConstants()
        self.clips, self.pairs, self.extra, self.workers = clips, pairs, extra, workers
        self.weights = config.weights or STAGES[config.stage]
        self.learns = {"flow": (flow,), "depth": (depth,), "joint": (flow, depth)}[config.stage]
        for network in (flow, depth):
            network.requires_grad_(network in self.learns)

    def on_train_start(self) -> None:
        """Lightning keeps the modes that it finds."""
        self.train()

    def train(self, mode: bool = True) -> "StageB":
        """Frozen networks, and frozen batch normalisation, stay in evaluation mode."""
        super().train(mode)
        for network in (self.flow, self.depth):
            if network not in self.learns:
                network.eval()
        if self.config.freeze_batch_norm:
            for layer in self.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def terms(self, batch: dict[str, Tensor]) -> dict[str, Term]:
        """Every term of the stage for a batch of pairs."""
        image_1, image_2 = batch["image_1"], batch["image_2"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.flow in self.learns):
            flows_12, flows_21, sigma = flow_levels(self.flow, image_1, image_2)
        terms = {}
        if self.flow in self.learns:
            terms |= flow_terms(image_1, image_2, flows_12, flows_21, self.constants)
        if self.config.stage != "flow":
            inverse_1, inverse_2 = inverse_depth(self.depth, torch.cat((image_1, image_2))).chunk(2)
            motion = self.motions(batch, flows_12[0], flows_21[0], sigma)
            terms |= geometry_terms(
                image_1,
                image_2,
                flows_12[0],
                flows_21[0],
                inverse_1,
                inverse_2,
                batch["K"],
                motion,
                self.constants,
                None if sigma is None else sigma.detach(),
            )
        if "world_image" in batch and self.depth in self.learns:
            look = getattr(self.depth, "shrunk", self.depth)
            loss = depth_loss(look(batch["world_image"]), batch["world_depth"])["loss"]
            terms["worlds"] = Term(loss[None], torch.ones(1, dtype=torch.bool, device=loss.device))
        return terms

    @torch.no_grad()
    def motions(self, batch: dict[str, Tensor], flow_12: Tensor, flow_21: Tensor, sigma: Tensor | None) -> Motion:
        """The motion of each pair of a batch, from its matches."""
        K = batch["K"]
        height, width = batch["image_1"].shape[2:]
        rotations, translations, ok = [], [], []
        for i in range(len(K)):
            motion = relative_motion(
                gray_of(batch["image_1"][i]),
                gray_of(batch["image_2"][i]),
                flow_field(flow_12[i], flow_21[i], None if sigma is None else sigma[i], width),
                camera_of(K[i], width, height),
                self.config.max_matches,
            )
            ok.append(motion is not None)
            rotations.append(np.eye(3) if motion is None else motion.R)
            translations.append(np.array([1.0, 0.0, 0.0]) if motion is None else motion.t)
        R, t = (torch.from_numpy(np.stack(v)).to(K) for v in (rotations, translations))
        return Motion(R, t, torch.tensor(ok, device=K.device))

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Weighted sum of the terms; each is logged, with the share of the pairs that counted."""
        terms = self.terms(batch)
        loss = sum(getattr(self.weights, name) * term.mean() for name, term in terms.items())
        logged = {name: term.mean().detach() for name, term in terms.items()} | {"loss": loss.detach()}
        main = terms["pixel" if self.config.stage == "flow" else "triangulation"]
        logged["used"] = main.counts.float().mean()
        self.log_dict(logged, prog_bar=True, batch_size=len(batch["K"]))
        return loss

    def train_dataloader(self) -> DataLoader:
        """The pairs, from where the run stands."""
        trainer, config = self.trainer, self.config
        items = PairItems(
            self.clips,
            self.pairs,
            config.seed,
            config.batch,
            trainer.global_step,
            trainer.global_rank,
            trainer.world_size,
            self.extra,
        )
        return DataLoader(items, batch_size=config.batch, num_workers=self.workers)

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam on what learns."""
        parameters = [p for network in self.learns for p in network.parameters()]
        optimiser = torch.optim.Adam(parameters, self.config.learning_rate)
        warmup = self.config.warmup
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min((step + 1) / warmup, 1.0))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def flow_field(flow_12: Tensor, flow_21: Tensor, sigma: Tensor | None, width: int) -> FlowField:
    """What the geometry takes, from (2, h, w) flow both ways and (1, h, w) sigma of an input of ``width`` px."""
    forward, backward = (f.detach().float().permute(1, 2, 0).contiguous().cpu().numpy() for f in (flow_12, flow_21))
    return FlowField(
        forward, backward, None if sigma is None else sigma[0].detach().float().cpu().numpy(), width // forward.shape[1]
    )


def gray_of(image: Tensor) -> np.ndarray:
    """(3, H, W) BGR in [0, 1] -> (H, W) uint8."""
    return cv2.cvtColor((image * 255.0).round().byte().permute(1, 2, 0).cpu().numpy(), cv2.COLOR_BGR2GRAY)


def camera_of(K: Tensor, width: int, height: int) -> PinholeCamera:
    """The pinhole camera of a (3, 3) matrix."""
    values = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return PinholeCamera(width, height, *values)


@dataclass(frozen=True)
class PairChoice:
    """Which pairs of frames are worth learning depth from."""

    strides: tuple[int, ...] = (1, 2, 3, 5, 8, 12, 18)
    """Frames apart."""
    least_parallax: float = 0.02
    """rad; below, the depth of a match is as uncertain as the match (0.5 px in 10 px is 5 %)."""
    least_inliers: float = 0.3
    """Share of the matches that agree with the motion; below, the motion is not to be trusted."""
    starts: int = 300
    """How many frames are tried as the first of a pair, spread evenly over all clips."""


@torch.no_grad()
def choose_pairs(
    flow: nn.Module, clips: Sequence[Clip], choice: PairChoice, max_matches: int, device: torch.device | str = "cpu"
) -> np.ndarray:
    """(P, 3) int rows (clip, first frame, second frame) with a known motion and enough parallax.

    Standing still and pure rotation give none; neither do jumps that the flow cannot follow. ConfigError when no pair
    is left.
    """
    flow = flow.eval().to(device)
    frames = [(c, i) for c, clip in enumerate(clips) for i in range(len(clip.images) - min(choice.strides))]
    step = max(1, len(frames) // choice.starts)
    kept = []
    for c, i in frames[::step]:
        clip = clips[c]
        for stride in sorted(choice.strides):
            if i + stride >= len(clip.images):
                break
            images = [torch.from_numpy(clip.images[k].copy()).to(device) for k in (i, i + stride)]
            first, second = (image.permute(2, 0, 1)[None].float() / 255.0 for image in images)
            out = flow(first, second)
            sigma = None if out["sigma"] is None else out["sigma"][0]
            field = flow_field(out["forward"][0], out["backward"][0], sigma, clip.camera.width)
            grays = [cv2.cvtColor(clip.images[k], cv2.COLOR_BGR2GRAY) for k in (i, i + stride)]
            motion = relative_motion(*grays, field, clip.camera, max_matches)
            if motion is None or motion.inliers < choice.least_inliers:
                continue
            if motion.parallax >= choice.least_parallax:
                kept.append((c, i, i + stride))
    if not kept:
        raise ConfigError(
            f"none of {len(frames[::step])} frames has a partner {min(choice.strides)} to {max(choice.strides)} frames "
            f"on with a parallax of {np.degrees(choice.least_parallax):.1f} deg and a motion that fits the matches; "
            "depth needs a camera that moves sideways or forward (turning alone is not enough)"
        )
    return np.array(kept)


def inverse_depth(network: nn.Module, image: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, h, w) of a depth network, which sees images of the size that it was trained for.

    As fine as the network's output, or as its stride is on the image given, if that is finer; as `NetworkDepth` has it.
    """
    height, width = image.shape[2:]
    if trained := getattr(network, "trained_size", None):
        w, h = size_of_area((width, height), trained, network.multiple_of)
        image = F.interpolate(image, size=(h, w), mode="area" if w < width else "bilinear")
    inverse = network(image)
    height, width = height // network.stride, width // network.stride
    return inverse if inverse.shape[3] >= width else F.interpolate(inverse, size=(height, width), mode="bilinear")


def fit(
    module: StageB, out: Path, checkpoint_every: int = 250, callbacks: Sequence[L.Callback] = (), **trainer_options: Any
) -> StageB:
    """Train; checkpoints go to ``out``, and at the end the networks that learned, as flow.pt and depth.pt.

    If ``out/last.ckpt`` exists the run resumes from it. ``trainer_options`` go to Lightning's Trainer.
    """
    config = module.config
    L.seed_everything(config.seed, verbose=False)
    out.mkdir(parents=True, exist_ok=True)
    last = out / "last.ckpt"
    trainer = L.Trainer(
        max_steps=config.steps,
        max_epochs=-1,
        callbacks=[
            ModelCheckpoint(out, filename="last", every_n_train_steps=checkpoint_every, enable_version_counter=False),
            *callbacks,
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        **trainer_options,
    )
    trainer.fit(module, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    trainer.save_checkpoint(last)
    provenance = {
        "stage": config.stage,
        "training": asdict(config),
        "constants": asdict(module.constants),
        "clips": {clip.name: len(clip.images) for clip in module.clips},
        "pairs": len(module.pairs),
        "steps_done": trainer.global_step,
    }
    for name, network in (("flow", module.flow), ("depth", module.depth)):
        if network in module.learns:
            save_network(network, out / f"{name}.pt", {"stage_b": provenance})
    return module
