"""Check and create the engine that the user named."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from usk.engine.engine import LOCAL, RAY, Engine, InProcessEngine, Workers
from usk.engine.part import Part
from usk.errors import UsageError, require_known


def require_engine(name: str, part: Part = Part()) -> None:
    """Raise UsageError for an engine that is unknown, is not installed, or cannot run a part of a job."""
    require_known(name, (LOCAL, RAY), "engine")
    if name == RAY and not part.is_whole:
        hint = "Use the engine local, or run the whole job."
        raise UsageError("cannot run a part of a job", field="engine", value=name, hint=hint)
    if name == RAY and importlib.util.find_spec("ray") is None:
        hint = "Install it: pip install 'urban-sound-kit[ray]'."
        raise UsageError("is not installed", field="engine", value=name, hint=hint)


def create_engine(workers: Workers, required_paths: Sequence[str | Path] = ()) -> Engine:
    """Return the engine of `workers`. All machines of a cluster must see `required_paths`; the first of them is a folder."""
    if workers.engine == RAY:
        from usk.engine.ray import RayEngine

        return RayEngine(workers, required_paths)
    if workers.processes <= 1:
        return InProcessEngine(workers)
    from usk.engine.local import ProcessEngine

    return ProcessEngine(workers)
