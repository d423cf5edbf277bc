"""Other ways from two parents to a clip: makes the candidates of this study and measures what they are worth.

    python measure.py UrbanSound8K PARTS YAMNET_FOLDER WORK CACHE --json FILE [--kinds range,circle] [--seeds 10] [--clips 20] [--png FILE]

PARTS is what `../texture/two_parts.py` wrote, WORK the work folder of `../clips/study.toml`, whose `decomposed` and `sample` clips stand
beside; CACHE keeps what was made of `--kinds` and `--seeds`. Then all that CACHE has is measured.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile as sf
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from usk.audit.distances import kad
from usk.data.decode import DecodedSource, decode_source
from usk.data.open import open_source
from usk.data.train_subset import TrainSubset
from usk.diffusion.generator import Condition, Generator
from usk.diffusion.interpolate import Scales, decomposed, lerp, noise_part, with_noise
from usk.diffusion.load import load_generator
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.schedule import NoiseSchedule
from usk.diffusion.solvers import Predictor, invert, sample
from usk.evaluate.stats import Pair, paired_bootstrap
from usk.synth.clip_renderer import at_level, rms_db
from usk.synth.plan import Plan, PlannedClip
from usk.synth.planned import PlannedClips
from usk.synth.render import DiffusionRenderer
from usk.synth.settings import render_config

sys.path.insert(0, str(Path(__file__).parents[1] / "texture"))
from measure import folds_of
from outside import LIKENESS, Measures

SEEDS = range(10, 14)
POOL, POOL_SEED, POOL_STEPS = 100, 5_000, 8
CLEAN = -1
Mix = Callable[["Mixer", Sequence[PlannedClip]], torch.Tensor]


@dataclass(frozen=True)
class Chosen(NoiseSchedule):
    """A schedule whose second-order solver takes these nodes, ascending."""

    chosen: tuple[int, ...] = ()

    def nodes(self, steps: int, strength: float = 1.0) -> list[int]:
        return list(self.chosen)


class Mixer(DiffusionRenderer):
    """Makes clips of the default's parents, weights, lengths and seeds by any `mix`. Latents are [2, batch, ...] of parents."""

    mix_clips: Mix
    paths: dict[
        tuple[int, tuple[int, ...]], dict[int, torch.Tensor]
    ]  # by parent and nodes: its latent at each node

    def sample_latents(self, planned: Sequence[PlannedClip]) -> torch.Tensor:
        return self.mix_clips(self, planned)

    def names(self, planned: Sequence[PlannedClip]) -> list[str]:
        return [self.plan.class_names[clip.label] for clip in planned]

    def alpha(self, planned: Sequence[PlannedClip]) -> torch.Tensor:
        return torch.tensor([clip.weights[1] for clip in planned])

    def scales_at(self, node: int) -> Scales:
        alpha = self.generator.schedule.alpha(node)
        return Scales(alpha**0.5, (1 - alpha) ** 0.5)

    def fresh(self, planned: Sequence[PlannedClip]) -> torch.Tensor:
        shape = self.generator.latent_shape(self.crop(planned[0]))
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(c.seed ^ 1)) for c in planned])  # fmt: skip

    def parents(self, planned: Sequence[PlannedClip], nodes: tuple[int, ...], node: int) -> torch.Tensor:
        """Parents' latents at `node` of their inversion through `nodes`."""
        rows = self.parent_rows(planned)
        for row in dict.fromkeys(row for side in rows for row in side):
            if (row, nodes) not in self.paths:
                self.paths[row, nodes] = self.inverted(row, nodes)
        crop = self.crop(planned[0])
        return torch.stack(
            [torch.stack([self.generator.cut(self.paths[row, nodes][node], crop) for row in side]) for side in rows]
        )  # fmt: skip

    def inverted(self, row: int, nodes: tuple[int, ...]) -> dict[int, torch.Tensor]:
        """One parent's latent at each node, encoded as long as its longest clip."""
        clean = self.generator.encode(self.latents.audio([row], self.latents.group_of[row][0]))
        predict, seen = recorded(self.generator.predictor(Condition([self.decoded.class_name(row)])))
        seen[nodes[-1]] = invert(predict, clean, self.through(nodes), SamplerConfig(len(nodes)))
        return {node: latent[0] for node, latent in {**seen, CLEAN: clean}.items()}

    def through(self, nodes: Sequence[int]) -> Chosen:
        return Chosen(**vars(self.generator.schedule), chosen=tuple(nodes))

    def mixed(self, planned: Sequence[PlannedClip], nodes: tuple[int, ...], node: int, noise: Any = None) -> torch.Tensor:  # fmt: skip
        """As `decomposed` at `node`, or with other `noise` mixed of both parents'."""
        clean, noisy, scales = (
            *(self.parents(planned, nodes, at) for at in (CLEAN, node)),
            self.scales_at(node),
        )
        if noise is None:
            return decomposed(noisy[0], noisy[1], self.alpha(planned), clean[0], clean[1], scales)
        parts = [noise_part(noisy[side], clean[side], scales) for side in (0, 1)]
        return with_noise(lerp(clean[0], clean[1], self.alpha(planned)), noise(*parts), scales)

    def down(
        self, planned: Sequence[PlannedClip], noisy: torch.Tensor, nodes: Sequence[int], guidance: float = 2.0,
        low: float = 0.0, high: float = 1.0,
    ) -> torch.Tensor:  # fmt: skip
        """Sampled through `nodes`, guided between the times `low` and `high`."""
        predict = guided(self.generator, self.names(planned), guidance, low, high)
        return sample(predict, noisy, self.through(nodes), SamplerConfig(len(nodes)))

    def turns(self, planned: Sequence[PlannedClip]) -> torch.Tensor:
        """An angle for each clip, even on the circle."""
        return torch.tensor([np.random.default_rng(clip.seed).uniform(0, 2 * np.pi) for clip in planned]).float()  # fmt: skip


