"""Tests of `usk study`, and of the scripts of the published studies."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load(path: str) -> ModuleType:
    """Import a script of docs/studies as a module."""
    file = Path(__file__).parents[2] / "docs" / "studies" / path
    spec = importlib.util.spec_from_file_location(f"studies_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
