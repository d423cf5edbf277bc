"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes | memoryview, durable: bool = True) -> None:
    """Write a file so that it is there whole or not at all, whatever happens meanwhile.

    `durable=False` saves the wait for the disk: after a power cut (not after a kill) the file may be damaged.
    """
    partial = path.parent / f".{path.name}.part"
    try:
        with partial.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # Ctrl-C too
        partial.unlink(missing_ok=True)
        raise
