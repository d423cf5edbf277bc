"""Prompts by class: templates, files, and wrong files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from usk.data.prompts import DEFAULT_PROMPT, read_prompts
from usk.errors import UsageError

CLASSES = ["dog_bark", "siren"]


def test_a_template_names_the_class_in_words() -> None:
    prompts = read_prompts(DEFAULT_PROMPT, CLASSES)
    assert prompts.draw("dog_bark", 3) == "a field recording of dog bark"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.toml", 'dog_bark = ["a dog", "two dogs", "barks"]\nsiren = "a siren"\nother = ["x"]\n'),
        ("p.csv", "class,prompt\ndog_bark,a dog\ndog_bark,two dogs\nsiren,a siren\ndog_bark,barks\n"),
    ],
)
def test_several_prompts_of_a_class_are_drawn_evenly_and_by_seed(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    prompts = read_prompts(str(tmp_path / name), CLASSES)
    drawn = Counter(prompts.draw("dog_bark", seed) for seed in range(3_000))
    assert set(drawn) == {"a dog", "two dogs", "barks"} and min(drawn.values()) > 900
    assert prompts.draw("siren", 1) == "a siren"
    assert prompts.draw("dog_bark", 7) == prompts.draw("dog_bark", 7)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.toml", 'dog_bark = ["a dog"]\n', "no prompt for siren"),
        ("p.toml", "dog_bark = [1]\n", "not a list of texts"),
        ("p.toml", "dog_bark = [", "does not list prompts"),
        ("p.toml", "dog_bark = " + "[" * 100_000, "does not list prompts"),
        ("p.csv", "class,prompt\n" + "x" * 200_000 + ",a\n", "does not list prompts"),
        ("p.csv", "name,text\ndog_bark,a dog\n", "does not list prompts"),
        ("p.csv", "class,prompt\ndog_bark,\nsiren,a siren\n", "no prompt for dog_bark"),
        ("p.csv", None, "cannot be read"),
        ("a sound", None, "does not contain {class}"),
        ("p.txt", "a dog\n", "neither a .toml nor a .csv file"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said) as caught:
        read_prompts(name if name == "a sound" else str(tmp_path / name), CLASSES)
    assert caught.value.field == "prompt"
