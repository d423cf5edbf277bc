"""Open a source of clips: UrbanSound8K, class folders, Hugging Face datasets on disk or on the Hub, and the demo.

Opening lists rows and checks that their audio is there; nothing is decoded (see `usk.data.decode`).
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from usk.data.audio import AUDIO_SUFFIXES, AudioRef, DatasetRef, FileRef, ParquetRef, ProceduralRef
from usk.data.checks import (
    first_wrong,
    is_missing,
    missing_folds,
    wrong_folds,
    wrong_labels,
    wrong_manifest,
    wrong_provenance_row,
)
from usk.data.clip import PROVENANCE_COLUMNS, Clip, provenance_of
from usk.data.fingerprint import fingerprint_files
from usk.data.licenses import UNKNOWN, license_of_card, one_license
from usk.data.listing import STANDARD, listed, read_table, tables_in
from usk.data.pinned import cache_folder, download, looks_like_hub_id, pin
from usk.data.splits import in_several_folds, make_folds
from usk.errors import SourceError, UsageError, counted, sample_of
from usk.hub import causes, first_line, hub_errors, retried

LEAKS_UNKNOWN = (
    "whether they were made from clips that validate or test cannot be known, so leaks cannot be ruled out"
)
CLASS_FOLDERS, LISTED = "class folders", "files listed in a table"
MANIFEST_FILE = "usk.json"
OWN_FILES = (MANIFEST_FILE, "README.md", "data/*.parquet")  # what reading a dataset of ours needs

LABEL_COLUMNS = ("label", "class", "category", "target", "classID", "class_id", "labels", "y")
GROUP_COLUMNS = (
    "group",
    "fsID",
    "recording",
    "recording_id",
    "source_id",
    "src_file",
    "session",
    "speaker_id",
)
FOLD_COLUMNS = ("fold", "folds")
UNREAD_SUFFIXES = frozenset(
    {
        ".m4a",
        ".mp4",
        ".aac",
        ".wma",
        ".webm",
        ".amr",
        ".caf",
        ".3gp",
        ".mka",
        ".ape",
        ".wv",
        ".au",
        ".mpc",
        ".aifc",
    }
)
PART_OF_A_DATASET = re.compile(
    r"(fold|split|part)[-_ ]?\d+|train(ing)?|test(ing)?|val(id(ation)?)?|dev|eval", re.IGNORECASE
)
ID_COLUMNS = ("clip_id", "slice_file_name", "file_name", "filename", "id")


@dataclass(frozen=True)
class Source:
    """Clips, their classes, and where their audio is. `notes` are sentences that the user should read once."""

    name: str  # in front of clip ids and groups
    kind: str
    location: str  # what the user typed
    revision: str  # twelve hex digits of the content, or a Hub commit
    cache_key: str
    class_names: tuple[str, ...]
    clips: tuple[Clip, ...]
    audio: tuple[AudioRef, ...]
    license: str = "unknown"
    notes: tuple[str, ...] = ()
    has_groups: bool = True
    model_groups: frozenset[str] = (
        frozenset()
    )  # recordings that the generator of a synthetic dataset was fitted on
    model_unknown: bool = False  # whether it was fitted on more than those, which its record does not name
    # Recordings that the judges of a synthetic dataset were fitted on, by the folds that name a judge (`Clip.judge_folds`).
    judge_groups: Mapping[tuple[int, ...], frozenset[str]] = field(default_factory=dict, hash=False)
    hub_id: str = ""  # user/name of one on the Hub; its revision is then the commit
    ids_by_row: bool = (
        False  # rows have no names of their own: clips are known by their place in this revision alone
    )
    made_of: tuple[str, str] | None = (
        None  # name and revision of what a synthetic dataset's parents are clips of
    )
    renamed_from: str = ""  # what the folder of its parents was called, see `usk.data.renaming`
    renamed_by_paths: bool = False  # which paths alone say: another folder may have files of the same names

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def is_synthetic(self) -> bool:
        return bool(self.clips) and all(clip.is_synthetic for clip in self.clips)

    @property
    def has_synthetic(self) -> bool:
        """Whether any of its clips is: it is then no source of real ones."""
        return any(clip.is_synthetic for clip in self.clips)

    @property
    def by_path(self) -> bool:
        """Whether clips and recordings are known by their place in a folder: moved or renamed they are others."""
        return self.kind == CLASS_FOLDERS or (self.kind == LISTED and not self.has_groups)

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(sorted({clip.fold for clip in self.clips}))

    def subset(self, keep: Iterable[int]) -> Source:
        """The same source with the given rows only, in the given order."""
        rows = list(keep)
        return replace(
            self, clips=tuple(self.clips[row] for row in rows), audio=tuple(self.audio[row] for row in rows)
        )

    def select(self, classes: Sequence[str] | None = None, folds: Sequence[int] | None = None) -> Source:
        """The rows of some classes and folds; unknown names raise UsageError. Class numbers stay as they are."""
        if classes:
            classes = _with_commas(classes, self.class_names)
            unknown = [name for name in classes if name not in self.class_names]
            if unknown:
                known = ", ".join(f"{name!r}" if "," in name else name for name in self.class_names)
                raise UsageError(
                    f"--classes {','.join(unknown)}: {self.location} has no such class; it has {known}"
                )
        if folds:
            missing = [fold for fold in folds if fold not in self.folds]
            if missing:
                raise UsageError(
                    f"--folds {','.join(map(str, missing))}: {self.location} has no such fold; "
                    f"it has {', '.join(map(str, self.folds))}"
                )
        wanted = {self.class_names.index(name) for name in classes} if classes else None
        return self.subset(
            row
            for row, clip in enumerate(self.clips)
            if (wanted is None or clip.label in wanted) and (not folds or clip.fold in folds)
        )

    def counts(self) -> dict[str, int]:
        """Clips a class, in class order."""
        tally = Counter(clip.label for clip in self.clips)
        return {name: tally.get(label, 0) for label, name in enumerate(self.class_names)}


def _with_commas(pieces: Sequence[str], names: Collection[str]) -> list[str]:
    """Names that were taken apart at commas, put together again where that makes one of `names`."""
    plain = {re.sub(r"\s*,\s*", ",", name.strip()): name for name in names}
    found: list[str] = []
    at = 0
    while at < len(pieces):
        ends = range(len(pieces), at, -1)
        end = next((end for end in ends if ",".join(pieces[at:end]) in plain), at + 1)
        joined = ",".join(pieces[at:end])
        found.append(plain.get(joined, joined))
        at = end
    return found


@dataclass(frozen=True)
class Columns:
    """Columns that the user named; None means: find it by name and type."""

    label: str | None = None
    group: str | None = None
    fold: str | None = None
    needs_label: bool = True  # to classify clips is possible without

    @property
    def flags(self) -> list[str]:
        """Those that the user gave."""
        given = {"--label-column": self.label, "--group-column": self.group, "--fold-column": self.fold}
        return [flag for flag, name in given.items() if name is not None]


def open_source(
    location: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    label_column: str | None = None,
    group_column: str | None = None,
    fold_column: str | None = None,
    flag: str = "--real",
) -> Source:
    """Open a source of clips.

    Args:
        location: an UrbanSound8K folder as published, a folder with one sub-folder of audio files per class, a local
            Hugging Face dataset (Parquet folder or `save_to_disk`), a Hub id with optional `@revision`, or `demo`.
        skip_bad: leave out metadata rows whose audio file is missing, instead of raising.
        label_column, group_column, fold_column: of a dataset; found by name and type where they are None.
        flag: where the user named it, for messages: `--real` (real clips), or another (a synthetic dataset).

    Raises: SourceError, with a one-line message that names the fix.
    """
    typed = os.fspath(location)
    if not typed.strip():
        raise SourceError(f"no source is named; {_advice(flag)}")
    columns = Columns(label_column, group_column, fold_column, needs_label=flag != "usk predict")
    if typed == "demo":
        _refuse_columns(columns, typed, "the demo corpus")
        return _open_demo()
    path = Path(typed).expanduser()
    if path.is_dir():
        opener = _opener_for(path, columns, flag)
        if isinstance(opener, partial) and opener.func is _open_class_folders:
            _refuse_columns(columns, typed, "a folder of files without a table that lists them")
        if opener is _open_urbansound8k:
            _refuse_columns(columns, typed, "UrbanSound8K, whose columns are known")
        source = opener(path, typed, skip_bad, columns)
    elif path.exists():
        raise SourceError(f"{typed} is a file; a source is a folder, a Hub id, or `demo`")
    elif looks_like_hub_id(typed):
        source = _open_hub(typed, columns, flag)
    else:
        raise SourceError(f"{typed}: no such folder; {_advice(flag)}")
    if not source.clips:
        raise SourceError(f"{typed} holds no clips")
    return source


def _refuse_columns(columns: Columns, typed: str, what: str) -> None:
    if columns.flags:
        raise UsageError(f"{columns.flags[0]} is for datasets with columns; {typed} is {what}, leave it out")


def _advice(flag: str) -> str:
    """What to give where a source is missing."""
    if flag == "--real":
        return "give --real a folder of clips, a Hub id (user/name), or `demo`"
    if flag == "--mix":
        return "name in --mix real, synth, a folder of clips or of a dataset, a Hub id (user/name), or `demo`"
    if flag == "usk predict":
        return "give usk predict audio files, a folder of them, or a source (a dataset, a Hub id, `demo`)"
    if flag == "usk info":
        return (
            "give usk info a folder (clips, a dataset, a generator, a run), a Hub id (user/name), or `demo`"
        )
    return f"give {flag} the folder of a dataset (make one with `usk synth`), or a Hub id (user/name)"


def _opener_for(path: Path, columns: Columns, flag: str) -> Callable[[Path, str, bool, Columns], Source]:
    if _urbansound8k_root(path) is not None:
        return _open_urbansound8k
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return _open_saved_dataset
    if (path / "dataset_dict.json").is_file():
        return _open_saved_dataset
    if (path / MANIFEST_FILE).is_file() or any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")):
        return _open_parquet
    if not any(path.iterdir()):
        raise SourceError(f"{path} is empty; {_advice(flag)}")
    if tables := _tables_of(path, columns):
        return partial(_open_listed, tables=tables)
    return partial(_open_class_folders, flag=flag)


def _tables_of(path: Path, columns: Columns) -> list[Path]:
    """The tables that list the clips of `path`. Where folders are classes already, only `metadata.csv` and the like with a
    column of labels counts."""
    tables = tables_in(path)
    if not tables:
        return []
    labels = {columns.label, *LABEL_COLUMNS}
    labelled = any(name in labels or name.lower() in labels for name in read_table(tables[0]).column_names)
    folders = [folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    classes = [
        folder for folder in folders if any(f.suffix.lower() in AUDIO_SUFFIXES for f in visible_files(folder))
    ]
    return tables if len(classes) < 2 or (labelled and tables[0].name in STANDARD) else []


def _open_listed(path: Path, typed: str, skip_bad: bool, columns: Columns, tables: list[Path]) -> Source:
    """Audio files that a table names, with their labels and, where it has them, recordings and folds."""
    from datasets import Features, Value

    table, files = listed(path, tables)
    rows = list(range(len(files)))
    rows, files, notes = _without_missing(rows, files, [file.is_file() for file in files], typed, skip_bad)
    table = table.take(rows)
    data = {**table.to_pydict(), "file_name": [file.relative_to(path).as_posix() for file in files]}
    features = {**Features.from_arrow_schema(table.schema), "file_name": Value("string")}
    revision, cache_key = fingerprint_files([*files, *tables], path)
    name, audio = path.resolve().name, tuple(map(FileRef, files))
    source = _from_columns(data, features, audio, name, LISTED, typed, revision, cache_key, columns)
    return replace(source, notes=(*notes, *source.notes))


def _urbansound8k_root(path: Path) -> Path | None:
    for root in (path, path / "UrbanSound8K"):
        if (root / "metadata" / "UrbanSound8K.csv").is_file():
            return root
    return None


def _open_urbansound8k(path: Path, typed: str, skip_bad: bool, columns: Columns) -> Source:
    root = _urbansound8k_root(path)
    assert root is not None
    metadata = root / "metadata" / "UrbanSound8K.csv"
    try:
        with metadata.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(
            f"{metadata} is no CSV file in UTF-8 ({first_line(error)}); unpack UrbanSound8K again"
        ) from error
    needed = {"slice_file_name", "fsID", "fold", "classID", "class"}
    if not rows or not needed <= set(rows[0]):
        raise SourceError(
            f"{metadata} lacks rows or the columns {', '.join(sorted(needed))}; unpack UrbanSound8K again"
        )
    for line, row in enumerate(rows, start=2):
        file_name = row["slice_file_name"] or ""
        numbers = (str(row["fold"]), str(row["classID"]))
        if not (file_name and row["class"] and all(number.isdecimal() for number in numbers)):
            raise SourceError(f"{metadata} line {line} is incomplete; unpack UrbanSound8K again")
        if Path(file_name).name != file_name:
            raise SourceError(f"{metadata} line {line}: the path {file_name} leads out of the fold's folder")
    names = {int(row["classID"]): row["class"] for row in rows}
    class_ids = sorted(names)
    rows.sort(key=lambda row: (int(row["fold"]), row["slice_file_name"]))
    files = [root / "audio" / f"fold{row['fold']}" / row["slice_file_name"] for row in rows]
    present = [file.is_file() for file in files]
    rows, files, notes = _without_missing(rows, files, present, typed, skip_bad)
    clips = tuple(
        Clip(
            clip_id=f"urbansound8k/{row['slice_file_name']}",
            label=class_ids.index(int(row["classID"])),
            group=f"urbansound8k/{row['fsID']}",
            fold=int(row["fold"]),
            duration_s=_stated_duration_s(row),
        )
        for row in rows
    )
    revision, cache_key = fingerprint_files(files, root)
    return Source(
        name="urbansound8k",
        kind="UrbanSound8K folder",
        location=typed,
        revision=revision,
        cache_key=cache_key,
        class_names=tuple(names[class_id] for class_id in class_ids),
        clips=clips,
        audio=tuple(FileRef(file) for file in files),
        license="CC BY-NC 3.0",
        notes=notes,
    )


def _stated_duration_s(row: Mapping[str, Any]) -> float:
    """From where to where a clip was cut; 0 where the metadata does not say. Decoding finds what it is."""
    try:
        return float(row["end"]) - float(row["start"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _without_missing(
    rows: list[Any], files: list[Path], present: list[bool], typed: str, skip_bad: bool
) -> tuple[list[Any], list[Path], tuple[str, ...]]:
    missing = [file.name for file, there in zip(files, present, strict=True) if not there]
    if not missing:
        return rows, files, ()
    if len(missing) == len(files):
        raise SourceError(
            f"{typed}: none of the {len(files)} clips in its metadata has its audio file; download it again"
        )
    if not skip_bad:
        raise SourceError(
            f"{typed}: {len(missing)} of {len(files)} clips in its metadata have no audio file "
            f"({sample_of(missing)}); complete the download, or go on without them with --skip-bad"
        )
    kept = [index for index, there in enumerate(present) if there]
    note = f"skipped {counted(len(missing), 'clip')} without an audio file"
    return [rows[index] for index in kept], [files[index] for index in kept], (note,)


def _open_class_folders(
    path: Path, typed: str, skip_bad: bool, columns: Columns, flag: str = "--real"
) -> Source:
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    below = {folder.name: visible_files(folder) for folder in folders}
    unsayable = {file for files in below.values() for file in files if not is_text(file.relative_to(path))}
    odd = [
        os.fsencode(file.relative_to(path)).decode(errors="backslashreplace")
        for file in sorted(unsayable)
        if file.suffix.lower() in AUDIO_SUFFIXES
    ]
    if odd and not skip_bad:
        raise SourceError(
            f"{typed}: {counted(len(odd), 'file')} named in other bytes than UTF-8 ({sample_of(odd)}), and rows could not say them; "
            "rename them, or go on without them with --skip-bad"
        )
    if not is_text(path.resolve().name):
        raise SourceError(
            f"the name of the folder {typed!a} is not UTF-8, and rows could not say it; rename it"
        )
    below = {name: [file for file in files if file not in unsayable] for name, files in below.items()}
    found = {
        name: [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES]
        for name, files in below.items()
    }
    unread = Counter(
        file.suffix.lower()
        for files in below.values()
        for file in files
        if file.suffix.lower() in UNREAD_SUFFIXES
    )
    class_names = tuple(name for name, files in found.items() if files)
    if not class_names:
        raise SourceError(
            f"{typed} is no source of clips: {_why_no_classes(path, folders, unread)}; {_advice(flag)}"
        )
    if all(PART_OF_A_DATASET.fullmatch(name) for name in class_names):
        raise SourceError(
            f"{typed}: its folders {', '.join(class_names[:4])} are named like parts of a data set, not like classes; "
            "name a folder whose sub-folders are the classes (for UrbanSound8K the one that has metadata/ in it)"
        )
    name = path.resolve().name
    files, clips = [], []
    classes_of: dict[str, set[str]] = defaultdict(set)  # by recording folder: the classes that have it
    inside = {
        file: file.relative_to(path / class_name) for class_name in class_names for file in found[class_name]
    }
    for class_name in class_names:
        for file in found[class_name]:
            if len(inside[file].parts) > 1:
                classes_of[inside[file].parent.as_posix()].add(class_name)
    shared = {recording for recording, classes in classes_of.items() if len(classes) > 1}
    for label, class_name in enumerate(class_names):
        for file in found[class_name]:
            folder = inside[file].parent.as_posix()
            recording = f"{class_name}/{inside[file].as_posix() if folder == '.' else folder}"
            files.append(file)
            clips.append(
                Clip(
                    clip_id=f"{name}/{class_name}/{inside[file].as_posix()}",
                    label=label,
                    group=f"{name}/{folder if folder in shared else recording}",
                    fold=0,
                )
            )
    revision, cache_key = fingerprint_files(files, path)
    notes = [f"skipped {counted(len(odd), 'file')} whose name is not UTF-8: {sample_of(odd)}"] if odd else []
    flat = sorted(set(class_names).difference(*classes_of.values()))
    beside = {
        name: n
        for name in class_names
        if name not in flat and (n := sum(len(inside[file].parts) == 1 for file in found[name]))
    }
    fix = "put the clips of one recording into a folder of their own below the class"
    if flat:
        where = "" if len(flat) == len(class_names) else f" in {sample_of(flat)}"
        notes.append(_no_groups_note(fix, where))
    if beside:
        notes.append(
            f"{sum(beside.values())} of {sum(len(found[name]) for name in beside)} clips in {sample_of(sorted(beside))} lie in no folder "
            f"of a recording: each counts as its own ({fix})"
        )
    if unread:
        notes.append(
            f"{_of_kinds(unread)} passed over, for usk does not read them; convert them, for example to FLAC"
        )
    if lost := [
        name
        for name, inner in below.items()
        if not found[name] and any(f.suffix.lower() in UNREAD_SUFFIXES for f in inner)
    ]:
        notes.append(
            f"{sample_of(lost)}: no class, for usk reads none of {'its' if len(lost) == 1 else 'their'} files"
        )
    if loose := _loose_audio(path):
        notes.append(
            f"{loose} audio file{'s' if loose > 1 else ''} beside the class folders passed over: a clip's class is its folder"
        )
    if len(class_names) == 1:
        notes.append(
            f"one class, {class_names[0]}: classes are the folders directly below {typed}; if those are deeper, name the folder "
            "that holds them"
        )
    if shared:
        notes.append(
            f"recording folders that several classes have ({sample_of(sorted(shared))}) count as one recording each, which is never on "
            "both sides of a split; give them other names if they are not"
        )
    return _with_folds(
        Source(
            name=name,
            kind=CLASS_FOLDERS,
            location=typed,
            revision=revision,
            cache_key=cache_key,
            class_names=class_names,
            clips=tuple(clips),
            audio=tuple(FileRef(file) for file in files),
            notes=tuple(notes),
            has_groups=not flat and 2 * sum(beside.values()) <= len(files),
        )
    )


def is_text(path: str | Path) -> bool:
    """Whether a name can be written down: file systems hold bytes, and old archives names in other encodings."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def visible_files(folder: Path) -> list[Path]:
    """All files below `folder`, without hidden ones (`._cut.wav`) and those in hidden folders (`.ipynb_checkpoints`);
    linked folders are walked like others, each once."""
    found: list[Path] = []
    walked: set[Path] = set()
    for place, below, names in os.walk(folder, followlinks=True):
        if (real := Path(place).resolve()) in walked:  # a link to a folder above itself
            below.clear()
            continue
        walked.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            with suppress(OSError):  # a link that may not be followed
                if not name.startswith(".") and (file := Path(place, name)).is_file():
                    found.append(file)
    return sorted(found)


