"""A job in parts: whoever makes which part in whatever order, the dataset is that of one process, and what is missing is named."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from tests.manifests import contents
from usk.data.open import open_source
from usk.engine import local
from usk.engine.part import Part, job_versions
from usk.errors import SourceError, UsageError
from usk.files import LOCK_FILE
from usk.synth import dataset_folder, synthesize
from usk.synth.synthesize import SynthResult

Command = Callable[..., Any]


@pytest.fixture
def arguments(
    urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> list[object]:
    monkeypatch.setattr(synthesize, "ROWS_PER_SHARD", 6)
    return [
        "synth", "--real", urbansound8k_folder, "--model", tiny_pipeline(), "--per-class", 5, "--steps", 1,
        "--batch", 2, "--quiet",
    ]  # fmt: skip


@pytest.mark.parametrize("more", [(), ("--filter", 0.5, "--per-class", 2)], ids=["all", "filtered"])
def test_parts_end_with_the_bytes_of_one_process(
    usk: Command,
    arguments: list[object],
    tmp_path: Path,
    more: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("usk.synth.filter.MIN_STEPS", 3)
    command = [*arguments, *more]
    assert usk(*command, "--out", tmp_path / "once").code == 0
    out = tmp_path / "out"
    made = 0
    for number in (3, 1):
        ran = usk(*command, "--out", out, "--part", f"{number}/3", "--json")
        assert ran.code == 0 and ran.value["missing"], ran.err
        made += ran.value["made"]
        with pytest.raises(
            SourceError, match="is unfinished: not all of its clips are made yet; run the same `usk"
        ):
            open_source(out)
    again = usk(*command, "--out", out, "--part", "1/3", "--json")
    assert again.value["made"] == 0 and "of part 2 of 3" in again.value["missing"]
    ran = usk(*command, "--out", out, "--part=2/3", "--json")
    assert ran.code == 0 and "missing" not in ran.value
    planned = ran.value["clips"] + (rejected := ran.value.get("rejected", 0))
    assert rejected == (6 if more else 0)
    assert 0 < made < made + ran.value["made"] == planned
    assert contents(out) == contents(tmp_path / "once")
    assert usk(*command, "--out", out, "--part", "1/3", "--json").value["clips"] == ran.value["clips"]
    assert contents(out) == contents(tmp_path / "once")


def test_any_part_that_is_run_again_finishes_what_the_last_one_left(
    usk: Command, arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the last part was killed just before the end."""
    command = [*arguments, "--per-class", 2]
    assert usk(*command, "--out", tmp_path / "once").code == 0
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(synthesize, "_finish", lambda of: SynthResult(of.folder, of.plan, of.manifest))
        for number in (1, 2):
            assert usk(*command, "--out", out, "--part", f"{number}/2").code == 0
    assert not list(out.rglob("data/*.parquet"))
    ran = usk(*command, "--out", out, "--part", "1/2", "--json")
    assert ran.code == 0 and (ran.value["clips"], ran.value["made"]) == (6, 0), ran.err
    assert contents(out) == contents(tmp_path / "once")


@pytest.mark.parametrize("text", ["5/4", "0/4", "x", "1", "1/0", "-1/2", "1/2/3", "", "1.5/2"])
def test_what_is_no_part_is_one_line(usk: Command, tmp_path: Path, text: str) -> None:
    for command in ("synth", "train"):
        ran = usk(command, "--part", text, "--real", tmp_path / "none")
        assert (ran.code, ran.err.count("\n")) == (2, 1) and "--part" in ran.err and "K/N" in ran.err


