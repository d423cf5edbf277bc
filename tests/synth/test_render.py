"""From plan to audio: strength, length, end points, independence of the batch, and no parent encoded twice."""

from __future__ import annotations

import io
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tests.sounds import tone, write_wav
from usk.audio.mel import audio_to_image, stack_padded
from usk.data.decode import DecodedSource, beginning, decode_source
from usk.data.open import open_source
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.diffusion.mel_pipeline import MelGenerator
from usk.errors import ModelError, UsageError
from usk.synth.clip_renderer import PEAK_LIMIT, at_level, rms_db
from usk.synth.dataset_folder import dataset_features
from usk.synth.plan import Plan, draw_plan
from usk.synth.planned import PlannedClips
from usk.synth.render import Chunks, DiffusionRenderer, batch_of
from usk.synth.settings import render_config

RATE_HZ = 8_000


def test_a_batch_on_a_cpu_is_a_minute_of_work_by_network_and_settings_alone(
    tiny_pipeline: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = tiny_pipeline(class_names=("dog_bark", "siren", "drilling"))
    generator = load_generator(str(pipeline), "cpu", precision="fp32")
    n_samples = generator.crop(generator.longest_samples)
    with FlopCounterMode(display=False) as counter:
        generator.predictor()(torch.zeros(1, *generator.latent_shape(n_samples)), 10)
    one = generator.flop(n_samples)
    assert one == pytest.approx(counter.get_total_flops(), rel=0.05) and one > 0
    monkeypatch.setattr("usk.synth.render.BATCH_FLOP_ON_CPU", 50 * one)
    six = {"steps": 6, "strength": 0.5}
    of = {
        16: {"steps": 1, "guidance": 1.0, "strength": 0.5},
        4: {**six, "guidance": 1.0},  # a step more to invert: 7 evaluations
        2: {"guidance": 3.0, "strategy": "sample", "steps": 10},  # each twice
        1: {**six, "steps": 60, "guidance": 1.0},
    }
    for batch, settings in of.items():
        config = render_config(**settings).resolved(takes_classes=True)
        assert batch_of(config, generator) == batch, settings
        assert batch_of(replace(config, batch=7), generator) == 7
        assert batch_of(config, replace(generator, device=torch.device("cuda"))) == 64


@pytest.fixture
def decoded(urbansound8k_folder: Path) -> DecodedSource:
    return decode_source(open_source(urbansound8k_folder), RATE_HZ)


@pytest.fixture
def generator(tiny_pipeline: Callable[..., Path]) -> MelGenerator:
    return load_generator(str(tiny_pipeline()), "cpu", precision="fp32")


class MelRenderer(DiffusionRenderer):
    """With a look at the mel images before they become audio."""

    def images(self, planned: Any) -> torch.Tensor:
        assert isinstance(self.generator, MelGenerator)
        return self.generator.to_image(self.sample_latents(planned))


@dataclass(frozen=True)
class World:
    """Clips, a generator, and a folder to work in."""

    decoded: DecodedSource
    generator: MelGenerator
    folder: Path

    def plan(self, per_class: int = 3, **options: Any) -> Plan:
        return draw_plan(self.decoded.source.clips, self.decoded.source.class_names, per_class, **options)

    def renderer(
        self, plan: Plan | None = None, work: str = "", plain: bool = False, **settings: Any
    ) -> MelRenderer:
        """Of four steps and whole images, unless `plain`, and with these settings."""
        (self.folder / work).mkdir(parents=True, exist_ok=True)
        config = render_config(**({} if plain else {"steps": 4, "crop": False}) | settings)
        plan = plan or self.plan()
        clips = PlannedClips(replace(clip, strategy=config.strategy) for clip in plan.clips)
        plan = replace(plan, clips=clips)
        return MelRenderer(plan, self.decoded, self.generator, config, self.folder / work)

    def through(self, network: Any) -> World:
        """The same with another network."""
        return replace(self, generator=replace(self.generator, unet=network))


@pytest.fixture
def world(decoded: DecodedSource, generator: MelGenerator, tmp_path: Path) -> World:
    return World(decoded, generator, tmp_path)


def rows_of(renderer: DiffusionRenderer, begin: int, end: int) -> list[dict[str, Any]]:
    """Dataset rows of the plan's entries from `begin` to `end`."""
    audio: dict[int, np.ndarray] = {}
    for indices in renderer.batches(begin, end):
        made = renderer.audio([renderer.plan.clips[index] for index in indices])
        audio.update(zip(indices, made, strict=True))
    rows = [renderer.row(renderer.plan.clips[index], audio[index]) for index in range(begin, end)]
    columns = set(dataset_features((), 8_000)) - {"filter_score"}
    assert all(row.keys() == columns for row in rows), (
        "the columns that are declared are those that are filled"
    )
    return rows


def samples_of(row: dict[str, Any]) -> np.ndarray:
    return soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0]


