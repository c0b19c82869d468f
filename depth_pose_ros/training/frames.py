"""Pairs of frames of folders, videos and ROS bags, for training without truth.

A sequence is read once, from front to back, rectified and resized, and kept as one raw file on disk that is mapped into
memory: then any frame of any source can be had at random, by any number of loader processes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from depth_pose_ros import sequences
from depth_pose_ros.camera import PinholeCamera, Rectifier
from depth_pose_ros.errors import ConfigError, ImageError, SequenceError


@dataclass(frozen=True)
class Clip:
    """The frames of one sequence at the networks' input size."""

    name: str
    images: np.ndarray
    """(N, h, w, 3) uint8 BGR, rectified; read-only."""
    camera: PinholeCamera


def store_clip(
    sequence: sequences.Sequence, folder: Path, width: int, height: int, first: int = 0, last: int | None = None
) -> Clip:
    """Rectify and resize frames ``first`` to ``last`` (exclusive) of a sequence into ``folder``.

    What is there already, of the same frames at the same size, is used again. Frames that cannot be read are left out.
    SequenceError if the camera is unknown or fewer than two frames remain.
    """
    if sequence.camera is None:
        reason = f" ({sequence.camera_problem})" if sequence.camera_problem else ""
        raise SequenceError(f"{sequence.name} tells no camera{reason}; give --camera fx fy cx cy or a camera_info YAML")
    rectifier = Rectifier(sequence.camera, width, height)
    wanted = {"frames": [first, last], "camera": asdict(rectifier.camera)}
    folder.mkdir(parents=True, exist_ok=True)
    data, facts = folder / f"{sequence.name}.raw", folder / f"{sequence.name}.json"
    stored = json.loads(facts.read_text()) if facts.exists() else {}
    if {key: stored.get(key) for key in wanted} != wanted:
        count = 0
        frames = iter(sequence)
        with data.open("wb") as file:
            for index in range(len(sequence) if last is None else last):
                try:
                    _, image = next(frames)
                except StopIteration:
                    break
                except ImageError:
                    continue
                if index >= first:
                    file.write(rectifier(image).tobytes())
                    count += 1
        stored = {**wanted, "count": count}
        facts.write_text(json.dumps(stored))
    if stored["count"] < 2:
        raise SequenceError(f"{sequence.name}: {stored['count']} frames could be read; pairs need two at least")
    images = np.memmap(data, np.uint8, "r", shape=(stored["count"], height, width, 3))
    return Clip(sequence.name, images, rectifier.camera)


def close_pairs(clips: Sequence[Clip], strides: Sequence[int]) -> np.ndarray:
    """(P, 3) int: clip, first frame and second frame of every pair that is one of ``strides`` frames apart."""
    rows = [(c, i, i + s) for c, clip in enumerate(clips) for s in strides for i in range(len(clip.images) - s)]
    if not rows:
        longest = max((len(clip.images) for clip in clips), default=0)
        raise ConfigError(f"no pair of frames is {min(strides)} apart: the longest sequence has {longest} frames")
    return np.array(rows)


class PairItems(IterableDataset):
    """Endless pairs in random order and sense, half of them mirrored; item i of a run depends on (seed, i) only.

    Items: image_1, image_2 (3, h, w) float32 BGR in [0, 1] and K (3, 3) float32 of both, and what ``extra`` adds.
    ``start`` is the number of batches done before; ``rank`` of ``world`` processes takes every ``world``-th batch.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        pairs: np.ndarray,
        seed: int,
        batch: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        extra: Callable[[np.random.Generator], dict[str, Tensor]] | None = None,
    ) -> None:
        self.clips, self.pairs, self.seed, self.batch = list(clips), pairs, seed, batch
        self.start, self.rank, self.world, self.extra = start, rank, world, extra

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        workers, me = (worker.num_workers, worker.id) if worker else (1, 0)
        # Whole batches go to one worker, as the loader collects them.
        number = self.start + me
        while True:
            for item in range(self.batch):
                yield self.item((number * self.world + self.rank) * self.batch + item)
            number += workers

    def item(self, index: int) -> dict[str, Tensor]:
        """Item ``index`` of the run."""
        rng = np.random.default_rng((self.seed, 5, index))
        clip_index, first, second = self.pairs[int(rng.integers(len(self.pairs)))]
        if rng.random() < 0.5:
            first, second = second, first
        clip = self.clips[int(clip_index)]
        K = clip.camera.K
        images = [clip.images[int(i)] for i in (first, second)]
        if rng.random() < 0.5:
            images = [image[:, ::-1] for image in images]
            K[0, 2] = clip.camera.width - 1 - K[0, 2]
        tensors: dict[str, Any] = {
            name: torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255.0
            for name, image in zip(("image_1", "image_2"), images)
        }
        tensors["K"] = torch.from_numpy(K).float()
        return tensors | (self.extra(rng) if self.extra else {})
