"""Text-to-audio models, tiny and random, through the real entry point: prompts, provenance, resume, and wrong input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.diffusion.text_models import MODELS, save_model
from tests.hub_server import LocalHub
from usk.cli.app import main
from usk.data.decode import decode_source
from usk.data.leaks import leaking, unknown_generator
from usk.data.open import open_source
from usk.data.pinned import cache_folder
from usk.data.splits import fold_split
from usk.diffusion.generator import Condition, Generator
from usk.diffusion.load import load_generator
from usk.diffusion.sampler import SamplerConfig
from usk.errors import ModelError, UsageError
from usk.manifest import read_manifest
from usk.synth import synthesize as synthesize_module
from usk.synth.chosen_generator import ready_generator
from usk.synth.settings import SynthConfig, render_config
from usk.synth.synthesize import synthesize

PROMPTS = 'dog_bark = ["a dog", "two dogs"]\nsiren = "a siren"\n'


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: save_model(name, tmp_path_factory.mktemp(name)) for name in MODELS}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.toml"
    file.write_text(PROMPTS, encoding="utf-8")
    return file


def usk(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["usk", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def synth_arguments(real: Path, model: Path, prompts: Path, out: Path) -> list[object]:
    return [
        "synth", "--real", real, "--model", model, "--prompt", prompts, "--classes", "dog_bark,siren",
        "--per-class", 4, "--steps", 2, "--device", "cpu", "--quiet", "--out", out,
    ]  # fmt: skip


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [
        row for file in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_prompts_are_in_every_row_and_the_clips_train_a_classifier(
    name: str, models: dict[str, Path], prompts: Path, urbansound8k_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, hub: LocalHub, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out, other = tmp_path / "synth", tmp_path / "other"
    given = (urbansound8k_folder, models[name], prompts)
    capsys.readouterr()
    assert usk(monkeypatch, *synth_arguments(*given, out), "--dry-run") == 0
    assert "two dogs" in capsys.readouterr().out
    assert usk(monkeypatch, *synth_arguments(*given, out), "--batch", 4) == 0
    rows = rows_in(out)
    of_class = {"dog_bark": {"a dog", "two dogs"}, "siren": {"a siren"}}
    names = read_manifest(out).class_names
    assert len(rows) == 8 and all(row["prompt"] in of_class[names[row["label"]]] for row in rows)
    assert {row["prompt"] for row in rows} == {"a dog", "two dogs", "a siren"}
    assert read_manifest(out).prompts == {"dog_bark": ("a dog", "two dogs"), "siren": ("a siren",)}

    assert usk(monkeypatch, *synth_arguments(*given, other), "--batch", 3) == 0
    for mine, others in zip(rows, rows_in(other), strict=True):
        assert {**mine, "audio": None} == {**others, "audio": None} | {"gain_db": mine["gain_db"]}
        assert mine["gain_db"] == pytest.approx(others["gain_db"], abs=0.01)

    runs = tmp_path / "runs"
    train: Sequence[object] = (
        "train", "--real", urbansound8k_folder, "--synth", out, "--mix", "real", "--mix", "real,synth",
        "--test-folds", "1", "--seeds", 1, "--epochs", 1, "--device", "cpu", "--quiet", "--out", runs,
    )  # fmt: skip
    assert usk(monkeypatch, *train) == 0
    assert usk(monkeypatch, "eval", runs, "--quiet") == 0
    page = tmp_path / "report.html"
    assert (
        usk(
            monkeypatch,
            "report",
            runs,
            "--synth",
            out,
            "--real",
            urbansound8k_folder,
            "--out",
            page,
            "--quiet",
        )
        == 0
    )
    assert "two dogs" in page.read_text(encoding="utf-8")
    hub.add_user("me", "hf_me")
    hub.login("hf_me")
    assert usk(monkeypatch, "push", out, "me/synth", "--yes", "--quiet") == 0
    assert usk(monkeypatch, "info", "me/synth", "--quiet") == 0
    assert set(hub.repo("dataset", "me/synth").files()) >= {"usk.json", "README.md", "plan.jsonl"}


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_clips(
    models: dict[str, Path], prompts: Path, urbansound8k_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    once, killed = tmp_path / "once", tmp_path / "killed"

    def arguments(out: Path) -> list[object]:
        return [
            *synth_arguments(urbansound8k_folder, models["stable_audio_3"], prompts, out),
            "--batch",
            2,
        ]

    monkeypatch.setattr(synthesize_module, "ROWS_PER_SHARD", 2)
    assert usk(monkeypatch, *arguments(once)) == 0
    code = "import sys, usk.synth.synthesize as s; s.ROWS_PER_SHARD = 2; from usk.cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments(killed))], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while process.poll() is None and not list(killed.glob(".work/made-*.parquet")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert usk(monkeypatch, *arguments(killed)) == 0
    for name in ("usk.json", "plan.jsonl"):
        mine, others = ((folder / name).read_text().replace(str(folder), "OUT") for folder in (once, killed))
        assert mine == others
    assert rows_in(once) == rows_in(killed)


def refused(
    arguments: Sequence[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    assert usk(monkeypatch, *arguments) in (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    return said[0]


def test_prompts_for_a_generator_or_strategy_without_any_are_refused(
    prompts: Path, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real = ("synth", "--real", urbansound8k_folder, "--out", tmp_path / "out", "--quiet")
    line = refused([*real, "--prompt", "a {class}", "--model", "embedded"], monkeypatch, capsys)
    assert line.startswith("usk: --prompt a {class}: has no effect") and "takes no prompts" in line
    line = refused([*real, "--prompt", "a {class}", "--strategy", "waveform"], monkeypatch, capsys)
    assert line.startswith("usk: --prompt a {class}: has no effect")
    line = refused([*real, "--prompt", "a {class}", "--quality", "published"], monkeypatch, capsys)
    assert line.startswith("usk: --prompt a {class}: has no effect")
    line = refused([*real, "--prompt", prompts, "--model", "nobody/nothing"], monkeypatch, capsys)
    assert "has no prompt for" in line  # before anything is downloaded


def test_a_prompt_whose_end_the_model_would_not_read_is_refused(
    models: dict[str, Path], urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Every class would have the same prompt: {class} is what is cut."""
    given = [
        "--real",
        urbansound8k_folder,
        "--prompt",
        "x" * 10_000 + "{class}",
        "--device",
        "cpu",
        "--quiet",
    ]
    given += ["--out", tmp_path / "out"]
    line = refused(["synth", "--model", models["audioldm"], *given], monkeypatch, capsys)
    assert line.startswith("usk: --prompt xxx") and "reads the first 48" in line and len(line) < 200
    line = refused(["fit", "--lora", "--from", models["audioldm"], *given], monkeypatch, capsys)
    assert line.startswith("usk: --prompt xxx") and not (tmp_path / "out").exists()


