"""Parents' latents: each parent encoded once, whoever renders, and kept beside the plan until the dataset is finished.

Parents are numbered by first use and encoded in fixed groups, each a file of records: a checksum and the latents of one parent.
A batch reads the records of its own parents and no others. A record that is not as it was written has its group encoded again.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from usk.audio.mel import stack_padded
from usk.data.decode import beginning
from usk.data.prompts import text_of_parents
from usk.device import free_device_bytes, to_device
from usk.diffusion.generator import Condition
from usk.errors import disk_errors
from usk.files import atomic_write, creation_lock

if TYPE_CHECKING:
    from usk.synth.render import DiffusionRenderer

ON_DISK_BYTES = 8 * 2**30  # of one dataset


class ParentLatents:
    """The latents of a plan's parents, each encoded as long as the longest crop of its clips.

    Groups are kept on disk in order of first use, until they would take more than `ON_DISK_BYTES`. Parents of the groups after
    that are encoded with every batch that needs them: at most as often as they have clips. A CUDA device keeps what it was given
    of them in an eighth of its free memory.
    """

    def __init__(
        self,
        renderer: DiffusionRenderer,
        rows_of_crop: dict[int, list[int]],
        work: Path,
        prompts: Mapping[str, Sequence[str]],
    ) -> None:
        """`rows_of_crop`: the parents' rows in what `renderer` draws from, by the length of their crop in samples, in order of first
        use."""
        self.decoded, self.generator, self.config = renderer.decoded, renderer.generator, renderer.config
        self.strategy, self.pieces = renderer.strategy, renderer.pieces
        self.rows_of_crop, self.work, self.prompts = rows_of_crop, work, prompts
        self.batch = batch = renderer.batch
        self.group_of: dict[int, tuple[int, int]] = {}
        self.groups: dict[tuple[int, int], list[int]] = {}  # rows by crop and number
        self.kept: set[tuple[int, int]] = set()
        self._whole: set[int] = set()  # rows whose record was found as it was written
        # By row and crop, the longest unused first
        self._near: OrderedDict[tuple[int, int], torch.Tensor] = OrderedDict()
        device = self.generator.device
        self.near_bytes = free_device_bytes(device) / 8 if device.type == "cuda" else 0.0
        left = ON_DISK_BYTES
        for crop, rows in rows_of_crop.items():
            for begin in range(0, len(rows), batch):
                group, some = (crop, begin // batch), rows[begin : begin + batch]
                self.groups[group] = some
                self.group_of.update(dict.fromkeys(some, group))
                left -= len(some) * self._record(crop).itemsize
                if left >= 0:
                    self.kept.add(group)

    def __call__(self, rows: Sequence[int], crop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(noisy, clean) latents of the parents at `rows`, cut to a crop of so many samples: each [len(rows), *latent
        shape] on the device."""
        missing = [row for row in dict.fromkeys(rows) if (row, crop) not in self._near]
        if missing:
            near = to_device(self._cut(missing, crop), self.generator.device)
            self._near |= {(row, crop): one for row, one in zip(missing, near, strict=True)}
        for row in rows:
            self._near.move_to_end((row, crop))
        both = torch.stack([self._near[row, crop] for row in rows])
        while self._near and sum(one.nbytes for one in self._near.values()) > self.near_bytes:
            self._near.popitem(last=False)
        return both[:, 0], both[:, -1]

    def _cut(self, rows: Sequence[int], crop: int) -> torch.Tensor:
        """Latents [len(rows), 1 or 2, *latent shape] of parents, from the disk or encoded."""
        of_group: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row in rows:
            group = self.group_of[row]
            of_group[group if group in self.kept else (group[0], -1)].append(row)
        found: dict[int, torch.Tensor] = {}
        for (of_crop, number), some in sorted(of_group.items()):
            latents = self._encode(of_crop, some) if number < 0 else self._read((of_crop, number), some)
            found.update(zip(some, self.generator.cut(torch.from_numpy(latents), crop), strict=True))
        return torch.stack([found[row] for row in rows])

    def audio(self, rows: Sequence[int], n_samples: int) -> torch.Tensor:
        """The parents at `rows`, each `n_samples` long: [len(rows), n_samples]."""
        clips = [beginning(self.decoded.audio(row), self.generator.longest_samples) for row in rows]
        if self.config.repeat_short:
            clips = [np.resize(clip, n_samples) if len(clip) < n_samples else clip for clip in clips]
        return stack_padded(clips, n_samples)

    def _record(self, crop: int) -> np.dtype:
        """What a file holds of each parent; where strategies do not invert, noisy latents are the clean ones."""
        shape = (1 + self.strategy.inverts, *self.generator.latent_shape(crop))
        return np.dtype([("crc32", "<u4"), ("latents", "<f4", shape)])

    def _read(self, group: tuple[int, int], rows: Sequence[int]) -> np.ndarray:
        """The latents [len(rows), 1 or 2, *latent shape] of parents of one group, which is encoded if they are not there."""
        crop, number = group
        file = self.work / f"latents-{crop}x{self.batch}-{number:05d}.bin"
        latents = self._whole_records(file, group, rows)
        if latents is not None:
            return latents
        with disk_errors(self.work.parent), creation_lock(file):  # one process encodes it
            latents = self._whole_records(file, group, rows)
            if latents is None:
                all_of_them = self._encode(crop, self.groups[group])
                records = np.zeros(len(all_of_them), self._record(crop))
                records["latents"] = all_of_them
                records["crc32"] = [zlib.crc32(one) for one in all_of_them]
                atomic_write(file, records.view(np.uint8).data, durable=False)
                latents = all_of_them[[self.groups[group].index(row) for row in rows]]
        return latents

    def _whole_records(self, file: Path, group: tuple[int, int], rows: Sequence[int]) -> np.ndarray | None:
        """Latents from a file; None where there is none, or they are not what was written."""
        record, of_group = self._record(group[0]), self.groups[group]
        latents = np.empty((len(rows), *record["latents"].shape), np.float32)
        try:
            with file.open("rb", buffering=0) as opened:
                if os.fstat(opened.fileno()).st_size != len(of_group) * record.itemsize:
                    return None
                for one, row in zip(latents, rows, strict=True):
                    opened.seek(of_group.index(row) * record.itemsize)
                    checksum = int.from_bytes(opened.read(4), "little")
                    if opened.readinto(one.data.cast("B")) != one.nbytes:
                        return None
                    if row not in self._whole and zlib.crc32(one) != checksum:
                        return None
        except OSError:
            return None
        self._whole.update(rows)
        return latents

    def _encode(self, crop: int, rows: Sequence[int]) -> np.ndarray:
        """Latents [len(rows), 1 or 2, *latent shape]: noisy where the strategy inverts, then clean."""
        generator, config = self.generator, self.config
        audio = self.audio(rows, crop)
        texts = [text_of_parents(self.prompts, self.decoded.class_name(row)) for row in rows]
        if not config.condition_on_class:
            texts = []

        def encode(piece: slice) -> torch.Tensor:
            clean = generator.encode(audio[piece])
            if not self.strategy.inverts:
                return clean[:, None].cpu()
            condition = Condition(texts[piece], parents=audio[None, piece])
            return torch.stack((generator.invert(clean, config.sampler, condition), clean), dim=1).cpu()

        return np.ascontiguousarray(torch.cat(self.pieces.run(len(rows), encode)).numpy(), np.float32)
