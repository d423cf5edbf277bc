"""Find clips that are unusable, very quiet, clipped or very short."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usk.data.decode import DecodedSource, peak_level
from usk.data.source import Source

QUIET_PEAK = 10 ** (-60 / 20)  # -60 dB of full scale; usk.data.decode rejects clips that are silent
CLIPPED_LEVEL = 0.999
MAX_CLIPPED_FRACTION = 0.001  # of a clip's samples
MIN_LENGTH_S = 0.1


@dataclass(frozen=True)
class Defects:
    """Clip ids by defect."""

    unusable: tuple[str, ...]  # cannot be decoded, contain NaN, are silent or far too short
    quiet: tuple[str, ...]  # very quiet, but not silent
    clipped: tuple[str, ...]
    short: tuple[str, ...]


def find_defects(source: Source, decoded: DecodedSource) -> Defects:
    """Return the defects of the clips of `source`. `decoded` has those that are usable."""
    quiet, clipped, short = [], [], []
    for row, clip in enumerate(decoded.source.clips):
        samples = decoded.audio(row)
        levels = np.abs(samples)
        if peak_level(samples) < QUIET_PEAK:
            quiet.append(clip.clip_id)
        elif (levels >= CLIPPED_LEVEL).mean() > MAX_CLIPPED_FRACTION:
            clipped.append(clip.clip_id)
        if len(levels) < MIN_LENGTH_S * decoded.sample_rate_hz:
            short.append(clip.clip_id)
    usable = {clip.clip_id for clip in decoded.source.clips}
    unusable = tuple(clip.clip_id for clip in source.clips if clip.clip_id not in usable)
    return Defects(unusable, tuple(quiet), tuple(clipped), tuple(short))
