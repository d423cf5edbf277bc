"""Load the clips that a generator is trained on, without the test folds, and record them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from usk.audio.mel import MelSettings, audio_to_image, stack_padded
from usk.data.clip import Clip
from usk.data.decode import DecodedSource, beginning, decode_source
from usk.data.leaks import unknown_generator
from usk.data.source import Source
from usk.data.splits import held_out_groups
from usk.errors import UsageError
from usk.reporter import Reporter
from usk.text import abbreviate_list

UNKNOWN_GENERATOR = "its clips are of a generator that does not say all it was trained on"
FULL_SHARE = 0.97  # a clip that fills this share of its image counts as filling it


@dataclass(frozen=True)
class FitClips:
    """Clips to train on, as mel images."""

    images: np.ndarray  # float16 [n, n_mels, n_frames] in [-1, 1]
    frames: np.ndarray  # int [n]: the number of frames that a clip fills
    labels: np.ndarray  # int [n]: indices of the classes that condition the UNet; 0 without classes
    held_out: np.ndarray  # bool [n]: whether a clip is for validation only

    def __getitem__(self, rows: np.ndarray) -> FitClips:
        return FitClips(self.images[rows], self.frames[rows], self.labels[rows], self.held_out[rows])

    def __len__(self) -> int:
        return len(self.images)

    def image(self, row: int, shift: int | None = None) -> np.ndarray:
        """Return an image [n_mels, n_frames]. With `shift`, the clip is repeated to fill it and rolled by that many frames."""
        image = self.images[row]
        if shift is None:
            return image
        order = (np.arange(image.shape[1]) + shift) % max(1, int(self.frames[row]))
        return image[:, order]


@dataclass(frozen=True)
class FitSources:
    """The training data of a generator: the clips of `sources` outside `test_folds`."""

    sources: Sequence[Source]
    test_folds: Sequence[int] = ()
    skip_bad: bool = False
    reporter: Reporter = field(default_factory=Reporter)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the classes of the clips to train on, each once: no network learns the others."""
        names = {s.class_names[clip.label] for s in self.sources for clip in s.clips if self._trains(clip)}
        return tuple(dict.fromkeys(n for source in self.sources for n in source.class_names if n in names))

    def _is_tested(self, clip: Clip) -> bool:
        """Whether a clip or one of its parents is of a test fold."""
        return not {clip.fold, *clip.parent_folds}.isdisjoint(self.test_folds)

    @cached_property
    def _tested(self) -> frozenset[str]:
        """The recordings with clips in a test fold, of all sources."""
        return frozenset(clip.group for s in self.sources for clip in s.clips if self._is_tested(clip))

    def _trains(self, clip: Clip) -> bool:
        """Whether neither the clip nor another clip of its recordings is of a test fold."""
        return not self._is_tested(clip) and clip.lineage.isdisjoint(self._tested)

    def check(self) -> None:
        """Raise UsageError for a fold that no source has. Warn of leaks that tests could not rule out."""
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
        """Yield each source's decoded clips outside the test folds, its recordings for validation, and its entry in `trained_on.json`.

        Warns if no recordings are held out. Raises UsageError if there are no clips to train on.
        """
        parts = []
        for source in self.sources:
            decoded, held_out = self._decode(source, sample_rate_hz)
            parts.append(_record(source, decoded.source, held_out, self.test_folds))
            yield decoded, held_out, parts[-1]
        if not any(part["held_out_groups"] for part in parts):
            self.reporter.warn(
                "there are too few recordings to hold any out: nothing is validated, and the last step's weights are kept"
            )
        if not any(part["clips"] for part in parts):
            raise UsageError("there are no clips to train on", field="real")

    def _decode(self, source: Source, sample_rate_hz: int) -> tuple[DecodedSource, frozenset[str]]:
        """Return the decoded clips outside the test folds, and their recordings that are held out for validation.

        Recordings with clips in a test fold are left out completely.
        """
        everything = decode_source(source, sample_rate_hz, skip_bad=self.skip_bad, reporter=self.reporter)
        for note in everything.source.notes:
            if note not in source.notes:
                self.reporter.warn(note)
        clips = everything.source.clips
        rows = [row for row, clip in enumerate(clips) if self._trains(clip)]
        spread = {
            group for clip in clips if not self._is_tested(clip) for group in clip.lineage & self._tested
        }
        if not rows:
            raise UsageError(
                f"every recording of {source.location} has clips in these folds, so none is left to train on",
                field="test_folds",
                value=",".join(map(str, sorted(self.test_folds))),
                hint="Name fewer folds, or folds that keep recordings whole.",
            )
        if spread:
            self.reporter.warn(
                f"{source.location}: {len(spread)} recordings with clips in the test folds too were left out "
                f"({abbreviate_list(sorted(spread))})"
            )
        decoded = everything.subset(rows)
        return decoded, held_out_groups(clips) & {clip.group for clip in decoded.source.clips}


