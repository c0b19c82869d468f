"""Sub-pixel refinement of matches: Lucas-Kanade at full resolution, started from the network's flow.

A network's flow is right to a fraction of its own grid; the images know better. One level of Lucas-Kanade there and
back again both moves each match and says how far to trust it.
"""

import cv2
import numpy as np

from depth_pose_ros.geometry.appearance import contrast
from depth_pose_ros.geometry.correspondences import Matches

WINDOW_PX = 11  # a wider one smears over depth edges and was worse in direction
MAX_CORRECTION_PX = 4.0  # of an image 1000 pixels wide; a larger move means that it ran to something else
MAX_ROUND_TRIP_PX = 2.0  # likewise, of there and back again
UNREFINED_PX = 0.5  # error that is added to what stays as the network gave it
MAX_DIFFERENCE = 0.5  # mean, of the contrast of the image: true matches have 0.02 to 0.2, a picture and noise 1 to 2
MIN_REFINED = 0.1  # share of the matches; real pairs have 0.3 to 0.95


def refine(gray_1: np.ndarray, gray_2: np.ndarray, matches: Matches) -> Matches:
    """The matches with ``points_2`` moved to where image 2 looks like image 1, and their scores measured anew.

    gray_1, gray_2: (H, W) uint8, in whose pixels the matches are. The score becomes ``1 / (0.1 + |there and back|)``,
    the form it has for flow (see correspondences.score). Where Lucas-Kanade fails, runs away or does not come back, the
    network's value and score are kept, the latter lowered. But between a picture and noise, flow can be quite
    consistent and still wrong: matches whose surroundings look nothing alike are left out, and where next to none could
    be refined, the others are not believed either.
    """
    if not len(matches):
        return matches
    scale = gray_1.shape[1] / 1000.0
    lk = {
        "winSize": (WINDOW_PX, WINDOW_PX),
        "maxLevel": 0,
        "criteria": (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 10, 0.01),
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
    }
    start_1, start_2 = np.ascontiguousarray(matches.points_1), np.ascontiguousarray(matches.points_2)
    there, found, difference = cv2.calcOpticalFlowPyrLK(gray_1, gray_2, start_1, start_2.copy(), **lk)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(gray_2, gray_1, there, start_1.copy(), **lk)
    correction = np.linalg.norm(there - start_2, axis=1)
    round_trip = np.linalg.norm(back - start_1, axis=1)
    refined = (found.ravel() > 0) & (found_back.ravel() > 0)
    refined &= (correction < MAX_CORRECTION_PX * scale) & (round_trip < MAX_ROUND_TRIP_PX * scale)
    likeness = MAX_DIFFERENCE * min(contrast(gray_1), contrast(gray_2))
    unlike = (found.ravel() > 0) & (difference.ravel() > likeness)
    kept = ~unlike if np.count_nonzero(refined & ~unlike) > MIN_REFINED * len(matches) else refined & ~unlike
    scores = np.where(refined, 1.0 / (0.1 + round_trip), 1.0 / (1.0 / matches.scores + UNREFINED_PX))
    points_2 = np.where(refined[:, None], there, start_2)
    return Matches(start_1[kept], points_2[kept], scores[kept].astype(np.float32))
