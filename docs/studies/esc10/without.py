"""ESC-10 without the clips of recordings that the embedded generator was trained on. Audio is linked, not copied.

python docs/studies/esc10/without.py ESC10 OUT [two-parts]

With `two-parts`, folds 3, 4 and 5 become one test part, without recordings of folds 1 and 2: for `own.toml`.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

from usk.diffusion.pipeline import describe_generator


def main(whole: Path, out: Path, two_parts: bool) -> None:
    known = {group.rpartition("/")[2] for group in describe_generator().training_groups}
    with (whole / "labels.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if row["recording"] not in known]
        names = list(reader.fieldnames or ())
    if two_parts:
        training = {row["recording"] for row in rows if row["fold"] in ("1", "2")}
        rows = [row for row in rows if row["fold"] in ("1", "2") or row["recording"] not in training]
        rows = [row if row["fold"] in ("1", "2") else {**row, "fold": "3"} for row in rows]
    for row in rows:
        link = out / row["file"]
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.link(whole / row["file"], link)
    with (out / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[3:] not in ([], ["two-parts"]):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), two_parts=len(sys.argv) == 4)
