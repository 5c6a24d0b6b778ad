"""A headless Chromium, driven through a pipe; it reaches nothing but this machine."""

import base64
import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import time

from PIL import Image

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Browser:
    """One page in a browser.

    Attributes:
        problems: What the page wrote into the console as an error, or did not catch.
        requests: The addresses of everything that it asked for.
    """

    def __init__(self, process, to_browser, from_browser):
        self._process, self._to, self._from = process, to_browser, from_browser
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session = None
        self.problems, self.requests = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Call a method of the protocol and wait for its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._receive()
            if reply.get("id") == number:
                assert "error" not in reply, reply
                return reply["result"]
            self._note(reply)

    def _receive(self):
        while b"\0" not in self._rest:
            part = os.read(self._from, 1 << 16)
            assert part, "the browser ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        name, facts = event.get("method"), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.problems.append(str(facts["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning"):
            self.problems.append(str(facts["args"]))
        elif name == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.problems.append(facts["entry"]["text"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, script):
        """Evaluate a script and return its value."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"waited in vain for {condition}: {self.problems}"
            time.sleep(0.05)

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def type(self, text):
        """Type where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key, code=0, **modifiers):
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **modifiers,
            )

    def give_files(self, selector, paths):
        """Choose files in a field, as a user does in its window."""
        node = self.call("Runtime.evaluate", expression=f"document.querySelector('{selector}')")
        place = {"objectId": node["result"]["objectId"]}
        self.call("DOM.setFileInputFiles", files=[str(path) for path in paths], **place)

    def look(self, width, height=900, *, dark=False):
        """Change the screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        value = "dark" if dark else "light"
        feature = {"name": "prefers-color-scheme", "value": value}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture_of(self, selector):
        """What is seen of an element, without its border, as an image."""
        size = f"document.querySelector('{selector}').getBoundingClientRect().toJSON()"
        place = self.run(size)
        seen = Image.open(io.BytesIO(base64.b64decode(self.call("Page.captureScreenshot")["data"])))
        corners = (place["left"] + 2, place["top"] + 2, place["right"] - 2, place["bottom"] - 2)
        return seen.convert("RGB").crop(corners)


@contextlib.contextmanager
def browsing(folder):
    """Start a browser with a profile of its own, and end it."""
    to_browser, from_browser = os.pipe(), os.pipe()
    inner = {3: to_browser[0], 4: from_browser[1]}
    # The shell puts the pipes where the browser looks for them.
    ends = " ".join(f"{number}{'<' if number == 3 else '>'}&{end}" for number, end in inner.items())
    options = (
        "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        "--remote-debugging-pipe"
    )
    command = f"exec '{PATH}' {options} --user-data-dir='{folder}' about:blank {ends}"
    process = subprocess.Popen(
        ["bash", "-c", command],
        pass_fds=tuple(inner.values()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in inner.values():
        os.close(end)
    try:
        yield Browser(process, to_browser[1], from_browser[0])
    finally:
        process.terminate()
        process.wait(20)
        os.close(to_browser[1])
        os.close(from_browser[0])
