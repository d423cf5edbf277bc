"""Loading pipeline folders as they are found in the wild, and refusing what is none with one line."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.sounds import TINY_MEL
from usk.device import resolve_device
from usk.diffusion import load
from usk.diffusion.load import as_audiodiffusion, folder_fingerprint, load_generator, resolve_model
from usk.errors import ModelError, UsageError
from usk.mel.spectrogram import MelSettings

Factory = Callable[..., Path]


@pytest.fixture
def folder(tiny_pipeline: Factory, tmp_path: Path) -> Path:
    """A pipeline folder that a test may spoil."""
    return Path(shutil.copytree(tiny_pipeline(), tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    for key, value in changes.items():
        if value is KeyError:
            del content[key]
        else:
            content[key] = value
    path.write_text(json.dumps(content))


def refused(folder: Path | str, message: str, error: type[Exception] = ModelError, **options: str) -> None:
    with pytest.raises(error) as raised:
        load_generator(str(folder), **{"device": "cpu", **options})
    text = str(raised.value)
    assert message in text, text
    assert "\n" not in text and text.startswith("--")


# --- what loads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mel_class", [("diffusers", "Mel"), ("audio_diffusion", "Mel"), ("audiodiffusion.mel", "Mel")]
)
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DDPMScheduler"])
def test_every_spelling_of_the_mel_class_and_both_schedulers_load(
    tiny_pipeline: Factory, mel_class: tuple[str, str], scheduler: str
) -> None:
    path = tiny_pipeline(mel_class=mel_class, scheduler=scheduler)
    generator = load_generator(str(path), device="cpu", precision="fp32")
    assert generator.mel == MelSettings.from_audiodiffusion(TINY_MEL)
    assert generator.latent_shape == (1, 16, 32) and generator.vae is None
    pipeline = as_audiodiffusion(path)
    assert type(pipeline.scheduler).__name__ == scheduler
    assert torch.equal(generator.schedule.alphas_cumprod, pipeline.scheduler.alphas_cumprod)
    noisy = torch.randn(2, 1, 16, 32)
    with torch.no_grad():
        expected = pipeline.unet(noisy, 500).sample
    torch.testing.assert_close(generator.predict(noisy, 500), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("vqvae", [KeyError, [None, None], None], ids=["absent", "[null, null]", "null"])
def test_no_vae_may_be_spelt_in_any_way(folder: Path, vqvae: Any) -> None:
    edit(folder / "model_index.json", vqvae=vqvae)
    assert load_generator(str(folder), device="cpu").vae is None
    assert as_audiodiffusion(folder).vqvae is None


def test_a_vae_is_loaded_and_the_latents_are_the_unets(tiny_pipeline: Factory) -> None:
    generator = load_generator(str(tiny_pipeline(vae=True)), device="cpu")
    assert generator.vae is not None and generator.latent_shape == (2, 8, 16)


@pytest.mark.parametrize(("size", "mel"), [([16, 32], TINY_MEL), (32, {**TINY_MEL, "y_res": 32})])
def test_the_sample_size_may_be_a_number_or_a_pair(folder: Path, size: Any, mel: dict[str, int]) -> None:
    edit(folder / "unet" / "config.json", sample_size=size)
    edit(folder / "mel" / "mel_config.json", **mel)
    assert load_generator(str(folder), device="cpu").latent_shape == (1, mel["y_res"], 32)


def test_older_weights_in_bin_files_load(folder: Path) -> None:
    from safetensors.torch import load_file

    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    torch.save(state, weights.with_suffix(".bin"))
    weights.unlink()
    unet = load_generator(str(folder), device="cpu").unet
    assert all(torch.equal(tensor, state[name]) for name, tensor in unet.state_dict().items())


def test_half_precision_weights_are_computed_in_single(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    generator = load_generator(str(folder), device="cpu", precision="fp32")
    assert {parameter.dtype for parameter in generator.unet.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in generator.unet.parameters())


def test_the_id_changes_with_the_weights_and_not_with_the_place(folder: Path, tmp_path: Path) -> None:
    name = load_generator(str(folder), device="cpu").model_id
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "model"))
    assert load_generator(str(copy), device="cpu").model_id == name == f"model@{folder_fingerprint(folder)}"
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_generator(str(copy), device="cpu").model_id != name


def test_trained_on_is_read_back(folder: Path) -> None:
    sources = [{"source": "a", "groups": ["a/1", "a/2"]}, {"source": "b", "groups": ["b/1"]}]
    (folder / "trained_on.json").write_text(json.dumps({"license": "CC BY-NC 3.0", "sources": sources}))
    generator = load_generator(str(folder), device="cpu")
    assert generator.trained_on == sources and generator.license == "CC BY-NC 3.0"
    assert generator.seen_groups == {"a/1", "a/2", "b/1"}


def test_a_generator_that_usk_did_not_fit_has_no_known_groups(folder: Path) -> None:
    generator = load_generator(str(folder), device="cpu")
    assert (generator.trained_on, generator.seen_groups, generator.license) == ([], frozenset(), "unknown")


def test_loading_leaves_the_warning_filters_alone(folder: Path) -> None:
    before = list(warnings.filters)
    load_generator(str(folder), device="cpu")
    as_audiodiffusion(folder)
    assert warnings.filters == before


# --- what does not -----------------------------------------------------------------------------------------


UNET = "unet/diffusion_pytorch_model.safetensors"


def drop_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / UNET)
    del state["conv_in.weight"]
    save_file(state, folder / UNET, {"format": "pt"})


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no index": (
        lambda f: (f / "model_index.json").unlink(),
        "is no pipeline folder: it has no model_index.json",
    ),
    "no mel": (lambda f: shutil.rmtree(f / "mel"), "mel/mel_config.json is missing"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler/scheduler_config.json is missing"),
    "no UNet": (lambda f: shutil.rmtree(f / "unet"), "its weights cannot be loaded"),
    "no weights": (lambda f: (f / UNET).unlink(), "its weights cannot be loaded"),
    "empty weights": (lambda f: (f / UNET).write_bytes(b""), "its weights cannot be loaded"),
    "cut weights": (
        lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:-999]),
        "its weights cannot be loaded",
    ),
    "a tensor less": (drop_a_tensor, "its weights cannot be loaded: conv_in.weight is missing"),
    "other shapes": (
        lambda f: edit(f / "unet/config.json", block_out_channels=[16, 32]),
        "its weights cannot be loaded",
    ),
    "index is no JSON": (
        lambda f: (f / "model_index.json").write_text("{"),
        "model_index.json is not valid JSON",
    ),
    "index is no text": (
        lambda f: (f / "model_index.json").write_bytes(b"\xff"),
        "model_index.json is not valid JSON",
    ),
    "index is a list": (
        lambda f: (f / "model_index.json").write_text("[]"),
        "model_index.json is not a JSON object",
    ),
    "UNet config is no JSON": (
        lambda f: (f / "unet/config.json").write_text("{"),
        "its weights cannot be loaded",
    ),
    "mel is no JSON": (
        lambda f: (f / "mel/mel_config.json").write_text("{"),
        "mel/mel_config.json is not valid JSON",
    ),
    "mel is nonsense": (
        lambda f: edit(f / "mel/mel_config.json", x_res="wide"),
        "mel_config.json is not understood",
    ),
    "another pipeline": (
        lambda f: edit(f / "model_index.json", mel=KeyError),
        "names no UNet2DModel and mel",
    ),
    "a strange index": (lambda f: edit(f / "model_index.json", unet="UNet"), "names no UNet2DModel and mel"),
    "a conditional UNet": (
        lambda f: edit(f / "model_index.json", unet=["diffusers", "UNet2DConditionModel"]),
        "is conditional",
    ),
    "another image size": (
        lambda f: edit(f / "mel/mel_config.json", x_res=64),
        "its UNet takes 1 x 16 x 32 but its mel makes 1 x 16 x 64",
    ),
    "trained_on without sources": (
        lambda f: (f / "trained_on.json").write_text("{}"),
        "trained_on.json does not say",
    ),
    "a VAE that is not there": (
        lambda f: edit(f / "model_index.json", vqvae=["diffusers", "AutoencoderKL"]),
        "its weights cannot be loaded",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_a_folder_that_is_no_whole_pipeline_is_a_model_error(
    folder: Path, spoil: Callable, message: str
) -> None:
    spoil(folder)
    refused(folder, message)


@pytest.mark.parametrize("name", ["./nothing/here", "nothing", "a/b/c", "~/nothing"])
def test_a_folder_that_is_not_there_names_the_ways_on(name: str) -> None:
    refused(name, "no such pipeline folder; give a folder, a Hub id (user/name), or `embedded`")


def test_a_file_is_no_pipeline(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("x")
    refused(tmp_path / "model", "no such pipeline folder")


@pytest.mark.parametrize(
    "name", ["teticio/audio-diffusion-ddim-256", "teticio/audio-diffusion-ddim-256@main"]
)
def test_a_hub_id_without_network_names_the_ways_on(name: str) -> None:
    refused(name, "teticio/audio-diffusion-ddim-256 cannot be downloaded (no network?); use --model embedded")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "--device cuda: torch finds no CUDA device here; use --device cpu"),
        ("gpu9", "--device gpu9 is no device"),
    ],
)
def test_a_device_that_is_not_there_is_a_usage_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(folder, message, UsageError, device=device)


@pytest.mark.parametrize(
    ("cuda", "device", "model"), [(True, "cuda", load.PUBLISHED), (False, "cpu", load.EMBEDDED)]
)
def test_auto_takes_the_published_model_on_cuda_alone(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, device: str, model: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert resolve_device("auto") == torch.device(device)
    assert resolve_model("auto", resolve_device("auto")) == model
    assert resolve_model("mine", resolve_device("auto")) == "mine"


@pytest.mark.gpu
def test_a_generator_says_the_same_on_cuda(tiny_pipeline: Factory) -> None:
    noisy = torch.randn(2, 1, 16, 32)
    cpu, cuda = (
        load_generator(str(tiny_pipeline()), device=device, precision="fp32") for device in ("cpu", "cuda")
    )
    expected = cpu.predict(noisy, 10)
    torch.testing.assert_close(cuda.predict(noisy.to("cuda"), 10).cpu(), expected, atol=2e-3, rtol=2e-3)
