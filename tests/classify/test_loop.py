"""The training loop that runs and clip filters share: its learning rate goes by the recipe, in all groups of parameters, and
batches are normalized as the clips that are tested need it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.classify.conftest import TINY
from usk.audio.features import features_of
from usk.classify import registry
from usk.classify.classifier import AudioClassifier
from usk.classify.config import ClipUse
from usk.classify.feature_table import ConcatenatedRows, FeatureTable
from usk.classify.loop import StepSettings, Training, evenly_spaced
from usk.classify.recipe import ClassifierPreset
from usk.classify.train import train
from usk.data.decode import decode_source
from usk.data.source import Source
from usk.data.splits import fold_split
from usk.reporter import Reporter
from usk.synth.filter import ClipFilter
from usk.synth.plan import draw_plan
from usk.synth.settings import SynthConfig

STEPS = 40


class Watched(torch.optim.AdamW):
    """An optimizer with two groups of parameters that records both learning rates of each step."""

    seen: list[tuple[float, ...]]

    def __init__(self, parameters: Iterable[nn.Parameter], **options: Any) -> None:
        first, *others = parameters
        super().__init__([{"params": [first]}, {"params": others}], **options)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.seen.append(tuple(group["lr"] for group in self.param_groups))
        super().step(closure)


@pytest.fixture(params=[True, False], ids=["cosine", "constant"])
def recipe(
    request: pytest.FixtureRequest, tiny_classifier: ClassifierPreset, monkeypatch: pytest.MonkeyPatch
) -> ClassifierPreset:
    monkeypatch.setattr(Watched, "seen", [], raising=False)
    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    changed = replace(tiny_classifier, cosine=request.param)
    monkeypatch.setitem(registry.CLASSIFIERS, "tiny", changed)
    return changed


def test_rows_of_several_tables_are_gathered_where_they_lie(tmp_path: Path) -> None:
    real, synth = np.random.default_rng(0).normal(size=(2, 9, 3, 4)).astype(np.float16)
    np.save(tmp_path / "synth.npy", synth)
    mapped = torch.from_numpy(np.load(tmp_path / "synth.npy", mmap_mode="r+"))
    parts = [
        (torch.from_numpy(real), np.array([7, 1, 4])),
        (mapped, np.array([0, 8])),
        (torch.from_numpy(real), np.array([2])),
    ]
    gathered, copied = ConcatenatedRows(parts), np.concatenate([real[[7, 1, 4]], synth[[0, 8]], real[[2]]])
    assert len(gathered) == len(copied) == 6
    for places in ([0, 1, 2, 3, 4, 5], [5, 3, 3, 0], [4], []):
        assert np.array_equal(gathered[torch.tensor(places, dtype=torch.int64)], copied[places])
    mapped[8] = 0
    assert not gathered[torch.tensor([4])].any(), "the table itself is read"


def check(recipe: ClassifierPreset, steps: int) -> None:
    rates = np.array(Watched.seen[:steps])
    assert rates.shape == (steps, 2) and (rates[:, 0] == rates[:, 1]).all()
    if not recipe.cosine:
        assert (rates == recipe.learning_rate).all()
        return
    assert rates[0, 0] < rates.max() <= recipe.learning_rate and rates.argmax() < 2 * 0.1 * steps
    assert rates[-1, 0] < 0.01 * recipe.learning_rate


PLAIN = StepSettings(steps=STEPS, batch=8, learning_rate=1e-3, augment="none", precision="fp32", seed=0)


def test_every_group_of_parameters_follows_the_recipe(recipe: ClassifierPreset) -> None:
    torch.manual_seed(0)
    table = FeatureTable(torch.randn(20, *recipe.features.shape), torch.randint(3, (20,)))
    training = Training(recipe.model(3), recipe, table, replace(PLAIN, learning_rate=recipe.learning_rate))
    for _ in range(STEPS):
        training.step()
    check(recipe, STEPS)


def prepared_filter(bands: Source, folder: Path) -> ClipFilter:
    config, plan = SynthConfig(per_class=1, filter=0.5), draw_plan(bands.clips, bands.class_names, 1)
    pool = decode_source(bands)
    clip_filter = ClipFilter(pool, bands.clips, plan.clips, config, torch.device("cpu"), "tiny")
    clip_filter.prepare(folder, Reporter())
    return clip_filter


def test_a_clip_filter_is_trained_as_its_recipe_says(
    recipe: ClassifierPreset, bands: Source, tmp_path: Path
) -> None:
    n_classifiers = len(prepared_filter(bands, tmp_path).classifiers)
    steps = len(Watched.seen) // n_classifiers
    assert steps > 10
    check(recipe, steps)


class Normalized(nn.Module):
    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(4, n_classes)

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(log_mel)).relu().mean(dim=(2, 3)))


@pytest.fixture
def normalized(tiny_classifier: ClassifierPreset, monkeypatch: pytest.MonkeyPatch) -> ClassifierPreset:
    changed = replace(tiny_classifier, build=Normalized)
    monkeypatch.setitem(registry.CLASSIFIERS, "tiny", changed)
    return changed


def means_of(network: nn.Module, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the channel means of the batch-norm input for whole clips, and the stored running means."""
    (layer,) = (module for module in network.modules() if isinstance(module, Normalized))
    given: list[torch.Tensor] = []
    hook = layer.first.register_forward_hook(lambda *called: given.append(called[2]))
    with torch.no_grad():
        network.eval()(features.float())
    hook.remove()
    assert layer.norm.running_mean is not None
    return given[0].mean(dim=(0, 2, 3)), layer.norm.running_mean


