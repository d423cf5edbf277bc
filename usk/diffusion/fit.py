"""Train a generator on clips and write its pipeline folder: `usk.fit`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from usk.audio.mel import MelSettings
from usk.data.licenses import strictest_license
from usk.data.open import SourceLike, open_source
from usk.device import resolve_device
from usk.diffusion.fit_config import FitConfig as FitConfig
from usk.diffusion.loop import CHECKPOINT_FILE, TrainingLoop
from usk.diffusion.lora_fit import LATENTS_FILE, lora_work
from usk.diffusion.networks import (
    Base,
    Networks,
    conditioned_classes,
    load_base,
    new_networks,
    notes_on_base,
    training_sources_of,
)
from usk.diffusion.pipeline import INDEX_FILE, LEAST_CLASS_EFFECT, TRAINED_ON_FILE, is_id_of, is_pipeline
from usk.diffusion.preview import write_preview
from usk.diffusion.train import FitWork, MelTrainer
from usk.diffusion.training_data import FitSources, load_clips
from usk.diffusion.weights import quiet_libraries
from usk.errors import UsageError, disk_errors
from usk.files import atomic_write, exclusive_lock, read_json, require_own_folder
from usk.reporter import Reporter

EMBEDDED_MEL = MelSettings(n_fft=2_048, hop_samples=552, n_mels=64, n_frames=160)
"""One image of 4 s at 22.05 kHz: 64 bands, a frame each 25 ms."""

FIT_FILE = "fit.json"  # the settings and training data of a fit
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
DECIDED_BY_BASE = ("channels", "layers_per_block", "class_conditional", "prediction_type", "beta_schedule")


@dataclass(frozen=True)
class FitResult:
    """The folder of the fitted generator, its training log, and what it was trained on."""

    folder: Path
    log: list[dict[str, Any]]
    trained_on: dict[str, Any]
    kept_step: int  # the step whose weights it has: the best on held-out recordings, or the last


def fit(
    sources: SourceLike | Sequence[SourceLike],
    out: str | os.PathLike[str],
    config: FitConfig | None = None,
    *,
    test_folds: Sequence[int] = (),
    mel: MelSettings | None = None,
    skip_bad: bool = False,
    reporter: Reporter | None = None,
) -> FitResult:
    """Train a generator on the clips of `sources` (sources, or their locations) outside `test_folds`, and write its pipeline folder.

    Recordings held out by `usk.data.splits.held_out_groups` only measure the validation loss, which chooses the step whose weights
    are kept, because long training memorizes few recordings. After an interruption, the same call continues from the last checkpoint.
    With `config.base`, that generator is trained further: `mel` must not be given, and the record keeps what the base was trained on.
    Without a base, `mel` defaults to EMBEDDED_MEL.

    Raises UskError with a one-line message that names the fix, also for a folder of another fit, and Stopped after Ctrl-C or SIGTERM,
    with the checkpoint written.
    """
    config = (config or FitConfig()).resolved()
    many = sources if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]
    opened = [open_source(one, skip_bad=skip_bad) for one in many]
    if config.base is not None and mel is not None:
        raise UsageError("a base draws the images that it was trained on", field="mel")
    root = Path(out)
    require_own_folder(root, FIT_FILE)  # before an hour of decoding
    _require_unfinished(root)
    device, reporter = resolve_device(config.device), reporter or Reporter()
    data = FitSources(opened, test_folds, skip_bad, reporter)
    data.check()
    work = lora_work(data, config, device, root) if config.lora else _mel_work(data, config, mel, device)
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(root, "usk fit", reporter=reporter):
        _claim(root, {**asdict(work.trainer.config), **work.settings, "clips": work.parts})
        with disk_errors(root):
            work.store(root)
        loop = TrainingLoop(work.trainer, root)
        loop.run(reporter)
        if loop.step < 100 and loop.diverged_step is None:
            reporter.warn(f"the training ended with step {loop.step}: a generator needs hundreds of steps")
        reporter.note("measuring and writing the generator")
        record = _record(loop)
        if record.get("class_effect", 1.0) < LEAST_CLASS_EFFECT:
            reporter.warn(
                "the generator hardly tells its classes apart yet: clips of the strategy sample would hurt. Train it longer"
            )
        licenses, base_sources = [source.license for source in opened], []
        if work.base is not None:
            licenses.append(work.base.license)
            base_sources = training_sources_of(work.base)
            record["from"] = work.base.model_id
        trained_on = {"license": strictest_license(licenses), "sources": [*base_sources, *work.parts]}
        with disk_errors(root):
            work.write(root, trained_on, record)
        for name in (CHECKPOINT_FILE, LATENTS_FILE):
            (root / name).unlink(missing_ok=True)
    return FitResult(root, loop.log, trained_on, loop.kept_step)


def _mel_work(data: FitSources, config: FitConfig, mel: MelSettings | None, device: torch.device) -> FitWork:
    """Prepare to train a generator of mel images: a new one, or a base."""
    base: Base | None = None
    if config.base is not None:
        base = load_base(config.base, device)
        for note in notes_on_base(base.generator):
            data.reporter.warn(note)
    mel = mel or (EMBEDDED_MEL if base is None else base.generator.mel)
    classes = conditioned_classes(config, base, data.class_names)
    clips, parts = load_clips(data, classes, mel)
    networks = new_networks(config, mel, classes, device) if base is None else base.networks(classes)
    config = config if base is None else base.described(config, classes)
    trainer = MelTrainer(clips, networks, config, device, data.reporter)

    def write(root: Path, trained_on: dict[str, Any], record: dict[str, Any]) -> None:
        shown = trainer.held_out if len(trainer.held_out) else trainer.training
        names = [classes[label] for label in shown.labels] if classes else [""] * len(shown)
        generator = networks.generator(device, trainer.precision)
        write_preview(generator, shown.images, names, root / "preview.png", config.seed)
        write_pipeline(root, networks, trained_on, record)

    return FitWork(
        trainer=trainer,
        settings={"mel": mel.as_dict()},
        parts=parts,
        base=None if base is None else base.generator,
        write=write,
    )


def _claim(root: Path, settings: dict[str, Any]) -> None:
    """Write the settings of this fit, or compare them with those in the folder. Raises UsageError if they differ."""
    settings = json.loads(json.dumps(settings))
    path = root / FIT_FILE
    if not path.is_file():
        with disk_errors(root):
            atomic_write(path, (json.dumps(settings, indent=1) + "\n").encode())
        return
    choose = "Choose a new folder."
    damaged = f"{root}: its {FIT_FILE} cannot be read, so that nobody knows what it is fitted with. {choose}"
    old = read_json(path, UsageError, damaged)
    if differing := [name for name in {**settings, **old} if old.get(name) != settings.get(name)]:
        names = ", ".join(differing).replace("_", " ")
        why = f"holds a generator fitted with other settings or clips (different {names})"
        raise UsageError(why, field="out", value=root, hint=choose)
    _require_unfinished(root)  # by another process meanwhile


def _require_unfinished(root: Path) -> None:
    if is_pipeline(root):
        hint = "Make clips with it, or choose a new folder."
        raise UsageError("holds a finished generator", field="out", value=root, hint=hint)


def differing_settings(root: Path, config: FitConfig, test_folds: Sequence[int]) -> list[str]:
    """Return the settings in which the fit in `root` differs from `config`, without those that its device or base decides."""
    old = read_json(root / FIT_FILE, UsageError, f"{root}: its {FIT_FILE} cannot be read")
    ignored = {"base", "device", "precision", *(DECIDED_BY_BASE if config.base else ())}
    settings = json.loads(json.dumps(asdict(config.resolved())))
    names = [
        name for name, value in settings.items() if name not in ignored and old.get(name, value) != value
    ]
    trained_folds = {fold for part in old["clips"] for fold in part["folds"]}
    if bool(old["base"]) != bool(config.base) or (config.base and not is_id_of(old["base"], config.base)):
        names.append("base")
    return [*names, *(["test_folds"] if trained_folds.intersection(test_folds) else [])]


def _record(loop: TrainingLoop) -> dict[str, Any]:
    """Return the content of training.json."""
    trainer = loop.trainer
    class_effect = trainer.class_effect()
    return {
        "config": asdict(trainer.config),
        "precision": trainer.precision,
        "steps": loop.step,
        "kept_step": loop.kept_step,
        "log": loop.log,
        **({} if loop.diverged_step is None else {"diverged_step": loop.diverged_step}),
        **({} if class_effect is None else {"class_effect": round(class_effect, 3)}),
    }


def write_pipeline(
    folder: Path, networks: Networks, trained_on: dict[str, Any], record: dict[str, Any]
) -> None:
    """Write a pipeline folder in audio-diffusion's format, with weights in float16. `record` is its training.json."""
    with quiet_libraries():
        from audiodiffusion.mel import Mel
        from safetensors.torch import save

        for name, network in {"unet": networks.unet, "vqvae": networks.vae}.items():
            if network is not None:
                half = network.to("cpu").half()
                (folder / name).mkdir(exist_ok=True)
                atomic_write(folder / name / "config.json", half.to_json_string().encode())
                tensors = {key: tensor.contiguous() for key, tensor in half.state_dict().items()}
                # As `save_pretrained` does, but with an OSError for a full disk
                atomic_write(folder / name / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
                network.float()
        (folder / "mel").mkdir(exist_ok=True)
        mel = Mel(**networks.mel.to_audiodiffusion()).to_json_string()
        atomic_write(folder / "mel" / "mel_config.json", mel.encode())
    index: dict[str, Any] = {
        "_class_name": "AudioDiffusionPipeline",
        "mel": ["audiodiffusion.mel", "Mel"],
        "scheduler": ["diffusers", networks.scheduler_config["_class_name"]],
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", "AutoencoderKL"] if networks.vae is not None else [None, None],
    }
    if networks.class_names:  # as in diffusers' class-conditional DiTPipeline
        index["id2label"] = dict(enumerate(networks.class_names))
    contents: dict[str, Any] = {
        "scheduler/scheduler_config.json": networks.scheduler_config,
        TRAINED_ON_FILE: trained_on,
        "training.json": record,
        INDEX_FILE: index,  # last: it marks the folder as finished
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        atomic_write(folder / name, (json.dumps(content, indent=1) + "\n").encode())
