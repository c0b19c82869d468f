"""Stage A: train a flow or a depth network on rendered worlds, whose truth is exact, with Lightning.

A run is a pure function of its seed, its pool and its settings: item i of the run is drawn from the generator (seed,
i), so an interrupted run resumes at the very item where its last checkpoint stood.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from depth_pose_ros.errors import ConfigError
from depth_pose_ros.networks.matching_flow import Features, MatchingFlow
from depth_pose_ros.networks.paper_depth import PaperDepth
from depth_pose_ros.networks.paper_flow import PaperFlow
from depth_pose_ros.networks.small_depth import SmallDepth
from depth_pose_ros.training.augment import depth_pair_item, flow_item
from depth_pose_ros.training.supervised import depth_loss, flow_loss, pair_loss, pyramid_flow_loss
from depth_pose_ros.worlds.pool import PoolDataset, read_sample
from depth_pose_ros.worlds.scenes import KINDS

SIZES = {
    "MatchingFlow": ((192, 128),),
    "PaperFlow": ((192, 128),),
    "SmallDepth": ((160, 48), (112, 80)),
    "PaperDepth": ((320, 96), (224, 160)),
}
"""Crop sizes (width, height) as the network sees them, SmallDepth after `shrunk`; depth needs the whole view."""

AVERAGE = 1000
"""The weights kept are a moving average over so many steps, or over the last tenth of a shorter run (Polyak averaging;
Tarvainen and Valpola, NIPS 2017). Not compared with the last weights here."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one Stage A run."""

    seed: int = 1
    steps: int = 10_000
    batch: int = 8
    learning_rate: float = 4e-4
    weight_decay: float = 1e-4
    warmup: int = 200
    sizes: tuple[tuple[int, int], ...] = SIZES["MatchingFlow"]
    """Crop sizes (width, height) as the network sees them; one is drawn per batch."""


