"""Runs trained in parallel have the same results as in sequence, and leave no processes or files after a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.classify.conftest import TINY
from tests.watched import Epoch, Watched
from usk.classify import workers
from usk.classify.loop import TrainTask
from usk.classify.train import train
from usk.classify.workers import MIN_CLIPS, TRANSFORMER_THREADS, workers_for
from usk.data.source import Source
from usk.device import threads_of_torch
from usk.engine import local
from usk.engine.engine import MAX_WORKER_LOSSES, Workers
from usk.engine.part import Part
from usk.errors import UskError

CPU = torch.device("cpu")
CONFIG = replace(TINY, classifier="small", epochs=2, train_clips="30")


def test_when_one_process_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(workers, "memory_allowed_bytes", lambda: 64e9)
    monkeypatch.setattr(workers, "cores_allowed", lambda: 8)
    assert workers_for(None, "small", 9, MIN_CLIPS, CPU) == Workers(4, 1)
    assert workers_for(None, "small", 9, MIN_CLIPS - 1, CPU) == Workers(1, 1)
    assert workers_for(None, "small", 3, MIN_CLIPS, CPU) == Workers(3, 1)
    assert workers_for(None, "hf:some/where", 9, MIN_CLIPS, CPU) == Workers(1, TRANSFORMER_THREADS)
    assert workers_for(2, "small", 9, 1, CPU) == Workers(2, 1)
    assert workers_for(8, "small", 3, 1, CPU) == Workers(3, 1)
    assert workers_for(None, "small", 0, 0, CPU).processes == 1
    monkeypatch.setattr(workers, "cores_allowed", lambda: 2)  # a container's quota
    assert workers_for(None, "small", 9, MIN_CLIPS, CPU) == Workers(2, 1)
    monkeypatch.setattr(workers, "memory_allowed_bytes", lambda: 2e9)
    assert workers_for(None, "small", 9, MIN_CLIPS, CPU) == Workers(1, 1)


@pytest.mark.parametrize(
    ("cores", "runs", "gpu_gb", "classifier", "expected"),
    [
        (16, 18, 140, "small", Workers(8, 1)),
        (64, 18, 140, "small", Workers(8, 1)),
        (16, 3, 140, "small", Workers(3, 1)),
        (8, 18, 12, "small", Workers(3, 1)),
        (8, 18, 2, "small", Workers(1, 1)),
        (2, 18, 24, "small", Workers(1, 1)),
        (16, 18, 140, "hf:some/where", Workers(1, TRANSFORMER_THREADS)),
    ],
)
def test_several_share_a_gpu_that_waits_for_each(
    cores: int, runs: int, gpu_gb: float, classifier: str, expected: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(workers, "memory_allowed_bytes", lambda: 128e9)
    monkeypatch.setattr(workers, "cores_allowed", lambda: cores)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu_gb * 1e9, 150e9))
    on_one = workers_for(None, classifier, runs, MIN_CLIPS, torch.device("cuda:0"))
    assert on_one == replace(expected, devices=("cuda:0",))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    on_all = workers_for(None, classifier, 99, MIN_CLIPS, torch.device("cuda"))
    assert on_all.devices == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert on_all.processes == min(4 * expected.processes, max(1, cores // 2)) or runs < 99
    assert [on_all.device(number) for number in (0, 3, 4)] == ["cuda:0", "cuda:3", "cuda:0"]


def test_at_the_same_time_is_as_one_after_another(
    bands: Source, children: Callable[..., Source], tmp_path: Path
) -> None:
    """Same folders, same probabilities, every step reported once; a second call finds all of them."""
    mixes, synth = ["real", "real,synth"], children(folds=(1, 3))
    wide = replace(CONFIG, train_clips="full", seeds=2)
    alone = train(bands, mixes, synth=synth, out=tmp_path / "alone", config=replace(wide, workers=1))
    watched = Watched()
    together = train(
        bands, mixes, synth=synth, out=tmp_path / "together", config=replace(wide, workers=2),
        reporter=watched,
    )  # fmt: skip
    assert together.settings["workers"] == 2
    assert [run.folder.name for run in together.runs] == [run.folder.name for run in alone.runs]
    for one, other in zip(alone.runs, together.runs, strict=True):
        assert np.array_equal(one.predictions.probabilities, other.predictions.probabilities)
        assert other.n_synthetic == one.n_synthetic
    said = sorted((state.run, state.epoch) for state in watched.seen)
    assert said == [(run, epoch) for run in (1, 2, 3, 4) for epoch in (1, 2)]
    done = [state.done_steps for state in watched.seen]
    assert done == sorted(done) and done[-1] == watched.seen[-1].all_steps
    assert set((tmp_path / "together").iterdir()) == {run.folder for run in together.runs}
    assert all(together.fresh)
    again = train(bands, mixes, synth=synth, out=tmp_path / "together", config=replace(wide, workers=2))
    assert not any(again.fresh)


def results(folder: Path) -> dict[str, bytes]:
    """Return the content of runs without their times."""
    names = ("model.safetensors", "config.json", "history.json", "predictions.parquet")
    return {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.glob("*/*") if file.name in names
    }


def test_a_killed_process_costs_its_run_alone(
    bands: Source, tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    """Kill a process in the middle of a run: the others continue, and all results are the same to the byte."""
    config = replace(CONFIG, seeds=4, workers=2)
    train(bands, out=tmp_path / "once", config=config)
    started.clear()
    killed: list[int] = []

    def report(state: Epoch) -> None:
        if not killed:
            killed.append(state.run)
            started[(state.run - 1) % 2].kill()

    watched = Watched(report)
    result = train(bands, out=tmp_path / "killed", config=config, reporter=watched)
    assert len(started) == 3 and all(process.poll() is not None for process in started)
    assert started[(killed[0] - 1) % 2].returncode == -signal.SIGKILL
    assert len(result.runs) == 4 and all(result.fresh)
    assert len(results(tmp_path / "once")) == 16
    assert results(tmp_path / "killed") == results(tmp_path / "once")


def test_a_run_that_kills_its_process_each_time_is_one_line_and_what_was_finished_stays(
    bands: Source, tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    config = replace(CONFIG, seeds=4, workers=2)

    def report(_: Epoch) -> None:
        if list(tmp_path.glob("*/run.json")):  # in the middle of another run
            for process in started:
                process.kill()

    with pytest.raises(UskError, match=rf"was killed \(SIGKILL\), {MAX_WORKER_LOSSES} times .*workers 1"):
        train(bands, out=tmp_path, config=config, reporter=Watched(report))
    assert all(process.poll() is not None for process in started)
    finished = {path.parent.name for path in tmp_path.glob("*/run.json")}
    assert 1 <= len(finished) < 4
    result = train(bands, out=tmp_path, config=replace(config, workers=1))
    found = {run.folder.name for run, fresh in zip(result.runs, result.fresh, strict=True) if not fresh}
    assert found == finished and len(result.runs) == 4


def test_parts_train_every_run_once_and_alike_whatever_threads_torch_has(
    bands: Source, tmp_path: Path
) -> None:
    config = replace(CONFIG, seeds=5, workers=1, epochs=1)
    with threads_of_torch(3):
        train(bands, out=tmp_path / "once", config=config)
        assert torch.get_num_threads() == 3
    out = tmp_path / "out"
    last = train(bands, out=out, config=config, part=Part(3, 3))
    assert (len(last.runs), last.fresh) == (1, (True,))
    assert last.missing == "4 of 5 runs are missing, of part 1, 2 of 3"
    first = train(bands, out=out, config=config, part=Part(1, 3))
    assert (len(first.runs), first.missing) == (3, "2 of 5 runs are missing, of part 2 of 3")
    assert sorted(first.fresh) == [False, True, True]
    assert train(bands, out=out, config=config, part=Part(2, 3)).missing == ""
    assert results(out) == results(tmp_path / "once")


def test_what_a_process_raises_comes_back(
    bands: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has its traceback, and no process continues."""
    get = workers.SharedTables.get

    def without_real(self: workers.SharedTables, task: Any) -> Any:
        return {name: one for name, one in get(self, task).items() if name != "real"}

    monkeypatch.setattr(workers.SharedTables, "get", without_real)
    with pytest.raises(RuntimeError, match=r"in a worker process:\nTraceback(.|\n)*KeyError: 'real'"):
        train(bands, out=tmp_path, config=replace(CONFIG, seeds=2, workers=2))
    assert not list(tmp_path.iterdir())


