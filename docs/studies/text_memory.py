"""The memory table of docs/how-to/text-to-audio.md, from the published models' configurations, as far as they are known.

python docs/studies/text_memory.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from usk.diffusion.text_memory import memory_of

CHANNELS = (128, 256, 384, 640)
# scripts/convert_original_audioldm_to_diffusers.py, ..._musicldm_..., and ..._audioldm2_... in diffusers' repository.
_LDM = {
    "sample_size": 128, "in_channels": 8, "out_channels": 8, "block_out_channels": CHANNELS, "layers_per_block": 2,
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3 + ["UpBlock2D"],
}  # fmt: skip
_FILM = {
    "class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 512,
    "class_embeddings_concat": True, "cross_attention_dim": CHANNELS,
}  # fmt: skip
_MEL = {
    "vae": (
        "diffusers", "AutoencoderKL",
        {"in_channels": 1, "out_channels": 1, "block_out_channels": [128, 256, 512], "latent_channels": 8, "layers_per_block": 2,
         "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3},
    ),
    "vocoder": (
        "transformers", "SpeechT5HifiGan",
        {"model_in_dim": 64, "sampling_rate": 16_000, "upsample_initial_channel": 1024, "upsample_rates": [5, 4, 2, 2, 2],
         "upsample_kernel_sizes": [16, 16, 8, 4, 4], "resblock_kernel_sizes": [3, 7, 11],
         "resblock_dilation_sizes": [[1, 3, 5]] * 3, "normalize_before": False},
    ),
}  # fmt: skip
_LARGER_CLAP = {"patch_embeds_hidden_size": 128, "hidden_size": 1024, "depths": [2, 2, 12, 2]}
_T5_GEMMA = {
    "vocab_size": 256_000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 64,
}  # fmt: skip

PUBLISHED: dict[str, tuple[str, dict[str, tuple[str, str, dict[str, Any]]]]] = {
    # The text encoder is laion/clap-htsat-unfused, whose configuration is the default of transformers.
    "AudioLDM": (
        "AudioLDMPipeline",
        {
            **_MEL,
            "unet": ("diffusers", "UNet2DConditionModel", _LDM | _FILM),
            "text_encoder": ("transformers", "ClapTextModelWithProjection", {}),
        },
    ),
    "MusicLDM": (
        "MusicLDMPipeline",
        {
            **_MEL,
            "unet": ("diffusers", "UNet2DConditionModel", _LDM | _FILM),
            "text_encoder": ("transformers", "ClapModel", {"audio_config": _LARGER_CLAP}),
        },
    ),
    # With google/flan-t5-large and gpt2. Which CLAP the published folder has is not known: here the default.
    "AudioLDM 2": (
        "AudioLDM2Pipeline",
        {
            **_MEL,
            "unet": (
                "diffusers",
                "AudioLDM2UNet2DConditionModel",
                _LDM | {"attention_head_dim": 8, "cross_attention_dim": [[None, 768, 1024]] * 4},
            ),
            "text_encoder": ("transformers", "ClapModel", {}),
            "text_encoder_2": (
                "transformers",
                "T5EncoderModel",
                {
                    "d_model": 1024, "d_ff": 2816, "d_kv": 64, "num_layers": 24, "num_heads": 16, "vocab_size": 32_128,
                    "feed_forward_proj": "gated-gelu",
                },
            ),
            "language_model": ("transformers", "GPT2Model", {}),
            "projection_model": (
                "audioldm2",
                "AudioLDM2ProjectionModel",
                {"text_encoder_dim": 512, "text_encoder_1_dim": 1024, "langauge_model_dim": 768},
            ),
        },
    ),
    # Its published folder, in copies: the network's file there has 4,227,806,200 bytes, four for each parameter and its header.
    "Stable Audio Open 1.0": (
        "StableAudioPipeline",
        {
            "transformer": ("diffusers", "StableAudioDiTModel", {"sample_size": 1024}),
            "vae": (
                "diffusers",
                "AutoencoderOobleck",
                {
                    "encoder_hidden_size": 128, "downsampling_ratios": [2, 4, 4, 8, 8], "channel_multiples": [1, 2, 4, 8, 16],
                    "decoder_channels": 128, "decoder_input_channels": 64, "audio_channels": 2, "sampling_rate": 44_100,
                },
            ),
            "text_encoder": (
                "transformers",
                "T5EncoderModel",
                {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_heads": 12, "vocab_size": 32_128},
            ),
            "projection_model": (
                "stable_audio",
                "StableAudioProjectionModel",
                {"text_encoder_dim": 768, "conditioning_dim": 768, "min_value": 0, "max_value": 512},
            ),
        },
    ),
    # scripts/convert_stable_audio_3_to_diffusers.py there; the VAE as its class says of the model; google/t5gemma-b-b-ul2.
    "Stable Audio 3 medium": (
        "StableAudio3Pipeline",
        {
            "transformer": ("diffusers", "StableAudio3DiTModel", {}),
            "vae": (
                "diffusers",
                "AutoencoderSAME",
                {
                    "encoder_channels": 256, "encoder_transformer_depths": [12], "patch_size": 256, "encoder_strides": [16],
                    "latent_dim": 256, "sampling_rate": 44_100,
                },
            ),
            "text_encoder": (
                "transformers",
                "T5GemmaEncoderModel",
                {"encoder": _T5_GEMMA, "decoder": _T5_GEMMA, "is_encoder_decoder": False, "vocab_size": 256_000},
            ),
            "duration_embedder": ("stable_audio_3", "StableAudio3DurationEmbedder", {"max_val": 384.0}),
        },
    ),
    # config.json of meituan-longcat/LongCat-AudioDiT-1B.
    "LongCat-AudioDiT-1B": (
        "LongCatAudioDiTPipeline",
        {
            "transformer": ("diffusers", "LongCatAudioDiTTransformer", {}),
            "vae": (
                "diffusers",
                "LongCatAudioDiTVae",
                {"c_mults": [1, 2, 4, 8, 16], "strides": [2, 4, 4, 8, 8], "use_snake": True, "sample_rate": 24_000,
                 "downsampling_ratio": 2048},
            ),
            "text_encoder": (
                "transformers",
                "UMT5EncoderModel",
                {
                    "d_model": 768, "d_ff": 2048, "d_kv": 64, "num_layers": 12, "num_heads": 12, "vocab_size": 256_384,
                    "feed_forward_proj": "gated-gelu",
                },
            ),
        },
    ),
}  # fmt: skip
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "StableAudioPipeline": (
        "CosineDPMSolverMultistepScheduler",
        {
            "sigma_min": 0.3,
            "sigma_max": 500,
            "prediction_type": "v_prediction",
            "sigma_data": 1.0,
            "solver_order": 2,
        },
    ),
    "StableAudio3Pipeline": ("FlowMatchEulerDiscreteScheduler", {}),
}
DDIM = ("DDIMScheduler", {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"})


def save_published(name: str, folder: Path) -> Path:
    """Write the configurations of a published model, without weights and tokenizers."""
    kind, parts = PUBLISHED[name]
    index: dict[str, Any] = {"_class_name": kind}
    for component, (library, of, config) in parts.items():
        index[component] = [library, of]
        (folder / component).mkdir(parents=True)
        (folder / component / "config.json").write_text(json.dumps(config))
    if kind != "LongCatAudioDiTPipeline":  # which brings its own
        of, config = SCHEDULERS.get(kind, DDIM)
        index["scheduler"] = ["diffusers", of]
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


if __name__ == "__main__":
    for name in PUBLISHED:
        with tempfile.TemporaryDirectory() as place:
            found = memory_of(str(save_published(name, Path(place) / name)))
        print(name, *(f"| {value:.1f}" for value in found.values() if isinstance(value, float)))