@pytest.mark.parametrize("mix", ["real", "real,synth", "synth"])
def test_a_run_normalizes_as_plain_real_clips_need_it(
    normalized: ClassifierPreset, bands: Source, children: Callable[..., Source], tmp_path: Path, mix: str
) -> None:
    config = replace(TINY, epochs=2, augment="gain+noise+mixup")
    (run,) = train(bands, [mix], synth=children(), out=tmp_path, config=config).runs
    trained = fold_split(bands.clips, 2).train.tolist()
    features = features_of(decode_source(bands), normalized.features)[trained]
    needed, kept = means_of(AudioClassifier.from_pretrained(run.folder), features)
    assert torch.allclose(needed, kept, atol=1e-3) == (mix != "synth"), "those have no real clip to hear"


def test_a_clip_filter_normalizes_as_plain_clips_need_it(
    normalized: ClassifierPreset, bands: Source, tmp_path: Path
) -> None:
    clip_filter = prepared_filter(bands, tmp_path)
    for name, network in clip_filter.classifiers.items():
        features = features_of(clip_filter.pool, normalized.features)[clip_filter.rows_of[name]]
        needed, kept = means_of(network, features)
        assert torch.allclose(needed, kept, atol=1e-3)


@pytest.mark.parametrize(
    ("use", "n_real"),
    [
        (ClipUse(real_share=0.25), [2] * STEPS),
        (ClipUse(real_share=0.01), [1] * STEPS),
        (ClipUse(real_share=0.5, real_last=0.3), [4] * 28 + [8] * 12),
    ],
)
def test_batches_hold_the_share_of_real_clips(
    tiny_classifier: ClassifierPreset, use: ClipUse, n_real: list[int]
) -> None:
    """Train on 5 real and 20 synthetic clips whose features identify them."""
    synthetic = np.arange(25) >= 5
    features = torch.arange(25.0)[:, None, None].expand(-1, *tiny_classifier.features.shape).contiguous()

    def batches(resumed_at: int | None = None) -> list[list[int]]:
        torch.manual_seed(0)
        model, seen, kept = tiny_classifier.build(3), [], {}
        model.register_forward_pre_hook(lambda _, given: seen.append(given[0][:, 0, 0].int().tolist()))

        def training() -> Training:
            table = FeatureTable(features, torch.zeros(25, dtype=torch.int64))
            settings = replace(PLAIN, seed=3, synthetic=synthetic, use=use)
            return Training(model, tiny_classifier, table, settings)

        one = training()
        for step in range(STEPS):
            if step == resumed_at:
                kept, one = one.state(), training()
                one.resume(kept, step)
            one.step()
        return seen

    seen = batches()
    assert [sum(row < 5 for row in batch) for batch in seen] == n_real
    made = [row for batch in seen for row in batch if row >= 5]
    assert sorted(made[:20]) == list(range(5, 25)), "each before any comes again"
    assert seen == batches() == batches(resumed_at=30)


