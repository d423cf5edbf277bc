"""LoRA weights of tiny text-to-audio models: what is trained, resumed, written, loaded and refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from tests.diffusion.test_fit import Killed, Watching, killed_at
from tests.diffusion.test_load import edit
from tests.diffusion.text_models import MODELS
from usk.data.decode import decode_source
from usk.data.leaks import leaking, unknown_generator
from usk.data.open import open_source
from usk.data.source import Source
from usk.data.splits import fold_split
from usk.diffusion.card import write_generator_card
from usk.diffusion.fit import FitConfig, fit
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.diffusion.lora import adapter_weights
from usk.diffusion.lora_fit import LATENTS_FILE, lora_work
from usk.diffusion.pipeline import describe_generator
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.text_pipeline import TextGenerator
from usk.diffusion.training_data import FitSources
from usk.errors import ModelError, UskError
from usk.synth.settings import SynthConfig, render_config
from usk.synth.synthesize import synthesize

RATE_HZ, CPU = 16_000, torch.device("cpu")
FOLDS = {"high": 1_200.0, "low": 200.0}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of sixteen recordings, of which some are held out; some clips are longer."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    for name, hertz in FOLDS.items():
        (folder / name).mkdir()
        for number in range(16):
            seconds = np.arange(int(RATE_HZ * (0.5 if number % 3 else 1.2))) / RATE_HZ
            tone = 0.3 * np.sin(2 * np.pi * hertz * seconds) + 0.01 * rng.standard_normal(len(seconds))
            soundfile.write(folder / name / f"{number}.wav", tone.astype(np.float32), RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def source(tones: Path) -> Source:
    return open_source(str(tones))


def tiny(model: Path, **given: Any) -> FitConfig:
    return replace(
        FitConfig(
            steps=4, batch=4, base=str(model), lora=True, lora_rank=2, device="cpu", precision="fp32",
            checkpoint_every_s=0.0, validate_every=2,
        ),
        **given,
    )  # fmt: skip


def network_weights(folder: Path) -> dict[str, torch.Tensor]:
    generator = load_generator(str(folder), "cpu", "fp32")
    assert isinstance(generator, TextGenerator)
    return dict(generator.network.state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_only_lora_weights_change_and_the_loss_falls(
    name: str, models: dict[str, Path], source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file: file.read_bytes() for file in models[name].rglob("*") if file.is_file()}
    monkeypatch.setattr("usk.diffusion.loop.WARM_UP_STEPS", 1)
    config = tiny(models[name], steps=30, learning_rate=3e-2, validate_every=10)
    result = fit([source], tmp_path / "out", config)
    assert all(row["validation_loss"] > 0 for row in result.log)
    trainer: Any = lora_work(FitSources([source]), config.resolved(), CPU, tmp_path).trainer
    drawn = [trainer.draw(step) for step in range(30)]
    with torch.no_grad():
        untrained = sum(float(trainer.loss(batch)) for batch in drawn)
        tensors = load_file(result.folder / "adapter_model.safetensors")
        for key, parameter in adapter_weights(trainer.network).items():
            parameter.copy_(tensors[key])
        trained = sum(float(trainer.loss(batch)) for batch in drawn)
    assert trained < untrained - 1e-3, "of the very batches that it was trained on"
    assert {file: file.read_bytes() for file in before} == before
    base, adapted = network_weights(models[name]), network_weights(result.folder)
    own = {key.replace(".base_layer", ""): value for key, value in adapted.items() if ".lora_" not in key}
    assert own.keys() == base.keys() and all(torch.equal(own[key], base[key]) for key in base)
    second = [value for key, value in adapted.items() if ".lora_B." in key]
    assert second and all(value.abs().max() > 0 for value in second)
    assert sum(file.stat().st_size for file in result.folder.glob("*.safetensors")) < 200_000


@pytest.fixture(scope="module")
def fitted(models: dict[str, Path], source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "adapter"
    fit([source], folder, tiny(models["audioldm"], learning_rate=0.05))
    write_generator_card(folder)
    return folder


def test_an_adapter_changes_what_the_base_makes_and_does_so_again(
    fitted: Path, models: dict[str, Path]
) -> None:
    def made(folder: Path) -> torch.Tensor:
        generator = load_generator(str(folder), "cpu", "fp32")
        noisy = torch.randn(1, *generator.latent_shape(2_048), generator=torch.Generator().manual_seed(0))
        return generator.sample(noisy, SamplerConfig(2, 1.0), Condition(["high"], 2.0))

    once, again = made(fitted), made(fitted)
    assert torch.equal(once, again)
    assert not torch.allclose(once, made(models["audioldm"]), atol=1e-4)


def test_peft_itself_loads_the_adapter(fitted: Path, models: dict[str, Path]) -> None:
    from peft import PeftModel

    base = load_generator(str(models["audioldm"]), "cpu", "fp32")
    ours = load_generator(str(fitted), "cpu", "fp32")
    assert isinstance(base, TextGenerator) and isinstance(ours, TextGenerator)
    texts = ours.embed_batch(["high"], 2_048)
    noisy, nodes = torch.randn(1, *ours.latent_shape(2_048)), torch.tensor([300.0])
    with torch.no_grad():
        expected = ours.output(noisy, nodes, texts)
        base.network = PeftModel.from_pretrained(base.network, str(fitted))
        torch.testing.assert_close(base.output(noisy, nodes, texts), expected)


CONFIG = "adapter_config.json"
RESULT = ("adapter_model.safetensors", CONFIG, "trained_on.json")


@pytest.mark.parametrize(
    "damage",
    [None, lambda f: f.write_bytes(f.read_bytes()[:-9]), lambda f: f.write_bytes(bytes(99)), Path.unlink],
    ids=["kept", "cut", "other", "gone"],
)
def test_a_fit_that_is_interrupted_goes_on_with_the_latents_that_it_kept_or_encodes_again(
    damage: Callable[[Path], object] | None, models: dict[str, Path], source: Source, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = tiny(models["stable_audio"], steps=6)
    fit([source], tmp_path / "whole", config)
    with pytest.raises(Killed):
        fit([source], tmp_path / "killed", config, reporter=killed_at(4))
    assert not (tmp_path / "killed" / "adapter_config.json").exists()
    with pytest.raises(ModelError) as caught:
        load_generator(str(tmp_path / "killed"), "cpu")
    assert "usk fit" in caught.value.hint
    if damage is not None:
        damage(tmp_path / "killed" / LATENTS_FILE)
    encoded: list[int] = []
    encode = TextGenerator.encode

    def counting(self: TextGenerator, audio: torch.Tensor) -> torch.Tensor:
        encoded.append(len(audio))
        return encode(self, audio)

    monkeypatch.setattr(TextGenerator, "encode", counting)
    rest = Watching()
    fit([source], tmp_path / "killed", config, reporter=rest)
    assert rest.steps == [4, 5, 6] and sum(encoded) == (0 if damage is None else len(source.clips))
    for name in RESULT:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert not list((tmp_path / "killed").glob("*checkpoint*"))
    with pytest.raises(UskError, match="holds a finished generator"):
        fit([source], tmp_path / "killed", config)


def test_what_it_was_trained_on_is_on_record_and_leaks_are_refused(
    models: dict[str, Path], urbansound8k_folder: Path, tmp_path: Path
) -> None:
    source = open_source(urbansound8k_folder)
    real = decode_source(source, RATE_HZ).source
    fit([source], tmp_path / "out", tiny(models["audioldm"], steps=1), test_folds=[1])
    base, own = json.loads((tmp_path / "out" / "trained_on.json").read_text())["sources"]
    assert "Freesound" in base["note"] and own["folds"] == [fold for fold in source.folds if fold != 1]
    assert describe_generator(str(tmp_path / "out")).training_groups == set(own["groups"]) != set()
    render = render_config(strategy="sample", steps=1)
    config = SynthConfig(2, classes=("dog_bark",), test_folds=(1,), render=render)
    made = synthesize(source, tmp_path / "synth", config, model=str(tmp_path / "out"), device="cpu")
    assert made.manifest.model.startswith("out@")
    synthetic = open_source(made.folder)
    assert unknown_generator(synthetic) is not None  # the base does not name its recordings
    trained = next(clip.fold for clip in source.clips if clip.group in own["groups"])
    assert not leaking(synthetic, real, fold_split(source.clips, 1)).any()
    assert leaking(synthetic, real, fold_split(source.clips, trained)).all()


def test_two_classes_with_prompts_of_their_own(
    models: dict[str, Path], source: Source, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.toml"
    file.write_text('high = ["a whistle", "a flute"]\nlow = ["a hum"]\n', encoding="utf-8")
    config = tiny(models["longcat"], prompt=str(file), batch=64, class_dropout=0.25).resolved()
    trainer: Any = lora_work(FitSources([source]), config, CPU, tmp_path).trainer
    drawn = trainer.draw(0)
    assert set(drawn.prompts.tolist()) == {0, 1, 2} and trainer.prompts == ["a whistle", "a flute", "a hum"]
    assert 0 < drawn.dropped.sum() < 32
    lengths = {trainer.draw(step).clean.shape[-1] for step in range(12)}
    assert len(lengths) == 2  # clips of 1.2 s have their own
    n_samples = drawn.clean.shape[-1] * trainer.generator.hop_samples
    texts = trainer._texts(drawn.prompts, drawn.dropped, drawn.clean.shape[-1])
    assert not texts["context"][drawn.dropped].any() and texts["context"][~drawn.dropped].any(dim=-1).any()
    given = trainer.generator.embed_batch(["a flute"], n_samples)["context"][0]
    place = int(((drawn.prompts == 1) & ~drawn.dropped).nonzero()[0])
    torch.testing.assert_close(texts["context"][place, : len(given)], given)


def test_without_peft_the_extra_is_named(
    models: dict[str, Path], fitted: Path, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError) as caught:
        fit([source], tmp_path / "out", tiny(models["audioldm"]))
    assert caught.value.field == "base" and "urban-sound-kit[hf]" in caught.value.hint
    with pytest.raises(ModelError) as caught:
        load_generator(str(fitted), "cpu")
    assert caught.value.field == "model" and "urban-sound-kit[hf]" in caught.value.hint


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: edit(f / CONFIG, base_model_name_or_path=str(f / "nowhere")),
        lambda f: edit(f / CONFIG, revision="0" * 12),
        lambda f: edit(f / CONFIG, r=4),
        lambda f: edit(f / CONFIG, r=2_000),
        lambda f: edit(f / CONFIG, r="many"),
        lambda f: edit(f / CONFIG, peft_type="LOHA"),
        lambda f: edit(f / CONFIG, target_modules=["nothing"]),
        lambda f: (f / "adapter_model.safetensors").write_bytes(b"x"),
        lambda f: (f / "adapter_config.json").write_text("{"),
        lambda f: (f / "training.json").write_text("{"),
        lambda f: (f / "training.json").write_text('{"prompts": {"high": [""]}}'),
        lambda f: (f / "training.json").write_text('{"prompts": ["high"]}'),
    ],
)
def test_an_adapter_that_cannot_be_used_is_one_line(
    damage: Callable[[Path], object], fitted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(fitted, folder)
    damage(folder)
    with pytest.raises(ModelError) as caught:
        load_generator(str(folder), "cpu", "fp32")
    assert caught.value.field == "model" and caught.value.value == str(folder)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"base": "adapter"}, "base"),
        ({"base": "adapter", "lora": False}, "base"),
        ({"base": "embedded"}, "base"),
        ({"lora": False}, "base"),
        ({"base": None}, "lora"),
        ({"class_conditional": True}, "class_conditional"),
        ({"lora": False, "prompt": "a {class}"}, "prompt"),
        ({"prompt": "always the same"}, "prompt"),
    ],
)
def test_what_does_not_go_together_is_refused(
    given: dict[str, Any], field: str, models: dict[str, Path], fitted: Path, source: Source, tmp_path: Path
) -> None:
    if "base" in given and given["base"] == "adapter":  # which is no base
        given = {**given, "base": str(fitted)}
    with pytest.raises(UskError) as caught:
        fit([source], tmp_path / "out", tiny(models["audioldm"], **given))
    assert caught.value.field == field and not (tmp_path / "out").exists()
