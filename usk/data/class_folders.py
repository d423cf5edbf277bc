"""Folders whose sub-folders are the classes, with a folder for each recording below them or without."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from usk.data.audio_file import FileRef
from usk.data.clip import Clip
from usk.data.find import AudioFolder, name_parts
from usk.data.fingerprint import fingerprint_files
from usk.data.location import A_SOURCE
from usk.data.source import Source, no_groups_note, with_folds
from usk.data.table_parts import Listing, listed_parts
from usk.errors import SourceError
from usk.files import is_text
from usk.manifest import MANIFEST_FILE
from usk.text import abbreviate_list, pluralize

NO_CLASS = frozenset({"_background_noise_"})  # of Speech Commands: noise to mix in
# Names that say the recording: a speaker of Speech Commands, a recording of ESC-50 and of UrbanSound8K.
NAMED_BY = {
    "speaker": re.compile(r"(.+)_nohash_\d+"),
    "recording": re.compile(r"\d-(\d{3,})-[A-Z](?:-\d+)?|(\d{3,})-\d-\d+-\d+"),
}
RECORDING_FIX = "put the clips of one recording into a folder of their own below the class"


def refuse_lost_files(folder: AudioFolder, typed: str, skip_bad: bool) -> list[str]:
    """A note of the files left out since they cannot be listed. Raises SourceError for them, unless `skip_bad`."""
    if not is_text(folder.root.resolve().name):
        raise SourceError(
            f"the name of the folder {typed!a} is not UTF-8, and rows could not say it; rename it"
        )
    said = [
        f"{pluralize(len(names), 'file')} {why}: {abbreviate_list(names)}"
        for why, names in folder.lost.items()
    ]
    if said and not skip_bad:
        raise SourceError(f"{typed}: {'; '.join(said)}", hint="Rename or restore them, or skip bad clips.")
    return [f"skipped {one}" for one in said]


def open_class_folders(
    folder: AudioFolder, typed: str, split_is_fold: bool, notes: Sequence[str], lists: Sequence[Listing]
) -> Source:
    """One clip a file, whose class is its folder; `typed` is how the user named the folder that holds all.

    `lists` are the publisher's lists of parts (Speech Commands), `split_is_fold` is whether they are the folds, and `notes` is what is
    said already.
    """
    tops = [name for name in folder.tops if name not in NO_CLASS]
    if not tops:
        raise SourceError(
            f"{typed} is not a source of clips: {_why_no_classes(folder)}",
            hint=". ".join([*notes, A_SOURCE]),
        )
    if name_parts(tops):
        _refuse_parts(folder, tops, typed, notes)
    files = [file for file in folder.audio if len(file.parts) > 1 and file.parts[0] in tops]
    name = folder.root.resolve().name
    shared = _shared_folders(files)
    groups = [f"{name}/{_recording(file, shared)}" for file in files]
    parts, _ = listed_parts(lists, [str(file) for file in files], folder.finder)
    folds = [0] * len(files)
    if parts and split_is_fold:
        numbers = {part: number for number, part in enumerate(sorted(set(parts)), start=1)}
        folds = [numbers[part] for part in parts]
        said = ", ".join(f"{part} is {number}" for part, number in numbers.items())
        notes = [*notes, f"folds are numbered from the lists of parts: {said}"]
    elif parts:
        said = ", ".join(f"{part} {n}" for part, n in sorted(Counter(parts).items()))
        notes = [
            *notes,
            f"the publisher's lists of parts ({said}) are not used; to test on one of them, name split as the column of folds",
        ]
    clips = [
        Clip(clip_id=f"{name}/{file}", label=tops.index(file.parts[0]), group=group, fold=fold)
        for file, group, fold in zip(files, groups, folds, strict=True)
    ]
    paths = [folder.root / file for file in files]
    revision, cache_key, _ = fingerprint_files(paths, folder.root)
    has_groups, recording_notes = _recording_notes(files, tops, shared)
    return with_folds(
        Source(
            name=name,
            kind="class folders",
            location=typed,
            revision=revision,
            cache_key=cache_key,
            class_names=tuple(tops),
            clips=tuple(clips),
            audio=tuple(FileRef(path) for path in paths),
            notes=(*notes, *recording_notes, *_passed_over(folder, tops, typed)),
            has_groups=has_groups,
        )
    )


def _refuse_parts(folder: AudioFolder, tops: Sequence[str], typed: str, notes: Sequence[str]) -> None:
    """Raise SourceError for folders that are parts of a data set."""
    deeper = _deeper(folder)
    fix = (
        f"Name {Path(typed) / deeper}, whose sub-folders can be the classes"
        if deeper
        else "Name a folder whose sub-folders are the classes, or add a table metadata.csv with the columns file_name and label"
    )
    raise SourceError(
        f"{typed}: its folders {', '.join(tops[:4])} are named like parts of a data set, not like classes",
        hint=". ".join([*notes, fix]) + ".",
    )


def _deeper(folder: AudioFolder) -> str | None:
    """The folder with most files below whose sub-folders can be classes."""
    below: dict[str, set[str]] = defaultdict(set)
    n_of: Counter[str] = Counter()
    for file in folder.audio:
        for depth in range(1, len(file.parts) - 1):
            place = "/".join(file.parts[:depth])
            below[place].add(file.parts[depth])
            n_of[place] += 1
    return next(
        (
            place
            for place, _ in n_of.most_common()
            if len(below[place]) > 1 and not name_parts(sorted(below[place]))
        ),
        None,
    )


def _inner(file: PurePosixPath) -> str:
    """The folder of a file below its class, empty where it lies in the class itself."""
    return "/".join(file.parts[1:-1])


def _shared_folders(files: Sequence[PurePosixPath]) -> dict[str, set[str]]:
    """The folders of recordings that several classes have, with these classes."""
    classes_of: dict[str, set[str]] = defaultdict(set)
    for file in files:
        if _inner(file):
            classes_of[_inner(file)].add(file.parts[0])
    return {folder: classes for folder, classes in classes_of.items() if len(classes) > 1}


def _said_by_name(file: PurePosixPath) -> str:
    """The recording that a file's name says in the manner of a published data set; empty if it says none."""
    for kind, form in NAMED_BY.items():
        if match := form.fullmatch(file.stem):
            return f"{kind}-{next(filter(None, match.groups()))}"
    return ""


