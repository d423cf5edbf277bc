"""Fixtures for tests of the audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def kept_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dataset that the first test makes for all others."""
    return tmp_path_factory.mktemp("kept") / "synth"


@pytest.fixture
def made(
    usk: Callable[..., Any], urbansound8k_folder: Path, tiny_pipeline: Any, tmp_path: Path, kept_dataset: Path
) -> Path:
    """A synthetic dataset made from folds 1 and 2, with four clips of each class. Each test gets a copy."""
    if not kept_dataset.exists():
        make = f"synth --model {tiny_pipeline()} --steps 1 --per-class 4 --test-folds 3 --out {kept_dataset}"
        usk(f"{make} --real {urbansound8k_folder}").done()
    return Path(shutil.copytree(kept_dataset, tmp_path / "synth"))
