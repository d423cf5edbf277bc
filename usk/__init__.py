"""usk, the urban sound kit: synthetic training clips for audio classifiers, and whether they help.

import usk

real = usk.open_source("UrbanSound8K")
made = usk.synthesize(real, "synth", usk.SynthConfig(per_class=100))
usk.train(real, ["real", "real,synth"], synth=made.folder, config=usk.TrainConfig(seeds=3))
for comparison in usk.compare("runs"):
    print(comparison.title, [row.sentence for row in comparison.rows])
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ruff: noqa: F401
if TYPE_CHECKING:
    from usk.audio.mel import MelSettings
    from usk.classify.classifier import AudioClassifier
    from usk.classify.config import ClipUse, TrainConfig
    from usk.classify.predict import load_classifier, predict
    from usk.classify.train import TrainResult, train
    from usk.cli.display import Display
    from usk.data.clip import Clip
    from usk.data.open import open_source
    from usk.data.source import Source
    from usk.diffusion.fit import FitConfig, FitResult, fit
    from usk.diffusion.generator import Generator
    from usk.diffusion.load import load_generator
    from usk.engine.part import Part
    from usk.errors import UskError
    from usk.evaluate.compare import Comparison
    from usk.evaluate.compare import compare_runs as compare
    from usk.push import push
    from usk.push_plan import PushPlan, PushResult
    from usk.report.page import ReportConfig, ReportResult, report
    from usk.study.results import StudyResult
    from usk.study.run import study
    from usk.synth.settings import RenderConfig, SynthConfig, render_configs
    from usk.synth.synthesize import SynthResult, synthesize

_MODULES = {
    "usk.audio.mel": "MelSettings",
    "usk.classify.classifier": "AudioClassifier",
    "usk.classify.config": "ClipUse TrainConfig",
    "usk.classify.predict": "load_classifier predict",
    "usk.classify.train": "TrainResult train",
    "usk.cli.display": "Display",
    "usk.data.clip": "Clip",
    "usk.data.open": "open_source",
    "usk.data.source": "Source",
    "usk.diffusion.fit": "FitConfig FitResult fit",
    "usk.diffusion.generator": "Generator",
    "usk.diffusion.load": "load_generator",
    "usk.engine.part": "Part",
    "usk.errors": "UskError",
    "usk.evaluate.compare": "Comparison",
    "usk.push": "push",
    "usk.push_plan": "PushPlan PushResult",
    "usk.report.page": "ReportConfig ReportResult report",
    "usk.study.results": "StudyResult",
    "usk.study.run": "study",
    "usk.synth.settings": "RenderConfig SynthConfig render_configs",
    "usk.synth.synthesize": "SynthResult synthesize",
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names.split()}
_WHERE["compare"] = "usk.evaluate.compare:compare_runs"

__all__ = sorted(["__version__", *_WHERE])


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import usk` and the help are fast."""
    if name not in _WHERE:
        raise AttributeError(f"module 'usk' has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


class _Package(ModuleType):
    """Keeps `usk.push` and other functions when Python imports a module of the same name and assigns it here."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
