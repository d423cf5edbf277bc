"""Tiny text-to-audio pipelines with random weights, in the folder layout of the published ones."""

from __future__ import annotations

import string
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

RATE_HZ = 16_000
UNET: dict[str, Any] = {"sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16)}
UNET |= {"norm_num_groups": 8, "layers_per_block": 1}
UNET |= {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
UNET |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}


LETTERS = list(string.ascii_lowercase)


def _t5_tokenizer() -> Any:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *LETTERS, *(f"▁{letter}" for letter in LETTERS)]
    vocab = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    return transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=48)


def _tokenizer(name: str, *pieces: str) -> Any:
    vocab = {piece: i for i, piece in enumerate([*pieces, *LETTERS])}
    return getattr(transformers, name)(vocab=vocab, merges=[], model_max_length=48)


def roberta_tokenizer() -> Any:
    return _tokenizer("RobertaTokenizer", "<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ")


def _t5_encoder(width: int = 16) -> Any:
    return transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=64, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )


def stable_audio() -> Any:
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    widths = {
        "encoder_hidden_size": 8,
        "decoder_channels": 4,
        "decoder_input_channels": 4,
        "audio_channels": 2,
    }
    ratios = {"downsampling_ratios": [4, 8], "channel_multiples": [1, 2]}
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "num_key_value_attention_heads": 2}
    inputs = {"cross_attention_dim": 16, "global_states_input_dim": 32, "cross_attention_input_dim": 16}
    shape = {"sample_size": 1_024, "in_channels": 4, "out_channels": 4, "num_layers": 2, "time_proj_dim": 8}
    sigmas = {"sigma_min": 0.3, "sigma_max": 500, "sigma_data": 1.0, "sigma_schedule": "exponential"}
    solver = {"prediction_type": "v_prediction", "solver_order": 2, "final_sigmas_type": "zero"}
    return diffusers.StableAudioPipeline(
        vae=diffusers.AutoencoderOobleck(**widths, **ratios, sampling_rate=RATE_HZ),
        text_encoder=_t5_encoder(),
        projection_model=StableAudioProjectionModel(16, 16, min_value=0, max_value=32),
        tokenizer=_t5_tokenizer(),
        transformer=diffusers.StableAudioDiTModel(**shape, **heads, **inputs),
        scheduler=diffusers.EDMDPMSolverMultistepScheduler(**sigmas, **solver),
    )


def stable_audio_3() -> Any:
    from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder

    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "head_dim": 8,
    }
    module = transformers.T5GemmaModuleConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)
    config = transformers.T5GemmaConfig(
        encoder=module, decoder=module, is_encoder_decoder=False, vocab_size=64
    )
    coder = {"encoder_channels": 8, "encoder_c_mults": (2,), "encoder_strides": (4,), "latent_dim": 8}
    coder |= {"encoder_transformer_depths": (1,), "audio_channels": 2, "patch_size": 16, "dim_heads": 8}
    shape = {"io_channels": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_memory_tokens": 2}
    shape |= {
        "cond_token_dim": 16,
        "global_cond_dim": 16,
        "local_add_cond_dim": 9,
        "timestep_features_dim": 8,
    }
    return diffusers.StableAudio3Pipeline(
        vae=diffusers.AutoencoderSAME(**coder, sampling_rate=RATE_HZ),
        text_encoder=transformers.T5GemmaEncoderModel(config),
        tokenizer=_tokenizer("GemmaTokenizer", "<pad>", "<eos>", "<bos>", "<unk>", "▁"),
        duration_embedder=StableAudio3DurationEmbedder(output_dim=16, fourier_dim=8, max_val=4.0),
        transformer=diffusers.StableAudio3DiTModel(**shape),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=False),
    )


def longcat() -> Any:
    coder = {"channels": 8, "c_mults": [1, 2], "strides": [4], "latent_dim": 4, "encoder_latent_dim": 8}
    shape = {"dit_dim": 32, "dit_depth": 2, "dit_heads": 2, "dit_text_dim": 16, "latent_dim": 4}
    text = transformers.UMT5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return diffusers.LongCatAudioDiTPipeline(
        vae=diffusers.LongCatAudioDiTVae(**coder, downsampling_ratio=16, sample_rate=RATE_HZ),
        text_encoder=transformers.UMT5EncoderModel(text),
        tokenizer=_t5_tokenizer(),
        transformer=diffusers.LongCatAudioDiTTransformer(**shape),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, invert_sigmas=True),
    )


