"""The demo corpus: its shape, its folds, and that rendering is deterministic and sane."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from usk.data.clip import Clip
from usk.data.demo_corpus import CLASSES, SAMPLE_RATE_HZ, corpus, render


def _first_clip(class_name: str) -> Clip:
    return next(clip for clip in corpus() if CLASSES[clip.label] == class_name)


def test_corpus_is_balanced_and_sorted() -> None:
    clips = corpus()
    ids = [clip.clip_id for clip in clips]
    assert len(clips) == len(set(ids)) == 540
    assert ids == sorted(ids)
    assert clips == corpus()
    assert Counter((clip.label, clip.fold) for clip in clips) == {
        (label, fold): 18 for label in range(len(CLASSES)) for fold in (1, 2, 3)
    }
    assert set(Counter(clip.group for clip in clips).values()) == {3}


def test_a_recording_has_one_fold_and_one_class() -> None:
    owners = {(clip.group, clip.fold, clip.label) for clip in corpus()}
    assert len(owners) == len({group for group, _, _ in owners}) == 180


def test_durations_are_those_of_urbansound8k() -> None:
    clips = corpus()
    assert all(1.0 <= clip.duration_s <= 4.0 for clip in clips)
    assert sum(clip.duration_s == 4.0 for clip in clips) > len(clips) // 2
    train_clips = [clip.duration_s for clip in clips if CLASSES[clip.label] == "gun_shot"]
    assert float(np.mean(train_clips)) < 3.0


@pytest.mark.parametrize("class_name", CLASSES)
def test_render_is_deterministic_finite_bounded_and_audible(class_name: str) -> None:
    clip = _first_clip(class_name)
    samples = render(clip)
    assert samples.dtype == np.float32
    assert samples.shape == (round(clip.duration_s * SAMPLE_RATE_HZ),)
    assert np.isfinite(samples).all()
    assert 0.01 < float(np.abs(samples).max()) <= 1.0
    assert float(np.sqrt(np.mean(samples**2))) > 1e-4
    assert samples.tobytes() == render(clip).tobytes()


def test_clips_differ_within_a_recording_and_between_recordings() -> None:
    dogs = [clip for clip in corpus() if CLASSES[clip.label] == "dog_bark"][:6]
    assert len({clip.group for clip in dogs}) == 2
    waves = [render(clip) for clip in dogs]
    for i, first in enumerate(waves):
        for second in waves[:i]:
            n = min(first.size, second.size)
            assert not np.allclose(first[:n], second[:n], atol=1e-3)