def test_a_part_of_another_plan_or_version_is_refused(
    usk: Command, arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    usk(*arguments, "--out", out, "--part", "1/2").done()
    before, rest = contents(out), ("--out", out, "--part", "2/2")
    for name, value in (("seed", 1), ("steps", 2), ("batch", 3), ("per class", 4)):
        other = usk(*arguments, f"--{name.replace(' ', '-')}", value, *rest)
        other.refused(2, f"another plan (another {name})")
    for name in ("usk", "torch"):
        with monkeypatch.context() as patched:
            patched.setattr(dataset_folder, "job_versions", partial(dict, job_versions(), **{name: "0.0.1"}))
            other = usk(*arguments, *rest)
        other.refused(2, f"begun with {name} {job_versions()[name]}, and here is 0.0.1")
    assert contents(out) == before


def test_another_number_of_parts_is_said_and_does_no_harm(
    usk: Command, arguments: list[object], tmp_path: Path
) -> None:
    assert usk(*arguments, "--out", tmp_path / "once").code == 0
    out, said = tmp_path / "out", []
    for part in ("1/3", "1/3", "2/2", "1/2"):  # the second does the same again
        ran = usk(*arguments[:-1], "--out", out, "--part", part)  # not quiet
        assert ran.code == 0, ran.err
        said.append("begun in 3 parts" in ran.err)
    assert said == [False, False, True, False]
    assert contents(out) == contents(tmp_path / "once")


def test_a_part_waits_while_another_claims_the_folder_and_longer_once_its_own_is_made(
    usk: Command, arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_folder, "CLAIM_WAIT_S", 0.1)
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / LOCK_FILE):
        refused = usk(*arguments, "--out", out, "--part", "1/2")
        assert refused.code == 2 and "is being filled by another usk synth" in refused.err
    render, finishing = synthesize._render_units, FileLock(out / LOCK_FILE, thread_local=False)

    def rendered(*given: Any) -> int:
        made = render(*given)
        finishing.acquire()  # as if another part finished a large dataset
        threading.Timer(1.0, finishing.release).start()
        return made

    monkeypatch.setattr(synthesize, "_render_units", rendered)
    assert usk(*arguments, "--out", out, "--part", "1/2").code == 0


def test_threads_are_those_of_the_first_part(
    usk: Command, arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since the last bits of what torch computes depend on their number."""
    seen: list[int] = []
    write = dataset_folder.DatasetFolder.write_unit

    def noted(self: dataset_folder.DatasetFolder, *given: Any) -> None:
        seen.append(torch.get_num_threads())
        write(self, *given)

    monkeypatch.setattr(dataset_folder.DatasetFolder, "write_unit", noted)
    out = tmp_path / "out"
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert usk(*arguments, "--out", out, "--part", "1/2").code == 0
        torch.set_num_threads(2)
        assert usk(*arguments, "--out", out, "--part", "2/2").code == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {3}
    assert json.loads((out / "usk.json").read_text())["shards"]


@pytest.mark.slow
def test_worker_processes_end_with_the_bytes_of_one_and_a_killed_one_costs_its_units_alone(
    usk: Command,
    arguments: list[object],
    tmp_path: Path,
    started: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert usk(*arguments, "--out", tmp_path / "once").code == 0
    send = local.ProcessEngine.send

    def send_and_kill(self: local.ProcessEngine, worker: int, unit: Any) -> None:
        send(self, worker, unit)
        is_first = getattr(unit, "number", None) == 0  # the setup and the end of the units have no number
        if is_first and len(started) == 2:  # kill its worker, once
            started[worker].kill()

    monkeypatch.setattr(local.ProcessEngine, "send", send_and_kill)
    ran = usk(*arguments, "--out", tmp_path / "two", "--workers", 2, "--json")
    assert ran.code == 0 and ran.value["made"] == 15, ran.err
    assert len(started) == 3 and all(process.poll() is not None for process in started)
    assert contents(tmp_path / "two") == contents(tmp_path / "once")


def test_every_unit_is_of_one_part() -> None:
    for of in (1, 2, 5):
        parts = [Part(number, of) for number in range(1, of + 1)]
        assert all(sum(part.has(unit) for part in parts) == 1 for unit in range(12))
    assert Part.parse(None).is_whole and Part.parse("1/1").is_whole and str(Part.parse(" 2/8 ")) == "2/8"
    with pytest.raises(UsageError):
        Part.parse("9/8")
