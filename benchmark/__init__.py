"""What the package costs and how good it is, measured; see docs/performance.md."""

from depth_pose_ros.threads import one_blas_thread

one_blas_thread()  # as the nodes and the command line have it
