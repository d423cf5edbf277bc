"""The clips that a generator is trained on: without the test folds, and on record by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from usk.audio.mel import MelSettings, audio_to_image, stack_padded
from usk.data.decode import DecodedSource, beginning, decode_source
from usk.data.leaks import unknown_generator
from usk.data.source import Source
from usk.data.splits import held_out_groups
from usk.errors import UsageError
from usk.reporter import Reporter
from usk.text import abbreviate_list

UNKNOWN_GENERATOR = "its clips are of a generator that does not say all it was trained on"
WHOLE = 0.97  # a clip that fills this much of its image fills it


@dataclass(frozen=True)
class FitClips:
    """What is trained on: clips as mel images, and what is known of each."""

    images: np.ndarray  # float16 [n, n_mels, n_frames] in [-1, 1]
    frames: np.ndarray  # int [n]: how many frames of its image a clip fills
    labels: np.ndarray  # int [n]: its place among the classes that condition the UNet; 0 if none do
    held_out: np.ndarray  # bool [n]: it only measures the validation loss

    def __getitem__(self, rows: np.ndarray) -> FitClips:
        return FitClips(self.images[rows], self.frames[rows], self.labels[rows], self.held_out[rows])

    def __len__(self) -> int:
        return len(self.images)

    def image(self, row: int, shift: int | None = None) -> np.ndarray:
        """One image [n_mels, n_frames]; with `shift`, the clip repeated to fill it and rolled in time by as much."""
        image = self.images[row]
        if shift is None:
            return image
        order = (np.arange(image.shape[1]) + shift) % max(1, int(self.frames[row]))
        return image[:, order]


@dataclass(frozen=True)
class FitSources:
    """What a generator is fitted to: the clips of `sources` outside `test_folds`."""

    sources: Sequence[Source]
    test_folds: Sequence[int] = ()
    skip_bad: bool = False
    reporter: Reporter = field(default_factory=Reporter)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of all sources, each once."""
        return tuple(dict.fromkeys(name for source in self.sources for name in source.class_names))

    def check(self) -> None:
        """Raise UsageError for a fold that no source has; warn of what no test could rule out."""
        known = sorted({fold for source in self.sources for fold in source.folds})
        if missing := [fold for fold in self.test_folds if fold not in known]:
            raise UsageError(
                f"no source has such a fold; they have {', '.join(map(str, known))}",
                field="test_folds",
                value=",".join(map(str, missing)),
            )
        if len(known) > 1 and not self.test_folds:
            self.reporter.warn(
                "all folds train this generator: no test fold is left that is clean for a classifier. "
                "Name the folds that you will test on, to hold them out"
            )
        for note in filter(None, map(unknown_generator, self.sources)):
            self.reporter.warn(note)

    def parts(self, sample_rate_hz: int) -> Iterator[tuple[DecodedSource, frozenset[str], dict[str, Any]]]:
        """Of each source its decoded clips outside the test folds, the recordings among them that only validate, and what
        `trained_on.json` says of it. Warns where none validate; raises UsageError where none train."""
        parts = []
        for source in self.sources:
            decoded, held = self._part(source, sample_rate_hz)
            parts.append(_record(source, decoded.source, held, self.test_folds))
            yield decoded, held, parts[-1]
        if not any(part["held_out_groups"] for part in parts):
            self.reporter.warn(
                "there are too few recordings to hold any out: nothing is validated, and the last step's weights are kept"
            )
        if not any(part["clips"] for part in parts):
            raise UsageError("there are no clips to train on", field="real")

    def _part(self, source: Source, sample_rate_hz: int) -> tuple[DecodedSource, frozenset[str]]:
        """The decoded clips outside the test folds, and the recordings among them that only validate.

        A recording with clips in a test fold is left out whole.
        """
        everything = decode_source(source, sample_rate_hz, skip_bad=self.skip_bad, reporter=self.reporter)
        for note in everything.source.notes:
            if note not in source.notes:
                self.reporter.warn(note)
        clips = everything.source.clips
        tested = {clip.group for clip in clips if clip.fold in self.test_folds}
        rows = [row for row, clip in enumerate(clips) if clip.group not in tested]
        across = {clip.group for clip in clips if clip.fold not in self.test_folds} & tested
        if not rows:
            raise UsageError(
                f"every recording of {source.location} has clips in these folds, so none is left to train on",
                field="test_folds",
                value=",".join(map(str, sorted(self.test_folds))),
                hint="Name fewer folds, or folds that keep recordings whole.",
            )
        if across:
            self.reporter.warn(
                f"{source.location}: {len(across)} recordings with clips in the test folds too were left out "
                f"({abbreviate_list(sorted(across))})"
            )
        decoded = everything.subset(rows)
        return decoded, held_out_groups(clips) & {clip.group for clip in decoded.source.clips}


