"""Several strategies in one dataset: what the default makes of each generator, and that parts make the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.manifests import contents, rows_in
from tests.sounds import URBAN_CLASSES
from usk.data.open import open_source
from usk.diffusion.load import load_generator
from usk.manifest import read_manifest
from usk.synth.prepare import prepare
from usk.synth.settings import SynthConfig, render_configs

Command = Callable[..., Any]
CLASSES = tuple(URBAN_CLASSES.values())
SHORT = ("--steps", 1, "--device", "cpu")


@pytest.mark.parametrize(
    ("known", "strategies"),
    [
        (CLASSES, ("decomposed", "sample")),
        ((), ("decomposed",)),  # the generator is not conditioned on classes
        (CLASSES[:2], ("decomposed",)),  # it does not know a class
    ],
)
def test_by_default_both_kinds_share_the_clips_if_the_generator_knows_all_classes(
    usk: Command,
    tiny_pipeline: Callable[..., Path],
    urbansound8k_folder: Path,
    tmp_path: Path,
    known: tuple[str, ...],
    strategies: tuple[str, ...],
) -> None:
    model = tiny_pipeline(class_names=known) if known else tiny_pipeline()
    out = tmp_path / "synth"
    words = ("synth", "--real", urbansound8k_folder, "--model", model, "--per-class", 3, *SHORT)
    made = usk(*words, "--out", out, "--json").done()
    assert set(made.value["settings"]) == set(read_manifest(out).render) == set(strategies)
    rows = rows_in(out)
    counts = Counter((row["label"], row["strategy"]) for row in rows)
    shares = {"decomposed": 2, "sample": 1} if len(strategies) == 2 else {"decomposed": 3}
    assert counts == {(label, name): n for label in range(3) for name, n in shares.items()}
    assert {(row["strategy"], len(row["parents"])) for row in rows} <= {("decomposed", 2), ("sample", 1)}
    card = (out / "README.md").read_text()
    assert all(f"| strategy | `{name}`" in card for name in strategies)
    assert ("`decomposed`: 6." in card) == (len(strategies) == 2)


@pytest.mark.parametrize(("class_effect", "condition_on_class"), [(None, False), (0.01, True)])
def test_without_the_class_or_if_the_classes_are_alike_nothing_is_drawn_from_the_class(
    tiny_pipeline: Callable[..., Path],
    urbansound8k_folder: Path,
    class_effect: float | None,
    condition_on_class: bool,
) -> None:
    generator = load_generator(str(tiny_pipeline(class_names=CLASSES)), "cpu")
    render = render_configs(condition_on_class=condition_on_class)
    model = replace(generator, class_effect=class_effect)
    made = prepare(open_source(urbansound8k_folder), SynthConfig(2, render=render), model=model, device="cpu")
    assert {clip.strategy for clip in made.plan.clips} == {"decomposed"}
    assert any(note.startswith("no clips of sample") for note in made.notes)


def test_named_strategies_are_all_made_or_refused(
    usk: Command, tiny_pipeline: Callable[..., Path], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    words = ("synth", "--real", urbansound8k_folder, "--model", tiny_pipeline(), *SHORT)
    usk(*words, "--strategy", "decomposed,sample", "--out", tmp_path / "a").refused(2, "--strategy", "sample")
    out = tmp_path / "b"
    usk(*words, "--strategy", "classical,variation,average", "--per-class", 3, "--out", out).done()
    of = {row["strategy"]: row for row in rows_in(out)}
    assert set(of) == {"classical", "variation", "average"}
    assert of["classical"]["model"] == of["average"]["model"] == "none" != of["variation"]["model"]
    assert of["variation"]["steps"] == 1 and of["average"]["steps"] == 0


def test_parts_make_the_same_clips_of_both_kinds(
    usk: Command, tiny_pipeline: Callable[..., Path], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    model = tiny_pipeline(class_names=CLASSES)
    words = ("synth", "--real", urbansound8k_folder, "--model", model, "--per-class", 4, *SHORT, "--out")
    usk(*words, tmp_path / "whole").done()
    shown = usk(*words, tmp_path / "whole", "--dry-run").done().out
    assert "decomposed" in shown and "sample" in shown and "0.50 0.50" in shown
    for part in ("2/2", "1/2"):
        usk(*words, tmp_path / "parts", "--part", part).done()
    whole, parts = (contents(tmp_path / name) for name in ("whole", "parts"))
    assert {name: whole[name] for name in whole if name.startswith("data/")} == {
        name: parts[name] for name in parts if name.startswith("data/")
    }
