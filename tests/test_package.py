"""The package: public names, requirements, and its wheel."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import usk

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", usk.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(usk, name) is not None


def test_functions_stay_functions_beside_modules_of_their_name() -> None:
    code = """if True:
    import usk
    import usk.push, usk.report.page, usk.study.run, usk.diffusion.fit
    from usk.push_plan import PushPlan
    assert all(callable(getattr(usk, name)) for name in ("push", "report", "study", "fit"))
    assert usk.push.__module__ == "usk.push" and usk.PushPlan is PushPlan
    """
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'usk' has no attribute 'nothing'"):
        _ = usk.nothing  # type: ignore[attr-defined]


def test_importing_usk_imports_nothing_heavy() -> None:
    code = "import sys, usk; print([m for m in ('torch', 'numpy', 'datasets', 'rich', 'typer') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_torch_is_held_below_2_12_beside_its_torchaudio() -> None:
    held = {re.split(r"[<>=]", line)[0]: line for line in PROJECT["project"]["dependencies"]}
    assert held["torch"] == "torch>=2.11,<2.12"
    assert held["torchaudio"] == "torchaudio>=2.11,<2.12"


def test_constraints_are_exact_versions_without_addresses() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line) for line in pinned)
    assert not re.search(r"https?:|index-url|find-links|@", "\n".join(pinned))
    names = {line.partition("==")[0].lower() for line in pinned}
    needed = {re.split(r"[<>=\[]", line)[0].lower() for line in PROJECT["project"]["dependencies"]}
    assert needed <= names


def test_the_distribution_has_a_name_of_its_own() -> None:
    """`usk` on the package index is another project, so no page may tell users to install it."""
    assert PROJECT["project"]["name"] == "urban-sound-kit" and PROJECT["project"]["scripts"] == {
        "usk": "usk.cli.app:main"
    }
    wrong = re.compile(r"pip3? install (-\S+ )*['\"]?usk\b|['\"]usk\[\w+\]")
    pages = [path for path in ROOT.glob("*") if path.suffix in (".md", ".toml", ".txt")]
    pages += [path for folder in ("usk", "docs", "cards") for path in (ROOT / folder).rglob("*.[mp][dy]")]
    assert len(pages) > 50 and [path for path in pages if wrong.search(path.read_text())] == []


def test_the_package_is_gpl_as_audiodiffusion_is() -> None:
    assert PROJECT["project"]["license"] == "GPL-3.0-or-later"
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text()


def test_the_cards_travel_with_the_wheel() -> None:
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {
        "cards": "usk/card_templates"
    }
    assert {path.name for path in (ROOT / "cards").iterdir()} >= {"dataset.md", "generator.md"}


def test_the_reports_templates_lie_inside_the_package() -> None:
    templates = ROOT / "usk" / "report" / "templates"
    assert {path.name for path in templates.iterdir()} == {"report.html", "report.css", "report.js"}
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["usk"]


def test_nothing_below_the_command_line_prints_or_imports_rich() -> None:
    for path in (ROOT / "usk").rglob("*.py"):
        where = path.relative_to(ROOT / "usk").as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert where.startswith("cli/"), where
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            tops = {name.partition(".")[0] for name in imported}
            assert "click" not in tops, where
            assert "rich" not in tops or where.startswith("cli/"), where


def test_python_takes_locations_shows_its_work_and_prints_short_results(
    tone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = usk.SynthConfig(per_class=1, render=usk.render_configs(strategy="waveform"))
    made = usk.synthesize(tone_folder, "synth", config, reporter=usk.Display())
    shown = capsys.readouterr()
    assert "3 clips: strategy waveform" in shown.err and not shown.out
    training = usk.TrainConfig(seeds=1, epochs=1, test_folds=(1,))
    trained = usk.train(str(tone_folder), "real,synth", synth=made.folder, config=training)
    page = usk.report(config=usk.ReportConfig(audit=False), real=tone_folder)
    assert page.n_clips == 3 and not page.notes  # parents have their sound
    real = usk.open_source(tone_folder)
    assert usk.open_source(real) is real
    assert repr(real.clips[0]).endswith(f"label=0, group='{real.clips[0].group}', fold={real.clips[0].fold})")
    for value in (real, made, trained, usk.compare()):
        assert len(repr(value)) < 4_000, value
    with pytest.raises(usk.UskError) as missing:
        usk.fit("./nowhere", "generator")
    assert (missing.value.field, missing.value.value) == ("real", "./nowhere")
