"""The loop that trains a generator's networks.

Everything that is random in micro-batch m of step k (clips, shifts, labels left out, timesteps, noise) is drawn from a
generator seeded by (seed, k, m). So a run resumed from a checkpoint goes on exactly as if it had never stopped, and it
does not matter whether one process computes the micro-batches of a step one after another or several at once.
"""

from __future__ import annotations

import functools
import io
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch

from usk.device import autocast, default_precision
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.mel_pipeline import VAE_SCALE, MelGenerator
from usk.diffusion.networks import Networks
from usk.diffusion.workers import Workers
from usk.errors import UsageError, UskError, disk_errors
from usk.files import TORN, atomic_write
from usk.replay import Replayed

CHECKPOINT = "checkpoint.pt"
VAE, UNET = "vae", "unet"  # the stages
VALIDATION_IMAGES = 96
SMALL_PARAMETERS = 30_000_000
"""Up to this size a step is recorded once and replayed on CUDA. Measured for 3.5 million (1.9 times as fast); a recorded step
keeps its memory, of which large networks have none to spare, and their arithmetic hides the launches anyway."""
RECORDABLE_BLOCKS = {
    f"{way}{kind}"
    for way in ("Down", "Up", "AttnDown", "AttnUp")
    for kind in ("Block2D", "EncoderBlock2D", "DecoderBlock2D")
}  # whose kernels wait for nothing from the CPU's memory; of others that is not known


