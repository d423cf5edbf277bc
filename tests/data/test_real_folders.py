"""Layouts of real folders: the classes, recordings and folds are right, or one line names the wrong field."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sounds import peak_hz, tone, write_wav
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.errors import SourceError, UsageError, UskError

Make = Callable[[Path], Any]
CLASSES = ("dog", "rain")
NAMES = [f"{label}_{n}.wav" for label in CLASSES for n in range(2)]
BOTH = {"dog": 2, "rain": 2}


BY_CLASS = {label: [name for name in NAMES if name.startswith(label)] for label in CLASSES}
FIRST, SECOND = NAMES[::2], NAMES[1::2]


def clips(folder: Path, names: Sequence[str] = NAMES) -> None:
    for number, name in enumerate(names):
        write_wav(folder / name, tone(300 + 40 * number, 0.1))


def files(sounds: Mapping[str, Sequence[str]], texts: Mapping[str, str | bytes] | None = None) -> Make:
    """Folders of clips, and files of these contents."""

    def make(root: Path) -> None:
        for place, names in sounds.items():
            clips(root / place, names)
        for name, text in (texts or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode() if isinstance(text, str) else text)

    return make


def table(
    name: str, write: Callable[[str], str] = str, head: str = "filename,label", place: str = "audio"
) -> Make:
    """A folder of clips and a table of them. `write` changes the file names in the table."""
    text = f"{head}\n" + rows(lambda f, c: f"{write(f)},{c}\n")
    return files({place: NAMES}, {name: text.replace(",", "\t") if name.endswith("tsv") else text})


def content(name: str, text: str | bytes) -> Make:
    return files({"audio": NAMES}, {name: text})


def rows(form: Callable[[str, str], str], names: Sequence[str] = NAMES) -> str:
    return "".join(form(file, file.split("_")[0]) for file in names)


def plain(file: str, label: str) -> str:
    return f"{file},{label}\n"


RECORDS = [{"file_name": file, "label": file.split("_")[0]} for file in NAMES]


def absolute(root: Path) -> None:
    table("labels.csv", lambda file: str(root / "audio" / file), "path,label")(root)


def decomposed(root: Path) -> None:
    names = [unicodedata.normalize("NFD", f"é{file}") for file in NAMES]
    clips(root / "audio", names)
    lines = [f"é{file},{file.split('_')[0]}" for file in NAMES]
    (root / "labels.csv").write_text("\n".join(["filename,label", *lines]))


def upper_case(root: Path) -> None:
    table("labels.csv")(root)
    for file in NAMES:
        (root / "audio" / file).rename(root / "audio" / file.replace(".wav", ".WAV"))


def parquet_table(root: Path) -> None:
    clips(root)
    pq.write_table(pa.Table.from_pylist(RECORDS), root / "metadata.parquet")


kaggle_competition = files(  # FSDKaggle: the test part has no labels, and the sample of an answer is none
    {"audio_train": NAMES, "audio_test": ["x.wav", "y.wav"]},
    {
        "train.csv": "fname,label\n" + rows(plain),
        "sample_submission.csv": "fname,label\nx.wav,dog\ny.wav,dog\n",
    },
)
speech_commands = files(
    {key: ["ab_nohash_0.wav", "cd_nohash_0.wav"] for key in CLASSES} | {"_background_noise_": ["hum.wav"]},
    {"testing_list.txt": "dog/ab_nohash_0.wav\nrain/ab_nohash_0.wav\n"},
)
URBAN_HEAD = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
kaggle_urbansound8k = files(
    {"fold1": FIRST, "fold2": SECOND},
    {
        "UrbanSound8K.csv": URBAN_HEAD
        + rows(lambda f, c: f"{f},{NAMES.index(f)},0,1,1,{1 + int(f[-5])},{CLASSES.index(c)},{c}\n")
    },
)
PARTS = {"train": FIRST, "test": SECOND}
two_tables = files(
    {"audio": NAMES}, {f"{part}.csv": "filename,label\n" + rows(plain, of) for part, of in PARTS.items()}
)
# GTZAN: both tables of features list the same files.
GTZAN = [f"Data/features_{seconds}_sec.csv" for seconds in (3, 30)]
tables_that_repeat = files({"Data/genres": NAMES}, dict.fromkeys(GTZAN, "filename,label\n" + rows(plain)))


def of_scenes(names: Sequence[str], place: bool = False) -> str:
    head = "filename\tscene_label" + place * "\tidentifier" + "\n"
    return head + rows(lambda f, c: f"audio/{f}\t{c}" + place * f"\tcity-{f[-5]}" + "\n", names)


acoustic_scenes = files(  # DCASE: places as recordings, and the publisher's parts in a folder of their own
    {"audio": NAMES},
    {"meta.csv": of_scenes(NAMES, place=True), "evaluation_setup/fold1_train.csv": of_scenes(FIRST)}
    | {f"evaluation_setup/fold1_{part}.csv": of_scenes(SECOND) for part in ("evaluate", "test")},
)
parts_with_classes = files(
    {f"{part}/{label}": [f"{label}_{n}.wav"] for n, part in enumerate(PARTS) for label in CLASSES}
)
NSYNTH = {file[:-4]: {"note": n, "family": file.split("_")[0]} for n, file in enumerate(NAMES)}


def fsd50k(labels: str) -> Make:
    parts = {"dev": FIRST, "eval": SECOND}
    truth = {part: rows(lambda f, c: f'{f[:-4]},"{c}{labels}"\n', names) for part, names in parts.items()}
    return files(
        {f"FSD50K.{part}_audio": names for part, names in parts.items()},
        {f"FSD50K.ground_truth/{part}.csv": "fname,labels\n" + text for part, text in truth.items()},
    )


# Parts that nothing but the folders of the files says.
LISTED = rows(lambda f, c: f"{'train' if f in FIRST else 'test'}/{f},{c}\n")
fsd_in_one_table = files(PARTS, {"metadata.csv": "file_name,label\n" + LISTED})


def parquet_in_parts(root: Path) -> None:
    for part, found in (("train", RECORDS[::2]), ("validation", RECORDS[1::2])):
        clips(root / "data" / part, [row["file_name"] for row in found])
        pq.write_table(pa.Table.from_pylist(found), root / "data" / part / "metadata.parquet")


def class_folders_with(**texts: str) -> Make:
    """Class folders, and files of these names and texts beside them."""
    return files(BY_CLASS, {name.replace("__", "."): text for name, text in texts.items()})


parts_below_classes = files(
    {f"{label}/{part}": [f"{label}_{n}.wav"] for label in CLASSES for n, part in enumerate(PARTS)}
)
LITTER = ("@Recently-Snapshot", "#snapshot", "$Recycle.Bin", "__pycache__", ".git", "Network Trash Folder")


def links_to_nothing(root: Path) -> None:
    """A dataset of git-annex without its content: links to nothing."""
    class_folders_with()(root)
    (root / "dog" / "2.wav").symlink_to("../.git/annex/objects/2.wav")


def wrapped(make: Make) -> Make:
    """What archives unpack to: a folder in a folder."""
    return lambda root: make(root / "archive" / "set-master")


def urbansound(root: Path) -> None:
    """UrbanSound: a table without column names beside each sound: onset, offset, salience, class."""
    for label in CLASSES:
        write_wav(root / "data" / label / "7.wav", tone(300, 1.0))
        (root / "data" / label / "7.csv").write_text(f"0.1,0.4,1,{label}\n0.5,0.9,2,{label}\n")
        (root / "data" / label / "7.json").write_text('{"id": 7}')


def desed(root: Path) -> None:
    """DESED: a table of whole clips (weak labels) and one of segments (strong labels)."""
    clips(root / "audio" / "weak", NAMES[::2])
    write_wav(root / "audio" / "strong" / "x.wav", tone(300, 1.0))
    (root / "metadata" / "train").mkdir(parents=True)
    weak = rows(lambda f, c: f"{f}\t{c}\n" if f in NAMES[::2] else "")
    (root / "metadata" / "train" / "weak.tsv").write_text("filename\tevent_labels\n" + weak)
    strong = "filename\tonset\toffset\tevent_label\nx.wav\t0.1\t0.4\tdog\nx.wav\t0.5\t0.9\train\n"
    (root / "metadata" / "strong.tsv").write_text(strong)


def labels_beside(place: str, name: str, text: str) -> Make:
    """Sounds of a second and, for each, a file of labels."""

    def make(root: Path) -> None:
        for n in range(2):
            write_wav(root / "audio" / f"{n}.wav", tone(300 + n, 1.0))
            (root / place).mkdir(exist_ok=True)
            (root / place / name.format(n)).write_text(text)

    return make


AUDACITY = "0.1\t0.4\tdog\n\\\t100.0\t200.0\n0.5\t0.9\train\n"
RAVEN = "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t0.1\t0.4\tdog\n2\t0.5\t0.9\train\n"


def segments(head: str, dog: str, rain: str) -> Make:
    """A table of two segments in each of two sounds of one second."""

    def make(root: Path) -> None:
        for n in range(2):
            write_wav(root / f"{n}.wav", tone(300 + n, 1.0))
        pairs = (("dog", dog), ("rain", rain))
        lines = [f"{n}.wav,{times},{label}" for n in range(2) for label, times in pairs]
        (root / "events.csv").write_text("\n".join([f"filename,{head},label", *lines]))

    return make


def with_links(root: Path) -> None:
    class_folders_with()(root)
    (root / "dog" / "up").symlink_to("..")
    (root / "dog" / "beside").symlink_to(root / "rain")
    clips(root / "@eaDir" / "dog", ["thumb.wav"])


READ = {
    "column audio": table("labels.csv", head="audio,label"),
    "column wav": table("labels.csv", head="wav,label"),
    "column of another name": table("labels.csv", head="Datei,label"),
    "column slice_file_name": table("labels.csv", head="slice_file_name,label"),
    "label of another name": table("labels.csv", head="filename,Art"),
    "TSV": table("validated.tsv", head="path,label"),
    "no column names": table("labels.csv", head=""),
    "Windows paths": table("labels.csv", lambda file: f"audio\\{file}", "path,label"),
    "names without suffix": table("labels.csv", lambda file: file[:-4], "fname,label"),
    "from the folder above": table("labels.csv", lambda file: f"set/audio/{file}"),
    "columns parted by blanks": content("labels.txt", "filename label\n" + rows(lambda f, c: f"{f} {c}\n")),
    "from a folder of tables": table("meta/labels.csv", lambda file: f"../audio/{file}"),
    "absolute paths": absolute,
    "NFD": decomposed,
    "suffix in upper case": upper_case,
    "UTF-16": content("labels.csv", ("filename\tlabel\n" + rows(lambda f, c: f"{f}\t{c}\n")).encode("utf-16")),
    "pipes": content("metadata.csv", "file_name|label\n" + rows(lambda f, c: f"{f}|{c}\n")),
    "blank lines": content("labels.csv", "filename,label\n" + rows(lambda f, c: f"{f}, {c}\n\n") + ",,\n,\n"),
    "JSON": content("metadata.json", json.dumps(RECORDS, indent=1)),
    "JSON lines that are a list": content("metadata.jsonl", json.dumps(RECORDS)),
    "Parquet": parquet_table,
    "names of files in class folders": files(BY_CLASS, {"metadata.csv": "file_name,label\n" + rows(plain)}),
    "FSDKaggle": kaggle_competition,
    "Speech Commands": speech_commands,
    "UrbanSound8K of Kaggle": kaggle_urbansound8k,
    "two tables": two_tables,
    "GTZAN": tables_that_repeat,
    "DCASE": acoustic_scenes,
    "classes below parts": parts_with_classes,
    "links and litter": with_links,
    "ESC-50 one level up": table("ESC-50-master/meta/esc50.csv", head="filename,category", place="ESC-50-master/audio"),
    "FSD50K of one label": fsd50k(""),
    "Parquet tables in parts": parquet_in_parts,
    "parts below classes": parts_below_classes,
    "litter of systems": files(BY_CLASS | {key: ["x.wav"] for key in LITTER}),
    "paths of another machine": table("labels.csv", lambda file: f"/home/nobody/set/audio/{file}", "path,label"),
    "paths of Windows elsewhere": table("labels.csv", lambda file: f"C:\\Users\\x\\{file}", "path,label"),
    "URLs": table("labels.csv", lambda file: f"https://x.org/a/{file}", "url,label"),
    "names as in URLs": table("labels.csv", lambda file: file.replace("_", "%5F")),
    "names before they were converted": table("labels.csv", lambda file: file.replace(".wav", ".mp3")),
    "ids in a column of any name": table("labels.csv", lambda file: file[:-4], "itemid,hasbird"),
    "blanks between": content("labels.txt", rows(lambda f, c: f"audio/{f} {c}\n")),
    "comments above": content("labels.csv", "# made today\n# filename, label\n" + rows(lambda f, c: f"{f}, {c}\n")),
    "JSON by file": content("labels.json", json.dumps({row["file_name"]: row["label"] for row in RECORDS})),
    "JSON by column": content("labels.json", json.dumps({key: [row[key] for row in RECORDS] for key in RECORDS[0]})),
    "JSON of pandas": content("x.json", json.dumps({key: {n: row[key] for n, row in enumerate(RECORDS)} for key in RECORDS[0]})),
    "JSON by class": content("labels.json", json.dumps({c: [f for f in NAMES if c in f] for c in CLASSES})),
    "JSON below a key": content("labels.json", json.dumps({"info": {}, "data": RECORDS})),
    "Audacity": labels_beside("labels", "{}.txt", AUDACITY),
    "Raven": labels_beside("audio", "{}.Table.1.selections.txt", RAVEN),
    "UrbanSound": urbansound,
    "DESED": desed,
    "DCASE in an archive": wrapped(acoustic_scenes),
    "classes in an archive": wrapped(class_folders_with()),
    "Speech Commands in an archive": wrapped(speech_commands),
    "UrbanSound8K in an archive": wrapped(kaggle_urbansound8k),
    "parts with classes in an archive": wrapped(parts_with_classes),
    "UTF-16 without a mark": content("labels.csv", ("filename,label\n" + rows(lambda f, c: f"{f},{c}\n")).encode("utf-16-le")),
    "for Excel": content("labels.csv", "sep=;\nfilename;label\n" + rows(lambda f, c: f"{f};{c}\n")),
    "from and to": segments("from,to", "0:00.1,0:00.4", "0:00.5,0:00.9"),
    "counted in samples": segments("start_sample,end_sample", "2205,8820", "11025,19845"),
    "onset and duration": segments("onset,duration", "0.1,0.3", "0.5,0.4"),
    "milliseconds": segments("start_ms,end_ms", "100,400", "500,900"),
    "offset and duration": segments("offset,duration", "0.1,0.3", "0.5,0.4"),
    "AudioSet": segments("start_time_seconds,end_time_seconds", "0.1,0.4", "0.5,0.9"),
}  # fmt: skip


@pytest.mark.parametrize("make", READ.values(), ids=READ.keys())
def test_read(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "set")
    source = open_source(tmp_path / "set")
    assert source.counts() == BOTH
    assert len(decode_source(source, 8_000)) == 4


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (kaggle_competition, "left out 2 audio files that no table lists (audio_test/x.wav, audio_test/y.wav)"),
        (two_tables, "the publisher's parts in the column split (test 2, train 2) are read as one; to test"),
        (
            files({"audio": NAMES}, {"train.csv": "fname,label\n" + rows(plain, FIRST), "test.csv": "fname\n" + "\n".join(SECOND)}),
            "test.csv: no column of labels, so its clips are left out",
        ),
        (acoustic_scenes, "the publisher's parts in the column split (fold1_evaluate 2, train 2)"),
        (tables_that_repeat, "left out 4 rows of features_3_sec.csv, whose files other tables list"),
        (content("labels.csv", b"filename,label,ort\n" + rows(lambda f, c: f"{f},{c},Köln\n").encode("cp1252")), "read as Windows-1252 (Köln)"),
        (content("labels.csv", "filename,label,train\n" + rows(lambda f, c: f"{f},{c},{f[-5]}\n")), "the column train (0 2, 1 2)"),
        (fsd_in_one_table, "the publisher's parts in the column split (test 2, train 2)"),
        (wrapped(class_folders_with()), "lies in archive/set-master"),
        (speech_commands, "_background_noise_ is not a class and is left out"),
        (speech_commands, "the publisher's lists of parts (testing_list 2, train 2) are not used; to test on one"),
        (class_folders_with(siren__zip=""), "not read: siren.zip; unpack archives"),
        (class_folders_with(train__txt="dog/dog_0.wav\nrain/rain_0.wav", test__txt="dog/dog_1.wav\nrain/rain_1.wav"), "lists of parts (test 2, train 2)"),
        (parts_below_classes, "the publisher's parts in the column split (test 2, train 2)"),
        (content("labels.csv", "filename,label,is_test\n" + rows(lambda f, c: f"{f},{c},{f[-5]}\n")), "the column is_test (0 2, 1 2)"),
        (content("labels.csv", "filename,label,dataset\n" + rows(lambda f, c: f"{f},{c},{('train', 'test')[int(f[-5])]}\n")), "column dataset (test 2, train 2)"),
        (lambda root: [clips(root / f"Actor_0{n}", [f"{n}.wav"]) for n in (1, 2)], "Actor_01, Actor_02 differ by a number alone"),
        (lambda root: clips(root / "dog"), "one class, dog: classes are the folders directly below"),
        (with_links, "left out 2 links to folders that are read anyway or lie above (dog/beside, dog/up)"),
        (lambda root: [clips(root / name, NAMES[:2]) for name in ("Dog", "dog", "rain ")], "'Dog' and 'dog'"),
        (
            lambda root: [clips(root / day / kind, [f"{day}.wav"]) for day in ("mon", "tue") for kind in CLASSES],
            "all of them have the same folders (dog, rain): if those are the classes, swap the two levels",
        ),
        (
            content("labels.csv", "filename,label\n" + rows(lambda f, c: f"{f},{c}\n") * 2),
            "left out 4 rows that repeat a file",
        ),
    ],
)  # fmt: skip
def test_notes(tmp_path: Path, make: Make, said: str) -> None:
    make(tmp_path / "set")
    assert any(said in note for note in open_source(tmp_path / "set").notes)


@pytest.mark.parametrize("make", [two_tables, parts_with_classes, speech_commands, acoustic_scenes])
def test_the_publishers_parts_can_be_the_folds(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "set")
    source = open_source(tmp_path / "set", fold_column="split")
    assert source.folds == (1, 2) and sum(clip.fold == 1 for clip in source.clips) == 2
    recordings = {speech_commands: ("speaker-ab", "speaker-cd"), acoustic_scenes: ("city-0", "city-1")}
    if make in recordings:  # speakers and places
        assert {clip.group for clip in source.clips} == {f"set/{name}" for name in recordings[make]}


@pytest.mark.parametrize(
    ("make", "error", "field"),
    [
        (lambda root: [clips(root / name) for name in ("audio_train", "audio_test")], SourceError, ""),
        (lambda root: [clips(root / name) for name in ("train_data", "test_data")], SourceError, ""),
        (lambda root: [clips(root / f"FSD50K.{name}_audio") for name in ("dev", "eval")], SourceError, ""),
        (lambda root: clips(root / "clips"), SourceError, ""),
        (lambda root: clips(root / "audio_16k"), SourceError, ""),
        (lambda root: clips(root / "AudioWAV"), SourceError, ""),
        (lambda root: [clips(root / f"{kind}_{part}set_wav") for kind in ("clean", "noisy") for part in ("train", "test")], SourceError, ""),
        (wrapped(lambda root: [clips(root / f"fold{n}") for n in (1, 2)]), SourceError, ""),
        (links_to_nothing, SourceError, ""),
        (files({"tape1": FIRST, "tape2": FIRST}, {"metadata.csv": "file_name,label\n" + rows(plain, FIRST)}), SourceError, ""),
        (content("labels.csv", ("filename,label\n" + rows(lambda f, c: f"{f},{c}ü\n")).encode("mac-roman")), SourceError, ""),
        (content("labels.csv", ("filename,label\n" + rows(lambda f, c: f"{f},{c}звук\n")).encode("cp1251")), SourceError, ""),
        (content("metadata.csv", ("file_name,label\n" + rows(lambda f, c: f"{f},サイレン\n")).encode("shift-jis")), SourceError, ""),
        (content("metadata.jsonl", '{"file_name": "dog_0.wav", "label"'), SourceError, ""),
        (content("labels.csv", "filename,label\n" + "".join(f"{f},{c}\n" for f, c in zip(NAMES, ("dog", "rain", "dog+rain", "dog"), strict=True))), SourceError, "label_column"),
        (content("examples.json", json.dumps(NSYNTH)), SourceError, "label_column"),
        (fsd50k(",Sound"), SourceError, "label_column"),
        (content("labels.xlsx", b"PK"), SourceError, ""),
        (content("labels.csv", "uuid,label\nab,dog\ncd,rain\n"), SourceError, ""),
        (content("labels.csv", "filename,label\n" + rows(lambda f, c: f"{f},\"['{c}']\"\n")), SourceError, "label_column"),
        (content("labels.csv", "filename,labels\n" + rows(lambda f, c: f'{f},"{c},Sound"\n')), SourceError, "label_column"),
        (content("x.jsonl", "".join(json.dumps({"file": f, "label": ["dog"]}) + "\n" for f in NAMES)), SourceError, "label_column"),
        (content("labels.csv", "filename,label\n" + rows(lambda f, c: f"{f},{c}\n") + "dog_0.wav,rain\n"), SourceError, "label_column"),
        (content("labels.csv", "filename,dog,rain\n" + rows(lambda f, c: f"{f},1,0\n")), SourceError, "label_column"),
        (content("metadata.csv", "file_name,label\n" + rows(lambda f, c: f"x{f},{c}\n")), SourceError, ""),
        (content("labels.csv", "filename,label\n" + rows(lambda f, c: f"{f},{c}\n") + "ghost.wav,dog\n"), SourceError, ""),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, make: Make, error: type[UskError], field: str) -> None:
    make(tmp_path / "set")
    with pytest.raises(error) as raised:
        open_source(tmp_path / "set")
    assert raised.value.field == field and "\n" not in str(raised.value) and raised.value.hint


@pytest.mark.parametrize(("flags", "kind"), [("01", "one-hot"), ("11", "multi-hot")])
def test_one_hot_labels_are_named(tmp_path: Path, flags: str, kind: str) -> None:
    lines = rows(lambda f, c: f"{f},{flags[c == 'dog']},{flags[0] if c == 'dog' else 1}\n")
    content("labels.csv", f"filename,dog,rain\n{lines}")(tmp_path / "set")
    with pytest.raises(SourceError, match=f"labels are {kind}.*dog, rain"):
        open_source(tmp_path / "set")


def test_columns_without_names_can_be_named(tmp_path: Path) -> None:
    content("meta.txt", rows(lambda f, c: f"audio/{f}\t{c}\t{c}{f[-5]}\n"))(tmp_path)
    with pytest.raises(SourceError, match=r"column2, column3.*dog, dog0") as raised:
        open_source(tmp_path)
    assert raised.value.field == "label_column"
    source = open_source(tmp_path, label_column="column2", group_column="column3")
    assert source.counts() == BOTH and len({clip.group for clip in source.clips}) == 4


@pytest.mark.parametrize("form", ["1-30226{0}-{1}.wav", "10230{0}-1-{1}-0.wav"])
def test_names_of_published_data_sets_say_the_recording(tmp_path: Path, form: str) -> None:
    takes = "AB" if form.startswith("1-") else "01"
    for n, label in enumerate(CLASSES):
        clips(tmp_path / label, [form.format(n, take) for take in takes])
    source = open_source(tmp_path)
    assert source.has_groups and len({clip.group for clip in source.clips}) == 2


def test_the_nearest_file_of_a_missing_one_and_tables_that_contradict_each_other_are_named(
    tmp_path: Path,
) -> None:
    content("metadata.csv", "file_name,label\n" + rows(lambda f, c: f"x{f},{c}\n"))(tmp_path / "near")
    with pytest.raises(SourceError, match=r"\(xdog_0\.wav, .*nearest that is there is audio/dog_0\.wav"):
        open_source(tmp_path / "near")
    tables_that_repeat(tmp_path / "set")
    other = tmp_path / "set" / "Data" / "features_30_sec.csv"
    other.write_text(other.read_text().replace("dog_1.wav,dog", "dog_1.wav,rain"))
    with pytest.raises(SourceError, match=r"dog_1\.wav is rain in .*30_sec\.csv and dog in .*3_sec\.csv"):
        open_source(tmp_path / "set")


def test_the_column_of_files_can_be_named(tmp_path: Path) -> None:
    content("labels.csv", "filename,second,label\n" + rows(lambda f, c: f"audio/{f},other/{f},{c}\n"))(
        tmp_path / "set"
    )
    clips(tmp_path / "set" / "other")
    first, second = (open_source(tmp_path / "set", audio_column=name) for name in ("filename", "second"))
    assert str(first.audio[0].path).endswith("audio/dog_0.wav")
    assert str(second.audio[0].path).endswith("other/dog_0.wav")
    with pytest.raises(UsageError) as raised:
        open_source(tmp_path / "set", audio_column="third")
    assert raised.value.field == "audio_column"


def test_labels_are_text(tmp_path: Path) -> None:
    content("labels.csv", "filename,label\n" + "".join(f"{f},{c}\n" for f, c in zip(NAMES, ("001", "01", "1", "10"), strict=True)))(
        tmp_path / "set"
    )  # fmt: skip
    assert open_source(tmp_path / "set").class_names == ("001", "01", "1", "10")


def strong_labels(folder: Path, more: str = "") -> None:
    """Two sounds, low and then high, with a table of segments in them."""
    table = "filename\tonset\toffset\tevent_label\n"
    for n in range(2):
        write_wav(folder / f"{n}.wav", np.concatenate([tone(300, 0.5), tone(900, 0.5)]))
        table += f"{n}.wav\t0.05\t0.45\tlow\n{n}.wav\t0.55\t0.95\thigh\n"
    (folder / "strong.tsv").write_text(table + more)


def test_strong_labels_are_cut_at_onset_and_offset_and_those_that_disagree_left_out(tmp_path: Path) -> None:
    strong_labels(tmp_path / "two", "0.wav\t0.05\t0.45\thigh\n0.wav\t0.05\t0.45\tlow\n")
    source = open_source(tmp_path / "two")
    assert source.counts() == {"high": 2, "low": 1}
    assert any("3 rows" in note and "0.wav" in note for note in source.notes)
    strong_labels(tmp_path / "set")
    source = open_source(tmp_path / "set")
    assert source.counts() == {"high": 2, "low": 2} and len({clip.group for clip in source.clips}) == 2
    decoded = decode_source(source)
    for row, clip in enumerate(decoded.source.clips):
        assert clip.duration_s == pytest.approx(0.4, abs=1e-3)
        expected_hz = {"low": 300, "high": 900}[decoded.class_name(row)]
        assert peak_hz(decoded.audio(row), 22_050) == pytest.approx(expected_hz, abs=5)
