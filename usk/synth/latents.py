"""Encode each parent once for each length of its clips, and store its latents in the work folder until the dataset is finished.

Parents are numbered by first use and encoded in fixed groups. A group is one file of records, each with a checksum and the
latents of one parent. A batch reads only the records of its own parents. If a record is damaged, its group is encoded again.
"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from usk.audio.mel import stack_padded
from usk.data.decode import beginning
from usk.data.prompts import text_of_parents
from usk.device import to_device
from usk.diffusion.generator import Condition
from usk.errors import disk_errors
from usk.files import atomic_write, creation_lock

if TYPE_CHECKING:
    from usk.synth.render import DiffusionRenderer

MAX_STORED_BYTES = 8 * 2**30  # of one dataset

Group = tuple[int, int]
"""The length of the parents' audio in samples (their crop), and the group's number among those of this length."""


class ParentLatents:
    """The latents of a plan's parents, each encoded for every crop of its clips.

    Groups are stored in order of first use, up to `MAX_STORED_BYTES`. The parents of the other groups are encoded for every batch
    that needs them.
    """

    def __init__(
        self,
        renderer: DiffusionRenderer,
        rows_of_crop: Mapping[int, Iterable[int]],
        work: Path,
        prompts: Mapping[str, Sequence[str]],
    ) -> None:
        """`rows_of_crop` has the parents' rows in the decoded source, by the length of the crop, in order of first use."""
        self.decoded, self.generator, self.config = renderer.decoded, renderer.generator, renderer.config
        self.strategy, self.chunks = renderer.strategy, renderer.chunks
        self.work, self.prompts, self.batch = work, prompts, renderer.batch
        self.groups: dict[Group, list[int]] = {}
        self.group_of: dict[tuple[int, int], Group] = {}  # by crop and row
        self.stored: set[Group] = set()
        free_bytes = MAX_STORED_BYTES
        for crop, rows in ((crop, list(rows)) for crop, rows in rows_of_crop.items()):
            for begin in range(0, len(rows), self.batch):
                group, members = (crop, begin // self.batch), rows[begin : begin + self.batch]
                self.groups[group] = members
                self.group_of |= dict.fromkeys(((crop, row) for row in members), group)
                free_bytes -= len(members) * self._record_type(crop).itemsize
                if free_bytes >= 0:
                    self.stored.add(group)

    def get(self, rows: Sequence[int], crop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the noisy and the clean latents of parents for `crop` samples of audio: each [len(rows), *latent shape].

        They are on the generator's device.
        """
        to_read: dict[Group, list[int]] = defaultdict(list)
        to_encode: list[int] = []
        for row in dict.fromkeys(rows):
            group = self.group_of[crop, row]
            (to_read[group] if group in self.stored else to_encode).append(row)
        latents = [(some, self._read(group, some)) for group, some in sorted(to_read.items())]
        if to_encode:
            latents.append((to_encode, self._encode(crop, to_encode)))
        found: dict[int, torch.Tensor] = {}
        for some, encoded in latents:
            found.update(zip(some, torch.from_numpy(encoded), strict=True))
        both = to_device(torch.stack([found[row] for row in rows]), self.generator.device)
        return both[:, 0], both[:, -1]

    def audio(self, rows: Sequence[int], n_samples: int) -> torch.Tensor:
        """Return the parents' audio [len(rows), n_samples], repeated or padded with silence."""
        clips = [beginning(self.decoded.audio(row), self.generator.longest_samples) for row in rows]
        if self.config.repeat_short:
            clips = [np.resize(clip, n_samples) if len(clip) < n_samples else clip for clip in clips]
        return stack_padded(clips, n_samples)

    def _record_type(self, crop: int) -> np.dtype:
        """Return the type of a parent's record. Its latents are noisy and clean, or clean alone if nothing is inverted."""
        shape = (1 + self.strategy.inverts, *self.generator.latent_shape(crop))
        return np.dtype([("crc32", "<u4"), ("latents", "<f4", shape)])

    def _checksum(self, row: int, latents: np.ndarray) -> int:
        """Return the checksum of a parent's latents, which differs for another parent."""
        return zlib.crc32(latents.data, zlib.crc32(self.decoded.source.clips[row].identity.encode()))

    def _read(self, group: Group, rows: Sequence[int]) -> np.ndarray:
        """Return the latents [len(rows), 1 or 2, *latent shape] of parents of one group, and encode the group if necessary."""
        crop, number = group
        file = self.work / f"latents-{self.config.strategy}-{crop}x{self.batch}-{number:05d}.bin"
        latents = self._read_records(file, group, rows)
        if latents is not None:
            return latents
        with disk_errors(self.work.parent), creation_lock(file):  # one process encodes the group
            latents = self._read_records(file, group, rows)
            if latents is None:
                members = self.groups[group]
                encoded = self._encode(crop, members)
                records = np.zeros(len(members), self._record_type(crop))
                records["latents"] = encoded
                records["crc32"] = [self._checksum(*one) for one in zip(members, encoded, strict=True)]
                atomic_write(file, records.view(np.uint8).data, durable=False)
                latents = encoded[[members.index(row) for row in rows]]
        return latents

    def _read_records(self, file: Path, group: Group, rows: Sequence[int]) -> np.ndarray | None:
        """Read latents from a file. Return None if it is missing, damaged or of other parents."""
        record_type, members = self._record_type(group[0]), self.groups[group]
        latents = np.empty((len(rows), *record_type["latents"].shape), np.float32)
        try:
            with file.open("rb", buffering=0) as opened:
                if os.fstat(opened.fileno()).st_size != len(members) * record_type.itemsize:
                    return None
                for one, row in zip(latents, rows, strict=True):
                    opened.seek(members.index(row) * record_type.itemsize)
                    checksum = int.from_bytes(opened.read(4), "little")
                    n_read = opened.readinto(one.data.cast("B"))
                    if n_read != one.nbytes or self._checksum(row, one) != checksum:
                        return None
        except OSError:
            return None
        return latents

    def _encode(self, crop: int, rows: Sequence[int]) -> np.ndarray:
        """Encode parents to latents [len(rows), 1 or 2, *latent shape]: noisy if the strategy inverts, then clean."""
        generator, config = self.generator, self.config
        audio = self.audio(rows, crop)
        texts: list[str] = []
        if config.condition_on_class:
            texts = [text_of_parents(self.prompts, self.decoded.class_name(row)) for row in rows]

        def encode(chunk: slice) -> torch.Tensor:
            clean = generator.encode(audio[chunk])
            if not self.strategy.inverts:
                return clean[:, None].cpu()
            condition = Condition(texts[chunk], parents=audio[None, chunk])
            return torch.stack((generator.invert(clean, config.sampler, condition), clean), dim=1).cpu()

        return np.ascontiguousarray(torch.cat(self.chunks.run(len(rows), encode)).numpy(), np.float32)
