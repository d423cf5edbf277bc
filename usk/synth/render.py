"""The plan rendered: parents encoded once, mixed, decoded, turned into audio at their loudness.

Every batch is a fixed piece of the plan, so that a run that was interrupted ends with the same bytes as one that was not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from usk.data.clip import NO_MODEL
from usk.data.decode import DecodedSource
from usk.device import to_device
from usk.diffusion import interpolate
from usk.diffusion.fast import repays_compiling
from usk.diffusion.generator import Condition, Generator
from usk.errors import ModelError
from usk.synth.chosen_generator import with_a_part
from usk.synth.clip_renderer import ClipRenderer
from usk.synth.latents import ParentLatents
from usk.synth.plan import Plan, PlannedClip
from usk.synth.settings import RenderConfig
from usk.synth.strategies import Ingredients

AUTO_BATCH = {"cuda": 64, "cpu": 16}
# Of a batch, to noise or back: a minute of two cores, of 140 to 180 GFLOP/s in float32
BATCH_FLOP_ON_CPU = 1e13
SILENT_RMS = 1e-6  # what is softer is not brought to the level of others
MIXING_STREAM = 0x6D6978  # keeps the noise that is mixed in apart from the noise of eta and of the phase

Result = TypeVar("Result")


class Pieces:
    """Work on batches, in smaller pieces once a batch did not fit into memory."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def run(self, n: int, work: Callable[[slice], Result]) -> list[Result]:
        """`work` on slices that cover `range(n)`. Raises ModelError if a single item does not fit."""
        done: list[Result] = []
        begin = 0
        while begin < n:
            end = min(begin + self.batch, n)  # `work` may find that less fits, for what comes next
            try:
                done.append(work(slice(begin, end)))
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                if self.batch == 1:
                    raise ModelError(
                        "out of memory even one clip at a time",
                        field="model",
                        hint="Use a smaller model, or the device cpu.",
                    ) from error
                self.batch = max(1, min(self.batch, end - begin) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            begin = end
        return done


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def batch_of(config: RenderConfig, generator: Generator) -> int:
    """Clips that are rendered together, until they do not fit.

    On a CPU large networks gain nothing from many of them: by default so few that a kill costs about a minute, but at least one.
    Network and settings alone decide it, since batches are what jobs are shared by.
    """
    most = AUTO_BATCH.get(generator.device.type, AUTO_BATCH["cpu"])
    if config.batch or generator.device.type == "cuda" or not config.row.samples:
        return config.batch or most
    up, down = config.sampler.evaluations(config.row.inverts)
    evaluations = max(up, down if config.guidance == 1.0 else 2 * down)
    flop = evaluations * generator.flop(generator.crop(generator.longest_samples))
    fits = int(BATCH_FLOP_ON_CPU / flop) if flop else most
    return min(most, 1 << max(1, fits).bit_length() - 1)


class DiffusionRenderer(ClipRenderer):
    """Makes clips through a generator."""

    def __init__(
        self,
        plan: Plan,
        decoded: DecodedSource,
        generator: Generator,
        config: RenderConfig,
        work: Path,
        prompts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """`prompts`: by class, of generators that take them; the plan says which clip gets which."""
        config = config.resolved(generator.takes_classes)
        model_id = generator.model_id if with_a_part(generator, config) else NO_MODEL
        super().__init__(plan, decoded, config, model_id, generator.longest_samples)
        if self.strategy.mix is None:
            raise ValueError(f"{config.strategy} takes no generator")
        self.generator, self.mix = generator, self.strategy.mix
        self.batch = batch_of(config, generator)
        self.pieces = Pieces(self.batch)
        self.scales = generator.scales(config.sampler)
        crop_of_parent: dict[int, int] = {}
        for clip in plan.clips:
            for parent in clip.parents:
                row = self.row_of[parent]
                crop_of_parent[row] = max(crop_of_parent.get(row, 0), self.crop(clip))
        rows_of_crop: dict[int, list[int]] = defaultdict(list)
        for row, crop in crop_of_parent.items():
            rows_of_crop[crop].append(row)
        texts = [text for some in (prompts or {}).values() for text in some]
        crops = {*rows_of_crop, *map(self.crop, plan.clips)}
        generator.expect(texts, crops)
        up, down = config.sampler.evaluations(self.strategy.inverts) if self.strategy.samples else (0, 0)
        self.evaluations = up * len(crop_of_parent) + down * len(plan) * (1 if config.guidance == 1.0 else 2)
        if repays_compiling(generator.device, self.evaluations, len(crops)):
            self.generator = generator = generator.compiled()
        self.latents = ParentLatents(self, rows_of_crop, work, prompts or {})

    def crop(self, clip: PlannedClip) -> int:
        """Samples of the audio that a clip is cut from."""
        return self.generator.crop(self.length(clip) if self.config.crop else self.generator.longest_samples)

    def batches(self, begin: int, end: int) -> list[list[int]]:
        """The plan's entries from `begin` to `end`, in batches of one crop each."""
        of_crop: dict[int, list[int]] = defaultdict(list)
        for index in range(begin, end):
            of_crop[self.crop(self.plan.clips[index])].append(index)
        return [
            indices[first : first + self.batch]
            for _, indices in sorted(of_crop.items())
            for first in range(0, len(indices), self.batch)
        ]

    def audio(self, planned: Sequence[PlannedClip]) -> list[np.ndarray]:
        """Audio of planned clips of one crop, cut to the mean length of each one's parents."""

        def render(piece: slice) -> np.ndarray:
            some = planned[piece]
            latents = self.sampled(some)
            seeds, iterations = [clip.seed for clip in some], self.config.griffin_lim_iterations
            source = self.source(some) if self.config.phase == "parents" else None
            return self.generator.decode(latents, seeds, iterations, source).cpu().numpy()

        rendered = np.concatenate(self.pieces.run(len(planned), render))
        if not np.isfinite(rendered).all():
            raise ModelError(
                f"makes audio that is not a number (NaN): its weights are damaged, or do not support {self.generator.precision}",
                field="model", value=self.generator.model_id, hint="Name another generator, or use precision fp32.",
            )  # fmt: skip
        return [samples[: self.length(clip)] for clip, samples in zip(planned, rendered, strict=True)]

    def rows(self, planned: Sequence[PlannedClip]) -> list[list[int]]:
        """Rows of the parents in `decoded`: first parents of all clips, then second ones."""
        return [
            [self.row_of[clip.parents[side]] for clip in planned] for side in range(self.strategy.n_parents)
        ]

    def source(self, planned: Sequence[PlannedClip]) -> torch.Tensor:
        """Parents of one crop, brought to one level and summed by their weights: [len(planned), samples]."""
        (crop,) = {self.crop(clip) for clip in planned}
        parents = torch.stack([self.latents.audio(of_side, crop) for of_side in self.rows(planned)])
        level = parents.square().mean(dim=2, keepdim=True).sqrt().clamp_min(SILENT_RMS)
        return torch.einsum("kbn,bk->bn", parents / level, torch.tensor([self.weights(c) for c in planned]))

    def sampled(self, planned: Sequence[PlannedClip]) -> torch.Tensor:
        """Clean latents [len(planned), *latent shape] of planned clips of one crop."""
        generator, config = self.generator, self.config
        (crop,) = {self.crop(clip) for clip in planned}
        rows = self.rows(planned)
        noisy = clean = torch.empty(len(rows), 0)
        if self.strategy.encodes:
            of_all = self.latents([row for of_side in rows for row in of_side], crop)
            noisy, clean = (latents.unflatten(0, (len(rows), -1)) for latents in of_all)
        weights = torch.tensor([clip.weights for clip in planned], device=generator.device)

        def fresh() -> torch.Tensor:
            seeds = [clip.seed ^ MIXING_STREAM for clip in planned]
            return to_device(_gaussian(seeds, generator.latent_shape(crop)), generator.device)

        mixed = self.mix(interpolate, Ingredients(noisy, clean, weights, fresh, self.scales))
        if not self.strategy.samples:
            return mixed
        assert config.guidance is not None  # resolved
        on_audio = generator.conditioned_on_audio
        condition = Condition(
            [clip.prompt or self.plan.class_names[clip.label] for clip in planned]
            if config.condition_on_class
            else [],
            config.guidance,
            torch.stack([self.latents.audio(of_side, crop) for of_side in rows]) if on_audio else None,
            weights,
        )
        seeds = [clip.seed for clip in planned]
        return generator.sample(mixed, config.sampler, condition, config.eta, seeds)


def _gaussian(seeds: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Unit Gaussian noise [len(seeds), *shape], each item from its own seed.

    Drawn on the CPU, the same for every device: 0.4 ms for a clip of 256 x 192, whose 20 evaluations take 90 ms on an H200.
    """
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
