"""Synthetic clips: the plan, its rendering, and the dataset folder it is kept in."""
