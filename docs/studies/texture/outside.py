"""What a model that had no part in anything makes of clips: recognition, rhythm, and how new they are.

    python docs/studies/texture/outside.py UrbanSound8K YAMNET_FOLDER --json FILE [--only sample,average] [--keep FOLDER]

YAMNET_FOLDER holds `yamnet.py`, whose `Yamnet()(samples, rate)` returns an embedding first. A linear classifier on embeddings of 500
real clips of folds 1 and 3, which the embedded generator was trained on too, judges clips made of pairs from all other folds. Half of
their recordings is for choosing; the 200 pairs are of the other. Kinds that FILE has are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from usk.audio.mel import audio_to_image, stack_padded
from usk.audit.distances import kad
from usk.audit.likeness import compare_mels
from usk.data.decode import DecodedSource, beginning, decode_source
from usk.data.open import open_source
from usk.data.splits import stable_order
from usk.diffusion.load import load_generator
from usk.synth.clip_renderer import at_level, rms_db
from usk.synth.plan import Plan, PlannedClip, draw_plan
from usk.synth.render import DiffusionRenderer
from usk.synth.settings import RenderConfig, render_config
from usk.synth.waveform import WaveformSums

TRAIN_FOLDS = (1, 3)
PAIRS, JUDGED = 200, 500
LIKENESS = ("average", "average_db", "nearest", "nearest_db")  # medians, as `usk audit` has them
EXCHANGED = "the second parent's image on the first's texture, no network"
KINDS: dict[str, RenderConfig | None] = {
    "real, the first parent": None,
    "waveform": render_config(strategy="waveform"),
    "resynthesis, random phase": render_config(strategy="resynthesis"),
    "resynthesis, parent's phase": render_config(strategy="resynthesis", phase="parents"),
    "average, random phase": render_config(strategy="average"),
    "average, parents' texture": render_config(strategy="average", phase="parents"),
    EXCHANGED: render_config(strategy="resynthesis", phase="parents"),
    "sample, parent's texture": render_config(strategy="sample", steps=12, phase="parents", precision="bf16"),
    "decomposed, random phase": render_config(precision="bf16"),
    "decomposed, parents' texture": render_config(phase="parents", precision="bf16"),
    "sample, random phase": render_config(strategy="sample", steps=12, precision="bf16"),
}


def half_of(group: str) -> int:
    """0 for choosing, 1 for reporting."""
    return stable_order(f"half/{group}") % 2


def pairs_of(decoded: DecodedSource, half: int) -> Plan:
    source = decoded.source
    clips = [clip for clip in source.clips if clip.fold not in TRAIN_FOLDS and half_of(clip.group) == half]
    plan = draw_plan(clips, source.class_names, PAIRS // len(source.class_names), seed=7, across_folds=True)  # fmt: skip
    return replace(plan, clips=plan.clips[:PAIRS])


class Measures:
    """Of sounds at 22,050 Hz."""

    def __init__(self, decoded: DecodedSource, yamnet: Any, mel: Any) -> None:
        self.decoded, self.yamnet, self.mel = decoded, yamnet, mel
        self.rate_hz = decoded.sample_rate_hz
        rng = np.random.default_rng(0)
        rows = [row for row, clip in enumerate(decoded.source.clips) if clip.fold in TRAIN_FOLDS]
        rows = rng.permutation(rows)[:JUDGED].tolist()
        of_train = np.stack([self.embedding(decoded.audio(row)) for row in rows])
        self.judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        self.judge.fit(of_train, [decoded.source.clips[row].label for row in rows])

    def embedding(self, samples: np.ndarray) -> np.ndarray:
        return self.yamnet(samples, self.rate_hz)[0]

    def image(self, samples: np.ndarray) -> np.ndarray:
        """Mel image in dB [mels, frames] of the sound repeated to 4 s."""
        n = self.mel.samples_of(self.mel.n_frames)
        whole = np.resize(samples, n) if len(samples) < n else samples[:n]
        image, _ = audio_to_image(stack_padded([whole], n), self.mel)
        return image[0, 0].numpy() * self.mel.top_db / 2

    def of(self, made: list[np.ndarray], plan: Plan) -> tuple[dict[str, list[float]], np.ndarray]:
        """By clip, and embeddings."""
        row_of = {clip.identity: row for row, clip in enumerate(self.decoded.source.clips)}
        embeddings = np.stack([self.embedding(samples) for samples in made])
        found: dict[str, list[float]] = {name: [] for name in ("onsets", "change_db", *LIKENESS)}
        labels = [clip.label for clip in plan.clips]
        found["recognized"] = [float(v) for v in self.judge.predict(embeddings) == labels]
        for samples, clip in zip(made, plan.clips, strict=True):
            onsets = librosa.onset.onset_detect(y=samples, sr=self.rate_hz)
            found["onsets"].append(len(onsets) / (len(samples) / self.rate_hz))
            image = self.image(samples)
            found["change_db"].append(float(np.abs(np.diff(image, axis=1)).mean()))
            parents = [self.decoded.audio(row_of[parent]) for parent in clip.parents]
            fitted = [np.resize(beginning(parent, len(samples)), len(samples)) for parent in parents]
            alike = compare_mels(samples, fitted, clip.weights)
            for name, value in zip(LIKENESS, alike, strict=True):
                found[name].append(value)
        return found, embeddings


class Exchanged(DiffusionRenderer):
    """Takes texture from other clips than images."""

    texture_of: dict[str, int]  # rows of the source, by clip

    def source_audio(self, planned: Sequence[PlannedClip]) -> torch.Tensor:
        rows = [self.texture_of[clip.clip_id] for clip in planned]
        audio = self.latents.audio(rows, self.crop(planned[0]))
        return audio / audio.square().mean(dim=1, keepdim=True).sqrt()


def rendered(
    name: str, config: RenderConfig | None, plan: Plan, decoded: DecodedSource, model: Any
) -> list[np.ndarray]:
    """The plan's clips; where a strategy takes one parent, of the first."""
    whole = plan
    if config is None:
        row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}
        return [decoded.audio(row_of[clip.parents[0]]) for clip in plan.clips]
    plan = replace(plan, clips=tuple(replace(clip, strategy=config.strategy) for clip in plan.clips))
    if config.strategy_row.n_parents == 1:
        one = slice(1, 2) if name == EXCHANGED else slice(1)
        plan = replace(
            plan, clips=tuple(replace(c, parents=c.parents[one], weights=(1.0,)) for c in plan.clips)
        )
    with tempfile.TemporaryDirectory() as folder:
        if config.strategy_row.mix is None:
            renderer: Any = WaveformSums(plan, decoded, config)
        else:
            kind = Exchanged if name == EXCHANGED else DiffusionRenderer
            renderer = kind(plan, decoded, model(config.precision), config, Path(folder))
            renderer.texture_of = {c.clip_id: renderer.row_of[c.parents[0]] for c in whole.clips}
        made: dict[int, np.ndarray] = {}
        for indices in renderer.batches(0, len(plan)):
            sounds = renderer.audio([plan.clips[index] for index in indices])
            made.update(zip(indices, sounds, strict=True))
    parents_db = [
        np.mean([rms_db(decoded.audio(renderer.row_of[p])) for p in clip.parents]) for clip in plan.clips
    ]
    return [at_level(made[index], float(parents_db[index]))[0] for index in range(len(plan))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real"), parser.add_argument("yamnet", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", help="beginnings of names")
    parser.add_argument("--half", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder of the clips, which are not made again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(args.yamnet))
    from yamnet import Yamnet

    decoded = decode_source(open_source(args.real), 22_050)
    models: dict[str, Any] = {}

    def model(precision: str) -> Any:
        if precision not in models:
            models[precision] = load_generator("embedded", "cpu", precision)
        return models[precision]

    measures = Measures(decoded, Yamnet(), model("auto").mel)
    plan = pairs_of(decoded, args.half)
    others = [clip for clip in decoded.source.clips if clip.fold not in TRAIN_FOLDS and half_of(clip.group) != args.half]  # fmt: skip
    row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}
    chosen = np.random.default_rng(1).permutation(len(others))[:PAIRS]
    held_out = np.stack([measures.embedding(decoded.audio(row_of[others[i].identity])) for i in chosen])
    results = json.loads(args.json.read_text()) if args.json.exists() else {}
    for name, config in KINDS.items():
        if name in results or (args.only and not name.startswith(tuple(args.only.split(",")))):
            continue
        kept = args.keep / f"{name}.npz" if args.keep else None
        if kept is not None and kept.exists():
            made = [np.load(kept)[f"arr_{index}"] for index in range(len(plan))]
        else:
            made = rendered(name, config, plan, decoded, model)
        if kept is not None:
            np.savez_compressed(kept, *made)
        found, embeddings = measures.of(made, plan)
        row = {key: float((np.median if key in LIKENESS else np.mean)(of)) for key, of in found.items()}
        row["recognized_error"] = float(np.std(found["recognized"]) / len(made) ** 0.5)
        row["kad"] = kad(held_out, embeddings)
        row["n"] = len(made)
        results[name] = row
        args.json.write_text(json.dumps(results, indent=1) + "\n")
        print(name, json.dumps({key: round(value, 3) for key, value in row.items()}), flush=True)


if __name__ == "__main__":
    main()
