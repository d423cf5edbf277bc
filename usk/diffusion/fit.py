"""Train a generator on mel images: a UNet, or a small VAE and a UNet on its latents.

The loop draws everything that is random at step k (clips, shifts, timesteps, noise) from a generator seeded by
(seed, k), so that a run resumed from a checkpoint goes on exactly as if it had never stopped.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.data.decode import DecodedSource, Progress, decode_source
from usk.data.licenses import strictest_license
from usk.data.sources import Source
from usk.data.splits import held_out_groups
from usk.device import autocast, default_precision, resolve_device
from usk.diffusion.ddim import NoiseSchedule, ddim_decode, ddim_encode
from usk.diffusion.interpolate import decomposed
from usk.diffusion.load import (
    TRAINED_ON_FILE,
    VAE_SCALE,
    Generator,
    frame_multiple,
    quiet_libraries,
)
from usk.errors import UsageError
from usk.mel.spectrogram import MelSettings, audio_to_image, stack_padded

CHECKPOINT = "checkpoint.pt"
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
"""Of images [batch, 1, n_mels, n_frames], labels [batch], and what to draw noise from."""
EMBEDDED_MEL = MelSettings(n_fft=2_048, hop_samples=552, n_mels=64, n_frames=160)
"""One image of 4 s at 22.05 kHz: 64 bands, a frame each 25 ms."""


@dataclass(frozen=True)
class FitConfig:
    """How a generator is trained. The network's width and depth are multiples that a laptop can train."""

    steps: int = 4_000
    minutes: float | None = None  # stop after this long instead of after `steps`
    batch: int = 16
    learning_rate: float = 4e-4
    ema_decay: float = 0.999
    channels: tuple[int, ...] = (32, 64, 128, 192)
    layers_per_block: int = 1
    latent: bool = False
    latent_channels: int = 4
    class_conditional: bool = False  # the UNet is told each clip's class
    class_dropout: float = 0.15  # how often it is not, so that it works without one too (arXiv 2207.12598)
    prediction_type: str = "v_prediction"
    beta_schedule: str = "squaredcos_cap_v2"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    checkpoint_every_s: float = 120.0
    validate_every: int = 250


@dataclass(frozen=True)
class FitProgress:
    """What the training loop reports after a step."""

    stage: str
    step: int
    done: float  # share of the whole, 0 to 1
    loss: float
    validation_loss: float | None
    elapsed_s: float


def build_unet(config: FitConfig, shape: tuple[int, int, int], n_classes: int = 0) -> torch.nn.Module:
    """A diffusers `UNet2DModel` for latents of `shape` (channels, height, width), attention at the lowest level.

    With `n_classes` it takes class labels; label `n_classes` means none given.
    """
    from diffusers import UNet2DModel  # type: ignore[attr-defined,unused-ignore]

    depth = len(config.channels)
    halvings = 2 ** (depth - 1)
    if shape[1] % halvings or shape[2] % halvings:
        raise UsageError(
            f"images of {shape[1]} x {shape[2]} cannot be halved {depth - 1} times; use fewer channel levels"
        )
    return UNet2DModel(
        sample_size=shape[1:],
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=config.layers_per_block,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D",) * (depth - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (depth - 1),
        norm_num_groups=math.gcd(8, config.channels[0]),
        attention_head_dim=min(32, config.channels[-1]),
        num_class_embeds=n_classes + 1 if n_classes else None,
    )


def build_vae(config: FitConfig, mel: MelSettings) -> torch.nn.Module:
    """A small `AutoencoderKL` that halves both axes twice."""
    from diffusers import AutoencoderKL  # type: ignore[attr-defined,unused-ignore]

    width = config.channels[0]
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=config.latent_channels,
        layers_per_block=1,
        block_out_channels=(width, width * 2, width * 2),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=math.gcd(8, width),
        sample_size=mel.n_mels,
        scaling_factor=VAE_SCALE,
    )


