"""Every file that usk reads, damaged in many ways: a line, or the result as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.campaign import CONTENT, WAYS, Ended, Failures, chosen, damage, ended, faults

# Files of the world with the commands that read them, in a copy of the world's folder of that name.
SYNTH = "synth --strategy waveform --per-class 1 --out out --json --real"
THROUGH = "synth --model g --steps 1 --per-class 1 --out out --json --real WORLD/clips"
CUT = "synth --real WORLD/clips --strategy waveform --per-class 2 --out cut --json"
FIT = "fit --real WORLD/clips --steps 1 --from WORLD/model --batch 2 --json --out"
TRAIN = "train --real WORLD/clips --epochs 1 --seeds 1 --test-folds 1 --no-baseline --json --out"
CACHED = ("audio/*/*.json", "audio/*/*.i16", "opened/*", "revisions/*")  # each of them
PREDICT = "predict trained/run WORLD/clips/0.wav --json"
READERS: dict[str, list[str]] = {
    "clips/3.wav": [f"{SYNTH} clips", f"{SYNTH} clips --skip-bad"],
    "clips/metadata.csv": ["info clips --json", f"{SYNTH} clips"],
    "classes/low/r0/0.wav": ["info classes --json", "predict WORLD/trained/run classes --json"],
    "synth/usk.json": ["info synth --json", "audit synth --real WORLD/clips --json"],
    "synth/plan.jsonl": ["audit synth --real WORLD/clips --save --json"],
    "synth/README.md": ["info synth --json", "push synth me/synth --yes"],
    "synth/data/train-00000-of-00001.parquet": [
        "info synth --json",
        "report --synth synth --real WORLD/clips --json",
    ],
    "runs/real-0/run.json": ["eval runs --json", "report runs --json"],
    "runs/real-0/predictions.parquet": ["eval runs --json"],
    "runs/real-0/history.json": ["eval runs --json", "report runs --json"],
    "trained/run/config.json": ["info trained/run --json", PREDICT],
    "trained/run/model.safetensors": [PREDICT],
    "trained/run/run.json": ["info trained/run --json", "push trained/run me/run --yes"],
    "g/model_index.json": ["info g --json"],
    "g/unet/config.json": ["info g --json", THROUGH],
    "g/unet/diffusion_pytorch_model.safetensors": [THROUGH],
    "g/scheduler/scheduler_config.json": ["info g --json"],
    "g/mel/mel_config.json": ["info g --json"],
    "g/trained_on.json": ["info g --json", "push g me/g --yes"],
    "g/fit.json": [f"{FIT} g"],
    **{
        f"cut/{file}": [CUT]
        for file in (".work/units.json", ".work/made-000000-*.parquet", "plan.jsonl", "usk.json")
    },
    "g-cut/unet-checkpoint.pt": [f"{FIT} g-cut"],
    "run-cut/.*.checkpoint": [f"{TRAIN} run-cut"],
    **{f"cache/{file}": [f"{SYNTH} WORLD/clips"] for file in CACHED},
    "study.toml": ["study study.toml --dry-run"],
}
# Whatever is wrong with these is found.
HASHED = ("synth/data/", "cache/", "cut/.work/made", "g-cut/", "run-cut/")
NOISE = {"made", "seconds", "s", "elapsed_s", "seconds_per_clip", "page", "MB"}
NOISE |= {"folder", "revision", "license"}


def cases() -> list[tuple[str, str, str, int]]:
    return [
        (file, words, way, seed)
        for file, readers in READERS.items()
        for words in readers
        for way in WAYS
        for seed in range(2 if way in ("a bit", "a value") else 1)
    ]


def answer(one: Ended) -> Any:
    """What a command says, without what differs from call to call, and the hashes of the clips that it made."""
    files = sorted(Path().glob("*/data/*.parquet")) if one.words[0] == "synth" else ()
    made = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    try:
        value = json.loads(one.out)
    except ValueError:
        return one.out
    return {name: value[name] for name in value.keys() - NOISE} | made if isinstance(value, dict) else value


@pytest.mark.slow
def test_damaged_files(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = cases()
    picked = chosen(every, 0.27)
    sound: dict[str, Any] = {}
    failures = Failures()
    for file, words, way, seed in picked:
        top = file.split("/")[0]
        monkeypatch.setenv("USK_CACHE", str(Path("cache").resolve() if top == "cache" else world / "cache"))
        said = words.replace("WORLD", str(world)).split()
        for damaged in (False, True):
            if not damaged and words in sound:
                continue
            for left in Path().iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            copy = shutil.copytree if (world / top).is_dir() else shutil.copy2
            copy(world / top, top)
            if damaged:
                for match in sorted(Path().glob(file)):
                    damage(match, way, seed)
            one = ended(*said)
            fault = faults(one)
            if not damaged:
                sound[words] = answer(one)
                continue
            other = not fault and one.code == 0 and answer(one) != sound[words]
            if other and not _may_differ(file, way, one):
                fault = f"success with another result, unsaid: {one.out[:300]}"
            failures.add(f"{file} {way} {seed} {words}", fault)
    failures.tell(len(picked))


def _may_differ(file: str, way: str, one: Ended) -> bool:
    """Whether another result is what the user's own file now says, or is said."""
    if file.startswith(HASHED):
        return False
    if file.endswith(".wav") and way not in CONTENT:
        return True
    if way in ("gone", "a link to nothing"):  # such a folder is another one, if it is complete
        return True
    free = way not in ("empty", "half", "zeros", "noise", "nested", "a list") and way in CONTENT
    return free or bool(one.err.strip()) or ('"notes": []' not in one.out and "notes" in one.out)
