"""The model card of a run."""

from __future__ import annotations

from typing import Any

from usk.cards import license_metadata, one_line, render_card


def run_card(
    record: dict[str, Any],
    accuracy: float,
    macro_f1: float,
    recalls: list[tuple[str, int, float]],
    network: str,
    module: str,
) -> str:
    """The README.md of a run: its results with their protocol, what trained it, and what cannot be ruled out.

    Args:
        record: what run.json holds, and `heard`: seconds, sample rate, how short clips are filled, whether a
            feature extractor of `transformers` makes its features, and whether clips are heard in halves.
        accuracy, macro_f1: on the test part, 0 to 1.
        recalls: (class, test clips, recall) in class order.
        network, module: the class of its network and the file that has it.
    """
    from huggingface_hub import EvalResult, ModelCardData

    from usk import __version__

    real = record["inputs"]["real"]
    optimistic = ", optimistic" if record["optimistic"] else ""
    test_part = (
        f"fold {record['fold']}"
        if record["fold"] is not None
        else f"{record['protocol']}, seed {record['seed']}"
    )
    results = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=real["hub_id"] or one_line(real["source"]),
            dataset_name=one_line(real["source"]),
            dataset_split="test",
            dataset_revision=real["revision"],
            dataset_args={"protocol": record["protocol"], "test": record["split"], "seed": record["seed"]},
            metric_type=kind,
            metric_name=f"{label} ({record['protocol']}{optimistic})",
            metric_value=round(value, 4),
        )
        for kind, label, value in (("accuracy", "accuracy", accuracy), ("f1", "macro F1", macro_f1))
    ]
    # A folder is named as its dataset is, not by its path on somebody's disk.
    parts = [
        {"name": name if name in ("real", "synth") or part["hub_id"] else part["source"], **part}
        for name, part in record["inputs"].items()
    ]
    used = [part["hub_id"] for part in parts if part["hub_id"]]
    mix = ", ".join(part["name"] for part in parts if part["trained"])
    license = license_metadata(record["license"])
    data = ModelCardData(
        license=license["license"],
        license_name=license.get("license_name"),
        library_name="usk",
        pipeline_tag="audio-classification",
        tags=["audio", "usk"],
        datasets=used or None,
        model_name=f"{record['classifier']} on {one_line(mix)}",
        eval_results=results,
    )
    values = {
        "version": __version__,
        "record": record,
        "class_names": record["class_names"],
        "mix": mix,
        "parts": parts,
        "leaks": record["leaks"],
        "license": record["license"],
        "test_part": test_part,
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "recalls": [{"name": name, "support": n, "recall": recall} for name, n, recall in recalls],
        "n_test_recordings": record["n_test_recordings"],
        "network": network,
        "module": module,
        "urbansound8k": any(part["urbansound8k"] for part in parts),
    }
    return render_card("run.md", data.to_dict(), values)