def load_clips(
    given: FitSources, classes: tuple[str, ...], mel: MelSettings
) -> tuple[FitClips, list[dict[str, Any]]]:
    """The clips to train on, labeled with their places in `classes`, and what `trained_on.json` says of each source."""
    parts: list[dict[str, Any]] = []
    clips: list[FitClips] = []
    for decoded, held, part in given.parts(mel.sample_rate_hz):
        images, frames = images_of(decoded, mel)
        of = decoded.source
        is_held = np.array([clip.group in held for clip in of.clips], dtype=bool)
        labels = [classes.index(of.class_names[clip.label]) if classes else 0 for clip in of.clips]
        clips.append(FitClips(images, frames, np.array(labels, dtype=np.int64), is_held))
        parts.append(part)
    columns = zip(*((of.images, of.frames, of.labels, of.held_out) for of in clips), strict=True)
    return FitClips(*map(np.concatenate, columns)), parts


def _record(
    source: Source, trained: Source, held: frozenset[str], test_folds: Sequence[int]
) -> dict[str, Any]:
    """What `trained_on.json` says of a source, of which `trained` is the training part.

    Of synthetic clips it names their parents, and what their own generator was trained on.
    """
    chosen = [clip for clip in trained.clips if clip.group not in held]
    before = trained.generator_trained_on
    return {
        "source": source.name,
        "revision": source.revision,
        "license": source.license,
        "folds": [fold for fold in source.folds if fold not in test_folds],
        "clips": len(chosen),
        "groups": sorted(
            {group for clip in chosen for group in clip.lineage}.union(*(part.groups for part in before))
        ),
        "sounds": sorted(
            {sound for clip in chosen for sound in clip.parents or (clip.identity,)}.union(
                *(part.sounds for part in before)
            )
        ),
        "held_out_groups": sorted(held),
        **({"hub_id": source.hub_id} if source.hub_id else {}),
        **({} if source.has_groups else {"has_groups": False}),
        **({"note": UNKNOWN_GENERATOR} if unknown_generator(source) else {}),
    }


def images_of(decoded: DecodedSource, mel: MelSettings) -> tuple[np.ndarray, np.ndarray]:
    """Mel images float16 [n, n_mels, n_frames] of every clip's beginning (see `usk.data.decode.beginning`), and how many
    frames each fills [n]."""
    images = np.zeros((len(decoded), mel.n_mels, mel.n_frames), dtype=np.float16)
    frames = np.zeros(len(decoded), dtype=np.int64)
    for begin in range(0, len(decoded), 64):
        rows = range(begin, min(begin + 64, len(decoded)))
        audio = [beginning(decoded.audio(row), mel.image_samples) for row in rows]
        batch, _ = audio_to_image(stack_padded(audio, mel.image_samples), mel)
        images[begin : rows.stop] = batch[:, 0].numpy()
        frames[begin : rows.stop] = [
            mel.n_frames
            if len(samples) >= WHOLE * mel.image_samples
            else max(1, len(samples) // mel.hop_samples)
            for samples in audio
        ]
    return images, frames
