"""Tests of the report in headless Chromium, opened from disk."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from scipy.stats import binomtest

from tests.report.conftest import HOSTILE, HOSTILE_MIX

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'urban-sound-kit[test]'"
)

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
WIDER_THAN_ITS_BOX = """all => all.filter(one => one.scrollWidth > one.parentElement.clientWidth + 1)
    .map(one => one.caption.textContent)"""
TABS = ("compare", "listen", "rejected", "map", "blind", "trust")


SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """`opened(size, scheme)` opens the page. Its `logged` and `requested` list console messages and URLs."""
    contexts = []

    def open_page(size: str = "desktop", scheme: str = "light", page: str = "whole", at: str = "") -> Any:
        context = chromium.new_context(viewport=SIZES[size], color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.logged, tab.requested = [], []
        tab.on("console", lambda message: tab.logged.append(message.text))
        tab.on("pageerror", lambda error: tab.logged.append(str(error)))
        tab.on("request", lambda request: tab.requested.append(request.url))
        tab.goto(pages[page].as_uri())
        if at:
            tab.click(f"#tab-{at}")
        return tab

    yield open_page
    for context in contexts:
        context.close()


def panel(tab: Any) -> str:
    return tab.evaluate("document.querySelector('[role=tabpanel]:not([hidden])').id")


def cards(tab: Any) -> int:
    return tab.locator("#listen .card").count()


def until(tab: Any, expression: str) -> None:
    """Wait until an expression is true. (`wait_for_function` evaluates strings, which the page's policy forbids.)"""
    for _ in range(400):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(25)
    raise AssertionError(f"never true: {expression}")


def state(tab: Any) -> dict[str, Any]:
    """Return the card and the side that play, and whether the player is paused."""
    return tab.evaluate(
        """() => { const on = document.querySelector('.panel.playing'); const player = document.querySelector('#player');
        return { side: on && on.dataset.side, at: on && on.closest('.card').dataset.at, paused: player.paused }; }"""
    )


@pytest.mark.parametrize("size", SIZES)
def test_the_page_loads_without_messages_or_requests_fits_the_screen_and_runs_no_name(
    opened: Callable[..., Any], size: str
) -> None:
    tab = opened(size)
    tab.wait_for_timeout(200)
    assert (tab.evaluate("scrollY"), tab.evaluate("document.activeElement.tagName")) == (0, "BODY")
    for name in TABS:
        tab.click(f"#tab-{name}")
        assert panel(tab) == name
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown = tab.locator("[role=tabpanel]:visible")
        assert shown.count() == 1
        assert len(shown.inner_text()) > 150
        tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert shown.locator("table").evaluate_all(WIDER_THAN_ITS_BOX) == []
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("img[src=x]").count() == 0
    assert set(HOSTILE) <= set(tab.locator("#listen .card h3").all_text_contents())
    assert HOSTILE_MIX in tab.locator("#compare .verdict .mix").first.text_content()
    assert tab.locator("#compare svg text", has_text="window.hacked=1").count() > 0
    assert tab.logged == []
    assert [url for url in tab.requested if not url.startswith("data:")] == [tab.url.partition("#")[0]]
    tab.reload()
    tab.wait_for_timeout(200)
    assert (panel(tab), tab.evaluate("scrollY")) == (TABS[-1], 0), "the address opens a tab at its top"


def test_the_answer_is_visible_and_its_statistics_are_folded(opened: Callable[..., Any]) -> None:
    tab = opened()
    tab.select_option("#comparison", index=tab.locator("#comparison option").count() - 1)
    first = tab.locator(".comparison:visible")
    assert "percentage points" in first.locator(".verdict .answer").first.inner_text()
    sure = first.locator("details.sure")
    assert not sure.locator("table").is_visible()
    sure.locator("summary").click()
    assert sure.locator("th", has_text="p value").is_visible()
    assert sure.locator("p.note", has_text="corrected for the mixes compared (Holm)").count() == 1


def test_a_link_opens_a_clip_a_filter_and_an_order(opened: Callable[..., Any], chromium: Any) -> None:
    tab = opened(at="listen")
    tab.select_option("#listen [data-filter=cls]", HOSTILE[2])
    tab.select_option("#listen [data-sort]", "near-")
    ids = tab.locator("#listen .card .id").all_text_contents()
    other = chromium.new_page()
    other.goto(tab.url)
    assert panel(other) == "listen"
    assert other.locator("#listen .card .id").all_text_contents() == ids
    other.click("#listen [data-reset]")
    assert other.locator("#listen .status").text_content() == "30 of 30 clips"
    link = other.locator("#listen .card .id", has_text=ids[-1])
    page = tab.url.partition("#")[0]
    other.goto(f"{page}{link.get_attribute('href')}")  # the address changes without loading the page
    assert other.locator("#listen .card.current .id").text_content() == ids[-1]
    other.reload()
    assert other.locator("#listen .card.current .id").text_content() == ids[-1]
    assert other.evaluate("document.querySelector('.card.current').getBoundingClientRect().top < innerHeight")
    other.goto(f"{tab.url.partition('#')[0]}#tab=compare&comparison=2")
    assert other.evaluate("document.querySelector('#comparison').selectedIndex") == 1
    other.goto(
        f"{tab.url.partition('#')[0]}#tab=listen&cls=none&sort=x&clip=none"
    )  # a link from another page
    assert other.locator("#listen .status").text_content() == "30 of 30 clips"
    other.close()


def test_tabs_follow_the_arrow_keys(opened: Callable[..., Any]) -> None:
    tab = opened()
    tab.focus("#tab-compare")
    tab.keyboard.press("ArrowRight")
    assert (panel(tab), tab.evaluate("document.activeElement.id")) == ("listen", "tab-listen")
    tab.keyboard.press("End")
    assert panel(tab) == "trust"
    tab.keyboard.press("ArrowRight")
    assert panel(tab) == "compare"


def test_filters_sorting_and_every_clip_to_its_end(opened: Callable[..., Any]) -> None:
    tab = opened(at="listen")
    status = tab.locator("#listen .status")
    assert status.text_content() == "30 of 30 clips"
    tab.select_option("#listen [data-filter=cls]", HOSTILE[2])
    assert (status.text_content(), cards(tab)) == ("10 of 30 clips", 10)
    assert set(tab.locator("#listen .card h3").all_text_contents()) == {HOSTILE[2]}
    tab.select_option("#listen [data-filter=cls]", "")

    def nearest() -> list[float]:
        tags = tab.locator("#listen .card .tags span", has_text="distance").all_text_contents()
        return [min(map(float, tag.removeprefix("distance ").split(" / "))) for tag in tags]

    tab.select_option("#listen [data-sort]", "near-")
    assert nearest() == sorted(nearest(), reverse=True)
    tab.select_option("#listen [data-sort]", "near+")
    assert nearest() == sorted(nearest())
    card = tab.locator("#listen .card").first
    assert card.locator("dl").count() == 0
    card.locator("summary").click()
    shown = card.locator("dl").inner_text()
    assert card.locator(".id").inner_text() in shown and "waveform" in shown and "not scored" in shown
    tab.evaluate("document.activeElement.blur()")
    for _ in range(40):
        tab.keyboard.press("ArrowDown")
    assert cards(tab) == 30
    assert tab.evaluate("document.activeElement.dataset.at") == "29"
    tab.keyboard.press("s")
    until(tab, "document.querySelector('#player').ended")
    until(tab, "!document.querySelector('.panel.playing')")
    assert status.text_content() == "30 of 30 clips"
    tab.fill("#listen [data-min=near]", "99")
    assert (status.text_content(), cards(tab)) == ("0 of 30 clips", 0)
    assert not tab.locator("#listen [data-min=score]").is_visible()  # no clip has a score
    assert not tab.locator("#listen [data-filter=strategy]").is_visible()  # there is only one strategy
    assert tab.logged == []


@pytest.mark.parametrize("page", ["whole", "split"])
def test_clips_play_and_keys_switch_sides(opened: Callable[..., Any], page: str) -> None:
    tab = opened(page=page, at="listen")
    tab.keyboard.press("Tab")
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press(" ")
    until(tab, "document.querySelector('#player').currentTime > 0.1")
    assert state(tab)["side"] == "S"
    for key, side in zip(("a", "b", "s", "ArrowLeft", "ArrowRight", "ArrowRight"), "ABSASB", strict=True):
        tab.keyboard.press(key)
        assert (state(tab)["side"], state(tab)["at"]) == (side, "0")
    tab.keyboard.press("Escape")
    assert state(tab) == {"side": None, "at": None, "paused": True}
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("a")
    assert (state(tab)["side"], state(tab)["at"]) == ("A", "1")
    until(tab, "document.querySelector('#player').currentTime > 0.1")
    tab.keyboard.press("ArrowUp")
    assert tab.evaluate("document.querySelector('#listen .card.current').dataset.at") == "0"
    pictures = tab.locator("#listen .card").first.locator("img")
    assert pictures.evaluate_all("all => all.every(one => one.complete && one.naturalHeight === 96)")
    assert tab.logged == []


def test_the_button_plays_and_pauses_and_a_click_seeks(opened: Callable[..., Any]) -> None:
    tab = opened("phone", at="listen")
    panel = tab.locator("#listen .panel").nth(4)
    panel.locator(".start").click()
    assert (state(tab)["at"], state(tab)["side"]) == ("1", "S")
    panel.locator(".start").click()
    assert state(tab) == {"side": None, "at": None, "paused": True}
    tab.check("#listen [data-loop]")
    image = panel.locator("img").bounding_box()
    panel.locator(".picture").click(position={"x": 0.8 * image["width"], "y": 20})
    length = "document.querySelector('#player').duration"
    until(tab, f"document.querySelector('#player').currentTime > 0.75 * {length}")
    until(tab, f"document.querySelector('#player').currentTime < 0.5 * {length}")  # it started again
    assert state(tab)["side"] == "S"
    assert tab.logged == []


def test_sounds_are_compared_at_the_same_position(opened: Callable[..., Any]) -> None:
    tab = opened(at="listen")
    tab.locator("#listen .panel.main .picture").first.click(position={"x": 100, "y": 20})
    until(tab, "document.querySelector('#player').currentTime > 0.1")
    tab.keyboard.press(" ")
    paused = tab.evaluate("document.querySelector('#player').currentTime")
    tab.keyboard.press("b")
    now = tab.evaluate("document.querySelector('#player').currentTime")
    assert state(tab)["side"] == "B" and paused - 0.001 < now < paused + 0.3  # seeking an MP3 rounds
    for key in "asbasb":  # each replaces a sound that may not have started
        tab.keyboard.press(key)
    assert state(tab)["side"] == "B"
    assert "could not" not in tab.locator("#listen .status").text_content()
    tab.keyboard.press("Escape")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("s")
    assert tab.evaluate("document.querySelector('#player').currentTime") < 0.3, "another clip begins anew"


def test_a_sound_can_be_saved(opened: Callable[..., Any]) -> None:
    tab = opened(page="split", at="listen")
    # A browser may show a file instead of saving it, but not in the report's tab.
    with tab.context.expect_page() as beside:
        tab.locator("#listen .save").first.click()
    assert beside.value.url.endswith(".mp3") and tab.url.endswith("#tab=listen")
    tab = opened(at="listen")
    with tab.expect_download() as saved:
        tab.locator("#listen .panel.main .save").first.click()
    assert saved.value.suggested_filename.endswith("-S.mp3")
    audio, rate_hz = soundfile.read(saved.value.path())
    assert 0.5 < len(audio) / rate_hz < 6


def test_tables_can_be_saved_as_csv(opened: Callable[..., Any]) -> None:
    tab = opened(at="trust")
    with tab.expect_download() as saved:
        tab.locator("#trust table").last.locator(".csv").click()
    rows = list(csv.reader(Path(saved.value.path()).read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["class", "clips", "seconds", "mean seconds"]
    assert {row[0] for row in rows[1:]} == set(HOSTILE)
    assert all(row[1] == "10" and float(row[2]) > 0 for row in rows[1:])


def test_a_cell_opens_the_test_clips_that_changed(
    chromium: Any, changed_page: tuple[Path, set[tuple[str, str, str]]]
) -> None:
    page, expected = changed_page
    tab = chromium.new_page()
    tab.goto(page.as_uri())
    data = json.loads(tab.locator("#data").text_content())
    shown = [clip for clip in data["clips"] if clip["kind"] == "changed"]
    assert {(clip["id"], clip["change"], clip["wrong"]) for clip in shown} == expected
    folds = {f"synthetic/{clip['id']}": clip["fold"] for clip in data["clips"] if clip["kind"] == "kept"}
    for clip in shown:
        near = [data["sounds"][side[2]] for side in clip["sides"][1:]]
        assert len(near) == 2 and 1 not in {folds[one["id"]] for one in near}, "those could not train"
        names = ["dog", "rain", "siren"]
        tab.click("#tab-compare")
        cell = f"[data-open='{names.index(clip['cls'])}-{names.index(clip['wrong'])}']"
        tab.locator(f"figure[data-mix] .wide .opens{cell}").last.click()
        assert panel(tab) == "changed"
        ids = tab.locator("#changed .card .id").all_text_contents()
        kind = (clip["cls"], clip["wrong"])
        assert set(ids) == {one["id"] for one in shown if (one["cls"], one["wrong"]) == kind}
    tab.click("#changed [data-reset]")
    assert tab.locator("#changed .card").count() == 3
    tab.locator("#changed .start").first.click()
    until(tab, "document.querySelector('#player').currentTime > 0.1")
    tab.click("#tab-compare")
    tab.locator("figure[data-mix] .open").first.click()
    assert (panel(tab), tab.locator("#changed .card").count()) == ("changed", 3)
    tab.close()


def test_a_click_on_a_dot_of_the_map_plays_it(
    chromium: Any, changed_page: tuple[Path, set[tuple[str, str, str]]]
) -> None:
    tab = chromium.new_page()
    tab.goto(changed_page[0].as_uri())
    tab.click("#tab-map")
    sounds = json.loads(tab.locator("#data").text_content())["sounds"]
    assert tab.locator("#map .dot").count() == len(sounds)
    assert tab.locator("#map .dot.real").count() == sum(one["real"] for one in sounds)
    tab.select_option("#map select", "rain")
    near = tab.locator("#map .dot:not(.away)")
    places = near.evaluate_all("all => all.map(one => one.dataset.at)")
    assert {sounds[int(at)]["cls"] for at in places} == {"rain"}
    near.last.locator("circle").first.dispatch_event("click")
    until(tab, "document.querySelector('#player').currentTime > 0.1")
    status = tab.locator("#map .status").text_content()
    assert "Playing" in status and "rain" in status
    tab.click("#tab-compare")
    assert tab.evaluate("document.querySelector('#player').paused")
    tab.close()


def test_the_blind_test_counts_right_answers(opened: Callable[..., Any]) -> None:
    tab = opened(at="blind")
    answers = {}
    tab.click("#blind button:has-text('Start')")
    for trial in range(20):
        assert tab.locator("#blind .status").text_content() == f"Clip {trial + 1} of 20"
        answers[trial] = "real" if trial % 2 else "synthetic"
        tab.click(f"#blind button[value={answers[trial]}]")
    with tab.expect_download() as saved:
        tab.click("#blind .csv")
    rows = list(csv.DictReader(Path(saved.value.path()).read_text(encoding="utf-8").splitlines()))
    assert [row["you said"] for row in rows] == list(answers.values())
    sounds = json.loads(tab.locator("#data").text_content())["sounds"]
    is_real = {one["id"]: one["real"] for one in sounds}
    assert all(("real" if is_real[row["clip"]] else "synthetic") == row["it was"] for row in rows)
    right = sum(row["it was"] == row["you said"] for row in rows)
    low, high = binomtest(right, 20).proportion_ci(method="wilson")
    told = f"{right} of 20 right: {5 * right} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %"
    assert tab.locator("#blind .status").text_content().startswith(told)
    tab.click("#blind button:has-text('Start again')")
    assert tab.locator("#blind .status").text_content() == "Clip 1 of 20"
    assert tab.logged == []


@pytest.mark.parametrize("size", SIZES)  # a narrow or zoomed window may have a keyboard too
def test_shortcuts_can_be_switched_off_and_do_not_act_in_forms(opened: Callable[..., Any], size: str) -> None:
    tab = opened(size, at="listen")
    assert tab.locator("#listen .hint").is_visible()
    tab.focus("#listen [data-sort]")
    tab.keyboard.press("a")
    assert state(tab)["side"] is None
    tab.uncheck("#listen [data-keys]")
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press("a")
    assert state(tab)["side"] is None


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_axe_finds_no_violation(opened: Callable[..., Any], size: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    tab = opened(size, scheme)
    for name in TABS:
        tab.click(f"#tab-{name}")
        tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        tab.wait_for_timeout(200)
        found = axe.Axe().run(tab).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"][:120]) for one in found] == [], name


def test_print_shows_the_results_and_no_controls(opened: Callable[..., Any]) -> None:
    tab = opened()
    tab.select_option("#comparison", index=tab.locator("#comparison option").count() - 1)
    color = "getComputedStyle(document.body).color"
    light = tab.evaluate(color)
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert tab.evaluate(color) != light
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 700, "height": 1000})  # an A4 page without its margins
    assert tab.evaluate(color) == light
    shown = {".chart.full .wide": True, ".full .narrow": False, ".verdict .answer": True, ".tabs": False}
    shown |= {"#compare": True, "#trust": True, "#listen": False}
    assert {place: bool(tab.locator(f"{place}:visible").count()) for place in shown} == shown


def test_the_colors_can_be_chosen(opened: Callable[..., Any]) -> None:
    tab = opened(scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(background)
    tab.click("#theme")
    assert (tab.text_content("#theme"), tab.evaluate(background)) == ("Colors: light", light)
    tab.click("#theme")
    assert tab.text_content("#theme") == "Colors: dark"
    assert tab.evaluate(background) != light
    tab.reload()
    assert tab.text_content("#theme") == "Colors: dark"  # the choice is remembered
