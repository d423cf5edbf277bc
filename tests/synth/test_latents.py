"""Parents' latents that outlive their dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from usk.data.cache import cache_root
from usk.data.open import open_source
from usk.synth import latents
from usk.synth.latents import ParentLatents
from usk.synth.settings import SynthConfig, render_config
from usk.synth.synthesize import synthesize

Make = Callable[..., dict[str, bytes]]


@pytest.fixture
def make(tone_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path) -> Make:
    """Makes a dataset: its shards by name."""
    generator = str(tiny_pipeline())

    def run(out: str, alpha: str = "0.5", keep_latents: bool = True, **render: object) -> dict[str, bytes]:
        config = SynthConfig(
            per_class=2, alpha=alpha, across_folds=True, render=render_config(batch=2, **render)
        )
        made = synthesize(
            open_source(tone_folder),
            tmp_path / out,
            config,
            model=generator,
            device="cpu",
            keep_latents=keep_latents,
        )
        return {file.name: file.read_bytes() for file in (made.folder / "data").iterdir()}

    return run


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The parents that were encoded, by their row."""
    parents: list[int] = []
    encode = ParentLatents._encode

    def counted(self: ParentLatents, crop: int, rows: Sequence[int]) -> object:
        parents.extend(rows)
        return encode(self, crop, rows)

    monkeypatch.setattr(ParentLatents, "_encode", counted)
    return parents


def test_another_alpha_encodes_no_parent_again(make: Make, encoded: list[int]) -> None:
    make("first", "0.3")
    assert encoded
    encoded.clear()
    second = make("second", "0.7")
    assert not encoded
    assert second == make("alone", "0.7", keep_latents=False)
    assert encoded


@pytest.mark.parametrize(
    "change", [{"steps": 2}, {"strength": 0.9}, {"precision": "bf16"}, {"condition_on_class": False}]
)
def test_other_settings_encode_their_own(make: Make, encoded: list[int], change: dict[str, object]) -> None:
    make("first", precision="fp32")
    encoded.clear()
    make("second", **{"precision": "fp32", **change})
    assert encoded


@pytest.mark.parametrize("keeps_length", [True, False])
def test_damaged_ones_are_encoded_again_and_replaced(
    make: Make, encoded: list[int], keeps_length: bool
) -> None:
    make("first", "0.3")
    n_parents = len(encoded)
    files = {file: file.read_bytes() for file in cache_root().glob("latents/*/*.bin")}
    assert len(files) >= 2
    damaged = next(iter(files))
    damaged.write_bytes(files[damaged][: -len(b"other")] + b"other" * keeps_length)
    encoded.clear()
    second = make("second", "0.7")
    assert 0 < len(encoded) < n_parents and second == make("alone", "0.7", keep_latents=False)
    assert {file: file.read_bytes() for file in files} == files


def test_the_longest_unused_go_first(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make("first")
    (first,) = (cache_root() / "latents").iterdir()
    size = sum(file.stat().st_size for file in first.iterdir())
    monkeypatch.setattr(latents, "KEPT_BYTES", 2 * size)
    os.utime(first, (1, 1))
    make("second", steps=2)
    make("third", steps=3)
    left = list((cache_root() / "latents").iterdir())
    assert len(left) == 2 and first not in left


def test_a_cache_that_cannot_be_written_is_not_missed(make: Make, encoded: list[int]) -> None:
    cache_root().mkdir(parents=True, exist_ok=True)
    (cache_root() / "latents").write_text("in the way")
    assert make("first")
    assert make("second") and len(encoded) >= 2
