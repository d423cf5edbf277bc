"""Augmentation of log-mel batches during training: parameters drawn first, then applied."""

from __future__ import annotations

import torch

from usk.errors import UsageError

AUGMENTS = ("none", "basic")


def check_augment(name: str) -> str:
    if name not in AUGMENTS:
        raise UsageError(f"--augment {name} is not known; choose auto, {' or '.join(AUGMENTS)}")
    return name


def augment_batch(batch: torch.Tensor, name: str, draw: torch.Generator) -> torch.Tensor:
    """Augment log-mel features [batch, n_mels, n_frames] in dB.

    `basic`: a circular shift in time, a gain within +- 6 dB, and one mask each over at most an eighth of the bands
    and a fifth of the frames, filled with the clip's mean (SpecAugment, arXiv 1904.08779).
    """
    if name == "none":
        return batch
    n, n_mels, n_frames = batch.shape
    shifts = torch.randint(n_frames, (n,), generator=draw)
    gains_db = torch.rand(n, generator=draw) * 12 - 6
    widths = (torch.rand(2, n, generator=draw) * torch.tensor([[n_mels / 8], [n_frames / 5]])).long()
    places = (torch.rand(2, n, generator=draw) * (torch.tensor([[n_mels], [n_frames]]) - widths)).long()
    frames, bands = torch.arange(n_frames), torch.arange(n_mels)
    index = (frames[None, :] - shifts[:, None]) % n_frames
    shifted = batch.gather(2, index[:, None, :].expand(-1, n_mels, -1).to(batch.device))
    shifted = shifted + gains_db[:, None, None].to(batch)
    in_bands = (bands >= places[0][:, None]) & (bands < (places[0] + widths[0])[:, None])
    in_frames = (frames >= places[1][:, None]) & (frames < (places[1] + widths[1])[:, None])
    masked = (in_bands[:, :, None] | in_frames[:, None, :]).to(batch.device)
    return torch.where(masked, shifted.mean(dim=(1, 2), keepdim=True), shifted)
