"""Collect and check the files of a folder for a push: its kind, completeness, card and license."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usk.cards import PLACE, card_metadata, seal
from usk.data.licenses import UNKNOWN, is_noncommercial
from usk.data.pinned import looks_like_hub_id
from usk.diffusion.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS
from usk.errors import UsageError, UskError
from usk.files import expanded, read_json, sha256_of
from usk.manifest import MANIFEST_FILE, read_manifest
from usk.reporter import Reporter
from usk.runs import RUN_FILE, run_folders
from usk.text import abbreviate_list

CARD_FILE = "README.md"
SHAREABLE = "Name a synthetic dataset (usk synth), a run (usk train) or a generator (usk fit)."
SYNTH_AGAIN = "Run the same `usk synth` again and it goes on where it stopped."


@dataclass(frozen=True)
class Kind:
    """A kind of folder that can be shared."""

    name: str
    repo_type: str  # on the Hub
    marker: str  # the file by which the kind is recognized
    files: re.Pattern[str]  # the paths to share; no other file is uploaded to the Hub or deleted there


KINDS = (
    Kind(
        "synthetic dataset",
        "dataset",
        MANIFEST_FILE,
        re.compile(
            rf"{re.escape(MANIFEST_FILE)}|README\.md|plan\.jsonl|audit\.json|"
            r"(data/train|rejected/rejected)-\d{5}-of-\d{5}\.parquet"
        ),
    ),
    Kind(
        "run",
        "model",
        RUN_FILE,
        re.compile(
            r"run\.json|README\.md|config\.json|model\.safetensors|predictions\.parquet|history\.json"
        ),
    ),
    Kind(
        "generator",
        "model",
        "model_index.json",
        re.compile(
            r"(model_index|trained_on|training|round_trip)\.json|README\.md|preview\.png|"
            r"(unet|vqvae|mel|scheduler|audio_encoder)/\w[^/]*\.(json|safetensors)"
        ),
    ),
    Kind(
        "adapter",
        "model",
        ADAPTER_FILE,
        re.compile(rf"{ADAPTER_FILE}|{ADAPTER_WEIGHTS}|(trained_on|training)\.json|README\.md"),
    ),
)


@dataclass(frozen=True)
class SharedFile:
    """One file for the repo."""

    path: str
    size: int  # bytes
    sha256: str
    source: Path
    content: bytes | None = None  # None: the content of `source`

    @property
    def data(self) -> bytes | str:
        """Return the content, or the file's name, as the Hub's client takes it."""
        return self.content if self.content is not None else str(self.source)

    def git_id(self) -> str:
        """Return Git's hash of the content, by which the Hub identifies small files."""
        content = self.content if self.content is not None else self.source.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """The files of a folder to share, with title and license from its card."""

    kind: Kind
    folder: Path
    files: tuple[SharedFile, ...]
    title: str
    license: str

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def open_bundle(folder: str, repo_id: str, reporter: Reporter | None = None) -> Bundle:
    """Collect and check the files of `folder` that are shared as `repo_id`.

    Raises UsageError for a folder of unknown kind; UskError for one that is incomplete, damaged or unreadable.
    """
    reporter, root = reporter or Reporter(), expanded(folder)
    try:
        kind = _kind_of(root, folder)
        paths = _shared_paths(root, kind)
        record = _read_record(root / kind.marker)
        CHECKS[kind.name](root, record, paths)
        if kind.name in ("generator", "adapter"):
            trained_on = root / "trained_on.json"
            record = _read_record(trained_on) if trained_on.is_file() else {}
        card, title, license = _read_card(root, str(record.get("license", UNKNOWN)), repo_id)
        shards = read_manifest(root, UskError).all_shards if kind.marker == MANIFEST_FILE else {}
        with reporter.task("checking", "files", len(paths)) as task:
            files = []
            for done, path in enumerate(paths, 1):
                file, content = root / path, card if path == CARD_FILE else None
                size = file.stat().st_size if content is None else len(content)
                digest = sha256_of(file) if content is None else hashlib.sha256(content).hexdigest()
                if path in shards and shards[path].sha256 != digest:
                    raise UskError(
                        f"{file} is damaged or was changed after it was made: its hash differs from {MANIFEST_FILE}",
                        hint=f"Delete it. {SYNTH_AGAIN}",
                    )
                files.append(SharedFile(path, size, digest, file, content))
                task.update(done)
        if not title:
            reporter.warn(f"{folder} has no card ({CARD_FILE}), so others do not learn what it is")
        _warn_of_home(files, reporter)
    except (OSError, RuntimeError) as error:  # RuntimeError: `~` of an unknown user
        raise UskError(f"{folder} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return Bundle(kind, root, tuple(files), title, license)


def _kind_of(root: Path, typed: str) -> Kind:
    """Return the kind of the folder that the user typed. Raises UsageError or UskError if it cannot be shared."""
    if not root.exists():
        parent = root.parent if root.parent.is_dir() else Path()
        names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
        similar = difflib.get_close_matches(root.name, names, n=1)
        hint = f"Did you mean {parent / similar[0]}?" if similar else SHAREABLE
        raise UsageError(f"{typed}: no such folder", hint=hint)
    if not root.is_dir():
        raise UsageError(f"{typed} is a file", hint="Name the folder that it is in.")
    for kind in KINDS:
        if (root / kind.marker).is_file():
            return kind
    runs = [folder.relative_to(root).as_posix() for folder in run_folders(root)]
    if runs:
        raise UsageError(f"{typed} holds {len(runs)} runs", hint=f"Name one of them: {abbreviate_list(runs)}")
    if (root / "fit.json").is_file():
        raise UskError(
            f"{typed} is a generator that is not finished",
            hint="Run the same `usk fit` again and it goes on.",
        )
    markers = ", ".join(kind.marker for kind in KINDS)
    raise UsageError(f"{typed} was not made by usk: it has none of {markers}", hint=SHAREABLE)


def _shared_paths(root: Path, kind: Kind) -> list[str]:
    """Return the paths of the files to share. Raises UskError if one of them is a link to a file outside of `root`."""
    files = [file for pattern in ("*", "*/*") for file in root.glob(pattern) if file.is_file()]
    paths = sorted(filter(kind.files.fullmatch, (file.relative_to(root).as_posix() for file in files)))
    for path in paths:
        if not (root / path).resolve().is_relative_to(root.resolve()):
            raise UskError(
                f"{root / path} is or lies behind a link to a file outside of {root}, and a push would upload that file",
                hint="Copy the file into the folder.",
            )
    return paths


def _read_record(file: Path) -> dict[str, Any]:
    return read_json(file, UskError, f"{file} is damaged; make the folder again")


def _check_dataset(root: Path, record: dict[str, Any], paths: list[str]) -> None:
    """Raise UskError unless the dataset is finished, and its plan and shard names match the manifest."""
    manifest = read_manifest(root, UskError)
    shards = manifest.all_shards
    if missing := sorted(set(shards) - set(paths)):
        raise UskError(
            f"{root} is unfinished: {len(missing)} of {len(shards)} shards are missing", hint=SYNTH_AGAIN
        )
    finished = manifest.shards and all(shard.sha256 for shard in shards.values())
    if not finished or not {CARD_FILE, "plan.jsonl"} <= set(paths):
        raise UskError(f"{root} is unfinished: its clips, plan or card are not complete", hint=SYNTH_AGAIN)
    if unknown := sorted(path for path in paths if path.endswith(".parquet") and path not in shards):
        raise UskError(
            f"{root} has shards that are not in its {MANIFEST_FILE}",
            hint=f"Delete {abbreviate_list(unknown)}.",
        )
    if sha256_of(root / "plan.jsonl") != manifest.plan_sha256:
        raise UskError(
            f"{root / 'plan.jsonl'} is not the plan that {MANIFEST_FILE} names",
            hint="Make the dataset again.",
        )


def _check_run(root: Path, record: dict[str, Any], paths: list[str]) -> None:
    for name in ("config.json", "model.safetensors"):
        if name not in paths:
            raise UskError(f"{root} has no {name}, so nobody can load it", hint="Train the run again.")
    _check_weights(root / "model.safetensors")


def _check_generator(root: Path, index: dict[str, Any], paths: list[str]) -> None:
    """Raise UskError unless every network in the index has safetensors weights."""
    for name, entry in index.items():
        if name not in ("unet", "vqvae", "audio_encoder") or not isinstance(entry, list) or not any(entry):
            continue
        weights = [path for path in paths if path.startswith(f"{name}/") and path.endswith(".safetensors")]
        if not weights:
            pickled = any((root / name).glob("*.bin"))
            raise UskError(
                f"{root}: {name} has {'only pickled weights (.bin)' if pickled else 'no weights'}",
                hint=f"Only safetensors are shared. Run `usk fit` from {root} to write them.",
            )
        for path in weights:
            _check_weights(root / path)


def _check_adapter(root: Path, config: dict[str, Any], paths: list[str]) -> None:
    """Raise UskError unless the adapter has weights, and a base model that others can load."""
    if not looks_like_hub_id(base := str(config.get("base_model_name_or_path"))):
        raise UskError(
            f"{root} adapts {base}, a folder on this machine that nobody else can load",
            hint="Fit it from the model on the Hub.",
        )
    if ADAPTER_WEIGHTS not in paths:
        raise UskError(f"{root} has no {ADAPTER_WEIGHTS}", hint="Fit it again.")
    _check_weights(root / ADAPTER_WEIGHTS)


CHECKS = {
    "synthetic dataset": _check_dataset,
    "run": _check_run,
    "generator": _check_generator,
    "adapter": _check_adapter,
}


def _check_weights(file: Path) -> None:
    """Raise UskError unless a safetensors file has the length that its header states."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            pass
    except (SafetensorError, OSError) as error:
        raise UskError(f"{file} is damaged or cut short", hint="Make the folder again.") from error


def _read_card(root: Path, inherited: str, repo_id: str) -> tuple[bytes, str, str]:
    """Return the card for the repo, its title, and its license; card and title are empty without a card.

    Raises UskError if it states a freer license than the inherited one.
    """
    file = root / CARD_FILE
    if not file.is_file():
        return b"", "", inherited
    try:
        text = file.read_bytes().decode("utf-8").replace(PLACE, repo_id)
        metadata = card_metadata(text)
    except ValueError as error:
        problem = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise UskError(f"{file} {problem}", hint="Fix it, or make the folder again.") from error
    names = metadata.get("license_name" if metadata.get("license") == "other" else "license")
    stated = names if isinstance(names, str) else None
    if is_noncommercial(inherited) and not is_noncommercial(str(stated)):
        raise UskError(
            f"{file} states the license {stated}, but it is made from {inherited} data, which is non-commercial",
            hint="Restore the card's license.",
        )
    title = next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), root.name)
    return seal(text).encode(), re.sub(r"\\(.)", r"\1", title), stated or inherited


def _warn_of_home(files: list[SharedFile], reporter: Reporter) -> None:
    """Warn if a file contains the path of the user's home folder, which the push would publish."""
    home = str(expanded("~")).encode()
    names = [
        file.path
        for file in files
        if file.path.endswith((".json", ".md")) and len(home) > 5 and home in file.source.read_bytes()
    ]
    if names:
        reporter.warn(
            f"{abbreviate_list(names)} names folders below your home; who can see the repo can read them"
        )
