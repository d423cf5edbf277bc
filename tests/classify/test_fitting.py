"""The training loop that runs and judges share: its learning rate goes by the recipe, in all groups of parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from usk.classify import models
from usk.classify.fitting import Training
from usk.data.decode import decode_source
from usk.data.sources import Source
from usk.synth.judge import JudgeConfig, Jury
from usk.synth.plan import draw_plan

STEPS = 40


class Watched(torch.optim.SGD):
    """Two groups of parameters; every step notes the rates of both."""

    seen: list[tuple[float, ...]]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.seen.append(tuple(group["lr"] for group in self.param_groups))
        super().step(closure)


def watched(model: nn.Module, learning_rate: float, _weight_decay: float) -> Watched:
    first, *others = model.parameters()
    optimiser = Watched([{"params": [first]}, {"params": others}], lr=learning_rate)
    optimiser.seen = Watched.seen
    return optimiser


@pytest.fixture(params=[True, False], ids=["cosine", "constant"])
def recipe(
    request: pytest.FixtureRequest, tiny_classifier: models.ClassifierPreset, monkeypatch: pytest.MonkeyPatch
) -> models.ClassifierPreset:
    monkeypatch.setattr(Watched, "seen", [], raising=False)
    changed = replace(tiny_classifier, optimiser=watched, cosine=request.param)
    monkeypatch.setitem(models.CLASSIFIERS, "tiny", changed)
    return changed


def check(recipe: models.ClassifierPreset, steps: int) -> None:
    rates = np.array(Watched.seen[:steps])
    assert rates.shape == (steps, 2) and (rates[:, 0] == rates[:, 1]).all()
    if not recipe.cosine:
        assert (rates == recipe.learning_rate).all()
        return
    assert rates[0, 0] < rates.max() <= recipe.learning_rate and rates.argmax() < 2 * 0.1 * steps
    assert rates[-1, 0] < 0.01 * recipe.learning_rate


def test_every_group_of_parameters_follows_the_recipe(recipe: models.ClassifierPreset) -> None:
    torch.manual_seed(0)
    training = Training(
        recipe.model(3),
        recipe,
        torch.randn(20, *recipe.features.shape),
        torch.randint(3, (20,)),
        steps=STEPS,
        batch=8,
        learning_rate=recipe.learning_rate,
        augment="none",
        precision="fp32",
        seed=0,
    )
    for _ in range(STEPS):
        training.step()
    check(recipe, STEPS)


def test_a_judge_is_trained_as_its_recipe_says(
    recipe: models.ClassifierPreset, bands: Source, tmp_path: Path
) -> None:
    decoded = decode_source(bands)
    plan = draw_plan(bands.clips, bands.class_names, 1)
    jury = Jury(
        decoded, bands.clips, plan.clips, JudgeConfig(classifier="tiny"), False, 0, torch.device("cpu")
    )
    jury.prepare(tmp_path)
    steps = len(Watched.seen) // len(jury.judges)
    assert steps > 10
    check(recipe, steps)
