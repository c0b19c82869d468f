"""Tells the motion of the camera from that of something that passes in front of it, by what came before."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from depth_pose_ros.geometry import se3
from depth_pose_ros.geometry.rigidity import MIN_SHARE, Scene, rests

CALM_NS = 1_000_000_000  # in which nothing but the world was seen, after which nothing else is expected
FORGOTTEN_NS = 5_000_000_000  # likewise while it may still hide a part of the view
LEARNED = 0.2  # of how well the camera can be foretold, from one frame: from one in a shaking hand it cannot
FAST_TURN = 0.1  # rad between two views: what passes does not turn, and next to all that such a turn shows is new
WORSE = 1.3  # times as many matches must go on as before as agree with the motion that is found, for it to be doubted


class Mover(Enum):
    """What a motion is of, on which most matches agree."""

    CAMERA = "the camera"
    OTHERS = "something else, while the camera stands still"
    PART = "perhaps something else; see what the matches of the world say"


@dataclass(frozen=True)
class Verdict:
    """What a motion is of, and which of the (N,) matches move with the world, as far as they tell."""

    mover: Mover
    world: np.ndarray


class Crowd:
    """Judges the motions that are found, in the order of their frames."""

    def __init__(self) -> None:
        self.since_ns: int | None = None
        """Stamp of the frame since which something else moves, and hides much of the view; None if nothing does."""
        self._last_ns = 0  # of the last such frame
        self._holds = 0.4  # share of the frames of late in which the camera went on as before

    def seconds(self, stamp_ns: int) -> float:
        """For how long that has been so."""
        return 0.0 if self.since_ns is None else (stamp_ns - self.since_ns) * 1e-9

    def note(self, stamp_ns: int, is_crowded: bool, is_clear: bool = False) -> None:
        """What became of the judgement of a frame; ``is_clear``: nothing but the world is seen in it."""
        if is_crowded:
            self.since_ns, self._last_ns = self.since_ns or stamp_ns, stamp_ns
        elif stamp_ns - self._last_ns > (CALM_NS if is_clear else FORGOTTEN_NS):
            self.since_ns = None

    def lose(self) -> None:
        """The way was lost for another reason: for some frames nothing can be foretold."""
        self._holds = 0.0

    def judge(
        self,
        scene: Scene,
        T_2_1: np.ndarray,
        inliers: np.ndarray,
        expected: np.ndarray | None,
        was_at_rest: bool,
        suspect: np.ndarray,
    ) -> Verdict:
        """The motion T_2_1 (4, 4) on which the ``inliers`` (N,) agree.

        expected: (4, 4) what it would be if the camera went on as before; None where that is not known.
        was_at_rest: the camera stood still in view 1.
        suspect:  (N,) bool, matches from where the world was not seen before.
        """
        found = scene.shift(T_2_1)
        if (was_at_rest or expected is None) and rests(scene, found):
            return Verdict(Mover.OTHERS, scene.flow_px < scene.still_px)
        if expected is None:
            return Verdict(Mover.CAMERA, ~found.contradicts)
        before = scene.shift(expected)
        if self.since_ns is None:
            is_predictable = self._holds >= 0.5 and se3.rotation_angle(T_2_1[:3, :3]) < FAST_TURN
            self._holds += LEARNED * (before.allows(inliers) - self._holds)
            if not is_predictable:
                return Verdict(Mover.CAMERA, ~found.contradicts)
        others = found.is_clearly_worse_than(before)
        explained, explained_before = np.mean(found.fits_beside(before)), np.mean(before.fits_beside(found))
        is_worse = explained_before > max(WORSE * explained, MIN_SHARE)
        is_hidden = max(np.mean(suspect), np.mean(suspect[inliers])) > 0.5
        if not is_hidden and np.mean(others) < MIN_SHARE and not is_worse:
            return Verdict(Mover.CAMERA, ~found.contradicts)
        if before.allows(inliers) and not is_worse:
            return Verdict(Mover.CAMERA, ~found.contradicts)
        return Verdict(Mover.PART, others | (before.fits_beside(found) & ~suspect) | ~(suspect | found.fits))
