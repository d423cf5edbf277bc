"""Runs compared honestly: `metrics` and `stats` are pure, `compare` reads runs and says what they show.

Nothing here prints, and nothing needs torch. Accuracies are fractions (0 to 1); differences are in points
(x 100) and say so in their names.
"""

from __future__ import annotations
