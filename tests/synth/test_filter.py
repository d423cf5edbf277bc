"""The classifier filter: it is trained on nothing that is tested where its clips train, keeps the select_best, and resumes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.classify.conftest import TinyNet
from tests.fuzz.campaign import damage
from tests.manifests import contents, rows_in
from tests.sounds import tone
from usk.audio.features import FeatureSettings
from usk.audio.mel import MelSettings
from usk.classify import recipe, registry
from usk.data.clip import Clip
from usk.data.decode import decode_source
from usk.data.leaks import leaking
from usk.data.open import open_source
from usk.data.source import Source
from usk.data.splits import fold_split, held_out_groups
from usk.errors import SourceError
from usk.reporter import Reporter
from usk.synth import filter as filtering
from usk.synth import synthesize
from usk.synth.dataset_folder import DatasetFolder, encode_flac
from usk.synth.filter import ClipFilter, scorer_of, select_best, training_rows
from usk.synth.plan import PlannedClip, draw_plan
from usk.synth.settings import SynthConfig

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """One linear layer, and small shards, so that a few clips make several."""
    features = FeatureSettings(MelSettings(n_fft=1_024, hop_samples=512, n_mels=16, n_frames=8), True)
    tiny = recipe.ClassifierPreset(TinyNet, features, 3, 16, 1e-2, 0.0, True, 0.0, "shift+mask")
    monkeypatch.setitem(registry.CLASSIFIERS, "small", tiny)
    monkeypatch.setattr(filtering, "MIN_STEPS", 40)
    monkeypatch.setattr(synthesize, "ROWS_PER_SHARD", 7)


# --- who scores what ---------------------------------------------------------------------------------------------


@st.composite
def corpora(draw: st.DrawFn) -> list[Clip]:
    """Clips of 2 classes in 3 folds, some recordings in several of either."""
    clips = []
    for index in range(draw(st.integers(24, 60))):
        label, fold = index % 2, index // 2 % 3 + 1
        group = draw(st.integers(0, 4))
        name = f"r{group}" if draw(st.integers(0, 9)) == 0 else f"r{group}-{label}-{fold}"
        clips.append(Clip(f"s/c{index}", label, f"s/{name}", fold))
    return clips


def source_of(clips: list[Clip], **options: Any) -> Source:
    return Source("s", "test", "s", "0", "0", ("a", "b"), tuple(clips), (None,) * len(clips), **options)  # type: ignore[arg-type]


@given(corpora(), st.booleans())
def test_a_classifier_is_trained_on_nothing_that_validates_or_tests_where_its_clips_train(
    clips: list[Clip], one_for_all: bool
) -> None:
    """Rule 1, over every round of cross-validation that the parents alone would allow."""
    pool = [clip for clip in clips if not one_for_all or clip.fold != 3]
    try:
        plan = draw_plan(pool, ("a", "b"), 4, known_clips=clips)
        trained_on = training_rows(pool, clips, plan.clips, ("a", "b"), one_for_all)
    except SourceError:
        return  # too few recordings for pairs, or for a clip_filter
    everywhere = next(iter(trained_on)) if one_for_all else ()
    groups = {name: {pool[row].group for row in rows} for name, rows in trained_on.items()}
    assert not held_out_groups(clips) & set().union(*groups.values())
    for fold in (1, 2, 3):
        if one_for_all and fold != 3:
            continue
        split = fold_split(clips, fold)
        filtered = {clips[row].group for row in np.union1d(split.validation, split.test).tolist()}
        for clip in plan.clips:
            if clip.fold != fold and not filtered & set(clip.parent_groups):
                assert not groups[scorer_of(clip, everywhere)] & filtered


def planned(label: int, fold: int, name: str = "x", strategy: str = "decomposed") -> PlannedClip:
    of = (("p", "q"), ("s/p", "s/q"), (fold, fold), (0.5, 0.5))
    return PlannedClip(name, label, fold, *of, 0, strategy=strategy)


def test_one_class_and_unknown_classes_are_refused_with_the_fix() -> None:
    clips = [
        Clip(f"s/{label}{i}", label, f"s/{label}{i}", 1) for label, n in ((0, 4), (1, 1)) for i in range(n)
    ]
    with pytest.raises(SourceError, match=r"the classifier of fold 1 cannot learn the class b: it has 1 "):
        training_rows(clips, clips, [planned(1, 1)], ("a", "b"), False)
    assert list(training_rows(clips, clips, [planned(0, 1)], ("a", "b"), False)) == [(1,)]
    with pytest.raises(SourceError, match="its classifier would be trained on clips of one class"):
        training_rows(clips[:4], clips, [planned(0, 1)], ("a", "b"), True)


# --- what is kept -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(0, 9)), min_size=1, max_size=60))
def test_the_best_of_each_class_classifier_and_strategy_are_kept(drawn: list[tuple[int, int, int]]) -> None:
    strategy_of = ("decomposed", "sample")
    clips = [
        planned(label, fold, f"c{index:03}", strategy_of[index % 3 == 0])
        for index, (label, fold, _) in enumerate(drawn)
    ]
    scorers = [scorer_of(clip, ()) for clip in clips]
    scores = [score / 10 for _, _, score in drawn]
    per_class = max(1, min(Counter(clip.label for clip in clips).values()) // 2)
    kept = select_best(clips, scorers, scores, per_class)
    parts: dict[Any, tuple[list[float], list[float]]] = {}
    for clip, score in zip(clips, scores, strict=True):
        parts.setdefault((clip.label, clip.fold, clip.strategy), ([], []))[clip.clip_id not in kept].append(
            score
        )
    for inside, outside in parts.values():
        assert not inside or not outside or min(inside) >= max(outside)
    for label in {clip.label for clip in clips}:
        assert sum(clip.label == label and clip.clip_id in kept for clip in clips) == per_class
    assert kept == select_best(clips[::-1], scorers[::-1], scores[::-1], per_class)


def test_a_classifier_knows_a_class(urbansound8k_folder: Path) -> None:
    decoded = decode_source(open_source(urbansound8k_folder))
    clips = decoded.source.clips
    names = decoded.source.class_names
    plan = draw_plan(clips, names, 2)
    clip_filter = ClipFilter(decoded, clips, plan.clips, SynthConfig(filter=0.5), torch.device("cpu"))
    work = urbansound8k_folder.parent / "work"
    work.mkdir()
    clip_filter.prepare(work, Reporter())
    row_of = {clip.identity: row for row, clip in enumerate(clips)}

    def rows(of: Callable[[PlannedClip], np.ndarray]) -> list[dict[str, Any]]:
        return [{"audio": {"bytes": encode_flac(of(clip), 22_050)}} for clip in plan.clips]

    own, other = rows(lambda clip: decoded.audio(row_of[clip.parents[0]])), rows(lambda _: tone(5_000, 0.5))
    for made in (own, other):
        clip_filter.score(plan.clips, made, 22_050)
    mean = [np.mean([row["filter_score"] for row in made]) for made in (own, other)]
    assert mean[0] > 0.6 > 0.45 > mean[1]
    assert [row["filter_folds"] for row in own] == [[clip.fold] for clip in plan.clips]
    before = {name: one.state_dict() for name, one in clip_filter.classifiers.items()}
    clip_filter.prepare(work, Reporter())  # read, not fitted
    again = ClipFilter(decoded, clips, plan.clips, SynthConfig(filter=0.5), torch.device("cpu"))
    torch.rand(3)  # whatever was drawn before
    (urbansound8k_folder.parent / "elsewhere").mkdir()
    again.prepare(urbansound8k_folder.parent / "elsewhere", Reporter())
    for name, weights in before.items():
        for other in (clip_filter, again):
            there = other.classifiers[name].state_dict()
            assert all(torch.equal(value, there[key]) for key, value in weights.items())


# --- whole datasets ---------------------------------------------------------------------------------------------


@pytest.fixture
def arguments(urbansound8k_folder: Path) -> list[Any]:
    return ["synth --strategy waveform --per-class 5 --filter 0.5", "--real", urbansound8k_folder]


@pytest.fixture(scope="module")
def kept_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that takes `synth` leaves its dataset for the others."""
    return tmp_path_factory.mktemp("kept") / "synth"


