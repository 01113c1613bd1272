"""A real browser for tests: headless Chromium, driven over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
BOUND = 30.0
_KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowRight": 39, "ArrowLeft": 37}


def program() -> str | None:
    """The browser that is installed here."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """A browser process with a profile of its own. ``address`` is where it is driven."""

    def __init__(self, directory: Path) -> None:
        found = program()
        assert found is not None, "no Chromium here"
        self._log = (directory / "browser.log").open("wb")
        profile = directory / "profile"
        self._process = subprocess.Popen(
            [found, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
             "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env={**os.environ, "HOME": str(directory)},
        )  # fmt: skip
        self.address = self._wait_for(profile / "DevToolsActivePort", directory / "browser.log")

    def _wait_for(self, file: Path, log: Path) -> str:
        deadline = time.monotonic() + 2 * BOUND
        while time.monotonic() < deadline and self._process.poll() is None:
            lines = file.read_text().splitlines() if file.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            time.sleep(0.05)
        self.close()
        raise AssertionError(f"the browser did not start\n{log.read_text(errors='replace')[-3000:]}")

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Tab:
    """One page with storage of its own. ``problems`` is everything that the browser complained about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.problems: list[str] = []
        self.session: str | None = None
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def read(self) -> None:
        """Take what the browser says, until it is cancelled."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            else:
                self._note(told["method"], told["params"])

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console: {[each.get('value') for each in told['args']]}")
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command; AssertionError when it is refused."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": params}
        await self._socket.send_json(command | ({"sessionId": self.session} if self.session else {}))
        async with asyncio.timeout(BOUND):
            told = await answer
        assert "error" not in told, f"{method}: {told['error']}"
        result: dict[str, Any] = told["result"]
        return result

    async def goto(self, url: str) -> None:
        """Open a page; it may still be loading."""
        told = await self.send("Page.navigate", url=url)
        assert not told.get("errorText"), f"{url}: {told['errorText']}"

    async def js(self, expression: str) -> Any:
        """The value of an expression (or promise) in the page; AssertionError when it throws."""
        told = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in told:
            raise AssertionError(told["exceptionDetails"].get("exception", {}).get("description"))
        return told["result"].get("value")

    async def until(self, expression: str, holds: Callable[[Any], bool] = bool) -> Any:
        """Wait until ``holds`` of the expression's value; AssertionError with the page's text when it never does."""
        value = None
        with suppress(TimeoutError):
            async with asyncio.timeout(BOUND):
                while True:
                    with suppress(AssertionError):  # the page is not there yet
                        value = await self.js(expression)
                    if holds(value):
                        return value
                    await asyncio.sleep(0.03)
        text = await self.js("document.body.innerText")
        raise AssertionError(f"{expression} stayed {value!r}; problems: {self.problems}\n{text}")

    async def press(self, key: str) -> None:
        """A key goes down and up."""
        code = {"key": key, "windowsVirtualKeyCode": _KEYS[key], "code": "Space" if key == " " else key}
        text = {"Enter": {"text": "\r"}, " ": {"text": " "}}.get(key, {})
        await self.send("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **code)

    async def prefer(self, **features: str) -> None:
        """Media features, such as ``prefers_color_scheme="dark"``."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.send("Emulation.setEmulatedMedia", features=listed)

    async def resize(self, width: int, height: int, scale: float = 1) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )  # fmt: skip

    async def screenshot(self, file: Path) -> None:
        """The window, as PNG."""
        told = await self.send("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(told["data"]))


@asynccontextmanager
async def open_tab(browser: Browser) -> AsyncIterator[Tab]:
    """A page of 1280 by 900, closed at the end."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(browser.address, max_msg_size=0) as socket,
    ):
        tab = Tab(socket)
        reading = asyncio.ensure_future(tab.read())
        try:
            context = (await tab.send("Target.createBrowserContext"))["browserContextId"]
            target = await tab.send("Target.createTarget", url="about:blank", browserContextId=context)
            attached = await tab.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            tab.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                await tab.send(f"{domain}.enable")
            await tab.resize(1280, 900)
            await tab.send("Emulation.setScrollbarsHidden", hidden=True)
            yield tab
            tab.session = None
            await tab.send("Target.disposeBrowserContext", browserContextId=context)
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
