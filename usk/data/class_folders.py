"""Open folders whose sub-folders are the classes. A class may have a folder for each recording."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from usk.data.audio_file import FileRef
from usk.data.clip import Clip
from usk.data.find import AudioFolder, are_parts
from usk.data.fingerprint import fingerprint_files
from usk.data.location import A_SOURCE
from usk.data.source import Source, no_groups_note, with_folds
from usk.data.table_parts import Listing, listed_parts
from usk.errors import SourceError
from usk.manifest import MANIFEST_FILE
from usk.text import abbreviate_list, pluralize

NOT_CLASSES = frozenset({"_background_noise_"})  # Speech Commands: noise for mixing
# Names of files that name the recording: by the speaker (Speech Commands), or by the recording (ESC-50, UrbanSound8K).
NAMED_BY = {
    "speaker": re.compile(r"(.+)_nohash_\d+"),
    "recording": re.compile(r"\d-(\d{3,})-[A-Z](?:-\d+)?|(\d{3,})-\d-\d+-\d+"),
}
RECORDING_FIX = "put the clips of one recording into a folder of their own below the class"


def open_class_folders(
    folder: AudioFolder, location: str, split_is_fold: bool, notes: Sequence[str], lists: Sequence[Listing]
) -> Source:
    """Return one clip for each file. Its class is the folder directly below `folder`.

    `lists` are the publisher's lists of parts (Speech Commands), and `split_is_fold` makes them the folds. `notes` come first
    in the source's notes. Raise SourceError if there are no classes.
    """
    classes = [name for name in folder.top_folders if name not in NOT_CLASSES]
    if not classes:
        message = f"{location} is not a source of clips: {_why_no_classes(folder)}"
        raise SourceError(message, hint=". ".join([*notes, A_SOURCE]))
    if are_parts(classes):
        _refuse_parts(folder, classes, location, notes)
    files = [file for file in folder.audio if len(file.parts) > 1 and file.parts[0] in classes]
    name = folder.root.resolve().name
    shared = _shared_folders(files)
    groups = [f"{name}/{_recording(file, shared)}" for file in files]
    folds, part_notes = _folds_of_parts(files, folder, lists, split_is_fold)
    clips = [
        Clip(clip_id=f"{name}/{file}", label=classes.index(file.parts[0]), group=group, fold=fold)
        for file, group, fold in zip(files, groups, folds, strict=True)
    ]
    paths = [folder.root / file for file in files]
    revision, cache_key, _ = fingerprint_files(paths, folder.root)
    has_groups, recording_notes = _recording_notes(files, classes, shared)
    return with_folds(
        Source(
            name=name,
            kind="class folders",
            location=location,
            revision=revision,
            cache_key=cache_key,
            class_names=tuple(classes),
            clips=tuple(clips),
            audio=tuple(map(FileRef, paths)),
            notes=(*notes, *part_notes, *recording_notes, *_other_notes(folder, classes, location)),
            has_groups=has_groups,
        )
    )


def _folds_of_parts(
    files: Sequence[PurePosixPath], folder: AudioFolder, lists: Sequence[Listing], split_is_fold: bool
) -> tuple[list[int], list[str]]:
    """Return the fold of each file, by the publisher's parts if `split_is_fold` and else 0, and a note on the parts."""
    parts, _ = listed_parts(lists, [str(file) for file in files], folder.finder)
    if parts and split_is_fold:
        numbers = {part: number for number, part in enumerate(sorted(set(parts)), start=1)}
        pairs = ", ".join(f"{part} is {number}" for part, number in numbers.items())
        return [numbers[part] for part in parts], [f"folds are numbered from the lists of parts: {pairs}"]
    notes = []
    if parts:
        sizes = ", ".join(f"{part} {n}" for part, n in sorted(Counter(parts).items()))
        notes.append(
            f"the publisher's lists of parts ({sizes}) are not used; to test on one of them, name split as the column of folds"
        )
    return [0] * len(files), notes


def _refuse_parts(folder: AudioFolder, classes: Sequence[str], location: str, notes: Sequence[str]) -> None:
    """Raise SourceError: the folders are parts of a dataset."""
    deeper = _find_class_level(folder)
    fix = (
        f"Name {Path(location) / deeper}, whose sub-folders can be the classes"
        if deeper
        else "Name a folder whose sub-folders are the classes, or add a table metadata.csv with the columns file_name and label"
    )
    message = f"{location}: its folders {', '.join(classes[:4])} are named like parts of a data set, not like classes"
    raise SourceError(message, hint=". ".join([*notes, fix]) + ".")


def _find_class_level(folder: AudioFolder) -> str | None:
    """Return the folder with most files whose sub-folders can be classes, or None."""
    subfolders: dict[str, set[str]] = defaultdict(set)
    n_files: Counter[str] = Counter()
    for file in folder.audio:
        for depth in range(1, len(file.parts) - 1):
            place = "/".join(file.parts[:depth])
            subfolders[place].add(file.parts[depth])
            n_files[place] += 1
    for place, _ in n_files.most_common():
        if len(subfolders[place]) > 1 and not are_parts(sorted(subfolders[place])):
            return place
    return None


def _recording_folder(file: PurePosixPath) -> str:
    """Return a file's folder below its class, "" if it lies in the class folder itself."""
    return "/".join(file.parts[1:-1])


