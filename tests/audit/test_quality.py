"""The audit: leaks and wrong provenance found, defects and copies named, every figure with its embedding."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from tests.hub_server import LocalHub
from tests.sounds import tone, write_wav
from usk.audit.distances import RealClips
from usk.audit.embeddings import Embedding, log_mel_statistics
from usk.audit.quality import _Neighbours, audit
from usk.cli.display import audit_tables
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.splits import held_out_groups
from usk.errors import SourceError, UsageError
from usk.synth.dataset_folder import encode_flac

Command = Callable[..., Any]


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
    for part in [*found["classes"], found]:
        assert part["clips"] == (12 if part is found else 4)
        distance, n_real = part["distance"], 54 if part is found else 18
        assert distance["mmd"] is not None and distance["low"] is None, (
            "parents are of two recordings a class"
        )
        assert (distance["n"], distance["n_real"]) == (part["clips"], n_real)
        density, coverage = part["density"], part["coverage"]
        assert 0 <= coverage["low"] <= coverage["value"] <= coverage["high"]
        assert density["value"] >= 0 and density["low"] is None, "parents are of two recordings a class"
        assert part["density_baseline"] > 0 and 0 < part["coverage_baseline"] <= 1
        for score in (density, coverage):
            assert (score["n"], score["n_real"]) == (part["clips"], n_real)
        near = part["nearness"]
        assert near["to_real"] <= near["to_parents"] and near["real_to_real"] > found["near_copy_below"] > 0
    assert found["transfer"] == []
    assert {part["generator_trained_on"] for part in found["folds"]} == {None}, (
        "the tiny generator does not say"
    )
    assert "trained on is not known" in found["notes"][1]
    shown = usk("audit", made, "--real", urbansound8k_folder)
    assert shown.code == 0
    assert "asked about" not in shown.out, "none was"
    assert "closeness to real clips, in log-mel statistics" in shown.out and "real to real" in shown.out
    assert "distance to the nearest real clip (median), in log-mel statistics" in shown.out


def test_leaks_into_a_fold_that_is_asked_about_end_with_3(
    usk: Command, made: Path, urbansound8k_folder: Path
) -> None:
    ran = usk("audit", made, "--real", urbansound8k_folder, "--test-folds", "1,3")
    assert ran.code == 3
    assert "would leak into the folds asked about" in ran.out


@pytest.mark.parametrize(
    ("asked", "said"),
    [(3, ", no leaks into the folds asked about, "), (None, ", ")],
    ids=["asked", "not asked"],
)
def test_where_nothing_is_found_it_says_what_was_looked_for(
    made: Path, urbansound8k_folder: Path, asked: int | None, said: str
) -> None:
    folds = [] if asked is None else [asked]
    found = audit(open_source(made), open_source(urbansound8k_folder), test_folds=folds)
    clean = replace(found, unusable=(), silent=(), clipped=(), short=(), near_copies=())
    assert f"no wrong provenance{said}no defects, no near-copies" in audit_tables(clean)


def test_leaks_into_the_only_fold_there_is_are_counted(made: Path, urbansound8k_folder: Path) -> None:
    """Real clips of fold 2 alone: the clips that were made from them leak into it, those of fold 1 do not."""
    real = open_source(urbansound8k_folder).select(folds=[2])
    found = audit(open_source(made), real, test_folds=[2])
    (fold,) = found.folds
    assert fold.leaking == found.asked_leaks == sum(clip.fold == 2 for clip in open_source(made).clips) > 0
    assert fold.usable == 12 - fold.leaking
    alone = open_source(made).select(folds=[2])
    assert audit(alone, real, test_folds=[2]).leaks and not audit(alone, real).leaks


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


def test_findings_are_shown_where_nothing_may_train(
    made: Path, urbansound8k_folder: Path, usk: Command
) -> None:
    rewrite(made, parent_groups=lambda row: [f"{group}-then" for group in row["parent_groups"]])
    ran = usk("audit", made, "--real", urbansound8k_folder, "--tstr", "--epochs", 1)
    assert ran.code == 3 and "another recording, fold or class" in ran.out
    assert "--tstr was left out: --mix synth: synth was made when the recordings" in " ".join(ran.err.split())


def test_training_is_refused_after_the_findings_where_the_generator_heard_the_fold(
    made: Path, urbansound8k_folder: Path, usk: Command
) -> None:
    manifest = json.loads((made / "usk.json").read_text())
    groups = sorted({clip.group for clip in open_source(urbansound8k_folder).clips})
    heard = [{"source": "urbansound8k", "folds": [1, 2, 3], "clips": len(groups), "groups": groups}]
    (made / "usk.json").write_text(json.dumps({**manifest, "trained_on": heard}))
    ran = usk("audit", made, "--real", urbansound8k_folder, "--tstr", "--epochs", 1)
    assert ran.code == 1 and "distance to the nearest real clip" in ran.out
    assert "would leak: its generator was trained on" in " ".join(ran.err.split())


def test_what_a_generator_heard_under_other_names_is_not_known(made: Path, urbansound8k_folder: Path) -> None:
    real = open_source(urbansound8k_folder)
    synth = replace(open_source(made), model_groups=frozenset({real.clips[0].group}))
    then = replace(real, clips=tuple(replace(clip, group=f"{clip.group}-then") for clip in real.clips))
    assert {part.generator_trained_on for part in audit(synth, real).folds} == {0, 1}
    found = audit(synth, then)
    assert {part.generator_trained_on for part in found.folds} == {None} and len(found.wrong_provenance) == 12
    heard = replace(synth, model_groups=frozenset({real.clips[0].clip_id}))
    assert {part.generator_trained_on for part in audit(heard, real).folds} == {0, 1}, (
        "a clip of the recording"
    )


def test_a_generator_that_is_known_in_part_is_not_called_known(
    usk: Command, made: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    """As `usk fit --from` records one that does not say what it was trained on: in warnings, the run and the audit."""
    heard = next(clip.group for clip in open_source(urbansound8k_folder).clips if clip.fold == 1)
    parts = [
        {"source": "unknown clips of x", "folds": [], "clips": 0, "groups": [], "note": "it does not say"},
        {"source": "urbansound8k", "folds": [1], "clips": 2, "groups": [heard]},
    ]
    manifest = json.loads((made / "usk.json").read_text())
    for known, trained_on in ((True, parts[1:]), (False, parts)):
        (made / "usk.json").write_text(json.dumps({**manifest, "trained_on": trained_on}))
        assert open_source(made).model_unknown is not known
        common = ("--real", urbansound8k_folder, "--json")
        found = usk("audit", made, *common).value
        assert [part["generator_trained_on"] for part in found["folds"]] == [1, *[0 if known else None] * 2]
        train = ("train", *common, "--synth", made, "--mix", "real,synth", "--folds", 3, "--epochs", 1)
        ran = usk(*train, "--out", tmp_path / str(known))
        assert ran.code == 0, ran.err
        assert usk("info", made, "--json").value["recordings the generator heard"] == (
            1 if known else "1 and unknown: leaks from it cannot be ruled out"
        )
        record = json.loads((Path(ran.value["runs"][0]["folder"]) / "run.json").read_text())
        for said in (found["notes"], record["leaks"], [" ".join(ran.err.split())]):
            assert any("a part of what " in sentence for sentence in said) is not known


def test_a_generator_that_heard_what_has_other_names_is_noted(made: Path, urbansound8k_folder: Path) -> None:
    synth = replace(open_source(made), model_groups=frozenset({"elsewhere/1"}))
    found = audit(synth, open_source(urbansound8k_folder))
    assert "has heard elsewhere: if " in found.notes[1]
    assert {part.generator_trained_on for part in found.folds} == {None}


def test_defects_and_copies_are_named(made: Path, urbansound8k_folder: Path, usk: Command) -> None:
    real = open_source(urbansound8k_folder)
    row_of = {clip.clip_id: row for row, clip in enumerate(real.clips)}

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
        if row["clip_id"] == names[6]:  # of a clip that is no parent of it
            others = (clip for clip in real.clips if clip.group not in row["parent_groups"])
            samples = decoded.audio(row_of[next(others).clip_id])
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
    assert set(last(found["near_copies"])) >= {names[3], names[6]}
    assert not found["leaks"]


@pytest.mark.parametrize("classifier", ["small", "sb-cnn"])
def test_a_runs_classifier_can_embed(
    usk: Command, made: Path, urbansound8k_folder: Path, tmp_path: Path, classifier: str
) -> None:
    """Also one that looks at several patches of each clip."""
    from usk.audit.embeddings import classifier_embedding

    trained = usk(
        "train",
        "--real",
        urbansound8k_folder,
        "--out",
        tmp_path / "runs",
        "--classifier",
        classifier,
        "--epochs",
        1,
        "--folds",
        3,
        "--json",
    )
    run = trained.value["runs"][0]["folder"]
    clips = [tone(440, 0.5), tone(880, 4), tone(1_760, 2)]
    vectors = classifier_embedding(Path(run))(clips)
    assert len(vectors) == 3
    backwards = classifier_embedding(Path(run))(clips[::-1])
    np.testing.assert_allclose(backwards, vectors[::-1], rtol=1e-3, atol=1e-4)
    found = usk("audit", made, "--real", urbansound8k_folder, "--run", run, "--json").value
    assert found["embedding"].startswith(f"classifier of {Path(run).name}, trained on ")
    assert found["distance"]["mmd"] is not None


def test_the_run_on_most_real_clips_and_no_others_embeds_by_default(
    usk: Command, made: Path, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ("--real", urbansound8k_folder, "--epochs", 1, "--folds", 3)
    usk("train", *common, "--mix", "real", "--mix", "real,synth", "--synth", made, "--quiet")
    (run,) = Path("runs").glob("real_*")
    usk("train", *common, "--train-clips", 3, "--quiet")  # newer, and hardly trained
    (Path("runs") / "damaged").mkdir()
    (Path("runs") / "damaged" / "run.json").write_text("{")
    (Path("runs") / "weightless").mkdir()
    (Path("runs") / "weightless" / "run.json").write_text(
        json.dumps({**json.loads((run / "run.json").read_text()), "n_real": 9_999})
    )
    found = usk("audit", made, "--real", urbansound8k_folder, "--json").value
    n_real = json.loads((run / "run.json").read_text())["n_real"]
    named = f"classifier of {run.name}, trained on {n_real} real clips, before its last layer"
    assert n_real > 3 and found["embedding"] == named
    plain = usk("audit", made, "--real", urbansound8k_folder, "--embedding", "log-mel", "--json").value
    assert plain["embedding"] == "log-mel statistics" and plain["distance"] != found["distance"]


def test_trained_on_synthetic_tested_on_real_by_class(
    usk: Command, made: Path, urbansound8k_folder: Path
) -> None:
    common = ("audit", made, "--real", urbansound8k_folder, "--test-folds", 3, "--tstr", "--epochs", 6)
    found = usk(*common, "--json").value["transfer"]
    assert [part["class_name"] for part in found] == ["all", "car_horn", "dog_bark", "siren"]
    for part in found:
        assert (
            part["synthetic"]["n_real"]
            == part["real"]["n_real"]
            == (18 if part["class_name"] == "all" else 6)
        )
        assert part["synthetic"]["n"] == 12
        for score in (part["synthetic"], part["real"]):
            if score["value"] in (0, 1):  # nothing varies, so that nothing is known of how much it does
                assert score["low"] is score["high"] is None
            else:
                assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    by_class = [part["real"]["value"] for part in found]
    assert by_class[0] == pytest.approx(np.mean(by_class[1:]), abs=1e-3), "as many clips of each class"
    shown = usk(*common)
    assert shown.code == 0 and "on synthetic" in shown.out


@pytest.fixture(scope="module")
def tiny_listeners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random audio models of `transformers`: one that pools nothing, and a CLAP."""
    import transformers as hf

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("listeners")
    wave = hf.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(10, 10), conv_kernel=(10, 10), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
    )  # fmt: skip
    hf.Wav2Vec2Model(wave).save_pretrained(root / "wave")
    hf.Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(root / "wave")
    audio = {
        "num_mel_bins": 64, "spec_size": 128, "patch_size": 4, "patch_stride": [4, 4], "patch_embeds_hidden_size": 8,
        "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2], "window_size": 4, "num_hidden_layers": 2,
        "projection_dim": 12,
    }  # fmt: skip
    text = {
        "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "projection_dim": 12,
    }  # fmt: skip
    clap = hf.ClapConfig(audio_config=audio, text_config=text, projection_dim=12)
    hf.ClapModel(clap).save_pretrained(root / "clap")
    hf.ClapFeatureExtractor(truncation="rand_trunc", max_length_s=1).save_pretrained(root / "clap")
    return {"wave": root / "wave", "clap": root / "clap"}


