"""A headless Chromium for tests, spoken to as chromedriver speaks: JSON over HTTP, and nothing to install but those two."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request

from wbfat_mount import DEADLINE_SECONDS, eventually, program

# No sandbox: tests run as root. The rest keeps it from looking for the network.
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"]


class Browser:
    """One window; gone with the test."""

    def __init__(self, case, width=1600, height=1000):
        chromium, driver = program("chromium"), program("chromedriver")
        profile = tempfile.mkdtemp(prefix="wbfat-chromium-")
        case.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        self.driver = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        case.addCleanup(self.driver.stdout.close)
        case.addCleanup(self.driver.wait)
        case.addCleanup(self.driver.terminate)
        port = None
        while port is None:
            line = self.driver.stdout.readline()
            if not line:
                raise AssertionError("chromedriver has ended")
            port = re.search(r"started successfully on port (\d+)", line)
        self.base = f"http://127.0.0.1:{port[1]}/session"
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        made = self.call("POST", "", {"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": {"binary": chromium, "args": flags}}}})
        self.base += f"/{made['sessionId']}"
        case.addCleanup(self.call, "DELETE", "")

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as reply:
            return json.load(reply)["value"]

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The value that `script` returns in the page."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition, *arguments):
        """Until a JavaScript expression holds."""
        eventually(lambda: self.run(f"return {condition}", *arguments), f"`{condition}` on the page")

    def click(self, selector):
        """Without the mouse's way there, which takes seconds on a busy machine."""
        self.run("document.querySelector(arguments[0]).click()", selector)

    def resize(self, width, height):
        self.call("POST", "/window/rect", {"width": width, "height": height})

    def complaints(self):
        """What the page and the browser have to say against it."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def save_screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("GET", "/screenshot")))
