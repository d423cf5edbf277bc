"""The cache of opened folders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sounds import tone, write_wav
from usk.data import open as open_module
from usk.data import opened
from usk.data.cache import cache_root
from usk.data.decode import decode_source
from usk.data.open import open_source


@pytest.fixture
def read_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The folders that were analyzed, not read from the cache. Files count as old at once."""
    folders: list[Path] = []
    read = open_module.list_audio_folder

    def counting(path: Path):
        folders.append(path)
        return read(path)

    monkeypatch.setattr(open_module, "list_audio_folder", counting)
    monkeypatch.setattr(opened, "MIN_AGE_S", -60.0)
    monkeypatch.setattr(opened, "CODE", tmp_path)
    return folders


def kept() -> list[Path]:
    return list((cache_root() / "opened").glob("*"))


def test_a_folder_is_read_once(tone_folder: Path, read_folders: list[Path]) -> None:
    first = open_source(tone_folder)
    (file,) = kept()
    written = file.stat().st_mtime_ns, file.stat().st_ino
    assert open_source(tone_folder) == first and open_source(tone_folder) == first
    assert len(read_folders) == 1
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == written, "nothing is kept again"
    content = json.loads(file.read_bytes().partition(b"\n")[2])
    assert set(content) == {"source", "clips", "files"}
    assert str(tone_folder) not in json.dumps(content["files"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-9]),
        lambda file: file.write_bytes(file.read_bytes().replace(b"low0", b"low1", 1)),
    ],
    ids=["gone", "empty", "cut", "altered"],
)
def test_a_damaged_entry_is_read_again(
    tone_folder: Path, read_folders: list[Path], spoil: Callable[[Path], None]
) -> None:
    first = open_source(tone_folder)
    (file,) = kept()
    spoil(file)
    assert open_source(tone_folder) == first
    assert len(read_folders) == 2


def _change_time(folder: Path) -> None:
    file = folder / "low" / "low0" / "cut0.wav"
    os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns + 1))


def _replace(folder: Path, in_place: bool = False) -> None:
    """Another sound in a file of the same name, size and time."""
    file = folder / "low" / "low0" / "cut0.wav"
    before = file.stat()
    written = write_wav(file if in_place else file.with_name("other.wav"), tone(555, 0.4))
    written.replace(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size and (file.stat().st_ino == before.st_ino) is in_place


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_replaced_with_its_size_and_time_is_another(tone_folder: Path, in_place: bool) -> None:
    before = decode_source(open_source(tone_folder), 8_000).source
    _replace(tone_folder, in_place)
    after = decode_source(open_source(tone_folder), 8_000).source
    pairs = zip(before.clips, after.clips, strict=True)
    assert [one.clip_id for one, two in pairs if one.sound != two.sound] == ["tones/low/low0/cut0.wav"]
    assert after.revision != before.revision


TABLE = "file_name,label\nlow/low0/cut0.wav,bass\n"
CHANGES: dict[str, Callable[[Path], object]] = {
    "time": _change_time,
    "another file": _replace,
    "other content": lambda folder: _replace(folder, in_place=True),
    "a file less": lambda folder: (folder / "low" / "low0" / "cut0.wav").unlink(),
    "a class renamed": lambda folder: (folder / "low").rename(folder / "lower"),
    "a table": lambda folder: (folder / "metadata.csv").write_text(TABLE),
    "a class more": lambda folder: shutil.copytree(folder / "low", folder / "new"),
    "another reader": lambda folder: (opened.CODE / "new_kind.py").write_text("read = open\n"),
    "a link": lambda folder: (folder / "linked").symlink_to(folder / "low"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_folder_is_read_again(
    tone_folder: Path, read_folders: list[Path], change: Callable[[Path], None]
) -> None:
    open_source(tone_folder)
    change(tone_folder)
    now = open_source(tone_folder)
    assert len(read_folders) == 2
    shutil.rmtree(cache_root() / "opened")
    assert open_source(tone_folder) == now


def test_other_columns_have_an_entry_of_their_own(tone_folder: Path, read_folders: list[Path]) -> None:
    (tone_folder / "metadata.csv").write_text("file_name,label,kind\nlow/low0/cut0.wav,bass,x\n")
    classes = [open_source(tone_folder, label_column=name).class_names for name in ("label", "kind", "label")]
    assert classes == [("bass",), ("x",), ("bass",)]
    assert len(read_folders) == 2


def test_a_file_changed_just_now_is_not_cached(tone_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_source(tone_folder)
    assert not kept()
