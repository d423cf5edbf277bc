"""The base class of all renderers: the length and loudness of a clip, and its dataset row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from usk.data.decode import DecodedSource, beginning
from usk.synth.dataset_folder import encode_flac
from usk.synth.plan import Plan, PlannedClip
from usk.synth.settings import RenderConfig

PEAK_LIMIT = 0.99


def rms_db(audio: np.ndarray) -> float:
    """Return the root mean square level in dB of full scale. A constant offset is no sound and does not count."""
    return float(10 * np.log10(np.var(audio, dtype=np.float64) + 1e-20))


def at_level(audio: np.ndarray, target_db: float) -> tuple[np.ndarray, float]:
    """Scale `audio` to an RMS of `target_db`, or to the peak limit if it would clip. Return it with the gain in dB."""
    gain_db = target_db - rms_db(audio)
    peak = float(np.abs(audio).max())
    if peak > 0:
        gain_db = min(gain_db, float(20 * np.log10(PEAK_LIMIT / peak)))
    return (audio * 10 ** (gain_db / 20)).astype(np.float32), gain_db


class ClipRenderer(ABC):
    """Makes the audio of a plan's clips of one strategy, in batches, and their dataset rows."""

    def __init__(
        self,
        plan: Plan,
        decoded: DecodedSource,
        config: RenderConfig,
        model_id: str,
        longest_samples: int | None,
    ) -> None:
        """`longest_samples` is the part of a long parent that is used; None: all of it."""
        self.plan, self.decoded, self.config = plan, decoded, config
        self.model_id, self.longest_samples = model_id, longest_samples
        self.strategy = config.strategy_row
        self.row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}

    def own(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, PlannedClip]]:
        """Yield the planned clips of the strategy from `begin` to `end`, with their places in the plan."""
        for index in range(begin, len(self.plan) if end is None else end):
            clip = self.plan.clips[index]
            if clip.strategy == self.config.strategy:
                yield index, clip

    @abstractmethod
    def batches(self, begin: int, end: int) -> list[list[int]]:
        """Group the strategy's entries of the plan from `begin` to `end` into batches for `audio`."""

    @abstractmethod
    def audio(self, planned: Sequence[PlannedClip]) -> list[np.ndarray]:
        """Return the audio of the planned clips of one batch, at any level."""

    def length(self, clip: PlannedClip) -> int:
        """Return the length of a clip in samples: the mean of its parents' lengths."""
        return int(np.mean([self.decoded.n_samples(self.row_of[parent]) for parent in clip.parents]))

    def weights(self, clip: PlannedClip) -> tuple[float, ...]:
        """Return the parents' weights, which are equal if the strategy ignores them."""
        return clip.weights if self.strategy.weighted else (1 / len(clip.parents),) * len(clip.parents)

    def row(self, clip: PlannedClip, samples: np.ndarray) -> dict[str, Any]:
        """Return the row of a planned clip, with its audio at its parents' loudness (columns: `usk.data.clip.Provenance`)."""
        parents = [self.decoded.audio(self.row_of[parent]) for parent in clip.parents]
        levels_db = [rms_db(beginning(parent, self.longest_samples)) for parent in parents]
        weights = self.weights(clip)
        audio, gain_db = at_level(samples, float(np.dot(weights, levels_db)))
        flac = encode_flac(audio, self.decoded.sample_rate_hz)
        return {
            **asdict(clip),
            "audio": {"bytes": flac, "path": f"{clip.clip_id}.flac"},
            "group": clip.clip_id,
            "alpha": round(1 - weights[0], 6),
            "weights": weights,
            "steps": self.config.steps if self.strategy.mix is not None and self.strategy.samples else 0,
            "model": self.model_id,
            "gain_db": round(gain_db, 4),
        }


class Renderers:
    """The renderers of a dataset, by strategy."""

    def __init__(self, renderers: Mapping[str, ClipRenderer]) -> None:
        self.of_strategy = renderers

    def batches(self, begin: int, end: int) -> list[list[int]]:
        """Group the plan's entries from `begin` to `end` into batches of one strategy each, in the order of the plan."""
        return sorted(batch for one in self.of_strategy.values() for batch in one.batches(begin, end))

    def audio(self, planned: Sequence[PlannedClip]) -> list[np.ndarray]:
        """Return the audio of the planned clips of one batch, at any level."""
        return self.of_strategy[planned[0].strategy].audio(planned)

    def row(self, clip: PlannedClip, samples: np.ndarray) -> dict[str, Any]:
        """Return the row of a planned clip."""
        return self.of_strategy[clip.strategy].row(clip, samples)
