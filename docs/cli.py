"""Write the pages of the command line, one for each command, from the commands themselves: python docs/cli.py"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "reference" / "cli"
TYPER = (sys.executable, "-m", "typer", "usk.cli.app", "utils", "docs", "--name", "usk")
LIST = "```{toctree}\n:hidden:\n\n%s\n```\n"


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    made = subprocess.run(TYPER, capture_output=True, text=True, check=True).stdout
    whole, *commands = re.split(r"^#(?=# `usk )", made, flags=re.MULTILINE)
    by_name = {match[1]: text for text in commands if (match := re.match(r"# `usk (\w+)`", text))}
    linked = re.sub(r"^\* `(\w+)`:", r"* [\1](\1.md):", whole, flags=re.MULTILINE)
    index = linked.strip() + "\n\n" + LIST % "\n".join(by_name)
    return {f"{name}.md": text.strip() + "\n" for name, text in {"index": index, **by_name}.items()}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
