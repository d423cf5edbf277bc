"""The plan rendered: parents encoded once, mixed, decoded, turned into audio at their loudness.

Every batch is a fixed piece of the plan: parents are numbered by first use and encoded in fixed groups, shards are
decoded in fixed slices. A run that was interrupted therefore repeats the very same batches and ends with the same
bytes as one that was not.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from usk.audio.mel import audio_to_image, stack_padded
from usk.audio.vocoder import image_to_audio
from usk.data.decode import DecodedSource, beginning
from usk.diffusion.load import Generator
from usk.errors import ModelError, disk_errors
from usk.files import atomic_write
from usk.synth.clip_renderer import ClipRenderer
from usk.synth.plan import Plan, PlannedClip
from usk.synth.settings import RenderConfig
from usk.synth.strategies import Ingredients, strategy_named

AUTO_BATCH = {"cuda": 64, "cpu": 16}
LATENTS_IN_MEMORY_BYTES = 128 * 2**20
LATENTS_ON_DISK_BYTES = 8 * 2**30
MIXING_STREAM = 0x6D6978  # keeps the noise that is mixed in apart from the noise of eta and of the phase

Result = TypeVar("Result")


class Stages:
    """Seconds spent in each stage of rendering, for benchmarks; `synchronize` waits for the device first."""

    def __init__(self, synchronize: Callable[[], None] = lambda: None) -> None:
        self.synchronize = synchronize
        self.spent_s: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.synchronize()
        self.spent_s[name] += time.perf_counter() - started


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
                        "--model: out of memory even one clip at a time; use a smaller model, or --device cpu"
                    ) from error
                self.batch = max(1, min(self.batch, end - begin) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            begin = end
        return done


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def widths(n_frames: int, multiple: int) -> list[int]:
    """The widths in frames that images are cropped to: a quarter, half, three quarters, all; multiples of `multiple`."""
    quarters = (-(-n_frames * quarter // (4 * multiple)) * multiple for quarter in (1, 2, 3, 4))
    return sorted({min(n_frames, width) for width in quarters})


def batch_of(config: RenderConfig, device: torch.device) -> int:
    """Clips that are rendered together, until they do not fit."""
    return config.batch or AUTO_BATCH.get(device.type, AUTO_BATCH["cpu"])


class ParentLatents:
    """Parents' latents, encoded in fixed batches on first use and kept on disk beside the plan.

    Each parent is encoded as wide as the widest of its clips. What is beyond `LATENTS_ON_DISK_BYTES` is dropped, least
    recently used first, and encoded again if it is needed.
    """

    def __init__(
        self,
        rows_of_width: dict[int, list[int]],
        decoded: DecodedSource,
        generator: Generator,
        config: RenderConfig,
        work: Path,
        batch: int,
        pieces: Pieces,
        stages: Stages,
    ) -> None:
        """`rows_of_width`: the parents' rows in `decoded` by their image's width in frames, in order of first use."""
        self.rows_of_width, self.decoded, self.generator, self.config = (
            rows_of_width,
            decoded,
            generator,
            config,
        )
        self.work, self.batch, self.pieces, self.stages = work, batch, pieces, stages
        self.strategy = strategy_named(config.strategy)
        self.place = {
            row: (width, index) for width, rows in rows_of_width.items() for index, row in enumerate(rows)
        }
        self._recent: OrderedDict[Path, torch.Tensor] = OrderedDict()
        self._on_disk: OrderedDict[Path, int] = OrderedDict()

    def __call__(self, rows: Sequence[int], width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(noisy, clean) latents of the parents at `rows`, cut to `width` frames: each [len(rows), channels, height,
        latent width] on the device."""
        pairs = []
        for row in rows:
            parents_width, index = self.place[row]
            batch, place = divmod(index, self.batch)
            pairs.append(self._batch(parents_width, batch)[:, place, :, :, : self.latent_width(width)])
        both = torch.stack(pairs, dim=1).to(self.generator.device)
        return both[0], both[1]

    def audio(self, rows: Sequence[int], width: int) -> torch.Tensor:
        """The parents at `rows` as long as an image of `width` frames: [len(rows), samples]."""
        n_samples = self.generator.mel.samples_of(width)
        longest = self.generator.mel.image_samples
        clips = [beginning(self.decoded.audio(row), longest) for row in rows]
        if self.config.repeat_short:
            clips = [np.resize(clip, n_samples) if len(clip) < n_samples else clip for clip in clips]
        return stack_padded(clips, n_samples)

    def encodings(
        self, rows: Sequence[Sequence[int]], weights: torch.Tensor, width: int
    ) -> torch.Tensor | None:
        """What a conditional generator is told of clips mixed from the parents at `rows` [parents][batch] with `weights`
        [batch, parents]: their encodings mixed like their signal, [batch, n, dimensions]. None for other generators."""
        if self.generator.encoder is None:
            return None
        encoded = [self.generator.encodings(self.audio(of_side, width)) for of_side in rows]
        together = torch.stack([encoding for encoding in encoded if encoding is not None])
        return torch.einsum("kb...,bk->b...", together, weights.to(together))

    def latent_width(self, width: int) -> int:
        """An image's width in frames as its latents'."""
        return width * self.generator.latent_shape[2] // self.generator.mel.n_frames

    def _batch(self, width: int, batch: int) -> torch.Tensor:
        """(noisy, clean) of one batch of parents: [2, parents, channels, height, latent width] on the CPU."""
        path = self.work / f"latents-{width}x{self.batch}-{batch:05d}.npy"
        if path in self._recent:
            self._recent.move_to_end(path)
            return self._recent[path]
        try:
            both = torch.from_numpy(np.load(path))
        except (OSError, ValueError, EOFError):
            with self.stages("encode"):
                both = self._encode(width, batch)
            content = io.BytesIO()
            np.save(content, both.numpy())
            with disk_errors(self.work.parent):
                atomic_write(path, content.getvalue(), durable=False)
        self._on_disk[path] = both.nbytes
        self._on_disk.move_to_end(path)
        while sum(self._on_disk.values()) > LATENTS_ON_DISK_BYTES and len(self._on_disk) > 1:
            self._on_disk.popitem(last=False)[0].unlink(missing_ok=True)
        self._recent[path] = both
        while (
            sum(kept.nbytes for kept in self._recent.values()) > LATENTS_IN_MEMORY_BYTES
            and len(self._recent) > 1
        ):
            self._recent.popitem(last=False)
        return both

    def _encode(self, width: int, batch: int) -> torch.Tensor:
        generator, config = self.generator, self.config
        rows = self.rows_of_width[width][batch * self.batch : (batch + 1) * self.batch]
        audio = self.audio(rows, width)
        names = [self.decoded.class_name(row) for row in rows] if config.condition_on_class else []

        def encode(piece: slice) -> torch.Tensor:
            images, _ = audio_to_image(audio[piece].to(generator.device), generator.mel)
            clean = generator.to_latent(images)
            noisy = clean
            if self.strategy.inverts:
                predict = generator.predictor(names[piece], encodings=generator.encodings(audio[piece]))
                noisy = config.sampler.up(predict, clean, generator.schedule)
            return torch.stack((noisy, clean)).cpu()

        return torch.cat(self.pieces.run(len(rows), encode), dim=1)


