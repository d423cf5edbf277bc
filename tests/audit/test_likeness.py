"""How like clips are to their parents' average: known where it is known what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from usk.audit.audit import audit
from usk.audit.tables import findings
from usk.data.open import open_source

Command = Callable[..., Any]
WHAT = "clips that are next to their parents' average"


def found_of(usk: Command, real: Path, out: Path, *options: object) -> Any:
    usk(f"synth --real {real} --out {out} --per-class 2 --strategy waveform", *options).done()
    return audit(open_source(str(out)), open_source(str(real)))


def test_a_clip_of_one_parent_alone_is_that_parent(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    found = found_of(usk, urbansound8k_folder, tmp_path / "synth", "--alpha", "0")
    like = found.likeness
    assert like.clips == 6
    assert like.average_correlation == pytest.approx(1, abs=0.01), (
        "the average is the first parent, by its weight"
    )
    assert like.nearest_correlation == pytest.approx(1, abs=0.01)
    assert like.average_db == pytest.approx(0, abs=0.5)
    (finding,) = [one for one in findings(found) if one.what == WHAT]
    assert finding.kind == "look"


def test_sums_lie_between_their_parents(usk: Command, urbansound8k_folder: Path, tmp_path: Path) -> None:
    found = found_of(usk, urbansound8k_folder, tmp_path / "synth")
    like = found.likeness
    assert like.nearest_correlation < like.average_correlation < 0.98
    assert like.nearest_db > like.average_db > 1
    (finding,) = [one for one in findings(found) if one.what == WHAT]
    assert finding.kind == "good"