def _shared_folders(files: Sequence[PurePosixPath]) -> set[str]:
    """Return the recording folders that several classes have."""
    classes_of: dict[str, set[str]] = defaultdict(set)
    for file in files:
        classes_of[_recording_folder(file)].add(file.parts[0])
    return {folder for folder, classes in classes_of.items() if folder and len(classes) > 1}


def _recording_in_name(file: PurePosixPath) -> str:
    """Return the recording that a file's name states in the way of a published dataset, or ""."""
    for kind, form in NAMED_BY.items():
        if match := form.fullmatch(file.stem):
            return f"{kind}-{next(filter(None, match.groups()))}"
    return ""


def _recording(file: PurePosixPath, shared: set[str]) -> str:
    folder = _recording_folder(file)
    if not folder:
        return _recording_in_name(file) or str(file)
    return folder if folder in shared else file.parent.as_posix()


def _recording_notes(
    files: Sequence[PurePosixPath], classes: Sequence[str], shared: set[str]
) -> tuple[bool, list[str]]:
    """Return whether the recordings are known, and notes on them."""
    notes = []
    n_clips = Counter(file.parts[0] for file in files)
    n_alone = Counter(
        file.parts[0] for file in files if not _recording_folder(file) and not _recording_in_name(file)
    )
    unknown = [name for name in classes if n_alone[name] == n_clips[name]]
    mixed = [name for name in classes if 0 < n_alone[name] < n_clips[name]]
    n_mixed = sum(n_alone[name] for name in mixed)
    if len(unknown) == len(classes):
        notes.append(no_groups_note(RECORDING_FIX))
    elif n_alone:
        which = zip(("all of", "some of"), (unknown, mixed), strict=True)
        where = ", ".join(f"{share} {abbreviate_list(names)}" for share, names in which if names)
        alone = f"{n_alone.total()} of {len(files)} clips lie in no folder of a recording ({where})"
        notes.append(no_groups_note(RECORDING_FIX, alone))
    folders_of = [{_recording_folder(file) for file in files if file.parts[0] == name} for name in classes]
    if len(classes) > 1 and len(folders_of[0]) > 1 and all(each == folders_of[0] for each in folders_of):
        notes.append(
            f"the classes are {abbreviate_list(list(classes))}, and all of them have the same folders ({abbreviate_list(sorted(shared))}): if those are the "
            "classes, swap the two levels, or list the files in a table metadata.csv with the columns file_name and label"
        )
    elif shared:
        notes.append(
            f"recording folders that several classes have ({abbreviate_list(sorted(shared))}) count as one recording each, which is never on "
            "both sides of a split; give them other names if they are not"
        )
    return not unknown and 2 * n_mixed <= len(files), notes


def _other_notes(folder: AudioFolder, classes: Sequence[str], location: str) -> list[str]:
    """Return notes on files that are no clips, and on unusual classes."""
    notes = []
    if noise := [name for name in folder.top_folders if name in NOT_CLASSES]:
        notes.append(f"{abbreviate_list(noise)} is not a class and is left out")
    if folder.unread:
        notes.append(
            f"{_count_kinds(folder.unread)} passed over: usk cannot read them; convert them, for example to FLAC"
        )
    if empty := sorted({file.parts[0] for file in folder.unread if len(file.parts) > 1} - set(classes)):
        notes.append(
            f"usk reads no file in {abbreviate_list(empty)}, so {'it is no class' if len(empty) == 1 else 'they are no classes'}"
        )
    if n_loose := sum(len(file.parts) == 1 for file in folder.audio):
        notes.append(
            f"{pluralize(n_loose, 'audio file')} outside the class folders passed over: a clip's class is its folder"
        )
    without_numbers = {re.sub(r"\d+", "#", name) for name in classes}
    if len(classes) > 1 and len(without_numbers) == 1 and without_numbers != {"#"}:
        notes.append(
            f"the classes {abbreviate_list(list(classes))} differ by a number alone: if they are speakers, days or places, list the files in a "
            "table metadata.csv with the columns file_name and label"
        )
    if len(classes) == 1:
        notes.append(
            f"one class, {classes[0]}: classes are the folders directly below {location}; if those are deeper, name the folder "
            "that holds them"
        )
    return notes


def _count_kinds(files: Sequence[PurePosixPath]) -> str:
    """Return `3 files (.m4a, .wma) are`."""
    kinds = ", ".join(sorted({file.suffix.lower() for file in files}))
    return f"{pluralize(len(files), 'file')} ({kinds}) {'are' if len(files) > 1 else 'is'}"


def _why_no_classes(folder: AudioFolder) -> str:
    path = folder.root
    if datasets := sorted(file.parent.name for file in path.glob(f"*/{MANIFEST_FILE}")):
        return f"it holds {len(datasets)} datasets ({abbreviate_list(datasets)}): name one of them"
    if parquet := sorted({file.relative_to(path).parts[0] for file in path.glob("*/**/*.parquet")}):
        return f"it has Parquet files in sub-folders ({abbreviate_list(parquet)}): name one of them"
    if (path / "fit.json").is_file():
        return "it is a generator that is not finished (run the same `usk fit` again and it goes on where it stopped)"
    if folder.unread:
        return f"{_count_kinds(folder.unread)} all that it has, and usk cannot read them (convert them, for example to FLAC)"
    if n_loose := sum(len(file.parts) == 1 for file in folder.audio):
        return f"its {n_loose} audio files need a folder for each class"
    return "it has no audio files in sub-folders (UrbanSound8K needs metadata/UrbanSound8K.csv)"
