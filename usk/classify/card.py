"""The model card of a run."""

from __future__ import annotations

from typing import Any

from usk.audio.features import FeatureSettings
from usk.cards import license_metadata, one_line, render_card
from usk.classify.classifier import AudioClassifier
from usk.evaluate import metrics
from usk.runs import Predictions, RunRecord


def run_card(record: RunRecord, predictions: Predictions, classifier: AudioClassifier) -> str:
    """Return the README.md of a run: its results and their protocol, its training data, and leaks that are possible."""
    from huggingface_hub import EvalResult, ModelCardData

    from usk import __version__

    recall, support = metrics.class_recall(
        metrics.confusion_matrix(predictions.labels, predictions.predicted, len(record.class_names))
    )
    real = record.real
    optimistic = ", optimistic" if record.optimistic else ""
    results = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=real.hub_id or one_line(real.name),
            dataset_name=one_line(real.name),
            dataset_split="test",
            dataset_revision=real.revision,
            dataset_args={"protocol": record.protocol, "test": record.split, "seed": record.seed},
            metric_type=kind,
            metric_name=f"{label} ({record.protocol}{optimistic})",
            metric_value=round(value, 4),
        )
        for kind, label, value in (
            ("accuracy", "accuracy", record.accuracy),
            ("f1", "macro F1", record.macro_f1),
        )
    ]
    # Name a folder by its dataset's name, not by its path on the author's disk.
    parts = {}
    for source in record.sources:
        keeps_name = source.part in ("real", "synth") or source.hub_id
        parts[source.dataset if keeps_name else source.name] = source
    mix = ", ".join(name for name, source in parts.items() if source.trained)
    license = license_metadata(record.license)
    data = ModelCardData(
        license=license["license"],
        license_name=license.get("license_name"),
        library_name="usk",
        pipeline_tag="audio-classification",
        tags=["audio", "usk"],
        datasets=[source.hub_id for source in record.sources if source.hub_id] or None,
        model_name=f"{record.classifier} on {one_line(mix)}",
        eval_results=results,
    )
    values = {
        "version": __version__,
        "record": record,
        "takes": _input_values(classifier),
        "mix": mix,
        "parts": parts,
        "license": record.license,
        "test_part": f"{record.protocol}, seed {record.seed}"
        if record.fold is None
        else f"fold {record.fold}",
        "recalls": [
            {"name": name, "support": int(n), "recall": float(value)}
            for name, n, value in zip(record.class_names, support, recall, strict=True)
        ],
        "network": type(classifier.network).__name__,
        "module": type(classifier.network).__module__.replace(".", "/") + ".py",
        "urbansound8k": any(source.urbansound8k for source in record.sources),
    }
    return render_card("run.md", data.to_dict(), values)


def _input_values(classifier: AudioClassifier) -> dict[str, Any]:
    """Return the template values that describe the classifier's input."""
    features = classifier.feature_settings
    return {
        "seconds": features.n_samples / features.sample_rate_hz,
        "sample_rate_hz": features.sample_rate_hz,
        "repeat_short": features.repeat_short,
        "transformer": not isinstance(features, FeatureSettings),
        "in_halves": classifier.window_frames is not None,
    }