class PoolItems(IterableDataset):
    """Endless augmented items from pool files; item i depends on (seed, i) only."""

    def __init__(
        self, files: Sequence[Path], config: TrainingConfig, make: Callable[..., dict[str, Tensor]], start: int = 0
    ) -> None:
        self.files, self.config, self.make, self.start = list(files), config, make, start

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        workers, me = (worker.num_workers, worker.id) if worker else (1, 0)
        batch = self.config.batch
        index = self.start
        while True:
            # Whole batches go to one worker, as the loader collects them.
            if (index // batch) % workers == me:
                draw = int(
                    np.random.default_rng((self.config.seed, 7, index // batch)).integers(len(self.config.sizes))
                )
                width, height = self.config.sizes[draw]
                rng = np.random.default_rng((self.config.seed, 3, index))
                file = self.files[int(rng.integers(len(self.files)))]
                yield self.make(rng, read_sample(file), width, height)
            index += 1


class StageA(L.LightningModule):
    """What flow and depth training share: optimiser, schedule, data that resumes in the right place."""

    def __init__(
        self, network: torch.nn.Module, config: TrainingConfig, files: Sequence[Path], workers: int = 0
    ) -> None:
        super().__init__()
        # Channels last: a tenth faster on a CPU and what tensor cores want.
        self.network = network.to(memory_format=torch.channels_last)
        self.config, self.files, self.workers = config, files, workers

    def item(self, rng: np.random.Generator, sample: Any, width: int, height: int) -> dict[str, Tensor]:
        """One training item of width x height from a rendered sample."""
        raise NotImplementedError

    def terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch and its parts, and what is worth logging."""
        raise NotImplementedError

    def on_train_start(self) -> None:
        """A network from a checkpoint comes in evaluation mode, and Lightning keeps the modes that it finds."""
        self.train()

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        terms = self.terms(batch)
        self.log_dict({k: v.detach() for k, v in terms.items()}, prog_bar=True)
        return terms["loss"]

    def train_dataloader(self) -> DataLoader:
        start = self.trainer.global_step * self.config.batch
        items = PoolItems(self.files, self.config, self.item, start)
        return DataLoader(items, batch_size=self.config.batch, num_workers=self.workers)

    def configure_optimizers(self) -> dict[str, Any]:
        config = self.config
        optimiser = torch.optim.AdamW(self.parameters(), config.learning_rate, weight_decay=config.weight_decay)

        def factor(step: int) -> float:
            cosine = 0.5 * (1.0 + math.cos(math.pi * min(step / config.steps, 1.0)))
            return min((step + 1) / config.warmup, 1.0) * (0.02 + 0.98 * cosine)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["provenance"] = {
            "network": type(self.network).__name__,
            "config": asdict(self.network.config),
            "training": asdict(self.config),
            "samples": len(self.files),
            "steps_done": self.trainer.global_step,
        }


class FlowStageA(StageA):
    """Flow from worlds."""

    network: MatchingFlow | PaperFlow

    def item(self, rng: np.random.Generator, sample: Any, width: int, height: int) -> dict[str, Tensor]:
        full_h, full_w = sample.image_1.shape[1:]
        if full_w < width or full_h < height:
            raise ConfigError(
                f"crops of {width}x{height} do not fit into the pool's images of {full_w}x{full_h}; "
                "give smaller --sizes or a pool of larger images"
            )
        return flow_item(rng, sample, width, height)

    def terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        truth = batch["forward"], batch["backward"], batch["hidden_1"], batch["hidden_2"]
        images = torch.cat([batch["image_1"], batch["image_2"]])
        both = self.network.encode(images.contiguous(memory_format=torch.channels_last))
        # Half precision (--precision bf16-mixed) is for the encoder: it is most of the work and bears it.
        with torch.autocast(images.device.type, enabled=False):
            pairs = [x.float().chunk(2) for x in both]
            first, second = ([pair[k] for pair in pairs] for k in (0, 1))
            if isinstance(self.network, PaperFlow):
                return pyramid_flow_loss(self.network.match_levels(first, second), *truth)
            return flow_loss(self.network.match_all(Features(*first), Features(*second)), *truth)


class DepthStageA(StageA):
    """Depth from both images of a pair, for SmallDepth at its reference focal length, for PaperDepth in metres."""

    network: SmallDepth | PaperDepth

    def item(self, rng: np.random.Generator, sample: Any, width: int, height: int) -> dict[str, Tensor]:
        config = self.network.config
        focal = config.reference_focal / config.shrink if isinstance(self.network, SmallDepth) else None
        return depth_pair_item(rng, sample, width, height, focal)

    def terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image, depth = (batch[name].flatten(0, 1) for name in ("image", "depth"))
        look = self.network.shrunk if isinstance(self.network, SmallDepth) else self.network
        inverse = look(image.contiguous(memory_format=torch.channels_last))
        terms = depth_loss(inverse, depth)
        terms["pair"] = pair_loss(inverse, depth)
        return terms | {"loss": terms["loss"] + terms["pair"]}


class LogLine(Callback):
    """One line of the log every so many steps: step, loss and terms averaged since the last line."""

    def __init__(self, every: int = 50) -> None:
        self.every, self.sums, self.count = every, {}, 0

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        for name, value in trainer.callback_metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.count += 1
        if trainer.global_step % self.every == 0:
            means = " ".join(f"{n} {v / self.count:.4f}" for n, v in sorted(self.sums.items()))
            print(f"step {trainer.global_step} {means}", flush=True)
            self.sums, self.count = {}, 0


def check_sizes(sizes: Sequence[tuple[int, int]], network: torch.nn.Module) -> None:
    """ConfigError unless every crop is whole cells of the network's coarsest level."""
    cells = max(network.multiple_of, *getattr(network, "features", {"": 1}).values())
    cells //= getattr(network.config, "shrink", 1)
    for width, height in sizes:
        if width % cells or height % cells or min(width, height) < 2 * cells:
            raise ConfigError(
                f"crops of {width}x{height} for {type(network).__name__}; expected multiples of {cells}, "
                f"at least {2 * cells}"
            )


def moving_average(average: Tensor, weight: Tensor, steps: Tensor) -> Tensor:
    """The average of a weight with what it is after one more step than ``steps``."""
    return average + (weight - average) / torch.clamp((10.0 + steps) / 10.0, max=AVERAGE)


def fit(
    task: str,
    pools: Sequence[Path],
    out: Path,
    config: TrainingConfig,
    network: torch.nn.Module | None = None,
    workers: int = 0,
    start_from: Path | None = None,
    checkpoint_every: int = 250,
    **trainer_options: Any,
) -> torch.nn.Module:
    """Train ``task`` ("flow" or "depth") on rendered pools; checkpoints and the log go to ``out``.

    If ``out/last.ckpt`` exists the run resumes from it. ``start_from`` takes the weights of another checkpoint instead
    of random ones. ``trainer_options`` go to Lightning's Trainer (devices, num_nodes, precision, accelerator ...).
    """
    L.seed_everything(config.seed, verbose=False)
    if task == "flow":
        network = network or MatchingFlow()
        module: StageA = FlowStageA(network, config, PoolDataset(*pools).files, workers)
    elif task == "depth":
        network = network or SmallDepth()
        module = DepthStageA(network, config, PoolDataset(*pools, kinds=set(KINDS)).files, workers)
    else:
        raise ConfigError(f"unknown task {task!r}: expected 'flow' or 'depth'")
    check_sizes(config.sizes, network)
    out.mkdir(parents=True, exist_ok=True)
    last = out / "last.ckpt"
    if start_from is not None and not last.exists():
        state = torch.load(start_from, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict(state)
    trainer = L.Trainer(
        max_steps=config.steps,
        max_epochs=-1,
        callbacks=[
            ModelCheckpoint(out, filename="last", every_n_train_steps=checkpoint_every, enable_version_counter=False),
            LogLine(),
            WeightAveraging(avg_fn=moving_average),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        **trainer_options,
    )
    trainer.fit(module, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    trainer.save_checkpoint(last)
    return module.network
