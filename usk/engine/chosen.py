"""The engine that was asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from usk.engine.engine import LOCAL, RAY, Engine, Here, Workers
from usk.engine.part import Part
from usk.errors import UsageError, require_known


def require_engine(name: str, part: Part = Part()) -> None:
    """Raise UsageError for an engine that is not known or not installed, or that does not do parts."""
    require_known(name, (LOCAL, RAY), "engine")
    if name == RAY and not part.is_whole:
        hint = "Remove one of them."
        raise UsageError("does the whole job, and no part of it", field="engine", value=name, hint=hint)
    if name == RAY and importlib.util.find_spec("ray") is None:
        hint = "Install it: pip install 'urban-sound-kit[ray]'."
        raise UsageError("is not installed", field="engine", value=name, hint=hint)


def engine_for(workers: Workers, needed: Sequence[str | Path] = ()) -> Engine:
    """The engine, to be entered. `needed` are places that every machine of a cluster must see; the first one is a folder."""
    if workers.engine == RAY:
        from usk.engine.ray import RayActors

        return RayActors(workers, needed)
    if workers.processes <= 1:
        return Here(workers)
    from usk.engine.local import Processes

    return Processes(workers)