def edited(folder: Path, file: str, **values: object) -> None:
    config = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps({**config, **values}), encoding="utf-8")


def truncated(folder: Path) -> None:
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1_000])


def without_a_tensor(folder: Path, component: str) -> None:
    """The libraries would fill it with random numbers, and clips would be wrong without a word."""
    (file,) = (folder / component).glob("*.safetensors")
    tensors = load_file(file)
    del tensors[sorted(tensors)[len(tensors) // 2]]
    save_file(tensors, file, metadata={"format": "pt"})


def in_whole_numbers(folder: Path) -> None:
    (file,) = (folder / "vae").glob("*.safetensors")
    tensors = {name: (100 * tensor).to(torch.int8) for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: edited(f, "model_index.json", _class_name="FluxPipeline"), "FluxPipeline is not known"),
        (lambda f: edited(f, "model_index.json", _class_name="FluxPipeline"), "AudioLDM2Pipeline"),
        (lambda f: without_a_tensor(f, "unet"), "unet cannot be loaded: its files lack"),
        (lambda f: without_a_tensor(f, "text_encoder"), "text_encoder cannot be loaded: its files lack"),
        (lambda f: edited(f, "unet/config.json", block_out_channels=[16, 32]), "unet cannot be loaded"),
        (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer cannot be loaded"),
        (in_whole_numbers, "whole numbers"),
        (lambda f: edited(f, "model_index.json", vae=["diffusers"]), "cannot be loaded"),
        (
            lambda f: edited(f, "model_index.json", vocoder=["evil", "Model"]),
            "component vocoder is of 'evil'",
        ),
        (truncated, "cannot be loaded"),
        (lambda f: edited(f, "vocoder/config.json", upsample_rates=[]), "--model"),
        (lambda f: (f / "scheduler" / "scheduler_config.json").unlink(), "cannot be loaded"),
    ],
    ids=[
        "unknown family",
        "known families",
        "unet cut",
        "text encoder cut",
        "other sizes",
        "no tokenizer",
        "quantized",
        "odd index",
        "foreign component",
        "truncated weights",
        "no rates",
        "no scheduler",
    ],
)
def test_a_model_that_cannot_be_used_is_one_line(
    damage: Callable[[Path], object], said: str, models: dict[str, Path], urbansound8k_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "model"
    shutil.copytree(models["audioldm"], folder)
    damage(folder)
    synth = ["synth", "--real", urbansound8k_folder, "--model", folder, "--out", tmp_path / "out", "--quiet"]
    line = refused([*synth, "--device", "cpu"], monkeypatch, capsys)
    assert line.startswith(f"usk: --model {folder}: ") and said in line
    assert not (tmp_path / "out").exists()


def test_without_transformers_the_extra_is_named(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError) as caught:
        load_generator(str(models["audioldm"]), "cpu")
    assert "urban-sound-kit[hf]" in caught.value.hint


@pytest.fixture(scope="module")
def distilled(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Generator:
    folder = tmp_path_factory.mktemp("distilled") / "model"
    shutil.copytree(models["stable_audio_3"], folder)
    edited(folder, "scheduler/scheduler_config.json", stochastic_sampling=True)
    return load_generator(str(folder), "cpu", "fp32")


@pytest.mark.parametrize("strategy", ["decomposed", "slerp"])
def test_a_distilled_model_does_not_invert(distilled: Generator, strategy: str) -> None:
    with pytest.raises(UsageError) as caught:
        ready_generator(distilled, "cpu", render_config(strategy=strategy))
    assert caught.value.field == "strategy"
    assert "variation" in caught.value.hint and "sample" in caught.value.hint


@pytest.mark.parametrize("strategy", ["variation", "sample"])
def test_a_distilled_model_varies_and_samples(
    distilled: Generator, strategy: str, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    source = open_source(urbansound8k_folder)
    config = SynthConfig(2, classes=("dog_bark",), render=render_config(strategy=strategy, steps=3))
    result = synthesize(source, tmp_path / "out", config, model=distilled, device="cpu")
    assert len(rows_in(result.folder)) == 2 and result.manifest.render["guidance"] == 1.0


def test_all_noise_of_a_distilled_model_is_fresh_and_each_clip_has_its_own(distilled: Generator) -> None:
    latents = torch.randn(2, *distilled.latent_shape(distilled.crop(2_000)))
    sampler, condition = SamplerConfig(3), Condition(["a dog", "rain"])
    first = distilled.sample(latents, sampler, condition, seeds=[1, 2])
    assert not torch.allclose(first, distilled.sample(latents, sampler, condition, seeds=[3, 2]))
    alone = distilled.sample(latents[1:], sampler, Condition(["rain"]), seeds=[2])
    torch.testing.assert_close(alone, first[1:], atol=1e-4, rtol=1e-3)


def test_a_negative_prompt_changes_clips_and_is_on_record(
    models: dict[str, Path], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    source, audio = open_source(urbansound8k_folder), []
    for negative in ("", "music"):
        render = render_config(strategy="sample", steps=2, negative_prompt=negative)
        config = SynthConfig(1, classes=("dog_bark",), render=render)
        out = tmp_path / f"out {negative}"
        made = synthesize(source, out, config, model=str(models["audioldm"]), device="cpu")
        assert made.manifest.render["negative_prompt"] == negative
        audio.append(rows_in(out)[0]["audio"]["bytes"])
    assert audio[0] != audio[1]


def test_what_a_family_was_trained_on_is_said_and_urbansound8k_is_warned_of(
    models: dict[str, Path], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    config = SynthConfig(1, classes=("dog_bark",), render=render_config(strategy="sample", steps=1))
    source = open_source(urbansound8k_folder)
    made = synthesize(source, tmp_path / "out", config, model=str(models["audioldm"]), device="cpu")
    (part,) = made.manifest.trained_on
    assert part.is_incomplete and "Freesound" in part.note
    assert any("UrbanSound8K comes from Freesound" in note for note in made.notes)
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert "AudioSet, AudioCaps, Freesound and BBC sound effects" in card and "a field recording of" in card
    assert unknown_generator(open_source(made.folder)) is not None


def test_a_pipeline_of_the_hub_loads_without_what_lies_at_its_top(
    hub: LocalHub, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models["audioldm"], folder)
    (folder / "model.safetensors").write_bytes(b"the same weights once more")
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    hub.create_repo("model", "someone/tiny", folder)
    generator = load_generator("someone/tiny", "cpu", "fp32")
    assert generator.model_id.startswith("someone/tiny@") and generator.takes_prompts
    pinned = cache_folder("someone/tiny", "model") / "snapshots"
    assert list(pinned.glob("*/tokenizer/merges.txt")) and not list(pinned.glob("*/model.safetensors"))


def test_an_adapter_of_a_model_on_the_hub_is_fitted_pushed_and_used(
    hub: LocalHub, models: dict[str, Path], prompts: Path, urbansound8k_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    hub.add_user("me", "hf_me")
    hub.login("hf_me")
    hub.create_repo("model", "someone/tiny", models["audioldm"])
    text = "a recording of {class}"
    fit: Sequence[object] = (
        "fit", "--real", urbansound8k_folder, "--from", "someone/tiny", "--lora", "--prompt", text, "--steps", 2,
        "--batch", 2, "--test-folds", 1, "--device", "cpu", "--quiet", "--out", tmp_path / "adapter",
    )  # fmt: skip
    assert usk(monkeypatch, *fit) == 0
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "base_model: someone/tiny" in card and "a recording of dog bark" in card
    assert usk(monkeypatch, "push", tmp_path / "adapter", "me/adapter", "--yes", "--quiet") == 0
    files = hub.repo("model", "me/adapter").files()
    assert set(files) >= {"adapter_config.json", "adapter_model.safetensors", "trained_on.json", "README.md"}
    assert str(tmp_path).encode() not in b"".join(files.values())
    assert usk(monkeypatch, "info", "me/adapter", "--quiet") == 0
    arguments = synth_arguments(urbansound8k_folder, Path("me/adapter"), prompts, tmp_path / "synth")
    of_prompt = arguments.index("--prompt")
    without = arguments[:of_prompt] + arguments[of_prompt + 2 :]
    assert usk(monkeypatch, *without, "--strategy", "sample") == 0
    manifest = read_manifest(tmp_path / "synth")
    assert manifest.model.startswith("me/adapter@") and len(manifest.trained_on) == 2
    trained = {"dog_bark": ("a recording of dog bark",), "siren": ("a recording of siren",)}
    assert manifest.prompts == trained, "those that it was trained with"
    assert {row["prompt"] for row in rows_in(tmp_path / "synth")} == {one for (one,) in trained.values()}
    assert "a recording of dog bark" in (tmp_path / "synth" / "README.md").read_text(encoding="utf-8")
    arguments[-1] = tmp_path / "other"
    assert usk(monkeypatch, *arguments, "--strategy", "sample") == 0
    assert read_manifest(tmp_path / "other").prompts["siren"] == ("a siren",), "those that are given"

    local = [
        "fit",
        "--real",
        urbansound8k_folder,
        "--from",
        models["audioldm"],
        "--lora",
        "--steps",
        1,
        "--batch",
        2,
    ]
    local += ["--device", "cpu", "--quiet", "--out", tmp_path / "local"]
    assert usk(monkeypatch, *local) == 0
    line = refused(["push", tmp_path / "local", "me/local", "--yes", "--quiet"], monkeypatch, capsys)
    assert "nobody else can load" in line


def test_a_class_that_an_adapter_was_not_trained_on_has_the_default_prompt_and_is_said(
    models: dict[str, Path], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    model = replace(
        load_generator(str(models["audioldm"]), "cpu", "fp32"), prompts={"siren": ("wail", "howl")}
    )
    config = SynthConfig(3, classes=("dog_bark", "siren"), render=render_config(strategy="sample", steps=1))
    made = synthesize(open_source(urbansound8k_folder), tmp_path / "out", config, model=model, device="cpu")
    assert made.manifest.prompts == {
        "dog_bark": ("a field recording of dog bark",),
        "siren": ("wail", "howl"),
    }
    assert any("not trained on dog_bark" in note for note in made.notes)


def test_a_list_of_what_a_model_was_trained_on_makes_the_leak_rules_exact(
    models: dict[str, Path], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    source = open_source(urbansound8k_folder)
    real = decode_source(source, 16_000).source
    known = next(clip for clip in source.clips if clip.fold == 2)
    (tmp_path / "ids.txt").write_text(known.group.rpartition("/")[2] + "\n999999999\n", encoding="utf-8")
    config = SynthConfig(
        1, classes=("dog_bark",), render=render_config(strategy="sample", steps=1), test_folds=(1, 2),
        trained_on=str(tmp_path / "ids.txt"),
    )  # fmt: skip
    made = synthesize(source, tmp_path / "out", config, model=str(models["audioldm"]), device="cpu")
    assert not any("UrbanSound8K comes from Freesound" in note for note in made.notes)
    synthetic = open_source(made.folder)
    assert unknown_generator(synthetic) is None
    assert leaking(synthetic, real, fold_split(real.clips, 2)).all()
    assert not leaking(synthetic, real, fold_split(real.clips, 1)).any()
    assert known.group in json.loads((made.folder / "usk.json").read_text())["trained_on"][0]["groups"]


def test_parents_longer_than_the_model_makes_are_said(
    models: dict[str, Path], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    config = SynthConfig(1, classes=("dog_bark",), render=render_config(strategy="sample", steps=1))
    model = load_generator(str(models["audioldm"]), "cpu", "fp32")
    made = synthesize(open_source(urbansound8k_folder), tmp_path / "out", config, model=model, device="cpu")
    (note,) = (note for note in made.notes if note.startswith("longer than the"))
    assert f"{model.longest_s:.2f} s" in note


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ({"path": "/api/models/someone/gated", "status": 403, "code": "GatedRepo"}, "Accept its terms"),
        ({"path": "text_encoder/model.safetensors", "cut": 100}, "cannot be"),
    ],
    ids=["gated", "text encoder cut"],
)
def test_a_model_that_the_hub_does_not_hand_over_is_one_line(
    failure: dict[str, Any], said: str, hub: LocalHub, models: dict[str, Path], urbansound8k_folder: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    hub.create_repo("model", "someone/gated", models["audioldm"])
    hub.fail("GET", times=10**9, **failure)
    synth = ["synth", "--real", urbansound8k_folder, "--model", "someone/gated", "--out", tmp_path / "out"]
    line = refused([*synth, "--device", "cpu", "--quiet"], monkeypatch, capsys)
    assert line.startswith("usk: --model someone/gated: ") and said in line
    assert not (tmp_path / "out").exists()
