"""Where the camera may be while no image shows it: it is held, or goes on as before, and the doubt grows with time."""

import math

import numpy as np

from depth_pose_ros.geometry import se3

MEMORY = 1.0  # s, in which a speed that was seen before falls to a third
OWN_SPEED = 0.1  # of the distance of the scene, per second: what a camera may begin to do unseen
OWN_TURN = 1.0  # rad/s, likewise
KEPT_SPEED = 0.5  # share of its speed by which a camera that was seen moving may depart from it


class Coasting:
    """Learns from tracked frames how the camera moves, and says where it may be some time after the last of them."""

    def __init__(self) -> None:
        self._step, self._dt = np.eye(4), 0.0  # the last motion that was seen, and the time it took
        self._speed = self._turn = 0.0  # the fastest of late: units and rad per second
        self._distance = 1.0

    def see(self, step: np.ndarray, dt: float, distance: float) -> None:
        """A tracked frame.

        step: (4, 4) its pose in the tracked frame before it, ``dt`` seconds ago. distance: of the scene, in its unit.
        """
        self._step, self._dt, self._distance = step, dt, distance
        forgotten = math.exp(-dt / MEMORY)
        self._speed = max(float(np.linalg.norm(step[:3, 3])) / dt, forgotten * self._speed)
        self._turn = max(se3.rotation_angle(step[:3, :3]) / dt, forgotten * self._turn)

    def stop(self) -> None:
        """A new start: what the camera did before says nothing any more of the direction in which it goes."""
        self._step, self._dt = np.eye(4), 0.0

    @property
    def knows(self) -> bool:
        """Whether a motion was seen since the last start."""
        return self._dt > 0.0

    def motion(self, seconds: float) -> np.ndarray:
        """(4, 4) pose after so many seconds at the last velocity."""
        if self._dt == 0.0 or abs(seconds - self._dt) < 0.02 * self._dt:
            return self._step
        return se3.se3_exp(se3.se3_log(self._step) * (seconds / self._dt))

    def doubt(self, seconds: float, goes_on: bool) -> np.ndarray:
        """(6, 6) covariance of the pose after so many seconds unseen, in the axes of the last frame that was seen.

        goes_on: the pose is that of :meth:`motion`; else it is held, and all that the camera did was missed.
        """
        share = KEPT_SPEED if goes_on else 1.0
        moved = (share * self._speed + OWN_SPEED * self._distance) * seconds
        turned = (share * self._turn + OWN_TURN) * seconds
        return np.diag([moved**2] * 3 + [turned**2] * 3)
