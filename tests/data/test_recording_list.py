"""Lists of recordings that a model was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from usk.data.recording_list import read_recordings
from usk.errors import UsageError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ids.txt", "\ufeff# Freesound\n100032\n\n 21684 \nother/street\n100032\n"),
        ("ids.csv", "title,Freesound_ID\na,100032\nb,21684\nc,other/street\n"),
    ],
)
def test_freesound_ids_name_recordings_of_urbansound8k_and_of_the_source(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    part = read_recordings(str(tmp_path / name), "mine")
    owners = [f"{owner}/{number}" for owner in ("mine", "urbansound8k") for number in (100032, 21684)]
    assert part["groups"] == sorted([*owners, "other/street"]) and part["clips"] == 3
    assert "note" not in part


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.txt", None),
        ("empty.txt", b"# nothing\n"),
        ("words.txt", b"a dog\n"),
        ("bytes.txt", b"\xff\xfe1"),
        ("columns.csv", b"title\n1\n"),
        ("long.csv", b"fsID\n" + b"x" * 200_000),
        ("number.txt", b"9" * 5_000),
    ],
)
def test_a_wrong_list_is_refused(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_recordings(str(tmp_path / name), "mine")
    assert caught.value.field == "trained_on" and caught.value.value == str(tmp_path / name)
