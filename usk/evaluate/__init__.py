"""Compare training runs: `compare` reads runs, `pairing` groups them, `stats` and `metrics` compute, `verdict` concludes.

Nothing here prints or imports torch. Accuracies are fractions; differences, named `_points`, are in percentage points.
"""
