"""Which audio files a folder has, and which of them a table means, however it writes their names."""

from __future__ import annotations

import functools
import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from usk.data.audio_file import AUDIO_SUFFIXES, UNREAD_SUFFIXES, is_audio
from usk.data.listing import TABLE_SUFFIXES
from usk.files import is_text, visible_files

PARTS = re.compile(
    r"(train(ing)?|test(ing)?|val(id(ation)?)?|dev(elopment)?|eval(uation)?|h[eo]ldout|(un)?labell?ed)(set)?s?|tr|cv|tt|te"
)
CONTAINERS = re.compile(
    r"(fold|split|part|subset)\d*|audios?|sounds?|wavs?|flac|mp3|ogg|clips?|data|dataset|recordings?|files|raw|original|k|khz|genres|archive"
)
ELSEWHERE = re.compile(r"/|[A-Za-z][\w+.-]*:[\\/]|\\\\")  # absolute, of Windows, or a URL
UNREAD_TABLES = (
    ".xlsx", ".xls", ".ods", ".feather", ".arrow", ".pkl", ".pickle", ".h5", ".hdf5", ".sqlite", ".textgrid", ".eaf",
    ".ann", ".lab",
)  # fmt: skip
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class OutsideError(Exception):
    """A name that leads out of the folder."""


@dataclass(frozen=True)
class AudioFolder:
    """What lies below a folder. Files are relative to it."""

    root: Path
    audio: tuple[PurePosixPath, ...]
    unread: tuple[PurePosixPath, ...]  # audio of kinds that usk does not read
    tables: tuple[PurePosixPath, ...]
    packed: tuple[PurePosixPath, ...]  # archives, and tables of kinds that usk does not read
    lost: dict[str, list[str]]  # audio that cannot be listed, by why
    links: tuple[str, ...]  # left out: they lead to what is in the folder anyway, or above it

    @functools.cached_property
    def finder(self) -> FileFinder:
        return FileFinder(self.root, self.audio)

    @property
    def tops(self) -> list[str]:
        """The folders directly below that have audio, in order."""
        return sorted({file.parts[0] for file in self.audio if len(file.parts) > 1})

    def wrapper(self, with_tables: bool) -> str:
        """The folder that holds all there is, its sounds in folders of its own, as what archives unpack to; empty if none does.

        A single folder of another name than `archive` or `data`, without tables (notes are none), may be a class with folders of recordings.
        """
        places = {file.parent.as_posix() for file in (*self.audio, *self.unread, *self.packed)}
        tables = {file.parent.as_posix() for file in self.tables if with_tables}
        common = posixpath.commonpath(places | tables) if self.audio else ""
        listed = with_tables and any(file.suffix.lower() != ".txt" for file in self.tables)
        may_be_a_class = "/" not in common and not (listed or _says_part(common.lower()))
        return "" if common in {*places, "."} or may_be_a_class else common


def audio_folder(root: Path) -> AudioFolder:
    links: list[Path] = []
    audio: list[PurePosixPath] = []
    lost: dict[str, list[str]] = {}
    unread, tables, packed = [], [], []
    for file in visible_files(root, links):
        relative = PurePosixPath(file.relative_to(root).as_posix())
        if is_audio(file):
            name = os.fsencode(str(relative)).decode(errors="backslashreplace")
            if not is_text(str(relative)):
                lost.setdefault("named in other bytes than UTF-8", []).append(name)
            else:
                audio.append(relative)
        elif file.suffix.lower() in UNREAD_SUFFIXES:
            unread.append(relative)
        elif file.suffix.lower() in TABLE_SUFFIXES:
            tables.append(relative)
        elif file.suffix.lower() in (*UNREAD_TABLES, *ARCHIVES):
            packed.append(relative)
    left_out = []
    for link in links:
        name = os.fsencode(link.relative_to(root)).decode(errors="backslashreplace")
        if link.is_dir():
            left_out.append(name)
        elif is_audio(link):
            lost.setdefault("linked to nothing (git-annex?)", []).append(name)
    return AudioFolder(root, tuple(audio), tuple(unread), tuple(tables), tuple(packed), lost, tuple(left_out))


