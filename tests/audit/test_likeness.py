"""Tests of how clips are compared with their parents, on clips with a known relation to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from usk.audit.audit import audit
from usk.audit.tables import findings
from usk.data.open import open_source

Command = Callable[..., Any]
CHECK = "clips that are next to their parents' average"


def audit_of(usk: Command, real: Path, out: Path, *options: object) -> Any:
    usk(f"synth --real {real} --out {out} --per-class 2 --strategy waveform", *options).done()
    return audit(open_source(str(out)), open_source(str(real)))


def test_a_clip_with_alpha_0_equals_its_first_parent(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    result = audit_of(usk, urbansound8k_folder, tmp_path / "synth", "--alpha", "0")
    like = result.likeness
    assert like.clips == 6
    assert like.average_correlation == pytest.approx(1, abs=0.01), "the weighted average is the first parent"
    assert like.nearest_correlation == pytest.approx(1, abs=0.01)
    assert like.average_db == pytest.approx(0, abs=0.5)
    (finding,) = [one for one in findings(result) if one.what == CHECK]
    assert finding.kind == "look"


def test_sums_are_closer_to_the_average_than_to_a_parent(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    result = audit_of(usk, urbansound8k_folder, tmp_path / "synth")
    like = result.likeness
    assert like.nearest_correlation < like.average_correlation < 0.98
    assert like.nearest_db > like.average_db > 1
    (finding,) = [one for one in findings(result) if one.what == CHECK]
    assert finding.kind == "good"


def test_of_several_strategies_the_clips_with_two_parents_count(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    usk(
        f"synth --real {urbansound8k_folder} --out {tmp_path}/synth --per-class 4 --strategy waveform,classical --alpha 0"
    ).done()
    like = audit(open_source(str(tmp_path / "synth")), open_source(str(urbansound8k_folder))).likeness
    assert like is not None and like.clips == 6
    assert like.average_correlation == pytest.approx(1, abs=0.01)
