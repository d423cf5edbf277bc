"""Tests of the gallery: the choice of clips within the budget, compressed sounds, pictures and the map."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.sounds import tone
from usk.data.clip import Clip
from usk.data.open import open_source
from usk.data.source import Source
from usk.errors import SourceError
from usk.report import media
from usk.report.gallery import build_gallery, display_order
from usk.report.media import N_PEAKS, compress, draw_spectrogram, waveform_peaks
from usk.report.sound_library import BASE64, ROW_BYTES, SOUND_BYTES, SoundLibrary
from usk.synth.settings import SynthConfig, render_config
from usk.synth.synthesize import synthesize


def gray(values: np.ndarray) -> np.ndarray:
    return np.repeat((255 * values).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def sources(_tones: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Source]:
    """Synthetic clips made from tones, and the tones."""
    real = open_source(_tones)
    config = SynthConfig(per_class=6, render=render_config(strategy="waveform"))
    return open_source(synthesize(real, tmp_path_factory.mktemp("synth") / "of", config).folder), real


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=60))
def test_every_prefix_of_the_order_is_even_over_classes(places: list[tuple[int, int]]) -> None:
    clips = [Clip(str(row), label, str(row), fold) for row, (label, fold) in enumerate(places)]
    order = display_order(clips)
    assert sorted(order) == list(range(len(clips)))
    there = Counter(clip.label for clip in clips)
    seen: Counter[int] = Counter()
    for row in order:
        seen[clips[row].label] += 1
        unfinished = [label for label in there if seen[label] < there[label]]
        assert all(seen[label] >= max(seen.values()) - 1 for label in unfinished)


def test_folds_alternate_within_a_class() -> None:
    clips = [Clip(str(row), 0, str(row), 1 if row < 50 else 2) for row in range(60)]
    assert Counter(clips[row].fold for row in display_order(clips)[:10]) == {1: 5, 2: 5}


def test_an_mp3_is_small_and_keeps_the_tone() -> None:
    audio = tone(700.0, 1.0, peak=0.5)
    media = compress(audio, 22_050)
    assert media.mime == "audio/mpeg"
    assert len(media.content) < len(audio) / 2
    back, rate_hz = soundfile.read(io.BytesIO(media.content))
    assert rate_hz == 22_050
    assert abs(len(back) - len(audio)) < 3_000
    spectrum = np.abs(np.fft.rfft(back[4_000:-4_000]))
    assert np.argmax(spectrum) * rate_hz / (len(back) - 8_000) == pytest.approx(700, abs=3)
    assert np.abs(back).max() == pytest.approx(0.5, rel=0.1)


def test_pictures_have_one_scale_and_low_bands_at_the_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "magma", gray)
    pictures = (draw_spectrogram(tone(300.0, 1.0, peak=peak), 40.0).content for peak in (0.5, 0.05))
    loud, quiet = (np.asarray(Image.open(io.BytesIO(one)).convert("L")) for one in pictures)
    assert loud.shape[0] == 96
    assert np.argmax(loud.mean(axis=1)) > 80  # rows are counted from the top
    row = int(np.argmax(loud.mean(axis=1)))
    assert loud[row].mean() - quiet[row].mean() == pytest.approx(20 / 80 * 255, abs=12)  # 20 dB of 80


def test_all_clips_are_shown_with_their_parents(sources: tuple[Source, Source]) -> None:
    gallery = build_gallery(*sources)
    assert (len(gallery.clips), gallery.n_all, gallery.notes) == (18, 18, ())
    for one in gallery.clips:
        assert [parent.clip_id for parent in one.parents if parent] == list(one.clip.parent_names)
        assert all(distance is not None and distance >= 0 for distance in one.distances)
        assert {one.sound.class_name} == {parent.class_name for parent in one.parents if parent}
    played = {parent for one in gallery.clips for parent in one.clip.parents}
    assert len(gallery.sounds) == 18 + len(played)  # clips share parents


@pytest.mark.parametrize("budget", [30_000, 60_000, 120_000])
def test_the_budget_is_kept_and_spread_over_classes(sources: tuple[Source, Source], budget: int) -> None:
    gallery = build_gallery(*sources, budget_bytes=budget)
    spent = ROW_BYTES * len(gallery.clips) + sum(
        SOUND_BYTES + BASE64 * sound.n_bytes for sound in gallery.sounds
    )
    assert 0 < spent <= budget
    counts = Counter(one.clip.label for one in gallery.clips)
    if len(gallery.clips) < 18:
        assert max(counts.values()) - min(counts.get(label, 0) for label in range(3)) <= 1
        note = f"{len(gallery.clips)} of 18 clips are on this page, drawn evenly over classes and folds"
        assert gallery.notes[-1] == note


def test_rejected_clips_are_marked_and_missing_parents_are_none(sources: tuple[Source, Source]) -> None:
    synthetic, real = sources
    gallery = build_gallery(synthetic.subset(range(9)), real, rejected=synthetic.subset(range(9, 18)))
    assert (gallery.n_all, gallery.n_all_rejected) == (9, 9)
    rejected = {one.clip.clip_id for one in gallery.clips if one.rejected}
    assert rejected == {clip.clip_id for clip in synthetic.clips[9:]}
    gallery = build_gallery(synthetic, None)
    assert all(one.parents == (None, None) and one.nearest is None for one in gallery.clips)
    with pytest.raises(SourceError, match="fits into the page"):
        build_gallery(*sources, budget_bytes=1_000)


def test_similar_sounds_are_close_on_the_map() -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(3, 192))
    library = SoundLibrary(None)
    names = [(c, n) for c in range(3) for n in range(4)]
    library.statistics = {f"{c}-{n}": centers[c] + 0.05 * rng.normal(size=192) for c, n in names}
    library.real_names = set(library.statistics)
    positions = {name: np.array(position) for name, position in library.positions().items()}
    means = [np.mean([positions[f"{c}-{n}"] for n in range(4)], axis=0) for c in range(3)]
    within = max(np.linalg.norm(positions[f"{c}-{n}"] - means[c]) for c, n in names)
    between = min(np.linalg.norm(means[a] - means[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert within < 0.2 * between
    assert {0.0, 1.0} <= {float(value) for position in positions.values() for value in position}


def test_small_previews_have_half_the_size_and_the_same_length() -> None:
    rng = np.random.default_rng(0)
    audio = (0.2 * rng.normal(size=3 * 22_050)).astype(np.float32)
    usual, small = compress(audio, 22_050), compress(audio, 22_050, kbps=11.0)
    assert (small.mime, small.suffix) == ("audio/ogg", "ogg")
    assert len(small.content) < 0.6 * len(usual.content)
    played, rate_hz = soundfile.read(io.BytesIO(small.content))
    assert len(played) / rate_hz == pytest.approx(3.0, abs=0.05)
    assert np.std(played) == pytest.approx(0.2, rel=0.25)


def test_waveform_peaks_are_the_peak_levels_of_parts() -> None:
    drawn = waveform_peaks(np.repeat([0.0, 1.0], 640).astype(np.float32) * np.resize([1, -1], 1280))
    assert drawn == "0" * (N_PEAKS // 2) + "Z" * (N_PEAKS // 2)
    assert len(waveform_peaks(np.zeros(3, np.float32))) == N_PEAKS  # fewer samples than parts


@pytest.mark.parametrize("seconds", [1_000.0, 8_000.0, 12_000.0])
def test_a_thousand_clips_with_different_parents_fit_a_page(seconds: float) -> None:
    """Sizes are those of noise, which encoders compress least."""
    clips = [Clip(str(row), 0, str(row), 1, duration_s=seconds / 1_000) for row in range(1_000)]
    library = SoundLibrary(None, 24_000_000)
    library.choose_bit_rate(Source("made", "folder", "made", "", "", ("a",), tuple(clips), ()), [])
    noise = (0.2 * np.random.default_rng(0).normal(size=4 * 22_050)).astype(np.float32)
    n_bytes = len(compress(noise, 22_050, library.kbps).content)
    n_bytes += len(draw_spectrogram(noise, 40.0, library.kbps is not None).content)
    assert (ROW_BYTES + SOUND_BYTES) * 1_000 + BASE64 * n_bytes / 4 * seconds < 24_000_000
