"""Classical augmentation of log-mel batches during training: what synthetic clips have to beat.

Everything works on features that are computed once, on whatever device they live. Parameters are drawn first, on the
CPU, from the run's own generator, then applied.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from usk.errors import UsageError

MIXUP_ALPHA = 0.2


def shift(batch: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Each clip rolled in time, by any number of frames."""
    n, n_mels, n_frames = batch.shape
    shifts = torch.randint(n_frames, (n,), generator=draw)
    index = (torch.arange(n_frames)[None, :] - shifts[:, None]) % n_frames
    return batch.gather(2, index[:, None, :].expand(-1, n_mels, -1).to(batch.device))


def cropped_frames(n_frames: int) -> int:
    """How many frames `crop` leaves of a clip."""
    return (n_frames + 1) // 2


def crop(batch: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Half of each clip's frames, from anywhere in it: training clips are shorter, and half the work."""
    n, n_mels, n_frames = batch.shape
    kept = cropped_frames(n_frames)
    begins = torch.randint(n_frames - kept + 1, (n,), generator=draw)
    index = begins[:, None] + torch.arange(kept)[None, :]
    return batch.gather(2, index[:, None, :].expand(-1, n_mels, -1).to(batch.device))


def gain(batch: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Louder or softer by up to 6 dB."""
    gains_db = torch.rand(len(batch), generator=draw) * 12 - 6
    return batch + gains_db[:, None, None].to(batch)


def filtered(batch: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Each clip through a random equalizer: 3 to 6 regions of bands, gains of up to 6 dB where they meet, linear between.

    FilterAugment of the linear type (Nam et al., arXiv 2110.03282): another microphone, another room.
    """
    n, n_mels, _ = batch.shape
    n_inner = torch.randint(2, 6, (n, 1), generator=draw)
    inner = torch.randint(1, n_mels - 1, (n, 5), generator=draw)
    gains_db = torch.rand(n, 7, generator=draw) * 12 - 6
    inner = torch.where(torch.arange(5) < n_inner, inner, n_mels - 1).sort(dim=1).values
    knots = torch.cat((torch.zeros(n, 1), inner, torch.full((n, 1), n_mels - 1.0)), dim=1)  # [clips, 7]
    bands = torch.arange(n_mels).expand(n, -1)
    left = (knots[:, None, 1:-1] <= bands[:, :, None]).sum(dim=2)  # the knot at or below each band
    below, above = knots.gather(1, left), knots.gather(1, left + 1)
    share = ((bands - below) / (above - below).clamp_min(1)).clamp(0, 1)
    curve_db = (1 - share) * gains_db.gather(1, left) + share * gains_db.gather(1, left + 1)
    return batch + curve_db[:, :, None].to(batch)


def mask(batch: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """One mask each over at most an eighth of the bands and a fifth of the frames, filled with the clip's mean.

    SpecAugment (Park et al., arXiv 1904.08779).
    """
    n, n_mels, n_frames = batch.shape
    widths = (torch.rand(2, n, generator=draw) * torch.tensor([[n_mels / 8], [n_frames / 5]])).long()
    places = (torch.rand(2, n, generator=draw) * (torch.tensor([[n_mels], [n_frames]]) - widths)).long()
    frames, bands = torch.arange(n_frames), torch.arange(n_mels)
    in_bands = (bands >= places[0][:, None]) & (bands < (places[0] + widths[0])[:, None])
    in_frames = (frames >= places[1][:, None]) & (frames < (places[1] + widths[1])[:, None])
    masked = (in_bands[:, :, None] | in_frames[:, None, :]).to(batch.device)
    return torch.where(masked, batch.mean(dim=(1, 2), keepdim=True), batch)


def stretch(batch: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Faster or slower by up to a quarter, frames interpolated; what runs out begins again."""
    n, n_mels, n_frames = batch.shape
    rates = torch.exp((torch.rand(n, generator=draw) * 2 - 1) * math.log(1.25))
    at = (torch.arange(n_frames)[None, :] * rates[:, None]) % n_frames
    before = at.long()
    share = (at - before)[:, None, :].to(batch)

    def frames(index: torch.Tensor) -> torch.Tensor:
        return batch.gather(2, (index % n_frames)[:, None, :].expand(-1, n_mels, -1).to(batch.device))

    return (1 - share) * frames(before) + share * frames(before + 1)


def pitch(batch: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Higher or lower by up to two mel bands, the band at the edge repeated: a small pitch shift, formants and all."""
    n, n_mels, n_frames = batch.shape
    steps = torch.randint(-2, 3, (n,), generator=draw)
    index = (torch.arange(n_mels)[None, :] - steps[:, None]).clamp(0, n_mels - 1)
    return batch.gather(1, index[:, :, None].expand(-1, -1, n_frames).to(batch.device))


def noise(batch: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """White in the mel bands, 10 to 40 dB below the clip's mean power, added as power."""
    below_db = 10 + 30 * torch.rand(len(batch), generator=draw)
    if batch.device.type != draw.device.type:  # large draws are made where they are needed
        draw = torch.Generator(batch.device).manual_seed(int(torch.randint(2**62, (1,), generator=draw)))
    spread = torch.empty_like(batch).exponential_(generator=draw)  # power of Gaussian noise
    nats_a_db = math.log(10) / 10
    power = torch.exp(batch * nats_a_db)
    floor = power.mean(dim=(1, 2)) * torch.exp(-below_db.to(batch) * nats_a_db)
    return torch.addcmul(power, floor[:, None, None], spread).log() / nats_a_db


CROP = "crop"  # the one that changes the shape: for networks that take any number of frames
AUGMENTATIONS: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "stretch": stretch,
    "pitch": pitch,
    "shift": shift,
    CROP: crop,
    "filter": filtered,
    "gain": gain,
    "noise": noise,
    "mask": mask,
}
MIXUP = "mixup"
PRESETS = {
    "none": (),
    "basic": ("shift", CROP, "filter", "gain", "mask"),
    "strong": (*AUGMENTATIONS, MIXUP),
}


def augmentations_named(text: str) -> tuple[str, ...]:
    """`basic`, `strong`, single names, or several joined by `+`, in the order in which they are applied.

    Raises UsageError for a name that is not known.
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
    """The name of what `text` asks for, without what is said twice: `none+shift+shift` is `shift`, `basic+gain` is `basic`."""
    asked = augmentations_named(text)
    for preset, members in PRESETS.items():
        if asked == members:
            return preset
    names = list(dict.fromkeys(text.split("+")))
    covered = {member for name in names for member in PRESETS.get(name, ())}
    return "+".join(name for name in names if name != "none" and name not in covered)


@dataclass(frozen=True)
class Augmented:
    """A batch, and what each of its clips was mixed with: the batch's clip `partners` [batch], of which it holds `shares`
    [batch]; None without mixup."""

    batch: torch.Tensor
    partners: torch.Tensor | None = None
    shares: torch.Tensor | None = None

    def loss(
        self,
        losses_of: Callable[[torch.Tensor], torch.Tensor],
        labels: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The mean loss; `losses_of` gives one a clip [batch] for labels [batch], and `weights` [batch] what each clip counts."""
        counts = torch.ones_like(labels, dtype=torch.float32) if weights is None else weights
        if self.partners is None or self.shares is None:
            return (counts * losses_of(labels)).sum() / counts.sum()
        own, others = (1 - self.shares) * counts, self.shares * counts[self.partners]
        of_both = own * losses_of(labels) + others * losses_of(labels[self.partners])
        return of_both.sum() / (own + others).sum()


def augment_batch(
    batch: torch.Tensor, names: tuple[str, ...], draw: torch.Generator, sounding: int | None = None
) -> Augmented:
    """Augment log-mel features [batch, n_mels, n_frames] in dB by what `augmentations_named` gave; `crop` halves the frames.

    Only the first `sounding` frames hold sound, where that is not None: the padding behind them stays what and where it is.

    `mixup` (Zhang et al., arXiv 1710.09412) adds to each clip a share, drawn from Beta(0.2, 0.2) and at most one half, of
    another of the batch.
    """
    padding = None
    if sounding is not None and sounding < batch.shape[-1]:
        batch, padding = batch[..., :sounding], batch[..., sounding:]
    for name in names:
        if name != MIXUP:
            batch = AUGMENTATIONS[name](batch, draw)
    if padding is not None:
        batch = torch.cat((batch, padding), dim=-1)
    if MIXUP not in names:
        return Augmented(batch)
    partners = torch.randperm(len(batch), generator=draw).to(batch.device)
    # A Beta variable is a ratio of Gamma ones; torch draws those from a given generator only so.
    gammas = torch._standard_gamma(torch.full((2, len(batch)), MIXUP_ALPHA), generator=draw)
    shares = (gammas[0] / gammas.sum(dim=0).clamp_min(1e-30)).nan_to_num(0.0)
    shares = torch.minimum(shares, 1 - shares).to(batch)
    mixed = batch + shares[:, None, None] * (batch[partners] - batch)
    return Augmented(mixed, partners, shares)
