"""The plan rendered: parents encoded once, mixed, decoded, turned into audio at their loudness.

Every batch is a fixed piece of the plan: parents are numbered by first use and encoded in fixed groups, shards are
decoded in fixed slices. A run that was interrupted therefore repeats the very same batches and ends with the same
bytes as one that was not.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.data.decode import DecodedSource
from usk.diffusion.ddim import ddim_decode, ddim_encode
from usk.diffusion.interpolate import decomposed, midpoint, slerp
from usk.diffusion.load import Generator
from usk.errors import UsageError, disk_errors
from usk.mel.invert import image_to_audio
from usk.mel.spectrogram import audio_to_image, stack_padded
from usk.synth.plan import Plan, PlannedClip
from usk.synth.store import encode_flac, write_whole

STRATEGIES = ("slerp", "midpoint", "decomposed")
PEAK_LIMIT = 0.99
LATENT_BATCHES_IN_MEMORY = 8


@dataclass(frozen=True)
class RenderConfig:
    """How latents are mixed and decoded. The defaults measured best on real clips (README, results)."""

    strategy: str = "decomposed"
    level: float = 0.5
    steps: int = 10
    refinements: int = 1  # of each step of the inversion
    eta: float = 0.0
    repeat_short: bool = (
        True  # parents shorter than the image are repeated to fill it, or followed by silence
    )
    griffin_lim_iterations: int = 16
    batch: int = 16

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UsageError(
                f"--strategy {self.strategy} is not known; choose one of {', '.join(STRATEGIES)}"
            )
        if not 0.0 <= self.eta <= 1.0:
            raise UsageError(f"--eta must lie between 0 and 1, not {self.eta}")
        if not 0.0 < self.level <= 1.0:
            raise UsageError(f"--level must lie above 0 and up to 1, not {self.level}")
        if self.steps < 1:
            raise UsageError(f"--steps must be at least 1, not {self.steps}")
        if self.refinements < 0:
            raise UsageError(f"--refinements must be 0 or more, not {self.refinements}")
        if self.batch < 1:
            raise UsageError(f"--batch must be at least 1, not {self.batch}")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class ParentLatents:
    """Inverted parents, encoded in fixed batches on first use and kept on disk beside the plan."""

    def __init__(
        self, plan: Plan, decoded: DecodedSource, generator: Generator, config: RenderConfig, work: Path
    ) -> None:
        self.generator, self.config, self.decoded, self.work = generator, config, decoded, work
        row_of = {clip.clip_id: row for row, clip in enumerate(decoded.source.clips)}
        order: dict[str, int] = {}
        for clip in plan.clips:
            for parent in clip.parents:
                order.setdefault(parent, len(order))
        self.number = order
        self.rows = [row_of[parent] for parent in order]
        self._recent: OrderedDict[int, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()

    def __call__(self, parents: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """(noisy, clean) latents of the named parents, each [len(parents), channels, height, width] on the CPU."""
        noisy, clean = [], []
        for parent in parents:
            batch, place = divmod(self.number[parent], self.config.batch)
            pair = self._batch(batch)
            noisy.append(pair[0][place])
            clean.append(pair[1][place])
        return torch.stack(noisy), torch.stack(clean)

    def _batch(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        if batch in self._recent:
            self._recent.move_to_end(batch)
            return self._recent[batch]
        path = self.work / f"latents-{batch:05d}.npy"
        try:
            both = torch.from_numpy(np.load(path))
        except (OSError, ValueError, EOFError):
            both = self._encode(batch)
            content = io.BytesIO()
            np.save(content, both.numpy())
            with disk_errors(self.work.parent):
                write_whole(path, content.getvalue())
        pair = (both[0], both[1])
        self._recent[batch] = pair
        while len(self._recent) > LATENT_BATCHES_IN_MEMORY:
            self._recent.popitem(last=False)
        return pair

    def _encode(self, batch: int) -> torch.Tensor:
        generator, config = self.generator, self.config
        rows = self.rows[batch * config.batch : (batch + 1) * config.batch]
        n_samples = generator.mel.image_samples
        audio = [self.decoded.audio(row) for row in rows]
        if config.repeat_short:
            audio = [
                np.resize(samples, n_samples) if len(samples) < n_samples else samples for samples in audio
            ]
        images, _ = audio_to_image(stack_padded(audio, n_samples).to(generator.device), generator.mel)
        clean = generator.to_latent(images)
        noisy = ddim_encode(
            generator.predict, clean, generator.schedule, config.steps, config.level, config.refinements
        )
        return torch.stack((noisy, clean)).cpu()


def mix_latents(
    noisy: tuple[torch.Tensor, torch.Tensor],
    clean: tuple[torch.Tensor, torch.Tensor],
    alpha: torch.Tensor,
    strategy: str,
    alpha_cumprod: float,
) -> torch.Tensor:
    """Both parents' latents, noisy and clean, mixed by `strategy`: [batch, channels, height, width]."""
    if strategy == "slerp":
        return slerp(*noisy, alpha)
    if strategy == "midpoint":
        return midpoint(*noisy)
    return decomposed(*noisy, alpha, *clean, alpha_cumprod)


