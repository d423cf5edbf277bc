"""The demo corpus is neither trivial nor hopeless for the default classifier."""

from pathlib import Path

import pytest
import torch

import usk
from usk.runs import read_run


@pytest.mark.slow
def test_default_classifier_lands_between_55_and_90_percent_on_every_held_out_demo_fold(
    tmp_path: Path,
    demo_cache: None,
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        result = usk.train(
            usk.open_source("demo"),
            ["real"],
            out=tmp_path,
            config=usk.TrainConfig(epochs=8, seeds=1, baseline=False),
        )
    finally:
        torch.set_num_threads(threads)
    accuracies = {run.split: read_run(run.folder).accuracy for run in result.runs}
    assert set(accuracies) == {"fold1", "fold2", "fold3"}
    assert all(0.55 <= accuracy <= 0.90 for accuracy in accuracies.values()), accuracies
