"""UrbanSound8K in two parts: folds 1 and 3 stay what they are, fold 2 holds all others. Audio is linked, not copied.

    python docs/studies/texture/two_parts.py UrbanSound8K OUT

The embedded generator was trained on folds 1 and 3. One classifier of these is tested on all other folds, in one run. Clips of
recordings that both parts have are left out of fold 2.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

TRAIN_FOLDS = {"1", "3"}


def main(whole: Path, out: Path) -> None:
    table = Path("metadata") / "UrbanSound8K.csv"
    with (whole / table).open(newline="") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or ()), list(reader)
    (out / table).parent.mkdir(parents=True, exist_ok=True)
    trained = {row["fsID"] for row in rows if row["fold"] in TRAIN_FOLDS}
    rows = [row for row in rows if row["fold"] in TRAIN_FOLDS or row["fsID"] not in trained]
    for row in rows:
        source = whole / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
        row["fold"] = row["fold"] if row["fold"] in TRAIN_FOLDS else "2"
        link = out / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
        link.parent.mkdir(parents=True, exist_ok=True)
        if source.exists() and not link.exists():
            os.link(source, link)
    with (out / table).open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
