"""Tests of caveats, with stand-ins for runs that have only the attributes a caveat needs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.evaluate.grids import N_CLIPS, only, row_of, write_grid
from tests.runs import rewrite
from usk.evaluate import caveats
from usk.evaluate.compare import compare_runs


def run(fold: int = 1, seed: int = 0, **values: Any) -> Any:
    defaults = {"split": f"fold{fold}", "seed": seed, "protocol": "folds", "n_synthetic": 90, "caveats": ()}
    attributes = defaults | {"datasets": frozenset(), "accuracy": 0.5, "precision": "fp32"} | values
    revisions = frozenset(revision for _, revision in attributes["datasets"])
    return SimpleNamespace(revisions=revisions, **attributes)


def trained_on(*revisions: str, name: str = "synth") -> dict[str, Any]:
    return {"datasets": frozenset((name, revision) for revision in revisions)}


def test_a_caveat_of_runs_appears_once_with_its_mixes() -> None:
    by_mix = {
        "real": [run(caveats=("no recordings",)), run(2)],
        "a": [run(caveats=("no recordings", "few"))],
        "b": [run(caveats=("no recordings", "few"))],
    }
    assert caveats.run_caveats(by_mix) == ["a; b: few", "no recordings"]


def test_different_datasets_of_one_name_are_noted() -> None:
    changed = {"real,synth": [run(fold, **trained_on(str(fold))) for fold in (1, 2)]}
    assert caveats.different_datasets(changed) == [
        "real,synth: its runs were trained on 2 different datasets with the same name"
    ]
    assert not caveats.different_datasets(
        {"full": [run(fold, **trained_on("r", name=f"full/fold{fold}")) for fold in (1, 2)]}
    )


def test_pairs_of_two_precisions_are_noted() -> None:
    slow, fast = run(precision="fp32"), run(precision="bf16")
    same, other = [(slow, slow), (fast, fast)], [(slow, slow), (slow, fast)]
    assert not caveats.different_precisions({"real,a": same})
    (said,) = caveats.different_precisions({"real,a": same, "real,b": other})
    assert "real,b" in said and "real,a" not in said


@pytest.mark.parametrize(
    ("runs", "which"),
    [
        ([run(fold, seed, **trained_on("s")) for fold in (1, 2) for seed in (0, 1)], "all seeds"),
        ([run(seed=seed, **trained_on("s" if seed < 2 else "t")) for seed in range(3)], "several seeds"),
        ([run(seed=seed, **trained_on("s" if seed < 2 else "t")) for seed in range(4)], "several seeds"),
        ([run(fold, **trained_on("s")) for fold in (1, 2)], "all splits"),
        ([run(fold, **trained_on("s" if fold < 3 else "t")) for fold in (1, 2, 3)], "several splits"),
        ([run(seed=seed, **trained_on(str(seed))) for seed in range(3)], None),
        ([run(seed=seed, n_synthetic=0, **trained_on("real")) for seed in range(3)], None),
    ],
)
def test_shared_synthetic_clips_are_noted(runs: list[Any], which: str | None) -> None:
    text = "trained on the same synthetic clips, so the interval does not cover other draws of them"
    assert caveats.shared_clips({"real": [run(n_synthetic=0)], "mix": runs}) == (
        [f"mix: {which} {text}"] if which else []
    )


def test_runs_without_a_partner_are_counted() -> None:
    by_mix = {"real": [run(), run(3)], "mix": [run(), run(4)], "whole": [run(), run(3)]}
    pairs = {"mix": [(run(), run())], "whole": [(run(), run()), (run(3), run(3))]}
    (note,) = caveats.unpaired_runs(by_mix, pairs)
    assert note.startswith("mix: no partner with the same split and seed for 2 runs")


def test_failed_runs_are_noted_with_the_difference_without_them(tmp_path: Path) -> None:
    write_grid(tmp_path, gain=0.1, seeds=(0, 1, 2))
    before = only(compare_runs(tmp_path))
    assert not any("learned nothing" in note for note in before.notes)
    rewrite(tmp_path / "real-fold1-0", "predicted", [1] * N_CLIPS)
    comparison = only(compare_runs(tmp_path))
    (note,) = [note for note in comparison.notes if "learned nothing" in note]
    assert note.startswith("1 of 6 runs of real learned nothing")
    assert "real,synth is +10.0 percentage points (" in note and note.endswith(", in 5 pairs")
    first, second = (row_of(one, "real,synth").difference for one in (before, comparison))
    assert first and second and second.difference_points > first.difference_points


@pytest.mark.parametrize(
    ("mix", "advice"), [("real", "a mix with synthetic clips"), ("synth", "the mix real")]
)
def test_a_single_mix_is_noted_with_the_mix_to_train(mix: str, advice: str) -> None:
    (note,) = caveats.single_mix({mix: [run()]})
    assert advice in note
    assert not caveats.single_mix({"real": [run()], "synth": [run()]})


def test_many_mixes_and_older_runs_are_noted() -> None:
    by_mix = {"real": [run()], "a": [run()], "b": [run()]}
    pairs = {mix: [(run(), run())] for mix in ("a", "b")}
    assert any("Holm" in note for note in caveats.many_mixes(pairs)) and not caveats.many_mixes({"a": []})
    for runs in by_mix.values():
        runs[0].learned_nothing = False
    assert any("2 older runs" in note for note in caveats.caveats(by_mix, pairs, 2))
