"""The command line on valid input: help, synth, train and eval, JSON, info."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.runs import rewrite, write_run
from tests.sounds import tone
from usk import __version__
from usk.synth.dataset_folder import encode_flac
from usk.synth.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "usk" / "diffusion" / "embedded" / "model_index.json"
COMMANDS = ("demo", "synth", "train", "eval", "predict", "audit", "report", "fit", "info")
HEAVY = ("torch", "numpy", "rich", "datasets", "pyarrow", "diffusers", "soundfile")

Command = Callable[..., Any]


@pytest.fixture
def synth_of(urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path) -> str:
    """`usk synth` on the tiny UrbanSound8K with the tiny generator, into tmp_path/synth."""
    return f"synth --real {urbansound8k_folder} --model {tiny_pipeline()} --out {tmp_path}/synth --steps 1 --per-class 3"


def test_help_lists_the_commands(usk: Command) -> None:
    ran = usk("--help").done()
    assert "Urban sound kit" in ran.out and all(f" {name} " in ran.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_long_one_stands_in_panels(usk: Command, name: str) -> None:
    ran = usk(name, "--help").done()
    assert "--json" in ran.out and "--quiet" in ran.out
    assert name not in ("synth", "train", "fit", "audit", "report") or "─ Options " not in ran.out


def test_help_in_a_process_of_its_own_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['usk', '--version']\nfrom usk.cli.app import main\n"
        "try:\n    main()\nfinally:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == f"usk {__version__}\n[]\n"


def test_a_terminal_that_knows_ascii_alone_gets_the_tables(
    usk_process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "real", seed, skill=0.5 + 0.1 * seed)
    process = usk_process("eval", tmp_path, PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "55.0 ? " in out and not err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_device_in_place_of_a_terminal_is_one_line(
    usk_process: Callable[..., subprocess.Popen[str]], tmp_path: Path, more: list[str]
) -> None:
    write_run(tmp_path, "real", 0)
    with Path("/dev/full").open("w") as full:
        process = usk_process("eval", tmp_path, *more, stdout=full)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and err.count("\n") == 1
    assert err.startswith(
        "usk: No space left on device where results are written; free some and run the same"
    )


@pytest.mark.parametrize("debug", ["", "1"])
def test_python_m_usk_ends_with_the_commands_exit_code(
    usk_process: Callable[..., subprocess.Popen[str]], tmp_path: Path, debug: str
) -> None:
    """One line, or with USK_DEBUG the traceback."""
    process = usk_process("eval", tmp_path, USK_DEBUG=debug)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    if debug:
        assert "Traceback" in errors and "SourceError: no runs under" in errors
    else:
        assert errors.startswith("usk: ") and errors.count("\n") == 1


def test_synth_train_and_eval_chain_in_json(
    usk: Command, synth_of: str, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    made = usk(synth_of, "--json").value
    assert set(made) == {"folder", "clips", "made", "elapsed_s", "counts", "model", "notes", "settings"}
    assert (made["clips"], made["made"]) == (9, 9)
    manifest = json.loads((tmp_path / "synth" / "usk.json").read_text())
    (render,) = manifest["render"].values()
    assert made["settings"] == {"decomposed": {**render, "precision": manifest["precision"]}}
    assert made["counts"] == {name: {"1": 1, "2": 1, "3": 1} for name in ("car_horn", "dog_bark", "siren")}
    trained = usk(
        "--json", "train", "--real", urbansound8k_folder, "--synth", tmp_path / "synth", "--mix", "real", "--mix",
        "real,synth", "--out", tmp_path / "runs", "--epochs", 1, "--seeds", 1, "--no-baseline", "--test-folds", "2,3", "--quiet",
    )  # fmt: skip
    assert trained.err == ""
    assert set(trained.value) == {"runs", "notes"}
    runs = trained.value["runs"]
    assert [(run["mix"], run["split"]) for run in runs] == [
        ("real", "fold2"), ("real,synth", "fold2"), ("real", "fold3"), ("real,synth", "fold3"),
    ]  # fmt: skip
    assert [run["n_synthetic"] for run in runs] == [0, 6, 0, 6]
    assert [run["dropped"] for run in runs] == [0, 3, 0, 3]
    assert len({run["steps"] for run in runs}) == 1
    assert all((Path(run["folder"]) / "model.safetensors").is_file() for run in runs)
    (comparison,) = usk("eval", tmp_path / "runs", "--json").value
    assert {"title", "rows", "classes", "baseline", "optimistic", "warning", "notes"} <= set(comparison)
    assert [row["mix"] for row in comparison["rows"]] == ["real", "real,synth"]
    mean = sum(run["accuracy"] for run in runs if run["mix"] == "real") / 2
    assert comparison["rows"][0]["accuracy"]["mean"] == pytest.approx(mean)

    table = usk("eval", tmp_path / "runs").out
    for row in comparison["rows"]:
        line = next(line for line in table.splitlines() if line.startswith(f"{row['mix']:<10}  "))
        subsets = re.split(r"\s{2,}", line.strip())
        assert subsets[1:4] == [str(row["n_runs"]), str(row["n_real"]), str(row["n_synthetic"])]
        assert subsets[4].split(" ")[0] == f"{100 * row['accuracy']['mean']:.1f}"
        assert subsets[5].split(" ")[0] == f"{100 * row['macro_f1']['mean']:.1f}"
        if row["difference"] is not None:
            assert subsets[6] == f"{row['difference']['difference_points']:+.1f}"
            assert row["sentence"] in " ".join(table.split())
    assert [row["class_name"] for row in comparison["classes"]] == ["car_horn", "dog_bark", "siren"]

    run = usk("info", runs[0]["folder"], "--json").value
    assert run["mix"] == "real"
    assert run["accuracy"] == pytest.approx(runs[0]["accuracy"], abs=1e-4)
    usk("info", tmp_path / "runs").refused(2, "holds 4 runs", f"usk eval {tmp_path}/runs")
    page = usk("report", tmp_path / "runs", "--out", tmp_path / "page.html").done()
    assert "no clips to play" in page.err and page.out.splitlines()[0] == "report"


def test_synth_and_train_in_tables(
    usk: Command, synth_of: str, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    planned = usk(synth_of, "--verbose")
    assert "decomposed: strength 0.5, steps 1, solver second-order" in planned.err.replace("\n", "")
    shutil.rmtree(tmp_path / "synth")
    made = usk(synth_of).done()
    assert "9 made now" in made.out
    assert "solver second-order" not in made.err
    next_command = f"Next: usk train --mix real,synth --real {urbansound8k_folder} --synth {tmp_path}/synth"
    assert made.out.splitlines()[-1] == next_command, "not broken into lines"
    again = usk(synth_of).done().out
    assert again.splitlines()[-2:] == ["all were there", made.out.splitlines()[-1]]
    drawn = f"synth --real {urbansound8k_folder} --strategy waveform --per-class 1 --test-folds 2 --out {tmp_path}/two"
    assert usk(drawn).done().out.splitlines()[-1].endswith(f"--synth {tmp_path}/two --test-folds 2")
    assert "\n\n" not in made.err, "a log has no empty lines where progress bars would be"
    command = f"train --epochs 1 --seeds 1 --test-folds 1 --real {urbansound8k_folder} --out {tmp_path}/runs"
    first, again = usk(command).done(), usk(command).done()
    assert "fold1" in first.out
    assert "trained before" not in first.out
    assert "trained before: 1 of 1" in again.out
    (predictions,) = (tmp_path / "runs").glob("*/predictions.parquet")
    for others, expected in ((0, True), (1, False)):
        n_clips = pq.read_table(predictions).num_rows
        rewrite(predictions.parent, "predicted", [0] * (n_clips - others) + [1] * others)
        nothing = "1 run of 1 learned nothing and took all test clips for one class (real_small_fold1"
        assert (nothing in " ".join(usk(command).err.split())) is expected


def test_a_dry_run_shows_the_plan_and_makes_nothing(usk: Command, synth_of: str, tmp_path: Path) -> None:
    rows = usk(synth_of, "--dry-run", "--json").value
    assert len(rows) == 9
    assert set(rows[0]) == {
        "clip_id", "label", "class", "fold", "parents", "parent_names", "parent_groups", "parent_folds", "parent_seconds",
        "prompt", "strategy", "weights", "seed",
    }  # fmt: skip
    for wrong, message in (
        (("--model", tmp_path / "nowhere"), "no such pipeline folder"),
        (("--device", "tpu"), "--device tpu: "),
        (("--strategy", "sample"), "--strategy sample: needs a generator of classes"),
        (("--out", tmp_path), f"--out {tmp_path}: holds other files"),
    ):
        refused = usk(synth_of, *wrong, "--dry-run")
        assert refused.code in (1, 2) and message in refused.err and not refused.out
    shown = usk(synth_of, "--dry-run")
    assert "plan: 9 clips" in shown.out
    assert all(name in shown.out for name in rows[0]["parent_names"])
    assert not (tmp_path / "synth").exists()
    made = usk(synth_of)
    notes = [[line for line in ran.err.splitlines() if line.startswith("note:")] for ran in (shown, made)]
    assert notes[0] == notes[1] != []
    planned = [json.loads(line) for line in (tmp_path / "synth" / "plan.jsonl").read_text().splitlines()]
    assert planned == rows


def test_classes_and_folds_can_be_chosen(usk: Command, synth_of: str) -> None:
    rows = usk(synth_of, "--classes", "siren, dog_bark", "--test-folds", 2, "--dry-run", "--json").value
    assert {row["class"] for row in rows} == {"siren", "dog_bark"}
    assert {row["fold"] for row in rows} == {1, 3}


OPTIONS = {"slerp": "--alpha 0.2:0.8", "waveform": "--alpha 0.4", "average": "--alpha 0.4"}
OPTIONS |= {"sample": "--guidance 2", "resynthesis": "--phase parents"}


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"decomposed", "classical"}))
def test_every_strategy_makes_a_dataset_that_trains(
    usk: Command,
    urbansound8k_folder: Path,
    tiny_pipeline: Any,
    tmp_path: Path,
    strategy: str,
) -> None:
    from datasets import Audio, load_dataset

    kind, more = STRATEGIES[strategy], OPTIONS.get(strategy, "")
    through_network = kind.encodes and not kind.is_control
    out = tmp_path / "synth"
    # The model does not know one class of three, except with `sample`, which needs all classes.
    model = tiny_pipeline(class_names=("siren", "dog_bark", *(("car_horn",) if strategy == "sample" else ())))
    made = usk(
        f"synth --real {urbansound8k_folder} --model {model} --out {out} --per-class 2 --quality draft"
        f" --strategy {strategy} {more} --test-folds 3 --json"
    ).done()
    assert ("does not know car_horn" in made.err) == through_network
    rows = load_dataset(str(out), split="train").cast_column("audio", Audio(decode=False))
    assert len(rows) == 6
    for row in rows:
        assert len(row["parents"]) == len(set(row["parent_groups"])) == len(row["weights"]) == kind.n_parents
        assert (row["strategy"], sum(row["weights"])) == (strategy, pytest.approx(1))
        assert strategy != "slerp" or 0.2 <= row["weights"][1] <= 0.8
    card = (out / "README.md").read_text()
    assert f"| strategy | `{strategy}`: " in card
    assert (r"The generator does not know car\_horn" in card) == ("does not know car_horn" in made.err)
    trained = usk(
        f"train --real {urbansound8k_folder} --synth {out} --mix real,synth --out {tmp_path}/runs"
        " --epochs 1 --seeds 1 --no-baseline --test-folds 3 --json"
    ).done()
    assert trained.value["runs"][0]["n_synthetic"] > 0


def test_info_on_nothing_shows_the_installation_and_its_cache(
    usk: Command, urbansound8k_folder: Path
) -> None:
    before = usk("info", "--json").value
    assert before["usk"] == __version__
    assert before["cache MB"] == 0
    usk("train", "--real", urbansound8k_folder, "--seeds", 1, "--test-folds", 9)
    after = usk("info", "--json").value
    assert after["cache"] == before["cache"]
    assert after["cache MB"] > 0


def test_info_on_a_source(
    usk: Command, urbansound8k_folder: Path, tone_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = usk(f"info {urbansound8k_folder} --json").value
    assert (value["clips"], value["recordings"], value["folds"]) == (54, 27, [1, 2, 3])
    assert value["license"] == "CC BY-NC 3.0"
    assert [row["class"] for row in value["classes"]] == ["car_horn", "dog_bark", "siren"]
    assert all(row["mean_s"] > 0 for row in value["classes"])
    assert "CC BY-NC 3.0" in usk(f"info {urbansound8k_folder}").out
    unknown = usk(f"info {tone_folder} --json").value["classes"]  # no table has the lengths
    assert all((row["seconds"], row["mean_s"]) == (None, None) for row in unknown)
    assert "mean s" not in usk(f"info {tone_folder}").out
    monkeypatch.setenv("USK_REAL", str(urbansound8k_folder))
    assert len(usk("synth --dry-run --per-class 2 --json").value) == 6


def test_info_on_the_demo(usk: Command) -> None:
    value = usk("info", "demo", "--json").value
    assert len(value["classes"]) == 10
    assert any("procedural sound, not field recordings" in note for note in value["notes"])


def test_info_on_a_generator(usk: Command, tiny_pipeline: Callable[..., Path]) -> None:
    value = usk("info", tiny_pipeline(vae=True), "--json").value
    assert value["kind"] == "generator"
    assert (value["mel bands"], value["family"]) == (16, "audio-diffusion mel images")
    assert usk("info", tiny_pipeline()).code == 0


@pytest.mark.slow
def test_a_generator_fitted_here_makes_clips_and_knows_what_it_was_trained_on(
    usk: Command, tone_folder: Path, tmp_path: Path
) -> None:
    fit = f"fit --real {tone_folder} --batch 2"
    fitted = usk(f"{fit} --out {tmp_path}/gen --steps 2 --json").done()
    assert fitted.value["folder"] == str(tmp_path / "gen")
    assert (tmp_path / "gen" / "preview.png").is_file()
    assert "`usk fit` (usk " in (tmp_path / "gen" / "README.md").read_text()
    trained = json.loads((tmp_path / "gen" / "trained_on.json").read_text())["sources"][0]
    assert trained["source"] == tone_folder.name
    assert len(trained["groups"]) == fitted.value["recordings"] > 0
    further = usk(f"{fit} --from {tmp_path}/gen --out {tmp_path}/further --steps 1 --json").done()
    counts = ("recordings", "held out")
    assert [further.value[name] for name in counts] == [fitted.value[name] for name in counts], "each once"
    made = usk(
        f"synth --real {tone_folder} --model {tmp_path}/gen --per-class 1 --steps 1 --out {tmp_path}/synth"
        " --json"
    )
    assert made.value["model"].startswith("gen@")
    usk(
        f"train --real {tone_folder} --synth {tmp_path}/synth --mix real,synth --epochs 1 --quiet --out {tmp_path}/runs"
    ).refused(1, "its generator was trained on")
    clip = next(tone_folder.rglob("*.wav"))
    content = clip.read_bytes()
    clip.write_bytes(b"")  # is not read
    usk(f"{fit} --out {tmp_path}/gen --steps 2 --quiet").refused(2, "holds a finished generator")
    clip.write_bytes(content)
    named = usk(fit, "--steps", 1, "--from", tmp_path / "gen", "--out", tmp_path / "a generator").done()
    text = re.sub(r"\s+", " ", named.out)
    assert f"Next: usk synth --model '{tmp_path}/a generator' --real {tone_folder}" in text


# --- with the embedded generator, which usk/diffusion/embedded holds


@pytest.mark.slow
def test_the_embedded_generator_is_the_default_on_a_cpu_and_says_what_it_was_trained_on(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    synth = f"synth --real {urbansound8k_folder} --device cpu --per-class 1 --steps 2 --out {tmp_path}/synth --json"
    made = usk(synth).done()
    assert made.value["model"].startswith("embedded@")
    assert (made.value["clips"], made.value["made"]) == (3, 3)
    value = usk("info embedded --json").value
    assert value["mel bands"] >= 64
    assert value["longest clip s"] == pytest.approx(4.0, abs=0.05)
    assert value["sample rate Hz"] == 22_050
    assert value["license"] == "CC BY-NC 3.0"
    trained_on = " ".join(value["trained on"])
    assert "urbansound8k folds 1, 3 (" in trained_on and "demo" in trained_on
    assert sum(file.stat().st_size for file in EMBEDDED.parent.rglob("*") if file.is_file()) <= 24_000_000


@pytest.mark.slow
def test_the_demo_leaves_a_dataset_runs_and_the_next_commands(
    usk: Command, tmp_path: Path, demo_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usk.cli.demo.PER_CLASS", 1)
    monkeypatch.setattr("usk.cli.demo.EPOCHS", 1)
    monkeypatch.chdir(tmp_path)
    ran = usk("demo", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert "usk synth --real FOLDER --per-class 50" in ran.out
    assert "computed sounds" in ran.out and Path("usk-demo/report.html").is_file()
    assert usk("info", "usk-demo/synth", "--json").value["clips"] == 10
    assert len(usk("eval", "usk-demo/runs", "--json").value[0]["rows"]) == 2


def test_clips_made_when_recordings_were_named_otherwise(usk: Command, tmp_path: Path) -> None:
    """Clips without named recordings can be paired. With names, clips never test what a clip of their recording trained."""
    rows = [(label, place, cut) for label in ("low", "high") for place in range(6) for cut in range(2)]
    audio = [
        {"bytes": encode_flac(tone({"low": 300, "high": 2_700}[label] + 20 * place, 0.3 + 0.1 * cut), 22_050)}
        for label, place, cut in rows
    ]
    (tmp_path / "field").mkdir()
    table = {
        "audio": audio,
        "label": [row[0] for row in rows],
        "place": [f"{row[0]}{row[1]}" for row in rows],
    }
    pq.write_table(pa.table(table), tmp_path / "field" / "clips.parquet")
    real = ("--real", tmp_path / "field")
    usk(
        "synth", *real, "--strategy", "waveform", "--per-class", 8, "--out", tmp_path / "synth", "--quiet"
    ).done()
    train = ("train --mix real,synth --epochs 1 --no-baseline", *real, "--synth", tmp_path / "synth")
    more = ("--seeds", 1, "--columns", "group=place", "--out", tmp_path / "runs", "--json")
    trained = usk(*train, *more).done()
    assert all(run["n_synthetic"] + run["dropped"] == 16 for run in trained.value["runs"])
    assert any(run["dropped"] for run in trained.value["runs"])
    looked = usk("audit", tmp_path / "synth", *real, "--columns", "group=place", "--test-folds", 1, "--json")
    assert looked.value["asked_leaks"] > 0
    assert {part["generator_trained_on"] for part in looked.value["folds"]} == {0}, "there was none"
    assert usk("audit", tmp_path / "synth", *real, "--json").value["leaks"] is False


def test_a_mix_that_names_a_folder_by_its_path_is_compared_too(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a run with the mix `./made` must not begin with a dot, which would hide it."""
    monkeypatch.chdir(tmp_path)
    usk(f"synth --real {urbansound8k_folder} --strategy waveform --per-class 3 --out made").done()
    train = ["train --mix real --mix real,./made --mix ./made", "--real", urbansound8k_folder]
    usk(*train, "--seeds", 1, "--test-folds", 1, "--epochs", 1, "--json").done()
    compared = usk("eval --json").done()
    rows = {row["mix"] for comparison in compared.value for row in comparison["rows"]}
    assert rows == {"real", "real,./made", "./made"}
    missing = usk("train", "--real", urbansound8k_folder, "--mix", "./missing")
    assert missing.code == 1 and "--mix ./missing: no such folder" in missing.err


