"""What of a folder is shared: which kind it is, whether it is whole, its files and its card."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usk.cards import PLACE
from usk.data.licenses import UNKNOWN, is_noncommercial
from usk.errors import UsageError, UskError
from usk.files import read_json
from usk.manifest import MANIFEST_FILE, read_manifest
from usk.runs import RUN_FILE, run_folders
from usk.text import abbreviate_list

CARD_FILE = "README.md"
TAKES = "usk push takes a synthetic dataset (usk synth), a run (usk train) or a generator (usk fit)"


@dataclass(frozen=True)
class Kind:
    """One of the things that can be shared."""

    name: str
    repo_type: str  # on the Hub
    marker: str  # the file that tells it
    files: re.Pattern[str]  # the paths that belong to it; nothing else is uploaded or, on the Hub, deleted
    use: str  # what the one who gets it can do with `{id}`


KINDS = (
    Kind(
        "synthetic dataset",
        "dataset",
        MANIFEST_FILE,
        re.compile(
            rf"{re.escape(MANIFEST_FILE)}|README\.md|plan\.jsonl|(audit|study)\.json|accuracy\.png|"
            r"(data/train|rejected/rejected)-\d{5}-of-\d{5}\.parquet"
        ),
        "usk train --mix real,{id}",
    ),
    Kind(
        "run",
        "model",
        RUN_FILE,
        re.compile(
            r"run\.json|README\.md|config\.json|model\.safetensors|predictions\.parquet|history\.json"
        ),
        "usk predict FILE --run {id}",
    ),
    Kind(
        "generator",
        "model",
        "model_index.json",
        re.compile(
            r"(model_index|trained_on|training|round_trip)\.json|README\.md|preview\.png|"
            r"(unet|vqvae|mel|scheduler|audio_encoder)/\w[^/]*\.(json|safetensors)"
        ),
        "usk synth --model {id}",
    ),
)


@dataclass(frozen=True)
class SharedFile:
    """One file as it is to stand in the repo."""

    path: str
    size: int  # bytes
    sha256: str
    source: Path
    content: bytes | None = None  # where it is not the source's own

    @property
    def data(self) -> bytes | str:
        """What the Hub client takes: the content, or the name of the file that has it."""
        return self.content if self.content is not None else str(self.source)

    def git_id(self) -> str:
        """Git's name for the content: how the Hub names small files."""
        content = self.content if self.content is not None else self.source.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A folder's files that are shared, and what its card says."""

    kind: Kind
    folder: Path
    files: tuple[SharedFile, ...]
    title: str
    license: str
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def open_bundle(
    folder: str, repo_id: str, progress: Callable[[int, int], None] = lambda done, of: None
) -> Bundle:
    """What of `folder` is shared as `repo_id`; `progress` counts files read.

    Raises UsageError for a folder of no known kind, UskError for one that is not whole.
    """
    root = Path(folder).expanduser()
    kind = _kind_of(root, folder)
    paths = sorted(
        path
        for path in (entry.relative_to(root).as_posix() for entry in root.rglob("*") if entry.is_file())
        if kind.files.fullmatch(path)
    )
    record = _read_record(root / kind.marker)
    {"synthetic dataset": _check_dataset, "run": _check_run, "generator": _check_generator}[kind.name](
        root, record, paths
    )
    notes, title, license_name = [], "", _inherited_license(root, kind, record)
    files = []
    for done, path in enumerate(paths):
        progress(done, len(paths))
        if path == CARD_FILE:
            card = (root / path).read_text(encoding="utf-8").replace(PLACE, repo_id)
            title, license_name = _read_card(root / path, card, license_name)
            content = card.encode()
            files.append(
                SharedFile(path, len(content), hashlib.sha256(content).hexdigest(), root / path, content)
            )
        else:
            with (root / path).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            files.append(SharedFile(path, (root / path).stat().st_size, digest, root / path))
    progress(len(paths), len(paths))
    if kind.name == "synthetic dataset":
        _compare_hashes(root, files)
    if not title:
        notes.append(f"{folder} has no card ({CARD_FILE}): a stranger learns nothing of what it is")
    notes += _home_named(files)
    return Bundle(kind, root, tuple(files), title, license_name, tuple(notes))


def _kind_of(root: Path, typed: str) -> Kind:
    if not root.exists():
        beside = root.parent if root.parent.is_dir() else Path()
        names = [entry.name for entry in beside.iterdir() if entry.is_dir()]
        near = difflib.get_close_matches(root.name, names, n=1)
        hint = f"did you mean {beside / near[0]}?" if near else TAKES
        raise UsageError(f"{typed}: no such folder; {hint}")
    if not root.is_dir():
        raise UsageError(f"{typed} is a file; name the folder that it is in. {TAKES}")
    for kind in KINDS:
        if (root / kind.marker).is_file():
            return kind
    runs = [folder.relative_to(root).as_posix() for folder in run_folders(root)]
    if runs:
        raise UsageError(f"{typed} holds {len(runs)} runs; name one of them: {abbreviate_list(runs)}")
    if (root / "fit.json").is_file():
        raise UskError(
            f"{typed} is a generator that is not finished; run the same `usk fit` again and it goes on"
        )
    markers = ", ".join(kind.marker for kind in KINDS)
    raise UsageError(f"{typed} is nothing that usk made: it has none of {markers}; {TAKES}")


def _read_record(file: Path) -> dict[str, Any]:
    """A JSON object of the folder. Raises UskError where the file holds none."""
    return read_json(file, UskError, f"{file} is damaged; make the folder again")


# --- whole? ------------------------------------------------------------------------------------------------


