"""One GPU measured in one short run: an evaluation of the published 256 x 256 network, where its time goes, clips end to end.

    python -m tests.bench.render_gpu --json FILE            # an H200: some minutes
    python -m tests.bench.render_gpu --small --json FILE    # a small network on a CPU: that the script works

Weights are random: speed is real, clips are noise. Each variant of the network is timed at 256 x 192 (clips of four seconds), with its
share of the measured rate of matrix products and its difference to float32; then the profile of the fastest that is not
compiled, the published recipe on a few clips, and `usk synth` from decoded parents to shards.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from tests.bench.recipe import Recipe
from tests.bench.render import device_name, flop_of, matrix_rate, run_usk, synchronize, write_random
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.device import autocast, resolve_device
from usk.diffusion.fast import EVALUATIONS_THAT_REPAY, Compiled, in_precision
from usk.diffusion.load import load_generator
from usk.diffusion.mel_pipeline import MelGenerator
from usk.synth.prepare import plan_for
from usk.synth.settings import SynthConfig, render_config

REPEATS = 10
KERNELS = 12  # of the profile

Predict = Callable[[torch.Tensor], torch.Tensor]


def variants(generator: MelGenerator) -> Iterator[tuple[str, Predict]]:
    """Ways to evaluate the network on latents [batch, 1, height, width], float32 in and out."""
    device = generator.device

    def run(network: Any, dtype: torch.dtype, layout: torch.memory_format) -> Predict:
        def predict(noisy: torch.Tensor) -> torch.Tensor:
            timesteps = torch.full((len(noisy),), 10, device=device)
            output = network(noisy.to(dtype, memory_format=layout), timesteps, return_dict=False)[0]
            return output.float()

        return predict

    def with_autocast(noisy: torch.Tensor) -> torch.Tensor:
        with autocast(device, "bf16"):
            return single(noisy)

    single = run(generator.unet, torch.float32, torch.channels_last)
    half = in_precision(generator.unet, "bf16")
    nchw = copy.deepcopy(half).to(memory_format=torch.contiguous_format)
    yield "fp32", single
    yield "bf16 by autocast", with_autocast
    yield "bf16 weights, NCHW", run(nchw, torch.bfloat16, torch.contiguous_format)
    yield "bf16 weights", run(half, torch.bfloat16, torch.channels_last)
    yield "bf16 weights, compiled", run(Compiled(half), torch.bfloat16, torch.channels_last)


def timed(predict: Predict, noisy: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Seconds of the first evaluation, of the fastest later one, and what it says."""
    seconds = []
    for _ in range(1 + REPEATS):
        synchronize(noisy.device)
        started = time.perf_counter()
        said = predict(noisy)
        synchronize(noisy.device)
        seconds.append(time.perf_counter() - started)
    return seconds[0], min(seconds[1:]), said


def profiled(predict: Predict, noisy: torch.Tensor) -> list[dict[str, Any]]:
    """The operators that one evaluation spends most time in, with their share of it."""
    on_gpu = noisy.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        predict(noisy)
        synchronize(noisy.device)
    spent = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in profiler.key_averages()
    }
    most = sorted(spent.items(), key=lambda one: -one[1])[:KERNELS]
    return [{"what": what[:80], "share": round(took / sum(spent.values()), 3)} for what, took in most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--batches", default="", help="joined by commas; the last one is profiled")
    parser.add_argument("--per-class", type=int, default=0)
    parser.add_argument("--recipe-clips", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.batches = options.batches or ("2,4" if options.small else "32,64")
    options.per_class = options.per_class or (1 if options.small else 100)
    options.batch = None
    device = resolve_device(options.device)
    result: dict[str, Any] = {
        "device": device_name(device),
        "torch": torch.__version__,
        "small": options.small,
    }
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        work = Path(temporary)
        write_random(work / "model", *((32, (32, 64, 64)) if options.small else ()))
        generator = load_generator(str(work / "model"), str(device), "fp32")
        assert isinstance(generator, MelGenerator)
        crop = generator.crop(3 * generator.longest_samples // 4 - generator.mel.hop_samples)
        rate, flop = matrix_rate(device, "bf16"), flop_of(generator, crop)
        result |= {
            "parameters": sum(weight.numel() for weight in generator.unet.parameters()),
            "latent": generator.latent_shape(crop),
            "bf16_matrix_tflops": round(rate / 1e12, 2),
        }
        result["evaluations"] = rows = list[dict[str, Any]]()
        for batch in map(int, options.batches.split(",")):
            noisy = torch.randn(batch, *generator.latent_shape(crop), device=device)
            exact = None
            for name, predict in variants(generator):
                first_s, took_s, said = timed(predict, noisy)
                exact = said if exact is None else exact
                rows.append(
                    {
                        "what": name,
                        "batch": batch,
                        "ms_a_clip": round(1000 * took_s / batch, 4),
                        "first_s": round(first_s, 2),
                        "share_of_bf16_rate": round(batch * flop / took_s / rate, 4),
                        "error": round(float((said - exact).norm() / exact.norm()), 5),
                    }
                )
                if name == "bf16 weights":
                    result["profile"] = profiled(predict, noisy)
        plain, compiled = rows[-2], rows[-1]
        saved_ms = plain["ms_a_clip"] - compiled["ms_a_clip"]
        repays = round(1000 * compiled["first_s"] / saved_ms) if saved_ms > 0 else None
        result["compiling_repays_after"] = {"measured": repays, "assumed": EVALUATIONS_THAT_REPAY}
        plan_config = {"per_class": options.per_class}
        config = SynthConfig(render=render_config("published"), **plan_config)
        decoded, plan = plan_for(decode_source(open_source(options.real), generator.sample_rate_hz), config)
        row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}
        recipe = Recipe.load(work / "model", device)
        some = [
            [decoded.audio(row_of[of]) for of in clip.parents] for clip in plan.clips[: options.recipe_clips]
        ]
        recipe.clip(*some[0])
        started = time.perf_counter()
        for pair in some:
            recipe.clip(*pair)
        synchronize(device)
        recipe_s = (time.perf_counter() - started) / len(some)
        del recipe
        result["recipe"] = {"clips": len(some), "s_a_clip": round(recipe_s, 3)}
        made = run_usk(generator, options, "standard:bf16", plan_config, work)
        result["usk"] = made | {"times_the_recipe": round(recipe_s * made["clips_per_s"], 1)}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
