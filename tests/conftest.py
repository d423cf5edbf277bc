"""Fixtures for all tests: user state in a temporary folder, no network, short tones and tiny models."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# huggingface_hub and datasets read these when they are imported, so they are set before any test module is.
_STATE = Path(tempfile.mkdtemp(prefix="usk-tests-"))
for _name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ENDPOINT", "USK_REAL"):
    os.environ.pop(_name, None)
os.environ.update(
    HF_HOME=str(_STATE / "huggingface"),
    USK_CACHE=str(_STATE / "usk"),
    XDG_CACHE_HOME=str(_STATE / "cache"),
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_XET="1",
)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from tests.hub_server import LocalHub  # noqa: E402
from tests.sounds import TINY_MEL, TONES_HZ, URBAN_CLASSES, tone, write_wav  # noqa: E402

settings.register_profile("usk", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("usk")

ROOT = Path(__file__).resolve().parents[1]
LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost", "", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_unconfigure() -> None:
    shutil.rmtree(_STATE, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _state_in_tmp(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for each test."""
    home = tmp_path_factory.mktemp("home")
    for name, folder in {"HOME": home, "XDG_CACHE_HOME": home / "cache", "USK_CACHE": home / "usk"}.items():
        monkeypatch.setenv(name, str(folder))
    monkeypatch.delenv("USK_REAL", raising=False)
    monkeypatch.delenv("USK_DEBUG", raising=False)


@pytest.fixture
def demo_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo corpus is computed once for all tests that take this, whichever of pytest's processes they run in."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    monkeypatch.setenv("USK_CACHE", str(shared / "demo-cache"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any way out of this machine raises the OSError that a machine without a network would."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(host: Any) -> None:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in LOCAL_HOSTS:
            raise OSError(f"tests must not use the network: {name}")

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX:
                check(address[0])
            return real(self, address)

        return call

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        check(host)
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded(connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", resolve)


# --- sound -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each text-to-audio family."""
    from tests.diffusion.text_models import MODELS, save_model

    return {name: save_model(name, tmp_path_factory.mktemp("models") / name) for name in MODELS}


@pytest.fixture(scope="session")
def _tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tones")
    for name, frequency_hz in TONES_HZ.items():
        for recording in range(4):
            for cut in range(2):
                samples = tone(
                    frequency_hz * (1 + 0.03 * recording), 0.4 + 0.1 * cut, peak=0.2 + 0.1 * recording
                )
                write_wav(root / name / f"{name}{recording}" / f"cut{cut}.wav", samples)
    return root


@pytest.fixture
def tone_folder(_tones: Path, tmp_path: Path) -> Path:
    """Class folders: three classes, four recordings each (`low0` to `low3`), two clips a recording, half-second tones.

    A class is a band: its recordings lie within 10 % of `TONES_HZ`.
    """
    return Path(shutil.copytree(_tones, tmp_path / "tones", copy_function=shutil.copyfile))


@pytest.fixture(scope="session")
def _urbansound8k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("UrbanSound8K")
    rng = np.random.default_rng(0)
    rows = []
    for class_id, class_name in URBAN_CLASSES.items():
        for fold in (1, 2, 3):
            for recording in range(3):
                fs_id = class_id * 1000 + fold * 100 + recording
                for cut in range(2):
                    duration_s = 0.3 + 0.1 * recording + 0.1 * cut
                    samples = _urban_sound(class_name, recording, duration_s, rng)
                    file_name = f"{fs_id}-{class_id}-0-{cut}.wav"
                    write_wav(root / "audio" / f"fold{fold}" / file_name, samples)
                    rows.append(
                        [file_name, fs_id, cut, round(cut + duration_s, 2), 1, fold, class_id, class_name]
                    )
    (root / "metadata").mkdir()
    with (root / "metadata" / "UrbanSound8K.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"])
        writer.writerows(rows)
    return root


