"""Loading pipeline folders as they are found in the wild, and refusing anything else with one line."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.hub_server import LocalHub
from tests.sounds import TINY_MEL
from usk.audio.mel import MelSettings, audio_to_image
from usk.device import resolve_device
from usk.diffusion.fast import repays_compiling
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.diffusion.mel_pipeline import MelGenerator, as_audiodiffusion
from usk.diffusion.pipeline import EMBEDDED, PUBLISHED, describe_generator, folder_fingerprint, resolve_model
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.weights import quiet_libraries
from usk.errors import ModelError

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


def refused(folder: Path | str, message: str) -> ModelError:
    with pytest.raises(ModelError) as raised:
        load_generator(str(folder), device="cpu")
    text = str(raised.value)
    assert message in text and "\n" not in text, text
    assert (raised.value.field, raised.value.value) == ("model", str(folder))
    return raised.value


def copy_of(folder: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt; its audio encoder, which is large, stays a link."""
    return Path(shutil.copytree(folder, tmp_path / "model", symlinks=True))


def says_the_same(generator: MelGenerator, other: MelGenerator) -> None:
    """Network and VAE make the same of the same input, to the bit."""
    torch.manual_seed(0)
    noisy = torch.randn(2, *generator.image_shape)
    image = torch.rand(2, 1, generator.mel.n_mels, generator.mel.n_frames) * 2 - 1
    said, other_said = (each.predictor()(noisy, 300) for each in (generator, other))
    assert torch.equal(said, other_said) and said.std() > 1e-3
    assert torch.equal(generator.to_latent(image), other.to_latent(image))
    assert torch.equal(generator.to_image(noisy), other.to_image(noisy))


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
    assert generator.image_shape == (1, 16, 32) and generator.vae is None
    pipeline = as_audiodiffusion(path)
    assert type(pipeline.scheduler).__name__ == scheduler
    assert torch.equal(generator.schedule.alphas_cumprod, pipeline.scheduler.alphas_cumprod)
    noisy = torch.randn(2, 1, 16, 32)
    with torch.no_grad():
        expected = pipeline.unet(noisy, 500).sample
    torch.testing.assert_close(generator.predictor()(noisy, 500), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("vqvae", [KeyError, [None, None], None], ids=["absent", "[null, null]", "null"])
def test_no_vae_may_be_spelt_in_any_way(folder: Path, vqvae: Any) -> None:
    edit(folder / "model_index.json", vqvae=vqvae)
    assert load_generator(str(folder), device="cpu").vae is None
    assert as_audiodiffusion(folder).vqvae is None


@pytest.mark.parametrize(("size", "mel"), [([16, 32], TINY_MEL), (32, {**TINY_MEL, "y_res": 32})])
def test_the_sample_size_may_be_a_number_or_a_pair(folder: Path, size: Any, mel: dict[str, int]) -> None:
    edit(folder / "unet" / "config.json", sample_size=size)
    edit(folder / "mel" / "mel_config.json", **mel)
    assert load_generator(str(folder), device="cpu").image_shape == (1, mel["y_res"], 32)


SUFFIXES = pytest.mark.parametrize("suffix", [".safetensors", ".bin"])


def rewrite(folder: Path, suffix: str, change: Callable[[dict[str, Any]], Any], variant: str = "") -> None:
    """A network's weights, changed and in another kind of file."""
    weights = folder / "diffusion_pytorch_model.safetensors"
    state = change(load_file(weights))
    weights.unlink()
    target = folder / f"diffusion_pytorch_model{variant}{suffix}"
    if suffix == ".bin":
        torch.save(state, target)
    else:
        save_file(state, target, {"format": "pt"})


def halved(state: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.half() for name, tensor in state.items()}


@SUFFIXES
@pytest.mark.parametrize("variant", [".fp16", ".non_ema"])
def test_weights_that_exist_only_as_a_variant_load(
    tiny_pipeline: Factory, tmp_path: Path, suffix: str, variant: str
) -> None:
    plain, named = (copy_of(tiny_pipeline(vae=True), tmp_path / name) for name in ("plain", "named"))
    for network in ("unet", "vqvae"):
        rewrite(plain / network, ".safetensors", halved)
        rewrite(named / network, suffix, halved, variant)
    expected = load_generator(str(plain), device="cpu", precision="fp32")
    generator = load_generator(str(named), device="cpu", precision="fp32")
    assert {(p.dtype, p.requires_grad) for p in generator.unet.parameters()} == {(torch.float32, False)}
    says_the_same(generator, expected)
    with torch.no_grad():
        noisy = torch.randn(1, 2, 8, 16)
        theirs = as_audiodiffusion(named).unet(noisy, 10).sample
    torch.testing.assert_close(generator.predictor()(noisy, 10), theirs, atol=1e-5, rtol=1e-4)


def test_plain_weights_come_before_variants_and_safetensors_before_bin(folder: Path) -> None:
    expected = load_generator(str(folder), device="cpu")
    unet = folder / "unet"
    for name in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin", "optimizer.bin"):
        (unet / name).write_bytes(b"no weights")
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights, and not the UNet's")
    says_the_same(load_generator(str(folder), device="cpu"), expected)
    rewrite(unet, ".bin", dict)
    says_the_same(load_generator(str(folder), device="cpu"), expected)


def test_weights_in_several_shards_load(tiny_pipeline: Factory, tmp_path: Path) -> None:
    path = copy_of(tiny_pipeline(), tmp_path)
    expected = load_generator(str(path), device="cpu")
    (path / UNET).unlink()
    expected.unet.save_pretrained(path / "unet", max_shard_size="40KB")  # type: ignore[operator]
    assert len(list((path / "unet").glob("*-of-*.safetensors"))) > 1
    says_the_same(load_generator(str(path), device="cpu"), expected)


OLD_ATTENTION = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


@SUFFIXES
def test_attention_weights_with_the_names_of_old_diffusers_load(
    tiny_pipeline: Factory, tmp_path: Path, suffix: str
) -> None:
    new = tiny_pipeline(vae=True, attention=True)
    old = copy_of(new, tmp_path)
    renamed = []

    def rename(state: dict[str, Any]) -> dict[str, Any]:
        result = {}
        for name, tensor in state.items():
            before = name
            for now, once in OLD_ATTENTION.items():
                name = name.replace(now, once)
            renamed.extend([name] if name != before else [])
            result[name] = tensor
        return result

    blocks = {"unet": "down_blocks.1.attentions.0", "vqvae": "decoder.mid_block.attentions.0"}
    for network, block in blocks.items():
        rewrite(old / network, suffix, rename)
        assert {f"{block}.{name}.weight" for name in ("query", "key", "value", "proj_attn")} <= set(renamed)
    generator, expected = (load_generator(str(path), device="cpu", precision="fp32") for path in (old, new))
    says_the_same(generator, expected)
    ours, theirs = as_audiodiffusion(old).unet.state_dict(), expected.unet.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("vae", [0, 1], ids=["pixels", "latents"])
@pytest.mark.parametrize("size", [(64, 64), (64, 256), (256, 64), (256, 256), (128, 512), (512, 512)])
def test_images_of_every_published_size_load(tiny_pipeline: Factory, size: tuple[int, int], vae: int) -> None:
    path = tiny_pipeline(size=size, vae=vae)
    generator = load_generator(str(path), device="cpu", precision="fp32")
    scale = 2 if max(size) < 256 else 8  # of the factory's VAEs
    shape = (2, size[0] // scale, size[1] // scale) if vae else (1, *size)
    assert generator.image_shape == shape
    assert (generator.mel.n_mels, generator.mel.n_frames) == size
    latent = generator.to_latent(torch.zeros(1, 1, *size))
    assert latent.shape == (1, *shape) and generator.predictor()(latent, 10).shape == latent.shape
    assert generator.to_image(latent).shape == (1, 1, *size)


@pytest.mark.parametrize("vae", [0, 1], ids=["pixels", "latents"])
def test_a_unet_that_names_no_size_takes_the_mels(tiny_pipeline: Factory, tmp_path: Path, vae: int) -> None:
    path = copy_of(tiny_pipeline(vae=vae), tmp_path)
    edit(path / "unet" / "config.json", sample_size=None)
    assert load_generator(str(path), device="cpu").image_shape == ((2, 8, 16) if vae else (1, 16, 32))


def test_a_vae_of_color_images_sees_grey_and_is_seen_as_audiodiffusion_sees_it(
    tiny_pipeline: Factory,
) -> None:
    path = tiny_pipeline(vae=3)
    generator, vae = load_generator(str(path), device="cpu", precision="fp32"), as_audiodiffusion(path).vqvae
    image = torch.rand(2, 1, 16, 32) * 2 - 1
    latent = generator.to_latent(image)
    with torch.no_grad():
        expected = vae.encode(torch.cat((image, image, image), dim=1)).latent_dist.mode() * 0.18215
        colors = vae.decode(latent / 0.18215).sample
    torch.testing.assert_close(latent, expected, atol=1e-6, rtol=1e-5)
    pixels = ((colors / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255).round().astype("uint8")
    gray = np.stack([np.asarray(Image.fromarray(picture, mode="RGB").convert("L")) for picture in pixels])
    assert not np.array_equal(pixels[..., 0], gray)
    ours = (generator.to_image(latent)[:, 0].numpy() / 2 + 0.5) * 255
    assert np.abs(ours - gray).max() <= 1.01


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
    unknown = load_generator(str(folder), device="cpu")
    assert (unknown.trained_on, unknown.training_groups, unknown.license) == ([], frozenset(), "unknown")
    sources = [{"source": "a", "groups": ["a/1", "a/2"]}, {"source": "b", "groups": ["b/1"]}]
    (folder / "trained_on.json").write_text(json.dumps({"license": "CC BY-NC 3.0", "sources": sources}))
    generator = load_generator(str(folder), device="cpu")
    assert generator.trained_on == sources and generator.license == "CC BY-NC 3.0"
    assert generator.training_groups == {"a/1", "a/2", "b/1"}


@pytest.mark.parametrize(
    "id2label",
    [
        KeyError,
        None,
        ["siren", "drill", "bark"],
        {"0": "siren", "1": "drill"},
        {"1": "a", "2": "b", "3": "c"},
        {"0": "a", "1": "b", "2": "a"},
    ],
)
def test_a_class_conditional_pipeline_that_does_not_name_its_classes(
    tiny_pipeline: Factory, tmp_path: Path, id2label: Any
) -> None:
    path = copy_of(tiny_pipeline(class_names=("siren", "drill", "bark")), tmp_path)
    edit(path / "model_index.json", id2label=id2label)
    refused(
        path, "is class-conditional, but id2label in its model_index.json does not name 3 different classes"
    )


# --- described without weights -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"class_names": ("siren", "drill")}, {"conditional": 100}])
def test_a_description_says_what_the_generator_does(tiny_pipeline: Factory, options: dict[str, Any]) -> None:
    path = str(tiny_pipeline(**options))
    info, generator = describe_generator(path, "cpu"), load_generator(path, "cpu")
    assert vars(info).items() <= vars(generator).items()
    assert info.takes_classes == ("class_names" in options)
    assert info.conditioned_on_audio == ("conditional" in options)


# --- its audio encoder -------------------------------------------------------------------------------------


def test_an_encoder_that_cannot_be_had_names_the_ways_on(tiny_pipeline: Factory, tmp_path: Path) -> None:
    path = copy_of(tiny_pipeline(conditional=100), tmp_path)
    (path / "audio_encoder").unlink()
    away = "is conditional, and its audio encoder teticio/audio-encoder cannot be reached (no network?)"
    assert f"{path}/audio_encoder" in refused(path, away).hint
    (path / "audio_encoder").mkdir()
    refused(path, "audio_encoder/config.json is missing")
    other = "is conditioned on encodings of 64 numbers; usk supports audio-diffusion's"
    refused(tiny_pipeline(conditional=64), other)


def test_the_encoder_comes_from_the_hub_if_the_folder_has_none(
    hub: LocalHub, tiny_pipeline: Factory, tmp_path: Path, audio_encoder_folder: Path
) -> None:
    path = copy_of(tiny_pipeline(conditional=100), tmp_path)
    (path / "audio_encoder").unlink()
    hub.create_repo("model", "teticio/audio-encoder", audio_encoder_folder)
    there = load_generator(str(path), device="cpu").encoder
    assert there is not None and not there.training
    hub.stop()
    here = load_generator(str(path), device="cpu").encoder
    assert here is not None
    for name, tensor in there.state_dict().items():
        assert torch.equal(here.state_dict()[name], tensor)


# --- what does not -----------------------------------------------------------------------------------------


UNET = "unet/diffusion_pytorch_model.safetensors"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"


def drop_a_tensor(folder: Path) -> None:
    state = load_file(folder / UNET)
    del state["conv_in.weight"]
    save_file(state, folder / UNET, {"format": "pt"})


def reshape_output(folder: Path, channels: int) -> None:
    """The UNet with another number of output channels."""
    edit(folder / "unet/config.json", out_channels=channels)

    def widen(state: dict[str, Any]) -> dict[str, Any]:
        for name in ("conv_out.weight", "conv_out.bias"):
            state[name] = torch.cat([state[name]] * channels)
        return state

    rewrite(folder / "unet", ".safetensors", widen)


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def edited(name: str, **changes: Any) -> Callable[[Path], Any]:
    return lambda folder: edit(folder / name, **changes)


def written(name: str, change: bytes | Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    """A file with other content, or with what `change` makes of its content."""

    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()) if callable(change) else change)

    return spoil


INDEX, UNET_CONFIG, MEL_CONFIG = "model_index.json", "unet/config.json", "mel/mel_config.json"
SCHEDULER = "scheduler/scheduler_config.json"


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no index": (lambda f: (f / INDEX).unlink(), "is not a pipeline folder: it has no model_index.json"),
    "no mel": (lambda f: shutil.rmtree(f / "mel"), "mel/mel_config.json is missing"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler/scheduler_config.json is missing"),
    "no UNet": (lambda f: shutil.rmtree(f / "unet"), "unet/config.json is missing"),
    "no weights": (lambda f: (f / UNET).unlink(), "unet has no diffusion_pytorch_model.safetensors or .bin"),
    "empty weights": (written(UNET, b""), f"{UNET} is damaged or incomplete"),
    "cut weights": (written(UNET, lambda whole: whole[:-999]), f"{UNET} is damaged or incomplete"),
    "a pointer of Git LFS": (written(UNET, LFS_POINTER), "run `git lfs pull`"),
    "a tensor less": (drop_a_tensor, "conv_in.weight is missing"),
    "other shapes": (edited(UNET_CONFIG, block_out_channels=[16, 32]), "for UNet2DModel: size mismatch for "),
    "a UNet that predicts variances": (lambda f: reshape_output(f, 2), "predicts the noise alone"),
    "a UNet that embeds other things": (
        edited(UNET_CONFIG, class_embed_type="identity"),
        "(class_embed_type)",
    ),
    "index is no JSON": (written(INDEX, b"{"), "model_index.json is not valid JSON"),
    "index is no text": (written(INDEX, b"\xff"), "model_index.json is not valid JSON"),
    "index is nested too deep": (written(INDEX, b"[" * 100_000), "model_index.json is not valid JSON"),
    "index is a list": (written(INDEX, b"[]"), "model_index.json is not a JSON object"),
    "mel is nonsense": (edited(MEL_CONFIG, x_res="wide"), "mel_config.json is not understood"),
    "another pipeline": (edited(INDEX, mel=KeyError), "names no UNet2DModel and mel"),
    "a strange index": (edited(INDEX, unet="UNet"), "names no UNet2DModel and mel"),
    "another UNet": (edited(INDEX, unet=["diffusers", "UNet2DConditionModel"]), "encodings of 1280 numbers"),
    "another image size": (edited(MEL_CONFIG, x_res=64), "takes 1 x 16 x 32 but its mel makes 1 x 16 x 64"),
    "mel is a folder": (lambda f: as_folder(f / MEL_CONFIG), "mel/mel_config.json cannot be read"),
    "mel is endless": (edited(MEL_CONFIG, n_fft=10**12), "mel_config.json is not understood"),
    "endless filters": (
        edited(MEL_CONFIG, n_fft=60_000, y_res=60_000),
        "understood: an image of 60000 bands",
    ),
    "scheduler is endless": (edited(SCHEDULER, num_train_timesteps=10**12), "num_train_timesteps must be"),
    "endless layers": (edited(UNET_CONFIG, layers_per_block=10_000_000), "layers_per_block is too large"),
    "endless channels": (edited(UNET_CONFIG, block_out_channels=[60_000, 60_000]), "config.json describes"),
    "an unknown embedding": (edited(UNET_CONFIG, time_embedding_type="1"), "its weights cannot be loaded"),
    "a padding that is a list": (edited(UNET_CONFIG, downsample_padding=[1]), "downsample_padding is [1]"),
    "classes as text": (edited(UNET_CONFIG, num_class_embeds="3"), "is class-conditional, but id2label"),
    "no sources": (written("trained_on.json", b"{}"), "trained_on.json does not list"),
    "a class effect as text": (written("training.json", b'{"class_effect": "0.3"}'), "class_effect"),
    "a class effect of NaN": (written("training.json", b'{"class_effect": NaN}'), "class_effect"),
    "training.json is a folder": (lambda f: (f / "training.json").mkdir(), "training.json cannot be read"),
    "no VAE": (edited(INDEX, vqvae=["diffusers", "AutoencoderKL"]), "vqvae/config.json is missing"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_a_folder_that_is_no_whole_pipeline_is_a_model_error(
    folder: Path, spoil: Callable, message: str
) -> None:
    spoil(folder)
    refused(folder, message)


@pytest.mark.parametrize(("vae_channels", "mel"), [(3, {}), (2, {"x_res": 64})], ids=["channels", "size"])
def test_a_unet_that_does_not_fit_its_vae_is_refused(
    tiny_pipeline: Factory, tmp_path: Path, vae_channels: int, mel: dict[str, int]
) -> None:
    path = copy_of(tiny_pipeline(vae=True), tmp_path)
    edit(path / "mel" / "mel_config.json", **mel)
    with quiet_libraries():
        vae = diffusers.AutoencoderKL.from_pretrained(path / "vqvae")
        diffusers.AutoencoderKL.from_config({**vae.config, "latent_channels": vae_channels}).save_pretrained(
            path / "vqvae"
        )
    made = f"{vae_channels} x 8 x {mel.get('x_res', 32) // 2}"
    refused(path, f"its UNet takes 2 x 8 x 16 but its mel and VAE make {made} images")


class Code:
    """Unpickled with its `__reduce__`, it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def zipped(content: Any, file: Path) -> None:
    torch.save(content, file)


def legacy(content: Any, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def pickled(content: Any, file: Path) -> None:
    file.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [zipped, legacy, pickled])
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin"])
def test_code_in_weights_is_refused_and_does_not_run(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Any, Path], None],
    name: str,
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary = tmp_path / "canary"
    (folder / UNET).unlink()
    write({"conv_in.weight": Code(canary)}, folder / "unet" / name)
    said = "is refused: it is not plain tensors, and unpickling anything else could run code"
    refused(folder, f"unet/{name} {said}")
    with pytest.raises(ModelError, match="is refused: it is not plain tensors"):
        as_audiodiffusion(folder)
    assert not canary.exists()
    if write is not pickled:  # the file does carry the code
        torch.load(folder / "unet" / name, weights_only=False)
    else:
        pickle.loads((folder / "unet" / name).read_bytes())
    assert canary.is_dir()


BIN = "unet/diffusion_pytorch_model.bin"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-999])


SPOILT_BIN: dict[str, tuple[Callable[[dict[str, Any], Path], Any], str]] = {
    "cut": (lambda state, file: (zipped(state, file), cut(file)), "is damaged or incomplete"),
    "cut, as torch wrote it once": (lambda state, file: (legacy(state, file), cut(file)), "is damaged or"),
    "empty": (lambda state, file: file.write_bytes(b""), f"{BIN} is damaged or incomplete"),
    "no tensors": (lambda state, file: zipped([1, 2], file), "its weights cannot be loaded"),
    "a tensor less": (
        lambda state, file: (state.pop("conv_in.bias"), zipped(state, file)),
        "conv_in.bias is missing",
    ),
    "a pointer of Git LFS": (lambda state, file: file.write_bytes(LFS_POINTER), f"{BIN} is a pointer of Git"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT_BIN.values(), ids=SPOILT_BIN.keys())
def test_spoilt_weights_in_a_bin_file_are_a_model_error(folder: Path, spoil: Callable, message: str) -> None:
    state = load_file(folder / UNET)
    (folder / UNET).unlink()
    spoil(state, folder / BIN)
    refused(folder, message)


def test_loading_logs_nothing_and_leaves_the_warning_filters_alone(
    tiny_pipeline: Factory, tmp_path: Path
) -> None:
    path = copy_of(tiny_pipeline(vae=True), tmp_path)
    rewrite(path / "unet", ".bin", lambda state: {**state, "ema.decay": torch.ones(1)})
    logger, records, filters = logging.getLogger("diffusers"), [], list(warnings.filters)
    handler, level = logging.Handler(), logger.level
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        load_generator(str(path), device="cpu")
        as_audiodiffusion(path)
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == [] and logger.level == level
    assert warnings.filters == filters


def test_a_folder_that_is_not_there_names_the_ways_on() -> None:
    for name in ("./nothing/here", "nothing", "a/b/c", "~/nothing"):
        refused(name, "no such pipeline folder. Give a folder, a Hub id (user/name), or `embedded`.")


@pytest.mark.parametrize(("cuda", "device", "model"), [(True, "cuda", PUBLISHED), (False, "cpu", EMBEDDED)])
def test_auto_takes_the_published_model_on_cuda_alone(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, device: str, model: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert resolve_device("auto") == torch.device(device)
    assert resolve_model("auto", "auto") == resolve_model("auto", device) == model
    assert resolve_model("mine", "auto") == "mine"


@pytest.mark.gpu
def test_a_generator_says_the_same_on_cuda(tiny_pipeline: Factory) -> None:
    noisy = torch.randn(2, 1, 16, 32)
    path = str(tiny_pipeline())
    cpu, cuda = (load_generator(path, device=device, precision="fp32") for device in ("cpu", "cuda"))
    expected = cpu.predictor()(noisy, 10)
    torch.testing.assert_close(cuda.predictor()(noisy.to("cuda"), 10).cpu(), expected, atol=2e-3, rtol=2e-3)


def test_where_torch_cannot_compile_the_network_runs_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load_generator(str(folder), device="cpu", precision="fp32")
    asked = []

    def broken(_: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            asked.append(args)
            raise RuntimeError("Failed to find C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    compiled, noisy = generator.compiled(), torch.randn(1, *generator.image_shape)
    for _ in range(2):
        torch.testing.assert_close(compiled.predictor()(noisy, 10), generator.predictor()(noisy, 10))
    assert len(asked) == 1


@pytest.mark.parametrize(
    "options", [{}, {"vae": True}, {"conditional": 100}, {"class_names": ("owl", "fox")}]
)
def test_each_stage_with_bf16_weights_stays_near_full_precision(
    tiny_pipeline: Factory, options: dict[str, Any]
) -> None:
    """Stage by stage, from the same input. Its norms sum in float32 whatever they take."""
    full = load_generator(str(tiny_pipeline(**options)), "cpu", "fp32")
    half = replace(full, precision="bf16")
    assert {weight.dtype for weight in half.network().parameters()} == {torch.bfloat16}
    assert half.network() is half.network() and full.network() is full.unet
    assert {weight.dtype for weight in full.unet.parameters()} == {torch.float32}
    draw = torch.Generator().manual_seed(0)
    sampler, audio = SamplerConfig(3, 0.5), 0.1 * torch.randn(2, full.longest_samples, generator=draw)
    condition = Condition(["owl", "fox"], parents=audio[None])
    latent = full.encode(audio)
    noisy = full.invert(latent, sampler, condition)
    for exact, rounded in (
        (noisy, half.invert(latent, sampler, condition)),
        (full.sample(noisy, sampler, condition), half.sample(noisy, sampler, condition)),
    ):
        assert rounded.dtype == torch.float32
        error = float((rounded - exact).norm() / exact.norm())
        assert 0 < error < 0.1, error


@pytest.mark.parametrize(
    ("device", "evaluations", "n_widths", "repays"),
    [
        ("cuda", 100_000, 1, True),
        ("cuda", 99_999, 1, False),
        ("cuda", 100_000, 2, False),
        ("cpu", 10**9, 1, False),
    ],
)
def test_jobs_that_repay_compiling(device: str, evaluations: int, n_widths: int, repays: bool) -> None:
    assert repays_compiling(torch.device(device), evaluations, n_widths) is repays


def test_decoding_from_a_sound_keeps_what_the_mel_image_does_not_hold(tiny_pipeline: Factory) -> None:
    generator = load_generator(str(tiny_pipeline()), "cpu")
    assert isinstance(generator, MelGenerator)
    draw = torch.Generator().manual_seed(0)
    audio = 0.1 * torch.randn(2, generator.crop(generator.longest_samples), generator=draw)
    latent = generator.to_latent(audio_to_image(audio, generator.mel)[0])
    assert torch.allclose(generator.decode(latent, [0, 1], 0, audio), audio, atol=1e-5)
    other = generator.decode(latent.flip(0), [0, 1], 0, audio)
    assert other.shape == audio.shape and torch.isfinite(other).all()
