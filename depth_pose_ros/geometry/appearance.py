"""What an image looks like, as far as it explains why it cannot be matched with an earlier one."""

from dataclasses import dataclass

import cv2
import numpy as np

MIN_CONTRAST = 2.0  # grey levels; an image below is a lens cap, a wall at night or a broken cable
LITTLE_CONTRAST = 12.0  # grey levels
DARK, BRIGHT = 8, 247  # grey levels beyond which a sensor shows next to nothing
MOST = 0.5  # of the image
BRIGHTER = 1.6  # from one image to the next; a camera's own control does this in many frames
BLURRED = 0.7  # of the sharpness of the image before


@dataclass(frozen=True)
class Look:
    """An image in a few numbers.

    contrast:   standard deviation in grey levels. brightness: mean grey level.
    dark, bright: share of the pixels that are nearly black or white.
    sharpness:  across and along: difference to the next pixel over that to the fourth, 0.25 where all is smooth and
        about 1 in noise.
    """

    contrast: float
    brightness: float
    dark: float
    bright: float
    sharpness: tuple[float, float]

    @classmethod
    def of(cls, gray: np.ndarray) -> "Look":
        """From some thousand pixels of a (H, W) uint8 image."""
        some = np.ascontiguousarray(gray[::8, ::8])
        rows = gray[::8].astype(np.int16)
        columns = gray[:, ::8].T.astype(np.int16)
        sharpness = tuple(
            float(
                (np.abs(lines[:, 1:] - lines[:, :-1]).mean() + 0.1)
                / (np.abs(lines[:, 4:] - lines[:, :-4]).mean() + 0.1)
            )
            for lines in (rows, columns)
        )
        return cls(
            contrast(gray), float(some.mean()), float((some < DARK).mean()), float((some > BRIGHT).mean()), sharpness
        )

    def why_unlike(self, before: "Look | None") -> str:
        """What may keep this image from being matched with the one before, in words; "" where it looks like it."""
        if self.dark > MOST:
            return f"{100 * self.dark:.0f} % of the image is black"
        if self.bright > MOST:
            return f"{100 * self.bright:.0f} % of the image is overexposed"
        if before is not None:
            ratio = (self.brightness + 1.0) / (before.brightness + 1.0)
            if not 1 / BRIGHTER < ratio < BRIGHTER:
                return f"the exposure jumped: mean grey level {before.brightness:.0f} before, {self.brightness:.0f} now"
            share = min(now / then for now, then in zip(self.sharpness, before.sharpness))
            if share < BLURRED:
                return f"the image is blurred: {100 * share:.0f} % as sharp as the one before"
        if self.contrast < LITTLE_CONTRAST:
            return f"there is little texture: {self.contrast:.1f} grey levels of contrast"
        return ""


def contrast(gray: np.ndarray) -> float:
    """Standard deviation of an image in grey levels, from every eighth pixel each way."""
    return float(cv2.meanStdDev(np.ascontiguousarray(gray[::8, ::8]))[1][0, 0])
