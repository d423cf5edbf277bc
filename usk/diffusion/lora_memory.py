"""How much memory a text-to-audio model takes in use and in training LoRA weights, for who asks before anything is downloaded."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from usk.diffusion.adapter import Adapter, find_adapter
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.lora import add_adapter, attention_layers
from usk.diffusion.pipeline import (
    CONFIG_FILES,
    INDEX_FILE,
    GeneratorInfo,
    describe_folder,
    locate_base,
    locate_pipeline,
    naming_model,
    read_pipeline_json,
)
from usk.diffusion.text_info import FAMILIES, text_shape
from usk.diffusion.text_load import CLASSES, cosine_scheduler, schedule_of
from usk.diffusion.text_memory import ModelSize, meta_networks
from usk.diffusion.text_pipeline import TextGenerator
from usk.diffusion.weights import quiet_libraries, quiet_log

COPIES = 6  # of each LoRA weight, in float32: itself, its gradient, two of AdamW, the average, and the best
HALF, WHOLE = torch.bfloat16.itemsize, torch.float32.itemsize
CLIP_S = 4.0

TEXTS: dict[str, Callable[[Any], dict[str, tuple[int, ...]]]] = {
    "AudioLDM2Pipeline": lambda c: {"generated": (8, c.cross_attention_dim[-1][1]), "text": (128, c.cross_attention_dim[-1][2]), "mask": (128,)},
    "AudioLDMPipeline": lambda c: {"text": (c.projection_class_embeddings_input_dim,)},
    "MusicLDMPipeline": lambda c: {"text": (c.projection_class_embeddings_input_dim,)},
    "StableAudioPipeline": lambda c: {"context": (130, c.cross_attention_input_dim), "seconds": (1, c.global_states_input_dim)},
    "StableAudio3Pipeline": lambda c: {"context": (257, c.cond_token_dim), "mask": (257,), "duration": (c.global_cond_dim,)},
    "LongCatAudioDiTPipeline": lambda c: {"context": (32, c.dit_text_dim), "mask": (32,)},
}  # fmt: skip
"""What a prompt becomes in the published models, by the network's configuration."""


def lora_bytes(
    folder: Path,
    info: GeneratorInfo,
    networks: Mapping[str, Any],
    seconds: float = CLIP_S,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[int, int]:
    """What training LoRA weights keeps beside a pipeline's own weights: for the LoRA weights, and for each clip of a batch, what
    its gradients are computed from. `networks` are of `meta_networks`. Raises ModelError."""
    generator = _meta_generator(folder, info, networks, dtype)
    network, rank = generator.network, FitConfig.lora_rank
    network.requires_grad_(False).train()
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    with torch.device("meta"):
        added = add_adapter(network, Adapter("", "", rank, rank, attention_layers(network)))
        for parameter in added.values():
            parameter.data = parameter.data.to(dtype)  # as autocast makes them
        shape = generator.latent_shape(generator.crop(round(seconds * info.sample_rate_hz)))
        texts = {
            name: torch.zeros(1, *size, dtype=dtype)
            for name, size in TEXTS[info.family](network.config).items()
        }
        texts = {name: text.bool() if name == "mask" else text for name, text in texts.items()}
        noisy, nodes = torch.zeros(1, *shape, dtype=dtype), torch.ones(1)
    with _FusedAttention():
        kept = saved_bytes(lambda: generator.output_of_one_length(noisy, nodes, texts), own)
    return COPIES * WHOLE * sum(parameter.numel() for parameter in added.values()), kept


def _meta_generator(
    folder: Path, info: GeneratorInfo, networks: Mapping[str, Any], dtype: torch.dtype
) -> TextGenerator:
    """The pipeline in `folder` as a generator without memory for its weights, tokenizers and text encoders."""
    import diffusers

    kind, index = getattr(diffusers, info.family), read_pipeline_json(folder / INDEX_FILE)
    parts = {name: networks.get(name) for name in inspect.signature(kind).parameters}
    network = networks[FAMILIES[info.family].network]
    with quiet_libraries(), quiet_log():
        network.to(dtype)
        if info.family == "StableAudioPipeline":
            parts["scheduler"] = cosine_scheduler(folder)
        elif (folder / "scheduler").is_dir():  # else the pipeline brings its own
            parts["scheduler"] = getattr(diffusers, index["scheduler"][1]).from_pretrained(
                folder / "scheduler"
            )
        pipeline = kind(**parts)
    return CLASSES[info.family](
        **vars(info),
        model_id="",
        device=torch.device("meta"),
        pipeline=pipeline,
        schedule=schedule_of(info.family, pipeline),
        hop_samples=text_shape(info.family, folder, read_pipeline_json).hop_samples,
        network=network,
    )


class _Attention(torch.autograd.Function):
    """What fused attention keeps: its inputs, its output, and a number for each query and head."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(
            query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32)
        )
        return output


class _FusedAttention(TorchFunctionMode):
    """On the meta device attention would keep its whole matrix, as it does nowhere else."""

    def __torch_function__(self, called: Any, types: Any, args: Any = (), named: Any = None) -> Any:
        if called is not torch.nn.functional.scaled_dot_product_attention:
            return called(*args, **(named or {}))
        of = {**dict(zip(("query", "key", "value"), args, strict=False)), **(named or {})}
        return _Attention.apply(of["query"], of["key"], of["value"])


def saved_bytes(call: Callable[[], Any], own: set[int]) -> int:
    """What autograd keeps of a call; storages that are `own` do not count."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = call()
    del output  # until here it has held all that was saved
    return sum(size for place, size in kept.items() if place not in own)


def memory_of(model: str) -> dict[str, Any]:
    """What `usk info` says of the memory of a text-to-audio model; nothing of others. Raises ModelError."""
    with naming_model(model):
        folder, _ = locate_pipeline(model, CONFIG_FILES)
        if (adapter := find_adapter(folder)) is not None:
            folder = locate_base(adapter, CONFIG_FILES)
        info = describe_folder(folder)
        if info.family not in FAMILIES:
            return {}
        networks = meta_networks(folder, info.family)
        size = ModelSize.of(networks, info.family)
    both = sum(size.on_device)
    gb: dict[str, float] = {
        "GPU GB": HALF * both,
        "GPU GB, parts by turns": HALF * max(size.on_device),
        "main memory GB with a GPU": HALF * size.total,
        "main memory GB without": WHOLE * size.total,
    }
    with contextlib.suppress(
        Exception
    ):  # a stranger's network may not compute without weights: the rest is known
        state, of_clip = lora_bytes(folder, info, networks)
        gb |= {
            "GPU GB to fit LoRA weights": HALF * both + state,
            f"and for each clip of {CLIP_S:g} s in a batch": of_clip,
        }
    millions = {name: f"{name} {count / 1e6:,.1f}" for name, count in size.parameters.items()}
    return {
        "parameters, millions": list(millions.values()),
        **{name: round(n / 1e9, 2) for name, n in gb.items()},
    }
