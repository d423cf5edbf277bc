"""`usk fit`: clips and a folder in, a generator's pipeline folder out. The networks and the loop are in their own modules."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.audio.mel import MelSettings, audio_to_image, stack_padded
from usk.data.decode import DecodedSource, Progress, beginning, decode_source
from usk.data.leaks import unknown_generator
from usk.data.licenses import strictest_license
from usk.data.source import Source
from usk.data.splits import held_out_groups
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.generator import Condition
from usk.diffusion.interpolate import decomposed
from usk.diffusion.mel_pipeline import MelGenerator, quiet_libraries
from usk.diffusion.networks import Base, Networks, conditioned_classes, load_base, new_networks
from usk.diffusion.pipeline import TRAINED_ON_FILE
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.train import CHECKPOINT, FitClips, FitProgress, Fitting
from usk.diffusion.workers import workers
from usk.errors import UsageError, disk_errors
from usk.files import atomic_write, exclusive_lock, require_own_folder
from usk.text import abbreviate_list

EMBEDDED_MEL = MelSettings(n_fft=2_048, hop_samples=552, n_mels=64, n_frames=160)
"""One image of 4 s at 22.05 kHz: 64 bands, a frame each 25 ms."""

PREVIEWED = SamplerConfig(steps=6, strength=0.5)  # as `usk synth` does by default

FIT_FILE = "fit.json"  # what a folder is being fitted with
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
UNKNOWN_GENERATOR = "its clips are of a generator that does not say all it was trained on"


def preview(
    generator: MelGenerator,
    images: np.ndarray,
    path: Path,
    class_names: Sequence[str] = (),
    sampler: SamplerConfig = PREVIEWED,
) -> None:
    """A PNG: for up to four pairs of images, rows of first parent, its round trip, the mix, and the second parent.

    Without guidance. `class_names` are the images' classes, for a generator that is to be told them; a mix of two is told none.
    """
    from PIL import Image

    pairs = min(4, len(images) // 2)
    if pairs < 1:
        return
    clean = generator.to_latent(
        torch.from_numpy(images[: 2 * pairs].astype(np.float32))[:, None].to(generator.device)
    )
    names = list(class_names[: 2 * pairs])
    of_mixes = [
        first if first == second else "" for first, second in zip(names[0::2], names[1::2], strict=True)
    ]
    noisy = generator.invert(clean, sampler, Condition(names))
    half = torch.full((pairs,), 0.5)
    mixed = decomposed(noisy[0::2], noisy[1::2], half, clean[0::2], clean[1::2], generator.scales(sampler))
    decoded = generator.sample(torch.cat((noisy[0::2], mixed)), sampler, Condition(names[0::2] + of_mixes))
    back = generator.to_image(decoded)
    rows = [generator.to_image(clean[0::2]), back[:pairs], back[pairs:], generator.to_image(clean[1::2])]
    grid = torch.cat([torch.cat([image[0].flip(0) for image in row], dim=1) for row in rows], dim=0)
    pixels = ((grid.cpu().numpy() + 1) * 127.5).round().astype(np.uint8)
    Image.fromarray(pixels).resize((pixels.shape[1] * 2, pixels.shape[0] * 2)).save(path)


def in_pairs(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All rows in random order, pairs of one class first, then what is left over. `labels` int [n]."""
    pairs: list[int] = []
    waiting: dict[int, int] = {}
    for row in rng.permutation(len(labels)).tolist():
        if (first := waiting.pop(int(labels[row]), None)) is None:
            waiting[int(labels[row])] = row
        else:
            pairs += [first, row]
    return np.array([*pairs, *waiting.values()], dtype=np.int64)


@dataclass(frozen=True)
class FitResult:
    """Where the fitted generator is, how its validation loss went, and what to warn of."""

    folder: Path
    log: list[dict[str, Any]]
    trained_on: dict[str, Any]
    notes: tuple[str, ...] = ()
    kept_step: int = 0  # whose weights the generator has: the best on held-out recordings, else the last


