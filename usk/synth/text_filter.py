"""The filter by an outside model: CLAP (arXiv 2211.06687) measures how well a clip fits its class's prompt.

As in Synthio (arXiv 2410.02056), a clip is kept if its similarity to the prompt is at least `LEAST_SCORE` of the median of real
clips. These are the clips that parents are drawn from: all of them if test folds are named, otherwise those of the clip's own
fold. The manifest records them as the filter's training data, so that the leak rules apply to the clips.
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
from usk.diffusion.weights import quiet_log
from usk.errors import ModelError, SourceError
from usk.files import expanded
from usk.hub import first_line
from usk.manifest import FilterRecord
from usk.reporter import Reporter
from usk.synth.filter import Folds, scorer_of, training_records, usable_rows
from usk.synth.plan import PlannedClip
from usk.synth.settings import HUB_PREFIX, SynthConfig
from usk.text import abbreviate_list

LEAST_SCORE = 0.85  # of the real clips' median similarity


class TextFilter:
    """Scores clips with a model that embeds text and audio. A score is a similarity relative to the real clips' median."""

    def __init__(
        self,
        pool: DecodedSource,
        known_clips: Sequence[Clip],
        planned: Sequence[PlannedClip],
        config: SynthConfig,
        prompts: Prompts,
        device: torch.device,
    ) -> None:
        """`pool` has the clips that parents are drawn from. Raises ModelError, and SourceError for a class without real clips."""
        assert isinstance(config.filter, str)
        self.pool, self.config, self.prompts, self.device = pool, config, prompts, device
        clips = pool.source.clips
        self.single: Folds = tuple(sorted({clip.fold for clip in clips})) if config.test_folds else ()
        scorers = sorted({(scorer_of(one, self.single), one.label) for one in planned})
        rows_of = usable_rows(clips, known_clips, dict.fromkeys(folds for folds, _ in scorers))
        self.rows: dict[tuple[Folds, int], list[int]] = {}  # the real clips to compare with
        for folds, label in scorers:
            self.rows[folds, label] = [row for row in rows_of[folds] if clips[row].label == label]
            if not self.rows[folds, label]:
                raise SourceError(
                    f"fold {', '.join(map(str, folds))} has no real clips of {pool.source.class_names[label]} to compare with",
                    field="filter",
                    hint="Leave the class out, or name the test folds: all others are then compared with.",
                )
        self.name, self.processor, self.model = _load(config.filter, device)
        self.medians: dict[tuple[Folds, int], float] = {}
        self.texts: dict[int, torch.Tensor] = {}  # the embedded prompts of classes

    def record(self) -> FilterRecord:
        """Return the filter's entry in the manifest."""
        rows_of: dict[Folds, list[int]] = defaultdict(list)
        for (folds, _), rows in self.rows.items():
            rows_of[folds] += rows
        return FilterRecord(
            classifier=self.name,
            share_kept=1.0,
            test_folds=self.config.test_folds,
            trained_on=training_records(self.pool.source.clips, rows_of),
            least_score=LEAST_SCORE,
        )

    def prepare(self, work: Path, reporter: Reporter) -> None:
        """Measure the real clips. Raises SourceError if the model does not find a class's prompt in them."""
        with reporter.task("scoring real clips", "clips", sum(map(len, self.rows.values()))) as task:
            done = 0
            for (folds, label), rows in self.rows.items():
                rate_hz = self.pool.sample_rate_hz
                similarities = [self.similarity(self.pool.audio(row), rate_hz, label) for row in rows]
                self.medians[folds, label] = median = float(np.median(similarities))
                done += len(rows)
                task.update(done)
                if median <= 0:
                    class_name = self.pool.source.class_names[label]
                    raise SourceError(
                        f"does not find {self.prompts.of_class[class_name][0]!r} in the real clips of {class_name}: their "
                        f"median similarity is {median:.2f}",
                        field="filter",
                        value=self.config.filter,
                        hint="Write another prompt for it, or leave the class out.",
                    )

    def similarity(self, samples: np.ndarray, rate_hz: int, label: int) -> float:
        """Return the cosine similarity of a clip and the first prompt of a class."""
        with torch.no_grad():
            if label not in self.texts:
                prompt = self.prompts.of_class[self.pool.source.class_names[label]][0]
                tokens = self.processor.tokenizer([prompt], return_tensors="pt").to(self.device)
                self.texts[label] = pooled_vector(self.model.get_text_features(**tokens))
            inputs = audio_inputs(self.processor.feature_extractor, samples, rate_hz).to(self.device)
            audio = pooled_vector(self.model.get_audio_features(**inputs))
        return float(torch.nn.functional.cosine_similarity(self.texts[label], audio, dim=0))

    def score(self, planned: Sequence[PlannedClip], rows: Sequence[dict[str, Any]], rate_hz: int) -> None:
        """Write the score of each planned clip, and the folds of the real clips that it is compared with, into its row."""
        for clip, row in zip(planned, rows, strict=True):
            folds = scorer_of(clip, self.single)
            samples, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
            similarity = self.similarity(samples, rate_hz, clip.label)
            row["filter_score"] = round(similarity / self.medians[folds, clip.label], 6)
            row["filter_folds"] = list(folds)


def _load(name: str, device: torch.device) -> tuple[str, Any, Any]:
    """Return the model's name with its commit, its processor, and the model. Raises ModelError."""
    location = name.removeprefix(HUB_PREFIX)
    error_field: dict[str, Any] = {"field": "filter", "value": name}
    library = transformers(f"the filter {name}")
    folder = model_folder(location, error_field)
    try:
        processor = library.ClapProcessor.from_pretrained(folder, local_files_only=True)
        with quiet_log("transformers"):
            model, report = library.ClapModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        if missing := {name for name, _ in model.named_parameters()} & set(report["missing_keys"]):
            raise ValueError(f"its files lack {abbreviate_list(sorted(missing))}")
    except Exception as error:  # damaged or foreign files can fail anywhere in transformers
        raise ModelError(
            f"is not a CLAP model that transformers can load ({first_line(error)})",
            **error_field,
            hint="Name one such as hf:laion/clap-htsat-unfused.",
        ) from error
    revision = "" if expanded(location).is_dir() else f"@{folder.name}"
    return f"{HUB_PREFIX}{location.partition('@')[0]}{revision}", processor, model.eval().to(device)
