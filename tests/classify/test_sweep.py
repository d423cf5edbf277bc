"""The plan of a sweep: its order, equal steps, test folds left out, and the dataset of each run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.classify.conftest import TINY
from tests.watched import Watched
from usk.classify import registry
from usk.classify.augment import augment_batch
from usk.classify.caveats import trained_beyond_the_subset
from usk.classify.sweep import MixSources, parse_mixes, plan_runs, subset_folder
from usk.classify.train import train
from usk.data import mix as mix_module
from usk.data.decode import DecodedSource, decode_source
from usk.data.leaks import leaking
from usk.data.mix import parse_mix
from usk.data.source import Source, TrainingClips
from usk.data.splits import held_out_groups
from usk.errors import LeakError, UsageError
from usk.evaluate.compare import compare_runs
from usk.evaluate.stats import min_pairs
from usk.evaluate.verdict import Verdict

pytestmark = pytest.mark.usefixtures("tiny_classifier")


def test_splits_then_seeds_then_train_clips_then_mixes_and_leaks_are_looked_for_once_a_fold(
    bands: Source, children: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(mix_module, "leaking", lambda *of: looked.append(of[2].name) or leaking(*of))
    sources = MixSources({"real": bands, "synth": children()}, {})
    mixes = [parse_mix("real"), parse_mix("real,synth"), parse_mix("synth")]
    sweep = plan_runs(sources, mixes, "folds", (), range(2), (36, None))
    assert looked == ["fold1", "fold2", "fold3"]
    for run in sweep.runs:
        for name, rows in run.rows.parts:
            if name == "synth":
                assert not leaking(sources.opened["synth"], bands, run.split)[rows].any()
    runs = [run for run in sweep.runs if run.mix.text != "synth"]
    assert [split.name for split in sweep.splits] == ["fold1", "fold2", "fold3"] and not sweep.left_out
    assert [(run.split.name, run.seed, run.split.train_clips, run.mix.text) for run in runs] == [
        (f"fold{fold}", seed, train_clips, mix)
        for fold in (1, 2, 3)
        for seed in (0, 1)
        for train_clips in (36, None)
        for mix in ("real", "real,synth")
    ]
    assert runs[0].label(True) == "real · 36 train clips · none · fold1 · seed 0"
    assert runs[2].label(False) == "real · fold1 · seed 0"


def test_one_count_of_steps_over_all_that_is_left_to_train(bands: Source, tmp_path: Path) -> None:
    watched = Watched()
    config = replace(TINY, train_clips="9,full", epochs=2)
    train(bands, out=tmp_path, config=config, reporter=watched)
    few = full = 2 * -(-500 // 16)  # either part is smaller than an epoch
    assert [(state.done_steps, state.all_steps) for state in watched.seen] == [
        (done, few + full) for done in (few // 2, few, few + full // 2, few + full)
    ]
    watched = Watched()
    again = train(bands, out=tmp_path, config=replace(config, seeds=2), reporter=watched)
    assert again.fresh == (False, False, True, True)
    assert [(state.run, state.done_steps, state.all_steps) for state in watched.seen] == [
        (3, few // 2, few + full), (3, few, few + full),
        (4, few + full // 2, few + full), (4, few + full, few + full),
    ]  # fmt: skip


def test_a_sweep_can_be_shared_by_its_seeds(bands: Source, tmp_path: Path) -> None:
    whole = train(bands, out=tmp_path, config=replace(TINY, seeds=3, epochs=1))
    part = train(bands, out=tmp_path / "part", config=replace(TINY, seeds=2, seed=1, epochs=1))
    assert [run.seed for run in part.runs] == [1, 2]
    assert [run.folder.name for run in part.runs] == [run.folder.name for run in whole.runs[1:]]


def test_train_clips_train_on_themselves_alone(
    bands: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sound of training clips that are not drawn does not change a byte of the result."""

    def drawn_alike(source: Source, *given: Any, **options: Any) -> DecodedSource:
        decoded = decode_source(source, *given, **options)
        return replace(decoded, source=replace(decoded.source, clips=bands.clips))

    monkeypatch.setattr("usk.classify.train.decode_source", drawn_alike)
    config = replace(TINY, train_clips="9")
    sources = MixSources({"real": bands}, {})
    run = plan_runs(sources, [parse_mix("real")], "folds", (2,), range(1), (9,)).runs[0]
    kept = {*run.split.train.tolist(), *run.split.validation.tolist(), *run.split.test.tolist()}
    audio = tuple(
        ref if row in kept else replace(ref, frequency_hz=5_000.0)  # type: ignore[type-var]
        for row, ref in enumerate(bands.audio)
    )
    other = replace(bands, audio=audio, cache_key="other")
    first, second = (
        (train(source, out=tmp_path / name, config=config).runs[0].folder / "model.safetensors").read_bytes()
        for name, source in (("one", bands), ("other", other))
    )
    assert first == second