def _of_kinds(unread: Mapping[str, int]) -> str:
    """`3 files (.m4a, .wma) are`"""
    n = sum(unread.values())
    return f"{n} file{'s' if n > 1 else ''} ({', '.join(sorted(unread))}) {'are' if n > 1 else 'is'}"


def _loose_audio(path: Path) -> int:
    """Audio files in no folder of a class."""
    return sum(
        entry.suffix.lower() in AUDIO_SUFFIXES and entry.is_file() and not entry.name.startswith(".")
        for entry in path.iterdir()
    )


def _why_no_classes(path: Path, folders: Sequence[Path], unread: Mapping[str, int]) -> str:
    if datasets := [folder.name for folder in folders if (folder / MANIFEST_FILE).is_file()]:
        return f"it holds {len(datasets)} datasets ({sample_of(datasets)}), of which one can be named"
    if parquet := sorted({file.relative_to(path).parts[0] for file in path.glob("*/**/*.parquet")}):
        return f"it has Parquet files in sub-folders ({sample_of(parquet)}), of which one can be named"
    if (path / "fit.json").is_file():
        return "it is a generator that is not finished (run the same `usk fit` again and it goes on where it stopped)"
    if unread:
        return f"{_of_kinds(unread)} all that it has, and usk does not read them (convert them, for example to FLAC)"
    if loose := _loose_audio(path):
        return f"its {loose} audio files need a folder for each class"
    return "it has no audio files in sub-folders (UrbanSound8K needs metadata/UrbanSound8K.csv)"


