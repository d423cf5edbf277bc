"""A synthetic dataset to audit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def made(
    usk: Callable[..., Any], urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path
) -> Path:
    """A synthetic dataset of folds 1 and 2, four clips a class."""
    ran = usk(
        "synth", "--real", urbansound8k_folder, "--model", tiny_pipeline(), "--out", tmp_path / "synth", "--steps", 1,
        "--per-class", 4, "--test-folds", 3,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return tmp_path / "synth"
