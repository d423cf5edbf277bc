"""Compare training runs: `compare` reads runs, `pairing` groups them, `stats` and `metrics` compute, `verdict` concludes.

Nothing here prints or imports torch. Accuracies are fractions (0 to 1). Differences are in percentage points, and their
names end in `_points`.
"""

from __future__ import annotations
