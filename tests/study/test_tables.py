"""The tables in docs/ agree with the saved results of the studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study import load

tables = load("tables.py")


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_pages_agree_with_the_results(page: Path) -> None:
    text = page.read_text()
    assert tables.MARKED.search(text)
    assert text.count("<!-- table:") == text.count("<!-- /table -->") == len(tables.MARKED.findall(text))
    assert tables.filled(text) == text, "run python docs/studies/tables.py"


def test_every_table_is_on_a_page() -> None:
    shown = {name for page in tables.PAGES for _, name in tables.MARKED.findall(page.read_text())}
    assert shown == set(tables.TABLES)


def test_only_a_clear_result_is_bold() -> None:
    difference = {
        "difference_points": 5.06, "low_points": 1.04, "high_points": -0.0, "n_pairs_up": 8, "n_pairs": 9,
    }  # fmt: skip
    row = {"accuracy": {"mean": 0.5}, "difference": difference, "p_value_holm": 0.0123}
    sure = {**row, "sentence": "+5.1 points, ...: synthetic clips help"}
    unsure = {**row, "sentence": "+5.1 points, ...: not distinguishable from none"}
    assert tables.with_p(sure) == "50.0<br>**+5.1 (+1.0 to -0.0)**<br>8 of 9, p 0.012"
    assert tables.with_p(unsure) == "50.0<br>+5.1 (+1.0 to -0.0)<br>8 of 9, p 0.012"
    assert tables.with_p({**row, "difference": None}) == "50.0"
