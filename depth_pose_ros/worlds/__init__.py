"""Procedural scenes with exact flow, occlusion, depth and pose, to learn from and to test against."""
