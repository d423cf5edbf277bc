"""The study's tables as Markdown, made of its saved results and written into the pages that show them.

    usk study docs/studies/main/study.toml --real UrbanSound8K
    python docs/studies/tables.py

A page says where: what stands between `<!-- table: NAME -->` and `<!-- /table -->` is replaced.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGES = tuple(Path(__file__).with_name(name) for name in ("tables.md", "tables_why.md"))
STUDIES = Path(__file__).parent
BEST_AUGMENT = "strong"  # the best classical one: what every mix has
ALL = "all (1,002 to 1,407)"
NAMES = {
    "real,waveform": "+ sums of waveforms (control)",
    "real,classical": "+ `classical`: waveforms at another speed and pitch",
    "real,decomposed": "+ `decomposed` (default)",
    "real,filtered": "+ `decomposed`, the better half by the classifier filter",
    "real,slerp": "+ `slerp`, no guidance",
    "real,variation": "+ `variation`",
    "real,sample": "+ `sample`",
    "real,decomposed,sample": "+ `decomposed` and as many of `sample`",
}
AMOUNTS = {  # of amount, amount_folds, many and more
    "real,waveform": "+ 500 sums of waveforms (control)",
    "real,decomposed:0.2": "+ 100 clips of `decomposed` (default)",
    "real,decomposed": "+ 500 of `decomposed`",
    "real,sample:0.2": "+ 100 of `sample`",
    "real,sample": "+ 500 of `sample`",
    "real,decomposed,sample": "+ 500 of each",
    "real,many:0.5": "+ 500 of `decomposed` (default)",
    "real,many": "+ 1,000 of `decomposed`",
    "real,many_filtered": "+ the better 1,000 of 2,000 by the classifier filter",
}
Row = Mapping[str, Any]


def rows_of(comparisons: Sequence[Row], augment: str) -> dict[tuple[int | None, str], Row]:
    """The rows of runs that all have `augment`, by train_clips and mix."""
    return {
        (comparison["train_clips"], row["mix"]): row
        for comparison in comparisons
        if comparison["augment"] == augment and not comparison.get("choices")
        for row in comparison["rows"]
    }


def mixes_of(found: Iterable[tuple[int | None, str]]) -> list[str]:
    """Those of the rows, but for real clips alone, in the order of `NAMES`."""
    there = {mix for _, mix in found}
    return [mix for mix in NAMES if mix in there]


def accuracy(row: Row) -> str:
    """In %."""
    found = row["accuracy"]
    return f"{100 * (found['mean'] if isinstance(found, Mapping) else found):.1f}"


def interval(difference: Row) -> str:
    """Points, and their interval."""
    low, high = difference["low_points"], difference["high_points"]
    return f"{difference['difference_points']:+z.1f} ({low:+.1f} to {high:+.1f})"


def cell(row: Row) -> str:
    """Accuracy of a mix, and points above its baseline; bold where its verdict is that it helps."""
    difference = row["difference"]
    if not difference:
        return accuracy(row)
    helps = "**" if row["sentence"].endswith(": synthetic clips help") else ""
    return f"{accuracy(row)}<br>{helps}{interval(difference)}{helps}"


def with_pairs(row: Row) -> str:
    """The same, and the pairs that went up."""
    difference = row["difference"]
    return cell(row) + (f"<br>{difference['n_pairs_up']} of {difference['n_pairs']}" if difference else "")


def with_p(row: Row) -> str:
    """The same, and the p value after Holm."""
    return with_pairs(row) + (f", p {row['p_value_holm']:.2g}" if row["difference"] else "")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    """`words`: the columns that are no figures."""
    lines = [head, ["---" if place in words else "---:" for place in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sizes_of(study: Row) -> list[int | None]:
    found = {comparison["train_clips"] for comparison in study["comparisons"]}
    return sorted(found, key=lambda train_clips: (train_clips is None, train_clips or 0))


def by_size(study: Row, shown: Callable[[Row], str]) -> str:
    """Mixes by the number of real clips, beside real clips with each augmentation."""
    sizes = sizes_of(study)
    lines = []
    for augment in ("none", "basic", "strong"):
        alone = rows_of(study["comparisons"], augment)
        lines.append([f"real clips, `{augment}`", *(accuracy(alone[size, "real"]) for size in sizes)])
    found = rows_of(study["comparisons"], BEST_AUGMENT)
    for mix in mixes_of(found):
        lines.append([NAMES[mix], *(shown(found[size, mix]) for size in sizes)])
    first, *others = [ALL if size is None else str(size) for size in sizes]
    return markdown(["trained on", f"{first} real clips", *others], lines)


def by_fold(study: Row) -> str:
    """The same for each test fold alone."""
    folds = {fold: rows_of(found, BEST_AUGMENT) for fold, found in study["by_fold"].items()}
    lines = []
    for size in (50, 100, None):
        name = "all real clips" if size is None else f"{size} real clips"
        lines.append([f"**{name}**", *(accuracy(found[size, "real"]) for found in folds.values())])
        for mix in mixes_of(folds["1"]):
            lines.append(
                [NAMES[mix], *(with_pairs({**found[size, mix], "sentence": ""}) for found in folds.values())]
            )
    return markdown([f"trained on, with `{BEST_AUGMENT}`", *(f"test fold {fold}" for fold in folds)], lines)


def against_control(study: Row) -> str:
    """Mixes with a generator against the study's control."""
    found = rows_of(study["against_control"], BEST_AUGMENT)
    sizes = sizes_of(study)
    mixes = [mix for mix in mixes_of(found) if found[sizes[0], mix]["difference"]]
    lines = [
        [NAMES[mix], *(with_p(found[size, mix]).partition("<br>")[2] for size in sizes)] for mix in mixes
    ]
    first, *others = [ALL if size is None else str(size) for size in sizes]
    return markdown(["beside real clips", f"{first} real clips", *others], lines)


