"""Audit a synthetic dataset: leaks, defects, and distances of its clips from real ones."""