def rms_db(audio: np.ndarray) -> float:
    """Root mean square level in dB of full scale."""
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) + 1e-20))


def at_level(audio: np.ndarray, target_db: float) -> tuple[np.ndarray, float]:
    """`audio` scaled to an RMS of `target_db`, or less where it would clip; and the gain in dB that was applied."""
    gain_db = target_db - rms_db(audio)
    peak = float(np.abs(audio).max())
    if peak > 0:
        gain_db = min(gain_db, float(20 * np.log10(PEAK_LIMIT / peak)))
    return (audio * 10 ** (gain_db / 20)).astype(np.float32), gain_db


class Renderer:
    """Turns pieces of a plan into dataset rows."""

    def __init__(
        self, plan: Plan, decoded: DecodedSource, generator: Generator, config: RenderConfig, work: Path
    ) -> None:
        self.plan, self.decoded, self.generator, self.config = plan, decoded, generator, config
        self.latents = ParentLatents(plan, decoded, generator, config, work)
        self.row_of = {clip.clip_id: row for row, clip in enumerate(decoded.source.clips)}
        timesteps = generator.schedule.timesteps(config.steps, config.level)
        self.alpha_cumprod = generator.schedule.alpha(timesteps[-1])

    def rows(self, begin: int, end: int) -> list[dict[str, Any]]:
        """Dataset rows of plan entries `begin` to `end` (a slice of at most one batch)."""
        planned = self.plan.clips[begin:end]
        audio = self.audio(planned)
        return [self._row(clip, samples) for clip, samples in zip(planned, audio, strict=True)]

    def images(self, planned: Sequence[PlannedClip]) -> torch.Tensor:
        """Mel images [len(planned), 1, n_mels, n_frames] of some planned clips, before cutting to length."""
        first = self.latents([clip.parents[0] for clip in planned])
        second = self.latents([clip.parents[1] for clip in planned])
        alpha = torch.tensor([clip.alpha for clip in planned])
        mixed = mix_latents(
            (first[0], second[0]), (first[1], second[1]), alpha, self.config.strategy, self.alpha_cumprod
        ).to(self.generator.device)
        clean = ddim_decode(
            self.generator.predict,
            mixed,
            self.generator.schedule,
            self.config.steps,
            self.config.level,
            self.config.eta,
            [clip.seed for clip in planned],
        )
        return self.generator.to_image(clean)

    def audio(self, planned: Sequence[PlannedClip]) -> list[np.ndarray]:
        """Audio of some planned clips, loudest mel bin at 0 dB, cut to the mean length of each one's parents."""
        seeds = [clip.seed for clip in planned]
        rendered = (
            image_to_audio(
                self.images(planned), self.generator.mel, seeds, self.config.griffin_lim_iterations
            )
            .cpu()
            .numpy()
        )
        lengths = [
            int(np.mean([len(self.decoded.audio(self.row_of[parent])) for parent in clip.parents]))
            for clip in planned
        ]
        return [samples[:length] for samples, length in zip(rendered, lengths, strict=True)]

    def _row(self, clip: PlannedClip, samples: np.ndarray) -> dict[str, Any]:
        longest = self.generator.mel.image_samples
        levels_db = [rms_db(self.decoded.audio(self.row_of[parent])[:longest]) for parent in clip.parents]
        audio, gain_db = at_level(samples, (1 - clip.alpha) * levels_db[0] + clip.alpha * levels_db[1])
        return {
            "clip_id": clip.clip_id,
            "audio": {
                "bytes": encode_flac(audio, self.generator.mel.sample_rate_hz),
                "path": f"{clip.clip_id}.flac",
            },
            "label": clip.label,
            "group": clip.clip_id,
            "fold": clip.fold,
            "parents": list(clip.parents),
            "parent_groups": list(clip.parent_groups),
            "parent_folds": list(clip.parent_folds),
            "strategy": self.config.strategy,
            "alpha": 0.5 if self.config.strategy == "midpoint" else clip.alpha,
            "seed": clip.seed,
            "steps": self.config.steps,
            "model": self.generator.model_id,
            "gain_db": round(gain_db, 4),
            "judge_score": None,
        }