def name_parts(folders: Sequence[str]) -> bool:
    """Whether folders are named like parts of a data set (`audio_train`, `fold1`), and not like classes."""
    words = [
        set(re.findall(r"[a-z]+\d*|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))
        for name in folders
    ]
    shared = set.intersection(*words) if len(words) > 1 else set()
    own = [{word for word in each if word not in shared or _says_part(word)} for each in words]
    sides = [_sides(each) for each in words]
    if all(sides) and set.union(*sides) >= {"train", "test"}:  # `clean_testset`, `noisy_trainset`
        return True
    said = {max(_sides(each), default="") for each in own if all(map(_says_part, each))}
    if said >= {"train", "test"}:
        return True
    return bool(own) and all(
        all(_says_part(word) or word.isdecimal() for word in each) and any(map(_says_part, each))
        for each in own
    )


def _says_part(word: str) -> bool:
    return bool(PARTS.fullmatch(word) or CONTAINERS.fullmatch(word))


def _sides(words: set[str]) -> set[str]:
    """Of the words that say parts: whether they train or test."""
    said = [word for word in words if PARTS.fullmatch(word)]
    return {"train" if word.startswith(("tr", "dev", "label")) else "test" for word in said}


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class FileFinder:
    """Finds the audio files that a table names: with other slashes, letter case or Unicode form, without their suffix or with another,
    without their folders, absolute, or as they lay on another machine."""

    def __init__(self, root: Path, files: Sequence[PurePosixPath]) -> None:
        self.root = root
        self._exact = {file.as_posix() for file in files}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for file in files:
            self._by_name[_key(file.name)].append(file.as_posix())
            self._by_stem[_key(file.stem)].append(file.as_posix())

    def candidates(self, name: str, place: str = "") -> list[str]:
        """The files that `name`, written in a table in the folder `place`, can mean. Raises OutsideError."""
        if name in self._exact and not place:
            return [name]
        relative = self._relative(name.strip())
        if ELSEWHERE.match(relative):
            parts = [part for part in re.split(r"[/\\]+", _key(relative)) if part]
            return next(
                filter(None, (self._ending("/" + "/".join(parts[at:])) for at in range(len(parts)))), []
            )
        joined = {posixpath.normpath(posixpath.join(base, relative)) for base in (place, "")}
        if all(path.startswith("..") for path in joined):
            raise OutsideError(name)
        for path in sorted(joined, reverse=True):
            if path in self._exact:
                return [path]
        found = self._ending("/" + _key(posixpath.normpath(relative).lstrip("./")))
        first, _, rest = relative.partition("/")
        # Written from the folder around this one
        if not found and rest and first == self.root.resolve().name:
            return self.candidates(rest, place)
        plain = unquote(name)
        return found or ([] if plain == name else self.candidates(plain, place))

    def _ending(self, wanted: str) -> list[str]:
        """The files whose path ends in `wanted`, or does so without their suffix, or with another one."""
        last = wanted.rpartition("/")[2]
        whole = [file for file in self._by_name.get(last, ()) if f"/{_key(file)}".endswith(wanted)]
        bare = [
            file
            for file in self._by_stem.get(last, ())
            if f"/{_key(posixpath.splitext(file)[0])}".endswith(wanted)
        ]
        stem, suffix = posixpath.splitext(wanted)
        return whole or bare or (self._ending(stem) if suffix in (*AUDIO_SUFFIXES, *UNREAD_SUFFIXES) else [])

    def _relative(self, name: str) -> str:
        """A name below the folder as relative to it, others as they are. Raises OutsideError for a file of this machine that lies elsewhere."""
        if ELSEWHERE.match(name):
            for root in (self.root.resolve(), self.root.absolute()):
                if Path(name).is_relative_to(root):
                    return Path(name).relative_to(root).as_posix()
            if os.path.lexists(name):
                raise OutsideError(name)
            return name
        return name if "/" in name else name.replace("\\", "/")

    def find_all(self, names: Sequence[str], place: str, hint: str) -> list[str | None]:
        """The file of each name, None where there is none. Of several that a name can mean, the one counts whose folder has most of
        the names, or is called like `hint`. Raises OutsideError, and ValueError for a name that stays ambiguous."""
        found = [self.candidates(name, place) for name in names]
        counts = Counter(posixpath.dirname(file) for files in found for file in files)
        words = set(re.findall(r"[a-z]+", hint.lower()))

        def rank(file: str) -> tuple[bool, int]:
            folder = posixpath.dirname(file)
            return bool(words & set(re.findall(r"[a-z]+", folder.lower()))), counts[folder]

        chosen: list[str | None] = []
        for name, files in zip(names, found, strict=True):
            best = sorted(files, key=rank, reverse=True)
            if len(best) > 1 and rank(best[0]) == rank(best[1]):
                raise ValueError(f"{name} can be {best[0]} or {best[1]}")
            chosen.append(best[0] if best else None)
        return chosen

    def nearest(self, name: str) -> str:
        """A file with a similar name, for messages; empty if none is."""
        last = re.split(r"[/\\]", name.strip())[-1]
        close = get_close_matches(_key(last), list(self._by_name)[:5_000], n=1)
        return self._by_name[close[0]][0] if close else ""


def looks_like_audio(name: object) -> bool:
    return isinstance(name, str) and PurePosixPath(name.strip()).suffix.lower() in AUDIO_SUFFIXES
