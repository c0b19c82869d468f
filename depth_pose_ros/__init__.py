"""Camera-only odometry, depth and point clouds for ROS 2."""

__version__ = "0.1.0"
