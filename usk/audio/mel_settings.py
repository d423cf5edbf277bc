"""What a mel image means. Imports no torch, so that a generator can be described without it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

LARGEST = 1 << 16  # of any count; larger ones are mistakes, and would fill the memory


@dataclass(frozen=True)
class MelSettings:
    """The settings of a mel image, stored in a generator's folder and in every dataset made with it.

    The defaults are those of audiodiffusion's `Mel`; `n_frames` and `n_mels` are its `x_res` and `y_res`.
    """

    sample_rate_hz: int = 22_050
    n_fft: int = 2_048
    hop_samples: int = 512
    n_mels: int = 256
    n_frames: int = 256
    top_db: float = 80.0

    def __post_init__(self) -> None:
        """Raises ValueError for an image, its filters or its sound too large for any memory."""
        if (
            self.n_mels * self.n_frames > 1 << 22
            or self.n_frames * self.hop_samples > 1 << 24
            or self.n_mels * self.n_fft > 1 << 26
        ):
            raise ValueError(
                f"an image of {self.n_mels} bands and {self.n_frames} frames (hop {self.hop_samples}, window {self.n_fft}) is too large"
            )

    @property
    def image_samples(self) -> int:
        """Samples that fill one image exactly."""
        return self.samples_of(self.n_frames)

    def samples_of(self, frames: int) -> int:
        """Samples that fill `frames` frames exactly (they are centered: one less than frames * hop)."""
        return frames * self.hop_samples - 1

    @classmethod
    def from_audiodiffusion(cls, config: dict[str, Any]) -> MelSettings:
        """From a pipeline folder's `mel/mel_config.json`; missing keys take audiodiffusion's defaults.

        Raises ValueError or TypeError for values that no image can have.
        """
        keys = {
            "sample_rate_hz": "sample_rate", "n_fft": "n_fft", "hop_samples": "hop_length", "n_mels": "y_res",
            "n_frames": "x_res",
        }  # fmt: skip
        counts = {ours: int(config[theirs]) for ours, theirs in keys.items() if theirs in config}
        for ours, count in counts.items():
            if not 1 <= count <= (LARGEST if ours != "sample_rate_hz" else 1_000_000):
                raise ValueError(f"{keys[ours]} is {count}")
        return cls(**counts, top_db=float(config.get("top_db", 80)))

    def to_audiodiffusion(self) -> dict[str, Any]:
        """The keyword arguments of audiodiffusion's `Mel` that mean the same."""
        return {
            "x_res": self.n_frames,
            "y_res": self.n_mels,
            "sample_rate": self.sample_rate_hz,
            "n_fft": self.n_fft,
            "hop_length": self.hop_samples,
            "top_db": int(self.top_db),
        }

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
