"""Figures of one set of predictions: accuracy, macro F1, recall, confusions. Pure numpy.

`labels` and `predicted` are class numbers, int [clips]. All figures are fractions between 0 and 1.
"""

from __future__ import annotations

import numpy as np


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts [true class, predicted class], int64 [n_classes, n_classes].

    Raises ValueError when the two differ in length or a class number lies outside 0 .. n_classes - 1.
    """
    labels, predicted = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ValueError(
            f"labels {labels.shape} and predictions {predicted.shape} must be rows of the same length"
        )
    both = np.concatenate((labels, predicted))
    if both.size and (both.min() < 0 or both.max() >= n_classes):
        raise ValueError(f"class numbers {both.min()} to {both.max()} do not fit {n_classes} classes")
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes)


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The share of clips predicted as labeled; NaN without clips."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    return float(np.mean(labels == predicted)) if labels.size else float("nan")


def macro_f1(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """The mean F1 = 2 TP / (2 TP + FP + FN) over the classes that occur in `labels`; NaN without clips.

    A class without test clips has no say; predicting it still costs the class that was missed.
    (scikit-learn's `f1_score(average="macro", labels=unique(labels))`.)
    """
    counts = confusion_matrix(labels, predicted, n_classes)
    support = counts.sum(axis=1)
    present = support > 0
    if not present.any():
        return float("nan")
    return float(np.mean(2 * np.diag(counts)[present] / (support + counts.sum(axis=0))[present]))


def class_recall(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall, float [n_classes], and support (test clips), int [n_classes]; NaN where support is 0."""
    counts = confusion_matrix(labels, predicted, n_classes)
    support = counts.sum(axis=1)
    recall = np.where(support > 0, np.diag(counts) / np.maximum(support, 1), np.nan)
    return recall, support


def changed_confusions(before: np.ndarray, after: np.ndarray) -> list[tuple[int, int]]:
    """(true, predicted) class numbers of the mistakes whose counts differ between two confusion matrices over the same
    clips, [n_classes, n_classes] each; the largest change first, then by class number."""
    change = np.asarray(after) - np.asarray(before)
    np.fill_diagonal(change, 0)
    subsets = [(int(true), int(predicted)) for true, predicted in np.argwhere(change)]
    return sorted(subsets, key=lambda subset: (-abs(int(change[subset])), subset))
