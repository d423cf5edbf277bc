"""Describe a generator from the JSON files of its pipeline folder or Hub id: classes, sample rate, training data, license.

Imports no torch and loads no weights, so that settings can be checked and plans drawn before a generator is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from usk.audio.mel_settings import LARGEST, MelSettings
from usk.data.licenses import UNKNOWN
from usk.data.pinned import download
from usk.diffusion.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS, Adapter, find_adapter
from usk.diffusion.text_info import FAMILIES, text_shape
from usk.errors import ModelError
from usk.files import expanded
from usk.typed_json import from_json

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
PUBLISHED = "teticio/audio-diffusion-ddim-256"
INDEX_FILE = "model_index.json"
TRAINED_ON_FILE = "trained_on.json"
TRAINING_FILE = "training.json"
# Below this `class_effect` the network hardly follows its classes. The embedded generator has 0.35. One that was fitted on nine new
# classes for 500 steps had 0.08, and its clips of the strategy sample cost 17 points of accuracy (docs/studies/esc10).
LEAST_CLASS_EFFECT = 0.15
MEL_IMAGES = "audio-diffusion mel images"
UNET_CLASSES = ("UNet2DModel", "UNet2DConditionModel")
CONFIG_FILES = ("*.json",)
# Weights and vocabularies are in subfolders. Some repositories have copies of the weights at the top, which are not needed.
PIPELINE_FILES = ("*.json", "*/*.safetensors", "*/*.bin", "*/*.txt", "*/*.model")
MAX_LAYERS = 64  # in a block


@dataclass(kw_only=True)
class GeneratorInfo:
    """The properties of a generator that are known without its weights."""

    family: str
    sample_rate_hz: int
    longest_samples: int  # the longest clip that it can make
    class_names: tuple[str, ...] = ()  # the classes that it can be conditioned on
    takes_prompts: bool = False  # conditioned on any text
    inverts: bool = True  # False for distilled models, which sample with fresh noise at every step
    conditioned_on_audio: bool = False  # needs the parents' audio
    mel: MelSettings | None = None  # for families that make mel images
    trained_on: list[dict[str, Any]] = field(default_factory=list, repr=False)
    license: str = UNKNOWN
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of each class, for an adapter
    # How much another class changes its predictions: RMS change / RMS error, if measured
    class_effect: float | None = None

    @property
    def takes_classes(self) -> bool:
        """Whether it can be conditioned on a clip's class, by name or by prompt."""
        return bool(self.class_names) or self.takes_prompts

    @property
    def longest_s(self) -> float:
        return self.longest_samples / self.sample_rate_hz

    @property
    def training_groups(self) -> frozenset[str]:
        """Return the recordings that the network was trained on. None are known for a generator that usk did not fit."""
        return frozenset(group for part in self.trained_on for group in part.get("groups", ()))


def describe_generator(model: str = EMBEDDED, device: str = "auto") -> GeneratorInfo:
    """Describe `model`: `embedded`, `auto`, a pipeline folder, or a Hub id. From the Hub only JSON files are downloaded.

    Raises ModelError with the field `model` if it is not a pipeline that usk supports.
    """
    name = resolve_model(model, device)
    with naming_model(name):
        folder, _ = locate_pipeline(name, CONFIG_FILES)
        return describe_folder(folder)


def resolve_model(model: str, device: str) -> str:
    """Resolve `auto`: the published 256 x 256 model on CUDA, and the embedded generator elsewhere."""
    if model != "auto":
        return model
    if device == "auto":
        from usk.device import resolve_device

        device = resolve_device(device).type
    return PUBLISHED if device.startswith("cuda") else EMBEDDED


@contextlib.contextmanager
def naming_model(name: str, field: str = "model") -> Iterator[None]:
    """Add the field and its value to a ModelError inside."""
    try:
        yield
    except ModelError as error:
        raise ModelError(error.message, field=field, value=name, hint=error.hint) from (
            error.__cause__ or error
        )


