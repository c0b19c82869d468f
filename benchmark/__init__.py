"""What the package costs and how good it is, measured; see docs/performance.md."""