def images_of_parent(world: World, parent: str) -> torch.Tensor:
    """What the renderer encodes without cropping: short clips repeated."""
    n = world.generator.mel.image_samples
    samples = world.decoded.audio([clip.identity for clip in world.decoded.source.clips].index(parent))
    samples = np.resize(samples, n) if len(samples) < n else samples
    return audio_to_image(stack_padded([samples], n), world.generator.mel)[0][0]


@given(st.floats(1e-4, 1.0), st.floats(-90, -1), st.integers(1, 400))
def test_at_level_reaches_the_level_or_just_does_not_clip(peak: float, target_db: float, n: int) -> None:
    audio = peak * np.sin(np.arange(1, n + 1) * 0.7)
    scaled, gain_db = at_level(audio, target_db)
    assert scaled.dtype == np.float32
    assert np.abs(scaled).max() <= PEAK_LIMIT + 1e-6
    np.testing.assert_allclose(scaled, audio * 10 ** (gain_db / 20), rtol=1e-5)
    reached = abs(rms_db(scaled) - target_db) < 1e-3
    assert reached or (rms_db(scaled) < target_db and np.abs(scaled).max() == pytest.approx(PEAK_LIMIT))


def test_the_level_of_known_sounds() -> None:
    square = np.resize([1.0, -1.0], 10)
    for sound, level_db in (
        (square, 0),
        (0.1 * square, -20),
        (0.1 * square + 0.7, -20),
        (np.zeros(10), -200),
    ):
        assert rms_db(sound) == pytest.approx(level_db)
    scaled, gain_db = at_level(np.zeros(10, np.float32), -20.0)
    assert not scaled.any() and np.isfinite(gain_db), "silence is not amplified to NaN"


def test_a_clip_is_as_long_as_its_parents_on_average_and_as_loud(world: World) -> None:
    plan = world.plan(per_class=4, alpha="0.1:0.9")
    rows = rows_of(world.renderer(plan), 0, len(plan))
    row_of = {clip.identity: row for row, clip in enumerate(world.decoded.source.clips)}
    longest = world.generator.mel.image_samples
    at_level_exactly = 0
    for row in rows:
        parents = [world.decoded.audio(row_of[parent]) for parent in row["parents"]]
        samples = samples_of(row)
        mean_length = int(np.mean([len(parent) for parent in parents]))
        assert len(samples) == min(
            mean_length, (world.generator.mel.n_frames - 1) * world.generator.mel.hop_samples
        )
        first_db, second_db = (rms_db(parent[:longest]) for parent in parents)
        target_db = (1 - row["alpha"]) * first_db + row["alpha"] * second_db
        if np.abs(samples).max() < PEAK_LIMIT - 0.001:
            assert rms_db(samples) == pytest.approx(target_db, abs=0.05)
            at_level_exactly += 1
        else:
            assert rms_db(samples) < target_db + 0.05
    assert at_level_exactly >= 3


def test_a_row_carries_its_whole_provenance(world: World) -> None:
    plan = world.plan(alpha="0.2:0.4")
    row = rows_of(world.renderer(plan, strategy="slerp"), 2, 3)[0]
    planned = plan.clips[2]
    row.pop("audio")
    gain_db = row.pop("gain_db")
    assert np.isfinite(gain_db)
    assert row == {
        "clip_id": planned.clip_id, "label": planned.label, "group": planned.clip_id, "fold": planned.fold,
        "parents": planned.parents, "parent_names": planned.parent_names, "parent_seconds": planned.parent_seconds,
        "parent_groups": planned.parent_groups, "parent_folds": planned.parent_folds,
        "strategy": "slerp", "alpha": planned.alpha, "weights": planned.weights, "seed": planned.seed, "steps": 4, "model": world.generator.model_id, "prompt": "",
    }  # fmt: skip