def describe_folder(folder: Path) -> GeneratorInfo:
    """Describe the pipeline in `folder`. Raises ModelError."""
    if (adapter := find_adapter(folder)) is not None:
        trained_on, license = _training_record(folder)  # with what the base was trained on
        base, prompts = describe_folder(locate_base(adapter, CONFIG_FILES)), _trained_prompts(folder)
        return replace(base, trained_on=trained_on, license=license, prompts=prompts)
    index = read_pipeline_json(folder / INDEX_FILE)
    if (kind := index.get("_class_name")) in FAMILIES:
        return _describe_text(folder, str(kind))
    unet_class = component_class(index, "unet")
    if unet_class not in UNET_CLASSES or "mel" not in index:
        raise ModelError(
            f"is not an audio-diffusion pipeline: {INDEX_FILE} names no UNet2DModel and mel, and its class {kind} is not known",
            hint=f"Name a folder or Hub model of audio-diffusion's format, or of {', '.join(FAMILIES)}.",
        )
    unet = checked_sizes(folder / "unet")
    mel = mel_settings(folder)
    trained_on, license = _training_record(folder)
    return GeneratorInfo(
        family=MEL_IMAGES,
        sample_rate_hz=mel.sample_rate_hz,
        longest_samples=mel.image_samples,
        class_names=_class_names(index, unet.get("num_class_embeds")),
        conditioned_on_audio=unet_class == "UNet2DConditionModel",
        mel=mel,
        trained_on=trained_on,
        license=license,
        class_effect=_training_value(folder, float | None, "class_effect"),
    )


def _describe_text(folder: Path, kind: str) -> GeneratorInfo:
    shape = text_shape(kind, folder, read_pipeline_json)
    trained_on, license = _training_record(folder)
    note = (
        f"its family's published models were trained on {FAMILIES[kind].trained_on}; no recordings are named"
    )
    scheduler = folder / "scheduler" / "scheduler_config.json"  # some families have a fixed one
    distilled = scheduler.is_file() and read_pipeline_json(scheduler).get("stochastic_sampling", False)
    return GeneratorInfo(
        family=kind,
        sample_rate_hz=shape.sample_rate_hz,
        longest_samples=shape.longest_samples,
        takes_prompts=True,
        inverts=not distilled,
        trained_on=trained_on or [{"source": kind, "note": note}],
        license=license,
    )


def mel_settings(folder: Path) -> MelSettings:
    config = read_pipeline_json(folder / "mel" / "mel_config.json")
    try:
        return MelSettings.from_audiodiffusion(config)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"mel/mel_config.json is not understood: {error}") from error


def checked_sizes(folder: Path) -> dict[str, Any]:
    """Return a network's config.json. Raises ModelError for sizes so large that building the network would fill the memory."""
    config = read_pipeline_json(folder / "config.json")
    for key, value in config.items():
        limit = MAX_LAYERS if "layers" in key or key.endswith("block_types") else LARGEST
        values = value if isinstance(value, list) else [value]
        numbers = [one for one in values if isinstance(one, (int, float))]
        if len(values) > MAX_LAYERS or any(abs(number) > limit for number in numbers):
            raise ModelError(f"{folder.name}/config.json: {key} is too large")
    return config


def _class_names(index: dict[str, Any], n_labels: Any) -> tuple[str, ...]:
    """Return the class names of a class-conditional UNet. Its last label, for no class, has no name."""
    if not n_labels:
        return ()
    named = index.get("id2label")
    wanted = [str(label) for label in range(n_labels - 1)] if isinstance(n_labels, int) else []
    names = tuple(str(named.get(label)) for label in wanted) if isinstance(named, dict) else ()
    if not isinstance(named, dict) or sorted(named) != sorted(wanted) or len({*names}) < len(names):
        raise ModelError(
            f"is class-conditional, but id2label in its {INDEX_FILE} does not name {len(wanted)} different classes"
        )
    return names


def _training_record(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the sources that the generator was trained on, and the license that its clips inherit."""
    if not os.path.lexists(folder / TRAINED_ON_FILE):
        return [], UNKNOWN
    record = read_pipeline_json(folder / TRAINED_ON_FILE)
    sources = record.get("sources")
    if not isinstance(sources, list) or not all(isinstance(part, dict) for part in sources):
        raise ModelError(f"{TRAINED_ON_FILE} does not list the sources that the generator was trained on")
    return sources, str(record.get("license", UNKNOWN))


def _trained_prompts(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each class that an adapter was trained with, as far as its folder names them."""
    prompts: dict[str, tuple[str, ...]] = (
        _training_value(folder, dict[str, tuple[str, ...]] | None, "prompts") or {}
    )
    if not all(of_class and all(map(str.strip, of_class)) for of_class in prompts.values()):
        raise ModelError(f"{TRAINING_FILE} lists an empty prompt")
    return prompts


def _training_value(folder: Path, kind: Any, key: str) -> Any:
    """Return a value of training.json, or None if there is no such file or value. Raises ModelError."""
    if not os.path.lexists(folder / TRAINING_FILE):
        return None
    value = read_pipeline_json(folder / TRAINING_FILE).get(key)
    try:
        return from_json(kind, value)
    except ValueError as error:
        raise ModelError(
            f"{key} in {TRAINING_FILE} is damaged ({str(error).strip()})",
            hint="Remove it there, or fit the generator again.",
        ) from error


def folder_fingerprint(folder: Path) -> str:
    """Return 12 hex digits of the SHA-256 of a pipeline folder's weights and configurations, without cards and logs."""
    digest = hashlib.sha256()
    top = (folder / name for name in (INDEX_FILE, ADAPTER_FILE, ADAPTER_WEIGHTS))
    for path in sorted([*top, *folder.glob("*/*")]):
        if path.suffix in (".json", ".safetensors", ".bin") and path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:12]