@dataclass(frozen=True)
class FitClips:
    """What is trained on: clips as mel images, and what is known of each."""

    images: np.ndarray  # float16 [n, n_mels, n_frames] in [-1, 1]
    frames: np.ndarray  # int [n]: how many frames of its image a clip fills
    labels: np.ndarray  # int [n]: its class
    held_out: np.ndarray  # bool [n]: it only measures the validation loss
    class_names: tuple[str, ...]

    def __getitem__(self, rows: np.ndarray) -> FitClips:
        return FitClips(
            self.images[rows], self.frames[rows], self.labels[rows], self.held_out[rows], self.class_names
        )

    def __len__(self) -> int:
        return len(self.images)

    def image(self, row: int, shift: int | None = None) -> np.ndarray:
        """One image [n_mels, n_frames]; with `shift`, the clip repeated to fill it and rolled in time by as much."""
        image = self.images[row]
        if shift is None:
            return image
        order = (np.arange(image.shape[1]) + shift) % max(1, int(self.frames[row]))
        return image[:, order]


class Fitting:
    """One training run in `out`: checkpointed, resumable, and at its end a pipeline folder."""

    def __init__(self, clips: FitClips, mel: MelSettings, config: FitConfig, out: Path) -> None:
        """`out` takes checkpoints, a preview and the result."""
        self.config, self.mel, self.out = config, mel, out
        self.device = resolve_device(config.device)
        self.training, self.held_out = clips[~clips.held_out], clips[clips.held_out]
        self.class_names = clips.class_names if config.class_conditional else ()
        self.log: list[dict[str, Any]] = []
        self.steps_done = 0  # of the UNet
        torch.manual_seed(config.seed)
        with quiet_libraries():
            self.vae: Any = build_vae(config, mel).to(self.device) if config.latent else None
            shape = (1, mel.n_mels, mel.n_frames)
            if self.vae is not None:
                shape = (config.latent_channels, mel.n_mels // 4, mel.n_frames // 4)
            self.unet = build_unet(config, shape, len(self.class_names)).to(self.device)
            self.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.shape = shape
        self.scheduler_config = {
            "num_train_timesteps": 1000,
            "beta_schedule": config.beta_schedule,
            "clip_sample": self.vae is None,
            "clip_sample_range": 1.0,
            "prediction_type": config.prediction_type,
            "set_alpha_to_one": True,
            "steps_offset": 0,
        }
        self.schedule = NoiseSchedule.from_config(self.scheduler_config)
        self.precision = config.precision
        if self.precision == "auto":
            self.precision = self._faster_precision()

    def _faster_precision(self) -> str:
        """bf16 or fp32, by timing a training step of each: on some CPUs bf16 is slower."""
        if default_precision(self.device) == "fp32":
            return "fp32"
        noisy = torch.randn(self.config.batch, *self.shape, device=self.device)
        labels = torch.zeros(len(noisy), dtype=torch.long, device=self.device) if self.class_names else None
        took_s: dict[str, list[float]] = {"bf16": [], "fp32": []}
        for precision in (
            "bf16",
            "fp32",
        ) * 3:  # the best of three: other work on the machine disturbs single ones
            start = time.perf_counter()
            with autocast(self.device, precision):
                loss = self.unet(noisy, 10, labels, return_dict=False)[0].float().square().mean()
            loss.backward()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            took_s[precision].append(time.perf_counter() - start)
        self.unet.zero_grad(set_to_none=True)
        return min(took_s, key=lambda precision: min(took_s[precision]))

    def run(self, report: Callable[[FitProgress], None] = lambda _: None) -> list[dict[str, Any]]:
        """Train to the end (from the checkpoint, if there is one) and return the validation log."""
        if self.vae is not None:
            self._loop("vae", self.vae, self._vae_loss, 0.0, 0.4, report)
            self.vae = self.vae.eval().requires_grad_(False)
            self._scale_vae()
            self._loop("unet", self.unet, self._unet_loss, 0.4, 1.0, report)
        else:
            self._loop("unet", self.unet, self._unet_loss, 0.0, 1.0, report)
        return self.log

    def _scale_vae(self) -> None:
        """Rescale the VAE's bottleneck so that audiodiffusion's fixed factor 0.18215 gives latents of unit variance."""
        assert self.vae is not None
        probe = torch.from_numpy(self.training.images[:256].astype(np.float32))[:, None].to(self.device)
        with torch.no_grad():
            factor = float(1.0 / (VAE_SCALE * self.vae.encode(probe).latent_dist.mode().std()))
            n = self.config.latent_channels
            self.vae.quant_conv.weight[:n] *= factor
            self.vae.quant_conv.bias[:n] *= factor
            self.vae.post_quant_conv.weight /= factor

    def _loop(
        self,
        stage: str,
        network: torch.nn.Module,
        loss_of: Loss,
        begin: float,
        end: float,
        report: Callable[[FitProgress], None],
    ) -> None:
        config = self.config
        average = [parameter.detach().clone() for parameter in network.parameters()]
        optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.01)
        step, spent_s = 0, 0.0
        state = self._checkpoint(stage)
        if state is not None:
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            average = [tensor.to(self.device) for tensor in state["average"]]
            step, spent_s, self.log = state["step"], state["spent_s"], state["log"]
            self.precision = state.get("precision", self.precision)
        started, saved_at, validation = time.monotonic() - spent_s, time.monotonic(), None
        budget_s = math.inf if config.minutes is None else config.minutes * 60 * (end - begin)
        budget_steps = math.inf if config.minutes is not None else max(1, round(config.steps * (end - begin)))
        network.train()
        while True:
            share = max(step / budget_steps, (time.monotonic() - started) / budget_s)
            if share >= 1.0:
                break
            warm_up, cool_down = min(1.0, (step + 1) / 100), min(1.0, (1.0 - share) / 0.4)
            optimiser.param_groups[0]["lr"] = config.learning_rate * warm_up * max(cool_down, 0.02)
            draw = torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 2 + (stage == "unet"))
            loss = loss_of(*self._batch(draw), draw)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            step += 1
            decay = min(config.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(average, [p.detach() for p in network.parameters()], 1 - decay)
            if step % config.validate_every == 0:
                validation = self._validate(network, average, loss_of)
                self.log.append(
                    {
                        "stage": stage,
                        "step": step,
                        "elapsed_s": round(time.monotonic() - started, 1),
                        "loss": round(float(loss.detach()), 5),
                        "validation_loss": round(validation, 5),
                    }
                )
            report(
                FitProgress(
                    stage,
                    step,
                    begin + (end - begin) * min(share, 1.0),
                    float(loss.detach()),
                    validation,
                    time.monotonic() - started,
                )
            )
            if time.monotonic() - saved_at > config.checkpoint_every_s:
                self._save(stage, network, optimiser, average, step, time.monotonic() - started)
                saved_at = time.monotonic()
        self.steps_done = step
        with torch.no_grad():
            for parameter, mean in zip(network.parameters(), average, strict=True):
                parameter.copy_(mean)
        self._save(stage, network, optimiser, average, step, time.monotonic() - started)
        network.eval()

    def _batch(self, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Random training images [batch, 1, n_mels, n_frames] and the labels to train them under [batch].

        Half of the clips begin where they begin and end in silence if they are short; the others are repeated and
        rolled in time, as `usk synth` repeats short parents.
        """
        n = self.config.batch
        rows = torch.randint(len(self.training), (n,), generator=draw).tolist()
        shifts = torch.randint(self.mel.n_frames, (n,), generator=draw).tolist()
        rolled = (torch.rand(n, generator=draw) < 0.5).tolist()
        images = [
            self.training.image(row, shift if roll else None)
            for row, shift, roll in zip(rows, shifts, rolled, strict=True)
        ]
        labels = torch.from_numpy(self.training.labels[rows])
        labels[torch.rand(n, generator=draw) < self.config.class_dropout] = len(self.class_names)
        batch = torch.from_numpy(np.stack(images).astype(np.float32))[:, None]
        return batch.to(self.device), labels.to(self.device)

    def _unet_loss(self, images: torch.Tensor, labels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Mean squared error of the network's output, timesteps spread evenly over the batch (low-discrepancy)."""
        if self.vae is not None:
            with torch.no_grad():
                images = VAE_SCALE * self.vae.encode(images).latent_dist.mode()
        n = len(images)
        offsets = (torch.arange(n) + torch.rand(1, generator=draw)) / n
        timesteps = (offsets * self.schedule.n_train).long().clamp_max(self.schedule.n_train - 1)
        alpha = self.schedule.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1).to(self.device)
        noise = torch.randn(images.shape, generator=draw).to(self.device)
        noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
        with autocast(self.device, self.precision):
            output = self.unet(
                noisy.to(memory_format=torch.channels_last),
                timesteps.to(self.device),
                labels if self.class_names else None,
                return_dict=False,
            )[0]
        target = {
            "epsilon": noise,
            "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * images,
            "sample": images,
        }[self.config.prediction_type]
        return (output.float() - target).square().mean()

    def _vae_loss(self, images: torch.Tensor, labels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Reconstruction in L1 and a weak pull of the posterior to a unit Gaussian."""
        assert self.vae is not None
        with autocast(self.device, self.precision):
            posterior = self.vae.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=draw).to(self.device)
            rebuilt = self.vae.decode(posterior.mean + posterior.std * noise).sample
        return (rebuilt.float() - images).abs().mean() + 1e-6 * posterior.kl().float().mean()

    def _validate(self, network: torch.nn.Module, average: list[torch.Tensor], loss_of: Loss) -> float:
        """Loss of the averaged weights on held-out recordings, with the same noise every time."""
        if not len(self.held_out):
            return math.nan
        current = [parameter.detach().clone() for parameter in network.parameters()]
        losses = []
        with torch.no_grad():
            for parameter, mean in zip(network.parameters(), average, strict=True):
                parameter.copy_(mean)
            order = torch.randperm(len(self.held_out), generator=torch.Generator().manual_seed(0)).numpy()
            for begin in range(0, min(len(order), 96), 32):
                some = self.held_out[order[begin : begin + 32]]
                images = torch.from_numpy(some.images.astype(np.float32))[:, None].to(self.device)
                labels = torch.from_numpy(some.labels).to(self.device)
                losses.append(float(loss_of(images, labels, torch.Generator().manual_seed(begin))))
            for parameter, value in zip(network.parameters(), current, strict=True):
                parameter.copy_(value)
        return float(np.mean(losses))

    def _checkpoint(self, stage: str) -> dict[str, Any] | None:
        path = self.out / f"{stage}-{CHECKPOINT}"
        if not path.is_file():
            return None
        return torch.load(path, map_location=self.device, weights_only=True)

    def _save(
        self,
        stage: str,
        network: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        average: list[torch.Tensor],
        step: int,
        spent_s: float,
    ) -> None:
        path = self.out / f"{stage}-{CHECKPOINT}"
        partial = path.with_suffix(".part")
        torch.save(
            {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "step": step,
                "spent_s": spent_s,
                "log": self.log,
                "precision": self.precision,
            },
            partial,
        )
        partial.replace(path)

    def generator(self, model_id: str = "fitted") -> Generator:
        """The network as it stands, for previews."""
        return Generator(
            model_id=model_id,
            unet=self.unet.eval(),
            vae=self.vae,
            schedule=self.schedule,
            mel=self.mel,
            latent_shape=self.shape,
            device=self.device,
            precision=self.precision,
            class_names=self.class_names,
            frame_multiple=frame_multiple(self.unet, self.shape, self.mel),
        )

    def write_pipeline(self, folder: Path, trained_on: dict[str, Any]) -> None:
        """The pipeline folder in audio-diffusion's format, weights in float16 safetensors."""
        from diffusers import DDIMScheduler  # type: ignore[attr-defined,unused-ignore]

        with quiet_libraries():
            from audiodiffusion.mel import Mel

            folder.mkdir(parents=True, exist_ok=True)
            components = {"unet": self.unet, "vqvae": self.vae}
            for name, network in components.items():
                if network is not None:
                    half = network.to("cpu").half()
                    half.save_pretrained(folder / name)
                    network.float()
            DDIMScheduler(**self.scheduler_config).save_pretrained(folder / "scheduler")
            Mel(**self.mel.to_audiodiffusion()).save_pretrained(folder / "mel")
        (folder / TRAINED_ON_FILE).write_text(json.dumps(trained_on, indent=1) + "\n")
        (folder / "training.json").write_text(
            json.dumps(
                {
                    "config": asdict(self.config),
                    "precision": self.precision,
                    "steps": self.steps_done,
                    "log": self.log,
                },
                indent=1,
            )
            + "\n"
        )
        index: dict[str, Any] = {
            "_class_name": "AudioDiffusionPipeline",
            "mel": ["audiodiffusion.mel", "Mel"],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
            "vqvae": ["diffusers", "AutoencoderKL"] if self.vae is not None else [None, None],
        }
        if self.class_names:  # as diffusers' class-conditional DiTPipeline keeps them
            index["id2label"] = dict(enumerate(self.class_names))
        # Last: a folder with an index is finished, and its groups are known.
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def preview(
    generator: Generator, images: np.ndarray, path: Path, steps: int = 25, level: float = 0.6
) -> None:
    """A PNG: for up to four pairs of images, rows of first parent, its round trip, the mix, and the second parent."""
    from PIL import Image

    pairs = min(4, len(images) // 2)
    if pairs < 1:
        return
    clean = generator.to_latent(
        torch.from_numpy(images[: 2 * pairs].astype(np.float32))[:, None].to(generator.device)
    )
    noisy = ddim_encode(generator.predict, clean, generator.schedule, steps, level)
    half = torch.full((pairs,), 0.5)
    top = generator.schedule.alpha(generator.schedule.timesteps(steps, level)[-1])
    mixed = decomposed(noisy[0::2], noisy[1::2], half, clean[0::2], clean[1::2], top)
    down = ddim_decode(generator.predict, torch.cat((noisy[0::2], mixed)), generator.schedule, steps, level)
    back = generator.to_image(down)
    rows = [generator.to_image(clean[0::2]), back[:pairs], back[pairs:], generator.to_image(clean[1::2])]
    grid = torch.cat([torch.cat([image[0].flip(0) for image in row], dim=1) for row in rows], dim=0)
    pixels = ((grid.cpu().numpy() + 1) * 127.5).round().astype(np.uint8)
    Image.fromarray(pixels).resize((pixels.shape[1] * 2, pixels.shape[0] * 2)).save(path)


@dataclass(frozen=True)
class FitResult:
    """Where the fitted generator is, and how its validation loss went."""

    folder: Path
    log: list[dict[str, Any]]
    trained_on: dict[str, Any]


def images_of(
    decoded: DecodedSource, mel: MelSettings, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mel images float16 [n, n_mels, n_frames] of every clip's beginning, and how many frames each fills [n]."""
    images = np.zeros((len(decoded), mel.n_mels, mel.n_frames), dtype=np.float16)
    frames = np.zeros(len(decoded), dtype=np.int64)
    for begin in range(0, len(decoded), 64):
        rows = range(begin, min(begin + 64, len(decoded)))
        audio = [decoded.audio(row) for row in rows]
        batch, _ = audio_to_image(stack_padded(audio, mel.image_samples), mel)
        images[begin : begin + len(audio)] = batch[:, 0].numpy()
        frames[begin : begin + len(audio)] = [
            mel.n_frames
            if len(samples) >= 0.97 * mel.image_samples
            else max(1, len(samples) // mel.hop_samples)
            for samples in audio
        ]
        if progress is not None:
            progress(begin + len(audio), len(decoded))
    return images, frames


def fit(
    sources: Sequence[Source],
    out: str | os.PathLike[str],
    config: FitConfig | None = None,
    *,
    folds: Sequence[int] = (),
    mel: MelSettings = EMBEDDED_MEL,
    skip_bad: bool = False,
    report: Callable[[FitProgress], None] = lambda _: None,
    decoding: Progress | None = None,
) -> FitResult:
    """Train a generator on the clips of `sources` (of `folds` alone, where given) and write its pipeline folder.

    Recordings held out by `usk.data.splits.held_out_groups` only measure the validation loss. Called again with
    the same folder after an interruption it goes on from the last checkpoint; a folder made with another
    configuration is refused with UsageError.
    """
    config = config or FitConfig()
    resolve_device(config.device)  # before anything is decoded or written
    root = Path(out)
    parts: list[dict[str, Any]] = []
    clips: list[FitClips] = []
    class_names = tuple(dict.fromkeys(name for source in sources for name in source.class_names))
    for source in sources:
        everything = decode_source(source, mel.sample_rate_hz, skip_bad=skip_bad, progress=decoding)
        chosen = {clip.clip_id for clip in everything.source.select(folds=folds or None).clips}
        decoded = everything.subset(
            [row for row, clip in enumerate(everything.source.clips) if clip.clip_id in chosen]
        )
        held = held_out_groups(decoded.source.clips)
        images, frames = images_of(decoded, mel)
        is_held = np.array([clip.group in held for clip in decoded.source.clips])
        labels = [class_names.index(source.class_names[clip.label]) for clip in decoded.source.clips]
        clips.append(FitClips(images, frames, np.array(labels), is_held, class_names))
        parts.append(
            {
                "source": source.name,
                "revision": source.revision,
                "license": source.license,
                "folds": sorted(folds) if folds else list(source.folds),
                "clips": int((~is_held).sum()),
                "groups": sorted({clip.group for clip in decoded.source.clips} - held),
                "held_out_groups": sorted(held),
            }
        )
    if not any(part["clips"] for part in parts):
        raise UsageError("there are no clips to train on")
    trained_on = {"license": strictest_license([source.license for source in sources]), "sources": parts}
    try:
        root.mkdir(parents=True, exist_ok=True)
        _claim(root, config, mel, parts)
    except OSError as error:
        raise UsageError(
            f"--out {root} cannot be written ({error.strerror}); choose another folder"
        ) from error
    together = FitClips(
        np.concatenate([part.images for part in clips]),
        np.concatenate([part.frames for part in clips]),
        np.concatenate([part.labels for part in clips]),
        np.concatenate([part.held_out for part in clips]),
        class_names,
    )
    fitting = Fitting(together, mel, config, root)
    log = fitting.run(report)
    held_images = (fitting.held_out if len(fitting.held_out) else fitting.training).images
    shown = np.random.default_rng(config.seed).permutation(len(held_images))[:8]
    preview(fitting.generator(), held_images[shown].astype(np.float32), root / "preview.png")
    fitting.write_pipeline(root, trained_on)
    for checkpoint in root.glob(f"*-{CHECKPOINT}"):
        checkpoint.unlink()
    return FitResult(root, log, trained_on)


def _claim(root: Path, config: FitConfig, mel: MelSettings, parts: list[dict[str, Any]]) -> None:
    """Write down what this folder is being fitted with, or check that it is the same as last time."""
    wanted = json.loads(json.dumps({"config": asdict(config), "mel": mel.as_dict(), "sources": parts}))
    path = root / "fit.json"
    if path.is_file():
        try:
            same = json.loads(path.read_text(encoding="utf-8")) == wanted
        except ValueError:
            same = False
        if not same:
            raise UsageError(
                f"--out {root} holds a generator fitted with other settings or clips; choose a new folder"
            )
        if (root / "model_index.json").is_file():
            raise UsageError(f"--out {root} holds a finished generator; choose a new folder")
    elif any(entry.name != "fit.json.part" for entry in root.iterdir()):
        raise UsageError(f"--out {root} holds something else; choose a new or empty folder")
    else:
        partial = root / "fit.json.part"
        partial.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
