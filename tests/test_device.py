"""The device, and the limits of a container."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from usk import device
from usk.errors import UsageError


@pytest.mark.parametrize(
    ("files", "memory_bytes", "cores"),
    [
        ({}, math.inf, math.inf),
        ({"memory.max": "max", "cpu.max": "max 100000"}, math.inf, math.inf),
        ({"memory.max": "1000000", "cpu.max": "100000 100000"}, 1e6, 1),
        ({"cpu.max": "50000 100000"}, math.inf, 1),
        ({"memory/memory.limit_in_bytes": "2000000"}, 2e6, math.inf),
        ({"memory.max": "?", "cpu.max": ""}, math.inf, math.inf),
    ],
)
def test_limits_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], memory_bytes: float, cores: float
) -> None:
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    machine = device.memory_allowed_bytes(), device.cores_allowed()
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert device.memory_allowed_bytes() == min(machine[0], memory_bytes)
    assert device.cores_allowed() == min(machine[1], cores)
    assert 1 <= machine[1] <= (os.cpu_count() or 1) and machine[0] > 1e8


@pytest.mark.parametrize("name", ["mps", "meta", "nonsense", "cuda:7"])
def test_a_device_that_usk_cannot_compute_on_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        device.resolve_device(name)
    assert (raised.value.field, raised.value.value) == ("device", name)


@pytest.mark.parametrize(("compute_capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16")])
def test_bf16_that_a_card_only_emulates_is_not_the_default(
    monkeypatch: pytest.MonkeyPatch, compute_capability: tuple[int, int], precision: str
) -> None:
    """A T4 can hold bf16, and multiplies it slower than fp32."""
    properties = SimpleNamespace(major=compute_capability[0], minor=compute_capability[1])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert device.default_precision(torch.device("cuda")) == precision


@pytest.mark.parametrize(
    ("found", "trained", "rendered"),
    [("amx_tile", "bf16", "bf16"), ("avx512_bf16", "fp32", "bf16"), ("avx2", "fp32", "fp32")],
)
def test_cpus_that_multiply_bf16(
    monkeypatch: pytest.MonkeyPatch, found: str, trained: str, rendered: str
) -> None:
    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name == found)
    cpu = torch.device("cpu")
    assert (device.default_precision(cpu), device.default_precision(cpu, training=False)) == (
        trained,
        rendered,
    )