@pytest.mark.parametrize(("kind", "dimensions"), [("wave", 16), ("clap", 12)])
def test_an_audio_model_of_transformers_can_embed(
    usk: Command,
    made: Path,
    urbansound8k_folder: Path,
    tiny_listeners: dict[str, Path],
    kind: str,
    dimensions: int,
) -> None:
    from usk.audit.embeddings import transformers_embedding

    embed = transformers_embedding(str(tiny_listeners[kind])).embed
    clips = [tone(440, 0.5), tone(440, 0.01), tone(880, 12)]
    vectors = embed(clips)
    assert vectors.shape == (3, dimensions) and np.isfinite(vectors).all()
    assert np.array_equal(embed(clips[::-1]), vectors[::-1]), "each clip by itself"
    if kind == "wave":
        ran = usk("audit", made, "--real", urbansound8k_folder, "--embedding", tiny_listeners[kind], "--json")
        assert ran.code == 0, ran.err
        assert ran.value["embedding"] == str(tiny_listeners[kind])
        assert ran.value["distance"]["mmd"] is not None


@pytest.mark.parametrize("weights", ["safetensors", "bin", "both"])
def test_an_audio_model_of_the_hub_can_embed(
    hub: LocalHub, tiny_listeners: dict[str, Path], tmp_path: Path, weights: str
) -> None:
    from usk.audit.embeddings import transformers_embedding

    folder = shutil.copytree(tiny_listeners["wave"], tmp_path / "wave")
    if weights != "safetensors":
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    if weights == "bin":
        (folder / "model.safetensors").unlink()
    commit = hub.create_repo("model", "me/wave", folder).branches["main"]
    there = transformers_embedding("me/wave@main")
    assert there.name == f"me/wave@{commit}"
    wanted = transformers_embedding(str(folder)).embed([tone(440, 0.5)])
    np.testing.assert_array_equal(there.embed([tone(440, 0.5)]), wanted)
    asked = {path.rpartition(".")[2] for _, path, _ in hub.requests if "/resolve/" in path}
    assert asked == {"json", "bin" if weights == "bin" else "safetensors"}
    hub.stop()
    assert transformers_embedding("me/wave").name == there.name


