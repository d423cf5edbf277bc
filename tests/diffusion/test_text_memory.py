"""What text-to-audio models take, computed from their configurations, is what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.diffusion.published import PUBLISHED, save_published
from usk.diffusion.text_memory import memory_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "text-to-audio.md"


@pytest.mark.slow
def test_the_page_says_what_usk_info_computes_from_the_published_configurations(tmp_path: Path) -> None:
    lines = [
        line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if "|" in line
    ]
    said = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    for name in PUBLISHED:
        found = memory_of(str(save_published(name, tmp_path / name)))
        numbers = [f"{value:.1f}" for value in found.values() if isinstance(value, float)]
        assert [re.sub(r" GB$", "", cell) for cell in said[name][-4:]] == numbers, name
