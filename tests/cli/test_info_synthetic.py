"""`usk info` of a synthetic dataset: classes, counts, durations, and the origin of the clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.synth.settings import SynthConfig, render_config
from usk.synth.synthesize import synthesize


def test_it_says_what_is_in_it(usk: Callable[..., Any], tone_folder: Path, tmp_path: Path) -> None:
    config = SynthConfig(per_class=2, render=render_config(strategy="waveform"))
    folder = synthesize(open_source(tone_folder), tmp_path / "synth", config).folder
    facts = usk("info", folder, "--json").value
    assert (facts["clips"], facts["strategies"], facts["made by"]) == (6, ["waveform"], ["none"])
    assert "mean filter score" not in facts
    decoded = decode_source(open_source(folder))
    lengths_s = [clip.duration_s for clip in decoded.source.clips]
    assert facts["seconds"] == pytest.approx(sum(lengths_s), abs=0.1)
    for row in facts["classes"]:
        of = [
            clip.duration_s
            for clip in decoded.source.clips
            if decoded.source.class_names[clip.label] == row["class"]
        ]
        assert (row["clips"], row["mean_s"]) == (2, pytest.approx(sum(of) / 2, abs=0.01))
    assert facts["recordings"] == len(
        {group for clip in decoded.source.clips for group in clip.parent_groups}
    )
    assert "mean" in usk("info", folder).out
