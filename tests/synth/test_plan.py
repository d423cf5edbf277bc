"""The plan: who may be a parent, how evenly, and that it is the same plan every time."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usk.data.clip import Clip
from usk.data.splits import held_out_groups
from usk.errors import SourceError, UsageError
from usk.synth.alpha import Alpha
from usk.synth.plan import Plan, PlannedClip, draw_plan
from usk.synth.planned import PlannedClips

NAMES = ("drill", "horn", "siren")
ONE_OR_TWO = {1: ["sample"], 2: ["decomposed"]}

# A recording: its fold, its class, and how many clips were cut from it.
recordings = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=30
)


def clips_of(of: list[tuple[int, int, int]]) -> list[Clip]:
    """`of`, and two recordings more of every class in fold 1, so that each has a pair."""
    certain = [(1, label, 1) for label in range(3) for _ in range(2)]
    return [
        Clip(f"c{index}-{cut}", label, f"g{index}", fold)
        for index, (fold, label, n_clips) in enumerate([*of, *certain])
        for cut in range(n_clips)
    ]


def even_pool(n_recordings: int, n_cuts: int, fold: int = 1) -> list[Clip]:
    return [Clip(f"c{g}-{cut}", 0, f"g{g}", fold) for g in range(n_recordings) for cut in range(n_cuts)]


def by_fold(plan: Plan) -> dict[tuple[int, int], list[PlannedClip]]:
    subsets = defaultdict(list)
    for planned in plan.clips:
        subsets[planned.label, planned.fold].append(planned)
    return subsets


@given(recordings, st.integers(1, 60))
def test_no_pair_comes_twice_while_another_is_left(of: list[tuple[int, int, int]], per_class: int) -> None:
    clips = clips_of(of)
    held = held_out_groups(clips)
    pools = defaultdict(list)
    for clip in clips:
        if clip.group not in held:
            pools[clip.label, clip.fold].append(clip)
    for subset, planned in by_fold(draw_plan(clips, NAMES, per_class)).items():
        pairs = [
            frozenset((a.clip_id, b.clip_id)) for a, b in combinations(pools[subset], 2) if a.group != b.group
        ]
        drawn = Counter(frozenset(clip.parents) for clip in planned)
        times = [drawn[pair] for pair in pairs]
        assert sum(times) == len(planned)
        assert max(times) - min(times) <= 1


@pytest.mark.parametrize("n_parents", [1, 2])
@given(st.integers(3, 8), st.integers(1, 4), st.integers(1, 60), st.integers(0, 3))
def test_parents_are_used_evenly(
    n_parents: int, n_recordings: int, n_cuts: int, per_class: int, seed: int
) -> None:
    clips = even_pool(n_recordings, n_cuts)
    held = held_out_groups(clips)
    plan = draw_plan(clips, NAMES, per_class, seed=seed, strategies=ONE_OR_TWO[n_parents])
    uses = Counter(parent for planned in plan.clips for parent in planned.parents)
    counts = [uses[clip.clip_id] for clip in clips if clip.group not in held]
    assert max(counts) - min(counts) <= n_parents


def test_what_is_held_out_is_decided_on_the_whole_source() -> None:
    clips = even_pool(10, 2)
    held = held_out_groups(clips)
    part = [clip for clip in clips if clip.group in held or clip.group in ("g0", "g1", "g2", "g3")]
    plan = draw_plan(part, NAMES, 20, known_clips=clips)
    assert held
    assert not held & {group for planned in plan.clips for group in planned.parent_groups}


@given(recordings, st.randoms(use_true_random=False), st.integers(0, 3))
def test_the_plan_does_not_depend_on_the_order_of_the_clips(of, random, seed) -> None:  # type: ignore[no-untyped-def]
    clips = clips_of(of)
    shuffled = random.sample(clips, len(clips))
    plan = draw_plan(clips, NAMES, 12, seed=seed, alpha="0.2:0.8")
    assert draw_plan(shuffled, NAMES, 12, seed=seed, alpha="0.2:0.8").sha256 == plan.sha256


def test_seeds_and_names_draw_other_parents_noise_and_order_and_are_drawn_again_alike() -> None:
    clips = [Clip(f"{label}{g}", label, f"{label}g{g}", 1) for label in range(2) for g in range(16)]
    plans = [draw_plan(clips, NAMES, 20, seed=seed, name=name) for name in ("", "a", "b") for seed in (0, 1)]
    parents = {tuple(clip.parents for clip in plan.clips) for plan in plans}
    noise = {clip.seed for plan in plans for clip in plan.clips}
    order = {tuple(clip.clip_id.rpartition("-")[2] for clip in plan.clips) for plan in plans}
    assert (len(parents), len(noise), len(order)) == (6, 6 * 40, 6), "no two clips share noise"
    assert draw_plan(clips, NAMES, 20, seed=1, name="b").sha256 == plans[-1].sha256


def test_every_clip_has_its_own_name_and_seed_and_classes_and_parents_take_turns() -> None:
    """So that an interrupted run has some of each class."""
    clips = [*even_pool(8, 2), *(Clip(f"d{g}", 1, f"h{g}", 2) for g in range(5))]
    plan = draw_plan(clips, NAMES, 300)
    assert len({clip.seed for clip in plan.clips}) == len({clip.clip_id for clip in plan.clips}) == 600
    assert all(0 <= clip.seed < 2**62 for clip in plan.clips)
    assert [clip.label for clip in plan.clips] == [0, 1] * 300
    first = draw_plan(clips[:16], NAMES, 80).clips
    assert 20 < sum(one < other for one, other in (clip.parents for clip in first)) < 60


def test_folds_get_clips_in_proportion_to_their_real_ones() -> None:
    clips = [*even_pool(2, 3, fold=1), *(Clip(f"d{g}", 0, f"h{g}", 2) for g in range(2))]
    plan = draw_plan(clips, NAMES, 8)  # six clips in fold 1, two in fold 2
    assert plan.counts() == {"drill": {1: 6, 2: 2}}
    assert [len(subset) for subset in by_fold(draw_plan(clips, NAMES, 1)).values()] == [1]


def test_strategies_share_the_clips_of_every_class() -> None:
    clips = [*even_pool(8, 2), *(Clip(f"d{g}", 1, f"h{g}", 2) for g in range(5)), Clip("e", 0, "i", 3)]
    plan = draw_plan(clips, NAMES, 7, strategies=["decomposed", "variation", "sample"])
    made = Counter((clip.label, clip.strategy) for clip in plan.clips)
    assert all(made[label, "decomposed"] == 3 and made[label, "sample"] == 2 for label in (0, 1))
    n_parents = {clip.strategy: len(clip.parents) for clip in plan.clips}
    assert n_parents == {"decomposed": 2, "variation": 1, "sample": 1}
    assert len({clip.seed for clip in plan.clips}) == len({clip.clip_id for clip in plan.clips}) == 14
    assert {clip.strategy for clip in plan.clips[:6]} != {"decomposed"}, "they take turns"
    assert plan.notes[0] == "drill: no clips come from fold 3, with fewer than 2 recordings to draw from"
    assert Plan.from_lines(plan.lines(), NAMES).clips == plan.clips
    assert {clip.fold for clip in plan.clips} == {1, 2}, "all strategies take parents of the folds with pairs"
    assert draw_plan(clips, NAMES, 1, strategies=["decomposed", "sample"]).clips[0].strategy == "decomposed"


def test_a_weight_is_drawn_for_each_clip_within_the_range() -> None:
    clips = even_pool(6, 2)
    assert {clip.alpha for clip in draw_plan(clips, NAMES, 10).clips} == {0.5}
    weights = [clip.alpha for clip in draw_plan(clips, NAMES, 100, alpha="0.3:0.7").clips]
    assert len(set(weights)) == 100
    assert 0.3 <= min(weights) < 0.35
    assert 0.65 < max(weights) <= 0.7


def test_a_class_with_one_recording_is_named_with_the_fix() -> None:
    clips = [*even_pool(3, 1), Clip("s0", 2, "s", 1), Clip("s1", 2, "s", 1)]
    with pytest.raises(SourceError, match=r"class siren .*\(it has 1 in all\).*Leave the class out"):
        draw_plan(clips, NAMES, 3)


def test_a_class_whose_recordings_lie_in_different_folds_is_paired_across_them() -> None:
    clips = [Clip(f"c{fold}", 0, f"g{fold}", fold) for fold in (1, 2)]
    plan = draw_plan(clips, NAMES, 3)
    assert "drill: every fold has fewer than 2 recordings" in plan.notes[0]
    assert plan.clips == draw_plan(clips, NAMES, 3, across_folds=True).clips
    assert {clip.fold for clip in plan.clips} == {0}
    assert {frozenset(clip.parent_folds) for clip in plan.clips} == {frozenset((1, 2))}


def test_across_folds_pairs_of_one_fold_keep_it() -> None:
    clips = [*even_pool(4, 1, fold=1), *(Clip(f"d{g}", 0, f"h{g}", 2) for g in range(4))]
    plan = draw_plan(clips, NAMES, 28, across_folds=True)
    for planned in plan.clips:
        assert planned.fold == (planned.parent_folds[0] if len(set(planned.parent_folds)) == 1 else 0)
    assert {planned.fold for planned in plan.clips} == {0, 1, 2}


def test_a_fold_with_one_recording_is_left_out_and_named() -> None:
    plan = draw_plan([*even_pool(3, 1), Clip("d", 0, "h", 2)], NAMES, 4)
    assert plan.counts() == {"drill": {1: 4}}
    assert plan.notes[0] == "drill: no clips come from fold 2, with fewer than 2 recordings to draw from"


@pytest.mark.parametrize(
    ("text", "weights"), [("0.5", (0.5, 0.5)), ("0", (0.0, 0.0)), ("1", (1.0, 1.0)), ("0.3:0.7", (0.3, 0.7))]
)
def test_alpha_is_a_number_or_a_range(text: str, weights: tuple[float, float]) -> None:
    alpha = Alpha.parse(text)
    assert (alpha.low, alpha.high) == weights


@given(recordings, st.integers(1, 2), st.integers(1, 40))
def test_parents_come_from_different_recordings_of_one_fold(
    of: list[tuple[int, int, int]], n_parents: int, per_class: int
) -> None:
    clips = clips_of(of)
    by_id = {clip.clip_id: clip for clip in clips}
    plan, held = draw_plan(clips, NAMES, per_class, strategies=ONE_OR_TWO[n_parents]), held_out_groups(clips)
    assert Counter(planned.label for planned in plan.clips) == dict.fromkeys(range(3), per_class)
    for planned in plan.clips:
        assert not held & set(planned.parent_groups), "what is held out for validation gives no parents"
        parents = [by_id[parent] for parent in planned.parents]
        assert planned.parent_groups == tuple(parent.group for parent in parents)
        assert len(parents) == len({parent.group for parent in parents}) == len(planned.weights) == n_parents
        assert {(parent.label, parent.fold) for parent in parents} == {(planned.label, planned.fold)}
        assert sum(planned.weights) == pytest.approx(1)


@pytest.mark.parametrize("alpha", ["0.5", "0", "0.3:0.7"])
def test_no_clip_is_made_twice_when_pairs_run_out(alpha: str) -> None:
    plan = draw_plan(even_pool(4, 1), NAMES, 40, alpha=alpha)
    pairs = {frozenset(clip.parents) for clip in plan.clips}
    shares = {(frozenset(clip.parents), max(clip.weights)) for clip in plan.clips}
    assert len(pairs) < 40 == len(shares)
    assert f"40 clips a class from as few as {len(pairs)} pairs" in " ".join(plan.notes)
    fixed = [clip.alpha for clip in draw_plan(even_pool(9, 1), NAMES, 5, alpha="0.5").clips]
    assert set(fixed) == {0.5}, "a pair that is drawn once keeps the alpha that was asked for"


@pytest.mark.parametrize(
    "text", ["", "half", "beta:0.4", "-0.1", "1.1", "0.7:0.3", "0.1:", ":0.5", "nan", "0.1:0.2:0.3"]
)
def test_any_other_alpha_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="alpha"):
        Alpha.parse(text)


def test_the_plan_as_lines_names_classes() -> None:
    lines = [json.loads(line) for line in draw_plan(even_pool(3, 1), NAMES, 2).lines()]
    assert [line["class"] for line in lines] == ["drill", "drill"]
    assert lines[0]["parents"][0] != lines[0]["parents"][1]


def test_a_plan_takes_few_bytes_a_clip() -> None:
    pool = even_pool(40, 3)
    draw_plan(pool, NAMES, 10)
    tracemalloc.start()
    plan = draw_plan(pool, NAMES, 4_000)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan) == 4_000
    assert held < 200 * len(plan) and peak < 500 * len(plan)


def test_a_plan_comes_back_from_its_lines() -> None:
    plan = replace(draw_plan(even_pool(3, 2), NAMES, 5), notes=())
    assert Plan.from_lines(plan.lines(), NAMES) == plan
    clips = list(plan.clips)
    assert plan.clips[-1] == clips[-1] and list(plan.clips[1:3]) == clips[1:3]
    bare = [replace(clip, parent_names=(), parent_seconds=()) for clip in clips]
    assert list(PlannedClips(bare)) == bare
    assert list(plan.select({clips[3].clip_id}).clips) == [clips[3]]
