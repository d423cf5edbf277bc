"""Load a pipeline folder with audiodiffusion's own class, to compare ours with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from usk.diffusion.mel_pipeline import load_networks
from usk.diffusion.pipeline import INDEX_FILE, component_class, describe_folder, read_pipeline_json
from usk.diffusion.weights import quiet_libraries


def as_audiodiffusion(folder: str | os.PathLike[str]) -> Any:
    """Load a folder as audiodiffusion's own `AudioDiffusionPipeline` (fp32, CPU), whatever the name of its mel class.

    A class-conditional UNet gets the label for no class if it is called without a label, as the pipeline calls it.
    """
    root = Path(folder)
    describe_folder(root)
    index = read_pipeline_json(root / INDEX_FILE)
    unet, vae = load_networks(root)
    if unet.config.num_class_embeds:
        unet.register_forward_pre_hook(_add_label, with_kwargs=True)
    with quiet_libraries():
        from audiodiffusion.mel import Mel
        from audiodiffusion.pipeline_audio_diffusion import AudioDiffusionPipeline
        from diffusers import DDIMScheduler, DDPMScheduler

        is_ddpm = component_class(index, "scheduler") == "DDPMScheduler"
        return AudioDiffusionPipeline(
            vqvae=vae,
            unet=unet,
            mel=Mel.from_pretrained(root, subfolder="mel"),
            scheduler=(DDPMScheduler if is_ddpm else DDIMScheduler).from_pretrained(
                root, subfolder="scheduler"
            ),
        )


def _add_label(
    unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Add the last label, for no class, if there is no label: a forward pre-hook."""
    position = 3 if type(unet).__name__ == "UNet2DConditionModel" else 2  # of class_labels in forward
    if (args[position] if len(args) > position else kwargs.get("class_labels")) is not None:
        return args, kwargs
    sample = args[0] if args else kwargs["sample"]
    none = torch.full((len(sample),), unet.config.num_class_embeds - 1, device=sample.device)
    if len(args) > position:
        return (*args[:position], none, *args[position + 1 :]), kwargs
    return args, {**kwargs, "class_labels": none}
