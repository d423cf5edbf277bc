"""Encode and decode real clips unchanged: log-mel error by class.

    python docs/studies/round_trip.py --real UrbanSound8K --folds 2 --json round_trip.json

Every clip is inverted with the default steps and strength and decoded deterministically (eta 0, alpha 0). The file may be
put into a generator's folder as `round_trip.json`, where `usk fit`'s card shows it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from usk.audio.mel import audio_to_image, stack_padded
from usk.audio.vocoder import log_mel_error_db
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.synth.settings import QUALITIES, render_config

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--folds", default="2")
    parser.add_argument("--model", default="embedded")
    parser.add_argument(
        "--per-class", type=int, default=20, help="clips of each class, spread over recordings"
    )
    parser.add_argument("--quality", choices=QUALITIES, default="standard")
    parser.add_argument("--strength", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--solver")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    generator = load_generator(options.model)
    given = {name: getattr(options, name) for name in ("strength", "steps", "solver")}
    config = render_config(options.quality, **given)
    folds = tuple(int(fold) for fold in options.folds.split(","))
    source = open_source(options.real).select(folds=folds)
    unheard = [row for row, clip in enumerate(source.clips) if clip.group not in generator.training_groups]
    if len(unheard) < len(source):
        raise SystemExit(
            f"the generator was trained on {len(source) - len(unheard)} of these clips; choose other --folds"
        )
    rng = np.random.default_rng(0)
    chosen: list[int] = []
    for label in range(len(source.class_names)):
        rows = rng.permutation([row for row, clip in enumerate(source.clips) if clip.label == label])
        uses: dict[str, int] = {}
        order = []
        for row in rows:
            group = source.clips[row].group
            uses[group] = uses.get(group, 0) + 1
            order.append((uses[group], int(row)))
        chosen += [row for _, row in sorted(order)[: options.per_class]]
    decoded = decode_source(source.subset(chosen), generator.mel.sample_rate_hz)
    errors = []
    n_samples = generator.mel.image_samples
    for begin in range(0, len(decoded), BATCH):
        audio = [decoded.audio(row) for row in range(begin, min(begin + BATCH, len(decoded)))]
        if config.repeat_short:
            audio = [
                np.resize(samples, n_samples) if len(samples) < n_samples else samples for samples in audio
            ]
        image, _ = audio_to_image(stack_padded(audio, n_samples).to(generator.device), generator.mel)
        names = [decoded.class_name(row) for row in range(begin, begin + len(audio))]
        condition = Condition(names)
        noisy = generator.invert(generator.to_latent(image), config.sampler, condition)
        clean = generator.sample(noisy, config.sampler, condition)
        errors += log_mel_error_db(image, generator.to_image(clean), generator.mel).tolist()
    labels = torch.tensor([clip.label for clip in decoded.source.clips])
    values = torch.tensor(errors)
    rows = [
        {
            "name": name,
            "n": int((labels == label).sum()),
            "error_db": round(float(values[labels == label].mean()), 3),
        }
        for label, name in enumerate(source.class_names)
        if (labels == label).any()
    ]
    rows.append({"name": "all", "n": len(errors), "error_db": round(float(values.mean()), 3)})
    result = {
        "clips": f"fold {options.folds} of {source.name}",
        "model": generator.model_id,
        "rows": rows,
        "settings": f"{config.steps} {config.solver} steps each way, strength {config.strength:g}",
    }
    table = Table(title=f"{generator.model_id}: {result['settings']}, {result['clips']}")
    for name in ("class", "clips", "log-mel L1 in dB"):
        table.add_column(name)
    for row in rows:
        table.add_row(row["name"], str(row["n"]), f"{row['error_db']:.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
