"""`usk fit --from`: what is taken over from a generator, what is added to it, and what stays on record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.diffusion.test_fit import MEL, Killed, killed_at, single_precision  # noqa: F401
from tests.diffusion.test_fit import weights as unet_state
from tests.sounds import tone, write_wav
from usk.audio.mel import MelSettings
from usk.data.open import open_source
from usk.diffusion.fit import FitConfig, fit
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.diffusion.mel_pipeline import as_audiodiffusion
from usk.diffusion.networks import Networks, load_base, set_classes
from usk.diffusion.train import MelBatch, MelTrainer
from usk.errors import UsageError

Factory = Callable[..., Path]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")
STILL = ("--learning-rate", 1e-30)  # nothing moves: what is written is what was taken over
pytestmark = pytest.mark.usefixtures("single_precision")


@pytest.fixture
def fit_from(usk: Callable[..., Any], tone_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """`usk fit --from MODEL`, two steps on the tones (classes high, low, middle), into `tmp_path / out`."""

    def run(model: object, out: str, *more: object, real: Path = tone_folder) -> Any:
        few = "--steps 2 --batch 4 --device cpu"
        return usk(f"fit --real {real} --from {model} --out {tmp_path / out} {few}", *more)

    return run


@pytest.fixture
def conditional(fit_from: Callable[..., Any], tiny_pipeline: Factory, tmp_path: Path) -> Path:
    """A generator that knows high, low and middle, each row of its embedding different."""
    fit_from(tiny_pipeline(), "conditional", "--class-conditional", *STILL).done()
    folder = tmp_path / "conditional"
    state = load_file(folder / WEIGHTS)
    shape, draw = state["class_embedding.weight"].shape, torch.Generator().manual_seed(0)
    state["class_embedding.weight"] = torch.randn(shape, generator=draw).half()
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# --- what is taken over ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"prediction_type": "epsilon", "scheduler": "DDPMScheduler"},
        {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2", "clip_sample": False},
        {"prediction_type": "v_prediction", "vae": 3, "beta_schedule": "scaled_linear", "beta_end": 0.012},
    ],
    ids=["DDPM epsilon", "DDIM sample", "latent v of RGB"],
)
def test_networks_schedule_and_mel_are_the_bases(
    fit_from: Callable[..., Any], tiny_pipeline: Factory, tmp_path: Path, options: dict[str, Any]
) -> None:
    folder = tiny_pipeline(**options)
    fit_from(folder, "out", *STILL, "--json").done()
    base, fitted = (
        load_generator(str(path), device="cpu", precision="fp32") for path in (folder, tmp_path / "out")
    )
    assert (fitted.mel, fitted.image_shape) == (base.mel, base.image_shape)
    for network in ("unet", "vae"):
        before, after = getattr(base, network), getattr(fitted, network)
        assert (before is None) == (after is None)
        if before is not None:
            ignored = dict.fromkeys(("_name_or_path", "_diffusers_version"))
            assert {**after.config, **ignored} == {**before.config, **ignored}
            expected, actual = before.state_dict(), after.state_dict()
            assert expected.keys() == actual.keys()
            assert all(torch.allclose(expected[n], actual[n], atol=1e-3, rtol=1e-3) for n in expected)
    schedules = [read(path / "scheduler/scheduler_config.json") for path in (tmp_path / "out", folder)]
    assert schedules[0] == schedules[1]
    pipeline = as_audiodiffusion(tmp_path / "out")
    assert type(pipeline.scheduler).__name__ == options.get("scheduler", "DDIMScheduler")
    assert torch.equal(pipeline.scheduler.alphas_cumprod, base.schedule.alphas_cumprod)
    assert pipeline.scheduler.config.prediction_type == options["prediction_type"]
    record = read(tmp_path / "out/training.json")
    assert record["from"] == record["config"]["base"] == base.model_id
    assert record["config"]["channels"] == [8, 16]
    assert record["config"]["prediction_type"] == options["prediction_type"]
    assert record["config"]["beta_schedule"] == options.get("beta_schedule", "linear")


def test_it_learns_and_more_gently_than_from_nothing(
    fit_from: Callable[..., Any], tiny_pipeline: Factory, tmp_path: Path
) -> None:
    folder = tiny_pipeline(vae=True)
    fit_from(folder, "out").done()
    assert read(tmp_path / "out/training.json")["config"]["learning_rate"] == 1e-4
    fit_from(folder, "fast", "--learning-rate", 0.1).done()
    before, after = unet_state(folder), unet_state(tmp_path / "fast")
    convolutions = [name for name in before if name.endswith("conv1.weight")]
    assert not any(torch.allclose(before[name], after[name], atol=1e-3) for name in convolutions)
    weights = "vqvae/diffusion_pytorch_model.safetensors"
    one, other = (load_file(path / weights) for path in (folder, tmp_path / "fast"))
    assert all(torch.allclose(one[n], other[n].float(), atol=1e-3, rtol=1e-3) for n in one)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "schedule",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "scaled_linear", "num_train_timesteps": 500},
        {"trained_betas": [0.001 * (1 + step % 7) for step in range(200)], "num_train_timesteps": 200},
    ],
    ids=lambda schedule: str(schedule.get("beta_schedule", "trained betas")),
)
def test_the_loss_is_that_of_the_bases_noise_and_prediction(
    prediction_type: str, schedule: dict[str, Any]
) -> None:
    """A UNet that says what diffusers' own DDPMScheduler holds to be right has no loss, and another has one."""
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction_type, **schedule)
    n_train = len(scheduler.alphas_cumprod)
    images, noise = torch.randn(2, 4, 1, 16, 32).unbind()
    timesteps = torch.tensor([0, n_train // 3, n_train // 2, n_train - 1])

    class Oracle(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, t: torch.Tensor, labels: None, return_dict: bool) -> Any:
            torch.testing.assert_close(noisy, scheduler.add_noise(images, noise, t))
            velocity = scheduler.get_velocity(images, noise, t)
            return ({"epsilon": noise, "v_prediction": velocity, "sample": images}[prediction_type],)

    config = json.loads(scheduler.to_json_string())
    networks = Networks(Oracle(), None, (1, 16, 32), MEL, config, ())
    trainer = object.__new__(MelTrainer)
    trainer.networks, trainer.network = networks, networks.unet
    trainer.device, trainer.precision, trainer._alphas = CPU, "fp32", networks.schedule.alphas_cumprod
    drawn = MelBatch(images, torch.zeros(4, dtype=torch.long), timesteps, noise)
    assert float(trainer.loss(drawn)) < 1e-9
    assert networks.schedule.n_train == n_train


def test_the_embedded_generator_can_be_trained_further(
    fit_from: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usk.diffusion.fit.write_preview", lambda *_: None)  # takes longer than all the rest
    ran = fit_from("embedded", "out", "--steps", 1, "--class-conditional", "--json").done()
    assert "cannot be ruled out" not in ran.err
    fitted = load_generator(str(tmp_path / "out"), device="cpu")
    assert [part["source"] for part in fitted.trained_on] == ["urbansound8k", "demo", "tones"]
    assert fitted.license == "CC BY-NC 3.0"
    assert fitted.training_groups > load_generator("embedded", device="cpu").training_groups
    card = (tmp_path / "out/README.md").read_text()
    assert "| begun from | embedded@" in card
    assert "license: cc-by-nc-3.0" in card


def test_a_stopped_run_goes_on_from_its_checkpoint_and_not_from_the_base(
    tone_folder: Path, tiny_pipeline: Factory, tmp_path: Path
) -> None:
    """The base has dropout, which draws from torch's global state."""
    base = Path(shutil.copytree(tiny_pipeline(), tmp_path / "base"))
    settings = read(base / "unet/config.json") | {"dropout": 0.3}
    (base / "unet/config.json").write_text(json.dumps(settings))
    config = FitConfig(
        steps=5, batch=4, learning_rate=0.1, base=str(base), device="cpu", precision="fp32", checkpoint_every_s=0.0,
        validate_every=2,
    )  # fmt: skip
    source = open_source(str(tone_folder))
    undisturbed = fit([source], tmp_path / "undisturbed", config)
    with pytest.raises(Killed):
        fit([source], tmp_path / "killed", config, reporter=killed_at(3))
    torch.manual_seed(12345)
    resumed = fit([source], tmp_path / "killed", config)
    expected, actual = unet_state(undisturbed.folder), unet_state(resumed.folder)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert [row["loss"] for row in resumed.log] == [row["loss"] for row in undisturbed.log]
    different = fit([source], tmp_path / "no-dropout", replace(config, base=str(tiny_pipeline())))
    assert not torch.equal(expected["conv_in.weight"], unet_state(different.folder)["conv_in.weight"])


def test_a_base_that_has_changed_since_is_refused(
    fit_from: Callable[..., Any], tiny_pipeline: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(tiny_pipeline(), tmp_path / "base"))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("usk.diffusion.fit.write_preview", stop)
        assert fit_from(base, "out", "--quiet").code == 130
    state = load_file(base / WEIGHTS)
    state["conv_in.bias"] += 1
    save_file(state, base / WEIGHTS, {"format": "pt"})
    fit_from(base, "out", "--quiet").refused(2, "different base)")


# --- classes -----------------------------------------------------------------------------------------------


def test_classes_added_to_a_base_change_nothing_at_first(
    fit_from: Callable[..., Any], tiny_pipeline: Factory, tmp_path: Path
) -> None:
    folder = tiny_pipeline()
    fit_from(folder, "out", "--class-conditional", *STILL).done()
    fitted = load_generator(str(tmp_path / "out"), device="cpu", precision="fp32")
    assert fitted.class_names == ("high", "low", "middle")
    table = fitted.unet.class_embedding.weight  # type: ignore[union-attr]
    assert table.shape == (4, 32) and not table.any()
    base = load_base(str(folder), CPU)
    noisy = torch.randn(4, 1, 16, 32)
    expected = base.generator.predictor()(noisy, 300)
    networks = base.networks(fitted.class_names).generator(CPU, "fp32")
    assert torch.equal(networks.predictor(Condition(["high", "low", "middle", "?"]))(noisy, 300), expected)
    fit_from(folder, "learned", "--class-conditional", "--learning-rate", 0.1).done()
    learned = load_generator(str(tmp_path / "learned"), device="cpu").unet.class_embedding.weight  # type: ignore[union-attr]
    assert (learned.abs().sum(dim=1) > 0).sum() >= 2


def test_other_classes_keep_the_rows_of_shared_names_and_need_the_flag(
    fit_from: Callable[..., Any], conditional: Path, tmp_path: Path
) -> None:
    """One class is shared with the tones, and two are not."""
    other_classes = tmp_path / "other"
    for number, name in enumerate(("middle", "whistle", "click")):
        for recording in range(4):
            samples = tone(400.0 * (number + 1) + 20 * recording, 0.4)
            write_wav(other_classes / name / f"rec{recording}" / "a.wav", samples)
    refused = fit_from(conditional, "out", "--quiet", real=other_classes)
    refused.refused(2, "is class-conditional and does not know click, whistle", "--from")
    assert not (tmp_path / "out").exists()
    fit_from(conditional, "out", "--class-conditional", *STILL, real=other_classes).done()
    fitted = load_generator(str(tmp_path / "out"), device="cpu")
    assert fitted.class_names == ("click", "middle", "whistle")
    before, after = (unet_state(of)["class_embedding.weight"] for of in (conditional, tmp_path / "out"))
    high, low, middle, none = before
    assert torch.equal(after, torch.stack((high, middle, low, none))), (
        "new names start from rows of names that are gone"
    )
    unet = load_generator(str(tmp_path / "out"), device="cpu").unet
    first, second, third, none = unet.class_embedding.weight.detach().clone()  # type: ignore[union-attr]
    set_classes(unet, ("a", "b", "c"), ("c", "a", "b"))
    assert torch.equal(unet.class_embedding.weight, torch.stack((third, first, second, none)))  # type: ignore[union-attr]
    assert unet.config.num_class_embeds == 4
    set_classes(unet, ("c", "a", "b"), tuple("abcdefghij"))  # more than there were: all different at first
    assert torch.equal(unet.class_embedding.weight[:3], torch.stack((first, second, third)))  # type: ignore[union-attr]
    assert len(unet.class_embedding.weight.unique(dim=0)) == 11  # type: ignore[union-attr]


def test_a_generator_that_does_not_tell_classes_apart_is_warned_of(
    usk: Callable[..., Any],
    fit_from: Callable[..., Any],
    tiny_pipeline: Factory,
    tone_folder: Path,
    tmp_path: Path,
) -> None:
    blind = "hardly tells its classes apart"
    assert blind in fit_from(tiny_pipeline(), "out", "--class-conditional", *STILL).done().err
    assert read(tmp_path / "out" / "training.json")["class_effect"] == 0
    assert "do not use `--strategy sample`" in (tmp_path / "out" / "README.md").read_text()
    synth = f"synth --real {tone_folder} --model {tmp_path / 'out'} --per-class 1 --steps 2 --device cpu"
    assert blind in usk(synth, "--strategy", "sample", "--out", tmp_path / "sampled").done().err
    assert blind not in usk(synth, "--out", tmp_path / "mixed").done().err


def test_a_class_conditional_base_stays_so_where_it_knows_all_classes(
    fit_from: Callable[..., Any], conditional: Path, tone_folder: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tone_folder / "low")
    fit_from(conditional, "out", "--learning-rate", 0.1).done()
    assert load_generator(str(tmp_path / "out"), device="cpu").class_names == ("high", "low", "middle")
    before, after = (unet_state(of)["class_embedding.weight"] for of in (conditional, tmp_path / "out"))
    moved = (after - before).abs().mean(dim=1)
    assert moved[1] < 0.05 * min(moved[0], moved[2])  # no clip is low: weight decay alone


# --- what stays on record ----------------------------------------------------------------------------------


def test_a_base_that_says_nothing_is_noted_and_warned_of(
    usk: Callable[..., Any], fit_from: Callable[..., Any], tiny_pipeline: Factory, tmp_path: Path
) -> None:
    folder = tiny_pipeline()
    ran = fit_from(folder, "out", "--json")
    name = load_generator(str(folder), device="cpu").model_id
    flat = " ".join(ran.err.split())
    assert f"{name} does not say what it was trained on" in flat
    assert f"the license of {name} is unknown" in flat
    fitted = load_generator(str(tmp_path / "out"), device="cpu")
    unknown, ours = fitted.trained_on
    assert unknown["source"] == "unknown clips of tiny" and unknown["groups"] == [] and "note" in unknown
    assert fitted.training_groups == set(ours["groups"]) and fitted.license == "unknown"
    card = (tmp_path / "out/README.md").read_text()
    assert "cannot be known" in card and "every recording that is known" in card
    assert usk("info", tmp_path / "out", "--json").value["license"] == "unknown"
    again = fit_from(tmp_path / "out", "further", "--json")
    assert "unknown" in again.err  # its license
    further = load_generator(str(tmp_path / "further"), device="cpu").trained_on
    assert further == [unknown, ours, ours]


@pytest.mark.parametrize("license", ["CC BY-NC 3.0", "unknown"])
def test_the_license_is_the_stricter_and_the_sources_are_both(
    fit_from: Callable[..., Any], tiny_pipeline: Factory, tmp_path: Path, license: str
) -> None:
    """The tones' own license is unknown."""
    base = Path(shutil.copytree(tiny_pipeline(), tmp_path / "base"))
    part = {
        "source": "field", "revision": "r1", "license": license, "folds": [2], "clips": 3, "groups": ["field/a", "field/b"],
        "held_out_groups": ["field/c"],
    }  # fmt: skip
    (base / "trained_on.json").write_text(json.dumps({"license": license, "sources": [part]}))
    ran = fit_from(base, "out", "--json").done()
    fitted = load_generator(str(tmp_path / "out"), device="cpu")
    assert fitted.license == license == ran.value["license"]
    assert fitted.trained_on[0] == part and fitted.trained_on[1]["source"] == "tones"
    assert fitted.training_groups > {"field/a", "field/b"}
    assert "cannot be ruled out" not in ran.err
    assert ("is unknown: look it up" in " ".join(ran.err.split())) == (license == "unknown")


# --- wrong input -------------------------------------------------------------------------------------------


def class_embedding_of_another_kind(folder: Path, tiny: Factory) -> Path:
    shutil.copytree(tiny(), folder)
    config = {**read(folder / "unet/config.json"), "class_embed_type": "timestep"}
    diffusers.UNet2DModel.from_config(config).save_pretrained(folder / "unet")
    return folder


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda f, tiny: f / "nowhere", "no such pipeline folder"),
        (lambda f, tiny: "someone/something", "cannot be reached (no network?)"),
        (lambda f, tiny: tiny(conditional=4), "is conditioned on encodings of 4 numbers"),
        (class_embedding_of_another_kind, "takes conditions that usk does not support (class_embed_type)"),
    ],
    ids=["no folder", "no network", "conditional", "class embedding"],
)
def test_a_base_that_cannot_be_used_is_one_line(
    fit_from: Callable[..., Any],
    tiny_pipeline: Factory,
    tmp_path: Path,
    model: Callable[..., Any],
    message: str,
) -> None:
    ran = fit_from(model(tmp_path / "base", tiny_pipeline), "out", "--quiet")
    ran.refused(1, message, "--from")
    assert "--model" not in ran.err and not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="a base draws the images"):
        fit([], tmp_path / "out", FitConfig(base=str(tiny_pipeline())), mel=MelSettings())
