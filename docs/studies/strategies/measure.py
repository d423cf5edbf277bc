"""Which way of mixing makes usable clips: each strategy's clips measured against real ones that nothing has heard.

    python docs/studies/strategies/measure.py --real UrbanSound8K --folds 1,3 --run RUN --per-class 5 --json FILE --png FILE

For each setting: MMD of log-mel statistics (unbiased, Gaussian kernel of median width, mean over classes, with its
interval) to the real clips of the recordings held out for validation, which gave no parents and trained no generator;
and the share of clips that a classifier trained on real clips (RUN, from `usk train --mix real`) takes for their class.
Beside them stand the parents themselves and the sums of the same parents' waveforms. No test fold is looked at. `--png`
draws a clip of each class in each setting, between its parents.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tests.bench.distance import RealReference
from usk.audio.mel import audio_to_image, stack_padded
from usk.audit.embeddings import features_of, log_mel_statistics
from usk.classify.classifier import read_classifier
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.splits import held_out_groups
from usk.diffusion.load import load_generator
from usk.synth.clip_renderer import ClipRenderer
from usk.synth.plan import Plan, draw_plan
from usk.synth.render import DiffusionRenderer
from usk.synth.settings import render_config
from usk.synth.waveform import WaveformSums

SETTINGS = [
    render_config("published"),
    render_config(strength=1.0, guidance=1.0),
    render_config(strategy="slerp", guidance=1.0),
    render_config(strategy="decomposed", strength=0.3, guidance=1.0),
    render_config(strategy="decomposed", guidance=1.0),
    render_config(strategy="decomposed", guidance=2.0),
    render_config(strategy="decomposed", strength=0.7, guidance=1.0),
    render_config(strategy="decomposed", strength=0.7, guidance=2.0),
    render_config(strategy="decomposed", eta=1.0, steps=20, guidance=1.0),
    render_config(strategy="decomposed", eta=1.0, steps=20, guidance=2.0),
    render_config(strategy="variation", guidance=1.0),
    render_config(strategy="variation", strength=0.7, guidance=1.0),
    render_config(strategy="variation", strength=0.7, guidance=2.0),
    render_config(strategy="sample", steps=12, guidance=1.0),
    render_config(strategy="sample", steps=12, guidance=2.0),
]


def make_all(renderer: ClipRenderer) -> list[np.ndarray]:
    """The audio of every clip of a renderer's plan, in order."""
    made: dict[int, np.ndarray] = {}
    for batch in renderer.batches(0, len(renderer.plan)):
        made.update(zip(batch, renderer.audio([renderer.plan.clips[i] for i in batch]), strict=True))
    return [made[index] for index in range(len(renderer.plan))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--folds", default="1,3")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    generator = load_generator(options.model)
    decoded = decode_source(open_source(options.real), generator.mel.sample_rate_hz)
    source = decoded.source
    folds = tuple(int(fold) for fold in options.folds.split(","))
    chosen = source.select(folds=folds)
    held = held_out_groups(source.clips)
    unheard = [row for row, clip in enumerate(source.clips) if clip.group in held and clip.fold in folds]
    reference = RealReference(
        [decoded.audio(row) for row in unheard],
        [source.clips[row].label for row in unheard],
        [source.clips[row].group for row in unheard],
        log_mel_statistics,
    )
    model = read_classifier(options.run)
    features = model.feature_settings
    row_of = {clip.identity: row for row, clip in enumerate(source.clips)}

    def plan_for(strategy: str) -> Plan:
        return draw_plan(
            chosen.clips,
            source.class_names,
            options.per_class,
            strategies=[strategy],
            known_clips=source.clips,
        )

    def measure(plan: Plan, audio: list[np.ndarray]) -> dict[str, Any]:
        labels = [clip.label for clip in plan.clips]
        with torch.no_grad():
            predicted = torch.cat(
                [model(part).argmax(dim=1) for part in features_of(audio, features).split(128)]
            )
        recognized = float((predicted.numpy() == np.array(labels)).mean())
        return {
            **asdict(reference.distance(reference.place(audio), labels)),
            "recognized": round(recognized, 3),
        }

    def pictures(audio: list[np.ndarray]) -> torch.Tensor:
        n = generator.mel.image_samples
        return audio_to_image(stack_padded([np.resize(a, n) for a in audio], n), generator.mel)[0]

    pairs = plan_for("waveform")
    parents = [[decoded.audio(row_of[clip.parents[side]]) for clip in pairs.clips] for side in (0, 1)]
    sums = make_all(WaveformSums(pairs, decoded, render_config(strategy="waveform")))
    n_drawn = len(pairs.counts())
    rows: list[dict[str, Any]] = [
        {"strategy": "first parents", **measure(pairs, parents[0])},
        {"strategy": "second parents", **measure(pairs, parents[1])},
        {"strategy": "waveform (control)", **measure(pairs, sums)},
    ]
    drawn = [pictures(parents[0][:n_drawn]), pictures(parents[1][:n_drawn]), pictures(sums[:n_drawn])]
    for config in SETTINGS:
        resolved = config.resolved(bool(generator.class_names))
        plan = plan_for(resolved.strategy)
        with tempfile.TemporaryDirectory() as work:
            started = time.perf_counter()
            audio = make_all(DiffusionRenderer(plan, decoded, generator, config, Path(work)))
            took_s = time.perf_counter() - started
        drawn.append(pictures(audio[:n_drawn]))
        rows.append(
            {
                "strategy": resolved.strategy,
                **resolved.as_dict(),
                **measure(plan, audio),
                "s_per_clip": round(took_s / len(plan), 3),
            }
        )
        Console(stderr=True).print(
            {name: rows[-1][name] for name in ("strategy", "strength", "mmd", "recognized")}
        )
    show(rows, f"{len(pairs)} clips, {generator.model_id}, parents of folds {options.folds}")
    if options.json:
        result = {
            "model": generator.model_id,
            "clips": len(pairs),
            "reference_clips": len(unheard),
            "rows": rows,
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.png:
        from PIL import Image

        grid = torch.cat([torch.cat([image[0].flip(0) for image in row], dim=1) for row in drawn], dim=0)
        Image.fromarray(((grid.numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)).save(options.png)


def show(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title)
    for name in ("strategy", "strength", "steps", "eta", "guidance", "MMD", "recognized", "s a clip"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(str(row.get(name, "")) for name in ("strategy", "strength", "steps", "eta", "guidance")),
            f"{row['mmd']:.1f} ({row['low']:.1f} to {row['high']:.1f})",
            f"{100 * row['recognized']:.0f} %",
            str(row.get("s_per_clip", "")),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