class Stopped(UskError):
    """Ctrl-C or SIGTERM, after the checkpoint was written. The exit code is the shell's: 128 + the signal's number."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(
            f"stopped after step {step}; the checkpoint is written, and the same command goes on from there"
        )
        self.exit_code = 128 + signal_number


@dataclass(frozen=True)
class FitProgress:
    """What the training loop reports after a step."""

    stage: str
    step: int
    done: float  # share of the whole, 0 to 1
    loss: float
    validation_loss: float | None
    elapsed_s: float


@dataclass(frozen=True)
class FitClips:
    """What is trained on: clips as mel images, and what is known of each."""

    images: np.ndarray  # float16 [n, n_mels, n_frames] in [-1, 1]
    frames: np.ndarray  # int [n]: how many frames of its image a clip fills
    labels: np.ndarray  # int [n]: which of the class names the UNet is told; 0 if it is told none
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


class Drawn(NamedTuple):
    """A micro-batch, with everything that is random about it."""

    images: torch.Tensor  # [n, 1, n_mels, n_frames]
    labels: torch.Tensor  # int64 [n]; the number of classes where none is told
    timesteps: torch.Tensor  # int64 [n]
    noise: torch.Tensor  # [n, *latent shape]

    def to(self, device: torch.device) -> Drawn:
        return Drawn(*(tensor.to(device) for tensor in self))


class Best(NamedTuple):
    """The averaged weights that did best on held-out recordings so far."""

    loss: float
    step: int
    average: list[torch.Tensor]


Loss = Callable[[Drawn], torch.Tensor]
Learn = Callable[
    ..., torch.Tensor
]  # the tensors of a Drawn -> its loss, whose gradient is added to the network's


class Fitting:
    """One training run in `out`: checkpointed, resumable, shared by all `workers`."""

    def __init__(
        self, clips: FitClips, networks: Networks, config: FitConfig, out: Path, workers: Workers
    ) -> None:
        """`config` is a resolved one; `out` takes the checkpoints."""
        assert config.learning_rate is not None
        self.config, self.networks, self.out, self.workers = config, networks, out, workers
        self.learning_rate = config.learning_rate
        self.device = workers.device
        self._ahead: tuple[tuple[str, int, int], Drawn] | None = None
        self.training, self.held_out = clips[~clips.held_out], clips[clips.held_out]
        self.log: list[dict[str, Any]] = []
        self.steps_done = 0  # of the UNet
        self.kept_step = 0  # whose weights they are
        self.diverged_step: int | None = None  # where the UNet's loss was no number any more
        self.precision = config.precision
        if self.precision == "auto":
            bf16 = workers.greatest(self._faster_precision() == "bf16")[0]
            self.precision = "bf16" if bf16 else "fp32"

    def _faster_precision(self) -> str:
        """bf16 or fp32. On a CPU by timing a training step of each: on some of those that have it bf16 is slower."""
        if default_precision(self.device) == "fp32" or self.device.type == "cuda":
            return default_precision(self.device)
        unet = self.networks.unet
        noisy = torch.randn(self.config.batch, *self.networks.shape, device=self.device)
        labels = torch.zeros(len(noisy), dtype=torch.long) if self.networks.class_names else None
        took_s: dict[str, list[float]] = {"bf16": [], "fp32": []}
        for precision in ("bf16", "fp32") * 3:  # the best of three: other work disturbs single ones
            start = time.perf_counter()
            with autocast(self.device, precision):
                loss = unet(noisy, 10, labels, return_dict=False)[0].float().square().mean()
            loss.backward()
            took_s[precision].append(time.perf_counter() - start)
        unet.zero_grad(set_to_none=True)
        return min(took_s, key=lambda precision: min(took_s[precision]))

    @functools.cached_property
    def _alphas(self) -> torch.Tensor:
        """The schedule's share of signal at each timestep, on the device."""
        return self.networks.schedule.alphas_cumprod.to(self.device)

    def run(self, report: Callable[[FitProgress], None] = lambda _: None) -> list[dict[str, Any]]:
        """Train to the end (from the checkpoint, if there is one) and return the validation log.

        Raises Stopped after Ctrl-C or SIGTERM, with the checkpoint written, and UskError for a training that diverges
        before held-out recordings have chosen any weights.
        """
        with StopSignals(patient=self.workers.count > 1) as stop:
            begin = 0.0
            if self.networks.new_vae:
                begin = 0.4
                vae: Any = self.networks.vae
                self._loop(VAE, vae, self.vae_loss, 0.0, begin, report, stop)
                vae.requires_grad_(False)
                self._scale_vae()
            self._loop(UNET, self.networks.unet, self.unet_loss, begin, 1.0, report, stop)
        return self.log

    def _scale_vae(self) -> None:
        """Rescale the VAE's bottleneck so that audiodiffusion's fixed factor 0.18215 gives latents of unit variance."""
        vae: Any = self.networks.vae
        probe = torch.from_numpy(self.training.images[:256].astype(np.float32))[:, None].to(self.device)
        with torch.no_grad():
            factor = float(1.0 / (VAE_SCALE * vae.encode(probe).latent_dist.mode().std()))
            n = self.networks.shape[0]
            vae.quant_conv.weight[:n] *= factor
            vae.quant_conv.bias[:n] *= factor
            vae.post_quant_conv.weight /= factor

    def _loop(
        self,
        stage: str,
        network: Any,
        loss_of: Loss,
        begin: float,
        end: float,
        report: Callable[[FitProgress], None],
        stop: StopSignals,
    ) -> None:
        config = self.config
        average = [parameter.detach().clone() for parameter in network.parameters()]
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=self.learning_rate, weight_decay=0.01, fused=True
        )
        step, spent_s = 0, 0.0
        best: Best | None = None
        state = self._checkpoint(stage)
        if state is not None:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            average = [tensor.to(self.device) for tensor in state["average"]]
            step, spent_s, self.log = state["step"], state["spent_s"], state["log"]
            self.precision = state.get("precision", self.precision)
            if state.get("best") is not None:  # not there in checkpoints of an older usk
                least, its_step, tensors = state["best"]
                best = Best(least, its_step, [tensor.to(self.device) for tensor in tensors])
        self._check_same_start(step)
        started, saved_at = time.monotonic() - spent_s, time.monotonic()
        validation: float | None = None
        loss = math.nan

        def validate() -> None:
            nonlocal validation, best
            validation = self._validate(network, average, loss_of)
            if validation is not None and not math.isfinite(validation):
                validation = None
            self.log.append(
                {
                    "stage": stage,
                    "step": step,
                    "elapsed_s": round(time.monotonic() - started, 1),
                    "loss": None if math.isnan(loss) else round(loss, 5),
                    "validation_loss": None if validation is None else round(validation, 5),
                }
            )
            if stage == UNET and validation is not None and (best is None or validation < best.loss):
                best = Best(validation, step, [tensor.clone() for tensor in average])

        budget_s = math.inf if config.minutes is None else config.minutes * 60 * (end - begin)
        budget_steps = math.inf if config.minutes is not None else max(1, round(config.steps * (end - begin)))
        network.train()
        if config.checkpointing:
            network.enable_gradient_checkpointing()
        learn = self.learning(network, loss_of)
        while True:
            share = max(step / budget_steps, (time.monotonic() - started) / budget_s)
            share, stop_signal = self.workers.greatest(share, stop.number)
            if stop_signal:
                self._save(stage, network, optimizer, average, best, step, time.monotonic() - started)
                raise Stopped(step, int(stop_signal))
            if share >= 1.0:
                break
            warm_up, cool_down = min(1.0, (step + 1) / 100), min(1.0, (1.0 - share) / 0.4)
            optimizer.param_groups[0]["lr"] = self.learning_rate * warm_up * max(cool_down, 0.02)
            loss = self.gradients(stage, network, learn, step)
            if not math.isfinite(loss):
                self.diverged_step = step + 1
                if self.workers.greatest(self.workers.is_main and best is None)[0]:
                    raise UskError(
                        f"the training diverged in step {step + 1} (its loss is no number); choose a lower "
                        f"--learning-rate than {self.learning_rate:g}, and another --out"
                    )
                break
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            step += 1
            decay = min(config.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(average, [p.detach() for p in network.parameters()], 1 - decay)
            if not self.workers.is_main:
                continue
            if step % config.validate_every == 0:
                validate()
            report(
                FitProgress(
                    stage,
                    step,
                    begin + (end - begin) * min(share, 1.0),
                    loss,
                    validation,
                    time.monotonic() - started,
                )
            )
            if time.monotonic() - saved_at > config.checkpoint_every_s:
                self._save(stage, network, optimizer, average, best, step, time.monotonic() - started)
                saved_at = time.monotonic()
        if (
            self.workers.is_main
            and self.diverged_step is None
            and not any((row["stage"], row["step"]) == (stage, step) for row in self.log)
        ):
            validate()
        kept = best or Best(math.nan, step, average)
        self.steps_done, self.kept_step = step, kept.step
        with torch.no_grad():
            for parameter, mean in zip(network.parameters(), kept.average, strict=True):
                parameter.copy_(mean)
        self._save(stage, network, optimizer, average, best, step, time.monotonic() - started)
        if config.checkpointing:
            network.disable_gradient_checkpointing()
        _forget_gradients(network)
        network.eval()

    def learning(self, network: Any, loss_of: Loss) -> Learn:
        """How a micro-batch is learnt from: on CUDA, where the network is small, as one recorded launch."""
        accumulate = self.config.accumulate

        def learn(*drawn: torch.Tensor) -> torch.Tensor:
            loss = loss_of(Drawn(*drawn)) / accumulate
            loss.backward()
            return loss.detach()

        if self._recorded(network):
            return Replayed(learn, self.device)
        return learn

    def _recorded(self, network: Any) -> bool:
        if self.device.type != "cuda" or self.config.checkpointing:
            return False
        size = sum(parameter.numel() for parameter in network.parameters())
        blocks = {*network.config.down_block_types, *network.config.up_block_types}
        return size <= SMALL_PARAMETERS and blocks <= RECORDABLE_BLOCKS

    def gradients(self, stage: str, network: Any, learn: Learn, step: int) -> float:
        """Leave the gradient of step `step` in `network`: of the mean loss over all micro-batches of all processes.

        Returns: that mean loss.
        """
        before = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if before and isinstance(learn, Replayed):
            torch._foreach_zero_(before)  # where they are: a recorded step adds to them there
        else:
            _forget_gradients(network)
        accumulate = self.config.accumulate
        total = torch.zeros((), device=self.device)
        first = self.workers.rank * accumulate
        for micro in range(accumulate):
            drawn = self._next(stage, step, first + micro)
            torch.manual_seed(self._seed(stage, step, first + micro))  # dropout, where a base has it
            total += learn(*drawn.to(self.device))
            # While CUDA computes, which nothing waits for before the loss is asked for, the next one is drawn.
            following = (
                (stage, step, first + micro + 1) if micro + 1 < accumulate else (stage, step + 1, first)
            )
            self._ahead = (following, self.draw(*following))
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        self.workers.average([*gradients, total])
        return float(total)

    def _next(self, stage: str, step: int, part: int) -> Drawn:
        """What `draw` gives, which the step before has drawn."""
        if self._ahead is not None and self._ahead[0] == (stage, step, part):
            return self._ahead[1]
        return self.draw(stage, step, part)

    def _seed(self, stage: str, step: int, part: int) -> int:
        # torch's CPU generator keeps 32 bits of a seed. Multiples of this odd number (2^32 over the golden ratio) lie
        # far apart there: no two micro-batches of a run meet.
        return (self.config.seed * 1_000_003 + step) * 2 + (stage == UNET) + part * 0x9E3779B1

    def draw(self, stage: str, step: int, part: int) -> Drawn:
        """Micro-batch `part` of step `step`, in the CPU's memory.

        Half of the clips begin where they begin and end in silence if they are short; the others are repeated and
        rolled in time, as `usk synth` repeats short parents.
        """
        draw = torch.Generator().manual_seed(self._seed(stage, step, part))
        n, n_frames = self.config.batch, self.networks.mel.n_frames
        rows = torch.randint(len(self.training), (n,), generator=draw).tolist()
        shifts = torch.randint(n_frames, (n,), generator=draw).tolist()
        rolled = (torch.rand(n, generator=draw) < 0.5).tolist()
        images = [
            self.training.image(row, shift if roll else None)
            for row, shift, roll in zip(rows, shifts, rolled, strict=True)
        ]
        labels = torch.from_numpy(self.training.labels[rows])
        unconditioned = torch.rand(n, generator=draw) < self.config.class_dropout
        labels[unconditioned] = len(self.networks.class_names)
        return self._with_noise(np.stack(images), labels, draw)

    def _with_noise(self, images: np.ndarray, labels: torch.Tensor, draw: torch.Generator) -> Drawn:
        """Timesteps spread evenly over the batch (low-discrepancy), and noise, for images [n, n_mels, n_frames]."""
        n, n_train = len(images), self.networks.schedule.n_train
        offsets = (torch.arange(n) + torch.rand(1, generator=draw)) / n
        timesteps = (offsets * n_train).long().clamp_max(n_train - 1)
        noise = torch.randn((n, *self.networks.shape), generator=draw)
        batch = torch.from_numpy(images.astype(np.float32))[:, None]
        return Drawn(batch, labels, timesteps, noise)

    def unet_loss(self, drawn: Drawn) -> torch.Tensor:
        """Mean squared error of the UNet's output, which is noise, v or image as the schedule says."""
        images, labels, timesteps, noise = drawn
        schedule = self.networks.schedule
        if self.networks.vae is not None:
            with torch.no_grad():
                images = VAE_SCALE * self.networks.vae.encode(images).latent_dist.mode()
        alpha = self._alphas[timesteps].reshape(-1, 1, 1, 1)
        noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
        with autocast(self.device, self.precision):
            output = self.networks.unet(
                noisy.to(memory_format=torch.channels_last),
                timesteps,
                labels if self.networks.class_names else None,
                return_dict=False,
            )[0]
        target = {
            "epsilon": noise,
            "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * images,
            "sample": images,
        }[schedule.prediction_type]
        return (output.float() - target).square().mean()

    def vae_loss(self, drawn: Drawn) -> torch.Tensor:
        """Reconstruction in L1 and a weak pull of the posterior to a unit Gaussian."""
        vae: Any = self.networks.vae
        with autocast(self.device, self.precision):
            posterior = vae.encode(drawn.images).latent_dist
            rebuilt = vae.decode(posterior.mean + posterior.std * drawn.noise).sample
        return (rebuilt.float() - drawn.images).abs().mean() + 1e-6 * posterior.kl().float().mean()

    def _validate(self, network: Any, average: list[torch.Tensor], loss_of: Loss) -> float | None:
        """Loss of the averaged weights on held-out recordings, told their classes, with the same noise every time.

        None if no recordings are held out.
        """
        if not len(self.held_out):
            return None
        order = torch.randperm(len(self.held_out), generator=torch.Generator().manual_seed(0)).numpy()
        some = self.held_out[order[:VALIDATION_IMAGES]]
        drawn = self._with_noise(some.images, torch.from_numpy(some.labels), torch.Generator().manual_seed(0))
        current = [parameter.detach().clone() for parameter in network.parameters()]
        total, piece = 0.0, min(32, self.config.batch)
        network.eval()
        with torch.no_grad():
            for parameter, mean in zip(network.parameters(), average, strict=True):
                parameter.copy_(mean)
            for begin in range(0, len(some), piece):
                part = Drawn(*(tensor[begin : begin + piece] for tensor in drawn))
                total += float(loss_of(part.to(self.device))) * len(part.images)
            for parameter, value in zip(network.parameters(), current, strict=True):
                parameter.copy_(value)
        network.train()
        return total / len(some)

    def _check_same_start(self, step: int) -> None:
        last, first = self.workers.greatest(step, -step)
        if last != -first:
            raise UsageError(
                f"--out {self.out} holds the checkpoint of step {int(last)} for some processes and not for others; "
                "give a folder that all machines share"
            )

    def _checkpoint(self, stage: str) -> dict[str, Any] | None:
        path = self.out / f"{stage}-{CHECKPOINT}"
        if not path.is_file():
            return None
        try:
            return dict(torch.load(path, map_location=self.device, weights_only=True))
        except TORN as error:
            raise UsageError(
                f"--out {self.out}: {path.name} is damaged; delete it, and the same command trains that network from its first step"
            ) from error

    def _save(
        self,
        stage: str,
        network: Any,
        optimizer: torch.optim.Optimizer,
        average: list[torch.Tensor],
        best: Best | None,
        step: int,
        spent_s: float,
    ) -> None:
        """Write the checkpoint, whole or not at all; the main process does."""
        if not self.workers.is_main:
            return
        whole = io.BytesIO()  # torch would say RuntimeError where a disk is full
        torch.save(
            {
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average,
                "best": best and tuple(best),
                "step": step,
                "spent_s": spent_s,
                "log": self.log,
                "precision": self.precision,
            },
            whole,
        )
        with disk_errors(self.out):
            atomic_write(self.out / f"{stage}-{CHECKPOINT}", whole.getbuffer(), durable=False)

    def generator(self) -> MelGenerator:
        """The networks as they stand, for previews."""
        return self.networks.generator(self.device, self.precision)


def _forget_gradients(network: Any) -> None:
    for parameter in network.parameters():
        parameter.grad = None


class StopSignals:
    """Inside it Ctrl-C and SIGTERM are noted, to take effect between two steps; a second one takes effect at once.

    `patient` ignores second ones: a launcher passes on what its processes have had from the terminal already.
    Outside the main thread signals cannot be noted, and inside it ones that are ignored stay so.
    """

    def __init__(self, patient: bool = False) -> None:
        self.number = 0
        self.patient = patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number and not self.patient:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        self.number = self.number or number