def _no_groups_note(fix: str, where: str = "") -> str:
    return (
        f"no recordings are named{where}, so each clip counts as its own: if several were cut from one recording, "
        f"test scores will be too high ({fix})"
    )


def _with_folds(source: Source) -> Source:
    """The source with made folds where it has none."""
    if not source.clips or any(clip.fold for clip in source.clips):
        return source
    folds = make_folds(source.clips)
    note = f"no folds are given: {max(folds)} were made, stratified by class, recordings kept whole"
    return replace(
        source,
        notes=(*source.notes, note),
        clips=tuple(replace(clip, fold=fold) for clip, fold in zip(source.clips, folds, strict=True)),
    )


def _open_demo() -> Source:
    from usk.data import procedural

    corpus = procedural.corpus()
    clips = tuple(
        Clip(f"demo/{clip.clip_id}", clip.label, f"demo/{clip.group}", clip.fold, clip.duration_s)
        for clip in corpus
    )
    return Source(
        name="demo",
        kind="demo corpus (procedural sound, not field recordings)",
        location="demo",
        revision=f"v{procedural.DEMO_VERSION}",
        cache_key=f"demo-v{procedural.DEMO_VERSION}",
        class_names=tuple(procedural.CLASSES),
        clips=clips,
        audio=tuple(ProceduralRef(clip) for clip in corpus),
        license="CC0-1.0",
        notes=("the demo corpus is procedural sound, not field recordings",),
    )


