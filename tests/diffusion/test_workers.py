"""Several processes that train one generator: the same result as one, and one that speaks and writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from usk.data.open import open_source
from usk.diffusion import train as training
from usk.diffusion.fit import fit
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.load import load_generator
from usk.diffusion.loop import TrainingLoop
from usk.diffusion.train import Drawn, MelTrainer
from usk.diffusion.workers import Workers, is_main_process, workers
from usk.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")

# `python -m usk`, but in single precision: where bf16 is possible, runs choose by the clock. Where the system lists a
# process's threads, none of the group's may be left: at exit one that drops a tensor would abort the process.
LAUNCHED = """
import pathlib
import usk.diffusion.train as training
training.default_precision = lambda device: "fp32"
from usk.cli.app import main
from usk.diffusion import train as training
try:
    main()
finally:
    threads = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    assert not any("gloo" in name for name in threads), threads
"""


def weights(folder: Path) -> torch.Tensor:
    """All of the UNet's in one row."""
    unet = load_generator(str(folder), device="cpu", precision="fp32").unet
    return torch.cat([parameter.flatten() for parameter in unet.parameters()])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_batches(
    usk: Callable[..., Any],
    tone_folder: Path,
    tiny_pipeline: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "default_precision", lambda device: "fp32")

    def options(out: str, *more: object) -> list[str]:
        command = [
            "fit", "--real", tone_folder, "--from", tiny_pipeline(), "--out", tmp_path / out, "--steps", 6, "--batch", 2,
            "--learning-rate", 0.1, "--class-conditional", "--device", "cpu", *more,
        ]  # fmt: skip
        return [str(each) for each in command]

    (tmp_path / "launched.py").write_text(LAUNCHED)
    ran = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
            "--master-port", str(free_port()), str(tmp_path / "launched.py"), *options("two", "--json"),
        ],
        cwd=ROOT, text=True, capture_output=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["folder"] == str(tmp_path / "two")  # one result, of one process
    assert ran.stderr.count("does not say what it was trained on") == 1
    assert json.loads((tmp_path / "two" / "training.json").read_text())["processes"] == 2
    assert "| steps | 6 of batch 4," in (tmp_path / "two" / "README.md").read_text()
    assert usk(*options("less")).code == 0
    config = FitConfig(
        steps=6, batch=2, accumulate=2, learning_rate=0.1, class_conditional=True, device="cpu", base=str(tiny_pipeline())
    )  # fmt: skip
    fit([open_source(tone_folder)], tmp_path / "one", config)
    one, two, less = (weights(tmp_path / out) for out in ("one", "two", "less"))
    assert (one - two).abs().mean() < 0.02 * (one - less).abs().mean()


def test_where_one_process_stands_alone_nothing_waits() -> None:
    with workers("cpu") as team:
        assert (team.is_main, team.count, team.device) == (True, 1, CPU)
        assert team.greatest(0.5, 2) == [0.5, 2]
        value = torch.ones(2)
        team.average([value])
        assert value.tolist() == [1, 1]
    assert not torch.distributed.is_initialized()


def test_an_average_is_over_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if three processes held the same: AdamW hides the gradient's size from the test of two real ones."""

    def summed(tensor: torch.Tensor, async_op: bool) -> torch.futures.Future:
        tensor *= 3
        done: torch.futures.Future = torch.futures.Future()
        done.set_result(None)
        return done

    monkeypatch.setattr(torch.distributed, "all_reduce", summed)
    values = [torch.ones(2, 3), torch.tensor(5.0)]
    Workers(CPU, 1, 3).average(values)
    assert torch.equal(values[0], torch.ones(2, 3)) and values[1] == 5


def test_each_process_draws_its_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_parts: list[tuple[int, int]] = []
    network = torch.nn.Linear(1, 1)

    def draw(trainer: MelTrainer, step: int, part: int) -> Drawn:
        return Drawn(*(torch.tensor(value) for value in (step, part, 0, 0)))

    def learn(step: torch.Tensor, part: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        drawn_parts.append((int(step), int(part)))
        return torch.tensor(0.0)

    monkeypatch.setattr(MelTrainer, "draw", draw)
    monkeypatch.setattr(Workers, "average", lambda *_: None)
    for rank in range(3):
        trainer = object.__new__(MelTrainer)
        trainer.workers, trainer.device, trainer.parameters = (
            Workers(CPU, rank, 3),
            CPU,
            list(network.parameters()),
        )
        trainer.config, trainer._ahead = FitConfig(accumulate=2), None
        for step in (0, 1, 5):
            trainer.gradients(learn, step)
    shares = [[0, 1], [2, 3], [4, 5]]
    assert drawn_parts == [(step, part) for share in shares for step in (0, 1, 5) for part in share]


def test_processes_that_begin_at_different_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "greatest", lambda team, *said: [max(here, 0.0) for here in said])
    loop = object.__new__(TrainingLoop)
    loop.workers, loop.out, loop.step = Workers(CPU, 0, 2), Path("out"), 7
    with pytest.raises(UsageError, match="holds the checkpoint of step 7 for some processes"):
        loop._check_same_start()
    loop.step = 0
    loop._check_same_start()


def test_a_launcher_that_does_not_say_where_the_others_are_is_one_line(
    usk: Callable[..., Any], tone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    ran = usk("fit", "--real", tone_folder, "--out", tmp_path / "out", "--device", "cpu", "--quiet")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "WORLD_SIZE is 4, but RANK, MASTER_ADDR, MASTER_PORT is not set" in ran.err
    assert "torchrun" in ran.err
    assert not (tmp_path / "out").exists()


def test_more_processes_than_gpus_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {
        "WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert not is_main_process()
    with pytest.raises(UsageError, match="process 3 on this machine finds 2 CUDA devices"), workers("cuda"):
        pass
