"""Files are written atomically and never through a link. One process at a time fills a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from usk.errors import ModelError, UsageError, UskError, disk_errors
from usk.files import LOCK_FILE, PARTIAL, atomic_write, exclusive_lock, read_json
from usk.reporter import Reporter


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a link with the file's name, nor one with a guessed name of the temporary file."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".README.md.part").symlink_to(victim)
    (tmp_path / "README.md").symlink_to(victim)
    atomic_write(tmp_path / "README.md", b"card")
    assert (tmp_path / "README.md").read_text() == "card" and not (tmp_path / "README.md").is_symlink()
    monkeypatch.setattr("secrets.token_hex", lambda n: "guessed")
    (tmp_path / PARTIAL.format("guessed")).symlink_to(victim)
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "README.md", b"other")
    assert victim.read_text() == "mine" and (tmp_path / "README.md").read_text() == "card"


def test_what_could_not_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UskError, match="is full"), disk_errors(tmp_path):
        atomic_write(tmp_path / "a", b"after")
    assert [file.name for file in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "before"


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("x")
    atomic_write(tmp_path / "ours", b"x", durable=False)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_the_lock_keeps_others_out_and_clears_what_a_killed_process_left(tmp_path: Path) -> None:
    left = tmp_path / PARTIAL.format("0123")
    left.write_text("half")
    with exclusive_lock(tmp_path, "usk synth"):
        assert not left.exists()
        with (
            pytest.raises(UsageError, match="being filled") as refused,
            exclusive_lock(tmp_path, "usk synth"),
        ):
            pass
        assert refused.value.field == "out"
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EPERM])
def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    reporter = Reporter()
    with exclusive_lock(tmp_path, "usk synth", reporter=reporter):
        atomic_write(tmp_path / "a", b"x")
    assert len(reporter.warnings) == 1 and "no locks" in reporter.warnings[0]


def test_a_read_only_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(UsageError, match="Read-only"), exclusive_lock(tmp_path, "usk synth"):
        pass


@pytest.mark.parametrize("content", [None, b"{", b"[" * 100_000, b"\xff", b"", b"[]"])
def test_a_file_without_a_json_object_raises_the_given_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(ModelError, match="unreadable"):
        read_json(tmp_path / "a", ModelError, "unreadable")
