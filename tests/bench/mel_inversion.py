"""Mel image to audio: usk's batched inversion against librosa's `mel_to_audio` (what audiodiffusion calls).

    python -m tests.bench.mel_inversion --real UrbanSound8K --folds 2

Same images, one run: seconds a clip, the ratio, and the log-mel error of what comes back, in dB.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import librosa
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from usk.audio.mel import MelSettings, audio_to_image, image_to_power, stack_padded
from usk.audio.vocoder import image_to_audio, log_mel_error_db
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.diffusion.fit import EMBEDDED_MEL

SETTINGS = {"embedded": EMBEDDED_MEL, "audiodiffusion": MelSettings()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--folds", default="2")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--mel", choices=SETTINGS, default="embedded")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    mel = SETTINGS[options.mel]
    source = open_source(options.real).select(folds=tuple(int(fold) for fold in options.folds.split(",")))
    rows = np.random.default_rng(0).permutation(len(source))[: options.clips]
    decoded = decode_source(source.subset(int(row) for row in rows), mel.sample_rate_hz)
    n = mel.image_samples
    images, _ = audio_to_image(
        stack_padded([np.resize(decoded.audio(row), n) for row in range(len(decoded))], n), mel
    )

    def error_db(audio: torch.Tensor) -> float:
        padded = torch.nn.functional.pad(audio[:, :n], (0, max(0, n - audio.shape[1])))
        return float(log_mel_error_db(images, audio_to_image(padded, mel)[0], mel).mean())

    image_to_audio(images[:2], mel, [0, 1])  # warm up
    started = time.perf_counter()
    parts = [
        image_to_audio(images[i : i + 16], mel, list(range(i, min(i + 16, len(images)))))
        for i in range(0, len(images), 16)
    ]
    ours_s = (time.perf_counter() - started) / len(images)
    ours = torch.cat(parts)
    power = image_to_power(images, mel).numpy()
    settings = {"sr": mel.sample_rate_hz, "n_fft": mel.n_fft, "hop_length": mel.hop_samples}
    librosa.feature.inverse.mel_to_audio(power[0], n_iter=2, **settings)
    started = time.perf_counter()
    theirs = [librosa.feature.inverse.mel_to_audio(item, n_iter=32, **settings) for item in power]
    theirs_s = (time.perf_counter() - started) / len(images)
    result = {
        "mel": options.mel,
        "clips": len(images),
        "usk_s_per_clip": round(ours_s, 4),
        "librosa_s_per_clip": round(theirs_s, 4),
        "ratio": round(theirs_s / ours_s, 1),
        "usk_error_db": round(error_db(ours), 3),
        "librosa_error_db": round(error_db(torch.from_numpy(np.stack(theirs)).float()), 3),
    }
    table = Table(title="mel inversion", show_header=False)
    for name, value in result.items():
        table.add_row(name, str(value))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
