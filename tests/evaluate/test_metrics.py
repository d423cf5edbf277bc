"""Tests that metrics agree with scikit-learn's, and are NaN without clips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from usk.evaluate import metrics

N_CLASSES = 5
rows = st.lists(
    st.tuples(st.integers(0, N_CLASSES - 1), st.integers(0, N_CLASSES - 1)), min_size=1, max_size=60
)


@given(rows)
def test_metrics_equal_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    present = np.unique(labels)
    assert metrics.accuracy(labels, predicted) == pytest.approx(reference.accuracy_score(labels, predicted))
    expected_f1 = reference.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert metrics.macro_f1(labels, predicted, N_CLASSES) == pytest.approx(expected_f1)
    expected = reference.confusion_matrix(labels, predicted, labels=range(N_CLASSES))
    assert np.array_equal(metrics.confusion_matrix(labels, predicted, N_CLASSES), expected)
    recall, support = metrics.class_recall(metrics.confusion_matrix(labels, predicted, N_CLASSES))
    expected_recall = reference.recall_score(labels, predicted, labels=present, average=None, zero_division=0)
    assert recall[present] == pytest.approx(expected_recall)
    assert np.isnan(np.delete(recall, present)).all()
    assert np.array_equal(support, np.bincount(labels, minlength=N_CLASSES))


def test_metrics_without_clips_are_nan() -> None:
    nothing = np.array([], dtype=np.int64)
    assert np.isnan(metrics.accuracy(nothing, nothing))
    assert np.isnan(metrics.macro_f1(nothing, nothing, 3))
    recall, support = metrics.class_recall(metrics.confusion_matrix(nothing, nothing, 3))
    assert np.isnan(recall).all() and support.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("labels", "predicted"), [([0, 1], [0]), ([0, 3], [0, 0]), ([0, 0], [0, -1]), ([[0]], [[0]])]
)
def test_mismatched_labels_and_predictions_raise(labels: list, predicted: list) -> None:
    with pytest.raises(ValueError):
        metrics.confusion_matrix(np.array(labels), np.array(predicted), 3)
