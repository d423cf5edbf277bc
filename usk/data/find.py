"""List the audio files of a folder, and find the files that a table names."""

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
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from usk.data.audio_file import AUDIO_SUFFIXES, UNREAD_SUFFIXES, is_audio
from usk.data.listing import TABLE_SUFFIXES
from usk.files import is_text, visible_files

# Words for the parts of a dataset.
PARTS = re.compile(
    r"(train(ing)?|test(ing)?|val(id(ation)?)?|dev(elopment)?|eval(uation)?|h[eo]ldout|(un)?labell?ed)(set)?s?|tr|cv|tt|te"
)
# Words in the names of folders that are not classes.
CONTAINERS = re.compile(
    r"(fold|split|part|subset)\d*|audios?|sounds?|wavs?|flac|mp3|ogg|clips?|data|dataset|recordings?|files|raw|original|k|khz|genres|archive"
)
BOTH_ROLES = {"train", "test"}
ABSOLUTE = re.compile(r"/|[A-Za-z][\w+.-]*:[\\/]|\\\\")  # a POSIX or Windows path, or a URL
UNREAD_TABLES = (
    ".xlsx", ".xls", ".ods", ".feather", ".arrow", ".pkl", ".pickle", ".h5", ".hdf5", ".sqlite", ".textgrid", ".eaf",
    ".ann", ".lab",
)  # fmt: skip
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class OutsideError(Exception):
    """A table names a file outside the folder."""


@dataclass(frozen=True)
class AudioFolder:
    """The files below the folder `root`. All paths are relative to it."""

    root: Path
    audio: tuple[PurePosixPath, ...]
    unread: tuple[PurePosixPath, ...]  # audio formats that usk does not read
    tables: tuple[PurePosixPath, ...]
    ignored: tuple[PurePosixPath, ...]  # archives, and table formats that usk does not read
    unusable: dict[str, list[str]]  # audio files by the reason why they cannot be clips
    skipped_links: tuple[str, ...]  # links to folders that are read anyway or lie above

    @functools.cached_property
    def finder(self) -> FileFinder:
        return FileFinder(self.root, self.audio)

    @property
    def top_folders(self) -> list[str]:
        """The folders directly below that have audio, sorted."""
        return sorted({file.parts[0] for file in self.audio if len(file.parts) > 1})

    def inner_folder(self, with_tables: bool) -> str:
        """Return the folder that holds all files, as archives unpack to, or "" if there is none.

        A folder directly below is not meant if it may be a class with folders of recordings: it has no table, and its name is
        not like `archive` or `data`. `with_tables=False` ignores tables.
        """
        if not self.audio:
            return ""
        places = {file.parent.as_posix() for file in (*self.audio, *self.unread, *self.ignored)}
        tables = self.tables if with_tables else ()
        common = posixpath.commonpath(places | {file.parent.as_posix() for file in tables})
        has_table = any(file.suffix.lower() != ".txt" for file in tables)
        may_be_class = "/" not in common and not has_table and not _is_part_word(common.lower())
        return "" if common in {*places, "."} or may_be_class else common


def list_audio_folder(root: Path) -> AudioFolder:
    links: list[Path] = []
    unusable: dict[str, list[str]] = defaultdict(list)
    audio, unread, tables, ignored = [], [], [], []
    for file in visible_files(root, links):
        relative = PurePosixPath(file.relative_to(root).as_posix())
        suffix = file.suffix.lower()
        if is_audio(file) and is_text(str(relative)):
            audio.append(relative)
        elif is_audio(file):
            unusable["named in other bytes than UTF-8"].append(_printable(relative))
        elif suffix in UNREAD_SUFFIXES:
            unread.append(relative)
        elif suffix in TABLE_SUFFIXES:
            tables.append(relative)
        elif suffix in (*UNREAD_TABLES, *ARCHIVES):
            ignored.append(relative)
    skipped_links = []
    for link in links:
        name = _printable(link.relative_to(root))
        if link.is_dir():
            skipped_links.append(name)
        elif is_audio(link):
            unusable["linked to nothing (git-annex?)"].append(name)
    return AudioFolder(
        root, tuple(audio), tuple(unread), tuple(tables), tuple(ignored), dict(unusable), tuple(skipped_links)
    )


def _printable(path: PurePath) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")