class DiffusionRenderer(ClipRenderer):
    """Makes clips through a generator."""

    def __init__(
        self,
        plan: Plan,
        decoded: DecodedSource,
        generator: Generator,
        config: RenderConfig,
        work: Path,
        stages: Stages | None = None,
    ) -> None:
        config = config.resolved(bool(generator.class_names))
        super().__init__(plan, decoded, config, generator.model_id, generator.mel.image_samples)
        if self.strategy.mix is None:
            raise ValueError(f"{config.strategy} takes no generator")
        self.generator, self.mix = generator, self.strategy.mix
        self.stages = stages or Stages()
        self.batch = batch_of(config, generator.device)
        self.pieces = Pieces(self.batch)
        self.top = config.sampler.top(generator.schedule)
        width_of_parent: dict[int, int] = {}
        for clip in plan.clips:
            for parent in clip.parents:
                row = self.row_of[parent]
                width_of_parent[row] = max(width_of_parent.get(row, 0), self.width(clip))
        rows_of_width: dict[int, list[int]] = defaultdict(list)
        for row, width in width_of_parent.items():
            rows_of_width[width].append(row)
        self.latents = ParentLatents(
            rows_of_width, decoded, generator, config, work, self.batch, self.pieces, self.stages
        )

    def width(self, clip: PlannedClip) -> int:
        """Frames of the image that a clip is cut from."""
        mel = self.generator.mel
        if not self.config.crop:
            return mel.n_frames
        needed = min(mel.n_frames, -(-self.length(clip) // mel.hop_samples) + 1)
        return next(width for width in widths(mel.n_frames, self.generator.frame_multiple) if width >= needed)

    def batches(self, begin: int, end: int) -> list[list[int]]:
        """The plan's entries from `begin` to `end`, in batches of one width each."""
        of_width: dict[int, list[int]] = defaultdict(list)
        for index in range(begin, end):
            of_width[self.width(self.plan.clips[index])].append(index)
        return [
            indices[first : first + self.batch]
            for _, indices in sorted(of_width.items())
            for first in range(0, len(indices), self.batch)
        ]

    def audio(self, planned: Sequence[PlannedClip]) -> list[np.ndarray]:
        """Audio of planned clips of one width, loudest mel bin at 0 dB, cut to the mean length of each one's parents."""
        mel, iterations = self.generator.mel, self.config.griffin_lim_iterations

        def render(piece: slice) -> np.ndarray:
            some = planned[piece]
            images = self.images(some)
            with self.stages("mel to audio"):
                return image_to_audio(images, mel, [clip.seed for clip in some], iterations).cpu().numpy()

        rendered = np.concatenate(self.pieces.run(len(planned), render))
        return [samples[: self.length(clip)] for clip, samples in zip(planned, rendered, strict=True)]

    def images(self, planned: Sequence[PlannedClip]) -> torch.Tensor:
        """Mel images [len(planned), 1, n_mels, width] of planned clips of one width, before cutting to length."""
        generator, config = self.generator, self.config
        (width,) = {self.width(clip) for clip in planned}
        rows = [[self.row_of[clip.parents[side]] for clip in planned] for side in range(config.n_parents)]
        parents = [self.latents(of_side, width) for of_side in rows]
        weights = torch.tensor([clip.weights for clip in planned], device=generator.device)
        shape = (*generator.latent_shape[:2], self.latents.latent_width(width))
        with self.stages("mix"):
            mixed = self.mix(
                Ingredients(
                    noisy=torch.stack([noisy for noisy, _ in parents]),
                    clean=torch.stack([clean for _, clean in parents]),
                    weights=weights,
                    fresh=_gaussian([clip.seed ^ MIXING_STREAM for clip in planned], shape).to(
                        generator.device
                    ),
                    alpha_cumprod=self.top,
                )
            )
        names = [self.plan.class_names[clip.label] for clip in planned] if config.condition_on_class else []
        assert config.guidance is not None  # resolved
        predict = generator.predictor(names, config.guidance, self.latents.encodings(rows, weights, width))
        with self.stages("decode"):
            seeds = [clip.seed for clip in planned]
            decoded = generator.to_image(
                config.sampler.down(predict, mixed, generator.schedule, config.eta, seeds)
            )
        if not torch.isfinite(decoded).all():  # clamping leaves NaN as it is
            raise ModelError(
                f"--model {generator.model_id} makes images that are no numbers: its weights are damaged, or do not bear "
                f"{generator.precision}; name another generator, or try --precision fp32"
            )
        return decoded


def _gaussian(seeds: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Unit Gaussian noise [len(seeds), *shape], each item from its own seed."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