class Noiseless:
    """A network that finds no noise: going up and down again is exact, and nothing but the mixing is left."""

    def __call__(self, noisy: torch.Tensor, *_: Any, return_dict: bool = True) -> tuple[torch.Tensor]:
        return (torch.zeros_like(noisy),)


@pytest.mark.parametrize("strategy", ["slerp", "decomposed"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize(("noiseless", "tolerance"), [(True, 1e-4), (False, 0.06)])
def test_a_weight_of_0_or_1_gives_a_parent_back(
    world: World,
    strategy: str,
    alpha: float,
    noiseless: bool,
    tolerance: float,
) -> None:
    world = world.through(Noiseless()) if noiseless else world
    plan = world.plan(per_class=2, alpha=str(alpha))
    settings = {"steps": 40, "strength": 0.2, "strategy": strategy}
    images = world.renderer(plan, **settings).images(plan.clips)
    for planned, image in zip(plan.clips, images, strict=True):
        own = images_of_parent(world, planned.parents[int(alpha)])
        assert (image - own).abs().mean() < tolerance


@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_the_share_of_the_second_parent(world: World, alpha: float) -> None:
    plan = world.plan(per_class=2, alpha=str(alpha))
    settings = {"strategy": "decomposed", "eta": 0.0, "strength": 0.4}
    images = world.through(Noiseless()).renderer(plan, **settings).images(plan.clips)
    for planned, image in zip(plan.clips, images, strict=True):
        first, second = (images_of_parent(world, parent) for parent in planned.parents)
        torch.testing.assert_close(image, (1 - alpha) * first + alpha * second, rtol=0, atol=1e-3)


@pytest.mark.parametrize("vae", [False, True])
def test_a_clip_depends_on_no_other_clip_of_its_batch_or_plan(
    world: World, tiny_pipeline: Callable[..., Path], vae: bool
) -> None:
    path = str(tiny_pipeline(vae=vae))
    world = replace(world, generator=load_generator(path, "cpu", precision="fp32"))
    plan, crops_of = world.plan(per_class=30), defaultdict(set)
    whole = world.renderer(plan, work="whole", batch=9, crop=True)
    for clip in plan.clips:
        for parent in clip.parents:
            crops_of[parent].add(whole.crop(clip))
    planned = [plan.clips[index] for index in whole.batches(0, len(plan))[0]]  # the shortest
    assert any(len(crops_of[parent]) > 1 for clip in planned for parent in clip.parents)
    for clip, image in zip(planned, whole.images(planned), strict=True):
        single = world.renderer(plan.select({clip.clip_id}), work=clip.clip_id, batch=1, crop=True)
        torch.testing.assert_close(single.images([clip])[0], image, rtol=0, atol=1e-3)


def test_the_same_slice_gives_the_same_bytes(world: World) -> None:
    first = rows_of(world.renderer(work="a", batch=4), 4, 8)
    assert rows_of(world.renderer(work="b", batch=4), 4, 8) == first
    assert rows_of(world.renderer(work="a", batch=4), 4, 8) == first  # latents from the disk


class Counting:
    """A generator's network, with the size of every batch that it was asked for."""

    def __init__(self, generator: MelGenerator) -> None:
        self.unet, self.batches = generator.unet, []

    def __call__(self, noisy: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.batches.append(len(noisy))
        return self.unet(noisy, *args, **kwargs)


def test_each_parent_is_encoded_once(world: World) -> None:
    plan = world.plan(per_class=20)
    n_parents = len({parent for planned in plan.clips for parent in planned.parents})
    counting = Counting(world.generator)
    renderer = world.through(counting).renderer(plan, steps=2, batch=6)
    for begin in range(0, len(plan), 6):
        renderer.images(plan.clips[begin : begin + 6])
    assert len(plan) == 60
    up, down = renderer.config.sampler.evaluations()
    assert (up, down) == (3, 2)
    assert sum(counting.batches) == up * n_parents + down * len(plan)
    assert max(counting.batches) <= 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100],
        lambda content: content[:-100] + bytes(byte ^ 0x40 for byte in content[-100:]),
        lambda content: content[len(content) // 2 :] + content[: len(content) // 2],
    ],
    ids=["cut short", "other bytes", "other parents"],
)
def test_damaged_latents_are_noticed_and_made_again(world: World, damage: Callable[[bytes], bytes]) -> None:
    first = rows_of(world.renderer(), 0, 9)
    files = {file: file.read_bytes() for file in world.folder.glob("latents-*.bin")}
    assert files
    for file, content in files.items():
        file.write_bytes(damage(content))
    assert rows_of(world.renderer(), 0, 9) == first
    assert {file: file.read_bytes() for file in files} == files


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not say what was read")
def test_a_batch_reads_its_own_parents_alone(world: World) -> None:
    """However many others lie in the same files."""
    plan = world.plan(per_class=20)
    first = world.renderer(plan, batch=16)
    of_parent = first.latents._record_type(world.generator.longest_samples).itemsize
    first.images(plan.clips)
    again = world.renderer(plan, batch=16)

    def read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    rows = [row for of_side in again.parent_rows(plan.clips[:2]) for row in of_side]
    before = read()
    again.latents.get(rows, world.generator.longest_samples)
    n_bytes = read() - before
    assert len(set(rows)) * of_parent <= n_bytes < len(set(rows)) * of_parent + 1_000
    assert sum(file.stat().st_size for file in world.folder.glob("latents-*.bin")) > 3 * n_bytes


def test_strategies_and_settings_give_different_clips(world: World) -> None:
    plan = world.plan(alpha="0.3")
    made = {
        name: world.renderer(plan, work=name, **settings).images(plan.clips[:2])
        for name, settings in {
            "slerp": {"strategy": "slerp"},
            "decomposed": {"strategy": "decomposed"},
            "variation": {"strategy": "variation"},
            "strength": {"strength": 0.9},
            "solver": {"solver": "ddim"},
            "eta": {"eta": 1.0},
            "silence": {"repeat_short": False},
        }.items()
    }
    names = list(made)
    for index, name in enumerate(names):
        for other in names[:index]:
            assert (made[name] - made[other]).abs().mean() > 1e-4, (name, other)


def test_more_steps_than_the_schedule_has_is_a_usage_error(world: World) -> None:
    with pytest.raises(UsageError) as raised:
        world.renderer(steps=600)
    assert (raised.value.field, raised.value.value) == ("steps", 600)


# --- cropping in time ------------------------------------------------------------------------------------------


def test_crops_hold_every_clip_and_suit_the_network(generator: MelGenerator) -> None:
    longest = generator.longest_samples
    crops = {n: generator.crop(n) for n in range(1, longest + 1, 7)}
    assert len(set(crops.values())) <= 4 and max(crops.values()) == generator.crop(2 * longest) == longest
    for n, crop in crops.items():
        frames = (crop + 1) // generator.mel.hop_samples
        assert frames % generator.frame_multiple == 0 and generator.latent_shape(crop)[-1] == frames
        assert crop == longest or (frames - 1) * generator.mel.hop_samples >= n


def test_images_are_only_as_wide_as_their_clips_need(world: World) -> None:
    assert world.generator.frame_multiple == 2
    plan = world.plan(per_class=30)
    renderer = world.renderer(plan, crop=True, batch=5)
    batches = renderer.batches(3, 60)
    assert sorted(index for batch in batches for index in batch) == list(range(3, 60))
    seen = set()
    for batch in batches:
        planned = [plan.clips[index] for index in batch]
        images = renderer.images(planned)
        width = images.shape[-1]
        assert images.shape == (len(planned), 1, 16, width)
        longest = max(renderer.length(clip) for clip in planned)
        assert width == 32 or (width - 1) * world.generator.mel.hop_samples >= longest
        for clip, samples in zip(planned, renderer.audio(planned), strict=True):
            whole = (world.generator.mel.n_frames - 1) * world.generator.mel.hop_samples
            assert len(samples) == min(renderer.length(clip), whole)
        seen.add(width)
    assert len(seen) > 1


def test_cropping_leaves_a_clip_what_it_is(world: World) -> None:
    plan = world.plan(per_class=8)
    noiseless = world.through(Noiseless())
    cropped, whole = (noiseless.renderer(plan, work=str(crop), crop=crop) for crop in (True, False))
    for batch in cropped.batches(0, len(plan)):
        planned = [plan.clips[index] for index in batch]
        images = cropped.images(planned)
        # The last frame of a crop sees the audio end; and a louder moment outside it moves the whole image.
        away = (images - whole.images(planned)[..., : images.shape[-1]])[..., :-2].flatten(1)
        assert (away - away.median(dim=1, keepdim=True).values).abs().mean() < 0.02


# --- compiled --------------------------------------------------------------------------------------------------


with_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++) here")
INDUCTOR = pytest.param("inductor", marks=[pytest.mark.slow, with_compiler])