def load_clips(
    sources: FitSources, classes: tuple[str, ...], mel: MelSettings
) -> tuple[FitClips, list[dict[str, Any]]]:
    """Return the clips to train on, labeled with their indices in `classes`, and each source's entry in `trained_on.json`."""
    parts: list[dict[str, Any]] = []
    columns: list[tuple[np.ndarray, ...]] = []  # of each source, the fields of FitClips
    for decoded, held_out, part in sources.parts(mel.sample_rate_hz):
        images, frames = images_of(decoded, mel)
        source = decoded.source
        labels = [classes.index(source.class_names[clip.label]) if classes else 0 for clip in source.clips]
        is_held_out = [clip.group in held_out for clip in source.clips]
        columns.append((images, frames, np.array(labels, dtype=np.int64), np.array(is_held_out, dtype=bool)))
        parts.append(part)
    return FitClips(*map(np.concatenate, zip(*columns, strict=True))), parts


def _record(
    source: Source, trained: Source, held_out: frozenset[str], test_folds: Sequence[int]
) -> dict[str, Any]:
    """Return a source's entry in `trained_on.json`, where `trained` has its clips outside the test folds.

    For synthetic clips it names their parents, and the training data of their own generator and of the filters that chose them.
    """
    chosen = [clip for clip in trained.clips if clip.group not in held_out]
    groups = {group for clip in chosen for group in clip.lineage}
    sounds = {sound for clip in chosen for sound in clip.parents or (clip.identity,)}
    filters = [trained.filters_trained_on.get(folds) for folds in {clip.filter_folds for clip in chosen}]
    for part in (*trained.generator_trained_on, *filter(None, filters)):
        groups |= set(part.groups)
        sounds |= set(part.sounds)
    return {
        "source": source.name,
        "revision": source.revision,
        "license": source.license,
        "folds": [fold for fold in source.folds if fold not in test_folds],
        "clips": len(chosen),
        "groups": sorted(groups),
        "sounds": sorted(sounds),
        "held_out_groups": sorted(held_out),
        **({"hub_id": source.hub_id} if source.hub_id else {}),
        **({} if source.has_groups else {"has_groups": False}),
        **({"note": UNKNOWN_GENERATOR} if unknown_generator(source) else {}),
    }


def images_of(decoded: DecodedSource, mel: MelSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return mel images float16 [n, n_mels, n_frames] of the clips' beginnings (see `usk.data.decode.beginning`).

    The second array [n] has the number of frames that each clip fills.
    """
    images = np.zeros((len(decoded), mel.n_mels, mel.n_frames), dtype=np.float16)
    frames = np.zeros(len(decoded), dtype=np.int64)
    for begin in range(0, len(decoded), 64):
        rows = range(begin, min(begin + 64, len(decoded)))
        audio = [beginning(decoded.audio(row), mel.image_samples) for row in rows]
        batch, _ = audio_to_image(stack_padded(audio, mel.image_samples), mel)
        images[begin : rows.stop] = batch[:, 0].numpy()
        for row, samples in zip(rows, audio, strict=True):
            is_full = len(samples) >= FULL_SHARE * mel.image_samples
            frames[row] = mel.n_frames if is_full else max(1, len(samples) // mel.hop_samples)
    return images, frames