def _open_parquet(path: Path, typed: str, skip_bad: bool, columns: Columns) -> Source:
    import pyarrow.parquet as pq
    from datasets import Features

    manifest = read_manifest(path)
    files = sorted(
        file
        for pattern in ("*.parquet", "data/*.parquet")
        for file in path.glob(pattern)
        if not file.name.startswith(".")  # `._train.parquet`, which macOS leaves on other disks
    )
    if manifest is not None:
        files = _complete_shards(path, typed, manifest)
    if not files:
        raise SourceError(f"{typed} has no Parquet files")
    tables, places = [], []
    audio_column = ""
    features: dict[str, Any] = {}
    for file in files:
        try:
            parquet = pq.ParquetFile(file)
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{typed}: {file.name} is no whole Parquet file; copy or make it again"
            ) from error
        try:
            own = dict(Features.from_arrow_schema(parquet.schema_arrow))
        except Exception as error:  # whatever its metadata makes `datasets` do
            raise SourceError(
                f"{typed}: the columns of {file.name} are not described as `datasets` describes them: {first_line(error)}"
            ) from error
        if features and own != features:
            raise SourceError(f"{typed}: {file.name} has other columns than the files before it")
        features = own
        audio_column = _audio_column(features, typed)
        try:
            tables.append(parquet.read(columns=[name for name in features if name != audio_column]))
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{typed}: {file.name} is damaged ({first_line(error)}); copy or make it again"
            ) from error
        for group in range(parquet.num_row_groups):
            places += [(file, group, row) for row in range(parquet.metadata.row_group(group).num_rows)]
    data: dict[str, list[Any]] = {
        name: [value for table in tables for value in table.column(name).to_pylist()]
        for name in features
        if name != audio_column
    }
    audio = tuple(ParquetRef(file, group, row, audio_column) for file, group, row in places)
    revision, cache_key = fingerprint_files(files, path)
    name = path.resolve().name
    source = _from_columns(
        data, features, audio, name, "Parquet dataset", typed, revision, cache_key, columns
    )
    if len(splits := _splits_of(files)) > 1 and manifest is None:
        source = replace(source, notes=(_read_as_one(splits), *source.notes))
    stated = license_of_card(path)
    if manifest is not None:
        heard = manifest.get("trained_on", ())
        licenses = [str(manifest.get("license", UNKNOWN)), *([stated] if stated else [])]
        source = replace(
            source,
            kind="synthetic dataset",
            license=one_license(licenses),
            model_groups=frozenset(group for part in heard for group in part.get("groups", ())),
            model_unknown=any(map(says_too_little, heard)),
            made_of=(of["name"], of["revision"]) if (of := manifest.get("source")) else None,
            judge_groups={
                tuple(part["folds"]): frozenset(part["groups"])
                for part in (manifest.get("judge") or {}).get("heard", ())
            },
        )
    return source if manifest is not None else _licensed(source, stated)


