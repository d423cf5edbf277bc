"""What the README says is there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_module_has_its_line_and_every_line_its_module() -> None:
    table = README[README.index("## Modules") : README.index("## Wrong input")]
    named = set()
    for row in re.findall(r"^\| (`usk/.*?) \|", table, flags=re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        named.add(first)
        named.update(f"{first.rpartition('/')[0]}/{other}" for other in others)
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "usk").rglob("*.py")
        if not path.name.startswith("__")
    }
    covered = {
        module
        for module in modules
        if module in named or any(n.endswith("/") and module.startswith(n) for n in named)
    }
    assert modules - covered == set()
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_command_and_option_that_the_readme_names_exists() -> None:
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL))
    used = re.findall(r"^(?:\.venv/bin/)?usk (\w+)(.*?)(?:\s+#.*)?$", blocks, flags=re.MULTILINE)
    assert {command for command, _ in used} >= {"demo", "synth", "train", "eval"}
    for command, rest in used:
        shown = subprocess.run(
            [sys.executable, "-m", "usk", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        ).stdout
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in shown, f"usk {command} has no {option}"


def test_both_commands_are_marked_for_ci() -> None:
    for name in ("demo", "tests"):
        assert re.search(rf"<!-- run: {name} -->\n```sh\n.+?\n```", README, flags=re.DOTALL)
