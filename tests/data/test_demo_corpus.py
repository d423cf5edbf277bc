"""The demo corpus: its shape, its folds, and that rendering is deterministic and sane."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from usk.data.demo_corpus import CLASSES, SAMPLE_RATE_HZ, corpus, render


def test_corpus_is_balanced_sorted_and_as_long_as_urbansound8k() -> None:
    clips = corpus()
    ids = [clip.clip_id for clip in clips]
    assert len(clips) == len(set(ids)) == 540 and ids == sorted(ids) and clips == corpus()
    assert Counter((clip.label, clip.fold) for clip in clips) == {
        (label, fold): 18 for label in range(len(CLASSES)) for fold in (1, 2, 3)
    }
    assert set(Counter(clip.group for clip in clips).values()) == {3}
    owners = {(clip.group, clip.fold, clip.label) for clip in clips}
    assert len(owners) == 180, "a recording has one fold and one class"
    assert all(1.0 <= clip.duration_s <= 4.0 for clip in clips)
    assert sum(clip.duration_s == 4.0 for clip in clips) > len(clips) // 2
    assert np.mean([clip.duration_s for clip in clips if CLASSES[clip.label] == "gun_shot"]) < 3.0


@pytest.mark.parametrize("class_name", CLASSES)
def test_render_is_deterministic_finite_bounded_audible_and_differs_by_clip(class_name: str) -> None:
    clips = [clip for clip in corpus() if CLASSES[clip.label] == class_name][:6]
    samples = render(clips[0])
    assert samples.dtype == np.float32
    assert samples.shape == (round(clips[0].duration_s * SAMPLE_RATE_HZ),)
    assert np.isfinite(samples).all()
    assert 0.01 < float(np.abs(samples).max()) <= 1.0
    assert float(np.sqrt(np.mean(samples**2))) > 1e-4
    assert samples.tobytes() == render(clips[0]).tobytes()
    if class_name == "dog_bark":  # within a recording and between recordings
        assert len({clip.group for clip in clips}) == 2
        waves = [render(clip) for clip in clips]
        for i, first in enumerate(waves):
            for second in waves[:i]:
                n = min(first.size, second.size)
                assert not np.allclose(first[:n], second[:n], atol=1e-3)