def test_an_embedding_that_cannot_be_is_one_line(
    usk: Command, made: Path, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    common = ("audit", made, "--real", urbansound8k_folder, "--quiet")
    for given, code, message in (
        (("--embedding", tmp_path / "empty"), 2, "is no audio model that transformers can load"),
        (("--embedding", "nobody/nothing"), 2, "--embedding nobody/nothing cannot be reached (no network?)"),
        (("--embedding", "log-mel", "--run", tmp_path), 2, "--run"),
        (("--seeds", 3), 2, "--seeds belongs to --tstr"),
        (("--epochs", 3), 2, "--epochs belongs to --tstr"),
    ):
        ran = usk(*common, *given)
        assert (ran.code, ran.err.count("\n"), ran.out) == (code, 1, ""), ran.err
        assert message in ran.err
    monkeypatch.setitem(sys.modules, "transformers", None)
    ran = usk(*common, "--embedding", tmp_path / "empty")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert f"--embedding {tmp_path / 'empty'} needs transformers, which is not installed" in ran.err
    assert ran.err.endswith("pip install 'urban-sound-kit[hf]', or use --embedding log-mel\n")


def test_two_embeddings_at_once_are_refused(tmp_path: Path) -> None:
    from usk.audit.embeddings import embedding_named

    with pytest.raises(UsageError, match="two embeddings"):
        embedding_named("log-mel", tmp_path)


def test_the_library_takes_any_embedding(made: Path, urbansound8k_folder: Path) -> None:
    mine = Embedding("first two", lambda audio: log_mel_statistics(audio)[:, :2])
    found = audit(open_source(made), open_source(urbansound8k_folder), embedding=mine)
    assert found.embedding == "first two" and found.distance.mmd is not None


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


def test_clips_that_cannot_be_used_hold_nothing_back(usk: Command, tmp_path: Path) -> None:
    """`usk audit` splits as `usk synth` and `usk train` do: without clips that cannot be used. With a third of the others silent
    fewer validate, and some that would have give parents."""
    folder, out = tmp_path / "city", tmp_path / "synth"
    for label, name in enumerate(("low", "high")):
        for recording in range(40):
            write_wav(
                folder / name / f"{name}{recording}" / "a.wav", tone(300 * (1 + label) + 5 * recording, 0.3)
            )
    everything = open_source(folder)
    held = held_out_groups(everything.clips)
    silent = [ref.path for clip, ref in zip(everything.clips, everything.audio, strict=True)
              if clip.group not in held and clip.fold != 1][::3]  # fmt: skip
    for file in silent:
        soundfile.write(file, np.zeros(6_600), 22_050)
    common = ("--real", folder, "--skip-bad", "--quiet")
    folds = ",".join(str(fold) for fold in everything.folds if fold != 1)
    made = usk("synth", *common, "--strategy", "classical", "--per-class", 40, "--folds", folds, "--out", out)
    assert made.code == 0, made.err
    parents = {group for clip in open_source(out).clips for group in clip.parent_groups}
    assert parents & held, "else this tests nothing"
    ran = usk("audit", out, "--real", folder, "--test-folds", 1, "--json")
    assert ran.code == 0 and ran.value["asked_leaks"] == 0, ran.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--save",), "--save writes into the folder of a dataset that usk synth made"),
        (("--tstr", "--seeds", 0), "--seeds must be at least 1"),
        (("--tstr", "--epochs", 0), "--epochs must be at least 1"),
        (("--device", "cpu"), "--device belongs to --tstr; add --tstr, or leave it out"),
        (("--tstr", "--device", "nonsense"), "--device nonsense is no device that torch knows"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    made: Path, urbansound8k_folder: Path, usk: Command, options: tuple[Any, ...], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def too_late(*_: Any, **__: Any) -> None:
        raise AssertionError("the audit has begun")

    monkeypatch.setattr("usk.audit.quality.audit", too_late)
    (made / "plan.jsonl").unlink()
    ran = usk("audit", made, "--real", urbansound8k_folder, *options)
    assert ran.code == 2 and ran.err.startswith(f"usk: {said}") and ran.err.count("\n") == 1


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
    assert f"| near-copies of a real clip | {len(ran.value['near_copies'])} |" in card
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
    parents = {name for clip in open_source(made).clips for name in clip.parents}
    assert any(before[name] != after[name] for name in parents)
    ran = usk("audit", made, "--real", folder, "--json")
    assert ran.code == 0 and ran.value["wrong_provenance"] == [], ran.err
    parent = tmp_path / min(parents)
    parent.parent.rename(parent.parent.with_name("r99"))
    ran = usk("audit", made, "--real", folder, "--json")
    assert ran.code == 3 and "a parent is not in the source" in ran.value["wrong_provenance"][0]


def test_copies_among_real_clips_do_not_hide_near_copies() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 8)).astype(np.float32)
    values[:4] = values[4:8]  # of other recordings
    near = (values[20:22] + 1e-2).astype(np.float32)
    decoded = SimpleNamespace(source=SimpleNamespace(clips=[SimpleNamespace(parents=()) for _ in near]))
    real = RealClips(values, [0] * 60, [f"r{number}" for number in range(60)])
    found = _Neighbours(decoded, near, real, {})  # type: ignore[arg-type]
    assert found.limit is not None and found.limit > 0.5 and found.copies() == [0, 1]
