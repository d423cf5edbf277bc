"""What the study's clips are worth beside 50 real ones to a linear classifier on an outside embedding.

    python embedding.py UrbanSound8K PARTS YAMNET_FOLDER WORK CACHE --json FILE

PARTS is what `../texture/two_parts.py` wrote, WORK the study's work folder, with clips of the strategy `classical` too; CACHE keeps
embeddings. A classifier sees no more of a clip than its embedding, and has no augmentation of its own. So two classical kinds of clips
stand beside the others: `classical`, and `equalized` (a parent through a random equalizer of up to 12 dB). `exchanged` is the control
of `texture`: the second parent's mel image on the first's texture, no network. Test clips are of recordings of the half on which
texture was not chosen (`../texture/outside.py`).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile as sf
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from usk.audio.mel import audio_to_image
from usk.audio.vocoder import filter_source
from usk.data.decode import DecodedSource, decode_source
from usk.data.open import open_source
from usk.data.train_subset import TrainSubset
from usk.diffusion.mel_pipeline import GAIN_BANDS, GAIN_SMOOTH_S
from usk.diffusion.pipeline import describe_generator
from usk.evaluate.stats import Pair, paired_bootstrap

sys.path.insert(0, str(Path(__file__).parents[1] / "texture"))
from measure import folds_of
from outside import half_of

SEEDS = range(10, 14)
CLASSICAL = ("classical", "equalized")
ALONE = [
    ("average",), ("decomposed",), ("sample",), ("texture",), ("exchanged",), ("equalized",), ("classical",), ("sample", "texture"),
    ("decomposed", "sample"), ("decomposed", "texture"),
]  # fmt: skip
BESIDE = [("average",), ("decomposed",), ("sample",), ("texture",), ("exchanged",), ("sample", "texture")]
RMS = 0.05


class Clips:
    """Embeddings and labels of real clips and of each kind and seed of made ones."""

    def __init__(self, decoded: DecodedSource, embed: Callable[..., Any], work: Path, cache: Path) -> None:
        self.decoded, self.embed, self.work, self.cache = decoded, embed, work, cache
        self.row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}
        mel = describe_generator().mel
        assert mel is not None
        self.mel, self.n = mel, mel.samples_of(mel.n_frames)

    def real(self) -> np.ndarray:
        return self._kept("real", lambda: ((self.decoded.audio(row), 0) for row in range(len(self.decoded))))[
            0
        ]

    def of(self, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return self._kept(f"{kind}-{seed}", lambda: self._made(kind, seed))

    def _kept(self, name: str, sounds: Callable[[], Iterator[tuple[np.ndarray, int]]]) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        file = self.cache / f"{name}.npz"
        if not file.exists():
            found = [(self.embed(sound, self.decoded.sample_rate_hz)[0], label) for sound, label in sounds()]
            np.savez(file, embeddings=[one for one, _ in found], labels=[label for _, label in found])
        kept = np.load(file)
        return kept["embeddings"], kept["labels"]

    def _made(self, kind: str, seed: int) -> Iterator[tuple[np.ndarray, int]]:
        draw = np.random.default_rng(seed)
        source = kind if kind not in ("exchanged", "equalized") else "decomposed"  # of whose parents they are
        for file in sorted((self.work / source / f"50-train_clips-fold2-seed{seed}").rglob("*.parquet")):
            for row in pq.read_table(file).to_pylist():
                sound, _ = sf.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
                if source != kind:
                    first = self._parent(row["parents"][0])
                    image = self._image(self._parent(row["parents"][1]) if kind == "exchanged" else first)
                    if kind == "equalized":
                        image = image + self._equalizer(draw) / self.mel.top_db * 2
                    filtered = filter_source(
                        torch.from_numpy(first)[None], image, self.mel, GAIN_SMOOTH_S, self.mel.n_mels / GAIN_BANDS
                    )[0].numpy()  # fmt: skip
                    sound = (filtered / (np.sqrt(np.mean(filtered**2)) + 1e-12) * RMS)[: len(sound)]
                yield sound, row["label"]

    def _parent(self, identity: str) -> np.ndarray:
        samples = np.resize(self.decoded.audio(self.row_of[identity]), self.n)
        return samples / np.sqrt(np.mean(samples**2) + 1e-12)

    def _image(self, samples: np.ndarray) -> torch.Tensor:
        return audio_to_image(torch.from_numpy(samples)[None], self.mel)[0]

    def _equalizer(self, draw: np.random.Generator) -> torch.Tensor:
        """Gains in dB of the mel bands, linear between 4 to 7 of up to 12 dB."""
        knots = np.linspace(0, self.mel.n_mels - 1, draw.integers(4, 8))
        gains = np.interp(np.arange(self.mel.n_mels), knots, draw.uniform(-12, 12, len(knots)))
        return torch.from_numpy(gains).float()[None, None, :, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("real", "parts", "yamnet", "work", "cache"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(args.yamnet))
    from yamnet import Yamnet

    decoded = decode_source(open_source(str(args.parts)), 22_050)
    clips = decoded.source.clips
    made = Clips(decoded, Yamnet(), args.work, args.cache)
    real, labels, folds = made.real(), np.array([clip.label for clip in clips]), folds_of(args.real)
    fold_of = np.array([folds[Path(clip.clip_id).stem] for clip in clips])
    groups = np.array([clip.group for clip in clips])
    test = np.flatnonzero(~np.isin(fold_of, (1, 3)) & np.array([half_of(group) == 1 for group in groups]))

    def right(kinds: tuple[str, ...], seed: int) -> np.ndarray:
        rows = TrainSubset(50, 2, seed).split(clips).train
        parts = [(real[rows], labels[rows]), *(made.of(kind, seed) for kind in kinds)]
        judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        judge.fit(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
        return judge.predict(real[test]) == labels[test]

    def compared(base: tuple[str, ...], other: tuple[str, ...]) -> dict[str, Any]:
        pairs = []
        for seed in SEEDS:
            before, after = right(base, seed), right(other, seed)
            of = fold_of[test]
            pairs += [
                Pair(f"fold{fold}", seed, groups[test][of == fold], before[of == fold], after[of == fold])
                for fold in np.unique(of)
            ]
        accuracies = [
            100 * float(np.mean([np.mean(getattr(pair, side)) for pair in pairs]))
            for side in ("baseline_correct", "other_correct")
        ]
        return {"base": base, "mix": other, "accuracies": accuracies, **asdict(paired_bootstrap(pairs))}

    rows = [compared((), mix) for mix in ALONE]
    rows += [compared(CLASSICAL, (*CLASSICAL, *mix)) for mix in BESIDE]
    rows += [compared(one, other) for one, other in (
        (("decomposed",), ("texture",)), (("exchanged",), ("texture",)), (("average",), ("decomposed",)),
    )]  # fmt: skip
    for row in rows:
        print(f"{'+'.join(row['base']) or 'real':22s} -> {'+'.join(row['mix']):38s} {row['accuracies'][0]:.1f} {row['accuracies'][1]:.1f} "
              f"{row['difference_points']:+.1f} ({row['low_points']:+.1f} to {row['high_points']:+.1f}) {row['n_pairs_up']}/{row['n_pairs']}")  # fmt: skip
    args.json.write_text(json.dumps(rows, indent=1, default=lambda value: round(float(value), 4)) + "\n")


if __name__ == "__main__":
    main()