def recorded(predict: Predictor) -> tuple[Predictor, dict[int, torch.Tensor]]:
    """`predict`, and the latent at each node that it looks at."""
    seen: dict[int, torch.Tensor] = {}

    def looking(noisy: torch.Tensor, node: int) -> torch.Tensor:
        seen[node] = noisy
        return predict(noisy, node)

    return looking, seen


def guided(generator: Generator, names: list[str], guidance: float, low: float, high: float) -> Predictor:
    """With guidance between two times (arXiv 2404.07724), conditioned on the class outside."""
    inside, outside = (generator.predictor(Condition(names, of)) for of in (guidance, 1.0))
    return lambda noisy, node: (inside if low <= node / 1_000 <= high else outside)(noisy, node)


def circle(first: torch.Tensor, second: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """The point at the angle `turn` [batch] past the first, away from the second (arXiv 2408.16266)."""
    one, two = first.flatten(1), second.flatten(1)
    angle = torch.acos((one * two).sum(1) / (one.norm(dim=1) * two.norm(dim=1)))
    of_one, of_two = torch.sin(angle + turn) / torch.sin(angle), torch.sin(turn) / torch.sin(angle)
    return (of_one[:, None] * one - of_two[:, None] * two).reshape(first.shape)


HALF, WHOLE = (33, 95, 176, 271, 379, 499), (23, 67, 124, 191, 268, 353, 445, 543, 649, 760, 877, 999)
MOST = WHOLE[:10]  # up to 0.76


def _default(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    return m.down(planned, m.mixed(planned, HALF, HALF[-1]), HALF)


def _range(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    made = torch.empty(len(planned), *m.generator.latent_shape(m.crop(planned[0])))
    wanted = [1_000 * np.random.default_rng(clip.seed).uniform(0.3, 0.9) for clip in planned]
    tops = np.array([int(np.argmin(np.abs(np.array(WHOLE) - one))) for one in wanted])
    for top in np.unique(tops).tolist():
        some = np.flatnonzero(tops == top)
        chosen = [planned[place] for place in some]
        made[some] = m.down(chosen, m.mixed(chosen, WHOLE, WHOLE[top]), WHOLE[: top + 1])
    return made


def _stochastic(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    predict = m.generator.predictor(Condition(m.names(planned), 2.0))
    config = SamplerConfig(10, (MOST[-1] + 1) / 1_000, "ddim")
    noisy = m.mixed(planned, WHOLE, MOST[-1])
    return sample(predict, noisy, m.generator.schedule, config, 1.0, [clip.seed for clip in planned])


def _fresh(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    clean = m.parents(planned, HALF, CLEAN)
    average = lerp(clean[0], clean[1], m.alpha(planned))
    return m.down(planned, with_noise(average, m.fresh(planned), m.scales_at(MOST[-1])), MOST)


def _circle(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    turn = m.turns(planned)
    return m.down(planned, m.mixed(planned, HALF, HALF[-1], lambda a, b: circle(a, b, turn)), HALF)


def _circle_whole(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    return m.down(planned, circle(*m.parents(planned, WHOLE, WHOLE[-1]), m.turns(planned)), WHOLE)


def _class_first(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    border, stage = HALF[-1], (HALF[-1], *WHOLE[8:])
    predict, seen = recorded(guided(m.generator, m.names(planned), 2.0, 0.0, 1.0))
    origin = sample(predict, m.fresh(planned), m.through(stage), SamplerConfig(len(stage)))
    clean = m.parents(planned, HALF, CLEAN)
    of_parents, average = m.mixed(planned, HALF, border), lerp(clean[0], clean[1], m.alpha(planned))
    half = torch.full((len(planned),), 0.5)
    return m.down(planned, decomposed(seen[border], of_parents, half, origin, average, m.scales_at(border)), HALF)  # fmt: skip


def _parents_first(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    return m.down(planned, m.mixed(planned, WHOLE, MOST[-1]), MOST, high=0.5)


def _guided_high(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    return m.down(planned, m.mixed(planned, HALF, HALF[-1]), HALF, 4.0, 0.25, 1.0)


def _guided_middle(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    return m.down(planned, m.mixed(planned, HALF, HALF[-1]), HALF, 4.0, 0.09, 0.3)


def _aligned(m: Mixer, planned: Sequence[PlannedClip]) -> torch.Tensor:
    clean, noisy = (m.parents(planned, HALF, node) for node in (CLEAN, HALF[-1]))
    rises = (
        torch.diff(clean, dim=-1, prepend=clean[..., :1]).clamp_min(0).mean(dim=(2, 3))
    )  # [2, batch, frames]
    spectra = torch.fft.rfft(rises - rises.mean(dim=-1, keepdim=True))
    lags = torch.fft.irfft(spectra[0] * spectra[1].conj(), n=rises.shape[-1]).argmax(dim=-1).tolist()
    of_second = [torch.stack([one.roll(lag, -1) for one, lag in zip(of[1], lags, strict=True)]) for of in (noisy, clean)]  # fmt: skip
    mixed = decomposed(
        noisy[0], of_second[0], m.alpha(planned), clean[0], of_second[1], m.scales_at(HALF[-1])
    )
    return m.down(planned, mixed, HALF)


CANDIDATES: dict[str, Mix] = {
    "range": _range, "stochastic": _stochastic, "fresh": _fresh, "circle": _circle, "circle_whole": _circle_whole,
    "class_first": _class_first, "parents_first": _parents_first, "guided_high": _guided_high,
    "guided_middle": _guided_middle, "aligned": _aligned, "again": _default,
}  # fmt: skip
POOLS = {
    "sample_2": (2.0, 0.0, 1.0), "sample_4": (4.0, 0.0, 1.0), "sample_high": (4.0, 0.5, 1.0), "sample_middle": (4.0, 0.2, 0.7),
}  # fmt: skip
MADE = ("decomposed", "average", "sample")


class Outside(Measures):
    """Judges by what a classifier of all real clips of the test folds recognizes, which gave no parents."""

    def __init__(
        self, decoded: DecodedSource, yamnet: Any, mel: Any, real: np.ndarray, test: np.ndarray
    ) -> None:
        self.decoded, self.yamnet, self.mel, self.rate_hz = decoded, yamnet, mel, decoded.sample_rate_hz
        self.judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        self.judge.fit(real[test], [decoded.source.clips[row].label for row in test])


def plan_of(folder: Path, class_names: Sequence[str]) -> Plan:
    return Plan.from_lines((folder / "plan.jsonl").read_text().splitlines(), class_names)


def kept_sounds(folder: Path) -> dict[str, np.ndarray]:
    """By clip id, of a finished dataset."""
    rows = [row for file in sorted(folder.rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    return {row["clip_id"]: sf.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0] for row in rows}


class Maker:
    """Clips of each kind and seed, with all that is measured of them, kept in `cache`."""

    def __init__(self, decoded: DecodedSource, work: Path, cache: Path, most: int) -> None:
        self.decoded, self.work, self.cache, self.most = decoded, work, cache, most
        self.generator: Any = load_generator("embedded", "cpu", "bf16")
        self.outside: Any = None
        self.mixers: dict[int, Mixer] = {}

    def make(self, kind: str, seed: int) -> None:
        """Makes what is not there, or is there of fewer clips."""
        file = self.cache / f"{kind}-{seed}.npz"
        if file.exists() and len(np.load(file)["labels"]) >= self.most:
            return
        plan, sounds = self._of_pool(kind) if kind in POOLS else self._of_parents(kind, seed)
        found, embeddings = self.outside.of(sounds, plan)
        whole = np.zeros((len(sounds), max(map(len, sounds))), np.int16)
        for row, sound in zip(whole, sounds, strict=True):
            row[: len(sound)] = (sound * 32_767).round()
        labels = [clip.label for clip in plan.clips]
        np.savez(
            file, embeddings=embeddings, labels=labels, sounds=whole, lengths=list(map(len, sounds)), **found
        )

    def _of_parents(self, kind: str, seed: int) -> tuple[Plan, list[np.ndarray]]:
        folder = self.work / (kind if kind in MADE else "decomposed") / f"50-train_clips-fold2-seed{seed}"
        plan = plan_of(folder, self.decoded.source.class_names)
        some = replace(plan, clips=plan.clips[: self.most])
        if kind in MADE:
            sounds = kept_sounds(folder)
            return some, [sounds[clip.clip_id] for clip in some.clips]
        if seed not in self.mixers:
            mixer = Mixer(plan, self.decoded, self.generator, render_config(precision="bf16"), self.cache)
            paths = self.cache / f"paths-{seed}.pt"
            mixer.paths = torch.load(paths) if paths.exists() else {}
            self.mixers[seed] = mixer
        mixer = self.mixers[seed]
        mixer.mix_clips, known = CANDIDATES[kind], len(mixer.paths)
        made: list[np.ndarray] = [np.empty(0)] * len(some)
        for places in mixer.batches(0, len(some)):
            planned = [plan.clips[place] for place in places]
            for place, clip, sound in zip(places, planned, mixer.audio(planned), strict=True):
                levels = [rms_db(self.decoded.audio(mixer.row_of[parent])) for parent in clip.parents]
                made[place] = at_level(sound, float(np.dot(clip.weights, levels)))[0]
        if len(mixer.paths) > known:
            torch.save(mixer.paths, self.cache / f"paths-{seed}.pt")
        return some, made

    def _of_pool(self, kind: str) -> tuple[Plan, list[np.ndarray]]:
        """Clips of noise and class alone, each said to be of one real clip of its class."""
        generator, names, clips = self.generator, self.decoded.source.class_names, self.decoded.source.clips
        n = generator.crop(generator.longest_samples)
        planned, made = [], []
        schedule = generator.schedule
        for begin in range(0, min(POOL, self.most), 10):  # one clip of each class
            seeds = range(POOL_SEED + begin, POOL_SEED + begin + 10)
            noise = torch.stack([torch.randn(generator.latent_shape(n), generator=torch.Generator().manual_seed(s)) for s in seeds])  # fmt: skip
            predict = guided(generator, list(names), *POOLS[kind])
            latents = sample(predict, noise, schedule, SamplerConfig(POOL_STEPS))
            made += list(generator.decode(latents, list(seeds), 16).numpy())
        first = [
            next(clip for clip in clips if clip.label == label and clip.fold == 1) for label in range(10)
        ]
        for place in range(len(made)):
            parent = first[place % 10]
            planned.append(PlannedClip(f"{place}", place % 10, 1, (parent.identity,), (parent.group,), (1,), (1.0,), place))  # fmt: skip
        return Plan(names, PlannedClips(planned)), [at_level(sound, -20.0)[0] for sound in made]


class Worth:
    """Accuracy of a linear classifier on embeddings, by test clip."""

    def __init__(self, decoded: DecodedSource, real: np.ndarray, folds: dict[str, int], cache: Path) -> None:
        clips = decoded.source.clips
        self.clips, self.real, self.cache = clips, real, cache
        self.labels, self.groups = np.array([c.label for c in clips]), np.array([c.group for c in clips])
        self.fold_of = np.array([folds[Path(clip.clip_id).stem] for clip in clips])
        self.test = np.flatnonzero(~np.isin(self.fold_of, (1, 3)))
        self._right: dict[tuple[tuple[str, ...], int], np.ndarray] = {}

    def of(self, kind: str, seed: int) -> Any:
        return np.load(self.cache / f"{kind}-{10 if kind in POOLS else seed}.npz")

    def seeds(self, kinds: Sequence[str]) -> list[int]:
        """Those of which all 100 clips of each kind are there."""
        try_all = ((kind, 10 if kind in POOLS else seed) for seed in SEEDS for kind in kinds)
        whole = {one for one in try_all if (self.cache / f"{one[0]}-{one[1]}.npz").exists()}
        whole = {(kind, seed) for kind, seed in whole if len(self.of(kind, seed)["labels"]) == 100}
        return [s for s in SEEDS if all((kind, 10 if kind in POOLS else s) in whole for kind in kinds)]

    def right(self, kinds: tuple[str, ...], seed: int) -> np.ndarray:
        if (kinds, seed) not in self._right:
            rows = TrainSubset(50, 2, seed).split(self.clips).train
            made = [self.of(kind, seed) for kind in kinds]
            judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
            judge.fit(
                np.concatenate([self.real[rows], *(one["embeddings"] for one in made)]),
                np.concatenate([self.labels[rows], *(one["labels"] for one in made)]),
            )
            self._right[kinds, seed] = judge.predict(self.real[self.test]) == self.labels[self.test]
        return self._right[kinds, seed]

    def compared(self, base: tuple[str, ...], other: tuple[str, ...]) -> dict[str, Any] | None:
        of, pairs, seeds = self.fold_of[self.test], [], self.seeds((*base, *other))
        for seed in seeds:
            before, after = self.right(base, seed), self.right(other, seed)
            pairs += [
                Pair(f"fold{fold}", seed, self.groups[self.test][of == fold], before[of == fold], after[of == fold])
                for fold in np.unique(of)
            ]  # fmt: skip
        if not pairs:
            return None
        by_seed = [float(np.mean([100 * p.difference for p in pairs if p.seed == seed])) for seed in seeds]
        accuracy = 100 * float(np.mean([np.mean(pair.other_correct) for pair in pairs]))
        return {"base": base, "mix": other, "accuracy": accuracy, "by_seed": by_seed, **asdict(paired_bootstrap(pairs))}  # fmt: skip


def from_outside(worth: Worth, kind: str, held_out: np.ndarray) -> dict[str, float]:
    """Means, and medians of likeness, over all clips of a kind that are there."""
    parts = [np.load(file) for file in sorted(worth.cache.glob(f"{kind}-1?.npz"))]
    found = {
        name: float(
            (np.median if name in LIKENESS else np.mean)(np.concatenate([part[name] for part in parts]))
        )
        for name in ("recognized", "onsets", "change_db", *LIKENESS)
    }
    embeddings = np.concatenate([part["embeddings"] for part in parts])
    found = {name: value for name, value in found.items() if not np.isnan(value)}
    return {**found, "kad": kad(held_out, embeddings), "n": len(embeddings)}


def draw(maker: Maker, kinds: Sequence[str], seed: int, rows: Sequence[int], png: Path) -> None:
    """Mel images of some clips, one a row: both parents, then each kind."""
    import matplotlib.pyplot as plt

    plan = plan_of(maker.work / "decomposed" / f"50-train_clips-fold2-seed{seed}", maker.decoded.source.class_names)  # fmt: skip
    row_of = {clip.identity: row for row, clip in enumerate(maker.decoded.source.clips)}
    made = {kind: np.load(maker.cache / f"{kind}-{seed}.npz") for kind in kinds}
    figure, axes = plt.subplots(len(rows), 2 + len(kinds), figsize=(2 * (2 + len(kinds)), 1.5 * len(rows)), squeeze=False)  # fmt: skip
    for line, row in zip(axes, rows, strict=True):
        sounds = [maker.decoded.audio(row_of[parent]) for parent in plan.clips[row].parents]
        sounds += [of["sounds"][row][: of["lengths"][row]] / 32_767 for of in made.values()]
        for axis, sound, title in zip(line, sounds, ("parent", "parent", *kinds), strict=True):
            axis.imshow(maker.outside.image(np.asarray(sound, np.float32)), origin="lower", aspect="auto")
            axis.set_title(title if line is axes[0] else "", fontsize=7)
            axis.axis("off")
        line[0].text(0, 1, plan.class_names[plan.clips[row].label], color="white", fontsize=6)
    figure.tight_layout(pad=0.3)
    figure.savefig(png, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("whole", "parts", "yamnet", "work", "cache"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--seeds", default="10")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--png", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(args.yamnet))
    from yamnet import Yamnet

    decoded = decode_source(open_source(str(args.parts)), 22_050)
    if not (args.cache / "real.npy").exists():
        yamnet = Yamnet()
        np.save(
            args.cache / "real.npy", [yamnet(decoded.audio(row), 22_050)[0] for row in range(len(decoded))]
        )
    real = np.load(args.cache / "real.npy")
    worth = Worth(decoded, real, folds_of(args.whole), args.cache)
    if kinds := [kind for kind in args.kinds.split(",") if kind]:
        maker = Maker(decoded, args.work, args.cache, args.clips)
        maker.outside = Outside(decoded, Yamnet(), maker.generator.mel, real, worth.test)
        for seed in map(int, args.seeds.split(",")):
            for kind in kinds:
                maker.make(kind, seed)
                print(seed, kind, "made", flush=True)
        if args.png:
            shown = list(dict.fromkeys(("decomposed", *kinds)))
            draw(maker, shown, int(args.seeds.split(",")[0]), range(args.clips), args.png)
    held_out = real[np.random.default_rng(1).permutation(worth.test)[:200]]
    there = sorted({file.stem.rpartition("-")[0] for file in args.cache.glob("*-1?.npz")})
    results: dict[str, Any] = {kind: {"outside": from_outside(worth, kind, held_out)} for kind in there}
    for kind in there:
        of = "sample_2" if kind in POOLS else "decomposed"
        beside = ("decomposed",) if kind in POOLS else ("sample",)
        results[kind]["over_real"] = worth.compared((), (kind,))
        results[kind]["over_default"] = worth.compared((of,), (kind,)) if kind != of else None
        results[kind]["over_default_of_two"] = worth.compared((of, *beside), (kind, *beside)) if kind != of else None  # fmt: skip
        print(kind, {name: round(value, 3) for name, value in results[kind]["outside"].items()})
        for name in ("over_real", "over_default", "over_default_of_two"):
            if row := results[kind][name]:
                print(f"  {name}: {row['difference_points']:+.2f} {np.round(row['by_seed'], 1)}")
    args.json.write_text(json.dumps(results, indent=1, default=lambda value: round(float(value), 4)) + "\n")


if __name__ == "__main__":
    main()
