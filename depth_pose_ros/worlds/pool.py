"""Samples on disk: render once, train on them for ever.

    python -m depth_pose_ros.worlds.pool --out DIR --count N --seed S --mix street=0.4,room=0.3,layered=0.3

Each sample is one uncompressed ``.npz`` that is written whole or not at all; a second run with the same arguments
makes what is missing. Sample number, seed and mix alone decide what is drawn.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from ..errors import ConfigError
from .layered import layered_sample
from .render import render_pair
from .sample import Sample
from .scenes import KINDS, sample_brightness, sample_pairs

FORMAT = 1
PER_SCENE = 8
"""Pairs of views drawn from one scene before the next is built; building takes as long as two or three pairs."""

DEFAULT_SIZES = {
    "street": (384, 160),
    "room": (320, 240),
    "corridor": (320, 240),
    "rubble": (320, 208),
    "layered": (320, 160),
}
_FLOW_UNIT = 64.0
_NEAR, _FAR = 0.05, 2000.0
_DEPTH_STEP = np.log(_FAR / _NEAR) / 65533


# ----------------------------------------------------------------------------------------------------------- one sample
def write_sample(path: Path, sample: Sample) -> None:
    """Write one sample: flow in 1/64 px (int16), depth as 16-bit logarithm (0.016 % steps), masks as bits."""
    flow = torch.stack([sample.flow_forward, sample.flow_backward]).cpu().numpy()
    depth = torch.stack([sample.depth_1, sample.depth_2]).cpu().numpy().astype(np.float64)
    code = np.where(depth > 0, 1 + np.round(np.log(np.clip(depth, _NEAR, _FAR) / _NEAR) / _DEPTH_STEP), 0)
    code[np.isinf(depth)] = 65535
    masks = torch.stack([sample.occluded_1, sample.occluded_2, sample.moving_1]).cpu().numpy()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        np.savez(
            file,
            images=torch.stack([sample.image_1, sample.image_2]).cpu().numpy(),
            flow=np.clip(np.round(flow * _FLOW_UNIT), -32767, 32767).astype(np.int16),
            depth=code.astype(np.uint16),
            masks=np.packbits(masks.reshape(3, -1), axis=1),
            geometry=np.concatenate([sample.T_2_1.cpu().numpy().ravel(), sample.K.cpu().numpy().ravel()]),
            kind=np.frombuffer(sample.kind.encode(), np.uint8),
        )
    os.replace(temporary, path)


_DEPTH_TABLE = np.concatenate([[0.0], _NEAR * np.exp(np.arange(65534) * _DEPTH_STEP), [np.inf]]).astype(np.float32)


def read_sample(path: str | Path) -> Sample:
    """Read what ``write_sample`` wrote. Flow is true to 1/128 px (and clipped at 512 px), depth to 0.01 %."""
    with np.load(path) as file:
        images, flow, depth, masks = (torch.from_numpy(file[key]) for key in ("images", "flow", "depth", "masks"))
        geometry, kind = torch.from_numpy(file["geometry"]), file["kind"].tobytes().decode()
    height, width = images.shape[2:]
    flow = flow.float().mul_(1 / _FLOW_UNIT)
    depth = torch.from_numpy(np.take(_DEPTH_TABLE, depth.numpy()))
    bits = np.unpackbits(masks.numpy(), axis=1, count=height * width).reshape(3, height, width)
    occluded_1, occluded_2, moving_1 = torch.from_numpy(bits).bool()
    return Sample(
        image_1=images[0],
        image_2=images[1],
        flow_forward=flow[0],
        flow_backward=flow[1],
        occluded_1=occluded_1,
        occluded_2=occluded_2,
        depth_1=depth[0],
        depth_2=depth[1],
        T_2_1=geometry[:16].reshape(4, 4),
        K=geometry[16:].reshape(3, 3),
        moving_1=moving_1,
        kind=kind,
    )


class PoolDataset(torch.utils.data.Dataset):
    """The samples of one or more pool folders, optionally of some kinds only; files that appear later are not seen."""

    def __init__(self, *folders: str | Path, kinds: set[str] | None = None) -> None:
        self.files = sorted(
            path
            for folder in folders
            for path in Path(folder).glob("*.npz")
            if not path.name.startswith(".") and (kinds is None or path.name.split("_")[0] in kinds)
        )
        if not self.files:
            raise ConfigError(
                f"no samples in {', '.join(map(str, folders))}"
                + (f" of kind {', '.join(sorted(kinds))}" if kinds else "")
                + "; make some with `python -m depth_pose_ros.worlds.pool --out DIR --count N`"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        return read_sample(self.files[index])


# ------------------------------------------------------------------------------------------------------------- the pool
def parse_mix(text: str) -> dict[str, float]:
    """``street=0.4,room=0.6`` -> shares that sum to 1."""
    mix = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        name = name.strip()
        if name not in DEFAULT_SIZES:
            raise ConfigError(f"unknown kind of scene '{name}' in the mix; choose from {', '.join(DEFAULT_SIZES)}")
        try:
            mix[name] = float(share or 1)
        except ValueError:
            raise ConfigError(f"the share of '{name}' is '{share}', expected a number such as 0.4") from None
    total = sum(mix.values())
    if total <= 0 or min(mix.values()) < 0:
        raise ConfigError(f"the shares of the mix '{text}' must be positive")
    return {name: share / total for name, share in mix.items()}


def _group(
    out: Path, index: int, count: int, seed: int, sizes: dict[str, tuple[int, int]], mix: dict[str, float], device: str
) -> tuple[str, int, float]:
    """Make the samples of one scene that are not there yet. Returns the kind, how many were written and the seconds."""
    began = time.monotonic()
    rng = np.random.default_rng([seed, index, 0x9001])
    kind = str(rng.choice(list(mix), p=list(mix.values())))
    scene_seed = int(rng.integers(2**31))
    width, height = sizes[kind]
    paths = [out / f"{kind}_{seed:04d}_{index:06d}_{k}.npz" for k in range(count)]
    missing = [k for k, path in enumerate(paths) if not path.exists()]
    if not missing:
        return kind, 0, 0.0
    if kind == "layered":
        for k in missing:
            write_sample(paths[k], layered_sample(scene_seed + k, width, height))
    else:
        for k, (scene, views) in enumerate(sample_pairs(kind, scene_seed, count, width, height, device)):
            if k in missing:
                brightness = sample_brightness(scene_seed + k)
                pair = render_pair(
                    scene,
                    views.T_world_camera_1,
                    views.T_world_camera_2,
                    views.K,
                    width,
                    height,
                    views.times,
                    brightness,
                )
                write_sample(paths[k], pair)
    return kind, len(missing), time.monotonic() - began


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    import cv2

    cv2.setNumThreads(threads)


def render_pool(
    out_dir: str | Path,
    count: int,
    seed: int = 0,
    width: int | None = None,
    height: int | None = None,
    mix: dict[str, float] | None = None,
    workers: int = 1,
    sizes: dict[str, tuple[int, int]] | None = None,
    device: str = "cpu",
    progress=None,
) -> int:
    """Fill ``out_dir`` with ``count`` samples; those already there are kept. Returns how many were rendered.

    ``width`` and ``height`` set one size for all kinds; otherwise ``sizes`` {kind: (width, height)} over DEFAULT_SIZES.
    ``mix``: share of each kind. ``progress(done, total, kind, seconds)`` is called after each scene.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    mix = mix or {"street": 0.4, "room": 0.25, "corridor": 0.05, "rubble": 0.05, "layered": 0.25}
    sizes = DEFAULT_SIZES | (sizes or {})
    if width and height:
        sizes = dict.fromkeys(sizes, (width, height))
    unknown = set(mix) - set(KINDS) - {"layered"}
    if unknown:
        raise ConfigError(f"unknown kind of scene {sorted(unknown)}; choose from {[*KINDS, 'layered']}")
    (out / f"pool_{seed:04d}.json").write_text(
        json.dumps({"format": FORMAT, "seed": seed, "count": count, "mix": mix, "sizes": sizes}, indent=1) + "\n"
    )
    groups = [(index, min(PER_SCENE, count - index * PER_SCENE)) for index in range(-(-count // PER_SCENE))]
    written = done = 0
    arguments = [(out, index, size, seed, sizes, mix, device) for index, size in groups]

    def finished(group: tuple, result: tuple[str, int, float]) -> None:
        nonlocal written, done
        written += result[1]
        done += group[2]
        if progress is not None:
            progress(done, count, result[0], result[2])

    if workers <= 1:
        for group in arguments:
            finished(group, _group(*group))
        return written
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (1,)) as executor:
        futures = {executor.submit(_group, *group): group for group in arguments}
        for future in as_completed(futures):
            finished(futures[future], future.result())
    return written


def main(arguments: list[str] | None = None) -> int:
    """Command line of the pool."""
    parser = argparse.ArgumentParser(
        prog="python -m depth_pose_ros.worlds.pool", description="Render training samples."
    )
    parser.add_argument("--out", required=True, help="folder of the samples")
    parser.add_argument("--count", type=int, default=1000, help="samples in all (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other samples (default: 0)")
    parser.add_argument("--width", type=int, help="one width for all kinds, px (default: by kind)")
    parser.add_argument("--height", type=int, help="one height for all kinds, px (default: by kind)")
    parser.add_argument(
        "--size", action="append", default=[], metavar="KIND=WxH", help="size of one kind, e.g. room=256x192"
    )
    parser.add_argument("--mix", default="street=0.4,room=0.25,corridor=0.05,rubble=0.05,layered=0.25", help="shares")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        mix = parse_mix(options.mix)
        sizes = {}
        for text in options.size:
            kind, _, size = text.partition("=")
            w, _, h = size.partition("x")
            if kind not in DEFAULT_SIZES or not (w.isdigit() and h.isdigit()):
                raise ConfigError(
                    f"--size {text}: expected KIND=WxH such as room=256x192, KIND in {list(DEFAULT_SIZES)}"
                )
            sizes[kind] = (int(w), int(h))

        def progress(done: int, total: int, kind: str, seconds: float) -> None:
            passed = time.monotonic() - began
            print(f"{done}/{total} samples, {done / max(passed, 1e-3):.2f}/s, last {kind} {seconds:.1f} s", flush=True)

        if options.workers <= 1:
            _start_worker(1)
        render_pool(
            options.out, options.count, options.seed, options.width, options.height, mix, options.workers, sizes,
            options.device, progress,
        )  # fmt: skip
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
