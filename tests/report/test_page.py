"""Tests of `usk report`: the page, its budget, its assets and its errors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import usk as library
from tests.runs import write_run
from usk.data.clip import Clip
from usk.evaluate.details import compare_in_detail
from usk.report import gallery
from usk.report import page as module
from usk.report.gallery_data import _provenance
from usk.report.page import ReportConfig, report
from usk.synth.settings import render_config
from usk.text import visible

Command = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def kept_study(_tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "of"
    shutil.copytree(_tones, folder / "tones")
    config = library.SynthConfig(per_class=3, render=render_config(strategy="waveform"))
    library.synthesize(library.open_source(folder / "tones"), folder / "synth", config)
    for seed in (0, 1, 2):
        write_run(folder / "runs", "real", seed, skill=0.5)
        write_run(folder / "runs", "real,synth", seed, skill=0.7 + 0.05 * seed)
    return folder


@pytest.fixture
def study_folder(kept_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with ./tones, ./synth (9 clips) and ./runs."""
    monkeypatch.chdir(shutil.copytree(kept_study, tmp_path / "study"))
    return tmp_path / "study"


def test_a_page_contains_everything(usk: Command, study_folder: Path) -> None:
    shutil.copytree("synth/data", "synth/rejected/data")
    made = usk("report", "--real", "tones", "--json").value
    assert set(made) == {"page", "MB", "charts", "clips", "notes"}  # all clips are on it
    assert (made["clips"], made["charts"], made["notes"]) == (18, 6, [])
    page = Path("report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!#)', re.sub(r"<use [^>]*>", "", page))
    for row in compare_in_detail("runs")[0].comparison.rows[1:]:
        assert row.sentence in page and row.answer in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert len(data["clips"]) == 18 and 'id="rejected"' in page
    for sound in data["sounds"]:
        for media in (sound["audio"], sound["picture"]):
            assert f'id="m-{media["key"]}"' in page
    assert "Clips by test fold" in page and "wrong provenance</strong> none" in page
    assert (
        "in log-mel statistics (lower is closer)</caption>" in page
    )  # the runs have no weights to embed with
    result = library.report("page.html", ReportConfig(audit=False), real=library.open_source("tones"))
    assert (result.n_clips, result.n_all_clips) == (18, 18)
    assert result.n_bytes == Path("page.html").stat().st_size
    assert "The audit was left out" in Path("page.html").read_text()


def test_runs_alone_or_clips_alone(usk: Command, study_folder: Path) -> None:
    shutil.move("synth", "elsewhere")
    assert usk("report", "--json").value["clips"] == 0
    page = Path("report.html").read_text()
    assert 'id="compare"' in page
    assert 'id="listen"' not in page
    shutil.move("runs", "old-runs")
    made = usk("report", "--synth", "elsewhere", "--real", "tones", "--json").value
    assert (made["charts"], made["clips"]) == (0, 9)
    page = Path("report.html").read_text()
    assert 'id="compare"' not in page
    assert 'id="listen"' in page


def test_a_page_notes_that_it_shows_a_part_of_the_clips(
    usk: Command, study_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUDGET_BYTES", 1_060_000)
    made = usk("report", "--real", "tones", "--json").value
    assert 0 < made["clips"] < 9
    note = f"{made['clips']} of 9 clips are on this page, drawn evenly over classes and folds"
    assert made["notes"][-1] == note
    assert note in Path("report.html").read_text()
    assert made["MB"] <= 1.1


def test_split_writes_assets_and_deletes_old_ones(usk: Command, study_folder: Path) -> None:
    assets = study_folder / "report_files"
    assets.mkdir()
    for name in (f"{'0' * 16}.mp3", "mine.mp3"):
        (assets / name).write_bytes(b"")
    made = usk("report", "--real", "tones", "--split", "--json").value
    page = Path("report.html").read_text()
    files = {file.name for file in assets.iterdir()} - {"mine.mp3"}
    assert "mine.mp3" in {file.name for file in assets.iterdir()}
    assert f"{'0' * 16}.mp3" not in files
    assert files == set(re.findall(r"report_files/([0-9a-f]{16}\.\w+)", page))
    assert 'id="m-' not in page
    assert made["clips"] == 9


def write_runs_on_few_clips(mixes: tuple[str, ...] = ("real", "real,synth"), **changes: Any) -> None:
    """Write runs on 20 and 50 real clips. The fixture has runs on all 100."""
    for train_clips in (20, 50):
        for seed in (0, 1, 2):
            for number, mix in enumerate(mixes):
                skill = 0.2 + 0.004 * train_clips + 0.05 * number
                options = {"train_clips": train_clips, "n_real": train_clips, **changes}
                write_run(Path("runs"), mix, seed, skill=skill, **options)


def test_runs_with_several_numbers_of_train_clips_have_an_overview_first(
    usk: Command, study_folder: Path
) -> None:
    before = usk("report", "--no-audit", "--json").value["charts"]
    assert "By number of train clips" not in Path("report.html").read_text()
    write_runs_on_few_clips()
    made = usk("report", "--no-audit", "--json").value
    assert made["charts"] == 3 * before + 1
    page = Path("report.html").read_text()
    compare = page[page.index('id="compare"') : page.index('id="listen"')]
    headings = re.findall(r"<h2>(.*?)</h2>", compare)
    setting = "abcdefabcdef: classifier small, augment none"
    each = [f"{setting}, {n} train clips" for n in (20, 50)]
    assert headings == [f"By number of train clips: {setting}", *each, setting]
    sweep = compare[: compare.index("</article>")]
    assert "Accuracy against the number of real clips" in sweep
    assert sweep.count("<svg") == 2
    comparisons = usk("eval", "--json").value
    shown = [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>.*?</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", sweep[sweep.index("<figure") :], re.DOTALL)
    ]
    assert [row[:4] for row in shown[1:]] == [
        [row["mix"], str(row["n_real"]), str(row["n_runs"]), f"{100 * row['accuracy']['mean']:.1f}"]
        for number in (0, 1)
        for row in (comparison["rows"][number] for comparison in comparisons)
    ]


def test_many_charts_leave_less_room_for_clips(
    usk: Command, study_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[int] = []
    original = gallery.build_gallery

    def spy(*args: Any, **kwargs: Any) -> gallery.Gallery:
        budgets.append(kwargs["budget_bytes"])
        return original(*args, **kwargs)

    monkeypatch.setattr(gallery, "build_gallery", spy)
    monkeypatch.setattr(module, "RESERVED_BYTES", 250_000)
    write_runs_on_few_clips()
    assert usk("report", "--real", "tones", "--no-audit", "--json").code == 0
    page = Path("report.html").read_text()
    media = sum(map(len, re.findall(r'id="m-[^>]*>(.*?)</script>', page)))
    assert 250_000 < len(page.encode()) - media <= module.BUDGET_BYTES - budgets[0]


def test_each_setting_has_an_overview_by_train_clips(usk: Command, study_folder: Path) -> None:
    write_runs_on_few_clips()
    write_runs_on_few_clips(
        ("real", "real,a", "real,b", "real,synth", "real,c"), classifier="medium", optimistic=True
    )
    assert usk("report", "--no-audit").code == 0
    page = Path("report.html").read_text()
    second = page[page.index("<h2>By number of train clips: abcdefabcdef: classifier medium") :]
    assert "Careful" in second[: second.index("<figure")]
    assert "optimistic" in second[: second.index("<figure")]


def test_without_real_clips_the_page_has_a_note(usk: Command, study_folder: Path) -> None:
    ran = usk("report")  # the default source is on the Hub, which cannot be reached
    assert ran.code == 0
    assert "parents have no sound on the page" in ran.err


def test_clips_of_the_demo_find_their_source_despite_usk_real(
    usk: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tone_folder: Path, demo_cache: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USK_REAL", str(tone_folder))
    config = library.SynthConfig(per_class=1, classes=("siren",), render=render_config(strategy="waveform"))
    library.synthesize(library.open_source("demo"), "made", config)
    (tmp_path / "runs").mkdir()  # a stopped training left only a checkpoint
    (tmp_path / "runs" / ".real_small.checkpoint").write_bytes(b"")
    ran = usk("report --synth made --no-audit --json").done()
    assert ran.value["clips"] == 1 and not any("parents" in note for note in ran.value["notes"])
    assert "its parents have no sound here" not in Path("report.html").read_text()


def test_any_number_of_parents_is_listed() -> None:
    clip = Clip(
        clip_id="c", label=0, group="c", fold=1, parents=tuple(f"p{n}" for n in range(20)),
        parent_groups=("g",) * 20, parent_folds=(1,) * 20,
    )  # fmt: skip
    rows = dict(_provenance(Mock(clip=clip)))
    assert rows["parent A"].startswith("p0,") and rows["parent R"].startswith("p17,")
    assert rows["parent 19"].startswith("p18,") and rows["parent 20"].startswith("p19,")


def test_the_page_has_the_embedding_of_the_audit(usk: Command, study_folder: Path) -> None:
    shutil.rmtree("runs")
    usk("train", "--real", "tones", "--epochs", 1, "--test-folds", 1, "--seeds", 1, "--quiet")
    name = usk("audit", "--real", "tones", "--json").value["embedding"]
    assert name.startswith("classifier of real_small_fold1_seed0")
    usk("report", "--real", "tones")
    assert f"in {name} (lower is closer)</caption>" in Path("report.html").read_text()


def test_the_command_that_made_the_clips_is_on_the_page(usk: Command, study_folder: Path) -> None:
    report(config=ReportConfig(audit=False))
    assert (
        "Make the clips again" not in Path("report.html").read_text()
    )  # the library was called without a command
    file = Path("synth/usk.json")
    arguments = ["synth", "--strategy", "waveform", "--classes", "a b"]
    file.write_text(json.dumps({**json.loads(file.read_text()), "arguments": arguments}))
    report(config=ReportConfig(audit=False))
    assert "usk synth --strategy waveform --classes &#39;a b&#39;" in Path("report.html").read_text()


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 2, "neither runs nor a synthetic dataset"),
    "no runs": (["nowhere"], 2, "RUNS nowhere: no such folder"),
    "empty runs": (["tones"], 1, "no runs under tones"),
    "no dataset": (["--synth", "nowhere"], 1, "nowhere: no such folder"),
    "real clips as dataset": (["--synth", "tones"], 1, "tones is not a synthetic dataset"),
    "other clips": (["--real", "demo"], 1, "no parent of synth is in demo"),
    "no real clips": (["--real", "nowhere"], 1, "nowhere: no such folder"),
    "a folder": (["--out", "tones"], 2, "--out tones: "),
    "no page": (["--out", "page.pdf"], 2, "--out page.pdf: "),
    "below a file": (["--out", "synth/usk.json/report.html"], 2, "report.html: cannot be written"),
    "unknown mix": (["--baseline", "reel"], 2, "--baseline reel: "),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_an_error_of_one_line(usk: Command, study_folder: Path, name: str) -> None:
    arguments, code, message = MISTAKES[name]
    if name == "nothing":
        shutil.rmtree("runs")
        shutil.rmtree("synth")
    usk("report", "--quiet", *(["--real", "tones"] if "--real" not in arguments else []), *arguments).refused(
        code, message
    )
    assert not Path("report.html").exists()


def test_the_comparison_of_best_augmentations_comes_first_and_runs_count_once(tmp_path: Path) -> None:
    for augment, score in (("none", 0.5), ("basic", 0.6)):
        for seed in (0, 1):
            for mix in ("real", "real,synth"):
                write_run(tmp_path / "runs", mix, seed, augment=augment, validation_accuracy=score)
    report(tmp_path / "page.html", ReportConfig(runs=str(tmp_path / "runs"), synth=None, audit=False))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "8 runs of 2 mixes" in page
    headings = re.findall(r"<h2[^>]*>([^<]*: classifier small, [^<]*)</h2>", page)
    assert "best augmentation" in headings[0] and len(headings) == 3


def test_an_unfinished_default_dataset_is_left_out(usk: Command, study_folder: Path) -> None:
    (shard,) = Path("synth/data").iterdir()
    shard.unlink()
    ran = usk("report", "--json")
    assert ran.code == 0 and ran.value["clips"] == 0 and ran.value["charts"] > 0
    assert "./synth is left out" in ran.err and "unfinished" in ran.err
    assert usk("report", "--synth", "synth").code == 1
    shutil.rmtree("runs")
    assert usk("report").code == 1


def test_control_characters_in_names_are_replaced(usk: Command, tmp_path: Path) -> None:
    names = ("a\x1b[31m\x07", "b\u202e\x9b", "c")
    for seed in range(2):
        write_run(tmp_path / "runs", "real", seed, class_names=names)
        write_run(tmp_path / "runs", "real,synth", seed, skill=0.8, class_names=names)
    ran = usk("report", tmp_path / "runs", "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert ran.code == 0 and "a\ufffd[31m\ufffd" in page
    assert visible(page) == page and visible(ran.out) == ran.out and "u001b" not in page