def _recording(file: PurePosixPath, shared: dict[str, set[str]]) -> str:
    folder = _inner(file)
    if not folder:
        return _said_by_name(file) or str(file)
    return folder if folder in shared else file.parent.as_posix()


def _recording_notes(
    files: Sequence[PurePosixPath], tops: Sequence[str], shared: dict[str, set[str]]
) -> tuple[bool, list[str]]:
    """Whether the recordings are known, and what to say of them."""
    notes = []
    n_of = Counter(file.parts[0] for file in files)
    own = Counter(file.parts[0] for file in files if not _inner(file) and not _said_by_name(file))
    flat = [name for name in tops if own[name] == n_of[name]]
    beside = {name: own[name] for name in tops if own[name] and name not in flat}
    if flat:
        notes.append(
            no_groups_note(RECORDING_FIX, "" if len(flat) == len(tops) else f" in {abbreviate_list(flat)}")
        )
    if beside:
        notes.append(
            f"{sum(beside.values())} of {sum(n_of[name] for name in beside)} clips in {abbreviate_list(sorted(beside))} lie in no folder "
            f"of a recording: each counts as its own ({RECORDING_FIX})"
        )
    inner: dict[str, set[str]] = {name: set() for name in tops}
    for file in files:
        inner[file.parts[0]].add(_inner(file))
    if len(tops) > 1 and len(inner[tops[0]]) > 1 and all(each == inner[tops[0]] for each in inner.values()):
        notes.append(
            f"the classes are {abbreviate_list(list(tops))}, and all of them have the same folders ({abbreviate_list(sorted(shared))}): if those are the "
            "classes, swap the two levels, or list the files in a table metadata.csv with the columns file_name and label"
        )
    elif shared:
        notes.append(
            f"recording folders that several classes have ({abbreviate_list(sorted(shared))}) count as one recording each, which is never on "
            "both sides of a split; give them other names if they are not"
        )
    return not flat and 2 * sum(beside.values()) <= len(files), notes


def _passed_over(folder: AudioFolder, tops: Sequence[str], typed: str) -> list[str]:
    """What to say of what is there and is no clip."""
    notes = []
    if noise := [name for name in folder.tops if name in NO_CLASS]:
        notes.append(f"{abbreviate_list(noise)} is no class and is left out")
    if folder.unread:
        notes.append(
            f"{_of_kinds(folder.unread)} passed over, for usk does not read them; convert them, for example to FLAC"
        )
    if lost := sorted({file.parts[0] for file in folder.unread if len(file.parts) > 1} - set(tops)):
        notes.append(
            f"{abbreviate_list(lost)}: no class, for usk reads none of {'its' if len(lost) == 1 else 'their'} files"
        )
    if loose := _n_loose(folder):
        notes.append(
            f"{loose} audio file{'s' if loose > 1 else ''} beside the class folders passed over: a clip's class is its folder"
        )
    if len(tops) > 1 and len(shape := {re.sub(r"\d+", "#", name) for name in tops}) == 1 and shape != {"#"}:
        notes.append(
            f"the classes {abbreviate_list(list(tops))} differ by a number alone: if they are speakers, days or places, list the files in a "
            "table metadata.csv with the columns file_name and label"
        )
    if len(tops) == 1:
        notes.append(
            f"one class, {tops[0]}: classes are the folders directly below {typed}; if those are deeper, name the folder "
            "that holds them"
        )
    return notes


def _of_kinds(unread: Sequence[PurePosixPath]) -> str:
    """`3 files (.m4a, .wma) are`"""
    kinds = sorted({file.suffix.lower() for file in unread})
    return f"{len(unread)} file{'s' if len(unread) > 1 else ''} ({', '.join(kinds)}) {'are' if len(unread) > 1 else 'is'}"


def _n_loose(folder: AudioFolder) -> int:
    """Audio files in no folder of a class."""
    return sum(len(file.parts) == 1 for file in folder.audio)


def _why_no_classes(folder: AudioFolder) -> str:
    path = folder.root
    if datasets := sorted(file.parent.name for file in path.glob(f"*/{MANIFEST_FILE}")):
        return f"it holds {len(datasets)} datasets ({abbreviate_list(datasets)}), of which one can be named"
    if parquet := sorted({file.relative_to(path).parts[0] for file in path.glob("*/**/*.parquet")}):
        return f"it has Parquet files in sub-folders ({abbreviate_list(parquet)}), of which one can be named"
    if (path / "fit.json").is_file():
        return "it is a generator that is not finished (run the same `usk fit` again and it goes on where it stopped)"
    if folder.unread:
        return f"{_of_kinds(folder.unread)} all that it has, and usk does not read them (convert them, for example to FLAC)"
    if loose := _n_loose(folder):
        return f"its {loose} audio files need a folder for each class"
    return "it has no audio files in sub-folders (UrbanSound8K needs metadata/UrbanSound8K.csv)"
