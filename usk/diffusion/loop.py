"""The training loop of generators: optimizer, averaged weights, validation, checkpoints, and a clean stop between two steps."""

from __future__ import annotations

import io
import math
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch

from usk.data.cache import checked, read_checked
from usk.device import is_out_of_memory
from usk.diffusion.train import Trainer, clear_gradients, copy_into
from usk.errors import UsageError, UskError, disk_errors
from usk.files import DAMAGED, atomic_write
from usk.reporter import Reporter

CHECKPOINT_FILE = "unet-checkpoint.pt"
WARM_UP_STEPS = 100
COOL_DOWN = 0.4  # the last share of training, in which the learning rate falls


class Stopped(UskError):
    """Training was stopped by Ctrl-C or SIGTERM. The checkpoint is written. The exit code is 128 + the signal's number."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(
            f"stopped after step {step}; the checkpoint is written",
            hint="The same command goes on from there.",
        )
        self.exit_code = 128 + signal_number


class Best(NamedTuple):
    """The averaged weights with the lowest validation loss so far."""

    loss: float
    step: int
    average: list[torch.Tensor]


class TrainingLoop:
    """A training run with checkpoints in the folder `out`."""

    def __init__(self, trainer: Trainer, out: Path) -> None:
        """Start from the checkpoint in `out`, if there is one."""
        self.trainer, self.config, self.out = trainer, trainer.config, out
        self.network, self.parameters = trainer.network, trainer.parameters
        assert self.config.learning_rate is not None
        self.learning_rate = self.config.learning_rate
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.learning_rate, weight_decay=0.01, fused=True
        )
        self.step = 0
        self.kept_step = 0  # the step whose weights the network has in the end
        self.diverged_step: int | None = None  # the step whose loss was not a number
        self.best: Best | None = None
        self.log: list[dict[str, Any]] = []
        spent_s = self._resume()
        self._started, self._saved_at = time.monotonic() - spent_s, time.monotonic()
        self._validation: float | None = None

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def run(self, reporter: Reporter) -> None:
        """Train to the end. The network then has the best averaged weights, or without validation the last ones.

        Raises Stopped after Ctrl-C or SIGTERM, with the checkpoint written, and UskError for a training that diverges before the first
        validation.
        """
        self.network.train()
        learn = self.trainer.learner()
        loss = math.nan
        with StopSignals() as stop, reporter.task("training", "steps") as task:
            task.update(self.step, self._total_steps())
            while (share := self._share_done(stop)) < 1.0:
                self._set_learning_rate(share)
                try:
                    loss = self.trainer.gradients(learn, self.step)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    self._recompute_activations(error, reporter)
                    learn = self.trainer.learner()
                    continue
                if not math.isfinite(loss):
                    self._end_diverged(reporter)
                    break
                self._update_weights()
                if self.step % self.config.validate_every == 0:
                    self._validate(loss)
                validation = "" if self._validation is None else f" · validation {self._validation:.4f}"
                task.update(self.step, self._total_steps(), f"training · loss {loss:.4f}{validation}")
                if time.monotonic() - self._saved_at > self.config.checkpoint_every_s:
                    self._save()
                    self._saved_at = time.monotonic()
        if self.diverged_step is None:
            self._validate(loss)
        self._set_final_weights()

    def _share_done(self, stop: StopSignals) -> float:
        """Return the share of the budget that is used. Raises Stopped after a signal."""
        if stop.number:
            self._save()
            raise Stopped(self.step, stop.number)
        if self.config.minutes is not None:  # the least time is a step
            return self.elapsed_s / (self.config.minutes * 60) if self.step else 0.0
        return self.step / self.config.steps

    def _total_steps(self) -> int:
        if self.config.minutes is None:
            return self.config.steps
        return max(self.step, round(self.step * self.config.minutes * 60 / max(self.elapsed_s, 1e-3)))

    def _set_learning_rate(self, share: float) -> None:
        warm_up, cool_down = min(1.0, (self.step + 1) / WARM_UP_STEPS), min(1.0, (1.0 - share) / COOL_DOWN)
        self.optimizer.param_groups[0]["lr"] = self.learning_rate * warm_up * max(cool_down, 0.02)

    def _update_weights(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def _validate(self, loss: float) -> None:
        """Add a line to the log and update the best weights, unless this step was validated already."""
        if any(row["step"] == self.step for row in self.log):
            return
        validation = self.trainer.validation_loss(self.average)
        if validation is not None and not math.isfinite(validation):
            validation = None
        self._validation = validation
        self.log.append(
            {
                "step": self.step,
                "elapsed_s": round(self.elapsed_s, 1),
                "loss": None if math.isnan(loss) else round(loss, 5),
                "validation_loss": None if validation is None else round(validation, 5),
            }
        )
        if validation is not None and (self.best is None or validation < self.best.loss):
            self.best = Best(validation, self.step, [tensor.clone() for tensor in self.average])

    def _end_diverged(self, reporter: Reporter) -> None:
        """End with the best weights if the loss is not a number. Raises UskError without any."""
        self.diverged_step = self.step + 1
        what = f"the training diverged in step {self.diverged_step} (its loss is not a number)"
        if self.best is None:
            raise self._diverged(what)
        reporter.warn(
            f"{what}: the generator has the weights of step {self.best.step}, the best before; a learning rate lower "
            f"than {self.learning_rate:g} may get further"
        )

    def _diverged(self, what: str) -> UskError:
        hint = "Choose a lower learning rate and another folder."
        return UskError(what, field="learning_rate", value=f"{self.learning_rate:g}", hint=hint)

    def _recompute_activations(self, error: Exception, reporter: Reporter) -> None:
        """Recompute activations instead of keeping them, for a step that does not fit into memory. Raises UskError if this is done already."""
        is_supported = getattr(self.network, "_supports_gradient_checkpointing", False)
        if not is_supported or self.trainer.checkpointing:
            raise UskError(
                "the device has too little memory for a step of this size",
                field="batch",
                value=self.config.batch,
                hint="Choose a smaller batch.",
            ) from error
        reporter.note("the memory is short: activations are computed twice instead of being kept")
        self.trainer.checkpointing = True
        self.network.enable_gradient_checkpointing()
        clear_gradients(self.parameters)
        if self.trainer.device.type == "cuda":
            torch.cuda.empty_cache()

    def _set_final_weights(self) -> None:
        kept = self.best or Best(math.nan, self.step, self.average)
        self.kept_step = kept.step
        if not all(tensor.half().isfinite().all() for tensor in kept.average):  # half: as they are written
            raise self._diverged(f"the training diverged by step {kept.step} (its weights are not finite)")
        copy_into(self.parameters, kept.average)
        if self.diverged_step is None:  # else a resumed training diverges again
            self._save()
        if self.trainer.checkpointing:
            self.network.disable_gradient_checkpointing()
        clear_gradients(self.parameters)
        self.network.eval()

    # --- checkpoints ---------------------------------------------------------------------------------------

    def _resume(self) -> float:
        """Load the checkpoint, if there is one, and return the seconds spent before it. Raises UsageError for a damaged one."""
        path, device = self.out / CHECKPOINT_FILE, self.trainer.device
        if not path.is_file():
            return 0.0
        try:
            content = io.BytesIO(read_checked(path) or b"")
            state = dict(torch.load(content, map_location=device, weights_only=True))
            copy_into(self.parameters, state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average = [tensor.to(device) for tensor in state["average"]]
            self.step, self.log = int(state["step"]), list(state["log"])
            self.trainer.precision = str(state["precision"])
            if state["best"] is not None:
                loss, step, average = state["best"]
                self.best = Best(loss, step, [tensor.to(device) for tensor in average])
            return float(state["spent_s"])
        except DAMAGED as error:
            raise UsageError(
                f"{path.name} is damaged",
                field="out",
                value=self.out,
                hint="Delete it, and the same command trains from the first step.",
            ) from error

    def _save(self) -> None:
        """Write the checkpoint atomically."""
        buffer = io.BytesIO()  # writing to the file directly, torch would raise RuntimeError for a full disk
        torch.save(
            {
                "network": [parameter.detach() for parameter in self.parameters],
                "optimizer": self.optimizer.state_dict(),
                "average": self.average,
                "best": self.best and tuple(self.best),
                "step": self.step,
                "spent_s": self.elapsed_s,
                "log": self.log,
                "precision": self.trainer.precision,
            },
            buffer,
        )
        with disk_errors(self.out):
            atomic_write(self.out / CHECKPOINT_FILE, checked(buffer.getbuffer()), durable=False)


class StopSignals:
    """Notes Ctrl-C and SIGTERM, so that training stops between two steps. A second signal takes effect at once.

    Signals are not noted outside the main thread, and those that the process ignores stay ignored.
    """

    def __init__(self) -> None:
        self.number = 0
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            signal.signal(number, self._handlers[number])
            signal.raise_signal(number)
        self.number = self.number or number