@pytest.fixture
def urbansound8k_folder(_urbansound8k: Path, tmp_path: Path) -> Path:
    """UrbanSound8K as published, but tiny: 3 classes x 3 folds x 3 recordings x 2 clips of 0.3 to 0.6 s."""
    return Path(shutil.copytree(_urbansound8k, tmp_path / "UrbanSound8K", copy_function=shutil.copyfile))


def _urban_sound(class_name: str, recording: int, duration_s: float, rng: np.random.Generator) -> np.ndarray:
    steady = tone(400.0 + 60.0 * recording, duration_s, peak=0.4)
    t = np.arange(len(steady)) / 22_050
    if class_name == "dog_bark":
        steady = (0.3 * rng.standard_normal(len(t)) * np.exp(-((t * 6) % 1) * 6)).astype(np.float32)
    elif class_name == "siren":
        steady = (0.4 * np.sin(2 * np.pi * (900 * t + 120 * (1 + recording) * t**2))).astype(np.float32)
    return np.clip(steady + 0.01 * rng.standard_normal(len(t)).astype(np.float32), -1, 1)


# --- tiny generators ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def audio_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """audiodiffusion's audio encoder with random weights, in float16 (it has one size alone: 85 MB)."""
    from usk.diffusion.weights import quiet_libraries

    folder = tmp_path_factory.mktemp("encoder") / "audio_encoder"
    with quiet_libraries():
        from audiodiffusion.audio_encoder import AudioEncoder

        torch.manual_seed(1)
        encoder = AudioEncoder()
        for name, buffer in encoder.named_buffers():
            if "running" in name:  # batch statistics as after training: not those of the identity
                buffer.copy_(torch.rand_like(buffer) * 0.1 + (0.01 if name.endswith("var") else 0.0))
        encoder.half().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[..., Path]:
    """A factory of audio-diffusion pipeline folders with a tiny random UNet: the same options give the same folder.

    Options: `prediction_type`, `vae` (its number of image channels, 1 or 3; True is 1), `scheduler` (class name),
    `mel_class` (its [library, class] in the index), `size` (height and width of the mel image), `attention` (blocks
    with self-attention), `class_names` (of a class-conditional UNet), `conditional` (numbers in the encodings of a
    conditional UNet; with 100 the folder has an audio encoder), and whatever else the scheduler takes. Copy the folder
    before changing anything in it.
    """
    made: dict[str, Path] = {}

    def make(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("pipeline") / "tiny"
            _write_pipeline(folder, **options)
            if options.get("conditional") == 100:
                (folder / "audio_encoder").symlink_to(request.getfixturevalue("audio_encoder_folder"))
            made[key] = folder
        return made[key]

    return make


def _write_pipeline(
    folder: Path,
    vae: int = 0,
    scheduler: str = "DDIMScheduler",
    mel_class: tuple[str, str] = ("audiodiffusion.mel", "Mel"),
    size: tuple[int, int] = (TINY_MEL["y_res"], TINY_MEL["x_res"]),
    attention: bool = False,
    class_names: tuple[str, ...] = (),
    conditional: int = 0,
    **scheduler_options: Any,
) -> None:
    import diffusers

    from usk.diffusion.weights import quiet_libraries

    with quiet_libraries():
        from audiodiffusion.mel import Mel

        torch.manual_seed(0)
        halvings = 1 if max(size) < 256 else 3  # in the VAE and in the UNet, so that attention stays small
        scale = 2**halvings if vae else 1
        channels, height, width = 2 if vae else 1, size[0] // scale, size[1] // scale
        unet: dict[str, Any] = {
            "sample_size": (height, width),
            "in_channels": channels,
            "out_channels": channels,
            "layers_per_block": 1,
            "block_out_channels": (*(8,) * halvings, 16),
            "norm_num_groups": 4,
            "num_class_embeds": len(class_names) + 1 if class_names else None,
        }
        kind = "CrossAttn" if conditional else "Attn" if attention else ""
        unet |= {
            "down_block_types": (*("DownBlock2D",) * halvings, f"{kind}DownBlock2D"),
            "up_block_types": (f"{kind}UpBlock2D", *("UpBlock2D",) * halvings),
        }
        if conditional:
            unet |= {"cross_attention_dim": conditional, "attention_head_dim": 4}
        unet_class = "UNet2DConditionModel" if conditional else "UNet2DModel"
        getattr(diffusers, unet_class)(**unet).save_pretrained(folder / "unet")
        if vae:
            diffusers.AutoencoderKL(
                in_channels=int(vae),
                out_channels=int(vae),
                latent_channels=channels,
                block_out_channels=(8,) * (halvings + 1),
                norm_num_groups=4,
                down_block_types=("DownEncoderBlock2D",) * (halvings + 1),
                up_block_types=("UpDecoderBlock2D",) * (halvings + 1),
                sample_size=16,
            ).save_pretrained(folder / "vqvae")
        getattr(diffusers, scheduler)(**scheduler_options).save_pretrained(folder / "scheduler")
        Mel(**{**TINY_MEL, "y_res": size[0], "x_res": size[1]}).save_pretrained(folder / "mel")
    (folder / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "AudioDiffusionPipeline",
                "mel": list(mel_class),
                "scheduler": ["diffusers", scheduler],
                "unet": ["diffusers", unet_class],
                "vqvae": ["diffusers", "AutoencoderKL"] if vae else [None, None],
                **({"id2label": dict(enumerate(class_names))} if class_names else {}),
            }
        )
    )