def on_validation(study: Row) -> str:
    """What each mix gains on validation clips."""
    lines = [
        [
            NAMES[row["mix"]].removeprefix("+ "),
            f"{row['gain_points']:+z.1f} ± {row['standard_error']:.1f}",
            f"{row['subsets_up']} of {row['subsets']}",
        ]
        for row in study["validation"]
    ]
    return markdown(
        ["real clips and", "points above real clips alone ± standard error over trainings", "subsets up"],
        lines,
    )


def amounts(study: Row) -> str:
    """More and more clips beside the same real ones: each test fold alone, and all of them with their p values."""
    columns = {
        f"test fold {fold}": (rows_of(found, BEST_AUGMENT), with_pairs)
        for fold, found in study["by_fold"].items()
    }
    name = {1: next(iter(columns)), 2: "both", 3: "all three"}[len(columns)]
    columns[name] = (rows_of(study["comparisons"], BEST_AUGMENT), with_p)
    lines = []
    for size in sizes_of(study):
        alone = (
            accuracy(found[size, "real"]) if (size, "real") in found else "" for found, _ in columns.values()
        )
        there = [
            fold for fold, found in study["by_fold"].items() if (size, "real") in rows_of(found, BEST_AUGMENT)
        ]
        folds = f", test folds {' and '.join(there)} alone" if 1 < len(there) < len(study["by_fold"]) else ""
        lines.append([f"**{size or 'all'} real clips**{folds}", *alone])
        for mix, said in AMOUNTS.items():
            if (size, mix) in columns[name][0]:
                found = (
                    shown({"sentence": "", **rows[size, mix]}) if (size, mix) in rows else ""
                    for rows, shown in columns.values()
                )
                lines.append([said, *found])
    return markdown([f"trained on, with `{BEST_AUGMENT}`", *columns], lines)


def amounts_by_size(study: Row) -> str:
    """The same over all test folds, by the number of real clips."""
    sizes = sizes_of(study)
    found = rows_of(study["comparisons"], BEST_AUGMENT)
    lines = [
        [said, *(with_p(found[size, mix]) if (size, mix) in found else "" for size in sizes)]
        for mix, said in {"real": f"real clips, `{BEST_AUGMENT}`", **AMOUNTS}.items()
        if any((size, mix) in found for size in sizes)
    ]
    first, *others = [ALL if size is None else str(size) for size in sizes]
    return markdown(["trained on", f"{first} real clips", *others], lines)


def saved(file: str) -> Any:
    return json.loads((STUDIES / file / "results.json").read_text())


# Of which results, and how.
TABLES: dict[str, Callable[[], str]] = {
    "study": lambda: by_size(saved("main"), with_p),
    "study against the control": lambda: against_control(saved("main")),
    "study by fold": lambda: by_fold(saved("main")),
    "study on validation clips": lambda: on_validation(saved("main")),
    "amount": lambda: amounts(saved("amount")),
    "amount by fold": lambda: amounts(saved("amount_folds")),
    "many": lambda: amounts(saved("many")),
    "more": lambda: amounts_by_size(saved("more")),
    "against classical": lambda: against_control(saved("classical")),
}
MARKED = re.compile(r"(<!-- table: (.+?) -->\n).*?(?=<!-- /table -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n", page)


def main() -> None:
    argparse.ArgumentParser(description="Write the saved results' tables into the pages.").parse_args()
    for page in PAGES:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