def _splits_of(files: Sequence[Path]) -> list[str]:
    """The splits that Parquet files are named after, as the Hub names them: `train-00000-of-00002.parquet`."""
    named = [re.match(r"(.+)-\d{5}-of-\d{5}", file.stem) for file in files]
    return list(dict.fromkeys(name[1] for name in named if name))


def _read_as_one(splits: Sequence[str]) -> str:
    return f"its splits {', '.join(splits)} are read as one, and folds say what is tested"


def says_too_little(part: Mapping[str, Any]) -> bool:
    """Whether a part of what a generator was trained on does not name its recordings: `usk fit --from` notes it."""
    return "note" in part or not (part.get("groups") or part.get("clips") == 0)


def _licensed(source: Source, *stated: str | None) -> Source:
    """A dataset from elsewhere under the licence that its card or its features state, the strictest of several;
    UrbanSound8K's is known without."""
    known = "CC BY-NC 3.0" if source.name == "urbansound8k" else None
    names = [name for name in (known, *stated) if name]
    return replace(source, license=one_license(names)) if names else source


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a dataset that usk made, or None."""
    file = path / MANIFEST_FILE
    if not file.is_file():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file} is not valid JSON; make the dataset again into a new folder") from error
    wrong = wrong_manifest(manifest)
    if wrong:
        raise SourceError(
            f"{file} is not one that usk wrote: {wrong}; make the dataset again, or delete the file"
        )
    return dict(manifest)


def _complete_shards(path: Path, typed: str, manifest: dict[str, Any]) -> list[Path]:
    """A dataset of ours is usable only whole: every shard there, with the rows that the plan gave it."""
    import pyarrow.parquet as pq

    if not manifest["shards"]:
        raise SourceError(
            f"{typed} is unfinished: its clips are not judged yet; run the same `usk synth` again and it goes on where it stopped"
        )
    files = [path / name for name in manifest["shards"]]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise SourceError(
            f"{typed} is unfinished: {len(missing)} of {len(files)} shards are missing; "
            f"run the same `usk synth` again and it goes on where it stopped"
        )
    for file, rows in zip(files, manifest["shards"].values(), strict=True):
        try:
            actual = pq.ParquetFile(file).metadata.num_rows
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{typed}: {file.name} is damaged; delete it and run the same `usk synth` again"
            ) from error
        if actual != rows:
            raise SourceError(
                f"{typed}: {file.name} has {actual} rows where its plan has {rows}; delete it and run `usk synth` again"
            )
    return files


def _open_saved_dataset(path: Path, typed: str, skip_bad: bool, columns: Columns) -> Source:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except IndexError as error:  # of `datasets`, where there is not one table
        raise SourceError(f"{typed} holds no clips") from error
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{typed} is no whole `save_to_disk` dataset: {str(error).splitlines()[0]}"
        ) from error
    files = sorted(file for file in path.rglob("*.arrow"))
    revision, cache_key = fingerprint_files(files, path)
    name = path.resolve().name
    source = _from_dataset(
        loaded, name, "saved Hugging Face dataset", typed, revision, cache_key, columns, path
    )
    parts = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    stated = [license_of_card(path), *(str(part.info.license or "") for part in parts)]
    return _licensed(source, *stated)


def _open_hub(typed: str, columns: Columns, flag: str) -> Source:
    """A dataset on the Hub at its commit: one that usk made as its folder, others as `datasets` loads them."""
    import datasets

    hub_id, _, revision = typed.partition("@")
    subject = f"the Hub dataset {hub_id}"
    instead = (
        "name a local folder with --real or $USK_REAL, or try `usk demo`"
        if flag == "--real"
        else _advice(flag)
    )
    pinned = pin(typed, "dataset", subject, instead, SourceError)
    if MANIFEST_FILE in pinned.files:
        folder = download(pinned, OWN_FILES, subject, instead, SourceError)
        source = _open_parquet(folder, typed, False, columns)
        source = replace(source, name=hub_id, revision=pinned.commit, cache_key=f"hub-{pinned.commit}")
    else:
        try:
            with hub_errors(subject, instead, SourceError, revision), audio_left_encoded():
                loaded = retried(lambda: datasets.load_dataset(hub_id, revision=pinned.commit))
        except (datasets.exceptions.DatasetsError, RuntimeError, ValueError) as error:
            # A loading script, files of no known format, shards that do not fit together: no source for usk.
            innermost = list(causes(error))[-1]  # `datasets` says of most no more than that they happened
            raise SourceError(f"{subject} cannot be loaded as a data set: {first_line(innermost)}") from error
        name = "urbansound8k" if hub_id.lower().endswith("/urbansound8k") else hub_id
        folder, key = cache_folder(hub_id, "dataset"), f"hub-{pinned.commit}"
        source = _from_dataset(loaded, name, "Hub dataset", typed, pinned.commit, key, columns, folder)
        card = (
            download(pinned, ["README.md"], subject, instead, SourceError)
            if "README.md" in pinned.files
            else None
        )
        source = _licensed(source, license_of_card(card) if card is not None else None)
    return replace(source, hub_id=hub_id)


@contextmanager
def audio_left_encoded() -> Iterator[None]:
    """`datasets` builds datasets of audio files without torchcodec, which it asks for before it looks what it is given.

    It needs torchcodec for samples alone. Files and their bytes, of which repositories with audio files consist, stay
    what they are: usk decodes them.
    """
    import datasets

    of_samples = datasets.Audio.encode_example

    def encode_example(self: Any, value: Any) -> Any:
        if isinstance(value, (str, Path)):
            return {"bytes": None, "path": str(value)}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": bytes(value), "path": None}
        if isinstance(value, dict) and "array" not in value and value.keys() & {"bytes", "path"}:
            return {"bytes": value.get("bytes"), "path": value.get("path")}
        return of_samples(self, value)

    datasets.Audio.encode_example = encode_example
    try:
        yield
    finally:
        datasets.Audio.encode_example = of_samples


def _from_dataset(
    loaded: Any,
    name: str,
    kind: str,
    typed: str,
    revision: str,
    cache_key: str,
    columns: Columns,
    folder: Path,
) -> Source:
    import datasets

    notes: tuple[str, ...] = ()
    if isinstance(loaded, dict):
        if len(loaded) > 1:
            notes = (_read_as_one([str(name) for name in loaded]),)
        try:
            loaded = datasets.concatenate_datasets(list(loaded.values()))
        except (ValueError, TypeError) as error:
            raise SourceError(
                f"{typed}: its splits {', '.join(map(str, loaded))} have different columns and cannot be read as one "
                f"({first_line(error)}); save the one that you want by itself (save_to_disk) and name that folder"
            ) from error
    if not len(loaded):
        raise SourceError(f"{typed} holds no clips")
    loaded = loaded.with_format(None)  # one that was saved with the data set may leave columns out
    features = dict(loaded.features)
    audio_column = _audio_column(features, typed)
    if isinstance(features[audio_column], datasets.Audio):
        loaded = loaded.cast_column(audio_column, datasets.Audio(decode=False))
    rest = loaded.remove_columns([audio_column]).to_dict()
    only_audio = loaded.select_columns([audio_column])
    audio = tuple(DatasetRef(only_audio, row, audio_column, folder) for row in range(len(loaded)))
    source = _from_columns(rest, features, audio, name, kind, typed, revision, cache_key, columns)
    return replace(source, notes=(*notes, *source.notes))


def _audio_column(features: dict[str, Any], typed: str) -> str:
    from datasets import Audio

    typed_audio = [name for name, feature in features.items() if isinstance(feature, Audio)]
    structs = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and ("bytes" in feature or "array" in feature)
    ]
    for name in (*typed_audio, *structs):
        return name
    raise SourceError(f"{typed} has no audio column; its columns are {', '.join(features)}")


def _pick(
    candidates: Sequence[str], data: dict[str, list[Any]], given: str | None, flag: str, typed: str
) -> str | None:
    if given is not None:
        if given not in data:
            raise UsageError(f"{flag} {given}: {typed} has no such column; it has {', '.join(data)}")
        return given
    lowered = {name.lower(): name for name in reversed(data)}
    return next((lowered[name.lower()] for name in candidates if name.lower() in lowered), None)


def _labels(
    data: dict[str, list[Any]],
    features: dict[str, Any],
    n: int,
    columns: Columns,
    taken: Collection[str | None],
    typed: str,
) -> tuple[str | None, tuple[str, ...], list[int]]:
    """The column of a dataset's classes, these, and each row's: of the column that is named, of one of classes by its name, of any by its
    name, or of the only one of classes. Those `taken` say something else: recordings and folds."""
    from datasets import ClassLabel

    if not columns.needs_label:
        return None, ("unknown",), [0] * n
    typed_labels = [
        column
        for column, feature in features.items()
        if isinstance(feature, ClassLabel) and column in data and column not in taken
    ]
    label_column = columns.label
    if label_column is None:
        of_classes = {name: data[name] for name in typed_labels}
        label_column = _pick(LABEL_COLUMNS, of_classes, None, "", typed)
    label_column = _pick(LABEL_COLUMNS, data, label_column, "--label-column", typed)
    if label_column is None and len(typed_labels) == 1:
        (label_column,) = typed_labels
    if label_column is None:
        several = (
            f"several columns of classes ({', '.join(typed_labels)})" if typed_labels else "no label column"
        )
        among = f" among {', '.join(data)}" if data else ""
        raise SourceError(f"{typed} has {several}{among}; name the one to learn with --label-column")
    values = data[label_column]
    feature = features.get(label_column)
    named = tuple(feature.names) if isinstance(feature, ClassLabel) else None
    wrong = wrong_labels(values, None if named is None else len(named))
    if wrong:
        raise SourceError(
            f"{typed}: the label column {label_column}: {wrong}; mend the rows or leave them out of the dataset, or name "
            "another with --label-column"
        )
    if named is not None:
        return label_column, named, [int(value) for value in values]
    kinds = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    number = {value: index for index, value in enumerate(kinds)}
    return label_column, tuple(str(value) for value in kinds), [number[value] for value in values]


def _from_columns(
    data: dict[str, list[Any]],
    features: dict[str, Any],
    audio: tuple[AudioRef, ...],
    name: str,
    kind: str,
    typed: str,
    revision: str,
    cache_key: str,
    columns: Columns,
) -> Source:
    is_ours = all(column in data for column in PROVENANCE_COLUMNS)
    stored = [column for column in (*PROVENANCE_COLUMNS, "judge_folds") if column in data]
    group_column = _pick(GROUP_COLUMNS, data, columns.group, "--group-column", typed)
    fold_column = _pick(FOLD_COLUMNS, data, columns.fold, "--fold-column", typed)
    label_column, class_names, labels = _labels(
        data, features, len(audio), columns, (group_column, fold_column), typed
    )
    id_column = _pick(ID_COLUMNS, data, None, "", typed)
    if {"slice_file_name", "fsID"} <= set(data):
        name = "urbansound8k"
    prefix = "" if is_ours else f"{name}/"
    ids = [f"{prefix}{value}" for value in data[id_column]] if id_column else []
    ids_by_row = not ids or len(set(ids)) != len(ids)
    if ids_by_row:
        ids = [f"{prefix}row-{row:06d}" for row in range(len(labels))]
    notes = []
    if not group_column:
        others = _could_name_recordings(data, (label_column, fold_column, id_column), len(class_names))
        perhaps = f", perhaps {', '.join(others)}" if others else ""
        notes.append(_no_groups_note(f"name the column with --group-column{perhaps}"))
    groups = ids
    if group_column:
        own = _by_name(data[group_column], features[group_column])
        groups = [ids[row] if is_missing(value) else f"{prefix}{value}" for row, value in enumerate(own)]
        if nameless := sum(map(is_missing, own)):
            notes.append(
                f"no recording in the column {group_column} for {counted(nameless, 'row')}: each counts as its own"
            )
    folds = [0] * len(ids)
    if fold_column and not all(map(is_missing, data[fold_column])):  # a column without any value says nothing
        given = _by_name(data[fold_column], features[fold_column])
        folds = _fold_numbers(given, keep_zero=is_ours)
        wrong = missing_folds(given) or wrong_folds(folds)
        if wrong:
            raise SourceError(
                f"{typed}: the fold column {fold_column}: {wrong}; name another with --fold-column"
            )
        renamed = {
            number: value
            for number, value in zip(folds, given, strict=True)
            if _fold_name(value) != str(number)
        }
        if renamed and not is_ours:
            said = ", ".join(f"{value} is {number}" for number, value in sorted(renamed.items())[:12])
            notes.append(f"folds are numbered from the column {fold_column}: {said}")
    provenance = [
        {column: data[column][row] for column in stored} for row in range(len(labels) if is_ours else 0)
    ]
    wrong = first_wrong(provenance, wrong_provenance_row)
    if wrong:
        raise SourceError(f"{typed}: its provenance cannot be relied on: {wrong}; make the dataset again")
    orphans = sum(not row["parents"] for row in provenance)
    if orphans:
        notes.append(f"{orphans} of {len(labels)} clips of {typed} name no parents: {LEAKS_UNKNOWN}")
    clips = [
        Clip(ids[row], label, groups[row], folds[row], **(provenance_of(provenance[row]) if is_ours else {}))
        for row, label in enumerate(labels)
    ]
    if not is_ours and (spread := [*in_several_folds(clips)]):
        notes.append(
            f"{counted(len(spread), 'recording')} with clips in several folds ({sample_of(spread)}): where one of these is tested, the "
            "others' clips of it train nowhere; name another --fold-column or --group-column if that is not meant"
        )
    source = Source(
        name=name,
        kind=kind,
        location=typed,
        revision=revision,
        cache_key=cache_key,
        class_names=class_names,
        clips=tuple(clips),
        audio=audio,
        notes=tuple(notes),
        has_groups=group_column is not None,
        ids_by_row=ids_by_row,
    )
    return source if is_ours or not columns.needs_label else _with_folds(source)


def _could_name_recordings(
    data: Mapping[str, Sequence[Any]], taken: Collection[str | None], n_classes: int
) -> list[str]:
    """Columns of names or whole numbers with more values than classes and fewer than clips."""
    return [
        name
        for name, values in data.items()
        if name not in taken
        and all(isinstance(value, (str, int)) and not isinstance(value, bool) for value in values)
        and n_classes < len(set(values)) < len(values)
    ]


def _by_name(values: list[Any], feature: Any) -> list[Any]:
    """A column's values; of one of classes their names, where they are in its range."""
    from datasets import ClassLabel

    if not isinstance(feature, ClassLabel):
        return values
    return [feature.int2str(v) if isinstance(v, int) and 0 <= v < len(feature.names) else v for v in values]


def _fold_numbers(values: Sequence[Any], keep_zero: bool = False) -> list[int]:
    """Fold names as numbers from 1: whole numbers keep theirs, if 0 is none of them; names are counted in natural order.

    `keep_zero` is for synthetic clips, where 0 says that the parents come from different folds.
    """
    names = [_fold_name(value) for value in values]
    try:
        numbers = [int(name) for name in names]
    except ValueError:
        ordered = sorted(set(names), key=_natural)
        numbers = [ordered.index(name) + 1 for name in names]
    return [number + 1 for number in numbers] if 0 in numbers and not keep_zero else numbers


def _fold_name(value: Any) -> str:
    """`3` of 3, 3.0, `03`, `fold3` and `Fold_3`; other names as they are."""
    name = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    number = re.fullmatch(r"(?:fold[-_ ]*)?(\d+)", name, re.IGNORECASE | re.ASCII)
    return str(int(number[1])) if number else name


def _natural(name: str) -> list[tuple[int, str]]:
    """A sorting key by which `set2` comes before `set10`."""
    pieces = re.split(r"(\d+)", name, flags=re.ASCII)
    return [(int(piece), "") if index % 2 else (-1, piece) for index, piece in enumerate(pieces)]