def test_features_that_find_no_room_are_one_line(
    bands: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: Any) -> None:
        raise OSError("Not enough free space to write 5 bytes")  # as numpy raises it, without an errno

    monkeypatch.setattr(local.np, "save", save)
    said = r"cannot be written to .*usk-features-.*Not enough.*TMPDIR.*workers 1"
    with pytest.raises(UskError, match=said):
        train(bands, out=tmp_path, config=replace(CONFIG, seeds=2, workers=2))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of a test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("ends_by", ["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_a_stopped_sweep_leaves_no_process_and_no_file(
    bands: Source, tmp_path: Path, temporary: Path, started: list[subprocess.Popen[bytes]], ends_by: str
) -> None:
    def report(_: Epoch) -> None:
        assert list(temporary.glob("usk-features-*/*.npy"))
        if ends_by == "Ctrl-C":
            raise KeyboardInterrupt
        os.kill(os.getpid(), number)

    number = signal.SIGHUP if ends_by == "SIGHUP" else signal.SIGTERM
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt if ends_by == "Ctrl-C" else SystemExit) as stopped:
            config = replace(CONFIG, seeds=2, workers=2)
            train(bands, out=tmp_path / "runs", config=config, reporter=Watched(report))
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert ends_by == "Ctrl-C" or stopped.value.code == 128 + number  # type: ignore[attr-defined]
    assert len(started) == 2 and all(process.poll() is not None for process in started)
    assert not list(temporary.iterdir()) and not list((tmp_path / "runs").glob("*"))


