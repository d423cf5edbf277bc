"""`usk train`: saved runs, equal work for all mixes, choice of the epoch, test folds left out."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.classify.conftest import TINY
from tests.watched import Watched
from usk.audio.features import features_of
from usk.classify import recipe, registry
from usk.classify.config import USES, ClipUse, TrainConfig, training_length
from usk.classify.networks import Standardized
from usk.classify.run_folder import remove_leftovers
from usk.classify.train import TrainResult, train
from usk.data.decode import decode_source
from usk.data.source import Source, TrainingClips
from usk.data.splits import fold_split
from usk.errors import LeakError, UsageError, UskError
from usk.evaluate.compare import compare_runs
from usk.runs import read_runs

pytestmark = pytest.mark.usefixtures("tiny_classifier")


def tiny(**changes: Any) -> TrainConfig:
    return replace(TINY, **changes)


def predictions(folder: Path) -> dict[str, Any]:
    return pq.read_table(folder / "predictions.parquet").to_pydict()


def files_of(result: TrainResult) -> list[dict[str, bytes]]:
    return [{file.name: file.read_bytes() for file in run.folder.iterdir()} for run in result.runs]


def test_a_run_holds_configuration_predictions_weights_and_history(
    bands: Source, tmp_path: Path, tiny_classifier: Any
) -> None:
    """The saved weights also give the saved predictions."""
    result = train(bands, ["real"], out=tmp_path, config=tiny(seeds=2))
    assert [(run.split, run.seed) for run in result.runs] == [("fold2", 0), ("fold2", 1)]
    split = fold_split(bands.clips, 2)
    tested = [bands.clips[row] for row in split.test]
    features = features_of(decode_source(bands), tiny_classifier.features)[split.test.tolist()]
    per_band = torch.zeros(tiny_classifier.features.mel.n_mels, 1)
    for run in result.runs:
        assert sorted(file.name for file in run.folder.iterdir()) == [
            "README.md", "config.json", "history.json", "model.safetensors", "predictions.parquet", "run.json",
        ]  # fmt: skip
        rows = predictions(run.folder)
        assert rows["clip_id"] == [clip.clip_id for clip in tested]
        assert rows["group"] == [clip.group for clip in tested]
        assert rows["label"] == [clip.label for clip in tested]
        probabilities = np.array(rows["probabilities"])
        assert probabilities.shape == (24, 3)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        assert rows["predicted"] == probabilities.argmax(axis=1).tolist()
        history = json.loads((run.folder / "history.json").read_text())
        assert [epoch["epoch"] for epoch in history] == list(range(1, 7))  # twice the recipe's, for few clips
        assert run.n_real == len(split.train)
        assert (run.n_test, run.n_validation) == (len(split.test), len(split.validation))
        model = Standardized(tiny_classifier.build(3), per_band, per_band + 1).eval()
        model.load_state_dict(load_file(run.folder / "model.safetensors"))
        with torch.no_grad():
            actual = model(features.float()).softmax(dim=1)
        np.testing.assert_allclose(actual, probabilities, atol=1e-5)
    assert [run.folder for run in read_runs(tmp_path)] == [run.folder for run in result.runs]


def test_the_same_seed_gives_the_same_weights_and_another_others(bands: Source, tmp_path: Path) -> None:
    first, second = (files_of(train(bands, out=tmp_path / name, config=tiny(seeds=2))) for name in "ab")
    assert first[0]["model.safetensors"] == second[0]["model.safetensors"]
    assert first[0]["predictions.parquet"] == second[0]["predictions.parquet"]
    assert first[0]["model.safetensors"] != first[1]["model.safetensors"]


def test_every_mix_gets_the_same_steps_and_test_clips(
    bands: Source, children: Callable[..., Source], tmp_path: Path
) -> None:
    steps: list[int] = []

    def count(*_: Any) -> None:
        steps[-1] += 1

    hook = register_optimizer_step_post_hook(count)
    try:
        runs = []
        for mix in ("real", "real,synth", "synth"):
            steps.append(0)
            runs += train(bands, [mix], synth=children(), out=tmp_path, config=tiny(epochs=4)).runs
    finally:
        hook.remove()
    assert len(fold_split(bands.clips, 2).train) < 500  # so that an epoch counts 500 clips
    assert steps == [4 * -(-500 // 16)] * 3
    assert [run.steps for run in runs] == steps
    assert [run.n_synthetic for run in runs] == [0, 12, 12]
    assert [run.dropped for run in runs] == [0, 6, 6]
    assert [run.n_real > 0 for run in runs] == [True, True, False]
    assert len({tuple(predictions(run.folder)["clip_id"]) for run in runs}) == 1


def test_a_use_of_synthetic_clips_is_a_mix_of_its_own_beside_the_same_baseline(
    bands: Source, children: Callable[..., Source], tmp_path: Path
) -> None:
    found = []
    for use in (USES["as-is"], USES["balanced-real-last"], ClipUse(synthetic_weight=0.5)):
        config = tiny(use=use, baseline=True)
        found.append(train(bands, ["real,synth"], synth=children(), out=tmp_path, config=config))
    baselines, mixes = zip(*(result.runs for result in found), strict=True)
    assert [result.fresh for result in found] == [(True, True), (False, True), (False, True)]
    assert {run.mix for run in baselines} == {"real"}
    assert [run.mix for run in mixes] == [
        "real,synth", "real,synth (balanced-real-last)", "real,synth (synthetic_weight 0.5)",
    ]  # fmt: skip
    assert [(run.real_share, run.synthetic_weight, round(run.real_last, 2)) for run in mixes] == [
        (None, 1, 0), (0.5, 1, 0.33), (None, 0.5, 0),
    ]  # fmt: skip
    assert len({run.steps for run in (*baselines, *mixes)}) == 1
    assert len({tuple(map(tuple, predictions(run.folder)["probabilities"])) for run in mixes}) == 3
    (comparison,) = compare_runs(tmp_path)
    assert [(row.mix, row.pairs) for row in comparison.rows] == [
        ("real", 0), *((run.mix, 1) for run in mixes),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"real_share": 0.0}, {"real_share": 1.0}, {"synthetic_weight": math.nan}, {"real_last": 1.0}]
)
def test_a_use_that_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError) as caught:
        ClipUse(**wrong)
    assert caught.value.field == next(iter(wrong))


def test_runs_of_one_call_are_read_in_the_order_typed(
    bands: Source, children: Callable[..., Source], tmp_path: Path
) -> None:
    mixes = ["synth", "real", "real,synth"]  # each trains in far less than a second
    train(bands, mixes, synth=children(), out=tmp_path, config=tiny(epochs=1))
    assert [run.mix for run in read_runs(tmp_path)] == mixes


def relabeled(source: Source, rows: Iterable[int]) -> Source:
    """Return the source with other labels for the given rows."""
    rows = set(rows)
    clips = (replace(c, label=(c.label + 1) % 3) if n in rows else c for n, c in enumerate(source.clips))
    return replace(source, clips=tuple(clips))


def test_test_clips_choose_nothing(bands: Source, tmp_path: Path) -> None:
    """Other test labels do not change the training by a byte."""
    swapped = relabeled(bands, fold_split(bands.clips, 2).test.tolist())
    one, other = (
        files_of(train(source, out=tmp_path / name, config=TINY))[0]
        for name, source in (("one", bands), ("other", swapped))
    )
    assert one["model.safetensors"] == other["model.safetensors"]
    assert one["history.json"] == other["history.json"]
    assert one["predictions.parquet"] != other["predictions.parquet"]


def best_of_three(history: list[dict[str, Any]], after: int) -> int:
    """Return the epoch after `after` with the best mean of its validation and the two before."""
    validated = [entry for entry in history if "validation_accuracy" in entry]

    def recent(name: str, place: int) -> float:
        return float(np.mean([entry[name] for entry in validated[max(0, place - 2) : place + 1]]))

    places = [place for place in range(len(validated)) if validated[place]["epoch"] > after]
    best = max(
        places, key=lambda n: (round(recent("validation_accuracy", n), 4), -recent("validation_loss", n))
    )
    return int(validated[best]["epoch"])


def test_a_tenth_of_the_epochs_is_validated_and_the_best_mean_of_three_kept(
    bands: Source, tmp_path: Path
) -> None:
    run = train(bands, out=tmp_path, config=tiny(epochs=22)).runs[0]
    history = json.loads((run.folder / "history.json").read_text())
    validated = [entry["epoch"] for entry in history if "validation_accuracy" in entry]
    assert [entry["epoch"] for entry in history] == list(range(1, 23))
    assert validated == [1, 4, 7, 10, 13, 16, 19, 22]  # the last one always is
    epoch = best_of_three(history, 0)
    assert run.best_epoch == epoch
    stopped_there = train(bands, out=tmp_path / "stopped", config=tiny(epochs=epoch)).runs[0]
    kept, there = ((each.folder / "model.safetensors").read_bytes() for each in (run, stopped_there))
    assert kept == there


def test_where_the_learning_rate_decays_the_last_third_is_chosen_from(
    bands: Source,
    tiny_classifier: recipe.ClassifierPreset,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(registry.CLASSIFIERS, "tiny", replace(tiny_classifier, cosine=True))
    accuracies = iter((0.9, -1.0) if place < 4 else (0.5 + (place == 5) / 10, -1.0) for place in range(100))
    monkeypatch.setattr("usk.classify.loop._validate", lambda *_: next(accuracies))
    run = train(bands, out=tmp_path, config=tiny(epochs=8)).runs[0]
    history = json.loads((run.folder / "history.json").read_text())
    assert best_of_three(history, 0) < 5, "the early ones would have it"
    assert run.best_epoch == best_of_three(history, 5) == 6


def test_validation_labels_choose_the_epoch(bands: Source, tmp_path: Path) -> None:
    wrong = relabeled(bands, fold_split(bands.clips, 2).validation.tolist())
    right_run, wrong_run = (
        train(source, out=tmp_path / name, config=tiny(epochs=6)).runs[0]
        for name, source in (("right", bands), ("wrong", wrong))
    )
    history = json.loads((wrong_run.folder / "history.json").read_text())
    assert min(epoch.get("validation_accuracy", 1.0) for epoch in history) < 0.4
    assert wrong_run.best_epoch < right_run.best_epoch


def test_what_a_killed_training_left_is_ignored(bands: Source, tmp_path: Path) -> None:
    run = train(bands, out=tmp_path, config=TINY).runs[0]
    whole = files_of(train(bands, out=tmp_path, config=TINY))[0]
    run.folder.rename(tmp_path / f".{run.folder.name}.part-1")  # killed before the last step
    (tmp_path / f".{run.folder.name}.part-1" / "run.json").write_text("{")
    assert train(bands, out=tmp_path, config=TINY).fresh[0]
    assert len(read_runs(tmp_path)) == 1
    assert (run.folder / "model.safetensors").read_bytes() == whole["model.safetensors"]


def test_finished_runs_are_not_trained_again_and_a_full_disk_leaves_nothing_half_written(
    bands: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(train(bands, out=tmp_path, config=TINY))

    def full_disk(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(UskError, match=r"the disk of .* is full"):
            train(bands, out=tmp_path, config=tiny(seeds=2))
    assert len(list(tmp_path.iterdir())) == 1
    again = train(bands, out=tmp_path, config=tiny(seeds=2))
    assert again.fresh == (False, True)
    assert files_of(again)[0] == before[0]
    assert train(bands, out=tmp_path, config=tiny(epochs=1)).fresh == (True,)


def test_progress_counts_epochs_of_runs(bands: Source, tmp_path: Path) -> None:
    watched = Watched()
    train(bands, ["real"], out=tmp_path, config=tiny(seeds=2, epochs=12), reporter=watched)
    assert [(state.run, state.n_runs, state.epoch, state.epochs) for state in watched.seen] == [
        (run, 2, epoch, 12) for run in (1, 2) for epoch in range(1, 13)
    ]
    # The second epoch is the first that is validated.
    assert [state.validated for state in watched.seen] == 2 * [epoch > 1 for epoch in range(1, 13)]


@pytest.mark.parametrize(
    ("n_train", "epochs", "length"),
    [
        (50, None, (225, 3_600)),
        (500, None, (225, 3_600)),  # 16 steps an epoch
        (750, None, (150, 3_600)),  # 24
        (1_000, None, (113, 3_616)),
        (7_000, None, (30, 6_570)),
        (50, 3, (3, 48)),
        (7_000, 3, (3, 657)),
    ],
)
def test_small_training_parts_have_more_epochs_by_default(
    n_train: int, epochs: int | None, length: tuple[int, int]
) -> None:
    small = registry.preset("small")
    assert training_length(n_train, 32, (small.epochs, small.min_steps), epochs) == length


# --- leaks


def test_folds_that_a_mix_cannot_be_tested_on_are_left_out_and_named(
    bands: Source, children: Callable[..., Source], tmp_path: Path
) -> None:
    result = train(
        bands, ["real", "real,synth"], synth=children((1,)), out=tmp_path, config=tiny(test_folds=())
    )
    assert [run.split for run in result.runs] == ["fold2"] * 2 + ["fold3"] * 2
    assert any("fold 1 is not tested: " in note for note in result.notes)


def test_what_would_leak_is_refused_before_anything_trains(
    bands: Source, children: Callable[..., Source], tmp_path: Path
) -> None:
    """Refused: a given fold whose clips would leak, and a generator trained on every recording."""
    all_of_them = TrainingClips(frozenset(clip.group for clip in bands.clips))
    everywhere = children(generator_trained_on=(all_of_them,))
    for synth, test_folds, message in (
        (children((1,)), (1,), "all 6 clips of synth would leak"),
        (everywhere, (), "its generator was trained on"),
    ):
        with pytest.raises(LeakError, match=message):
            train(
                bands,
                ["real", "real,synth"],
                synth=synth,
                out=tmp_path / "runs",
                config=tiny(test_folds=test_folds),
            )
        assert not (tmp_path / "runs").exists()


def test_dropped_clips_do_not_train(bands: Source, children: Callable[..., Source], tmp_path: Path) -> None:
    """Synthetic clips of the test fold do not change the weights."""
    synth = children()
    without = synth.subset(row for row, clip in enumerate(synth.clips) if clip.fold != 2)
    runs = [
        train(bands, ["real,synth"], synth=source, out=tmp_path / name, config=TINY).runs[0]
        for name, source in (("with", synth), ("without", without))
    ]
    assert [run.dropped for run in runs] == [6, 0]
    assert len({(run.folder / "model.safetensors").read_bytes() for run in runs}) == 1


def test_classes_of_synthetic_clips_are_matched_by_name(
    bands: Source, children: Callable[..., Source], tmp_path: Path
) -> None:
    """A note names parents from another source."""
    synth = children()
    renamed = replace(relabeled(synth, range(len(synth))), class_names=("high", "low", "middle"))
    parents = {"parents": ("demo/a", "demo/b"), "parent_groups": ("demo/1", "demo/2")}
    strange = replace(synth, clips=tuple(replace(c, **parents) for c in synth.clips))
    results = [
        train(bands, ["real,synth"], synth=source, out=tmp_path / str(index), config=TINY)
        for index, source in enumerate((synth, renamed, strange))
    ]
    first, second = ((of.runs[0].folder / "model.safetensors").read_bytes() for of in results[:2])
    assert first == second
    warned = [any("leaks between them cannot be ruled out" in note for note in of.notes) for of in results]
    assert warned == [False, False, True]


# --- protocols and options


def test_the_published_protocol_validates_every_epoch_and_is_called_optimistic(
    bands: Source, tmp_path: Path
) -> None:
    result = train(bands, out=tmp_path, config=tiny(epochs=4, protocol="seed-9010", test_folds=()))
    run = result.runs[0]
    assert run.optimistic is True
    assert (run.split, run.n_test, run.n_validation) == ("seed0-9010", 7, 7)
    assert any("optimistic" in note for note in result.notes)
    history = json.loads((run.folder / "history.json").read_text())
    accuracies = [entry["validation_accuracy"] for entry in history]
    assert accuracies[run.best_epoch - 1] == max(accuracies)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seeds": 0}, "seeds"),
        ({"seed": -1}, "seed"),
        ({"epochs": 0}, "epochs"),
        ({"workers": 0}, "workers"),
        ({"workers": 2, "classifier": "hf:user/name"}, "workers"),
        ({"protocol": "seed-9010"}, "test_folds"),
        ({"augment": "more"}, "augment"),
        ({"batch": 0}, "batch"),
        *(({"learning_rate": rate}, "learning_rate") for rate in (-1.0, 0.0, math.nan, math.inf)),
        *(({name: 10**400}, name) for name in ("seeds", "epochs", "batch", "workers", "seed")),
    ],
)
def test_an_option_that_cannot_be_meant_is_a_usage_error(
    bands: Source, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(UsageError) as caught:
        train(bands, out=tmp_path / "runs", config=tiny(**changes))
    assert caught.value.field == field and not (tmp_path / "runs").exists()
    assert len(str(caught.value)) < 120 or field == "augment", "which lists all that there are"
    with pytest.raises(UsageError, match="mix: names nothing to train on"):
        train(bands, [], out=tmp_path, config=TINY)


def test_a_training_that_diverges_is_no_run(bands: Source, tmp_path: Path) -> None:
    with pytest.raises(UskError, match=r"diverged in epoch 1: .* lower learning rate than 1e\+38"):
        train(bands, out=tmp_path / "runs", config=tiny(learning_rate=1e38, epochs=2))
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_was_trained_on_recordings_that_the_published_protocol_tests_stays_on_record(
    bands: Source, children: Any, tmp_path: Path
) -> None:
    trained_on = frozenset(clip.group for clip in bands.clips)
    synth = replace(children(), generator_trained_on=(TrainingClips(trained_on),))
    result = train(bands, ["real", "real,synth"], synth=synth, out=tmp_path,
                   config=tiny(protocol="seed-9010", test_folds=()))  # fmt: skip
    caveat = "the generator of synth was trained on recordings that seed-9010 tests: results are even more optimistic"
    assert caveat in result.notes
    by_mix = {run.mix: run.caveats for run in result.runs}
    assert by_mix == {"real": (), "real,synth": (caveat,)}
    assert any(caveat in note for comparison in compare_runs(tmp_path) for note in comparison.notes)


def test_the_default_classifier_learns_three_bands(bands: Source, tmp_path: Path) -> None:
    config = TrainConfig(test_folds=(1,), epochs=4, batch=16, device="cpu", seeds=1, baseline=False)
    run = train(bands, out=tmp_path, config=config).runs[0]  # 128 steps
    rows = predictions(run.folder)
    assert np.mean(np.array(rows["label"]) == np.array(rows["predicted"])) > 0.9


def test_a_test_clip_whose_sound_trains_under_another_name_is_said_where_it_is_tested(
    bands: Source, children: Callable[..., Source], tmp_path: Path
) -> None:
    row = {clip.clip_id: number for number, clip in enumerate(bands.clips)}
    audio = list(bands.audio)
    audio[row["bands/low-2-0"]] = audio[row["bands/low-1-0"]]
    copied = replace(bands, audio=tuple(audio), cache_key="copied")
    result = train(copied, ["real"], out=tmp_path, config=replace(TINY, test_folds=()))
    assert [note for note in result.notes if "same sound" in note] == [
        "1 clip with the same sound as a clip of another recording (low-2-0 as low-1-0): one may train where the other is tested; "
        "remove the copies, or give both the same recording"
    ]
    caveats = {run.split: [text for text in run.caveats if "sound" in text] for run in result.runs}
    text = "{}: 1 sound of 24 test clips train or validate too, under another name ({}): scores are too high"
    named = {"fold1": "bands/low-1-0", "fold2": "bands/low-2-0"}
    assert caveats == {fold: [text.format(fold, name)] for fold, name in named.items()} | {"fold3": []}


def test_what_killed_processes_left_of_runs_is_deleted(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for kind, own in (("part", gone.pid), ("old", gone.pid), ("part", os.getpid())):
        (tmp_path / f".run.{kind}-{platform.node()}-{own}").mkdir()
    (tmp_path / f".run.part-elsewhere-{gone.pid}").mkdir()
    remove_leftovers(tmp_path)
    assert {left.name for left in tmp_path.iterdir()} == {
        f".run.part-{platform.node()}-{os.getpid()}",
        f".run.part-elsewhere-{gone.pid}",
    }
