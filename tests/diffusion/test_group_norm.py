"""Group normalisation with the faster gradient: torch's figures, the same parameters, and nothing else changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from usk.diffusion import group_norm
from usk.diffusion.group_norm import GroupNorm, with_fast_gradients


def results(norm: nn.GroupNorm, images: Tensor, gradient: Tensor) -> list[Tensor]:
    """Output, and the gradients of images, weight and bias, in fp32."""
    images = images.detach().requires_grad_()
    out = norm(images)
    grads = torch.autograd.grad(out, (images, *norm.parameters()), gradient)
    assert out.dtype == images.dtype == grads[0].dtype
    return [found.float() for found in (out, *grads)]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 3),
    groups=st.integers(1, 4),
    width=st.integers(1, 7),
    size=st.tuples(st.integers(2, 9), st.integers(3, 9)),
    offset=st.floats(-3, 3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_the_gradient_is_that_of_torch(
    n: int, groups: int, width: int, size: tuple[int, int], offset: float, dtype: torch.dtype, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    channels = groups * width
    norm = GroupNorm(groups, channels)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.5 * drawn(channels))
        norm.bias.copy_(drawn(channels))
    images = (offset + drawn(n, channels, *size)).to(dtype).contiguous(memory_format=torch.channels_last)
    gradient = drawn(n, channels, *size).to(dtype).contiguous(memory_format=torch.channels_last)
    plain = nn.GroupNorm(groups, channels)
    plain.load_state_dict(norm.state_dict())
    # What is exact: torch's own in fp32 of the same numbers. Its bf16 is off by its own rounding.
    exact = results(plain, images.float(), gradient.float())
    for found, expected in zip(results(norm, images, gradient), exact, strict=True):
        error = (found - expected).norm() / (expected.norm() + 0.1 * gradient.float().norm())
        assert error < (1e-4 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize(
    ("dtype", "channels", "last", "graded", "own"),
    [
        (torch.bfloat16, 32, True, True, True),
        (torch.bfloat16, 128, True, True, False),  # 16 a group: torch is fast
        (torch.float32, 32, True, True, True),
        (torch.float32, 64, True, True, False),
        (torch.float32, 32, False, True, False),
        (torch.float32, 32, True, False, False),
    ],
)
def test_it_is_taken_where_torch_is_slow_alone(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, channels: int, last: bool, graded: bool, own: bool
) -> None:
    taken: list[Any] = []
    apply = group_norm._ChannelsLast.apply
    monkeypatch.setattr(
        group_norm._ChannelsLast, "apply", lambda *given: taken.append(given) or apply(*given)
    )
    layout = torch.channels_last if last else torch.contiguous_format
    images = torch.randn(2, channels, 4, 6).to(dtype).contiguous(memory_format=layout)
    with torch.set_grad_enabled(graded):
        GroupNorm(8, channels)(images)
    assert bool(taken) == own


def test_a_network_keeps_its_parameters_and_their_names() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.GroupNorm(4, 8), nn.ModuleDict({"norm": nn.GroupNorm(2, 8)})
    )
    network.eval()
    before, state = list(network.parameters()), list(network.state_dict())
    with_fast_gradients(network)
    assert [type(module) for module in network.modules()].count(GroupNorm) == 2
    assert all(ours is theirs for ours, theirs in zip(network.parameters(), before, strict=True))
    assert list(network.state_dict()) == state and not any(module.training for module in network.modules())