@pytest.mark.parametrize("backend", ["eager", INDUCTOR])
def test_a_compiled_network_makes_the_same_clips_and_is_compiled_once_for_each_width(
    world: World, tiny_pipeline: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Whatever the sizes of batches, the step of the schedule, and guidance, which doubles a batch."""
    crop = backend == "eager"  # a compiler takes a minute for each width
    path = str(tiny_pipeline(class_names=world.decoded.source.class_names))
    world = replace(world, generator=load_generator(path, "cpu", precision="fp32"))
    plan = world.plan(per_class=6)
    plain = world.renderer(plan, work="plain", crop=crop, batch=5, steps=2)
    compile_, asked = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend=backend))
    monkeypatch.setattr("usk.synth.render.repays_compiling", lambda *job: asked.append(job) or True)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = world.renderer(plan, work="compiled", crop=crop, batch=5, steps=2)
    assert compiled.config.guidance == 2.0
    batches, widths = compiled.batches(0, len(plan)), set()
    for batch in batches:
        planned = [plan.clips[index] for index in batch]
        images = compiled.images(planned)
        widths.add(images.shape[-1])
        torch.testing.assert_close(images, plain.images(planned), rtol=0, atol=1e-3)
    assert len({len(batch) for batch in batches}) > 1 and len(widths) > crop
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(widths)
    n_parents = len(compiled.latents.group_of)
    assert asked == [(world.generator.device, 3 * n_parents + 2 * 2 * len(plan), len(widths))]


# --- memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fits", [1, 3, 8])
def test_a_batch_that_does_not_fit_is_halved(fits: int) -> None:
    chunks, seen = Chunks(8), []

    def work(piece: slice) -> list[int]:
        if piece.stop - piece.start > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.extend(range(piece.start, piece.stop))
        return seen[piece.start : piece.stop]

    parts = chunks.run(21, work)
    assert seen == list(range(21)) == [item for part in parts for item in part]
    assert fits / 2 < chunks.size <= fits


def test_work_that_finds_less_room_for_what_comes_next_is_done_once() -> None:
    chunks = Chunks(8)

    def work(piece: slice) -> list[int]:
        chunks.size = 2  # as encoding does inside decoding
        return list(range(piece.start, piece.stop))

    assert [item for part in chunks.run(11, work) for item in part] == list(range(11))


@pytest.mark.parametrize(
    ("message", "error"), [("can't allocate memory", ModelError), ("other shapes", RuntimeError)]
)
def test_a_single_clip_that_does_not_fit_is_a_model_error(message: str, error: type[Exception]) -> None:
    def work(_: slice) -> None:
        raise RuntimeError(message)

    with pytest.raises(error, match="out of memory even one clip" if error is ModelError else message):
        Chunks(8).run(8, work)


def test_clips_are_the_same_when_a_batch_did_not_fit(world: World) -> None:
    class Small(Counting):
        def __call__(self, noisy: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if len(noisy) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().__call__(noisy, *args, **kwargs)

    plan = world.plan()
    squeezed = rows_of(world.through(Small(world.generator)).renderer(plan, work="a"), 0, 6)
    at_ease = rows_of(world.renderer(plan, work="b"), 0, 6)
    for one, other in zip(squeezed, at_ease, strict=True):
        np.testing.assert_allclose(samples_of(one), samples_of(other), atol=2e-3)


def test_latents_on_disk_are_bounded_and_no_batch_encodes_more_than_its_own_parents(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.plan(per_class=12)
    free = world.renderer(plan, work="free", batch=4)
    at_ease = rows_of(free, 0, 36)
    n_files = len(list((world.folder / "free").glob("latents-*.bin")))
    limit = 2 * max(file.stat().st_size for file in (world.folder / "free").glob("latents-*.bin"))
    monkeypatch.setattr("usk.synth.latents.MAX_STORED_BYTES", limit)
    counting = Counting(world.generator)
    bounded = world.through(counting).renderer(plan, work="bounded", batch=4)
    made = rows_of(bounded, 0, 36)
    assert len(list((world.folder / "bounded").glob("latents-*.bin"))) == 2 < n_files
    up, down = bounded.config.sampler.evaluations()
    encoded = (sum(counting.batches) - down * len(plan)) / up
    assert len(bounded.latents.group_of) < encoded <= 2 * len(plan)
    for one, other in zip(made, at_ease, strict=True):
        np.testing.assert_allclose(samples_of(one), samples_of(other), atol=2e-3)
    assert rows_of(world.renderer(plan, work="again", batch=4), 0, 36) == made


# --- strategies without a pair -----------------------------------------------------------------------------------


def test_a_variation_keeps_more_of_its_parent_at_a_lower_level(world: World) -> None:
    plan = world.plan(per_class=4, strategies=["variation"])
    noiseless, away = world.through(Noiseless()), []
    own = torch.stack([images_of_parent(world, clip.parents[0]) for clip in plan.clips])
    for strength in (0.1, 0.3, 0.6):
        settings = {"strategy": "variation", "strength": strength}
        images = noiseless.renderer(plan, work=str(strength), **settings).images(plan.clips)
        away.append(float((images - own).abs().mean()))
    assert 0 < away[0] < away[1] < away[2]
    plan, first = world.plan(per_class=40, strategies=["variation"]), {}
    pair = next(
        (first[clip.parents], clip) for clip in plan.clips if first.setdefault(clip.parents, clip) is not clip
    )
    images = world.renderer(plan, work="pair", strategy="variation").images(pair)
    assert (images[0] - images[1]).abs().mean() > 0.01, "variations of one parent differ"


def test_a_generator_whose_weights_are_damaged_is_a_model_error(world: World) -> None:
    with torch.no_grad():
        next(world.generator.unet.parameters()).fill_(float("nan"))
    renderer = world.renderer(strategy="variation")
    with pytest.raises(ModelError, match="makes audio that is not a number"):
        rows_of(renderer, 0, 1)


def test_a_sample_owes_its_parent_length_and_loudness_alone(world: World) -> None:
    plan = world.plan(per_class=2, strategies=["variation"])
    other = replace(plan, clips=tuple(replace(c, parents=plan.clips[0].parents) for c in plan.clips))
    images = world.renderer(plan, work="a", strategy="sample").images(plan.clips)
    again = world.renderer(other, work="b", strategy="sample").images(other.clips)
    torch.testing.assert_close(images, again, rtol=0, atol=1e-5)
    row = rows_of(world.renderer(plan, work="c", strategy="sample"), 0, 1)[0]
    parent = world.decoded.audio([c.identity for c in world.decoded.source.clips].index(row["parents"][0]))
    assert row["weights"] == (1.0,) and row["alpha"] == 0.0
    if np.abs(samples_of(row)).max() < PEAK_LIMIT - 0.001:
        assert rms_db(samples_of(row)) == pytest.approx(
            rms_db(parent[: world.generator.mel.image_samples]), abs=0.1
        )


def test_a_conditional_generator_is_told_its_parents_encodings_mixed(
    world: World, tiny_pipeline: Callable[..., Path]
) -> None:
    generator = load_generator(str(tiny_pipeline(conditional=100)), "cpu", precision="fp32")
    world = replace(world, generator=generator)
    told: list[torch.Tensor] = []

    class Listening:
        def __call__(self, noisy: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            told.append(kwargs["encoder_hidden_states"])
            return generator.unet(noisy, *args, **kwargs)

    plan = world.plan(per_class=1, alpha="0.3")
    renderer = world.through(Listening()).renderer(plan, steps=1, batch=16)
    assert renderer.images(plan.clips).isfinite().all()
    row_of = {clip.identity: row for row, clip in enumerate(world.decoded.source.clips)}

    def encoding(side: int) -> torch.Tensor:
        rows = [row_of[clip.parents[side]] for clip in plan.clips]
        audio = renderer.latents.audio(rows, generator.longest_samples)
        encoded = generator.encodings(Condition(parents=audio[None]))
        assert encoded is not None
        return encoded

    torch.testing.assert_close(told[-1], 0.7 * encoding(0) + 0.3 * encoding(1), rtol=1e-4, atol=1e-4)
    assert len(told) == 3  # both looks at the step up, and the one down


def test_parents_that_begin_silent_are_used_from_their_first_sound(
    usk: Callable[..., Any], tiny_pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    """Longer than the tiny generator's image, with as much silence first."""
    longest_s = load_generator(str(tiny_pipeline()), device="cpu").longest_s
    for name, hz in (("owl", 500), ("fox", 900)):
        for recording in range(3):
            sound = tone(hz + 30 * recording, 2 * longest_s)
            silence = np.zeros(int((1 + recording) * longest_s * 22_050), np.float32)
            write_wav(tmp_path / "own" / name / f"r{recording}" / "a.wav", np.concatenate([silence, sound]))
    ran = usk(
        f"synth --real {tmp_path}/own --model {tiny_pipeline()} --out {tmp_path}/out --per-class 2 --steps 1"
    ).done()
    assert "from their first sound on where those are next to silent" in " ".join(ran.err.split())
    made = decode_source(open_source(tmp_path / "out"))
    for row in range(len(made)):
        assert rms_db(made.audio(row)) > -30, "as loud as the sound, not as the silence"
    generator = load_generator(str(tiny_pipeline()), device="cpu")
    decoded = decode_source(open_source(tmp_path / "own"), generator.mel.sample_rate_hz)
    world = World(decoded, generator, tmp_path)
    latents = world.renderer(world.plan(), work="work").latents
    samples = latents.audio(range(len(decoded)), generator.longest_samples).numpy()
    assert min(map(rms_db, samples)) > -12, "the generator gets the sound"


@pytest.mark.parametrize(
    ("silent", "n", "begin"), [(0, 4, 0), (2, 4, 0), (5, 4, 5), (8, 4, 6), (5, None, 0), (9, 12, 0)]
)
def test_where_the_beginning_of_a_clip_is(silent: int, n: int | None, begin: int) -> None:
    samples = np.concatenate([np.zeros(silent), np.ones(10 - silent)])
    begun = beginning(samples, n)
    np.testing.assert_array_equal(begun, samples[begin : None if n is None else begin + n])


def test_a_resynthesized_clip_is_its_parent_where_the_phase_is_kept(world: World) -> None:
    plan = world.plan(strategies=["variation"])
    renderer = world.renderer(plan, plain=True, strategy="resynthesis", phase="parents")
    for index, row in enumerate(rows_of(renderer, 0, len(plan))):
        samples = samples_of(row)
        parent = world.decoded.audio(renderer.row_of[plan.clips[index].parents[0]])[: len(samples)]
        assert np.abs(samples - parent).max() < 2e-3 * np.abs(parent).max() + 1e-4
        assert row["steps"] == 0


def test_an_average_is_the_mean_of_its_parents_images_and_takes_no_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> Any:
        raise AssertionError("an average asks no network")

    monkeypatch.setattr(MelGenerator, "predictor", no_network)
    plan = world.plan(alpha="0.3")
    renderer = world.renderer(plan, plain=True, strategy="average")
    (indices, *_) = renderer.batches(0, len(plan))
    planned = [plan.clips[index] for index in indices]
    first, second = (
        renderer.latents.get(
            [renderer.row_of[clip.parents[side]] for clip in planned], renderer.crop(planned[0])
        )[1]
        for side in (0, 1)
    )
    assert torch.allclose(renderer.images(planned), 0.7 * first + 0.3 * second, atol=1e-6)
    assert all(np.isfinite(audio).all() for audio in renderer.audio(planned))


@pytest.mark.parametrize("strategy", ["average", "decomposed"])
def test_clips_on_their_parents_phase_do_not_depend_on_the_batch(world: World, strategy: str) -> None:
    settings = {} if strategy == "average" else {"steps": 3}
    rows = [
        rows_of(
            world.renderer(None, str(n), True, strategy=strategy, batch=n, phase="parents", **settings), 0, 6
        )
        for n in (1, 4)
    ]
    for one, other in zip(*rows, strict=True):
        assert np.abs(samples_of(one) - samples_of(other)).max() < 2e-3


def test_a_silent_parent_makes_no_clip_nan(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = world.plan()
    renderer = world.renderer(plan, plain=True, strategy="average", phase="parents")
    silent = renderer.row_of[plan.clips[0].parents[0]]
    audio = world.decoded.audio
    monkeypatch.setattr(
        DecodedSource, "audio", lambda _, row: 0 * audio(row) if row == silent else audio(row)
    )
    assert all(np.isfinite(made).all() for made in renderer.audio([plan.clips[0]]))
