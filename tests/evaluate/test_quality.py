"""The audit: distances that know same from other, leaks and wrong provenance found, defects named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sounds import tone
from usk.data.sources import open_source
from usk.errors import SourceError, UsageError
from usk.evaluate.quality import RealReference, audit, log_mel_statistics, mmd
from usk.synth.store import encode_flac

Command = Callable[..., Any]


@given(st.integers(0, 1000), st.floats(0.5, 5), st.integers(2, 30), st.integers(2, 30))
def test_mmd_does_not_depend_on_sides_or_order(seed: int, width: float, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((n, 4)), rng.standard_normal((m, 4)) + 0.5
    value = mmd(first, second, width)
    assert value == pytest.approx(mmd(second, first, width), abs=1e-9)
    assert value == pytest.approx(mmd(rng.permutation(first), second, width), abs=1e-9)


def test_mmd_is_unbiased_and_rises_with_the_distance() -> None:
    rng = np.random.default_rng(0)

    def draw(shift: float) -> list[float]:
        return [
            mmd(rng.standard_normal((12, 3)), rng.standard_normal((15, 3)) + shift, 1.7) for _ in range(300)
        ]

    same = np.array(draw(0.0))
    assert abs(same.mean()) < 3 * same.std() / np.sqrt(len(same))  # a biased one would be above zero
    assert same.mean() + 3 < np.mean(draw(0.5)) < np.mean(draw(1.5))


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (0, 5)])
def test_mmd_of_a_single_clip_is_refused(n: int, m: int) -> None:
    with pytest.raises(ValueError, match="two clips on each side"):
        mmd(np.zeros((n, 2)), np.zeros((m, 2)), 1.0)


def noisy_tones(frequency_hz: float, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    return [
        tone(frequency_hz * (1 + 0.02 * rng.standard_normal()), 0.5)
        + 0.02 * rng.standard_normal(11_025).astype(np.float32)
        for _ in range(n)
    ]


def test_the_distance_to_the_same_sounds_is_nothing_and_to_others_is_not() -> None:
    rng = np.random.default_rng(0)

    def both() -> list[np.ndarray]:
        return noisy_tones(300, 16, rng) + noisy_tones(1_500, 16, rng)

    labels = [0] * 16 + [1] * 16
    reference = RealReference(both(), labels, log_mel_statistics)
    noisy = both()
    same = reference.distance(reference.place(noisy), labels)
    swapped = reference.distance(reference.place(both()), labels[::-1])
    assert None not in (same.mmd, same.low, same.high, swapped.low, swapped.mmd)
    assert same.mmd == pytest.approx(
        np.mean(
            [
                mmd(reference.place(noisy)[side], reference.values[side], reference.width)
                for side in (slice(0, 16), slice(16, 32))
            ]
        ),
        abs=0.01,
    )
    assert same.low <= same.mmd <= same.high  # type: ignore[operator]
    assert abs(same.mmd) < 10 < swapped.low  # type: ignore[operator, arg-type]
    assert (same.n, same.n_real) == (32, 32)
    few = reference.distance(reference.place(both()[:3]), [0, 0, 0])
    assert few.mmd is not None and few.low is None, "three clips are too few for an interval"
    alone = reference.distance(reference.place(both()[:1]), [0])
    assert (alone.mmd, alone.low, alone.n) == (None, None, 1)


# --- whole datasets --------------------------------------------------------------------------------------------


@pytest.fixture
def made(usk: Command, urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path) -> Path:
    """A synthetic dataset of folds 1 and 2, four clips a class."""
    ran = usk(
        "synth", "--real", urbansound8k_folder, "--model", tiny_pipeline(), "--out", tmp_path / "synth", "--steps", 1,
        "--per-class", 4, "--folds", "1,2",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return tmp_path / "synth"


def rewrite(folder: Path, **changes: Callable[[dict[str, Any]], Any]) -> None:
    """Change columns of the rows of a dataset, as someone who spoils it would."""
    for path in folder.glob("data/*.parquet"):
        table = pq.read_table(path)
        rows = [{**row, **{name: of(row) for name, of in changes.items()}} for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_a_sound_dataset_passes(usk: Command, made: Path, urbansound8k_folder: Path) -> None:
    ran = usk("audit", made, "--real", urbansound8k_folder, "--test-folds", 3, "--json")
    assert ran.code == 0, ran.err
    found = ran.value
    assert (found["clips"], found["leaks"], found["asked_leaks"]) == (12, False, 0)
    assert found["wrong_provenance"] == found["silent"] == found["short"] == []
    by_fold = {part["fold"]: (part["usable"], part["leaking"]) for part in found["folds"]}
    assert by_fold[3] == (12, 0)
    assert by_fold[1][1] + by_fold[2][1] == 12, "each clip's parents lie in fold 1 or in fold 2"
    assert found["embedding"] == "log-mel statistics"
    assert {part["class_name"] for part in found["classes"]} == {"car_horn", "dog_bark", "siren"}
    assert all(part["clips"] == 4 and part["distance"]["mmd"] is not None for part in found["classes"])
    assert {part["generator_heard"] for part in found["folds"]} == {None}, "the tiny generator does not say"
    assert "trained on is not known" in found["notes"][1]
    shown = usk("audit", made, "--real", urbansound8k_folder)
    assert shown.code == 0
    assert "real to real" in shown.out and "MMD to real clips, in log-mel statistics" in shown.out


def test_leaks_into_a_fold_that_is_asked_about_end_with_3(
    usk: Command, made: Path, urbansound8k_folder: Path
) -> None:
    ran = usk("audit", made, "--real", urbansound8k_folder, "--test-folds", "1,3")
    assert ran.code == 3
    assert "would leak into the folds asked about" in ran.out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parent_folds": lambda row: [3, 3]}, "another recording, fold or class"),
        ({"parent_groups": lambda row: row["parent_groups"][::-1]}, "another recording, fold or class"),
        ({"label": lambda row: (row["label"] + 1) % 3}, "another recording, fold or class"),
        (
            {"parents": lambda row: [row["parents"][0], "urbansound8k/nothing.wav"]},
            "a parent is not in the source",
        ),
    ],
    ids=["fold", "recordings", "class", "unknown"],
)
def test_wrong_provenance_is_found(
    made: Path, urbansound8k_folder: Path, usk: Command, changes: dict[str, Any], message: str
) -> None:
    rewrite(made, **changes)
    ran = usk("audit", made, "--real", urbansound8k_folder, "--json")
    assert ran.code == 3
    assert len(ran.value["wrong_provenance"]) == 12
    assert all(message in line for line in ran.value["wrong_provenance"])


def test_defects_and_copies_are_named(made: Path, urbansound8k_folder: Path, usk: Command) -> None:
    real = open_source(urbansound8k_folder)
    row_of = {clip.clip_id: row for row, clip in enumerate(real.clips)}
    from usk.data.decode import decode_source

    decoded = decode_source(real)
    names = [
        row["clip_id"] for path in made.glob("data/*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    spoilt = {
        names[0]: np.full(4_000, 1e-4, np.float32),
        names[1]: np.sign(np.sin(np.arange(4_000) / 9)).astype(np.float32),
        names[2]: tone(500, 0.05),
        names[4]: np.zeros(4_000, np.float32),
        names[5]: tone(500, 0.002),
    }

    def audio(row: dict[str, Any]) -> dict[str, Any]:
        samples = spoilt.get(row["clip_id"])
        if row["clip_id"] == names[3]:
            samples = decoded.audio(row_of[row["parents"][0]])
        if samples is None:
            return row["audio"]
        return {**row["audio"], "bytes": encode_flac(samples, 22_050)}

    rewrite(made, audio=audio)
    found = usk("audit", made, "--real", urbansound8k_folder, "--json").value

    def last(of: list[str]) -> list[str]:
        return [name.rpartition("/")[2] for name in of]

    assert last(found["unusable"]) == [names[4], names[5]], "and the rest is looked at all the same"
    assert last(found["silent"]) == [names[0]]
    assert last(found["clipped"]) == [names[1]]
    assert last(found["short"]) == [names[2]]
    assert names[3] in last(found["near_copies"])
    assert not found["leaks"]


def test_a_runs_classifier_can_embed(
    usk: Command, made: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    trained = usk(
        "train",
        "--real",
        urbansound8k_folder,
        "--out",
        tmp_path / "runs",
        "--epochs",
        1,
        "--folds",
        3,
        "--json",
    )
    run = trained.value["runs"][0]["folder"]
    found = usk("audit", made, "--real", urbansound8k_folder, "--run", run, "--json").value
    assert found["embedding"] == f"classifier of {Path(run).name}, before its last layer"
    assert found["distance"]["mmd"] is not None


def test_a_real_source_is_no_synthetic_dataset(urbansound8k_folder: Path) -> None:
    real = open_source(urbansound8k_folder)
    with pytest.raises(SourceError, match="its clips name no parents"):
        audit(real, real)


def test_wrong_input_is_one_line(
    usk: Command, made: Path, urbansound8k_folder: Path, tone_folder: Path, tmp_path: Path
) -> None:
    for arguments, code, message in (
        ((made, "--real", tone_folder), 1, "name the source that it was made from with --real"),
        ((made, "--real", urbansound8k_folder, "--test-folds", 9), 2, "--test-folds 9: "),
        ((made, "--real", urbansound8k_folder, "--run", tmp_path), 2, "--run"),
        ((urbansound8k_folder, "--real", urbansound8k_folder), 1, "its clips name no parents"),
        (
            (tmp_path / "nowhere", "--real", urbansound8k_folder),
            1,
            "give usk audit the folder of a dataset (make one",
        ),
        (("runs/nowhere", "--real", urbansound8k_folder), 1, "give usk audit the folder of a dataset"),
    ):
        ran = usk("audit", *arguments, "--quiet")
        assert (ran.code, ran.err.count("\n")) == (code, 1), ran.err
        assert message in ran.err


def test_an_unknown_fold_is_a_usage_error(made: Path, urbansound8k_folder: Path) -> None:
    with pytest.raises(UsageError, match="--test-folds 7"):
        audit(open_source(made), open_source(urbansound8k_folder), test_folds=[7])


def test_an_audit_changes_nothing(made: Path, urbansound8k_folder: Path, usk: Command) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    usk("audit", made, "--real", urbansound8k_folder)
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


def test_saved_figures_stand_in_the_card(
    made: Path, urbansound8k_folder: Path, usk: Command, tmp_path: Path
) -> None:
    before = (made / "README.md").read_text()
    assert "## Audit" not in before
    ran = usk("audit", made, "--real", urbansound8k_folder, "--save", "--json")
    assert ran.code == 0, ran.err
    card = (made / "README.md").read_text()
    without = card[: card.index("\n## Audit")] + card[card.index("\n## Use") :]
    assert without == before
    assert f"| {ran.value['distance']['mmd']} (" in card or f"| {ran.value['distance']['mmd']} |" in card
    assert f"| near-copies of a parent | {len(ran.value['near_copies'])} |" in card
    assert str(tmp_path) not in card + (made / "audit.json").read_text()
    assert open_source(made).is_synthetic
    refused = usk("audit", made, "--real", urbansound8k_folder, "--save", "--json")
    assert refused.code == 0 and (made / "README.md").read_text() == card
