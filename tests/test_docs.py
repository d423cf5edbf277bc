"""README and docs name files, options and functions that exist, in plain words."""

from __future__ import annotations

import re
import runpy
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from usk.cli.app import app
from usk.manifest import Manifest
from usk.runs import RunRecord
from usk.study.config import StudyConfig, read_study

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = sorted(page for page in (ROOT / "docs").rglob("*.md") if "studies" not in page.parts)
PAGES = [README, *DOCS]
COMMANDS = ROOT / "docs" / "reference" / "cli"
LONGEST_README, LONGEST_PAGE, LONGEST_SENTENCES = 180, 250, 20


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def prose(text: str) -> str:
    """The paragraphs and list items of a page: no code, tables, headings, comments or pictures."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|!\[)", line)]
    text = re.sub(r"^\s*([-*]|\d+\.) ", "\n\n", "\n".join(lines), flags=re.MULTILINE)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def sentences(text: str) -> list[str]:
    parts = re.split(r"(?<=[.!?:])\s+(?=[A-Z`*\d])|\n\s*\n", prose(text))
    return [part for part in parts if len(re.findall(r"\w+", part)) > 1]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_pages_are_short_and_their_sentences_too(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n") <= (LONGEST_README if page == README else LONGEST_PAGE)
    lengths = [len(part.split()) for part in sentences(text)]
    if lengths:
        assert sum(lengths) / len(lengths) <= LONGEST_SENTENCES


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_and_places_in_the_code_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, file in re.findall(r"(?:`(\w+)` in )?`((?:usk|tests|cards)/[\w/.]*)`", text):
        assert (ROOT / file).is_dir() or re.search(rf"\b{name}\b", (ROOT / file).read_text("utf-8")), file
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_and_option_that_is_shown_exists(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in shell_lines(page):
        words = shlex.split(line, comments=True)
        places = [place for place, word in enumerate(words) if word == "usk" or word.endswith("/usk")]
        if not places or len(words) == places[0] + 1:
            continue
        name, *rest = words[places[0] + 1 :]
        known = {option for parameter in commands[name].params for option in parameter.opts}
        used = [word.partition("=")[0] for word in rest if word.startswith("--")]
        assert not set(used) - known - {"--json", "--quiet", "--verbose", "--help"}, line


def test_the_readme_names_each_part_of_the_code() -> None:
    text = README.read_text(encoding="utf-8")
    tree = text[text.index("## The code") : text.index("## License")]
    named = set(re.findall(r"[a-z_]+(?:\.py|/)", tree))
    modules = {file.name for file in (ROOT / "usk").glob("*.py") if not file.name.startswith("__")}
    rooms = {f"{file.parent.name}/" for file in (ROOT / "usk").glob("*/__init__.py")}
    assert named == modules | rooms | {"usk/"}
    assert rooms == set(re.findall(r"^.── ([a-z_]+/)", tree, flags=re.MULTILINE)), "a line for each"


FORMATS = ROOT / "docs" / "reference" / "formats.md"


@pytest.mark.parametrize(
    ("heading", "record"), [("### usk.json", Manifest), ("### run.json", RunRecord), ("## A study", StudyConfig)]
)  # fmt: skip
def test_the_fields_of_files_that_are_explained_are_there(heading: str, record: type) -> None:
    text = (
        FORMATS.read_text(encoding="utf-8").partition(heading)[2].partition("\n## ")[0].partition("\n### ")[0]
    )
    cells = re.findall(r"^\| (`.+?) \|", text, flags=re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    known = {field.name for field in fields(record)}
    assert named and named <= known, named - known
    if record is StudyConfig:
        assert named == known, known - named


def test_the_study_that_is_shown_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        FORMATS.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    )
    assert read_study(tmp_path / "study.toml").clips_of("50") == ["mixed", "drawn"]


def test_the_pages_of_the_command_line_are_those_of_its_commands() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "cli.py"))["pages"]()
    there = {page.name: page.read_text(encoding="utf-8") for page in COMMANDS.iterdir()}
    assert there == made, "run python docs/cli.py"


def test_both_commands_are_marked_for_ci() -> None:
    text = README.read_text(encoding="utf-8")
    for name in ("demo", "tests"):
        assert re.search(rf"<!-- run: {name} -->\n```sh\n.+?\n```", text, flags=re.DOTALL)
