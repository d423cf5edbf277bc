"""A dataset looked over: leaks, defects, and how close its clips are to real ones."""
