"""usk against the published recipe: same weights, same parents, same machine, one run.

    python -m tests.bench.render --real UrbanSound8K --folds 1,3 --held-out 2 --per-class 20 --json FILE
    python -m tests.bench.render --model random-256 --device cuda --per-class 100        # throughput alone

The recipe is audiodiffusion's own code, one clip at a time (tests/bench/recipe.py); usk runs as `usk synth` does, from
decoded parents to shards on disk. `random-256` is the published 256 x 256 network (113.7 M parameters) with random
weights: its speed is real, its clips are noise, so distances and errors are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tests.bench.distance import RealReference
from tests.bench.recipe import Recipe
from usk.audio.mel import MelSettings, audio_to_image, stack_padded
from usk.audio.vocoder import log_mel_error_db
from usk.audit.embeddings import log_mel_statistics
from usk.data.decode import DecodedSource, decode_source
from usk.data.open import open_source
from usk.device import default_precision, resolve_device
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.diffusion.mel_pipeline import MelGenerator
from usk.diffusion.pipeline import EMBEDDED_FOLDER
from usk.diffusion.weights import quiet_libraries
from usk.synth.latents import ParentLatents
from usk.synth.plan import Plan
from usk.synth.prepare import plan_for
from usk.synth.render import DiffusionRenderer
from usk.synth.settings import SynthConfig, render_config
from usk.synth.synthesize import synthesize

RANDOM_256 = "random-256"


def write_random(
    folder: Path, size: int = 256, channels: Sequence[int] = (128, 128, 256, 256, 512, 512)
) -> None:
    """teticio/audio-diffusion-ddim-256's architecture with random weights, or a smaller one like it."""
    plain = len(channels) - 2
    with quiet_libraries():
        from audiodiffusion.mel import Mel
        from diffusers import DDIMScheduler, UNet2DModel  # type: ignore[attr-defined,unused-ignore]

        torch.manual_seed(0)
        UNet2DModel(
            sample_size=(size, size),
            in_channels=1,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=channels,
            down_block_types=(*("DownBlock2D",) * plain, "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * plain),
        ).save_pretrained(folder / "unet")
        DDIMScheduler().save_pretrained(folder / "scheduler")
        Mel(**MelSettings(n_mels=size, n_frames=size).to_audiodiffusion()).save_pretrained(folder / "mel")
    index = {
        "_class_name": "AudioDiffusionPipeline",
        "mel": ["audiodiffusion.mel", "Mel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def matrix_rate(device: torch.device, precision: str) -> float:
    """The device's measured rate of square matrix products in FLOP/s: the best of five."""
    n = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(n, n, device=device, dtype=dtype), torch.randn(n, n, device=device, dtype=dtype)
    best = 0.0
    for _ in range(6):
        synchronize(device)
        started = time.perf_counter()
        a @ b
        synchronize(device)
        best = max(best, 2 * n**3 / (time.perf_counter() - started))
    return best


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flop_of(generator: MelGenerator, crop: int) -> float:
    """FLOP of one evaluation of the network on one clip of `crop` samples."""
    from torch.utils.flop_counter import FlopCounterMode

    noisy = torch.zeros(1, *generator.latent_shape(crop), device=generator.device)
    with FlopCounterMode(display=False) as counter:
        generator.predictor()(noisy, 10)
    return float(counter.get_total_flops())


def peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def round_trip_db(generator: MelGenerator, decoded: DecodedSource, rows: list[int], quality: str) -> float:
    """Mean log-mel L1 of clips encoded and decoded unchanged at a preset, in dB."""
    config = render_config(quality)
    n = generator.mel.image_samples
    errors = []
    for begin in range(0, len(rows), 16):
        some = rows[begin : begin + 16]
        audio = [decoded.audio(row) for row in some]
        audio = [np.resize(a, n) if len(a) < n and config.repeat_short else a for a in audio]
        image, _ = audio_to_image(stack_padded(audio, n).to(generator.device), generator.mel)
        condition = Condition([decoded.class_name(row) for row in some] if config.condition_on_class else ())
        noisy = generator.invert(generator.to_latent(image), config.sampler, condition)
        back = generator.to_image(generator.sample(noisy, config.sampler, condition))
        errors += log_mel_error_db(image, back, generator.mel).tolist()
    return float(np.mean(errors))


@contextlib.contextmanager
def timed_stages(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds spent in each stage of rendering, while it lasts."""
    spent_s: defaultdict[str, float] = defaultdict(float)

    def timed(stage: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            done = method(*given, **named)
            synchronize(device)
            spent_s[stage] += time.perf_counter() - started
            return done

        return measured

    stages = {
        "encode": (ParentLatents, "_encode"),
        "sample": (MelGenerator, "sample"),
        "decode": (MelGenerator, "decode"),
    }
    with contextlib.ExitStack() as patches:
        for stage, (owner, name) in stages.items():
            patches.enter_context(patch.object(owner, name, timed(stage, getattr(owner, name))))
        yield spent_s


def run_usk(
    generator: MelGenerator, options: argparse.Namespace, name: str, plan_config: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """One preset through `usk.synthesize`, shards and all; `name` is `preset` or `preset:precision`."""
    device = generator.device
    quality, _, precision = name.partition(":")
    render = render_config(quality, batch=options.batch, precision=precision or None)
    generator.precision = default_precision(device) if render.precision == "auto" else render.precision
    config = SynthConfig(render=render, **plan_config)
    source = open_source(options.real)
    decoded, plan = plan_for(decode_source(source, generator.sample_rate_hz), config)
    warm = SynthConfig(**{**plan_config, "per_class": 1, "classes": source.class_names[:1]}, render=render)
    synthesize(source, folder / f"warm-{name}", warm, model=generator)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with timed_stages(device) as spent_s:
        started = time.perf_counter()
        synthesize(source, folder / name, config, model=generator)
        took_s = time.perf_counter() - started
    render = render.resolved(generator.takes_classes)
    up, down = render.sampler.evaluations()
    down *= 1 if render.guidance == 1.0 else 2
    renderer = DiffusionRenderer(plan, decoded, generator, render, folder)
    of_parents: dict[str, int] = {}
    for clip in plan.clips:
        for parent in clip.parents:
            of_parents[parent] = max(of_parents.get(parent, 0), renderer.crop(clip))
    flop_at = {
        crop: flop_of(generator, crop) for crop in {*of_parents.values(), *map(renderer.crop, plan.clips)}
    }
    flop = sum(up * flop_at[crop] for crop in of_parents.values())
    flop += sum(down * flop_at[renderer.crop(clip)] for clip in plan.clips)
    in_network_s = spent_s["encode"] + spent_s["sample"]
    return {
        "what": f"usk {name}",
        "clips": len(plan),
        "took_s": round(took_s, 2),
        "clips_per_s": round(len(plan) / took_s, 4),
        "evaluations_per_clip": round((up * len(of_parents) + down * len(plan)) / len(plan), 1),
        "precision": generator.precision,
        "share_of_matrix_rate": round(flop / in_network_s / matrix_rate(device, generator.precision), 3),
        "peak_mb": round(peak_mb(device)),
        "stages_s": {name: round(spent, 2) for name, spent in sorted(spent_s.items())},
    }


def clips_of(folder: Path) -> dict[str, np.ndarray]:
    """The audio of a synthetic dataset by clip id."""
    decoded = decode_source(open_source(folder))
    return {
        clip.clip_id.rpartition("/")[2]: decoded.audio(row) for row, clip in enumerate(decoded.source.clips)
    }


def equal_to_recipe_db(
    generator: MelGenerator,
    decoded: DecodedSource,
    plan: Plan,
    images: list[np.ndarray],
    work: Path,
    precision: str,
) -> float:
    """Mean log-mel L1 in dB between the recipe's images and usk's at the preset `published`."""
    generator.precision = precision
    work.mkdir()
    renderer = DiffusionRenderer(plan, decoded, generator, render_config("published"), work)
    ours = generator.to_image(renderer.sample_latents(plan.clips[: len(images)])).cpu()
    theirs = torch.from_numpy(np.stack(images))[:, None]
    return float(log_mel_error_db(ours, theirs, generator.mel).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--folds", default="", help="folds of the parents")
    parser.add_argument("--held-out", type=int, help="fold whose real clips are the reference")
    parser.add_argument("--model", default="embedded", help=f"embedded, a pipeline folder, or {RANDOM_256}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--recipe-clips", type=int, default=10, help="clips that the recipe makes")
    parser.add_argument("--round-trip-clips", type=int, default=48)
    parser.add_argument("--presets", default="draft,standard,published")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = resolve_device(options.device)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = Path(options.model)
        if options.model == RANDOM_256:
            folder = work / RANDOM_256
            write_random(folder)
        elif options.model == "embedded":
            folder = EMBEDDED_FOLDER
        generator = load_generator(str(folder), options.device)
        folds = tuple(int(fold) for fold in options.folds.split(",") if fold)
        everything = decode_source(open_source(options.real), generator.sample_rate_hz)
        without = tuple(fold for fold in everything.source.folds if folds and fold not in folds)
        plan_config: dict[str, Any] = {"per_class": options.per_class, "test_folds": without}
        config = SynthConfig(render=render_config("published"), **plan_config)
        decoded, plan = plan_for(everything, config)
        row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}
        parents = [[decoded.audio(row_of[parent]) for parent in clip.parents] for clip in plan.clips]

        recipe = Recipe.load(folder, device)
        recipe.clip(*parents[0])
        recipe.evaluations = 0
        n_recipe = min(options.recipe_clips, len(plan))
        started = time.perf_counter()
        made = [recipe.clip(*pair) for pair in parents[:n_recipe]]
        synchronize(device)
        took_s = time.perf_counter() - started
        rows: list[dict[str, Any]] = [
            {
                "what": "published recipe (audiodiffusion)",
                "clips": n_recipe,
                "took_s": round(took_s, 2),
                "clips_per_s": round(n_recipe / took_s, 4),
                "evaluations_per_clip": recipe.evaluations / n_recipe,
                "precision": "fp32",
                "share_of_matrix_rate": round(
                    recipe.evaluations
                    * flop_of(generator, generator.longest_samples)
                    / took_s
                    / matrix_rate(device, "fp32"),
                    3,
                ),
                "peak_mb": round(peak_mb(device)),
            }
        ]
        for name in options.presets.split(","):
            rows.append(run_usk(generator, options, name, plan_config, work))
            rows[-1]["ratio"] = round(rows[-1]["clips_per_s"] / rows[0]["clips_per_s"], 1)
            Console(stderr=True).print(rows[-1])
        result: dict[str, Any] = {
            "model": generator.model_id if options.model != RANDOM_256 else RANDOM_256,
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "real": open_source(options.real).name,
            "rows": rows,
        }
        if options.model != RANDOM_256:
            images = [image for _, image in made]
            result["published_differs_from_recipe_db"] = {
                precision: round(
                    equal_to_recipe_db(
                        generator, decoded, plan, images, work / f"images-{precision}", precision
                    ),
                    3,
                )
                for precision in ("fp32", "bf16")
            }
            add_quality(result, generator, options, plan, made, work)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
    table = Table(title=f"{result['model']}, {result['device']}, {result['real']}")
    for column in (
        "what",
        "clips/s",
        "ratio",
        "evaluations a clip",
        "matrix rate",
        "peak MB",
        "round trip dB",
        "MMD",
    ):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(
            row["what"],
            f"{row['clips_per_s']:.3f}",
            f"{row.get('ratio', 1):g}",
            f"{row['evaluations_per_clip']:g}",
            f"{100 * row['share_of_matrix_rate']:.0f} %",
            str(row["peak_mb"]),
            f"{row['round_trip_db']:.2f}" if "round_trip_db" in row else "",
            _distance_text(row.get("distance")),
        )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def add_quality(
    result: dict[str, Any],
    generator: MelGenerator,
    options: argparse.Namespace,
    plan: Plan,
    made: list[tuple[np.ndarray, np.ndarray]],
    work: Path,
) -> None:
    """What was given up: each row's round-trip error, and the distance of its clips to held-out real ones.

    The distance compares the very same pairs: as many as the recipe had the time for.
    """
    everything = decode_source(open_source(options.real), generator.mel.sample_rate_hz)
    held = options.held_out
    rng = np.random.default_rng(0)
    target: list[int] = []
    for label in range(len(everything.source.class_names)):
        of = [
            r for r, clip in enumerate(everything.source.clips) if clip.label == label and clip.fold == held
        ]
        target += rng.permutation(of)[:40].tolist()
    if not target:
        return
    reference = RealReference(
        [everything.audio(row) for row in target],
        [everything.source.clips[row].label for row in target],
        [everything.source.clips[row].group for row in target],
        log_mel_statistics,
    )
    some = rng.permutation(target)[: options.round_trip_clips].tolist()
    planned = plan.clips[: len(made)]
    labels = [clip.label for clip in planned]
    for row in result["rows"]:
        name = row["what"].removeprefix("usk ") if row["what"].startswith("usk") else "published"
        quality = name.partition(":")[0]
        generator.precision = row["precision"]
        row["round_trip_db"] = round(round_trip_db(generator, everything, some, quality), 3)
        if row["what"].startswith("usk"):
            of_preset = clips_of(work / name)
            audio = [of_preset[clip.clip_id] for clip in planned]
        else:
            audio = [samples for samples, _ in made]
        row["distance"] = asdict(reference.distance(reference.place(audio), labels))
    result["distance_to"] = f"{len(target)} real clips of fold {held}; {len(planned)} pairs"


def _distance_text(distance: dict[str, Any] | None) -> str:
    if distance is None or distance["kad"] is None:
        return ""
    interval = "" if distance["low"] is None else f" ({distance['low']:.1f} to {distance['high']:.1f})"
    return f"{distance['kad']:.1f}{interval}"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