def test_a_folder_of_few_shot_datasets_gives_each_run_its_own(
    bands: Source, children: Callable[..., Source]
) -> None:
    own = children((1, 3), per_cell=1)
    sources = MixSources(
        {"real": bands, "synth/full-fold2": own},
        {"synth": ("few", frozenset({"full-fold2", "9-train_clips-fold3-seed0"}))},
    )
    mix = parse_mix("real,synth")
    sweep = plan_runs(sources, [mix], "folds", (), range(2))
    assert [split.name for split in sweep.splits] == ["fold2"]
    assert sweep.left_out == [
        f"fold {fold} is not tested: few has no clips for the full training part with test part fold{fold}"
        for fold in (1, 3)
    ]
    assert {name for run in sweep.runs for name in run.mix.parts} == {"real", "synth/full-fold2"}
    for protocol, folds, fix in (("folds", (2,), "usk study"), ("seed-9010", (), "Use the protocol folds")):
        message = f"few has no clips for 9 train clips of seed 0 .*{fix}"
        with pytest.raises(LeakError, match=message) as caught:
            plan_runs(sources, [mix], protocol, folds, range(1), (9,))
        assert caught.value.field == "mix"


def test_a_few_shot_dataset_is_the_same_wherever_its_folder_is(
    bands: Source, children: Callable[..., Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "few" / "full-fold2"
    made.mkdir(parents=True)
    (made / "usk.json").write_text("{}")
    monkeypatch.setattr("usk.classify.sweep.open_source", lambda place: children((1, 3), per_cell=1))
    monkeypatch.chdir(tmp_path)
    for place in ("few", tmp_path / "few"):
        sources = MixSources.open(bands, [parse_mix("real,synth")], place).open_subsets(
            (2,), range(1), (None,)
        )
        (run,) = plan_runs(sources, [parse_mix("real,synth")], "folds", (2,), range(1)).runs
        assert run.mix.parts == ("real", "synth/full-fold2")
        assert set(sources.opened) == {"real", "synth/full-fold2"}


def test_other_folders_are_no_few_shot_folders(tmp_path: Path, bands: Source) -> None:
    assert subset_folder(tmp_path) is None
    (tmp_path / "9-train_clips-fold1-seed0").mkdir()
    assert subset_folder(tmp_path) is None  # it has no manifest
    (tmp_path / "9-train_clips-fold1-seed0" / "usk.json").write_text("{}")
    assert subset_folder(tmp_path) == tmp_path
    (tmp_path / "usk.json").write_text("{}")
    assert subset_folder(tmp_path) is None
    assert subset_folder(bands) is None and subset_folder("user/name") is None


def test_what_was_trained_on_more_than_the_train_clips_is_noted_once(
    bands: Source, children: Callable[..., Source]
) -> None:
    held = held_out_groups(bands.clips)
    more = TrainingClips(frozenset(clip.group for clip in bands.clips if clip.fold == 1) - held)
    made = children(generator_trained_on=(more,))
    clips = tuple(replace(clip, filter_folds=(clip.fold,)) for clip in made.clips)
    filtered = children(clips=clips, filters_trained_on={(1,): more, (3,): TrainingClips()})
    mixes = [parse_mix("real,synth"), parse_mix("real,few/30")]
    for synth, said in (
        (made, "trained on few clips, the generator is not"),
        (filtered, "the filter was trained on more "),
    ):
        sources = {"real": bands, "synth": synth, "few/30": synth}
        few = plan_runs(MixSources(sources, {}), mixes, "folds", (2,), range(1), (30,)).runs
        (note,) = trained_beyond_the_subset(few, sources)
        assert said in note
        full = plan_runs(MixSources(sources, {}), mixes, "folds", (2,), range(1)).runs
        assert trained_beyond_the_subset(full, sources) == []


def test_other_protocols_take_train_clips_too(bands: Source, children: Callable[..., Source]) -> None:
    sources = MixSources({"real": bands, "synth": children((1,), per_cell=1)}, {})
    runs = plan_runs(sources, [parse_mix("real")], "seed-9010", (), range(2), (9,)).runs
    assert [(run.split.name, len(run.split.train)) for run in runs] == [("seed0-9010", 9), ("seed1-9010", 9)]


def test_every_mix_is_trained_with_each_augmentation(bands: Source, tmp_path: Path) -> None:
    config = replace(TINY, epochs=1, train_clips="9", augment="none,auto,shift+mask,none")
    result = train(bands, ["real"], out=tmp_path, config=config)
    assert [run.augment for run in result.runs] == ["none", "shift+mask"]  # `auto` is none here
    assert len({run.folder for run in result.runs}) == 2
    for run in result.runs:
        history = json.loads((run.folder / "history.json").read_text())
        assert run.validation_accuracy == pytest.approx(history[0]["validation_accuracy"])
    again = train(bands, ["real"], out=tmp_path, config=replace(config, augment="shift+mask"))
    assert again.fresh == (False,)
    with pytest.raises(UsageError, match="augment loud: is not known"):
        train(bands, ["real"], out=tmp_path, config=replace(config, augment="none,loud"))


def test_whatever_decides_a_run_makes_another_run(
    bands: Source, tmp_path: Path, tiny_classifier: Any, monkeypatch: Any
) -> None:
    config = replace(TINY, epochs=1)

    def fresh(real: Source = bands) -> bool:
        return train(real, out=tmp_path, config=config).fresh == (True,)

    assert fresh() and not fresh()
    moved = [replace(clip, label=(clip.label + 1) % 3) if clip.fold == 2 else clip for clip in bands.clips]
    assert fresh(replace(bands, clips=moved))
    renamed = [replace(clip, group=f"{clip.group}/{n % 2}") for n, clip in enumerate(bands.clips)]
    assert fresh(replace(bands, clips=renamed))
    monkeypatch.setitem(registry.CLASSIFIERS, "tiny", replace(tiny_classifier, weight_decay=0.5))
    assert fresh() and not fresh()


def test_a_step_is_a_whole_batch_however_few_the_train_clips(
    bands: Source, tmp_path: Path, monkeypatch: Any
) -> None:
    sizes: list[int] = []

    def counted(batch: Any, *others: Any) -> Any:
        sizes.append(len(batch))
        return augment_batch(batch, *others)

    monkeypatch.setattr("usk.classify.loop.augment_batch", counted)
    train(bands, out=tmp_path, config=replace(TINY, train_clips="5", epochs=1))
    assert sizes == [16] * 32


@pytest.mark.parametrize(
    ("texts", "baseline", "mixes"),
    [
        ("real,synth", True, ["real", "real,synth"]),
        (["synth", "real"], True, ["real", "synth"]),
        ("real,synth", False, ["real,synth"]),
    ],
)
def test_the_real_clips_of_each_mix_alone_are_its_baseline(
    texts: Any, baseline: bool, mixes: list[str]
) -> None:
    assert [mix.text for mix in parse_mixes(texts, None, baseline)] == mixes


def test_by_default_there_are_as_many_seeds_as_a_verdict_on_each_mix_needs(
    bands: Source, children: Callable[..., Source], tmp_path: Path
) -> None:
    config = replace(TINY, test_folds=(1, 2), seeds=None, epochs=1)
    assert [len(config.seeds_for(n)) for n in (1, 2, 3, 4, 6, 10)] == [6, 3, 2, 2, 1, 1]
    runs = train(bands, out=tmp_path / "one", config=config).runs
    assert {(run.fold, run.seed) for run in runs} == {(fold, seed) for fold in (1, 2) for seed in (0, 1, 2)}
    mixes = ["real", "real,synth", "synth"]
    train(bands, mixes, synth=children(), out=tmp_path / "two", config=config)
    (compared,) = compare_runs(tmp_path / "two")
    assert [row.pairs for row in compared.rows[1:]] == [8, 8] and min_pairs(2) == 7
    assert not any(row.verdict is Verdict.TOO_FEW_PAIRS for row in compared.rows)


def test_by_default_only_seeds_with_clips_of_their_own_are_taken(bands: Source) -> None:
    subsets = frozenset(f"9-train_clips-fold2-seed{seed}" for seed in (0, 2))
    splits = plan_runs(MixSources({"real": bands}, {}), [parse_mix("real")], "folds", (2,), range(1)).splits
    sources = MixSources({"real": bands}, {"synth": ("few", subsets)})
    assert sources.seeds_with_subsets(range(6), splits, (9,)) == [0, 2]
