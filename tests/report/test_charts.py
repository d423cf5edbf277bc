"""Tests of charts: CSS variables as colors, names as text, PNG files."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.runs import write_run
from usk.evaluate.details import ComparisonDetails, SweepPoint, compare_in_detail
from usk.report.canvas import PAGE_COLORS, Chart, shorten
from usk.report.charts import comparison_charts
from usk.report.line_charts import sweep_chart

HOSTILE = ("</svg><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{1}{0}$ --> ]]>")


@pytest.fixture(scope="module")
def details(tmp_path_factory: pytest.TempPathFactory) -> ComparisonDetails:
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        write_run(root, "real", seed, skill=0.5, class_names=HOSTILE)
        write_run(
            root, "real,<b>synth</b>", seed, skill=0.6 + 0.1 * seed, class_names=HOSTILE, n_synthetic=40
        )
        write_run(root, "real,few", seed, skill=0.2, class_names=HOSTILE, n_real=10)
    return compare_in_detail(root)[0]


def texts_of(svg: str) -> list[str]:
    elements = ElementTree.fromstring(svg).iter()
    return ["".join(element.itertext()) for element in elements if element.tag.endswith("text")]


@pytest.mark.parametrize("names", [HOSTILE, ('$x$ #010101 id="x"', "font: 9px #010203")])
def test_names_that_look_like_markup_or_colors_are_text(tmp_path: Path, names: tuple[str, ...]) -> None:
    for mix in ("real", "real,synth"):
        write_run(tmp_path, mix, class_names=names)
    charts = comparison_charts(compare_in_detail(tmp_path)[0])
    (chart,) = (chart for chart in charts if chart.name.startswith("classes-"))
    assert {shorten(name) for name in names} <= set(texts_of(chart.svg(False)))


def test_a_comparison_has_all_its_charts_and_their_texts_every_value(details: ComparisonDetails) -> None:
    charts = comparison_charts(details)
    assert [chart.name for chart in charts] == [
        "accuracy", "difference", "classes-real,<b>synth</b>", "classes-real,few", "confusion-real,<b>synth</b>",
        "confusion-real,few", "curve-validation_accuracy", "curve-loss",
    ]  # fmt: skip
    accuracy, difference, *_ = charts
    assert "real 50.0 % ± 0.0" in accuracy.description
    assert len(accuracy.table.rows) == 9
    assert details.comparison.rows[1].sentence in difference.description
    for chart in charts:
        assert chart.description.endswith(".")
        assert all(len(row) == len(chart.table.columns) for row in chart.table.rows)


def sweep(mixes: list[str], sizes: tuple[int, ...] = (50, 100, 6_895, 6_900)) -> Chart:
    """Draw a sweep. Accuracies increase with the size, and slightly from mix to mix."""
    return sweep_chart(
        [
            SweepPoint(mix, size, mean, mean - 0.05, mean + 0.02, 3)
            for place, mix in enumerate(mixes)
            for size, mean in zip(sizes, (0.3 + 0.01 * place, 0.4, 0.6, 0.61), strict=False)
        ]
    )


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("n_mixes", [1, 3, 4, 8, 9])
def test_every_series_of_a_sweep_has_a_unique_name_and_marker(n_mixes: int, narrow: bool) -> None:
    mixes = ["real", *(f"real,/long/way/to/the/datasets/of/kind{number}" for number in range(1, n_mixes))]
    svg = sweep(mixes).svg(narrow)
    texts = texts_of(svg)
    assert "real" in texts
    ends = [text for text in texts if re.search(r"/kind\d$", text) and len(text) <= 30]
    assert len(set(ends)) == n_mixes - 1
    assert [text for text in texts if "," in text and text[0].isdigit()] == [
        "6,895"
    ]  # 6,900 is too close for a tick
    shapes = dict(re.findall(r'<path id="(\w+)" d="([^"]+)"', svg))
    used = re.findall(r'<use [^>]*href="#(\w+)"[^>]*style="fill: (var\(--series-\d\)); stroke', svg)
    assert len({(shapes[marker], color) for marker, color in used}) == n_mixes


def test_a_sweep_has_its_values_as_text(tmp_path: Path) -> None:
    chart = sweep(["real", "real,synth"], (50, 100))
    assert chart.description == (
        "real from 30.0 % with 50 to 40.0 % with 100; real,synth from 31.0 % with 50 to 40.0 % with 100."
    )
    assert chart.table.rows[0] == ("real", "50", "3", "30.0", "25.0", "32.0")
    assert "side by side, with dots at the mean of real" in chart.caption
    assert sweep(["real"], (50,)).description == "real 30.0 % with 50."
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "chart.png").symlink_to("victim")  # the link is replaced, not followed
    chart.png(tmp_path / "chart.png")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "chart.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("narrow", [False, True])
def test_svgs_are_valid_without_colors_scripts_and_links(details: ComparisonDetails, narrow: bool) -> None:
    names: list[str] = []
    for chart in comparison_charts(details):
        svg = chart.svg(narrow)
        root = ElementTree.fromstring(svg)
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect"}
        assert not re.search(r"#[0-9a-f]{6}\b(?!\")", re.sub(r'"#[^"]*"|url\(#[^)]*\)', "", svg)), chart.name
        assert not [color for color in (PAGE_COLORS.ink, *PAGE_COLORS.series) if color in svg]
        assert "var(--" in svg
        assert set(re.findall(r"https?://[^\"]*", svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        names += re.findall(r'\sid="([^"]+)"', svg)
    assert len(names) == len(set(names))  # all charts are in one page


def test_without_differences_no_mix_class_or_confusion_stands_out(tmp_path: Path) -> None:
    for mix in ("real", "real,synth"):
        write_run(tmp_path, mix)
    charts = {chart.name: chart for chart in comparison_charts(compare_in_detail(tmp_path)[0])}
    assert charts["accuracy"].description.endswith("The highest mean is that of real and real,synth.")
    assert charts["classes-real,synth"].description == "Recall is the same for every class."
    assert not charts["confusion-real,synth"].table.rows


def test_a_mean_over_different_folds_cannot_be_the_highest(tmp_path: Path) -> None:
    for fold, easy in ((1, 0.0), (2, 0.3)):
        write_run(tmp_path, "real", fold=fold, skill=0.5 + easy)
        write_run(tmp_path, "real,synth", fold=fold, skill=0.6 + easy)
    write_run(tmp_path, "real,own", fold=2, skill=0.8)  # only on the easier fold
    accuracy, *_ = comparison_charts(compare_in_detail(tmp_path)[0])
    assert accuracy.description.endswith("The highest mean is that of real,synth.")
