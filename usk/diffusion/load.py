"""Load a generator of any family."""

from __future__ import annotations

from usk.device import default_precision, resolve_device
from usk.diffusion.generator import Generator
from usk.diffusion.mel_pipeline import load_mel_generator
from usk.diffusion.pipeline import (
    EMBEDDED,
    MEL_IMAGES,
    describe_folder,
    locate_pipeline,
    model_id,
    naming_model,
    resolve_model,
)
from usk.diffusion.text_info import FAMILIES
from usk.diffusion.text_load import load_text_generator

LOADERS = {MEL_IMAGES: load_mel_generator, **dict.fromkeys(FAMILIES, load_text_generator)}


def load_generator(model: str = EMBEDDED, device: str = "auto", precision: str = "auto") -> Generator:
    """Load `model`: `embedded`, `auto`, a pipeline folder, or a Hub id with optional `@revision`.

    Raises ModelError if it is not a pipeline that usk supports, UsageError if the device is not there.
    """
    on = resolve_device(device)
    name = resolve_model(model, on.type)
    with naming_model(name):
        folder, commit = locate_pipeline(name)
        info = describe_folder(folder)
        return LOADERS[info.family](
            folder,
            info,
            model_id(name, folder, commit),
            on,
            default_precision(on) if precision == "auto" else precision,
        )