def test_features_that_no_run_needs_any_more_go(
    bands: Source, children: Callable[..., Source], tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Datasets for each seed and fold would not fit into memory together."""
    counts: list[tuple[int, int, int]] = []
    release = workers.SharedTables.release

    def n_files() -> int:
        return len(list(temporary.glob("usk-features-*/*.npy")))

    def watched(tables: workers.SharedTables, task: TrainTask) -> None:
        before = n_files()
        release(tables, task)
        counts.append((before, n_files(), sum(map(bool, tables._n_tasks_left.values()))))

    monkeypatch.setattr(workers.SharedTables, "release", watched)
    train(
        bands, ["synth", "real"], synth=children(folds=(1, 3)), out=tmp_path / "runs",
        config=replace(CONFIG, train_clips="full", workers=2, epochs=1),
    )  # fmt: skip
    assert max(before for before, _, _ in counts) == 2
    assert all(after <= needed for _, after, needed in counts) and counts[-1][1:] == (0, 0)


def test_what_is_printed_as_python_starts_does_not_matter(
    bands: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers also find modules where the parent finds them."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "sitecustomize.py").write_text(
        "import sys\nfrom pathlib import Path\nprint('hello', flush=True)\nPath(__file__).with_suffix('.seen').touch()\n"
    )
    monkeypatch.syspath_prepend(str(elsewhere))
    runs = train(bands, out=tmp_path / "runs", config=replace(CONFIG, seeds=2, workers=2, epochs=1)).runs
    assert len(runs) == 2 and (elsewhere / "sitecustomize.seen").exists()


def test_one_mix_spelt_twice_is_one_run(bands: Source, tmp_path: Path) -> None:
    config = replace(CONFIG, test_folds=(2, 2), epochs=1)
    assert len(train(bands, ["real", " real "], out=tmp_path, config=config).runs) == 1


@pytest.mark.gpu
def test_several_share_a_cuda_device(bands: Source, tmp_path: Path) -> None:
    # CUDA sums in another order each time. At a low rate, other seeds or batches differ much more.
    config = replace(CONFIG, seeds=2, device="cuda", learning_rate=1e-4)
    alone = train(bands, out=tmp_path / "alone", config=replace(config, workers=1))
    together = train(bands, out=tmp_path / "together", config=replace(config, workers=2))
    for one, other in zip(alone.runs, together.runs, strict=True):
        assert other.device == "cuda"
        assert np.allclose(one.predictions.probabilities, other.predictions.probabilities, atol=1e-2)
    first, second = (run.predictions.probabilities for run in alone.runs)
    assert not np.allclose(first, second, atol=1e-2)


SCRIPT = """
import sys
import usk
real = usk.open_source("demo")
config = usk.TrainConfig(test_folds=(1,), seeds=2, epochs=1, train_clips="20", workers=2, device="cpu", baseline=False)
print(len(usk.train(real, out=sys.argv[1], config=config).runs), "runs")
"""


@pytest.mark.slow
def test_a_script_needs_no_guard_for_its_main_module_and_the_current_folder_is_not_imported_from(
    tmp_path: Path, demo_cache: None
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    here = tmp_path / "here"
    here.mkdir()
    (here / "queue.py").write_text("raise SystemError('not the one of Python')")
    words = [sys.executable, "../script.py", "runs"]
    ended = subprocess.run(words, cwd=here, capture_output=True, text=True, timeout=600)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "2 runs\n", "")