@pytest.fixture
def synth(usk: Command, arguments: list[Any], tmp_path: Path, kept_dataset: Path) -> Path:
    """What `arguments` make: 15 clips kept, 15 rejected."""
    if not kept_dataset.exists():
        made = usk(*arguments, "--out", kept_dataset, "--json").done().value
        assert (made["clips"], made["rejected"], made["made"]) == (15, 15, 30)
    return Path(shutil.copytree(kept_dataset, tmp_path / "synth"))


def test_kept_and_rejected_clips_lie_apart_with_their_scores(
    usk: Command, arguments: list[Any], synth: Path, urbansound8k_folder: Path
) -> None:
    """Each classifier is of its fold, and its clips train wherever their parents do."""
    kept, rejected = rows_in(synth, "data"), rows_in(synth, "rejected")
    assert (len(kept), len(rejected)) == (15, 15)
    assert len({row["clip_id"] for row in kept + rejected}) == 30
    for label in range(3):
        assert sum(row["label"] == label for row in kept) == 5
        for fold in (1, 2, 3):
            inside, outside = (
                [row["filter_score"] for row in part if (row["label"], row["fold"]) == (label, fold)]
                for part in (kept, rejected)
            )
            assert not inside or not outside or min(inside) >= max(outside)
    for row in kept + rejected:
        assert row["filter_folds"] == [row["fold"]] and 0 <= row["filter_score"] <= 1
    from datasets import load_dataset

    by_default = load_dataset(str(synth))
    assert list(by_default) == ["train"]
    assert by_default["train"]["clip_id"][:] == [row["clip_id"] for row in kept]
    others = load_dataset(str(synth), "rejected", split="train")
    assert others["filter_score"][:] == [row["filter_score"] for row in rejected]
    card = (synth / "README.md").read_text()
    assert "kept 15, rejected 15" in card and "the best 50 % of each class were kept" in card
    assert not (synth / ".work").exists()
    shown = usk(*arguments, "--out", synth)
    assert "classifier filter: 15 kept (mean score " in shown.out and "all were there" in shown.out

    made = open_source(synth)
    assert [clip.clip_id for clip in made.clips] == [row["clip_id"] for row in kept]
    assert {clip.filter_folds for clip in made.clips} == {(1,), (2,), (3,)} == set(made.filters_trained_on)
    real = decode_source(open_source(urbansound8k_folder)).source
    clips = tuple(replace(clip, filter_folds=()) for clip in made.clips)
    unfiltered = replace(made, clips=clips, filters_trained_on={})
    for fold in (1, 2, 3):
        split = fold_split(real.clips, fold)
        assert (leaking(made, real, split) == leaking(unfiltered, real, split)).all()


