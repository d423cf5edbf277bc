"""Render dataset and model cards: Markdown from the Jinja templates in `cards/`, and metadata in YAML.

`usk.synth.card`, `usk.classify.card` and `usk.diffusion.card` collect the values. Names of classes and sources come from
users, so they are escaped.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from usk.errors import UskError

# The Hub's names of common licenses of clips. Any other license becomes `other` with a `license_name`.
HUB_LICENSES = re.compile(
    r"cc-by-nc-(sa-)?[234]\.0|cc-by-nc-nd-[34]\.0|cc-by-nd-4\.0|cc-by-sa-[34]\.0|cc-by-([234]\.0|2\.5)|"
    r"cc0-1\.0|apache-2\.0|mit|gpl-3\.0|odbl|pddl"
)
PLACE = "path/to/this/folder"
"""Placeholder for the location of the dataset, generator or run in its card. `usk push` replaces it by the Hub id."""
URBANSOUND8K = (
    "Made with recordings of UrbanSound8K (CC BY-NC 3.0, recordings by Freesound users): J. Salamon, C. Jacoby and "
    'J. P. Bello,\n"A Dataset and Taxonomy for Urban Sound Research", ACM Multimedia 2014.'
)


def _templates() -> Path:
    """Return `cards/` of a checkout, or its copy in an installed package."""
    installed = Path(__file__).parent / "card_templates"
    checkout = Path(__file__).parents[1] / "cards"
    for folder in (installed, checkout):
        if (folder / "dataset.md").is_file():
            return folder
    raise UskError("the card templates are missing", hint="Install urban-sound-kit again.")


def escape_markdown(value: object) -> str:
    """Escape `value` as plain text for Markdown, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$-])", r"\\\1", one_line(value))


def one_line(value: object) -> str:
    """Return `value` as text with spaces for line breaks and control characters."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def code_span(value: object) -> str:
    """Return `value` between backticks, safe in a table; empty for an empty value."""
    text = one_line(value).replace("`", "'").replace("|", "\\|").strip()
    return f"`{text}`" if str(value).strip() else ""


def render_card(template: str, metadata: dict[str, Any], values: dict[str, Any]) -> str:
    """Render a template of `cards/` with YAML metadata in front."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_templates()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(md=escape_markdown, code=code_span)
    body = environment.get_template(template).render(**values, place=PLACE, citation=URBANSOUND8K)
    return f"---\n{metadata_yaml(metadata)}---\n{body}"


def metadata_yaml(metadata: dict[str, Any]) -> str:
    """Return metadata as YAML. Text is quoted unless YAML 1.2, which the Hub reads, certainly takes it for text."""
    import yaml  # type: ignore[import-untyped,unused-ignore]

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        plain = re.fullmatch(r"[A-Za-z][\w /.<|-]*", value) and value.strip() == value
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    Dumper.add_representer(str, text)
    return str(yaml.dump(metadata, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10**6))


def size_category(n_rows: int) -> str:
    """Return the Hub's category for a number of rows."""
    limits = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}
    return next((name for limit, name in limits.items() if n_rows < limit), "n>1M")


def license_metadata(name: str) -> dict[str, str]:
    """Return the Hub's `license` fields for the name of a license."""
    short = re.sub(r"[^a-z0-9.-]+", "-", name.lower())
    if HUB_LICENSES.fullmatch(short):
        return {"license": short}
    return {"license": "other", "license_name": short or "unknown"}


def card_metadata(text: str) -> dict[str, Any]:
    """Parse the YAML metadata of a card; empty without any. Raises ValueError with a clause for a message."""
    import yaml

    head = re.match(r"---\r?\n(.*?\n)---\r?\n", text, re.DOTALL)
    try:
        metadata = yaml.safe_load(head[1]) if head else {}
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError("has metadata that is not YAML") from error
    return metadata if isinstance(metadata, dict) else {}


SEAL = re.compile(r"\n?<!-- written by usk, sha256 ([0-9a-f]{64}) -->\s*\Z")


def seal(text: str) -> str:
    """Append a comment with the card's hash, from which `was_edited` detects changes."""
    body = unseal(text)
    return f"{body}\n<!-- written by usk, sha256 {hashlib.sha256(body.encode()).hexdigest()} -->\n"


def unseal(text: str) -> str:
    """Remove that comment."""
    return SEAL.sub("", text).rstrip() + "\n"


def was_edited(text: str) -> bool:
    """Whether somebody changed a card that usk wrote, or wrote one with more than metadata."""
    if SEAL.search(text) is None:
        return bool(re.sub(r"\A---\r?\n.*?\n---\r?\n", "", text, flags=re.DOTALL).strip())
    return seal(text) != text
