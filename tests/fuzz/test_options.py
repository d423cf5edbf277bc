"""Every option and argument of every command with values that people and programs give by mistake."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.fuzz.campaign import SEED, WHOLE, Failures, chosen, ended, faults
from usk.cli.app import app
from usk.errors import UskError

VALUES = [
    "", " ", "-1", "0", "1", "3", "1e400", "inf", "-inf", "nan", "9" * 400, "0x10", "1_000", "0.5", "-0.0", "1.5", "x", "../..", "../../x",
    "a/b/c/d", "./", ".", "\udce9", "a\x1b[31mb", "a\nb", "a\rb", "\u202eabc", "a,b,,c", ",", ",,", "=", "a=b=c", "label=", "=label", "label=nothing",
    "{", "[1]", "None", "true", "auto", "1,1", "1-3", "1..2", "-", "--", "~nouser/x", "a\0b", "x" * 5_000, "user/name@", "@", "@v1", "user/", "/x",
    "hf:", "hf:/", "hf:user/name@", "hf:.", "real:0", "real:nan", "real:1e-9", "real,,synth", "synth:2", "real,real", "0.5-0.1", "0.1-0.9", "beta(0,0)",
    "beta(2", "uniform(1,0)", "%s%n%d", "${HOME}", "$(true)", "`true`", "\u0661\u0662", "\u00bd", "1\u2009000", "d\u00e9j\u00e0", "\u65e5\u672c", "full", "50,full", "full,full", "cuda",
    "cuda:99", "cpu:0", "mps", "balanced", "embedded", "demo", "file:WORLD/clips", "WORLD/clips", "WORLD/classes", "WORLD/synth", "WORLD/runs",
    "WORLD/model", "WORLD/g", "WORLD/trained/run", "WORLD/clips/0.wav", "WORLD/study.toml", "WORLD/synth/usk.json", "WORLD/clips/metadata.csv",
]  # fmt: skip
PER_OPTION = 12


class Reached(UskError):
    """The command began its work: it took the value."""


def bases(world: Path) -> dict[str, tuple[list[object], dict[str, object]]]:
    """For each command arguments by name, and words with which it is quick."""
    real = {"--real": world / "clips"}
    return {
        "synth": (["--dry-run"], {**real, "--model": world / "model", "--per-class": 1, "--steps": 1, "--out": "s"}),
        "train": (["--no-baseline"], {**real, "--epochs": 1, "--seeds": 1, "--test-folds": 1, "--out": "r", "--mix": "real,synth", "--synth": world / "synth"}),
        "eval": ([], {"runs": world / "runs"}),
        "predict": ([], {"run": world / "trained" / "run", "what": world / "clips" / "0.wav"}),
        "audit": ([], {**real, "dataset": world / "synth"}),
        "report": ([], {**real, "runs": world / "runs", "--synth": world / "synth", "--out": "page.html"}),
        "fit": ([], {**real, "--steps": 1, "--from": world / "model", "--batch": 2, "--out": "g"}),
        "study": (["--dry-run"], {"file": world / "study.toml"}),
        "push": (["--yes"], {"folder": world / "synth", "repo_id": "user/name"}),
        "info": ([], {"what": world / "clips"}),
    }  # fmt: skip


def parameters() -> list[tuple[str, Any]]:
    """Every option and argument of every command, from the commands themselves."""
    group: Any = typer.main.get_command(app)
    return [
        (name, parameter)
        for name, command in group.commands.items()
        for parameter in command.params
        if parameter.name != "help"
    ]


def cases() -> list[tuple[str, str, str]]:
    """(command, option, value), the same in every run."""
    found = []
    for command, parameter in parameters():
        name = parameter.name if parameter.param_type_name == "argument" else parameter.opts[0]
        values = random.Random(f"{SEED}{command} {name}").sample(VALUES, PER_OPTION)
        found += [(command, name, value) for value in values]
    return found


def words_of(world: Path, command: str, name: str, value: str) -> list[object]:
    group: Any = typer.main.get_command(app)
    extra, given = bases(world)[command]
    given = {**given, name: value.replace("WORLD", str(world))}
    order = [p.name for p in group.commands[command].params if p.param_type_name == "argument"]
    flags = {opt for p in group.commands[command].params if getattr(p, "is_flag", False) for opt in p.opts}
    options = [word for key, one in given.items() if key.startswith("-") for word in ([f"{key}={one}"] if key in flags else [key, one])]  # fmt: skip
    arguments = [given[key] for key in order if key in given]
    return [command, *extra, *options, *arguments]


@pytest.mark.slow
def test_wrong_values_of_options(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*args: Any, **more: Any) -> None:
        raise Reached("the work begins")

    for work in (
        "usk.classify.train._Trainer.run",
        "usk.diffusion.loop.TrainingLoop.run",
        "usk.synth.synthesize.synthesize",
    ):
        monkeypatch.setattr(work, reached)
    every = cases()
    failures = Failures()
    picked = chosen(every, len(every) / WHOLE)
    for command, name, value in picked:
        one = ended(*words_of(world, command, name, value))
        failures.add(f"{command} {name} {value[:80]!a}", faults(one))
    failures.tell(len(picked))


def test_every_command_has_a_base(world: Path) -> None:
    assert set(bases(world)) == {command for command, _ in parameters()}
    assert len(cases()) > 900
