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
    from usk.synth.settings import RenderConfig, SynthConfig, render_config
    from usk.synth.synthesize import SynthResult, synthesize

_WHERE = {
    "AudioClassifier": "usk.classify.classifier",
    "Clip": "usk.data.clip",
    "ClipUse": "usk.classify.config",
    "Comparison": "usk.evaluate.compare",
    "FitConfig": "usk.diffusion.fit",
    "FitResult": "usk.diffusion.fit",
    "Generator": "usk.diffusion.generator",
    "MelSettings": "usk.audio.mel",
    "Part": "usk.engine.part",
    "PushPlan": "usk.push_plan",
    "PushResult": "usk.push_plan",
    "push": "usk.push",
    "RenderConfig": "usk.synth.settings",
    "render_config": "usk.synth.settings",
    "ReportConfig": "usk.report.page",
    "ReportResult": "usk.report.page",
    "Source": "usk.data.source",
    "SynthConfig": "usk.synth.settings",
    "SynthResult": "usk.synth.synthesize",
    "TrainConfig": "usk.classify.config",
    "TrainResult": "usk.classify.train",
    "UskError": "usk.errors",
    "compare": "usk.evaluate.compare:compare_runs",
    "fit": "usk.diffusion.fit",
    "load_classifier": "usk.classify.predict",
    "load_generator": "usk.diffusion.load",
    "predict": "usk.classify.predict",
    "report": "usk.report.page",
    "open_source": "usk.data.open",
    "StudyResult": "usk.study.results",
    "study": "usk.study.run",
    "synthesize": "usk.synth.synthesize",
    "train": "usk.classify.train",
}

__all__ = sorted(["__version__", *_WHERE])


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that `import usk` and the help stay quick."""
    if name not in _WHERE:
        raise AttributeError(f"module 'usk' has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


class _Package(ModuleType):
    """Importing the module `usk.push` would put it in the place of the function `usk.push`: names above stay functions."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