def images_of(
    decoded: DecodedSource, mel: MelSettings, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mel images float16 [n, n_mels, n_frames] of every clip's beginning (see `usk.data.decode.beginning`), and how many frames each fills [n]."""
    images = np.zeros((len(decoded), mel.n_mels, mel.n_frames), dtype=np.float16)
    frames = np.zeros(len(decoded), dtype=np.int64)
    for begin in range(0, len(decoded), 64):
        rows = range(begin, min(begin + 64, len(decoded)))
        audio = [beginning(decoded.audio(row), mel.image_samples) for row in rows]
        batch, _ = audio_to_image(stack_padded(audio, mel.image_samples), mel)
        images[begin : begin + len(audio)] = batch[:, 0].numpy()
        frames[begin : begin + len(audio)] = [
            mel.n_frames
            if len(samples) >= 0.97 * mel.image_samples
            else max(1, len(samples) // mel.hop_samples)
            for samples in audio
        ]
        if progress is not None:
            progress(begin + len(audio), len(decoded))
    return images, frames


def fit(
    sources: Sequence[Source],
    out: str | os.PathLike[str],
    config: FitConfig | None = None,
    *,
    folds: Sequence[int] = (),
    mel: MelSettings | None = None,
    skip_bad: bool = False,
    report: Callable[[FitProgress], None] = lambda _: None,
    decoding: Progress | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> FitResult:
    """Train a generator on the clips of `sources` (of `folds` alone, where given) and write its pipeline folder.

    Recordings held out by `usk.data.splits.held_out_groups` only measure the validation loss, and choose the step whose
    weights are kept: long training learns few recordings by heart. Called again with
    the same folder after an interruption it goes on from the last checkpoint; a folder made with another
    configuration is refused with UsageError. With `config.base` that generator is trained further, whatever it has
    heard before stays on record, and `mel` must not be given: images are the base's (else EMBEDDED_MEL's by default).
    `warn` gets what is to be known before training begins, and that it diverged; the result has it too. Where several processes were
    started together (`torchrun`), all call this, and only the main one reports, warns and writes.

    Raises: UskError with one line that names the fix; Stopped after Ctrl-C or SIGTERM, the checkpoint written.
    """
    config = (config or FitConfig()).resolved()
    if config.base is not None and mel is not None:
        raise UsageError(
            "mel settings cannot be chosen for a base: it draws the images that it was trained on"
        )
    root = Path(out)
    require_own_folder(root, FIT_FILE)  # not after an hour of decoding
    with workers(config.device) as team, ExitStack() as kept:  # before anything is decoded or written
        base = None
        if config.base is not None:
            with team.main_first():
                base = load_base(config.base, team.device)
        mel = base.generator.mel if base is not None else mel or EMBEDDED_MEL
        names = tuple(dict.fromkeys(name for source in sources for name in source.class_names))
        told = conditioned_classes(config, base, names)
        notes = (
            *(base.notes if base is not None else ()),
            *filter(None, map(unknown_generator, sources)),
        )
        if team.is_main:
            for note in notes:
                warn(note)
        with team.main_first():
            clips, parts, left_out = _clips_of(
                sources, told, folds, mel, skip_bad, decoding if team.is_main else None
            )
        if team.is_main:
            for note in left_out:
                warn(note)
        notes = (*notes, *left_out)
        networks = new_networks(config, mel, told, team.device) if base is None else base.networks(told)
        if base is not None:
            config = base.described(config, told)
        with team.main_first():
            if team.is_main:
                with disk_errors(root):
                    root.mkdir(parents=True, exist_ok=True)
                kept.enter_context(exclusive_lock(root, "usk fit"))
                _claim(root, config, mel, parts)
        fitting = Fitting(clips, networks, config, root, team)
        log = fitting.run(report)
        if fitting.diverged_step is not None:
            diverged = (
                f"the training diverged in step {fitting.diverged_step} (its loss is no number): the generator has the weights of "
                f"step {fitting.kept_step}, the best before; a lower --learning-rate than {fitting.learning_rate:g} may go further"
            )
            notes = (*notes, diverged)
            if team.is_main:
                warn(diverged)
        heard = [*(base.trained_on if base is not None else []), *parts]
        licenses = [source.license for source in sources]
        if base is not None:
            licenses.append(base.generator.license)
        trained_on = {"license": strictest_license(licenses), "sources": heard}
        if team.is_main:
            _finish(fitting, base, trained_on)
    return FitResult(root, log, trained_on, notes, fitting.kept_step)


def _clips_of(
    sources: Sequence[Source],
    told: tuple[str, ...],
    folds: Sequence[int],
    mel: MelSettings,
    skip_bad: bool,
    decoding: Progress | None,
) -> tuple[FitClips, list[dict[str, Any]], list[str]]:
    """The clips to train on, labeled with their places in `told`, what `trained_on.json` says of each source, and notes.

    A recording with clips in a fold that is not among `folds` is left out: it stands on the test side there.
    """
    parts: list[dict[str, Any]] = []
    notes: list[str] = []
    clips: list[FitClips] = []
    for source in sources:
        everything = decode_source(source, mel.sample_rate_hz, skip_bad=skip_bad, progress=decoding)
        notes += [note for note in everything.source.notes if note not in source.notes]
        chosen = {clip.clip_id for clip in everything.source.select(folds=folds or None).clips}
        elsewhere = {clip.group for clip in everything.source.clips if clip.clip_id not in chosen}
        of_folds = [row for row, clip in enumerate(everything.source.clips) if clip.clip_id in chosen]
        rows = [row for row in of_folds if everything.source.clips[row].group not in elsewhere]
        if len(rows) < len(of_folds):
            across = {everything.source.clips[row].group for row in of_folds} & elsewhere
            notes.append(
                f"{source.location}: {len(across)} recordings with clips in other folds than {','.join(map(str, sorted(folds)))} "
                f"too were left out ({abbreviate_list(sorted(across))}): they are tested there"
            )
        if not rows:
            raise UsageError(
                f"--folds {','.join(map(str, sorted(folds)))}: every recording of {source.location} has clips in other folds too, "
                "so none can be kept from a test; leave --folds out, or name folds that keep recordings whole"
            )
        decoded = everything.subset(rows)
        held = held_out_groups(everything.source.clips) & {clip.group for clip in decoded.source.clips}
        images, frames = images_of(decoded, mel)
        is_held = np.array([clip.group in held for clip in decoded.source.clips], dtype=bool)
        labels = [told.index(source.class_names[clip.label]) if told else 0 for clip in decoded.source.clips]
        clips.append(FitClips(images, frames, np.array(labels, dtype=np.int64), is_held))
        parts.append(
            {
                "source": source.name,
                "revision": source.revision,
                "license": source.license,
                "folds": sorted(folds) if folds else list(source.folds),
                "clips": int((~is_held).sum()),
                "groups": sorted(_training_groups(decoded.source, held)),
                "sounds": sorted(_training_sounds(decoded.source, held)),
                "held_out_groups": sorted(held),
                **({"hub_id": source.hub_id} if source.hub_id else {}),
                **({} if source.has_groups else {"has_groups": False}),
                **({"note": UNKNOWN_GENERATOR} if unknown_generator(source) else {}),
            }
        )
    if not any(part["held_out_groups"] for part in parts):
        notes.append(
            "too few recordings to hold any out: nothing is validated, and the last step's weights are kept"
        )
    if not any(part["clips"] for part in parts):
        raise UsageError("there are no clips to train on")
    together = FitClips(
        np.concatenate([part.images for part in clips]),
        np.concatenate([part.frames for part in clips]),
        np.concatenate([part.labels for part in clips]),
        np.concatenate([part.held_out for part in clips]),
    )
    return together, parts, notes


def _training_groups(source: Source, held: frozenset[str]) -> set[str]:
    """The recordings whose sound trains: of synthetic clips, their parents', and what their own generator was trained on."""
    chosen = [clip for clip in source.clips if clip.group not in held]
    groups = {group for clip in chosen for group in clip.lineage}
    return groups.union(*(part.groups for part in source.generator_trained_on))


def _training_sounds(source: Source, held: frozenset[str]) -> set[str]:
    """The same by clip."""
    chosen = [clip for clip in source.clips if clip.group not in held]
    sounds = {sound for clip in chosen for sound in clip.parents or (clip.identity,)}
    return sounds.union(*(part.sounds for part in source.generator_trained_on))


def _claim(root: Path, config: FitConfig, mel: MelSettings, parts: list[dict[str, Any]]) -> None:
    """Write down what this folder is being fitted with, or check that it is the same as last time."""
    wanted = json.loads(json.dumps({"config": asdict(config), "mel": mel.as_dict(), "sources": parts}))
    path = root / FIT_FILE
    if not path.is_file():
        with disk_errors(root):
            atomic_write(path, (json.dumps(wanted, indent=1) + "\n").encode())
        return
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        # An older usk knew fewer settings; what is new does by default what it did.
        recorded["config"] = json.loads(json.dumps(asdict(FitConfig()))) | recorded["config"]
        same = recorded == wanted
    except (ValueError, TypeError, KeyError):
        same = False
    if not same:
        raise UsageError(
            f"--out {root} holds a generator fitted with other settings or clips; choose a new folder"
        )
    if (root / "model_index.json").is_file():
        raise UsageError(f"--out {root} holds a finished generator; choose a new folder")


def _finish(fitting: Fitting, base: Base | None, trained_on: dict[str, Any]) -> None:
    """The preview and the pipeline folder; the checkpoints go."""
    root, told = fitting.out, fitting.networks.class_names
    some = fitting.held_out if len(fitting.held_out) else fitting.training
    some = some[in_pairs(some.labels, np.random.default_rng(fitting.config.seed))[:8]]
    names = [told[label] for label in some.labels] if told else []
    preview(fitting.generator(), some.images.astype(np.float32), root / "preview.png", names)
    record: dict[str, Any] = {
        "config": asdict(fitting.config),
        "precision": fitting.precision,
        "processes": fitting.workers.count,
        "steps": fitting.steps_done,
        "kept_step": fitting.kept_step,
        "log": fitting.log,
    }
    if fitting.diverged_step is not None:
        record["diverged_step"] = fitting.diverged_step
    if base is not None:
        record["from"] = base.generator.model_id
    with disk_errors(root):
        write_pipeline(root, fitting.networks, trained_on, record)
    for checkpoint in root.glob(f"*-{CHECKPOINT}"):
        checkpoint.unlink()


def write_pipeline(
    folder: Path, networks: Networks, trained_on: dict[str, Any], record: dict[str, Any]
) -> None:
    """The pipeline folder in audio-diffusion's format, weights in float16 safetensors; `record` is its training.json."""
    with quiet_libraries():
        from audiodiffusion.mel import Mel
        from safetensors.torch import save

        for name, network in {"unet": networks.unet, "vqvae": networks.vae}.items():
            if network is not None:
                half = network.to("cpu").half()
                half.save_config(folder / name)
                tensors = {key: tensor.contiguous() for key, tensor in half.state_dict().items()}
                # As its `save_pretrained` does, but a full disk stays the OSError that it is.
                atomic_write(folder / name / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
                network.float()
        Mel(**networks.mel.to_audiodiffusion()).save_pretrained(folder / "mel")
    contents: dict[str, Any] = {
        "scheduler/scheduler_config.json": networks.scheduler_config,
        TRAINED_ON_FILE: trained_on,
        "training.json": record,
    }
    index: dict[str, Any] = {
        "_class_name": "AudioDiffusionPipeline",
        "mel": ["audiodiffusion.mel", "Mel"],
        "scheduler": ["diffusers", networks.scheduler_config["_class_name"]],
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", "AutoencoderKL"] if networks.vae is not None else [None, None],
    }
    if networks.class_names:  # as diffusers' class-conditional DiTPipeline keeps them
        index["id2label"] = dict(enumerate(networks.class_names))
    # Last: a folder with an index is finished, and its groups are known.
    contents["model_index.json"] = index
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        atomic_write(folder / name, (json.dumps(content, indent=1) + "\n").encode())
