"""Classical augmentation of log-mel batches: the baseline that synthetic clips have to beat.

Each function takes features [batch, n_mels, n_frames] in dB, on any device, and a random generator on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from usk.errors import UsageError

MIXUP_ALPHA = 0.2


def shift(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Roll each clip in time by a random number of frames."""
    n, n_mels, n_frames = batch.shape
    shifts = torch.randint(n_frames, (n,), generator=rng)
    index = (torch.arange(n_frames)[None, :] - shifts[:, None]) % n_frames
    return batch.gather(2, index[:, None, :].expand(-1, n_mels, -1).to(batch.device))


def cropped_frames(n_frames: int) -> int:
    """Return the number of frames that `crop` keeps."""
    return (n_frames + 1) // 2


def crop(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Keep half of each clip's frames, starting at a random frame. This also halves the work."""
    n, n_mels, n_frames = batch.shape
    kept = cropped_frames(n_frames)
    begins = torch.randint(n_frames - kept + 1, (n,), generator=rng)
    index = begins[:, None] + torch.arange(kept)[None, :]
    return batch.gather(2, index[:, None, :].expand(-1, n_mels, -1).to(batch.device))


def gain(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Make each clip louder or softer by up to 6 dB."""
    gains_db = torch.rand(len(batch), generator=rng) * 12 - 6
    return batch + gains_db[:, None, None].to(batch)


def equalize(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Apply a random equalizer to each clip, as another microphone or room would.

    The edges of 3 to 6 regions of bands get gains of up to 6 dB, with linear interpolation between them. This is linear
    FilterAugment (Nam et al., arXiv 2110.03282).
    """
    n, n_mels, _ = batch.shape
    n_inner = torch.randint(2, 6, (n, 1), generator=rng)
    inner = torch.randint(1, n_mels - 1, (n, 5), generator=rng)
    gains_db = torch.rand(n, 7, generator=rng) * 12 - 6
    inner = torch.where(torch.arange(5) < n_inner, inner, n_mels - 1).sort(dim=1).values
    knots = torch.cat((torch.zeros(n, 1), inner, torch.full((n, 1), n_mels - 1.0)), dim=1)  # [clips, 7]
    bands = torch.arange(n_mels).expand(n, -1)
    # The knot at or below each band; of the last ones, which all lie at the top, the first
    left = torch.minimum((knots[:, None, 1:-1] <= bands[:, :, None]).sum(dim=2), n_inner)
    below, above = knots.gather(1, left), knots.gather(1, left + 1)
    share = ((bands - below) / (above - below).clamp_min(1)).clamp(0, 1)
    curve_db = (1 - share) * gains_db.gather(1, left) + share * gains_db.gather(1, left + 1)
    return batch + curve_db[:, :, None].to(batch)


def mask(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Fill up to an eighth of the bands and up to a fifth of the frames with the clip's mean.

    Each clip gets one mask of either kind, as in SpecAugment (Park et al., arXiv 1904.08779).
    """
    n, n_mels, n_frames = batch.shape
    widths = (torch.rand(2, n, generator=rng) * torch.tensor([[n_mels / 8], [n_frames / 5]])).long()
    places = (torch.rand(2, n, generator=rng) * (torch.tensor([[n_mels], [n_frames]]) - widths)).long()
    frames, bands = torch.arange(n_frames), torch.arange(n_mels)
    in_bands = (bands >= places[0][:, None]) & (bands < (places[0] + widths[0])[:, None])
    in_frames = (frames >= places[1][:, None]) & (frames < (places[1] + widths[1])[:, None])
    masked = (in_bands[:, :, None] | in_frames[:, None, :]).to(batch.device)
    return torch.where(masked, batch.mean(dim=(1, 2), keepdim=True), batch)


def stretch(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Play each clip up to 25 % faster or slower, interpolating frames. A faster clip then starts again."""
    n, n_mels, n_frames = batch.shape
    rates = torch.exp((torch.rand(n, generator=rng) * 2 - 1) * math.log(1.25))
    at = (torch.arange(n_frames)[None, :] * rates[:, None]) % n_frames
    before = at.long()
    share = (at - before)[:, None, :].to(batch)

    def frames(index: torch.Tensor) -> torch.Tensor:
        return batch.gather(2, (index % n_frames)[:, None, :].expand(-1, n_mels, -1).to(batch.device))

    return (1 - share) * frames(before) + share * frames(before + 1)


def pitch(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Move each clip up or down by up to two mel bands, repeating the band at the edge: a small pitch shift."""
    n, n_mels, n_frames = batch.shape
    steps = torch.randint(-2, 3, (n,), generator=rng)
    index = (torch.arange(n_mels)[None, :] - steps[:, None]).clamp(0, n_mels - 1)
    return batch.gather(1, index[:, :, None].expand(-1, -1, n_frames).to(batch.device))


def noise(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Add noise of equal power in all mel bands, 10 to 40 dB below the clip's mean power."""
    below_db = 10 + 30 * torch.rand(len(batch), generator=rng)
    if batch.device.type != rng.device.type:  # draw the large noise tensor on the batch's own device
        rng = torch.Generator(batch.device).manual_seed(int(torch.randint(2**62, (1,), generator=rng)))
    spread = torch.empty_like(batch).exponential_(generator=rng)  # power of Gaussian noise
    nats_per_db = math.log(10) / 10
    power = torch.exp(batch * nats_per_db)
    floor = power.mean(dim=(1, 2)) * torch.exp(-below_db.to(batch) * nats_per_db)
    return torch.addcmul(power, floor[:, None, None], spread).log() / nats_per_db


CROP = "crop"  # changes the number of frames: only for networks that accept any number
NEED_DECIBELS = ("filter", "gain", "noise")  # the features of a transformer may have another unit
NEED_BANDS = ("pitch",)  # a waveform has none
# In the order in which they are applied.
AUGMENTATIONS: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "stretch": stretch,
    "pitch": pitch,
    "shift": shift,
    CROP: crop,
    "filter": equalize,
    "gain": gain,
    "noise": noise,
    "mask": mask,
}
MIXUP = "mixup"
PRESETS = {
    "none": (),
    "basic": ("shift", CROP, "filter", "gain", "mask"),
    "strong": ("stretch", "pitch", "shift", CROP, "filter", "gain", "noise", "mask", MIXUP),
}


def augmentations_named(text: str) -> tuple[str, ...]:
    """Return the augmentations in `text` (presets and single ones, joined by `+`) in the order in which they are applied.

    Raises UsageError for an unknown name.
    """
    wanted: set[str] = set()
    for name in text.split("+"):
        if name in PRESETS:
            wanted |= set(PRESETS[name])
        elif name in (*AUGMENTATIONS, MIXUP):
            wanted.add(name)
        else:
            known = ", ".join((*PRESETS, *AUGMENTATIONS))
            raise UsageError(
                "is not known",
                field="augment",
                value=text or repr(text),
                hint=f"Choose auto, {known} or {MIXUP}, or join some with +.",
            )
    return tuple(name for name in (*AUGMENTATIONS, MIXUP) if name in wanted)


def augment_name(text: str) -> str:
    """Return `text` without repetitions: `none+shift+shift` is `shift`, `basic+gain` is `basic`."""
    chosen = augmentations_named(text)
    for preset, members in PRESETS.items():
        if chosen == members:
            return preset
    names = list(dict.fromkeys(text.split("+")))
    in_presets = {member for name in names for member in PRESETS.get(name, ())}
    return "+".join(name for name in names if name != "none" and name not in in_presets)


@dataclass(frozen=True)
class Augmented:
    """An augmented batch and its mixup: clip i contains a share `shares[i]` of clip `partners[i]`."""

    batch: torch.Tensor
    partners: torch.Tensor | None = None  # [batch]; None without mixup
    shares: torch.Tensor | None = None  # [batch]; None without mixup

    def loss(
        self,
        clip_losses: Callable[[torch.Tensor], torch.Tensor],
        labels: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the mean loss, weighted by `weights` [batch]. `clip_losses` maps labels [batch] to losses [batch]."""
        if weights is None:
            weights = torch.ones_like(labels, dtype=torch.float32)
        if self.partners is None or self.shares is None:
            return (weights * clip_losses(labels)).sum() / weights.sum()
        own = (1 - self.shares) * weights
        partner = self.shares * weights[self.partners]
        losses = own * clip_losses(labels) + partner * clip_losses(labels[self.partners])
        return losses.sum() / (own + partner).sum()


def augment_batch(
    batch: torch.Tensor, names: tuple[str, ...], rng: torch.Generator, sounding: int | None = None
) -> Augmented:
    """Apply the augmentations `names` in order. `crop` halves the frames.

    `mixup` (Zhang et al., arXiv 1710.09412) mixes each clip with another clip of the batch. The other's share is drawn
    from Beta(0.2, 0.2) and is at most one half. Frames from `sounding` on are padding and stay as they are.
    """
    padding = None
    if sounding is not None and sounding < batch.shape[-1]:
        batch, padding = batch[..., :sounding], batch[..., sounding:]
    for name in names:
        if name != MIXUP:
            batch = AUGMENTATIONS[name](batch, rng)
    if padding is not None:
        batch = torch.cat((batch, padding), dim=-1)
    if MIXUP not in names:
        return Augmented(batch)
    partners = torch.randperm(len(batch), generator=rng).to(batch.device)
    # A Beta variable is a ratio of Gamma variables. Only this private function draws them from a given generator.
    gammas = torch._standard_gamma(torch.full((2, len(batch)), MIXUP_ALPHA), generator=rng)
    shares = (gammas[0] / gammas.sum(dim=0).clamp_min(1e-30)).nan_to_num(0.0)
    shares = torch.minimum(shares, 1 - shares).to(batch)
    mixed = batch + shares[:, None, None] * (batch[partners] - batch)
    return Augmented(mixed, partners, shares)
