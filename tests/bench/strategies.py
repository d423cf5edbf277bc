"""Which way of mixing makes usable clips: one plan rendered many ways, each compared with real clips.

    python -m tests.bench.strategies --real UrbanSound8K --folds 1,3 --test-fold 2 --run RUN --per-class 10

For each setting: MMD (unbiased, Gaussian kernel of median width) of log-mel statistics to real clips of
the test fold of the same class, mean over classes; and the share of clips that a classifier trained on real clips (RUN,
from `usk train --mix real`) takes for their class. Beside them stand the parents themselves and the sums of the same
parents' waveforms. `--png` draws parents and clips.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from usk.classify.features import fit_length, log_mel
from usk.classify.models import preset
from usk.classify.runs import load_classifier
from usk.data.decode import DecodedSource, decode_source
from usk.data.sources import open_source
from usk.diffusion.load import load_generator
from usk.mel.spectrogram import audio_to_image, stack_padded
from usk.synth.plan import Plan, draw_plan
from usk.synth.render import Renderer, at_level, rms_db
from usk.synth.settings import RenderConfig

SETTINGS = [
    RenderConfig(strategy="slerp", level=1.0, eta=0.0, steps=50, refinements=0),  # as published
    *(
        RenderConfig(strategy=strategy, level=level, eta=eta)
        for strategy, level, eta in (
            ("slerp", 0.5, 0.0),
            ("slerp", 0.5, 1.0),
            ("midpoint", 0.5, 0.5),
            ("decomposed", 0.3, 1.0),
            ("decomposed", 0.4, 0.0),
            ("decomposed", 0.4, 0.5),
            ("decomposed", 0.4, 1.0),
            ("decomposed", 0.5, 0.0),
            ("decomposed", 0.5, 0.5),
            ("decomposed", 0.5, 1.0),
            ("decomposed", 0.65, 0.5),
        )
    ),
    RenderConfig(strategy="decomposed", level=0.5, eta=0.5, steps=24),
]


def statistics(features: torch.Tensor) -> np.ndarray:
    """Per-band mean, deviation and mean absolute change over time of log-mel in dB: [n, 3 * n_mels]."""
    features = features.float() - features.float().mean(dim=(1, 2), keepdim=True)
    change = features.diff(dim=2).abs().mean(dim=2)
    return torch.cat((features.mean(dim=2), features.std(dim=2), change), dim=1).numpy()


def mmd(first: np.ndarray, second: np.ndarray, width: float) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3), Gaussian kernel, times 100."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * width**2))

    n, m = len(first), len(second)
    within_first = (kernel(first, first).sum() - n) / (n * (n - 1))
    within_second = (kernel(second, second).sum() - m) / (m * (m - 1))
    return float(100 * (within_first + within_second - 2 * kernel(first, second).mean()))


def waveform_sums(plan: Plan, decoded: DecodedSource) -> list[np.ndarray]:
    """The control: both parents' waveforms at equal level, weighed by alpha and summed, at the mean length."""
    row_of = {clip.clip_id: row for row, clip in enumerate(decoded.source.clips)}
    sums = []
    for clip in plan.clips:
        first, second = (decoded.audio(row_of[parent]) for parent in clip.parents)
        length = (len(first) + len(second)) // 2
        parts = [np.resize(part, length) / 10 ** (rms_db(part) / 20) for part in (first, second)]
        level = (1 - clip.alpha) * rms_db(first) + clip.alpha * rms_db(second)
        sums.append(at_level((1 - clip.alpha) * parts[0] + clip.alpha * parts[1], level)[0])
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--folds", default="1,3")
    parser.add_argument("--test-fold", type=int, default=2)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    generator = load_generator(options.model)
    source = open_source(options.real)
    decoded = decode_source(source, generator.mel.sample_rate_hz)
    source = decoded.source
    chosen = source.select(folds=tuple(int(fold) for fold in options.folds.split(",")))
    plan = draw_plan(chosen.clips, source.class_names, options.per_class, known_clips=source.clips)
    labels = np.array([clip.label for clip in plan.clips])
    model, record = load_classifier(options.run)
    settings = preset(record["classifier"]).features
    row_of = {clip.clip_id: row for row, clip in enumerate(source.clips)}

    def features(audio: list[np.ndarray]) -> torch.Tensor:
        n = settings.mel.image_samples
        fitted = [fit_length(samples, n, settings.repeat_short) for samples in audio]
        return torch.cat(
            [
                log_mel(torch.from_numpy(np.stack(fitted[i : i + 64])), settings.mel)
                for i in range(0, len(fitted), 64)
            ]
        )

    rng = np.random.default_rng(0)
    target_rows, target_labels = [], []
    for label in range(len(source.class_names)):
        rows = [
            row
            for row, clip in enumerate(source.clips)
            if clip.label == label and clip.fold == options.test_fold
        ]
        rows = rng.permutation(rows)[:40].tolist()
        target_rows += rows
        target_labels += [label] * len(rows)
    target = statistics(features([decoded.audio(row) for row in target_rows]))
    centre, spread = target.mean(axis=0), target.std(axis=0) + 1e-6
    target = (target - centre) / spread
    of = np.array(target_labels)
    width = float(np.median(np.linalg.norm(target[:, None] - target[None], axis=-1)))

    def measure(audio: list[np.ndarray]) -> dict[str, float]:
        made = features(audio)
        with torch.no_grad():
            predicted = torch.cat([model(part).argmax(dim=1) for part in made.split(128)]).numpy()
        values = (statistics(made) - centre) / spread
        distances = [mmd(values[labels == label], target[of == label], width) for label in np.unique(labels)]
        return {
            "mmd": round(float(np.mean(distances)), 2),
            "recognised": round(float((predicted == labels).mean()), 3),
        }

    parents = [[decoded.audio(row_of[clip.parents[side]]) for clip in plan.clips] for side in (0, 1)]
    rows = [
        {"strategy": "first parents", **measure(parents[0])},
        {"strategy": "second parents", **measure(parents[1])},
        {"strategy": "waveform sums", **measure(waveform_sums(plan, decoded))},
    ]
    drawn = [
        audio_to_image(
            stack_padded(
                [np.resize(a, generator.mel.image_samples) for a in parents[0][:10]],
                generator.mel.image_samples,
            ),
            generator.mel,
        )[0]
    ]
    with tempfile.TemporaryDirectory() as work:
        for config in SETTINGS:
            started = time.perf_counter()
            # Settings that invert alike share their parents' latents; only the first of them pays for the inversion.
            latents = Path(work) / f"{config.level}-{config.steps}-{config.refinements}"
            latents.mkdir(exist_ok=True)
            renderer = Renderer(plan, decoded, generator, config, latents)
            audio = []
            for begin in range(0, len(plan), config.batch):
                audio += renderer.audio(plan.clips[begin : begin + config.batch])
            took_s = time.perf_counter() - started
            drawn.append(renderer.images(plan.clips[:10]).cpu())
            rows.append({**asdict(config), **measure(audio), "took_s": round(took_s, 1)})
            Console(stderr=True).print(rows[-1])
    drawn.append(
        audio_to_image(
            stack_padded(
                [np.resize(a, generator.mel.image_samples) for a in parents[1][:10]],
                generator.mel.image_samples,
            ),
            generator.mel,
        )[0]
    )
    table = Table(
        title=f"{len(plan)} clips, {generator.model_id}, parents of folds {options.folds}, against fold {options.test_fold}"
    )
    columns = ("strategy", "level", "eta", "steps", "mmd", "recognised", "took_s")
    for name in columns:
        table.add_column(name)
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in columns))
    Console().print(table)
    if options.json:
        options.json.write_text(
            json.dumps({"model": generator.model_id, "clips": len(plan), "rows": rows}, indent=1) + "\n"
        )
    if options.png:
        from PIL import Image

        grid = torch.cat([torch.cat([image[0].flip(0) for image in row], dim=1) for row in drawn], dim=0)
        Image.fromarray(((grid.numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)).save(options.png)


if __name__ == "__main__":
    main()
