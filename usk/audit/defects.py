"""Defects that a listener would notice: very quiet, clipped and very short clips, and those that cannot be used at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usk.data.decode import DecodedSource, peak_level
from usk.data.source import Source

QUIET_PEAK = 10 ** (-60 / 20)  # of full scale; what is silent (usk.data.decode) cannot be used at all
CLIPPED_AT = 0.999
CLIPPED_SHARE = 0.001  # of a clip's samples
SHORT_S = 0.1


@dataclass(frozen=True)
class Defects:
    """Clip ids by what is wrong with them."""

    unusable: tuple[str, ...]  # cannot be decoded, hold NaN, or are silent or far too short
    quiet: tuple[str, ...]  # but not silent
    clipped: tuple[str, ...]
    short: tuple[str, ...]


def find_defects(source: Source, decoded: DecodedSource) -> Defects:
    """`decoded` are the clips of `source` that can be used."""
    quiet, clipped, short = [], [], []
    for row, clip in enumerate(decoded.source.clips):
        samples = decoded.audio(row)
        loudness = np.abs(samples)
        if peak_level(samples) < QUIET_PEAK:
            quiet.append(clip.clip_id)
        elif (loudness >= CLIPPED_AT).mean() > CLIPPED_SHARE:
            clipped.append(clip.clip_id)
        if len(loudness) < SHORT_S * decoded.sample_rate_hz:
            short.append(clip.clip_id)
    usable = {clip.clip_id for clip in decoded.source.clips}
    unusable = tuple(clip.clip_id for clip in source.clips if clip.clip_id not in usable)
    return Defects(unusable, tuple(quiet), tuple(clipped), tuple(short))
