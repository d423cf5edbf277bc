"""The families of text-to-audio pipelines: how each embeds a prompt, denoises, and encodes and decodes audio.

Each class follows the `__call__` of its pipeline in diffusers, so that sampling from the same latents gives the same audio (a test
compares them), and has the pipeline's name. A new family needs a row in `usk.diffusion.text_info.FAMILIES` and a tiny model in
`tests/diffusion/text_models.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from usk.diffusion.continuous import CosineSchedule, FlowSchedule
from usk.diffusion.pipeline import read_pipeline_json
from usk.diffusion.text_pipeline import Embedding, TextGenerator
from usk.errors import ModelError

LOG_FLOOR = 1e-5  # of mel magnitudes, as in the training of AudioLDM's VAE
N_FFT = 1_024


def _mono_to(audio: torch.Tensor, channels: int) -> torch.Tensor:
    """Repeat audio [batch, samples] to [batch, channels, samples]."""
    return audio[:, None].expand(-1, channels, -1)


@dataclass(kw_only=True)
class StableAudio(TextGenerator):
    """Stable Audio Open (arXiv 2407.14358): a waveform VAE and a DiT that predicts v."""

    none_is_zero = True
    not_loaded = ("scheduler",)

    @staticmethod
    def complete(pipeline: Any, folder: Path) -> None:
        """Add the scheduler, which tells the network the noise level. The class that published folders name needs torchsde."""
        from diffusers import EDMDPMSolverMultistepScheduler

        class Cosine(EDMDPMSolverMultistepScheduler):
            def precondition_noise(self, sigma: torch.Tensor) -> torch.Tensor:
                return sigma.atan() / math.pi * 2

        config = read_pipeline_json(folder / "scheduler" / "scheduler_config.json")
        own = config.get("_class_name") == EDMDPMSolverMultistepScheduler.__name__
        pipeline.scheduler = (EDMDPMSolverMultistepScheduler if own else Cosine).from_config(config)

    @staticmethod
    def schedule_of(config: dict[str, Any]) -> CosineSchedule:
        prediction, deviation = config.get("prediction_type", "v_prediction"), config.get("sigma_data", 1.0)
        if (prediction, deviation) != ("v_prediction", 1.0):
            raise ModelError("its scheduler does not predict v with data of unit variance")
        return CosineSchedule(float(config["sigma_min"]), float(config["sigma_max"]))

    def embed(self, prompt: str, n_samples: int) -> Embedding:
        cpu, seconds = torch.device("cpu"), n_samples / self.sample_rate_hz
        text = self.encode_once(prompt, lambda: self.pipeline.encode_prompt(prompt, cpu, False))
        start, end = self.pipeline.encode_duration(0.0, seconds, cpu, False, 1)
        return {"context": torch.cat((text, start, end), dim=1), "seconds": torch.cat((start, end), dim=2)}

    def output(self, scaled: torch.Tensor, nodes: torch.Tensor, texts: Embedding) -> torch.Tensor:
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        rotary = get_1d_rotary_pos_embed(
            self.pipeline.rotary_embed_dim,
            scaled.shape[2] + texts["seconds"].shape[1],
            use_real=True,
            repeat_interleave_real=False,
        )
        return self.network(
            scaled.to(self.dtype),
            self.pipeline.scheduler.precondition_noise(nodes).to(self.dtype),
            encoder_hidden_states=texts["context"].to(self.dtype),
            global_hidden_states=texts["seconds"].to(self.dtype),
            rotary_embedding=tuple(part.to(scaled.device) for part in rotary),
            return_dict=False,
        )[0]

    def latent_shape(self, n_samples: int) -> tuple[int, ...]:
        return int(self.network.config.in_channels), n_samples // self.hop_samples

    def to_latent(self, audio: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        channels = _mono_to(audio, vae.config.audio_channels)
        return vae.encode(channels.to(vae.dtype)).latent_dist.mode()

    def to_audio(self, latent: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        return vae.decode(latent.to(vae.dtype)).sample.mean(dim=1)


@dataclass(kw_only=True)
class StableAudio3(TextGenerator):
    """Stable Audio 3: a transformer VAE and a DiT that predicts the velocity of a rectified flow."""

    most_tokens = 256

    @staticmethod
    def schedule_of(config: dict[str, Any]) -> FlowSchedule:
        return FlowSchedule(float(config.get("shift", 1.0)), logsnr_min=-6.2, logsnr_max=2.0)

    def embed(self, prompt: str, n_samples: int) -> Embedding:
        cpu, seconds = torch.device("cpu"), n_samples / self.sample_rate_hz
        text, mask = self.encode_once(prompt, lambda: self.pipeline.encode_prompt(prompt, cpu, 1))
        duration = self.pipeline.encode_duration(seconds, cpu, 1, 1)
        context, mask = self.pipeline.prepare_cross_attention(text, mask, duration)
        return {"context": context, "mask": mask, "duration": duration}

    def output(self, scaled: torch.Tensor, nodes: torch.Tensor, texts: Embedding) -> torch.Tensor:
        return self.network(
            scaled.to(self.dtype),
            nodes * self.pipeline.scheduler.config.num_train_timesteps,  # in float32, as in the pipeline
            encoder_hidden_states=texts["context"].to(self.dtype),
            global_hidden_states=texts["duration"].to(self.dtype),
            encoder_attention_mask=texts["mask"],
            return_dict=False,
        )[0]

    def latent_shape(self, n_samples: int) -> tuple[int, ...]:
        return int(self.pipeline.vae.config.latent_dim), n_samples // self.hop_samples

    def to_latent(self, audio: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        return vae.encode(_mono_to(audio, vae.config.audio_channels).to(vae.dtype)).latents

    def to_audio(self, latent: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        return vae.decode(latent.to(vae.dtype)).sample.clamp(-1, 1).mean(dim=1)


@dataclass(kw_only=True)
class LongCatAudioDiT(TextGenerator):
    """LongCat-AudioDiT: a waveform VAE and a DiT that predicts the velocity from noise to audio."""

    none_is_zero = True

    @staticmethod
    def schedule_of(config: dict[str, Any]) -> FlowSchedule:
        return FlowSchedule(float(config.get("shift", 1.0)))

    def embed(self, prompt: str, n_samples: int) -> Embedding:
        from diffusers.pipelines.longcat_audio_dit.pipeline_longcat_audio_dit import _normalize_text

        normalized, cpu = _normalize_text(prompt), torch.device("cpu")
        text, length = self.encode_once(prompt, lambda: self.pipeline.encode_prompt([normalized], cpu))
        mask = torch.arange(text.shape[1])[None] < length[:, None]
        return {"context": text, "mask": mask}

    def output(self, scaled: torch.Tensor, nodes: torch.Tensor, texts: Embedding) -> torch.Tensor:
        # The network's text layers do not mask padding, so prompts of each length are evaluated separately.
        lengths = texts["mask"].sum(dim=1)
        output = torch.zeros_like(scaled)
        for length in lengths.unique().tolist():
            rows = lengths == length
            short = {name: part[rows, :length] for name, part in texts.items()}
            output[rows] = self._output_of_one_length(scaled[rows], nodes[rows], short).to(output.dtype)
        return output

    def _output_of_one_length(
        self, scaled: torch.Tensor, nodes: torch.Tensor, texts: Embedding
    ) -> torch.Tensor:
        hidden = scaled.transpose(1, 2).to(self.dtype)
        velocity = self.network(
            hidden_states=hidden,
            encoder_hidden_states=texts["context"].to(self.dtype),
            encoder_attention_mask=texts["mask"],
            timestep=(1 - nodes).to(self.dtype),
            attention_mask=torch.ones(hidden.shape[:2], dtype=torch.bool, device=scaled.device),
            latent_cond=torch.zeros_like(hidden),
        ).sample
        return -velocity.transpose(1, 2)  # the network's velocity points from noise to audio

    def latent_shape(self, n_samples: int) -> tuple[int, ...]:
        return int(self.pipeline.latent_dim), n_samples // self.hop_samples

    def to_latent(self, audio: torch.Tensor) -> torch.Tensor:
        return self.pipeline.vae.encode(audio[:, None], sample_posterior=False).latents

    def to_audio(self, latent: torch.Tensor) -> torch.Tensor:
        return self.pipeline.vae.decode(latent).sample[:, 0]


@dataclass(kw_only=True)
class AudioLDM2(TextGenerator):
    """AudioLDM 2 (arXiv 2308.05734): a VAE of log-mel images, a UNet that attends to two text encodings, and a vocoder."""

    @staticmethod
    def complete(pipeline: Any, folder: Path) -> None:
        """Replace the GPT2Model of published folders by the GPT2LMHeadModel that the pipeline needs."""
        from transformers import GPT2LMHeadModel, GPT2Model

        model = getattr(pipeline, "language_model", None)  # None for AudioLDM
        if isinstance(model, GPT2Model):
            with torch.device("meta"):
                whole = GPT2LMHeadModel(model.config)
            whole.transformer = model
            whole.lm_head.weight = model.wte.weight  # shared, and not used
            pipeline.language_model = whole

    @property
    def time_axis(self) -> int:
        return -2

    def embed(self, prompt: str, n_samples: int) -> Embedding:
        negative, cpu = self.negative_prompt or None, torch.device("cpu")
        encoded = self.encode_once(
            prompt, lambda: self.pipeline.encode_prompt(prompt, cpu, 1, True, negative_prompt=negative)
        )
        both = dict(zip(("text", "mask", "generated"), encoded, strict=True))
        with_prompt = {name: part[1:] for name, part in both.items()}
        # The negative prompt is encoded with each prompt: it is padded to the prompt's length, which changes its encoding.
        return with_prompt | {f"without {name}": part[:1] for name, part in both.items()}

    def without_prompt(self, texts: Embedding, n_samples: int) -> Embedding:
        none = "without "
        return {name.removeprefix(none): part for name, part in texts.items() if name.startswith(none)}

    def output(self, scaled: torch.Tensor, nodes: torch.Tensor, texts: Embedding) -> torch.Tensor:
        return self.network(
            scaled.to(self.dtype),
            nodes.long(),
            encoder_hidden_states=texts["generated"].to(self.dtype),
            encoder_hidden_states_1=texts["text"].to(self.dtype),
            encoder_attention_mask_1=texts["mask"],
            return_dict=False,
        )[0]

    def latent_shape(self, n_samples: int) -> tuple[int, ...]:
        factor = self.pipeline.vae_scale_factor
        bands = int(self.pipeline.vocoder.config.model_in_dim) // factor
        return int(self.network.config.in_channels), n_samples // self.hop_samples, bands

    def to_latent(self, audio: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mel = self.log_mel(audio)[:, None].to(vae.dtype)
        return vae.encode(mel).latent_dist.mode() * vae.config.scaling_factor

    def to_audio(self, latent: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mel = vae.decode(latent.to(vae.dtype) / vae.config.scaling_factor).sample
        return self.pipeline.vocoder(mel[:, 0])

    def log_mel(self, audio: torch.Tensor) -> torch.Tensor:
        """Return natural logarithms of mel magnitudes [batch, frames, bands], the vocoder's input (Slaney bands up to Nyquist)."""
        from librosa.filters import mel

        config = self.pipeline.vocoder.config
        hop = math.prod(config.upsample_rates)
        bands = torch.from_numpy(
            mel(sr=config.sampling_rate, n_fft=N_FFT, n_mels=config.model_in_dim, fmin=0)
        ).to(audio)
        padded = torch.nn.functional.pad(audio[:, None], ((N_FFT - hop) // 2,) * 2, mode="reflect")[:, 0]
        window = torch.hann_window(N_FFT, device=audio.device)
        spectrum = torch.stft(padded, N_FFT, hop, N_FFT, window, center=False, return_complex=True).abs()
        frames = audio.shape[-1] // hop
        return torch.log((bands @ spectrum).clamp_min(LOG_FLOOR)).transpose(1, 2)[:, :frames]


@dataclass(kw_only=True)
class AudioLDM(AudioLDM2):
    """AudioLDM (arXiv 2301.12503): as AudioLDM 2, but with one CLAP embedding in place of two text encodings."""

    def embed(self, prompt: str, n_samples: int) -> Embedding:
        negative, cpu = self.negative_prompt or None, torch.device("cpu")
        both = self.encode_once(prompt, lambda: self.pipeline._encode_prompt(prompt, cpu, 1, True, negative))
        return {"text": both[1:], "without text": both[:1]}

    def output(self, scaled: torch.Tensor, nodes: torch.Tensor, texts: Embedding) -> torch.Tensor:
        return self.network(
            scaled.to(self.dtype),
            nodes.long(),
            encoder_hidden_states=None,
            class_labels=texts["text"].to(self.dtype),
            return_dict=False,
        )[0]


@dataclass(kw_only=True)
class MusicLDM(AudioLDM):
    """MusicLDM (arXiv 2308.01546): AudioLDM with a whole CLAP model, whose text part is used."""

    def embed(self, prompt: str, n_samples: int) -> Embedding:
        def encode() -> torch.Tensor:
            # The pipeline's own encoding needs transformers before version 5.
            both = [self.negative_prompt, prompt]
            tokens = self.pipeline.tokenizer(both, padding=True, truncation=True, return_tensors="pt")
            found = self.pipeline.text_encoder.get_text_features(**tokens)
            return found if isinstance(found, torch.Tensor) else found.pooler_output

        both = self.encode_once(prompt, encode)
        return {"text": both[1:], "without text": both[:1]}
