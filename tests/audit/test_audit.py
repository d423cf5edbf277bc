"""Tests of `usk audit`: leaks, wrong provenance, defects, near-copies and distances."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.sounds import tone, write_wav
from usk.audit.audit import audit
from usk.audit.defects import Defects
from usk.audit.embeddings import Embedding, log_mel_statistics
from usk.audit.tables import findings
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.source import Source, TrainingClips
from usk.data.splits import held_out_groups
from usk.manifest import read_manifest, write_manifest
from usk.synth.dataset_folder import encode_flac

Command = Callable[..., Any]


def rewrite(folder: Path, **changes: Callable[[dict[str, Any]], Any]) -> None:
    """Change columns of a dataset and update its hashes, so that the change is not detected by them."""
    for path in folder.glob("data/*.parquet"):
        table = pq.read_table(path)
        rows = [{**row, **{name: of(row) for name, of in changes.items()}} for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    manifest = read_manifest(folder)
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest.all_shards}
    write_manifest(folder, manifest.with_hashes(hashes))


def test_a_clean_dataset_passes_and_is_not_changed(
    usk: Command, made: Path, urbansound8k_folder: Path
) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    audited = f"audit {made} --real {urbansound8k_folder}"
    found = usk(f"{audited} --test-folds 3 --json").done().value
    assert (found["clips"], found["leaks"], found["asked_leaks"]) == (12, False, 0)
    assert found["wrong_provenance"] == found["defects"]["quiet"] == found["defects"]["short"] == []
    by_fold = {part["fold"]: (part["usable"], part["leaking"]) for part in found["folds"]}
    assert by_fold[3] == (12, 0)
    assert by_fold[1][1] + by_fold[2][1] == 12, "the parents of each clip are in fold 1 or 2"
    assert found["embedding"] == "log-mel statistics"
    assert {part["class_name"] for part in found["classes"]} == {"car_horn", "dog_bark", "siren"}
    for part in [*found["classes"], found["overall"]]:
        is_total = part["class_name"] == "all"
        distance = part["distance"]
        assert distance["kad"] is not None
        assert part["clips"] == distance["n"] == (12 if is_total else 4)
        assert distance["n_real"] == (54 if is_total else 18)
        near = part["nearness"]
        assert near["to_real"] <= near["to_parents"] and near["real_to_real"] > found["near_copy_below"] > 0
    unknown = {part["generator_trained_on"] for part in found["folds"]}
    assert unknown == {None}, "the tiny generator does not record it"
    assert "trained on is not known" in found["notes"][1]
    shown = usk(audited).done()
    assert "leaks into the test folds" not in shown.out, "no test folds were given"
    assert "Kernel audio distance to real clips, in log-mel statistics" in shown.out
    assert "Distance to the nearest real clip (median), in log-mel statistics" in shown.out
    leaking = usk(f"{audited} --test-folds 1,3")
    assert leaking.code == 3 and "leaks into the test folds: " in leaking.out
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


def test_there_is_a_finding_for_every_check(made: Path, urbansound8k_folder: Path) -> None:
    synthetic, real = open_source(made), open_source(urbansound8k_folder)
    for asked in ([], [3], [1, 2]):
        found = audit(synthetic, real, test_folds=asked)
        clean = replace(found, defects=Defects((), (), (), ()), near_copies=())
        kinds = {one.what: one.kind for one in findings(clean)}
        assert kinds.pop("leaks into the test folds", None) == {0: None, 1: "good", 2: "bad"}[len(asked)]
        assert len(kinds) == 7 and set(kinds.values()) == {"good"}


def test_leaks_into_a_single_fold_are_counted(made: Path, urbansound8k_folder: Path) -> None:
    """The real clips are those of fold 2. Clips made from them leak into it, clips made from fold 1 do not."""
    real = open_source(urbansound8k_folder).select(folds=[2])
    found = audit(open_source(made), real, test_folds=[2])
    (fold,) = found.folds
    assert fold.leaking == found.asked_leaks == sum(clip.fold == 2 for clip in open_source(made).clips) > 0
    assert fold.usable == 12 - fold.leaking
    everything = open_source(urbansound8k_folder)
    trained = TrainingClips(frozenset(clip.group for clip in everything.clips))
    by_all = replace(open_source(made), generator_trained_on=(trained,))
    assert audit(by_all, everything, test_folds=[1, 2]).asked_leaks == 12, "each clip counts once"
    alone = open_source(made).select(folds=[2])
    assert audit(alone, real, test_folds=[2]).leaks and not audit(alone, real).leaks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": lambda row: (row["label"] + 1) % 3}, "a parent has another class"),
        (
            {"parents": lambda row: [row["parents"][0], "0" * 16], "parent_names": lambda row: ["a", "b"]},
            "a parent is not in the source",
        ),
    ],
    ids=["class", "unknown"],
)
def test_wrong_provenance_is_found(
    made: Path, urbansound8k_folder: Path, usk: Command, changes: dict[str, Any], message: str
) -> None:
    rewrite(made, **changes)
    ran = usk("audit", made, "--real", urbansound8k_folder, "--json")
    assert ran.code == 3
    assert len(ran.value["wrong_provenance"]) == 12
    assert all(message in line for line in ran.value["wrong_provenance"])


def test_training_clips_of_a_generator_under_other_names_are_unknown(
    made: Path, urbansound8k_folder: Path
) -> None:
    real = open_source(urbansound8k_folder)

    def trained_on(name: str) -> Source:
        return replace(open_source(made), generator_trained_on=(TrainingClips(frozenset({name})),))

    for name in (real.clips[0].group, real.clips[0].clip_id):  # a recording or a clip
        assert {part.generator_trained_on for part in audit(trained_on(name), real).folds} == {0, 1}
    renamed = replace(real, clips=tuple(replace(clip, group=f"{clip.group}-renamed") for clip in real.clips))
    audited = audit(trained_on(real.clips[0].group), renamed)
    assert audited.wrong_provenance == (), "recordings may have new names"
    found = audit(trained_on("elsewhere/1"), real)
    assert "was trained on elsewhere: if " in found.notes[1]
    assert {part.generator_trained_on for part in found.folds} == {None}


def test_a_generator_with_partly_known_training_clips_is_reported_as_unknown(
    usk: Command, made: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    """`usk fit --from` writes such a record for a base model without a record. The audit, the run and a warning report it."""
    group = next(clip.group for clip in open_source(urbansound8k_folder).clips if clip.fold == 1)
    parts = [
        {"source": "unknown clips of x", "folds": [], "clips": 0, "groups": [], "note": "it does not say"},
        {"source": "urbansound8k", "folds": [1], "clips": 2, "groups": [group]},
    ]
    manifest = json.loads((made / "usk.json").read_text())
    for known, trained_on in ((True, parts[1:]), (False, parts)):
        (made / "usk.json").write_text(json.dumps({**manifest, "trained_on": trained_on}))
        assert all(part.complete for part in open_source(made).generator_trained_on) is known
        common = f"--real {urbansound8k_folder} --json"
        found = usk(f"audit {made} {common}").value
        assert [part["generator_trained_on"] for part in found["folds"]] == [1, *[0 if known else None] * 2]
        train = f"train --mix real,synth --seeds 1 --no-baseline --test-folds 3 --epochs 1 --synth {made} {common}"
        ran = usk(train, "--out", tmp_path / str(known)).done()
        assert usk("info", made, "--json").value["recordings the generator was trained on"] == (
            1 if known else "1 and unknown: leaks from it cannot be ruled out"
        )
        record = json.loads((Path(ran.value["runs"][0]["folder"]) / "run.json").read_text())
        for sentences in (found["notes"], record["leaks"], [" ".join(ran.err.split())]):
            assert any("a part of what " in sentence for sentence in sentences) is not known


def test_defects_and_near_copies_are_found(made: Path, urbansound8k_folder: Path, usk: Command) -> None:
    real = open_source(urbansound8k_folder)
    decoded = decode_source(real)
    row_of = {clip.sound: row for row, clip in enumerate(decoded.source.clips)}
    names = [
        row["clip_id"] for path in made.glob("data/*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    defective = {
        names[0]: tone(500, 0.2, peak=5e-4),
        names[1]: np.sign(np.sin(np.arange(4_000) / 9)).astype(np.float32),
        names[2]: tone(500, 0.05),
        names[4]: np.zeros(4_000, np.float32),
        names[5]: tone(500, 0.002),
    }

    def audio(row: dict[str, Any]) -> dict[str, Any]:
        samples = defective.get(row["clip_id"])
        if row["clip_id"] == names[3]:
            samples = decoded.audio(row_of[row["parents"][0]])
        if row["clip_id"] == names[6]:  # a copy of a clip that is not its parent
            others = (clip for clip in decoded.source.clips if clip.group not in row["parent_groups"])
            samples = decoded.audio(row_of[next(others).sound])
        if samples is None:
            return row["audio"]
        return {**row["audio"], "bytes": encode_flac(samples, 22_050)}

    rewrite(made, audio=audio)
    found = usk("audit", made, "--real", urbansound8k_folder, "--json").value

    def short(clip_ids: list[str]) -> list[str]:
        return [name.rpartition("/")[2] for name in clip_ids]

    assert short(found["defects"]["unusable"]) == [names[4], names[5]], (
        "the other clips are audited all the same"
    )
    assert short(found["defects"]["quiet"]) == [names[0]]
    assert short(found["defects"]["clipped"]) == [names[1]]
    assert short(found["defects"]["short"]) == [names[2]]
    assert set(short(found["near_copies"])) >= {names[3], names[6]}
    assert not found["leaks"]


def test_the_library_takes_any_embedding(made: Path, urbansound8k_folder: Path) -> None:
    mine = Embedding("first two", lambda audio: log_mel_statistics(audio)[:, :2])
    found = audit(open_source(made), open_source(urbansound8k_folder), embedding=mine)
    assert found.embedding == "first two" and found.overall.distance.kad is not None


def test_wrong_input_is_an_error_of_one_line(
    usk: Command, made: Path, urbansound8k_folder: Path, tone_folder: Path, tmp_path: Path
) -> None:
    for words, code, message in (
        (f"{made} --real {tone_folder}", 1, "Name the source that it was made from"),
        (f"{made} --real {urbansound8k_folder} --test-folds 9", 2, "--test-folds 9"),
        (f"{urbansound8k_folder} --real {urbansound8k_folder}", 1, "its clips name no parents"),
        (
            f"{tmp_path}/no --real {urbansound8k_folder}",
            1,
            f"DATASET {tmp_path}/no: no such folder. Make it with `usk synth`",
        ),
        (f"runs/nowhere --real {urbansound8k_folder}", 1, "the Hub dataset runs/nowhere cannot be reached"),
    ):
        ran = usk(f"audit {words} --quiet")
        ran.refused(code, message)
        assert "USK_REAL" not in ran.err


def test_unusable_clips_do_not_count_for_splits(usk: Command, tmp_path: Path) -> None:
    """`usk audit`, `usk synth` and `usk train` split the usable clips only.

    A third of the other clips are silent here. So fewer recordings validate, and some of the rest become parents.
    """
    folder, out = tmp_path / "city", tmp_path / "synth"
    for label, name in enumerate(("low", "high")):
        for recording in range(40):
            write_wav(
                folder / name / f"{name}{recording}" / "a.wav", tone(300 * (1 + label) + 5 * recording, 0.3)
            )
    everything = open_source(folder)
    held_out = held_out_groups(everything.clips)
    silent = [ref.path for clip, ref in zip(everything.clips, everything.audio, strict=True)
              if clip.group not in held_out and clip.fold != 1][::3]  # fmt: skip
    for file in silent:
        soundfile.write(file, np.zeros(6_600), 22_050)
    common = ("--real", folder, "--skip-bad", "--quiet")
    usk(
        "synth", *common, "--strategy", "classical", "--per-class", 40, "--test-folds", 1, "--out", out
    ).done()
    parents = {group for clip in open_source(out).clips for group in clip.parent_groups}
    assert parents & held_out, "otherwise this tests nothing"
    ran = usk("audit", out, "--real", folder, "--test-folds", 1, "--json")
    assert ran.code == 0 and ran.value["asked_leaks"] == 0, ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [("--save", "--save"), ("--device nonsense", "--device nonsense"), ("--test-folds one", "--test-folds")],
)
def test_wrong_options_are_errors_before_the_audit(
    made: Path,
    urbansound8k_folder: Path,
    usk: Command,
    options: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_late(*_: Any, **__: Any) -> None:
        raise AssertionError("the audit has started")

    monkeypatch.setattr("usk.audit.audit.audit", too_late)
    (made / "plan.jsonl").unlink()
    usk(f"audit {made} --real {urbansound8k_folder} {options}").refused(2, f"usk: {message}")


def test_saved_results_stand_in_the_card(
    made: Path, urbansound8k_folder: Path, usk: Command, tmp_path: Path
) -> None:
    before = (made / "README.md").read_text()
    assert "## Audit" not in before
    ran = usk(f"audit {made} --real {urbansound8k_folder} --save --json").done()
    card = (made / "README.md").read_text()
    without = card[: card.index("\n## Audit")] + card[card.index("\n## Use") :]
    assert without == before
    assert f"| all | 12 | {ran.value['overall']['distance']['kad']:.1f} |".replace("-", "\\-") in card
    assert "near\\-copies of real clips" in card
    assert str(tmp_path) not in card + (made / "audit.json").read_text()
    assert open_source(made).is_synthetic
    refused = usk("audit", made, "--real", urbansound8k_folder, "--save", "--json")
    assert refused.code == 0 and (made / "README.md").read_text() == card


def test_made_folds_that_changed_since_are_no_wrong_provenance(usk: Command, tmp_path: Path) -> None:
    """A recording more, and usk makes other folds of the folder."""
    folder = tmp_path / "own"

    def add(label: str, number: int) -> None:
        write_wav(folder / label / f"r{number}" / "a.wav", tone(300 + 10 * number, 0.3, 22_050), 22_050)

    for label in ("bark", "horn"):
        for number in range(10):
            add(label, number + (40 if label == "horn" else 0))
    made = tmp_path / "synth"
    assert usk("synth", "--real", folder, "--strategy", "waveform", "--per-class", 6, "--out", made).code == 0
    before = {clip.clip_id: clip.fold for clip in open_source(folder).clips}
    add("bark", 90)
    after = {clip.clip_id: clip.fold for clip in open_source(folder).clips}
    parents = {name for clip in open_source(made).clips for name in clip.parent_names}
    assert any(before[name] != after[name] for name in parents)
    parent = tmp_path / min(parents)
    parent.parent.rename(parent.parent.with_name("r99"))
    ran = usk("audit", made, "--real", folder, "--json")
    assert ran.code == 0 and ran.value["wrong_provenance"] == [], ran.err
    shutil.rmtree(parent.parent.with_name("r99"))
    ran = usk("audit", made, "--real", folder, "--json")
    assert ran.code == 3 and "a parent is not in the source" in ran.value["wrong_provenance"][0]
