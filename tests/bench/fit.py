"""A training step of a generator like the embedded one, with torch's own gradient of group normalisation and with usk's.

    python -m tests.bench.fit --batch 32 --steps 5 --json FILE

The steps of both take turns, so that other work on the machine disturbs both alike; the figure is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from usk.device import autocast
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.group_norm import with_fast_gradients
from usk.diffusion.networks import build_unet

SHAPE = (1, 64, 160)  # of the embedded generator's images


def step_s(unet: Any, images: torch.Tensor, labels: torch.Tensor, precision: str) -> float:
    """Forward and back once."""
    start = time.perf_counter()
    with autocast(images.device, precision):
        output = unet(images, 10, labels, return_dict=False)[0]
    (output.float() - images).square().mean().backward()
    unet.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = FitConfig()
    images = torch.randn(options.batch, *SHAPE).to(memory_format=torch.channels_last)
    labels = torch.zeros(options.batch, dtype=torch.long)
    rows = []
    for precision in ("bf16", "fp32"):
        torch.manual_seed(0)
        plain = build_unet(config, SHAPE, 10).to(memory_format=torch.channels_last)
        faster = build_unet(config, SHAPE, 10).to(memory_format=torch.channels_last)
        with_fast_gradients(faster)
        took: dict[str, list[float]] = {"torch": [], "usk": []}
        for step in range(options.steps + 1):
            for name, unet in (("torch", plain), ("usk", faster)):
                seconds = step_s(unet, images, labels, precision)
                if step:  # the first of each prepares
                    took[name].append(seconds)
        medians = {name: statistics.median(seconds) for name, seconds in took.items()}
        rows.append(
            {
                "precision": precision,
                **{f"{name}_s": round(seconds, 3) for name, seconds in medians.items()},
                "times": round(medians["torch"] / medians["usk"], 2),
            }
        )
    table = Table(title=f"a training step of {options.batch} images, {torch.get_num_threads()} threads")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if options.json:
        result = {"batch": options.batch, "threads": torch.get_num_threads(), "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