def locate_pipeline(name: str, files: tuple[str, ...] = PIPELINE_FILES) -> tuple[Path, str]:
    """Return the pipeline folder of `name`, and its commit if it is a Hub id, whose `files` are downloaded. Raises ModelError."""
    folder = EMBEDDED_FOLDER if name == EMBEDDED else expanded(name)
    if folder.is_dir():
        if is_pipeline(folder):
            return folder, ""
        if (folder / "fit.json").is_file():
            raise ModelError(
                "is not finished", hint="Run the same `usk fit` again: it goes on where it stopped."
            )
        raise ModelError(f"is not a pipeline folder: it has no {INDEX_FILE}")
    if folder.exists() or name.partition("@")[0].count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            "no such pipeline folder", hint="Give a folder, a Hub id (user/name), or `embedded`."
        )
    hub_id = name.partition("@")[0]
    marks = (INDEX_FILE, ADAPTER_FILE)
    for wanted in (marks, None):  # first the small files that show whether it is a pipeline
        folder = download(
            name,
            wanted or (*files, ADAPTER_WEIGHTS),
            f"the model {hub_id}",
            "use the embedded generator, or a pipeline folder",
            ModelError,
        )
        if not is_pipeline(folder):
            raise ModelError(f"is not a pipeline: it has no {INDEX_FILE}")
        index = folder / INDEX_FILE
        if index.is_file() and read_pipeline_json(index).get("_class_name") in FAMILIES:
            # Their weights are safetensors
            files = tuple(pattern for pattern in files if pattern != "*/*.bin")
    return folder, folder.name


def is_pipeline(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (INDEX_FILE, ADAPTER_FILE))


def locate_base(adapter: Adapter, files: tuple[str, ...] = PIPELINE_FILES) -> Path:
    """Return the pipeline folder that an adapter belongs to. Raises ModelError."""
    try:
        folder, _ = locate_pipeline(adapter.base_name, files)
    except ModelError as error:
        moved = f"Put it back there, or write its new place into base_model_name_or_path of {ADAPTER_FILE}."
        hint = error.hint if adapter.base_on_hub else moved
        raise ModelError(f"its base {adapter.base_name}: {error.message}", hint=hint) from error
    if (folder / ADAPTER_FILE).is_file():
        raise ModelError(f"adapts {adapter.base_name}, which is an adapter itself")
    return folder


def model_id(name: str, folder: Path, commit: str) -> str:
    """Return id@revision, for the rows of the clips made. The revision is a Hub commit or the folder's fingerprint."""
    if commit:
        return f"{name.partition('@')[0]}@{commit}"
    return f"{EMBEDDED if name == EMBEDDED else folder.resolve().name}@{folder_fingerprint(folder)}"


def is_id_of(recorded: str, name: str) -> bool:
    """Return whether `recorded` (id@revision) can be the `model_id` of the generator `name`, without asking the Hub."""
    folder = EMBEDDED_FOLDER if name == EMBEDDED else expanded(name)
    if folder.is_dir():
        return recorded == model_id(name, folder, "")
    return Path(recorded.partition("@")[0]).name == Path(name.partition("@")[0]).name


def read_pipeline_json(path: Path) -> dict[str, Any]:
    """Read an object from a pipeline's JSON file. Raises ModelError."""
    place = f"{path.parent.name}/{path.name}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"is not an audio-diffusion pipeline: {place} is missing") from error
    except OSError as error:  # a folder, a loop of links, a file that may not be read
        raise ModelError(f"{place} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested too deep
        raise ModelError(f"{place} is not valid JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{place} is not a JSON object")
    return content


def component_class(index: dict[str, Any], component: str) -> str:
    """Return the class of a component in `model_index.json`, or an empty string without one. Entries are [library, class]."""
    entry = index.get(component)
    return str(entry[1] or "") if isinstance(entry, list) and len(entry) == 2 else ""