def test_bad_clips_of_a_source_in_a_mix_are_skipped_on_demand(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(urbansound8k_folder, other)
    metadata = other / "metadata" / "UrbanSound8K.csv"  # other recordings, one of whose clips is not there
    metadata.write_text(re.sub(r"(?m)^(\d+)(-[^,]*,)\d+", r"9\1\g<2>9\1", metadata.read_text()))
    for file in other.glob("audio/*/*.wav"):
        file.rename(file.with_name(f"9{file.name}"))
    next(iter(sorted(other.glob("audio/fold1/*.wav")))).unlink()
    train = f"train --seeds 1 --no-baseline --test-folds 1 --epochs 1 --real {urbansound8k_folder} --mix real,{other}"
    train += f" --out {tmp_path}/runs --quiet"
    usk(train).refused(1, "1 of 54 clips", "leave them out with --skip-bad")
    usk(f"{train} --skip-bad").done()


def test_a_class_that_no_clip_trains_is_said(usk: Command, urbansound8k_folder: Path, tmp_path: Path) -> None:
    metadata = urbansound8k_folder / "metadata" / "UrbanSound8K.csv"
    head, *rows = metadata.read_text().splitlines()
    place, fold = head.split(",").index("class"), head.split(",").index("fold")
    kept = [row for row in rows if row.split(",")[place] != "siren" or row.split(",")[fold] == "1"]
    metadata.write_text("\n".join([head, *kept]) + "\n")
    ran = usk(
        f"train --seeds 1 --test-folds 1,2 --epochs 1 --real {urbansound8k_folder} --out {tmp_path}/runs"
    ).done()
    text = re.sub(r"\s+", " ", ran.err)
    assert "real, test part fold1: no clips of siren train there, so none can be recognized" in text
    assert "test part fold2: no clips of" not in text


def test_synthetic_clips_are_no_real_ones_to_test_on(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    usk(f"synth --real {urbansound8k_folder} --strategy waveform --per-class 2 --out {made}").done()
    refused = usk("train", "--real", made, "--out", tmp_path / "runs")
    assert refused.code == 2 and not (tmp_path / "runs").exists()
    assert f"--real {made}: holds synthetic clips, and test clips must be real" in refused.err


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_keeps_the_bars_of_the_hubs_client_back(quiet: bool) -> None:
    script = f"""
import sys
from unittest import mock
from rich.console import Console
from usk.cli.options import display_for
with mock.patch.object(Console, "is_terminal", True):
    display_for(mock.Mock(obj={{'quiet': {quiet}}}))
assert "huggingface_hub" not in sys.modules
from huggingface_hub.utils import are_progress_bars_disabled
print(are_progress_bars_disabled())
"""
    environment = {
        name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"
    }
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert ran.stdout.strip() == str(quiet)


def test_ctrl_c_in_a_destructor_is_not_lost(usk: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    reached = []

    def slow(*_: object, **__: object) -> None:
        Dying()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            time.sleep(0.01)
        reached.append("the end")

    monkeypatch.setattr("usk.cli.info._describe_installation", slow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C
    try:
        ran = usk("info")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ran.code, reached) == (130, [])
    assert ran.err == "usk: stopped; finished work is kept, and the same command continues from there\n"


def test_all_classes_with_too_few_recordings_are_said_at_once(usk: Command, tone_folder: Path) -> None:
    for name in ("low", "middle"):
        for recording in (1, 2, 3):
            shutil.rmtree(tone_folder / name / f"{name}{recording}")
    synth = f"synth --real {tone_folder} --per-class 1 --dry-run --quiet"
    usk(synth).refused(
        1,
        "usk: classes low, middle cannot be interpolated: a clip needs 2 recordings (they have 1, 1 in all",
        "Leave low, middle out, take a strategy of one parent (variation",
    )
    usk(f"{synth} --strategy classical").done()
    usk(synth, "--classes", "").refused(2, "--classes: names no class")


def test_a_file_that_begins_with_a_dash(
    usk: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-cut.wav").touch()
    usk("predict runs -cut.wav").refused(2, "write ./-cut.wav for the file of that name\n")


def test_one_mix_alone_is_compared_with_nothing(usk: Command, tmp_path: Path) -> None:
    write_run(tmp_path, "real,synth")
    assert "real,synth is the only mix: train the mix real" in re.sub(r"\s+", " ", usk("eval", tmp_path).out)


def test_what_comes_next_reads_the_clips_in_the_same_way(usk: Command, tmp_path: Path) -> None:
    table = pa.table(
        {
            "audio": [{"bytes": encode_flac(tone(300 + 50 * i, 0.5, 22_050), 22_050), "path": None} for i in range(24)],
            "kind": ["low", "high"] * 12,
            "tape": [f"t{i}" for i in range(24)],
            "category": ["x"] * 24,
        }
    )  # fmt: skip
    (tmp_path / "set").mkdir()
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    columns = ("--columns", "label=kind,group=tape", "--skip-bad")
    common = ("--real", tmp_path / "set", *columns)
    made = usk(
        "synth", *common, "--strategy", "waveform", "--per-class", 2, "--out", tmp_path / "made", "--quiet"
    )
    text = re.sub(r"\s+", " ", made.out)
    assert f"--synth {tmp_path / 'made'} --skip-bad --columns label=kind,group=tape" in text
    usk(*text.split("Next: usk ")[1].split(), "--epochs", 1, "--out", tmp_path / "runs", "--quiet").done()
