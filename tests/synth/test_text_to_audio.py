"""Text-to-audio models, tiny and random, through the real entry point: prompts, provenance, resume, and wrong input."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.diffusion.test_load import edit
from tests.diffusion.text_models import MODELS
from tests.hub_server import LocalHub
from tests.manifests import rows_in
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
from usk.synth.chosen_generator import ready_generator
from usk.synth.settings import SynthConfig, render_config, render_configs
from usk.synth.synthesize import synthesize

Command = Callable[..., Any]
Models = dict[str, Path]
PROMPTS = 'dog_bark = ["a dog", "two dogs"]\nsiren = "a siren"\n'


@pytest.fixture
def real(urbansound8k_folder: Path) -> Path:
    return urbansound8k_folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.toml"
    file.write_text(PROMPTS, encoding="utf-8")
    return file


def synth_arguments(real: Path, model: Path | str, prompts: Path, out: Path) -> str:
    return (
        f"synth --real {real} --model {model} --prompt {prompts} --classes dog_bark,siren"
        f" --per-class 4 --steps 2 --device cpu --quiet --out {out}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_prompts_are_in_every_row_and_the_clips_train_a_classifier(
    name: str, models: Models, prompts: Path, real: Path, tmp_path: Path, usk: Command, hub: LocalHub
) -> None:
    out, other = tmp_path / "synth", tmp_path / "other"
    given = (real, models[name], prompts)
    assert "two dogs" in usk(synth_arguments(*given, out), "--dry-run").done().out
    usk(synth_arguments(*given, out), "--batch", 4).done()
    rows = rows_in(out)
    of_class = {"dog_bark": {"a dog", "two dogs"}, "siren": {"a siren"}}
    names = read_manifest(out).class_names
    assert len(rows) == 8 and all(row["prompt"] in of_class[names[row["label"]]] for row in rows)
    assert {row["prompt"] for row in rows} == {"a dog", "two dogs", "a siren"}
    assert read_manifest(out).prompts == {"dog_bark": ("a dog", "two dogs"), "siren": ("a siren",)}

    usk(synth_arguments(*given, other), "--batch", 3).done()
    for mine, others in zip(rows, rows_in(other), strict=True):
        assert {**mine, "audio": None} == {**others, "audio": None} | {"gain_db": mine["gain_db"]}
        assert mine["gain_db"] == pytest.approx(others["gain_db"], abs=0.01)

    runs, page = tmp_path / "runs", tmp_path / "report.html"
    usk(
        f"train --real {real} --synth {out} --mix real --mix real,synth --test-folds 1 --seeds 1 --epochs 1"
        f" --device cpu --quiet --out {runs}"
    ).done()
    usk(f"eval {runs} --quiet").done()
    usk(f"report {runs} --synth {out} --real {real} --out {page} --quiet").done()
    assert "two dogs" in page.read_text(encoding="utf-8")
    hub.add_user("me", "hf_me")
    hub.login("hf_me")
    usk(f"push {out} me/synth --yes --quiet").done()
    usk("info me/synth --quiet").done()
    assert set(hub.repo("dataset", "me/synth").files()) >= {"usk.json", "README.md", "plan.jsonl"}


def test_prompts_for_a_generator_or_strategy_without_any_are_refused(
    prompts: Path, real: Path, tmp_path: Path, usk: Command
) -> None:
    synth, none = (
        f"synth --real {real} --out {tmp_path}/out --quiet",
        "usk: --prompt a {class}: has no effect",
    )
    usk(synth, "--prompt", "a {class}", "--model", "embedded").refused(2, none, "takes no prompts")
    usk(synth, "--prompt", "a {class}", "--strategy", "waveform").refused(2, none)
    usk(synth, "--prompt", "a {class}", "--quality", "published").refused(2, none)
    # Before anything is downloaded.
    usk(synth, "--prompt", prompts, "--model", "nobody/nothing").refused(2, "has no prompt for")


def test_a_prompt_whose_end_the_model_would_not_read_is_refused(
    models: Models, real: Path, tmp_path: Path, usk: Command
) -> None:
    """Every class would have the same prompt: {class} is what is cut."""
    given = f"--real {real} --device cpu --quiet --out {tmp_path}/out"
    for command in (f"synth --model {models['audioldm']}", f"fit --lora --from {models['audioldm']}"):
        ran = usk(f"{command} {given}", "--prompt", "x" * 10_000 + "{class}")
        ran.refused(2, "usk: --prompt xxx", "reads the first 48")
        assert len(ran.err) < 200 and not (tmp_path / "out").exists()


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


def foreign(folder: Path) -> None:
    edit(folder / "model_index.json", vocoder=["evil", "Model"])


INDEX = "model_index.json"
UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown family": (lambda f: edit(f / INDEX, _class_name="FluxPipeline"), "FluxPipeline is not known"),
    "unet cut": (lambda f: without_a_tensor(f, "unet"), "unet cannot be loaded: its files lack"),
    "text encoder cut": (lambda f: without_a_tensor(f, "text_encoder"), "text_encoder cannot be loaded"),
    "other sizes": (lambda f: edit(f / "unet/config.json", block_out_channels=[16, 32]), "unet cannot be"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer cannot be loaded"),
    "quantized": (in_whole_numbers, "whole numbers"),
    "odd index": (lambda f: edit(f / INDEX, vae=["diffusers"]), "cannot be loaded"),
    "foreign component": (foreign, "component vocoder is of 'evil'"),
    "truncated weights": (truncated, "cannot be loaded"),
    "no rates": (lambda f: edit(f / "vocoder/config.json", upsample_rates=[]), "--model"),
    "no scheduler": (lambda f: (f / "scheduler" / "scheduler_config.json").unlink(), "cannot be loaded"),
}


@pytest.mark.parametrize(("damage", "said"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_model_that_cannot_be_used_is_one_line(
    damage: Callable[[Path], object], said: str, models: Models, real: Path, tmp_path: Path, usk: Command
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models["audioldm"], folder)
    damage(folder)
    ran = usk(f"synth --real {real} --model {folder} --out {tmp_path}/out --quiet --device cpu")
    ran.refused(ran.code or 1, f"usk: --model {folder}: ", said)
    assert not (tmp_path / "out").exists()


def test_without_transformers_the_extra_is_named(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError) as caught:
        load_generator(str(models["audioldm"]), "cpu")
    assert "urban-sound-kit[hf]" in caught.value.hint


@pytest.fixture(scope="module")
def distilled(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    folder = tmp_path_factory.mktemp("distilled") / "model"
    shutil.copytree(models["stable_audio_3"], folder)
    edit(folder / "scheduler/scheduler_config.json", stochastic_sampling=True)
    return load_generator(str(folder), "cpu", "fp32")


@pytest.mark.parametrize("strategy", ["decomposed", "slerp"])
def test_a_distilled_model_does_not_invert(distilled: Generator, strategy: str) -> None:
    with pytest.raises(UsageError) as caught:
        ready_generator(distilled, "cpu", render_configs(strategy=strategy))
    assert caught.value.field == "strategy"
    assert "variation" in caught.value.hint and "sample" in caught.value.hint


@pytest.mark.parametrize("strategy", ["variation", "sample"])
def test_a_distilled_model_varies_and_samples(
    distilled: Generator, strategy: str, real: Path, tmp_path: Path
) -> None:
    config = SynthConfig(2, classes=("dog_bark",), render=render_config(strategy=strategy, steps=3))
    result = synthesize(real, tmp_path / "out", config, model=distilled, device="cpu")
    assert len(rows_in(result.folder)) == 2 and result.manifest.render[strategy]["guidance"] == 1.0


def test_all_noise_of_a_distilled_model_is_fresh_and_each_clip_has_its_own(distilled: Generator) -> None:
    latents = torch.randn(2, *distilled.latent_shape(distilled.crop(2_000)))
    sampler, condition = SamplerConfig(3), Condition(["a dog", "rain"])
    first = distilled.sample(latents, sampler, condition, seeds=[1, 2])
    assert not torch.allclose(first, distilled.sample(latents, sampler, condition, seeds=[3, 2]))
    alone = distilled.sample(latents[1:], sampler, Condition(["rain"]), seeds=[2])
    torch.testing.assert_close(alone, first[1:], atol=1e-4, rtol=1e-3)


def test_a_negative_prompt_changes_clips_and_is_on_record(models: Models, real: Path, tmp_path: Path) -> None:
    model, audio = str(models["audioldm"]), []
    for negative in ("", "music"):
        render = render_configs(strategy="average,sample", steps=2, negative_prompt=negative)
        config = SynthConfig(2, classes=("dog_bark",), render=render)
        made = synthesize(real, tmp_path / f"o{negative}", config, model=model, device="cpu")
        assert made.manifest.render["sample"]["negative_prompt"] == negative
        average, sample = sorted(rows_in(made.folder), key=lambda row: row["strategy"])
        assert sample["prompt"] and not average["prompt"]
        audio.append([row["audio"]["bytes"] for row in (average, sample)])
    assert [one == other for one, other in zip(*audio, strict=True)] == [True, False]


def test_what_a_family_was_trained_on_is_said_and_urbansound8k_is_warned_of(
    models: Models, real: Path, tmp_path: Path
) -> None:
    config = SynthConfig(1, classes=("dog_bark",), render=render_config(strategy="sample", steps=1))
    made = synthesize(real, tmp_path / "out", config, model=str(models["audioldm"]), device="cpu")
    (note,) = (note for note in made.notes if note.startswith("longer than the"))
    assert f"{load_generator(str(models['audioldm']), 'cpu').longest_s:.2f} s" in note
    (part,) = made.manifest.trained_on
    assert part.is_incomplete and "Freesound" in part.note
    assert any("UrbanSound8K comes from Freesound" in note for note in made.notes)
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert "AudioSet, AudioCaps, Freesound and BBC sound effects" in card and "a field recording of" in card
    assert unknown_generator(open_source(made.folder)) is not None


def test_a_pipeline_of_the_hub_loads_without_what_lies_at_its_top(
    hub: LocalHub, models: Models, tmp_path: Path
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
    hub: LocalHub, models: Models, prompts: Path, real: Path, tmp_path: Path, usk: Command
) -> None:
    hub.add_user("me", "hf_me")
    hub.login("hf_me")
    hub.create_repo("model", "someone/tiny", models["audioldm"])
    fit = f"fit --real {real} --lora --batch 2 --device cpu --quiet"
    text = ("--prompt", "a recording of {class}")
    usk(f"{fit} --from someone/tiny --steps 2 --test-folds 1 --out {tmp_path}/adapter", *text).done()
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "base_model: someone/tiny" in card and "a recording of dog bark" in card
    usk(f"push {tmp_path}/adapter me/adapter --yes --quiet").done()
    files = hub.repo("model", "me/adapter").files()
    assert set(files) >= {"adapter_config.json", "adapter_model.safetensors", "trained_on.json", "README.md"}
    assert str(tmp_path).encode() not in b"".join(files.values())
    usk("info me/adapter --quiet").done()
    synth = synth_arguments(real, "me/adapter", prompts, tmp_path / "synth") + " --strategy sample"
    usk(synth.replace(f"--prompt {prompts}", "")).done()
    manifest = read_manifest(tmp_path / "synth")
    assert manifest.model.startswith("me/adapter@") and len(manifest.trained_on) == 2
    trained = {"dog_bark": ("a recording of dog bark",), "siren": ("a recording of siren",)}
    assert manifest.prompts == trained, "those that it was trained with"
    assert {row["prompt"] for row in rows_in(tmp_path / "synth")} == {one for (one,) in trained.values()}
    assert "a recording of dog bark" in (tmp_path / "synth" / "README.md").read_text(encoding="utf-8")
    usk(synth.replace(f"{tmp_path}/synth", f"{tmp_path}/other")).done()
    assert read_manifest(tmp_path / "other").prompts["siren"] == ("a siren",), "those that are given"

    usk(f"{fit} --from {models['audioldm']} --steps 1 --out {tmp_path}/local").done()
    usk(f"push {tmp_path}/local me/local --yes --quiet").refused(1, "nobody else can load")


def test_a_class_that_an_adapter_was_not_trained_on_has_the_default_prompt_and_is_said(
    models: Models, real: Path, tmp_path: Path
) -> None:
    model = replace(
        load_generator(str(models["audioldm"]), "cpu", "fp32"), prompts={"siren": ("wail", "howl")}
    )
    config = SynthConfig(3, classes=("dog_bark", "siren"), render=render_config(strategy="sample", steps=1))
    made = synthesize(open_source(real), tmp_path / "out", config, model=model, device="cpu")
    expected = {"dog_bark": ("a field recording of dog bark",), "siren": ("wail", "howl")}
    assert made.manifest.prompts == expected
    assert any("not trained on dog_bark" in note for note in made.notes)


def test_a_list_of_what_a_model_was_trained_on_makes_the_leak_rules_exact(
    models: Models, real: Path, tmp_path: Path
) -> None:
    source = open_source(real)
    decoded = decode_source(source, 16_000).source
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
    assert leaking(synthetic, decoded, fold_split(decoded.clips, 2)).all()
    assert not leaking(synthetic, decoded, fold_split(decoded.clips, 1)).any()
    assert known.group in json.loads((made.folder / "usk.json").read_text())["trained_on"][0]["groups"]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ({"path": "/api/models/someone/gated", "status": 403, "code": "GatedRepo"}, "Accept its terms"),
        ({"path": "text_encoder/model.safetensors", "cut": 100}, "cannot be"),
    ],
    ids=["gated", "text encoder cut"],
)
def test_a_model_that_the_hub_does_not_hand_over_is_one_line(
    failure: dict[str, Any],
    said: str,
    hub: LocalHub,
    models: Models,
    real: Path,
    tmp_path: Path,
    usk: Command,
) -> None:
    hub.create_repo("model", "someone/gated", models["audioldm"])
    hub.fail("GET", times=10**9, **failure)
    synth = f"synth --real {real} --model someone/gated --out {tmp_path}/out --device cpu --quiet"
    usk(synth).refused(1, "usk: --model someone/gated: ", said)
    assert not (tmp_path / "out").exists()
