"""Mixing two latents."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usk.diffusion.interpolate import (
    Scales,
    decomposed,
    lerp,
    noise_part,
    slerp,
    with_noise,
)
from usk.diffusion.weights import quiet_libraries

SHAPE = (1, 8, 10)
weights = st.floats(0, 1, width=32, allow_subnormal=False)  # libraries may have switched those off
seeds = st.integers(0, 2**31)
scales = st.floats(0.1, 10)


def latent(seed: int, scale: float = 1.0, n: int = 1) -> torch.Tensor:
    return scale * torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def weight(value: float, n: int = 1) -> torch.Tensor:
    return torch.full((n,), value)


def norm(latents: torch.Tensor) -> torch.Tensor:
    return latents.flatten(1).norm(dim=1)


PAIRS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {  # all of the first one's norm
    name: lambda first, way=way: way(first) * norm(first) / norm(way(first))
    for name, way in {
        "identical": lambda first: first,
        "nearly identical": lambda first: first + 1e-6 * latent(99),
        "close": lambda first: first + 1e-2 * latent(99),
        "almost opposite": lambda first: -first + 1e-2 * latent(99),
        "independent": lambda first: latent(99),
    }.items()
}
each_pair = pytest.mark.parametrize("second_of", PAIRS.values(), ids=PAIRS.keys())


@each_pair
@given(seed=seeds, scale=scales)
@pytest.mark.parametrize("mix", [slerp, lerp])
def test_end_points_are_the_parents(mix: Callable, second_of: Callable, seed: int, scale: float) -> None:
    first = latent(seed, scale)
    second = second_of(first)
    torch.testing.assert_close(mix(first, second, weight(0)), first, atol=2e-3 * scale, rtol=0)
    torch.testing.assert_close(mix(first, second, weight(1)), second, atol=2e-3 * scale, rtol=0)


@each_pair
@given(seed=seeds, alpha=weights, scale=scales)
def test_slerp_is_symmetric_and_finite_and_keeps_the_norm(
    second_of: Callable, seed: int, alpha: float, scale: float
) -> None:
    for scaled in (1.0, scale):
        first = latent(seed, scaled)
        second = second_of(first)
        mixed, back = slerp(first, second, weight(alpha)), slerp(second, first, 1 - weight(alpha))
        assert torch.isfinite(mixed).all()
        assert float(norm(mixed) / norm(first)) == pytest.approx(1, abs=5e-3)
        torch.testing.assert_close(mixed, back, atol=2e-3 * scaled, rtol=0)


@given(seed=seeds)
def test_slerp_moves_at_an_even_pace(seed: int) -> None:
    first = latent(seed)
    second = latent(seed + 1) * norm(first) / norm(latent(seed + 1))
    path = torch.cat([slerp(first, second, weight(alpha)) for alpha in (0, 0.25, 0.5, 0.75, 1)])
    steps = norm(path[1:] - path[:-1])
    assert float(steps.max() / steps.min()) == pytest.approx(1, abs=1e-4)


@given(seed=seeds, alpha=weights)
def test_slerp_equals_audiodiffusions_where_that_is_defined(seed: int, alpha: float) -> None:
    with quiet_libraries():
        from audiodiffusion.pipeline_audio_diffusion import AudioDiffusionPipeline

    first, second = latent(seed), latent(seed + 1, 1.7)
    theirs = AudioDiffusionPipeline.slerp(first, second, alpha)
    torch.testing.assert_close(slerp(first, second, weight(alpha)), theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mix", [slerp, lerp])
def test_each_clip_of_a_batch_has_its_own_angle_and_weight(mix: Callable) -> None:
    first = latent(1, n=len(PAIRS))
    second = torch.cat([second_of(row[None]) for row, second_of in zip(first, PAIRS.values(), strict=True)])
    alpha = torch.linspace(0, 1, len(PAIRS))
    together = mix(first, second, alpha)
    for row in range(len(PAIRS)):
        one = slice(row, row + 1)
        torch.testing.assert_close(
            together[one], mix(first[one], second[one], alpha[one]), atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("mix", [slerp, lerp])
@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
def test_empty_and_opposite_latents_stay_finite_and_halves_half(mix: Callable, a: float, b: float) -> None:
    assert torch.isfinite(mix(a * latent(1), b * latent(2), weight(0.5))).all()
    assert torch.isfinite(mix(latent(1), -latent(1), weight(0.5))).all()
    assert slerp(latent(1).half(), latent(2).half(), weight(0.5)).dtype == torch.float16


@given(seed=seeds, signal=st.floats(0, 1, allow_subnormal=False))
def test_decomposed_ends_at_the_parents(seed: int, signal: float) -> None:
    clean = latent(seed), latent(seed + 1)
    noise = latent(seed + 2), latent(seed + 3)
    spread = (1 - signal) ** 0.5
    first, second = (signal**0.5 * x + spread * e for x, e in zip(clean, noise, strict=True))
    for alpha, end in ((0, first), (1, second)):
        mixed = decomposed(first, second, weight(alpha), *clean, Scales(signal**0.5, spread))
        torch.testing.assert_close(mixed, end, atol=1e-3, rtol=1e-3)


@given(seed=seeds, alpha=weights)
def test_decomposed_mixes_signal_evenly_and_keeps_the_noise(seed: int, alpha: float) -> None:
    signal, (a, b), (e, f) = 0.3, (latent(seed), latent(seed + 1)), (latent(seed + 2), latent(seed + 3))
    parents = [signal**0.5 * x + (1 - signal) ** 0.5 * noise for x, noise in ((a, e), (b, f))]
    mixed = decomposed(*parents, weight(alpha), a, b, Scales(signal**0.5, (1 - signal) ** 0.5))
    rest = (mixed - signal**0.5 * lerp(a, b, weight(alpha))) / (1 - signal) ** 0.5
    torch.testing.assert_close(rest, slerp(e, f, weight(alpha)), atol=1e-4, rtol=1e-3)


@given(seed=seeds, alpha_cumprod=st.floats(0.01, 0.99))
def test_noise_and_signal_come_apart_and_together(seed: int, alpha_cumprod: float) -> None:
    clean, noise = latent(seed), latent(seed + 1)
    scales = Scales(alpha_cumprod**0.5, (1 - alpha_cumprod) ** 0.5)
    noisy = with_noise(clean, noise, scales)
    torch.testing.assert_close(noise_part(noisy, clean, scales), noise, atol=1e-4, rtol=1e-3)
    assert torch.equal(with_noise(clean, noise, Scales(1.0, 0.0)), clean)
