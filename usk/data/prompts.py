"""Read prompts for text-to-audio generators: a template for all classes, or a file with prompts for each class. Imports no numpy."""

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
PROMPT_STREAM = 0x70726F  # separates the draw of a prompt from a clip's other random numbers


@dataclass(frozen=True)
class Prompts:
    """The prompts of each class, in the file's order."""

    of_class: Mapping[str, tuple[str, ...]]

    def draw(self, class_name: str, seed: int) -> str:
        """Draw one of the class's prompts; all are equally likely."""
        import numpy as np

        prompts = self.of_class[class_name]
        return prompts[int(np.random.default_rng(seed ^ PROMPT_STREAM).integers(len(prompts)))]


def text_of_parents(prompts: Mapping[str, Sequence[str]], class_name: str) -> str:
    """Return the text with which a parent is inverted: the first prompt of its class, or the class's name without prompts."""
    return prompts[class_name][0] if class_name in prompts else class_name


def read_prompts(text: str, class_names: Sequence[str]) -> Prompts:
    """Return the prompts of these classes.

    Args:
        text: a template with `{class}` in it, which is replaced by the class's name with spaces for underscores; or the path of
            a TOML file (`dog_bark = ["a dog barks", "barking"]`) or of a CSV file with the columns class and prompt.

    Raise UsageError with the field `prompt` if a file cannot be read or has no prompt for a class.
    """
    path = expanded(text)
    if path.suffix.lower() not in SUFFIXES:
        return _from_template(text, class_names)
    try:
        found = _read_toml(path) if path.suffix.lower() == ".toml" else _read_csv(path)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", field="prompt", value=text) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        message = f"does not list prompts by class ({error})"
        hint = (
            'Write TOML lines such as dog_bark = ["a dog barks"], or a CSV with the columns class and prompt.'
        )
        raise UsageError(message, field="prompt", value=text, hint=hint) from error
    if missing := [name for name in class_names if not found.get(name)]:
        message = f"has no prompt for {abbreviate_list(missing)}"
        hint = "Add one for each class, or make clips of fewer classes."
        raise UsageError(message, field="prompt", value=text, hint=hint)
    return Prompts({name: tuple(found[name]) for name in class_names})


def _from_template(text: str, class_names: Sequence[str]) -> Prompts:
    if "{class}" not in text:
        problem = "does not contain {class}, so every class would sound alike"
        if os.path.isfile(expanded(text)):  # noqa: PTH113 - Path.is_file raises an error if the name is too long
            problem = "is neither a .toml nor a .csv file"
        hint = "Write for example: a field recording of {class}"
        raise UsageError(problem, field="prompt", value=text, hint=hint)
    return Prompts({name: (text.replace("{class}", name.replace("_", " ")),) for name in class_names})


def _read_toml(path: Path) -> dict[str, list[str]]:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    lists = {name: [value] if isinstance(value, str) else value for name, value in content.items()}
    for name, prompts in lists.items():
        if not isinstance(prompts, list) or not all(isinstance(one, str) and one.strip() for one in prompts):
            raise ValueError(f"{name} is not a list of texts")
    return lists


def _read_csv(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            if row["prompt"] and row["prompt"].strip():
                found[row["class"].strip()].append(row["prompt"].strip())
    return found
