"""FlowEstimator and DepthEstimator over a network file, whatever backend runs it."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from depth_pose_ros.config import EngineConfig
from depth_pose_ros.engines.cache import cache_folder
from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.engines.ladder import Runner, Wish, open_runners
from depth_pose_ros.engines.listener import Listener
from depth_pose_ros.engines.manifest import Inputs, Manifest
from depth_pose_ros.engines.self_check import SelfCheck, compare, reference
from depth_pose_ros.errors import EngineError, ImageError, ModelError

SMALLEST_INVERSE_DEPTH = 1e-6
"""Keeps depth finite where a network says that something is infinitely far."""


class _Network:
    """What flow and depth share: the runners, the input's preparation and the checks."""

    def __init__(
        self,
        manifest: Manifest,
        width: int,
        height: int,
        backend: str,
        threads: int,
        engine: EngineConfig | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.manifest = manifest
        self.width, self.height = self.input_size = width, height
        self._prepare = ImageToTensor(manifest.inputs, width, height)
        self._wish = Wish(backend, threads, engine or EngineConfig(), listener or Listener())
        runners, self.backend_reasons = open_runners(manifest, width, height, self._wish, self._check)
        self._use(runners)

    def _use(self, runners: tuple[Runner, ...]) -> None:
        *self._encoder, self._runner = runners  # what runs once for each image, if anything, and what gives the outputs
        self.backend = ", ".join(dict.fromkeys(runner.backend for runner in runners))
        self.runs_on = f"{self.backend} ({', '.join(runner.file for runner in runners)})"
        self._warm_up()

    def _check(self, runners: tuple[Runner, ...]) -> SelfCheck | None:
        """What the runners give for the model's stored images, compared with what they should; None: it has none."""
        self._use(runners)
        if self.manifest.self_check is None:
            return None

        def on_cpu(width: int, height: int) -> Callable[..., dict[str, np.ndarray]]:
            return type(self)(self.manifest, width, height, "cpu", self._wish.threads).outputs

        folder = cache_folder(self._wish.engine.engine_cache)
        images, expected = reference(self.manifest, *self.input_size, on_cpu, folder)
        return compare(self.manifest, self.backend, self.outputs(*images), expected)

    def _encode(self, tensor: np.ndarray) -> Sequence[np.ndarray]:
        """What is kept of an image (1, 3, height, width): its features, or itself where the network is one graph."""
        return self._encoder[0].run(tensor) if self._encoder else (tensor,)

    def _warm_up(self) -> None:
        """Run once: the first run allocates, and a network whose outputs break its manifest is better refused now."""
        stride = self.manifest.outputs.stride
        width, height = self.input_size
        blank = self._encode(np.full((1, 3, height, width), 0.5, np.float32))
        outputs = self._runner.run(*(tensor for _ in self.manifest.inputs.names for tensor in blank))
        for name, output in zip(self.manifest.outputs.names, outputs):
            channels = 2 if name in ("forward", "backward") else 1
            expected = (1, channels, height // stride, width // stride)
            if output.shape != expected:
                raise ModelError(
                    f"{self.manifest.name}: output {name} is {output.shape} for a {width}x{height} input; "
                    f"its manifest (stride {stride}) promises {expected}"
                )

    def outputs(self, *images: np.ndarray) -> dict[str, np.ndarray]:
        """The network's outputs (C, h, w) by name, as they come, for images (height, width, 3) uint8 BGR."""
        outputs = self._runner.run(*(tensor for image in images for tensor in self._encode(self._prepare(image))))
        return {name: output[0] for name, output in zip(self.manifest.outputs.names, outputs)}

    def _run(self, *tensors: np.ndarray) -> list[np.ndarray]:
        """Outputs (C, h, w) in the manifest's order. EngineError when one holds NaN or infinity."""
        outputs = [output[0] for output in self._runner.run(*tensors)]
        for name, output in zip(self.manifest.outputs.names, outputs):
            finite = int(np.isfinite(output).sum())
            if finite < output.size:
                raise EngineError(
                    f"{self.manifest.name} on {self.backend} gave {output.size - finite} of {output.size} values of "
                    f"{name} that are not finite; try backend cpu, and if it gives the same, export the network again"
                )
        return outputs


class NetworkFlow(_Network):
    """Optical flow by a network file; see ``FlowEstimator``."""

    def features(self, image: np.ndarray) -> Sequence[np.ndarray]:
        """What the network needs of one (height, width, 3) uint8 BGR image, to be kept as it is."""
        return self._encode(self._prepare(image))

    def flow(self, features_1: Sequence[np.ndarray], features_2: Sequence[np.ndarray]) -> FlowField:
        """Flow both ways, and sigma where the network estimates it."""
        outputs = self._run(*features_1, *features_2)
        forward, backward = (np.ascontiguousarray(flow.transpose(1, 2, 0)) for flow in outputs[:2])
        sigma = outputs[2][0] if len(outputs) > 2 else None
        return FlowField(forward, backward, sigma, self.manifest.outputs.stride)


class NetworkDepth(_Network):
    """Depth of one image by a network file; see ``DepthEstimator``.

    It takes images of the size it was opened for, ``input_size``; after :meth:`take` of another, which it resizes. The
    depth is as fine as the network's output, or as its stride is on the image given, if that is finer.
    """

    def take(self, width: int, height: int) -> None:
        """From now on :meth:`depth` is given images of width x height pixels, of the same view and shape."""
        self.width, self.height = width, height

    @property
    def reference_focal(self) -> float | None:
        """fx (px) at which depth has the unit that the network was trained in; None: unknown."""
        return self.manifest.outputs.reference_focal

    def depth(self, image: np.ndarray, fx: float | None = None) -> np.ndarray:
        """(height, width, 3) uint8 BGR -> (h, w) float32 depth along Z, finite and positive, in the network's unit.

        fx: of the camera, px of ``image``; used where the manifest names a reference focal length.
        """
        outputs = self.manifest.outputs
        if self.input_size != (self.width, self.height):
            check_image(image, self.height, self.width)
            smaller = self.input_size[0] < self.width
            image = cv2.resize(image, self.input_size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
            fx = fx * self.input_size[0] / self.width if fx else fx
        value = self._run(self._prepare(image))[0][0]
        width, height = self.width // outputs.stride, self.height // outputs.stride
        if value.shape[1] < width:  # the network saw less than it was given
            value = cv2.resize(value, (width, height), interpolation=cv2.INTER_LINEAR)
        if (outputs.scale, outputs.offset) != (1.0, 0.0):
            value = value * np.float32(outputs.scale) + np.float32(outputs.offset)
        zoom = np.float32(fx / self.reference_focal if fx and self.reference_focal else 1.0)
        if outputs.kind == "inverse_depth":
            return zoom / np.maximum(value, np.float32(SMALLEST_INVERSE_DEPTH))
        return zoom * np.clip(value, np.float32(SMALLEST_INVERSE_DEPTH), np.float32(1 / SMALLEST_INVERSE_DEPTH))


def check_image(image: np.ndarray, height: int, width: int) -> None:
    """ImageError unless the image is (height, width, 3) uint8."""
    if not isinstance(image, np.ndarray) or image.shape != (height, width, 3) or image.dtype != np.uint8:
        got = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(
            f"the network was loaded for ({height}, {width}, 3) uint8 BGR images; "
            f"this one is {got}. Resize it first, or load the network for its size"
        )


class ImageToTensor:
    """(height, width, 3) uint8 BGR -> (1, 3, height, width) float32, normalised and ordered as a network wants it.

    Five times as fast as cv2.dnn.blobFromImage at 640x192 (0.25 ms): the planes are split into kept buffers and scaled
    on the way to float.
    """

    def __init__(self, inputs: Inputs, width: int, height: int) -> None:
        self._size = (height, width)
        self._planes = [np.empty(self._size, np.uint8) for _ in range(3)]
        self._order = (0, 1, 2) if inputs.channel_order == "BGR" else (2, 1, 0)
        self._gain = [np.float32(1.0 / (255.0 * std)) for std in inputs.std]
        self._offset = [np.float32(-mean / std) for mean, std in zip(inputs.mean, inputs.std)]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """ImageError when the image has another size or type than the network was loaded for."""
        check_image(image, *self._size)
        tensor = np.empty((1, 3, *self._size), np.float32)
        cv2.split(image, self._planes)
        for channel, plane in enumerate(self._order):
            np.multiply(self._planes[plane], self._gain[channel], out=tensor[0, channel])
            if self._offset[channel]:
                tensor[0, channel] += self._offset[channel]
        return tensor
