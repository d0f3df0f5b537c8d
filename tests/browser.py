"""A headless Chromium, spoken to through a pipe by the DevTools protocol, with nothing but the standard library."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip
_CONNECT = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
_PATIENCE = 60.0  # seconds for an answer


class Browser:
    """One page. `events` keeps what the browser reports by itself: requests, console messages, exceptions."""

    def __init__(self, process: subprocess.Popen, to_browser: int, from_browser: int):
        self._process, self._out, self._in = process, to_browser, from_browser
        self._numbers, self._buffer = itertools.count(1), b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        message = json.dumps({"id": number, "method": method, "params": params, **session})
        os.write(self._out, message.encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._in, 1 << 20)
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int, height: int = 844, dark: bool = False) -> None:
        """Opens a file as a device of so many CSS pixels shows it, and waits until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, whole: bool = False) -> np.ndarray:
        """What can be seen, or the whole page: uint8 (H, W, 3)."""
        from PIL import Image

        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(found["data"]))).convert("RGB"))


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """A browser whose profile is in `folder`; it ends with the block."""
    assert CHROMIUM is not None
    browser_in, to_browser = os.pipe()
    from_browser, browser_out = os.pipe()

    # The browser reads descriptor 3 and writes 4. Arranging that between fork and exec would be this process's code,
    # which JAX has made threads in, so another process does it and becomes the browser.
    ends = str(browser_in), str(browser_out)
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", _CONNECT, *ends, CHROMIUM, *_FLAGS, f"--user-data-dir={folder}"],
        pass_fds=(browser_in, browser_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(browser_in)
    os.close(browser_out)
    try:
        yield Browser(process, to_browser, from_browser)
    finally:
        process.kill()
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
