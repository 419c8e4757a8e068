"""The system's chromium, as tests use it: a page, what it asked for, and what it complained of."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# WebGL without a GPU; root has no sandbox.
_OPTIONS = [
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
]


@dataclass
class Window:
    """A page, the addresses that it asked for, websockets too, and its errors."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def canvas(self) -> np.ndarray:
        """(H, W, 3) RGB of the part of the page that the scene is drawn on."""
        box = self.page.locator("canvas").first.bounding_box()
        encoded = np.frombuffer(self.page.screenshot(clip=box), np.uint8)
        return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]


def chromium() -> str:
    """Where it is. Skips the test where there is none, but not in continuous integration, which has it."""
    found = next((path for path in map(shutil.which, _NAMES) if path), None)
    if found is None and not os.environ.get("CI"):
        pytest.skip("no chromium: apt-get install chromium; this test looks at a page in a real browser")
    assert found, "no chromium is installed"
    return found


@contextlib.contextmanager
def window(url: str, *, width: int = 1200, height: int = 800) -> Iterator[Window]:
    """A window on a page."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_OPTIONS)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(60_000)
            found = Window(page)
            page.on("request", lambda request: found.requests.append(request.url))
            page.on("websocket", lambda socket: found.requests.append(socket.url))
            page.on("pageerror", lambda error: found.errors.append(str(error)))
            page.on(
                "console",
                lambda said: found.errors.append(said.text) if said.type == "error" else None,
            )
            page.goto(url)
            page.wait_for_selector("canvas")
            # That WebGL runs on the processor is said in a corner of the canvas.
            page.locator(".mantine-Notification-closeButton").first.click()
            yield found
        finally:
            browser.close()
