"""Prompts for text-to-audio generators: one template for all classes, or a file with several prompts for each class. Imports no numpy."""

from __future__ import annotations

import csv
import os
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from usk.errors import UsageError
from usk.files import expanded
from usk.text import abbreviate_list

DEFAULT_PROMPT = "a field recording of {class}"
SUFFIXES = (".toml", ".csv")
PROMPT_STREAM = 0x70726F  # keeps the draw of a prompt apart from a clip's other random numbers


@dataclass(frozen=True)
class Prompts:
    """The prompts of each class, in the file's order."""

    of_class: Mapping[str, tuple[str, ...]]

    def draw(self, class_name: str, seed: int) -> str:
        """The prompt of a clip of this class: each of the class's prompts is as likely."""
        import numpy as np

        prompts = self.of_class[class_name]
        return prompts[int(np.random.default_rng(seed ^ PROMPT_STREAM).integers(len(prompts)))]


def text_of_parents(prompts: Mapping[str, Sequence[str]], class_name: str) -> str:
    """What a parent is inverted with: the first prompt of its class, or the class's name where there are no prompts."""
    return prompts[class_name][0] if class_name in prompts else class_name


def read_prompts(text: str, class_names: Sequence[str]) -> Prompts:
    """Prompts for these classes.

    Args:
        text: a template with `{class}` in it, for which the class's name stands with spaces in place of underscores; or the
            path of a TOML file (`dog_bark = ["a dog barks", "barking"]`) or a CSV file with the columns class and prompt.

    Raises: UsageError with the field `prompt` for a file that cannot be read, or that has no prompt for a class.
    """
    path = expanded(text)
    if path.suffix.lower() not in SUFFIXES:
        return _of_template(text, class_names)
    try:
        found = _toml(path) if path.suffix.lower() == ".toml" else _csv(path)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", field="prompt", value=text) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise UsageError(
            f"does not list prompts by class ({error})",
            field="prompt",
            value=text,
            hint='Write TOML lines such as dog_bark = ["a dog barks"], or a CSV with the columns class and prompt.',
        ) from error
    if missing := [name for name in class_names if not found.get(name)]:
        raise UsageError(
            f"has no prompt for {abbreviate_list(missing)}",
            field="prompt",
            value=text,
            hint="Add one for each class, or make clips of fewer classes.",
        )
    return Prompts({name: tuple(found[name]) for name in class_names})


def _of_template(text: str, class_names: Sequence[str]) -> Prompts:
    if "{class}" not in text:
        is_file = os.path.isfile(expanded(text))  # noqa: PTH113 - of names that are too long too
        raise UsageError(
            "is neither a .toml nor a .csv file"
            if is_file
            else "does not say {class}, so every class would sound alike",
            field="prompt",
            value=text,
            hint="Write for example: a field recording of {class}",
        )
    return Prompts({name: (text.replace("{class}", name.replace("_", " ")),) for name in class_names})


def _toml(path: Path) -> dict[str, list[str]]:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    lists = {name: [value] if isinstance(value, str) else value for name, value in content.items()}
    for name, prompts in lists.items():
        if not isinstance(prompts, list) or not all(isinstance(one, str) and one.strip() for one in prompts):
            raise ValueError(f"{name} is not a list of texts")
    return lists


def _csv(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            if row["prompt"] and row["prompt"].strip():
                found[row["class"].strip()].append(row["prompt"].strip())
    return found
