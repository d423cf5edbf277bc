"""Caveats of a run's results: leaks that cannot be ruled out, and models that were trained on more than the run's clips."""

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
    """Return the notes that apply to a whole sweep, each once."""
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
            "protocol seed-9010 is optimistic: it chooses the epoch on its test part and cuts recordings apart"
        )
        notes += [note for run in sweep.runs for note in _trained_on_test_recordings(run, sources)]
    if any(not len(split.validation) for split in sweep.splits):
        notes.append(
            "too few recordings to hold any out for validation: the last epoch counts, none is chosen"
        )
    return list(dict.fromkeys(notes))


def run_caveats(
    plan: PlannedRun, sources: dict[str, Source], decoded: dict[str, DecodedSource], used: Sequence[Source]
) -> tuple[list[str], list[str]]:
    """Return the leaks that cannot be ruled out for one run, and its other caveats. `used` are its sources."""
    caveats = [
        *trained_beyond_the_subset([plan], sources),
        *_trained_on_test_recordings(plan, sources),
        *(_test_sounds_reused(plan, decoded) if plan.split.by_group else []),
    ]
    return _possible_leaks(used, sources["real"]), caveats


def trained_beyond_the_subset(runs: Sequence[PlannedRun], sources: dict[str, Source]) -> list[str]:
    """Return a note for a generator, and one for a filter, that was trained on more recordings than a run's train clips."""
    notes = []
    real = sources["real"]
    for run in runs:
        if run.split.train_clips is None:
            continue
        train_recordings = {real.clips[row].group for row in run.split.train.tolist()}
        for name, rows in run.rows.parts:
            source = sources[name]
            filters = {source.clips[row].filter_folds for row in rows.tolist()}
            of_filters = [part for folds, part in source.filters_trained_on.items() if folds in filters]
            notes += [  # without names and folds, so that `usk eval` shows them only once
                f"the {model} was trained on more recordings than the train clips (none that validates or tests): the classifier is trained on few clips, the {model} is not"
                for model, trained in (("generator", source.generator_trained_on), ("filter", of_filters))
                if recordings_of(trained, real) - train_recordings
            ]
    return list(dict.fromkeys(notes))


def _possible_leaks(used: Sequence[Source], real: Source) -> list[str]:
    """Return notes, without paths, on leaks between a run's sources and the real clips that cannot be ruled out."""
    others = [replace(source, location=source.hub_id or source.name) for source in used if source is not real]
    real = replace(real, location=real.hub_id or real.name)
    checks = (unknown_generator, partial(foreign_parents, real=real))
    notes = [check(source) for source in others for check in checks]
    if not real.has_groups:
        notes.append(
            f"{real.name} does not name the recordings of all clips: several clips of one may lie on both sides"
        )
    return [note for note in notes if note]


def _untrained(runs: Sequence[PlannedRun], sources: dict[str, Source]) -> list[str]:
    """Return notes on tested classes without training clips: their recall is always 0."""

    def classes(name: str, rows: np.ndarray) -> set[str]:
        return {sources[name].class_names[sources[name].clips[row].label] for row in rows.tolist()}

    notes = []
    for run in runs:
        trained = set().union(*(classes(name, rows) for name, rows in run.rows.parts))
        if missing := sorted(classes("real", run.split.test) - trained):
            notes.append(
                f"{run.mix.text}, test part {run.split.name}: no clips of {abbreviate_list(missing)} train there, so none can be "
                "recognized"
            )
    return notes


def _trained_on_test_recordings(plan: PlannedRun, sources: dict[str, Source]) -> list[str]:
    """Return notes on generators and filters that were trained on test recordings.

    This can only happen under a protocol that does not split by recording.
    """
    if plan.split.by_group:
        return []
    real = sources["real"]
    tested = {real.clips[row].group for row in plan.split.test.tolist()}
    notes = []
    for name in plan.mix.parts:
        source = sources[name]
        models = []
        if recordings_of(source.generator_trained_on, real) & tested:
            models.append("generator")
        if any(clip.filter_folds for clip in source.clips):
            models.append("filter")
        notes += [
            f"the {model} of {name} was trained on recordings that seed-9010 tests: results are even more optimistic"
            for model in models
        ]
    return notes


def _test_sounds_reused(plan: PlannedRun, decoded: dict[str, DecodedSource]) -> list[str]:
    """Return a note on test clips whose sound also trains or validates, under another name or as a parent."""
    clips = decoded["real"].source.clips
    tested = {clips[row].sound: clips[row].clip_id for row in plan.split.test.tolist()}
    used = [clips[row] for row in plan.split.validation.tolist()]
    used += [decoded[name].source.clips[row] for name, rows in plan.rows.parts for row in rows.tolist()]
    used_sounds = {sound for clip in used for sound in (clip.sound, *clip.parents)}
    reused = sorted(tested[sound] for sound in used_sounds & tested.keys())
    if not reused:
        return []
    count = f"{pluralize(len(reused), 'sound')} of {len(plan.split.test):,} test clips"
    return [
        f"{plan.split.name}: {count} train or validate too, under another name ({abbreviate_list(reused)}): scores are too high"
    ]