def are_parts(folders: Sequence[str]) -> bool:
    """Whether folders are named like parts of a dataset (`audio_train`, `fold1`) rather than like classes."""
    words_of = [_words(name) for name in folders]
    roles_of = [_roles(words) for words in words_of]
    if all(roles_of) and set.union(*roles_of) >= BOTH_ROLES:  # `clean_testset`, `noisy_trainset`
        return True
    shared = set.intersection(*words_of) if len(words_of) > 1 else set()
    own_words = [{word for word in words if word not in shared or _is_part_word(word)} for words in words_of]
    # Without the words that all names share: `esc train`, `esc test`, and any others beside them.
    roles = {max(_roles(words), default="") for words in own_words if all(map(_is_part_word, words))}
    if roles >= BOTH_ROLES:
        return True
    return bool(own_words) and all(map(_is_numbered_part, own_words))  # `fold1`, `part 2`


def _words(name: str) -> set[str]:
    """Return the words of a name: `audio`, `train` and `fold1` of `audio_trainFold1`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return set(re.findall(r"[a-z]+\d*|\d+", spaced.lower()))


def _is_numbered_part(words: set[str]) -> bool:
    return any(map(_is_part_word, words)) and all(_is_part_word(word) or word.isdecimal() for word in words)


def _is_part_word(word: str) -> bool:
    return bool(PARTS.fullmatch(word) or CONTAINERS.fullmatch(word))


def _roles(words: set[str]) -> set[str]:
    """Return "train" and "test" if words name parts of a dataset with these roles."""
    parts = [word for word in words if PARTS.fullmatch(word)]
    return {"train" if word.startswith(("tr", "dev", "label")) else "test" for word in parts}


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class FileFinder:
    """Finds the audio files that a table names.

    A name may have other slashes, letter case or Unicode form, no suffix or another one, lack folders, or be an absolute path
    of this or another machine.
    """

    def __init__(self, root: Path, files: Sequence[PurePosixPath]) -> None:
        self.root = root
        self._exact = {file.as_posix() for file in files}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for file in files:
            self._by_name[_key(file.name)].append(file.as_posix())
            self._by_stem[_key(file.stem)].append(file.as_posix())

    def candidates(self, name: str, place: str = "") -> list[str]:
        """Return the files that `name` may mean in a table in the folder `place`. Raise OutsideError."""
        if name in self._exact and not place:
            return [name]
        relative = self._make_relative(name.strip())
        if ABSOLUTE.match(relative):  # of another machine: drop folders until a file is found
            parts = [part for part in re.split(r"[/\\]+", _key(relative)) if part]
            endings = ("/" + "/".join(parts[start:]) for start in range(len(parts)))
            return next(filter(None, map(self._find_ending, endings)), [])
        joined = {posixpath.normpath(posixpath.join(base, relative)) for base in (place, "")}
        if all(path.startswith("..") for path in joined):
            raise OutsideError(name)
        for path in sorted(joined, reverse=True):
            if path in self._exact:
                return [path]
        if found := self._find_ending("/" + _key(posixpath.normpath(relative).lstrip("./"))):
            return found
        first, _, rest = relative.partition("/")
        if rest and first == self.root.resolve().name:  # relative to the folder above
            return self.candidates(rest, place)
        unquoted = unquote(name)
        return [] if unquoted == name else self.candidates(unquoted, place)

    def _find_ending(self, wanted: str) -> list[str]:
        """Return the files whose path ends in `wanted`, with its suffix, without one, or with another one."""
        last = wanted.rpartition("/")[2]
        named = [file for file in self._by_name.get(last, ()) if f"/{_key(file)}".endswith(wanted)]
        if named:
            return named
        stems = [
            file
            for file in self._by_stem.get(last, ())
            if f"/{_key(posixpath.splitext(file)[0])}".endswith(wanted)
        ]
        stem, suffix = posixpath.splitext(wanted)
        if not stems and suffix in (*AUDIO_SUFFIXES, *UNREAD_SUFFIXES):
            return self._find_ending(stem)
        return stems

    def _make_relative(self, name: str) -> str:
        """Return a name relative to the folder, unless it is of another machine. Raise OutsideError for another file of this one."""
        if not ABSOLUTE.match(name):
            return name if "/" in name else name.replace("\\", "/")
        for root in (self.root.resolve(), self.root.absolute()):
            if Path(name).is_relative_to(root):
                return Path(name).relative_to(root).as_posix()
        if os.path.lexists(name):
            raise OutsideError(name)
        return name

    def find_all(self, names: Sequence[str], place: str, hint: str) -> list[str | None]:
        """Return the file of each name, or None. Raise OutsideError, or ValueError for a name that is ambiguous.

        Of several files, choose the one whose folder shares a word with `hint`, then the one whose folder has most of the names.
        """
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
        """Return the file with the most similar name, for messages, or ""."""
        last = re.split(r"[/\\]", name.strip())[-1]
        close = get_close_matches(_key(last), list(self._by_name)[:5_000], n=1)
        return self._by_name[close[0]][0] if close else ""