# --- the Hub -----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A Hub of its own on this machine, which the real client in this process talks to. See `tests.hub_server`."""
    with LocalHub(monkeypatch, tmp_path_factory.mktemp("hub")) as server, server.client_here():
        yield server


# --- the command line --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The result of a command that ran with `--json`."""
        return json.loads(self.out)

    def done(self) -> Ran:
        """The same, of a command that did what it was asked."""
        assert self.code == 0, self.err
        return self

    def refused(self, code: int, *said: str) -> None:
        """The command ended with `code`, no result, and one line that holds all of `said`."""
        assert (self.code, self.out, self.err.count("\n")) == (code, "", 1), self.err
        assert all(text in self.err for text in said), self.err


@pytest.fixture
def usk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`usk("synth --per-class 2", "--real", folder)`: the real entry point in this process, in a terminal 200 columns wide. The
    first argument is split as a shell does."""
    from usk.cli.app import main

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: Any) -> Ran:
        first, *rest = map(str, arguments) if arguments else ("",)
        monkeypatch.setattr(sys, "argv", ["usk", *shlex.split(first), *rest])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        return Ran(code if isinstance(code, int) else int(code is not None), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def _kept_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that takes `trained` leaves its run for the others."""
    return tmp_path_factory.mktemp("kept") / "runs"


@pytest.fixture
def trained(usk: Callable[..., Ran], urbansound8k_folder: Path, tmp_path: Path, _kept_runs: Path) -> Path:
    """The folder of a run on real clips that tests fold 1, alone in a folder of runs: a copy for each test."""
    if not _kept_runs.exists():
        usk(
            f"train --real {urbansound8k_folder} --seeds 1 --test-folds 1 --epochs 6 --out {_kept_runs}"
        ).done()
    (run,) = shutil.copytree(_kept_runs, tmp_path / "runs").glob("*/run.json")
    return run.parent


@pytest.fixture
def usk_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`python -m usk ...` as a process of its own, with pipes for its output; killed with the test."""
    started: list[subprocess.Popen[str]] = []

    def heed_signals() -> None:  # what is in the background ignores them, and so would its children
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    def start(*arguments: Any, stdout: Any = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "usk", *map(str, arguments)],
            text=True,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment},
            preexec_fn=heed_signals,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The worker processes that a test starts."""
    every: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def noted(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        every.append(start(*words, **options))
        return every[-1]

    monkeypatch.setattr("usk.engine.local.subprocess.Popen", noted)
    return every