def test_clips_are_taken_evenly() -> None:
    assert evenly_spaced(np.arange(600), 256).tolist() == list(range(0, 600, 3))
    assert evenly_spaced(torch.arange(256), 256).tolist() == list(range(256))


def trainings(name: str, dropout: float, learning_rate: float = 1e-3, device: str = "cuda") -> Training:
    """Return a training on random clips."""
    recipe = registry.CLASSIFIERS[name]
    torch.manual_seed(0)
    features = 10 * torch.randn(24, *recipe.features.shape)
    model = recipe.model(3, features)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    table = FeatureTable(features.to(device), (torch.arange(24) % 3).to(device))
    settings = replace(PLAIN, learning_rate=learning_rate, augment="gain+mixup")
    return Training(model.to(device).train(), recipe, table, settings)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_was_trained_on_is_freed_at_once(device: str) -> None:
    """On a GPU with what was recorded of a step."""
    gc.collect()
    gc.disable()
    try:
        training = trainings("small", 0.0, device=device)
        for _ in range(6):
            training.step()
        gone = weakref.ref(training.features)
        del training
        assert gone() is None, "kept until the garbage collector comes by"
    finally:
        gc.enable()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["small", "cnn"])
def test_recorded_steps_learn_as_plain_ones_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = [float(training.step()) for training in [trainings(name, 0.0)] for _ in range(12)]
    with monkeypatch.context() as plain:
        plain.setattr("usk.classify.loop.replayable", lambda *_: False)
        expected = [float(training.step()) for training in [trainings(name, 0.0)] for _ in range(12)]
    assert np.allclose(recorded, expected, rtol=2e-2)
    assert len(set(recorded)) == 12


@pytest.mark.gpu
def test_recorded_steps_draw_anew() -> None:
    training = trainings("small", 0.5, learning_rate=0.0)
    training.augmentations, training.batch = (), 24  # all clips in each step, and no weight changes
    losses = [round(float(training.step()), 6) for _ in range(12)]
    assert len(set(losses)) == 12, "dropout"


@pytest.mark.parametrize(
    ("device", "half", "rtol"), [("cpu", 2, 1e-4), pytest.param("cuda", 6, 2e-2, marks=pytest.mark.gpu)]
)
def test_steps_go_on_from_a_checkpoint(device: str, half: int, rtol: float) -> None:
    """Recorded ones on CUDA; on a CPU also from what was kept on CUDA."""
    whole = trainings("small", 0.0, device=device)
    expected = [float(whole.step()) for _ in range(2 * half)]
    first = trainings("small", 0.0, device=device)
    for _ in range(half):
        first.step()
    state = first.state()
    if device == "cpu":
        for group in state["optimizer"]["param_groups"]:  # as a recorded step stores it
            group |= {"capturable": True, "lr": torch.tensor(group["lr"])}
    second = trainings("small", 0.0, device=device)
    second.model.load_state_dict(first.model.state_dict())
    second.resume(state, half)
    assert np.allclose([float(second.step()) for _ in range(half)], expected[half:], rtol=rtol)
    if device == "cpu":
        assert all(isinstance(group["lr"], float) for group in second.optimizer.param_groups)
