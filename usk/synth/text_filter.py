"""A filter by an outside model: how well a clip fits its class's prompt, compared with the real clips (CLAP, arXiv 2211.06687).

As in Synthio (arXiv 2410.02056) a clip is kept if its similarity to the prompt is at least `LEAST` of the real clips' median.
Those are the clips that parents are drawn from: all of them where test folds are named, else those of the clip's own fold. They
go on record as what the filter was trained on, so that the leak rules hold its clips to them.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from usk.audit.embeddings import audio_inputs, pooled_vector
from usk.classify.transformer import model_folder, transformers
from usk.data.clip import Clip
from usk.data.decode import DecodedSource
from usk.data.prompts import Prompts
from usk.data.splits import held_out_groups
from usk.diffusion.weights import quiet_log
from usk.errors import ModelError, SourceError
from usk.files import expanded
from usk.hub import first_line
from usk.manifest import FilterRecord
from usk.reporter import Reporter
from usk.synth.filter import Folds, scored_by, trained_on
from usk.synth.plan import PlannedClip
from usk.synth.settings import OUTSIDE, SynthConfig
from usk.text import abbreviate_list

LEAST = 0.85  # of the real clips' median similarity


class TextFilter:
    """Scores clips by a model that embeds text and audio. A score is the similarity relative to the real clips' median."""

    def __init__(
        self,
        pool: DecodedSource,
        known_clips: Sequence[Clip],
        planned: Sequence[PlannedClip],
        config: SynthConfig,
        prompts: Prompts,
        device: torch.device,
    ) -> None:
        """`pool` is what parents are drawn from. Raises ModelError, and SourceError for a class without real clips to compare."""
        assert config.filter_model is not None
        self.pool, self.config, self.prompts, self.device = pool, config, prompts, device
        held = held_out_groups(known_clips)
        folds_of: dict[str, set[int]] = defaultdict(set)
        for clip in known_clips:
            folds_of[clip.group].add(clip.fold)
        everywhere = tuple(sorted({clip.fold for clip in pool.source.clips})) if config.test_folds else ()
        self.everywhere: Folds = everywhere
        self.rows: dict[tuple[Folds, int], list[int]] = {}
        for name, label in sorted({(scored_by(one, everywhere), one.label) for one in planned}):
            self.rows[name, label] = [
                row
                for row, clip in enumerate(pool.source.clips)
                if clip.label == label and clip.group not in held and folds_of[clip.group] <= set(name)
            ]
            if not self.rows[name, label]:
                raise SourceError(
                    f"fold {', '.join(map(str, name))} has no real clips of {pool.source.class_names[label]} to compare with",
                    field="filter_model",
                    hint="Leave the class out, or name the test folds: all others are then compared with.",
                )
        self.name, self.processor, self.model = _load(config.filter_model, device)
        self.medians: dict[tuple[Folds, int], float] = {}

    def record(self) -> FilterRecord:
        """What the manifest says of it."""
        rows: dict[Folds, list[int]] = defaultdict(list)
        for (name, _), some in self.rows.items():
            rows[name] += some
        return FilterRecord(
            classifier=self.name,
            share_kept=1.0,
            test_folds=self.config.test_folds,
            trained_on=trained_on(self.pool.source.clips, rows),
            least_score=LEAST,
        )

    def prepare(self, work: Path, reporter: Reporter) -> None:
        """Measure the real clips. Raises SourceError for a class that the model does not find in them."""
        with reporter.task("scoring real clips", "clips", sum(map(len, self.rows.values()))) as task:
            done = 0
            for (name, label), rows in self.rows.items():
                found = [
                    self.similarity(self.pool.audio(row), self.pool.sample_rate_hz, label) for row in rows
                ]
                self.medians[name, label] = float(np.median(found))
                done += len(rows)
                task.update(done)
                if self.medians[name, label] <= 0:
                    class_name = self.pool.source.class_names[label]
                    raise SourceError(
                        f"does not find {self.prompts.of_class[class_name][0]!r} in the real clips of {class_name}: their "
                        f"median similarity is {self.medians[name, label]:.2f}",
                        field="filter_model",
                        value=self.config.filter_model,
                        hint="Write another prompt for it, or leave the class out.",
                    )

    def similarity(self, samples: np.ndarray, rate_hz: int, label: int) -> float:
        """Cosine of a clip and its class's first prompt."""
        prompt = self.prompts.of_class[self.pool.source.class_names[label]][0]
        with torch.no_grad():
            text = self.processor.tokenizer([prompt], return_tensors="pt").to(self.device)
            words = pooled_vector(self.model.get_text_features(**text))
            audio = audio_inputs(self.processor.feature_extractor, samples, rate_hz).to(self.device)
            sound = pooled_vector(self.model.get_audio_features(**audio))
        return float(torch.nn.functional.cosine_similarity(words, sound, dim=0))

    def score(self, planned: Sequence[PlannedClip], rows: Sequence[dict[str, Any]], rate_hz: int) -> None:
        """Write its score, and the folds of the real clips that it is compared with, into the row of each planned clip."""
        for clip, row in zip(planned, rows, strict=True):
            name = scored_by(clip, self.everywhere)
            samples, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
            found = self.similarity(samples, rate_hz, clip.label)
            row["filter_score"] = round(found / self.medians[name, clip.label], 6)
            row["filter_folds"] = list(name)


def _load(name: str, device: torch.device) -> tuple[str, Any, Any]:
    """The model with its commit, its processor and itself. Raises ModelError."""
    place = name.removeprefix(OUTSIDE)
    at: dict[str, Any] = {"field": "filter_model", "value": name}
    library = transformers(f"the filter {name}")
    folder = model_folder(place, at)
    try:
        processor = library.ClapProcessor.from_pretrained(folder, local_files_only=True)
        with quiet_log("transformers"):
            model, report = library.ClapModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        if missing := {name for name, _ in model.named_parameters()} & set(report["missing_keys"]):
            raise ValueError(f"its files lack {abbreviate_list(sorted(missing))}")
    except Exception as error:  # a stranger's files can fail anywhere in transformers
        raise ModelError(
            f"is not a CLAP model that transformers can load ({first_line(error)})",
            **at,
            hint="Name one such as hf:laion/clap-htsat-unfused.",
        ) from error
    revision = "" if expanded(place).is_dir() else f"@{folder.name}"
    return f"{OUTSIDE}{place.partition('@')[0]}{revision}", processor, model.eval().to(device)