def test_one_classifier_for_a_tested_fold_is_trained_on_all_others_and_binds_its_clips_to_it(
    usk: Command, arguments: list[Any], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "for3"
    usk(*arguments, "--out", out, "--test-folds", 3, "--json").done()
    (trained_on,) = json.loads((out / "usk.json").read_text())["clip_filter"]["trained_on"]
    assert trained_on["folds"] == [1, 2]
    real, made = decode_source(open_source(urbansound8k_folder)).source, open_source(out)
    assert {clip.filter_folds for clip in made.clips} == {(1, 2)}
    assert {fold for clip in made.clips for fold in clip.parent_folds} == {1, 2}
    leaks = {fold: leaking(made, real, fold_split(real.clips, fold)).mean() for fold in (1, 2, 3)}
    assert leaks == {1: 1, 2: 1, 3: 0}
    without_manifest = replace(made, filters_trained_on={})  # a copy of the rows alone
    for fold in (1, 2, 3):
        split = fold_split(real.clips, fold)
        assert (leaking(without_manifest, real, split) == leaking(made, real, split)).all()
    train = f"train --real {urbansound8k_folder} --synth {out} --mix real,synth --epochs 1 --seeds 1 --no-baseline"
    train += f" --out {tmp_path}/runs --quiet --test-folds"
    usk(train, 1).refused(1, "recordings that their classifier filter was trained on")
    assert usk(train, 3, "--json").done().value["runs"][0]["dropped"] == 0
    assert "**The clips may train only where no other" in (out / "README.md").read_text()


def test_a_classifier_that_was_trained_on_the_tested_fold_is_caught(
    usk: Command, arguments: list[Any], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "synth"
    usk(*arguments, "--out", out, "--test-folds", 3)
    audit = ("audit", out, "--real", urbansound8k_folder, "--test-folds", 3, "--json")
    assert usk(*audit).code == 0
    manifest = json.loads((out / "usk.json").read_text())
    real = decode_source(open_source(urbansound8k_folder)).source
    tested = next(clip.sound for clip in real.clips if clip.fold == 3)
    manifest["clip_filter"]["trained_on"][0]["sounds"].append(tested)
    (out / "usk.json").write_text(json.dumps(manifest))
    found = usk(*audit)
    assert (found.code, found.value["asked_leaks"]) == (3, 15)
    (asked,) = (part for part in found.value["folds"] if part["fold"] == 3)
    assert asked["filters_trained_on"] == 1
    refused = usk(
        "train", "--real", urbansound8k_folder, "--synth", out, "--mix", "synth", "--seeds", 1, "--no-baseline", "--test-folds", 3, "--out", tmp_path / "runs"
    )  # fmt: skip
    assert refused.code == 1 and "all 15 clips of synth would leak" in refused.err


def test_what_the_tested_fold_holds_changes_no_byte_of_the_clips(
    usk: Command, arguments: list[Any], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    usk(*arguments, "--out", tmp_path / "before", "--test-folds", 3)
    table = urbansound8k_folder / "metadata" / "UrbanSound8K.csv"
    lines = table.read_text().splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("1300-1-0-0.wav"))
    lines[at] = lines[at].replace(",1,car_horn", ",8,siren")
    table.write_text("\n".join(lines) + "\n")
    tested = urbansound8k_folder / "audio" / "fold3"
    shutil.copy(tested / "8301-8-0-0.wav", tested / "1301-1-0-0.wav")
    usk(*arguments, "--out", tmp_path / "after", "--test-folds", 3).done()
    before, after = contents(tmp_path / "before"), contents(tmp_path / "after")
    shards = {name for name in before if name.endswith(".parquet")}
    assert len(shards) == 6
    assert {name: before[name] for name in shards} == {name: after[name] for name in shards}


def stopped(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("way", ["a bit", "half", "empty", "a link to nothing"])
def test_a_damaged_classifier_of_a_stopped_run_is_trained_again(
    usk: Command, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    command = [*arguments, "--per-class", 3, "--quiet"]
    usk(*command, "--out", tmp_path / "once")
    with monkeypatch.context() as patch:
        patch.setattr("usk.synth.filter.ClipFilter.score", stopped)
        assert usk(*command, "--out", tmp_path / "stopped").code == 130
    for file in (tmp_path / "stopped" / ".work").glob("filter-*"):
        damage(file, way, 0)
    assert usk(*command, "--out", tmp_path / "stopped").code == 0
    once, again = contents(tmp_path / "once"), contents(tmp_path / "stopped")
    shards = [name for name in once if name.endswith(".parquet")]
    assert shards and all(once[name] == again[name] for name in shards)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_stopped_at_any_write_it_ends_with_the_same_files(
    usk: Command, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Every file is put in place by one `replace`: each call is stopped before its second or after its first one, and
    the last one while it sweeps up."""
    command = [*arguments, "--per-class", 3, "--quiet"]
    usk(*command, "--out", tmp_path / "once")
    undisturbed = contents(tmp_path / "once")
    assert len([name for name in undisturbed if name.endswith(".parquet")]) == 4
    put, remove = Path.replace, shutil.rmtree
    stop_at, seen = 0, 0

    def stopping(self: Path, target: Any) -> Path:
        nonlocal seen
        seen += 1
        if seen == stop_at and moment == "before":
            raise KeyboardInterrupt
        done = put(self, target)
        if seen == stop_at:
            raise KeyboardInterrupt
        return done

    def half_removed(folder: Any, **options: Any) -> None:
        some = sorted(path for path in Path(folder).iterdir())
        for path in some[: len(some) // 2]:
            path.unlink()
        raise KeyboardInterrupt

    for _ in range(40):
        stop_at, seen = 2 if moment == "before" else 1, 0
        monkeypatch.setattr(Path, "replace", stopping)
        code = usk(*command, "--out", tmp_path / "stopped").code
        monkeypatch.setattr(Path, "replace", put)
        if (tmp_path / "stopped" / "README.md").exists():  # the last thing to be written
            break
        assert code == 130
        for name, content in contents(tmp_path / "stopped").items():
            if name.startswith(("data", "rejected")) and not name.endswith(".part"):
                assert content == undisturbed[name], "whatever has its name is whole"
    else:
        pytest.fail("it never came to its end")
    assert usk(*command, "--out", tmp_path / "stopped").code == 0
    assert contents(tmp_path / "stopped") == undisturbed
    monkeypatch.setattr(shutil, "rmtree", half_removed)
    assert usk(*command, "--out", tmp_path / "swept").code == 130
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert usk(*command, "--out", tmp_path / "swept", "--json").value["made"] == 0
    assert contents(tmp_path / "swept") == undisturbed
    (tmp_path / "swept" / next(name for name in undisturbed if name.startswith("rejected"))).unlink()
    assert usk(*command, "--out", tmp_path / "swept").code == 0
    assert contents(tmp_path / "swept") == undisturbed


def test_the_audits_results_in_the_card_leave_the_kept_clips_as_they_are(
    usk: Command, synth: Path, urbansound8k_folder: Path
) -> None:
    before = (synth / "README.md").read_text()
    usk(f"audit {synth} --real {urbansound8k_folder} --save --quiet").done()
    after = (synth / "README.md").read_text()
    assert "kept 15, rejected 15" in after and "Kernel audio distance to real clips, in" in after
    assert [line for line in before.splitlines() if line not in after.splitlines()] == []


def test_classifiers_are_trained_once(
    usk: Command, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[Any] = []
    fit = ClipFilter._train

    def counted(self: ClipFilter, rows: list[int], *rest: Any) -> Any:
        fits.append({self.pool.source.clips[row].fold for row in rows})
        return fit(self, rows, *rest)

    monkeypatch.setattr(ClipFilter, "_train", counted)
    with monkeypatch.context() as patch:
        patch.setattr(DatasetFolder, "write_unit", stopped)
        assert usk(*arguments, "--out", tmp_path / "synth", "--quiet").code == 130
    for _ in range(2):
        assert usk(*arguments, "--out", tmp_path / "synth", "--quiet").code == 0
    assert fits == [{1}, {2}, {3}]


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (("--test-folds", "1,2,3"), 2, "--test-folds 1,2,3: names every fold"),
        (("--classes", "siren"), 1, "--filter: the classifier of fold 1 would be trained on clips of one class"),
    ],
)  # fmt: skip
def test_wrong_values_are_one_line(
    usk: Command, arguments: list[Any], tmp_path: Path, given: tuple[Any, ...], code: int, message: str
) -> None:
    usk(*arguments, *given, "--out", tmp_path / "synth", "--quiet").refused(code, message)
    assert not (tmp_path / "synth").exists()


def test_another_filter_into_the_same_folder_is_refused(
    usk: Command, arguments: list[Any], synth: Path
) -> None:
    before = contents(synth)
    for other in (("--filter", 0.6), ("--test-folds", 3)):
        usk(*arguments, *other, "--out", synth, "--quiet").refused(2, "holds clips of another plan")
    assert contents(synth) == before
