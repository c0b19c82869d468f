"""The errors this package raises on purpose. Each message says what was wrong, with the value, and what to do."""


class DepthPoseError(Exception):
    """Root of every error that depth_pose_ros raises on purpose."""


class ConfigError(DepthPoseError):
    """A parameter has a value that is out of range, of the wrong type or unknown."""


class CameraError(DepthPoseError):
    """Intrinsics, distortion or a CameraInfo that cannot be used."""


class ImageError(DepthPoseError):
    """An image that cannot be decoded or does not fit its camera."""


class ModelError(DepthPoseError):
    """A network file or its manifest is missing, corrupt or not what the contract asks for."""


class EngineError(DepthPoseError):
    """No backend can run a network here, or a backend failed."""


class SequenceError(DepthPoseError):
    """A folder, video or bag that cannot be read as a camera sequence."""
