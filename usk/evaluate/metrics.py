"""Compute accuracy, macro F1 and recall of one set of predictions. This module does no I/O.

`labels` and `predicted` are class numbers, int [clips]. All results are fractions between 0 and 1.
"""

from __future__ import annotations

import numpy as np


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Count clips by true and predicted class: int64 [n_classes, n_classes].

    Raise ValueError if the lengths differ, or if a class number is outside 0 .. n_classes - 1.
    """
    if len(labels) != len(predicted):
        raise ValueError(f"{len(labels)} labels and {len(predicted)} predictions")
    pairs = np.ravel_multi_index((np.asarray(labels), np.asarray(predicted)), (n_classes, n_classes))
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the fraction of clips with a correct prediction; NaN without clips."""
    return float(np.mean(np.asarray(labels) == np.asarray(predicted))) if len(labels) else float("nan")


def macro_f1(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Return the mean F1 = 2 TP / (2 TP + FP + FN) over the classes that occur in `labels`; NaN without clips.

    A class without test clips does not count, but predicting it lowers the recall of the true class. The result equals
    scikit-learn's `f1_score(average="macro", labels=unique(labels))`. This function is faster: scikit-learn takes a second
    to import and 1.8 ms for 888 clips, instead of 0.02 ms.
    """
    counts = confusion_matrix(labels, predicted, n_classes)
    support = counts.sum(axis=1)
    f1 = 2 * np.diag(counts) / np.maximum(support + counts.sum(axis=0), 1)
    return float(f1[support > 0].mean()) if support.any() else float("nan")


def class_recall(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall, float [n_classes], and support (test clips), int [n_classes]. Recall is NaN if support is 0."""
    support = counts.sum(axis=1)
    return np.where(support > 0, np.diag(counts) / np.maximum(support, 1), np.nan), support
