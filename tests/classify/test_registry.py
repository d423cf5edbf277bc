"""The classifier presets: the published network, the shapes of the others, and their recipes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from usk.audio.features import FIRST_SECOND
from usk.classify.classifier import AudioClassifier
from usk.classify.networks import PublishedCnn, RelaxedFrequencyNorm, Standardized
from usk.classify.registry import CLASSIFIERS, preset


def test_the_published_cnn_is_three_convolutions_without_pooling_and_two_linear_layers() -> None:
    layers = [module for module in PublishedCnn(10).modules() if not list(module.children())]
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.ReLU] * 3 + [nn.Linear, nn.ReLU, nn.Linear]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(1, 64), (64, 128), (128, 256)]
    assert {(c.kernel_size, c.stride, c.dilation, c.groups) for c in convolutions} == {
        ((5, 5), (1, 1), (1, 1), 1)
    }
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(256, 256), (256, 10)]


def test_the_published_cnn_takes_power_and_averages_over_the_whole_image() -> None:
    torch.manual_seed(0)
    network = PublishedCnn(10).eval()
    power = torch.rand(2, 1, 64, 44) * 100
    with torch.no_grad():
        means = network.features(power).mean(dim=(2, 3))
        torch.testing.assert_close(network(10 * power.log10()), network.head(means))


def test_nothing_normalises_what_the_published_cnn_hears() -> None:
    recipe = preset("cnn")
    probe = torch.randn(5, 64, 44) * 20 - 40
    classifier = AudioClassifier("cnn", ["a", "b", "c"], **recipe.feature_config("abc"))
    for model in (recipe.model(3, probe), classifier):
        assert isinstance(model, Standardized)
        if isinstance(model, AudioClassifier):
            model.initialize(recipe, probe)
            assert model.feature_settings == FIRST_SECOND
        model.eval()
        with torch.no_grad():
            torch.testing.assert_close(model(probe), model.network(probe[:, None]))


def test_the_published_recipe() -> None:
    recipe = preset("cnn")
    assert (recipe.epochs, recipe.batch, recipe.learning_rate) == (50, 128, 1e-3)
    assert (recipe.weight_decay, recipe.label_smoothing) == (0, 0)
    assert (recipe.cosine, recipe.augment) == (False, "none")
    assert recipe.features.shape == (64, 44)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_takes_its_features(name: str) -> None:
    recipe = preset(name)
    model = Standardized(recipe.build(7), -40.0, 20.0).eval()
    with torch.no_grad():
        assert model(torch.full((2, *recipe.features.shape), -40.0)).shape == (2, 7)


def test_standardising_is_part_of_the_model() -> None:
    model = Standardized(nn.Identity(), -30.0, 10.0)
    assert model(torch.full((1, 2, 2), -20.0)).tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]
    assert set(model.state_dict()) == {"mean_db", "deviation_db"}


@pytest.mark.parametrize("relaxation", [0.0, 0.3, 1.0])
def test_relaxed_frequency_norm_is_a_mean_of_two_normalizations(relaxation: float) -> None:
    torch.manual_seed(0)
    images = 30 * torch.randn(3, 4, 5, 6) + torch.randn(3, 1, 5, 1) * 20 - 40
    normalized = []
    for axes in ((1, 2, 3), (1, 3)):
        variance, mean = torch.var_mean(images, dim=axes, keepdim=True, correction=0)
        normalized.append((images - mean) / (variance + 1e-5).sqrt())
    expected = (1 - relaxation) * normalized[0] + relaxation * normalized[1]
    torch.testing.assert_close(RelaxedFrequencyNorm(relaxation)(images), expected, atol=1e-5, rtol=1e-4)
