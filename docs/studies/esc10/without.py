"""ESC-10 without the clips of recordings that the embedded generator was trained on. Audio is linked, not copied.

python docs/studies/esc10/without.py ESC10 OUT
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

from usk.diffusion.pipeline import describe_generator


def main(whole: Path, out: Path) -> None:
    known = {group.rpartition("/")[2] for group in describe_generator().training_groups}
    with (whole / "labels.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if row["recording"] not in known]
        names = list(reader.fieldnames or ())
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
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