def _check_dataset(root: Path, _: dict[str, Any], paths: list[str]) -> None:
    """Every shard there with the clips that the plan gives it, and no other one."""
    import pyarrow.parquet as pq

    manifest, again = read_manifest(root, UskError), "run the same `usk synth` again"
    every = manifest.all_shards
    if not manifest.shards:
        raise UskError(f"{root} is unfinished: the classifier filter has not chosen its clips yet; {again}")
    missing = sorted(set(every) - set(paths))
    if missing:
        raise UskError(
            f"{root} is unfinished: {len(missing)} of {len(every)} shards are missing; "
            f"{again} and it goes on where it stopped"
        )
    if CARD_FILE not in paths or "plan.jsonl" not in paths:
        raise UskError(f"{root} is unfinished: it has no card or no plan yet; {again}")
    over = sorted(path for path in paths if path.startswith(("data/", "rejected/")) and path not in every)
    if over:
        raise UskError(
            f"{root} has shards that its {MANIFEST_FILE} does not know ({abbreviate_list(over)}); delete them"
        )
    plan = (root / "plan.jsonl").read_bytes()
    if hashlib.sha256(plan).hexdigest() != manifest.plan_sha256:
        raise UskError(
            f"{root / 'plan.jsonl'} is not the plan that {MANIFEST_FILE} names; make the dataset again"
        )
    planned = [json.loads(line)["clip_id"] for line in plan.splitlines()]
    found: dict[str, list[str]] = {}
    for name in every:
        try:
            found[name] = pq.read_table(root / name, columns=["clip_id"]).column(0).to_pylist()
        except (OSError, ValueError, KeyError) as error:
            raise UskError(f"{root / name} is damaged; delete it and {again}") from error
    for part in (manifest.shards, manifest.rejected):
        # The classifier filter divides the clips once all are made; in each part they keep the plan's order.
        here = {clip_id for name in part for clip_id in found[name]}
        expected = [clip_id for clip_id in planned if clip_id in here]
        begin = 0
        for name, shard in part.items():
            if found[name] != expected[begin : begin + shard.rows]:
                raise UskError(
                    f"{root / name} differs from {MANIFEST_FILE}: {len(found[name])} clips where it names {shard.rows}, or "
                    f"other ones; delete it and {again}"
                )
            begin += shard.rows
    if sorted(planned) != sorted(name for names in found.values() for name in names):
        raise UskError(f"{root} has not just the clips of its plan; delete it and make it again")


def _compare_hashes(root: Path, files: list[SharedFile]) -> None:
    """The manifest knows the hash of each shard since the dataset was finished."""
    shards = read_manifest(root, UskError).all_shards
    for file in files:
        if file.path in shards and shards[file.path].sha256 != file.sha256:
            raise UskError(
                f"{file.source} was changed after it was made: its hash differs from {MANIFEST_FILE}; delete it and "
                "run the same `usk synth` again"
            )


def _check_run(root: Path, record: dict[str, Any], paths: list[str]) -> None:
    for name in ("config.json", "model.safetensors"):
        if name not in paths:
            raise UskError(f"{root} has no {name}, without which nobody can load it; train the run again")
    _check_weights(root / "model.safetensors")


def _check_generator(root: Path, index: dict[str, Any], paths: list[str]) -> None:
    """Every network that the index names has its weights, as safetensors."""
    for name, entry in index.items():
        if name not in ("unet", "vqvae", "audio_encoder") or not isinstance(entry, list) or not entry[0]:
            continue
        weights = [path for path in paths if path.startswith(f"{name}/") and path.endswith(".safetensors")]
        if not weights:
            pickled = any((root / name).glob("*.bin"))
            why = "has its weights pickled (.bin) alone" if pickled else "has no weights"
            raise UskError(
                f"{root}: {name} {why}; what is shared is safetensors, which `usk fit --from {root}` writes"
            )
        for path in weights:
            _check_weights(root / path)


def _check_weights(file: Path) -> None:
    """Whether a safetensors file is as long as its header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            pass
    except (SafetensorError, OSError) as error:
        raise UskError(f"{file} is damaged or cut short; make the folder again") from error


# --- the card ----------------------------------------------------------------------------------------------


def _inherited_license(root: Path, kind: Kind, record: dict[str, Any]) -> str:
    """The license that the records pass on."""
    if kind.name == "generator":
        record = _read_record(root / "trained_on.json") if (root / "trained_on.json").is_file() else {}
    return str(record.get("license", UNKNOWN))


def _read_card(file: Path, card: str, inherited: str) -> tuple[str, str]:
    """Title and license of a card, which must not be freer than what it inherits."""
    import yaml  # type: ignore[import-untyped,unused-ignore]

    head = re.match(r"---\r?\n(.*?\n)---\r?\n", card, re.DOTALL)
    try:
        metadata = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError as error:
        raise UskError(f"{file} has metadata that is no YAML; mend it, or make the folder again") from error
    metadata = metadata if isinstance(metadata, dict) else {}
    title = next((line[2:].strip() for line in card.splitlines() if line.startswith("# ")), file.parent.name)
    stated = metadata.get("license")
    stated = metadata.get("license_name", stated) if stated == "other" else stated
    if is_noncommercial(inherited) and not is_noncommercial(str(stated)):
        raise UskError(
            f"{file} states the license {stated}, but what it is made from is {inherited}: non-commercial; "
            "restore the card's license"
        )
    return re.sub(r"\\(.)", r"\1", title), str(stated or inherited)


def _home_named(files: list[SharedFile]) -> list[str]:
    """A note where records name the user's home folder: it would be public."""
    home = str(Path.home()).encode()
    named = [
        file.path
        for file in files
        if file.path.endswith((".json", ".md")) and len(home) > 5 and home in file.source.read_bytes()
    ]
    return (
        [f"{abbreviate_list(named)} names folders below your home; who can see the repo can read them"]
        if named
        else []
    )