def _mel_parts() -> dict[str, Any]:
    coder = {"in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "latent_channels": 4}
    coder |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    betas = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
    voice = {"model_in_dim": 8, "upsample_initial_channel": 16, "upsample_rates": [4, 8]}
    voice |= {"upsample_kernel_sizes": [4, 8], "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]}
    config = transformers.SpeechT5HifiGanConfig(**voice, sampling_rate=RATE_HZ, normalize_before=False)
    return {
        "vae": diffusers.AutoencoderKL(**coder, norm_num_groups=4),
        "scheduler": diffusers.DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False),
        "vocoder": transformers.SpeechT5HifiGan(config),
    }


def _clap_text() -> Any:
    sizes = {"vocab_size": 64, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "projection_dim": 16, "pad_token_id": 1}
    return transformers.ClapTextConfig(**sizes, max_position_embeddings=64)


def clap_model(**of_audio: Any) -> Any:
    shape = {"spec_size": 8, "num_mel_bins": 8, "patch_size": 2, "patch_stride": 2} | of_audio
    shape |= {"window_size": 4, "depths": [1, 1], "num_hidden_layers": 2, "num_attention_heads": [1, 1]}
    audio = transformers.ClapAudioConfig(
        **shape, patch_embeds_hidden_size=8, hidden_size=16, projection_dim=16
    )
    clap = transformers.ClapConfig(
        text_config=_clap_text().to_dict(), audio_config=audio.to_dict(), projection_dim=16
    )
    return transformers.ClapModel(clap)


def audioldm2() -> Any:
    gpt = transformers.GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=64, n_ctx=99, max_new_tokens=4)
    crossed = {"cross_attention_dim": ((None, 16, 32), (None, 16, 32)), "attention_head_dim": 2}
    return diffusers.AudioLDM2Pipeline(
        **_mel_parts(),
        text_encoder=clap_model(),
        text_encoder_2=_t5_encoder(32),
        projection_model=diffusers.AudioLDM2ProjectionModel(16, 32, 16),
        language_model=transformers.GPT2LMHeadModel(gpt).transformer,  # which the published folders have
        tokenizer=roberta_tokenizer(),
        tokenizer_2=_t5_tokenizer(),
        feature_extractor=transformers.ClapFeatureExtractor(),
        unet=diffusers.AudioLDM2UNet2DConditionModel(**UNET, **crossed),
    )


def audioldm() -> Any:
    parts = {**_mel_parts(), "text_encoder": transformers.ClapTextModelWithProjection(_clap_text())}
    return diffusers.AudioLDMPipeline(**parts, tokenizer=roberta_tokenizer(), unet=_clap_unet())


def musicldm() -> Any:
    parts = {
        **_mel_parts(),
        "text_encoder": clap_model(),
        "feature_extractor": transformers.ClapFeatureExtractor(),
    }
    return diffusers.MusicLDMPipeline(**parts, tokenizer=roberta_tokenizer(), unet=_clap_unet())


def _clap_unet() -> Any:
    classes = {"class_embed_type": "simple_projection", "class_embeddings_concat": True}
    classes |= {"projection_class_embeddings_input_dim": 16}
    return diffusers.UNet2DConditionModel(**UNET, **classes, cross_attention_dim=(8, 16))


MODELS: dict[str, Callable[[], Any]] = {
    "audioldm": audioldm,
    "audioldm2": audioldm2,
    "musicldm": musicldm,
    "stable_audio": stable_audio,
    "stable_audio_3": stable_audio_3,
    "longcat": longcat,
}


def save_model(name: str, folder: Path) -> Path:
    """Write a tiny pipeline of a family with the same random weights every time."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = MODELS[name]()
    if "ldm" in name:  # a network that predicts little noise: its ODE can be solved in few steps
        with torch.no_grad():
            pipeline.unet.conv_out.weight.mul_(0.05)
    if (
        name == "longcat"
    ):  # whose layers start as zeros: it would predict nothing, and learn nothing behind them
        with torch.no_grad():
            for parameter in pipeline.transformer.parameters():
                if parameter.dim() > 1 and not parameter.any():
                    parameter.normal_(std=0.05)
    pipeline.save_pretrained(folder)
    if name == "stable_audio":  # the published folder names a class that needs torchsde
        for file in (folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"):
            text = file.read_text().replace("EDMDPMSolver", "CosineDPMSolver")
            file.write_text(text)
    return folder


def save_clap(folder: Path) -> Path:
    """A CLAP whose embeddings all lie near one direction, so that similarities are above 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = clap_model(num_mel_bins=64, spec_size=128, patch_size=4, patch_stride=[4, 4])
        for projection in (model.text_projection, model.audio_projection):
            with torch.no_grad():
                projection.linear2.weight.mul_(8.0)
                projection.linear2.bias.fill_(1.0)
        model.save_pretrained(folder)
        extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", max_length_s=1)
        transformers.ClapProcessor(extractor, roberta_tokenizer()).save_pretrained(folder)
    return folder
