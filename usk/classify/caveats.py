"""What the results of a run must be read with: what trained beyond its clips, and leaks that the protocol lets through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from usk.classify.sweep import PlannedRun, Sweep
from usk.data.decode import DecodedSource
from usk.data.leaks import foreign_parents, recordings_of, unknown_generator
from usk.data.source import Source
from usk.text import abbreviate_list, pluralize


def sweep_notes(sweep: Sweep, sources: dict[str, Source]) -> list[str]:
    """What the reader of any of these runs must know."""
    real = sources["real"]
    notes = [note for source in sources.values() for note in source.notes]
    notes += filter(None, (foreign_parents(source, real) for source in sources.values()))
    notes += filter(None, map(unknown_generator, sources.values()))
    notes += [
        *sweep.left_out,
        *trained_beyond_the_subset(sweep.runs, sources),
        *_untrained(sweep.runs, sources),
    ]
    if any(split.optimistic for split in sweep.splits):
        notes.append(
            "protocol seed-9010 chooses the epoch on its test part and cuts recordings apart: optimistic"
        )
        notes += [note for run in sweep.runs for note in _trained_on_what_it_tests(run, sources)]
    if any(not len(split.validation) for split in sweep.splits):
        notes.append(
            "too few recordings to hold any out for validation: the last epoch counts, none is chosen"
        )
    return list(dict.fromkeys(notes))


def run_caveats(
    plan: PlannedRun, sources: dict[str, Source], decoded: dict[str, DecodedSource], used: Sequence[Source]
) -> tuple[list[str], list[str]]:
    """Leaks that cannot be ruled out for one run, and its other caveats. `used` are its sources."""
    caveats = [
        *trained_beyond_the_subset([plan], sources),
        *_trained_on_what_it_tests(plan, sources),
        *(_tested_under_another_name(plan, decoded) if plan.split.by_group else []),
    ]
    return _not_ruled_out(used, sources["real"]), caveats


def trained_beyond_the_subset(runs: Sequence[PlannedRun], sources: dict[str, Source]) -> list[str]:
    """Notes on runs of few train clips whose synthetic clips come from a generator or a filter that was trained on more than
    those."""
    notes = []
    real = sources["real"]
    for run in runs:
        if run.split.train_clips is None:
            continue
        known = {real.clips[row].group for row in run.split.train.tolist()}
        for name, rows in run.rows.parts:
            source = sources[name]
            if recordings_of(source.generator_trained_on, real) - known:
                notes.append(_trained_on_more("generator"))
            filters = {source.clips[row].filter_folds for row in rows.tolist()}
            trained = [part for folds, part in source.filters_trained_on.items() if folds in filters]
            if recordings_of(trained, real) - known:
                notes.append(_trained_on_more("filter"))
    return list(dict.fromkeys(notes))


def _trained_on_more(who: str) -> str:
    """Without the name of one: runs of several generators, a fold each, say it in the same words, and `usk eval` once."""
    return f"the {who} was trained on more recordings than the train clips (none that validates or tests): the classifier is trained on few clips, the {who} is not"


def _not_ruled_out(used: Sequence[Source], real: Source) -> list[str]:
    """Sentences on leaks between a run's sources and the real one that nothing here can rule out, without paths."""
    others = [replace(source, location=source.hub_id or source.name) for source in used if source is not real]
    real = replace(real, location=real.hub_id or real.name)
    warnings = (unknown_generator, partial(foreign_parents, real=real))
    found = [warning(source) for source in others for warning in warnings]
    if not real.has_groups:
        found.append(
            f"{real.name} does not name the recordings of all clips: several clips of one may lie on both sides"
        )
    return [sentence for sentence in found if sentence]


def _untrained(runs: Sequence[PlannedRun], sources: dict[str, Source]) -> list[str]:
    """Sentences on classes that are tested without a clip to learn them from: their recall is 0 whatever is trained."""

    def classes(name: str, rows: np.ndarray) -> set[str]:
        return {sources[name].class_names[sources[name].clips[row].label] for row in rows.tolist()}

    found = []
    for run in runs:
        trained = set().union(*(classes(name, rows) for name, rows in run.rows.parts))
        if missing := sorted(classes("real", run.split.test) - trained):
            found.append(
                f"{run.mix.text}, test part {run.split.name}: no clips of {abbreviate_list(missing)} train there, so none can be "
                "recognized"
            )
    return found


def _trained_on_what_it_tests(plan: PlannedRun, sources: dict[str, Source]) -> list[str]:
    """Sentences on what was trained on test recordings where the protocol cuts recordings apart, and so rules it out for none."""
    if plan.split.by_group:
        return []
    real = sources["real"]
    tested = {real.clips[row].group for row in plan.split.test.tolist()}
    found = []
    for name in plan.mix.parts:
        source = sources[name]
        trained_on_tested = {
            "generator": bool(recordings_of(source.generator_trained_on, real) & tested),
            "filter": any(clip.filter_folds for clip in source.clips),
        }
        found += [
            f"the {who} of {name} was trained on recordings that seed-9010 tests: more optimistic still"
            for who, has in trained_on_tested.items()
            if has
        ]
    return found


def _tested_under_another_name(plan: PlannedRun, decoded: dict[str, DecodedSource]) -> list[str]:
    """A sentence on test clips whose very sound trains or validates too, as a clip of another name or in a synthetic one."""
    real = decoded["real"]
    clips = real.source.clips
    tested = {clips[row].sound: clips[row].clip_id for row in plan.split.test.tolist()}
    used = [clips[row] for row in plan.split.validation.tolist()]
    used += [decoded[name].source.clips[row] for name, rows in plan.rows.parts for row in rows.tolist()]
    sounds = {sound for clip in used for sound in (clip.sound, *clip.parents)}
    if not (both := sorted(tested[sound] for sound in sounds & tested.keys())):
        return []
    of_all = f"{pluralize(len(both), 'sound')} of {len(plan.split.test):,} test clips"
    return [
        f"{plan.split.name}: {of_all} train or validate too, under another name ({abbreviate_list(both)}): scores are too high"
    ]
