"""Tests of the report in headless Firefox, opened from disk and controlled by Marionette."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FIREFOX = next((path for name in ("firefox-esr", "firefox") if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FIREFOX is None, reason="no Firefox on this machine: apt-get install firefox-esr"),
]
PREFERENCES = {"media.autoplay.default": 0, "media.autoplay.blocking_policy": 0, "network.proxy.type": 0}


class Firefox:
    """A Marionette session. A message is `length:[type, id, command, parameters]`."""

    def __init__(self, profile: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        preferences = {**PREFERENCES, "marionette.port": port}
        lines = (f'user_pref("{name}", {json.dumps(value)});' for name, value in preferences.items())
        (profile / "user.js").write_text("\n".join(lines))
        command = [str(FIREFOX), "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env={"HOME": str(profile), "PATH": "/usr/bin:/bin"}, **quiet)
        self.number = 0
        for _ in range(600):
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
                break
            except OSError:
                assert self.process.poll() is None, "Firefox ended"
                time.sleep(0.1)
        self._read()  # the greeting
        self.send("WebDriver:NewSession")

    def _read(self) -> Any:
        size = b""
        while not size.endswith(b":"):
            size += self.socket.recv(1)
        content = b""
        while len(content) < int(size[:-1]):
            content += self.socket.recv(int(size[:-1]) - len(content))
        return json.loads(content)

    def send(self, command: str, **parameters: Any) -> Any:
        self.number += 1
        message = json.dumps([0, self.number, command, parameters]).encode()
        self.socket.sendall(f"{len(message)}:".encode() + message)
        _, _, error, result = self._read()
        assert error is None, error
        return result

    def run(self, script: str) -> Any:
        return self.send("WebDriver:ExecuteScript", script=script, args=[])["value"]

    def until(self, expression: str) -> None:
        for _ in range(600):
            if self.run(f"return {expression}"):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}")

    def open(self, address: str, width: int = 1280) -> None:
        self.send("WebDriver:SetWindowRect", width=width, height=900)
        self.send("WebDriver:Navigate", url="about:blank")
        self.send("WebDriver:Navigate", url=address)
        self.until("document.documentElement.dataset.ready")  # the script has finished


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    browser = Firefox(tmp_path_factory.mktemp("firefox"))
    yield browser
    browser.socket.close()
    browser.process.terminate()
    browser.process.wait(timeout=60)


@pytest.mark.parametrize("page", ["whole", "split"])
@pytest.mark.parametrize("width", [1280, 500])  # the narrowest window of Firefox
def test_every_tab_opens_and_fits_and_names_are_not_run(
    firefox: Firefox, pages: dict[str, Path], page: str, width: int
) -> None:
    firefox.open(pages[page].as_uri(), width)
    for name in ("compare", "listen", "rejected", "map", "blind", "trust"):
        firefox.run(f"document.getElementById('tab-{name}').click()")
        shown = "[...document.querySelectorAll('[role=tabpanel]')].filter(one => one.offsetHeight > 0)"
        assert firefox.run(f"return {shown}.map(one => one.id)") == [name]
        assert firefox.run("return document.documentElement.scrollWidth <= innerWidth")
    assert (
        firefox.run("return window.wrappedJSObject ? window.wrappedJSObject.hacked : window.hacked") is None
    )
    assert firefox.run("return document.querySelectorAll('img[src=x]').length") == 0


@pytest.mark.parametrize("page", ["whole", "split"])
def test_clips_are_drawn_and_play(firefox: Firefox, pages: dict[str, Path], page: str) -> None:
    firefox.open(f"{pages[page].as_uri()}#tab=listen")
    firefox.until("document.querySelector('#listen .card img').naturalHeight === 96")
    firefox.run("document.querySelector('#listen .panel.main .start').click()")
    firefox.until("document.querySelector('#player').currentTime > 0.1")
    firefox.until("document.querySelector('#player').ended")
    assert firefox.run("return document.querySelector('#listen .status').textContent") == "30 of 30 clips"


def test_a_printed_page_is_a_document(firefox: Firefox, pages: dict[str, Path]) -> None:
    firefox.open(pages["whole"].as_uri())
    printed = firefox.send("WebDriver:Print", background=True)["value"]
    assert len(printed) > 20_000
