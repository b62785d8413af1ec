#!/usr/bin/env python3
"""Goal: the live page shows what happens on a mount, commands it, and costs nothing when it was not asked for.
Method: a real browser, headless, on the page of a real mount; what it shows is read out of the page, pixels included.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.error
import urllib.request

import wbfat_mount
from wbfat_mount import VFAT_OPTIONS, eventually, pattern, run
from web_driver import Browser

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools/lab"))
from wbfat_lab import load, trial  # pylint: disable=wrong-import-position

WBFATCTL = os.environ.get("WBFATCTL", "wbfatctl")
# Where pictures go, if anywhere.
SCREENSHOTS = os.environ.get("WBFAT_SCREENSHOTS")
# The strip of a file, by the name it shows.
FILE = "[...state.files.values()].find((file) => file.name.textContent === arguments[0])"


class PageCase(wbfat_mount.MountCase):
    def served(self, options=""):
        """A mount with a page; nothing is written but what the test asks for."""
        mount = self.mount(self.make_image(64), f"{VFAT_OPTIONS},cache=auto,dirty_writeback_centisecs=0,commit=0{options}")
        eventually(lambda: run(WBFATCTL, mount, "status").returncode == 0, "a control socket")
        return mount

    def url_of(self, mount):
        return json.loads(run(WBFATCTL, mount, "web", "--json").stdout)["url"]

    def look(self, mount, **window):
        """A browser on the page of the mount, when it shows something."""
        browser = Browser(self, **window)
        browser.open(self.url_of(mount))
        browser.wait("document.getElementById('link').className === 'on' && state.stats.nr_frames > 0")
        self.addCleanup(self.expect_no_complaints, browser)
        return browser

    def expect_no_complaints(self, browser):
        self.assertEqual(browser.complaints(), [])

    def picture(self, browser, name):
        if SCREENSHOTS:
            browser.save_screenshot(pathlib.Path(SCREENSHOTS) / f"{name}.png")

    def choose_protocol(self, browser, name):
        browser.wait("document.querySelectorAll('#protocol option').length > 5")
        browser.run("""const select = document.getElementById('protocol');
                       select.value = arguments[0]; select.dispatchEvent(new Event('change'));""", name)

    def colour_of_cell(self, browser, name, cell, where=0.3):
        """As `#rrggbb`, off the canvas, at `where` of the cell's width and height."""
        return browser.run(f"""
            const file = {FILE}, cell = arguments[1], where = arguments[2], scale = devicePixelRatio;
            const x = (cell % file.columns + where) * file.cell, y = (Math.floor(cell / file.columns) + where) * file.cell;
            const [r, g, b] = file.context.getImageData(x * scale, y * scale, 1, 1).data;
            return "#" + [r, g, b].map((part) => part.toString(16).padStart(2, "0")).join("");""", name, cell, where)


class LivePageTest(PageCase):
    def test_pages_turn_dirty_and_clean(self):
        mount = self.served()
        browser = self.look(mount)
        (mount / "lecture.txt").write_bytes(pattern(40 * 4096))
        browser.wait(f"{FILE}?.count().dirty === 40", "lecture.txt")
        browser.wait("document.getElementById('now-dirty').textContent !== '0'")
        palette = browser.run("return colours")
        eventually(lambda: self.colour_of_cell(browser, "lecture.txt", 39) == palette["dirty"], "the colour of a dirty page")
        self.picture(browser, "dirty")
        browser.click("#sync")
        browser.wait(f"{FILE}.count().dirty === 0 && {FILE}.count().present === 40", "lecture.txt")
        eventually(lambda: self.colour_of_cell(browser, "lecture.txt", 39) == palette["clean"], "the colour of a clean page")
        browser.wait("!document.getElementById('notice').hidden")
        browser.click("#drop-caches")
        browser.wait(f"!{FILE}", "lecture.txt")
        self.unmount(mount)

    def test_lanes_show_the_events_of_a_page(self):
        mount = self.served()
        browser = self.look(mount)
        (mount / "lecture.txt").write_bytes(pattern(4096))
        browser.wait(f"{FILE}", "lecture.txt")
        browser.run(f"""const canvas = {FILE}.canvas, box = canvas.getBoundingClientRect();
                        canvas.dispatchEvent(new MouseEvent("click", {{clientX: box.left + 3, clientY: box.top + 3}}));""",
                    "lecture.txt")
        browser.click("#sync")
        for words in ("insert", "dirty", "set writeback", "clear writeback"):
            browser.wait("[...document.querySelectorAll('#lane-table .event')].some((e) => e.textContent.startsWith(arguments[0]))",
                         words)
        self.assertEqual(browser.run("""return [...new Set([...document.querySelectorAll("#lane-table .page")]
                                                              .map((e) => e.textContent))]"""), ["lecture.txt 0"])
        self.assertGreaterEqual(browser.run("return document.querySelectorAll('#lane-table .lane').length"), 3)
        self.picture(browser, "lanes")
        self.unmount(mount)

    def test_controls_change_the_mount(self):
        mount = self.served()
        browser = self.look(mount)
        browser.click("#flusher")
        browser.wait("document.getElementById('flusher').textContent === 'resume flusher'")
        self.assertTrue(json.loads(run(WBFATCTL, mount, "flusher", "--json").stdout)["paused"])
        browser.click("#flusher")
        browser.wait("document.getElementById('flusher').textContent === 'pause flusher'")
        browser.run("""const select = document.querySelector('select[aria-label=bug_on_writeback]');
                       select.value = 'warn'; select.dispatchEvent(new Event('change'));""")
        eventually(lambda: "warn" in re.search(r".*bug_on_writeback.*", run(WBFATCTL, mount, "assert").stdout)[0], "the new state")
        self.unmount(mount)

    def test_the_protocol_is_switched(self):
        mount = self.served()
        browser = self.look(mount)
        self.choose_protocol(browser, "5.9")
        eventually(lambda: json.loads(run(WBFATCTL, mount, "protocol", "--json").stdout)["protocol"] == "5.9", "the protocol")
        # And the other way round: a change from elsewhere is shown.
        run(WBFATCTL, mount, "protocol", "set", "recheck-on-wake")
        browser.wait("document.getElementById('protocol').value === 'recheck-on-wake'")
        self.unmount(mount)

    def provoke(self):
        """The bug of the mail, as `wbfat-lab mail` does it, the protocol and the rules set live. Returns mount and browser."""
        mount = self.served(",sync,nobarrier,dirty_writeback_centisecs=1,dirty_expire_centisecs=0,bug=shutdown")
        browser = self.look(mount)
        self.assertEqual(browser.run("return document.querySelectorAll('#report-list li').length"), 0)
        self.choose_protocol(browser, "5.9")
        eventually(lambda: json.loads(run(WBFATCTL, mount, "protocol", "--json").stdout)["protocol"] == "5.9", "the protocol")
        rules = [rule.replace("FILE", load.GROWN_FILE) for rule in trial.MAIL_RECIPE]
        self.assertEqual(run(WBFATCTL, mount, "point", "set", *rules).returncode, 0)
        users = subprocess.Popen([sys.executable, load.__file__, "grow", mount.path, "{}"], stdout=subprocess.DEVNULL)
        self.addCleanup(users.wait)
        self.addCleanup(users.terminate)
        browser.wait("document.querySelectorAll('#report-list li').length > 0")
        browser.wait("!document.getElementById('notice').hidden")
        return mount, browser

    def test_the_guilty_page_is_marked(self):
        mount, browser = self.provoke()
        index = json.loads(run(WBFATCTL, mount, "oops", "show", "1", "--json").stdout)["page"]["index"]
        browser.wait(f"{FILE}?.guilty.get(arguments[1]) === 1", load.GROWN_FILE, index)
        guilty = browser.run("return colours.guilty")
        for cell in range(browser.run(f"return {FILE}.cells", load.GROWN_FILE)):
            colour = self.colour_of_cell(browser, load.GROWN_FILE, cell, 0.06)
            self.assertEqual(colour == guilty, cell == index, f"cell {cell}: {colour}")
        # Inside the frame is what the page is in now.
        self.assertNotEqual(self.colour_of_cell(browser, load.GROWN_FILE, index, 0.45), guilty)
        self.assertIn("failed an assertion", browser.run("return document.getElementById('legend').textContent"))
        browser.click(".file button.guilty:not([hidden])")
        browser.wait("document.getElementById('report').open")
        self.assertIn(f"index {index} of", browser.run("return document.getElementById('report-text').textContent"))
        mount.unmount()

    def test_the_lanes_stop_at_the_failure_until_they_are_let_go_on(self):
        mount, browser = self.provoke()
        # What was drawn last: the rows are a frame behind what is known.
        last = "[...document.querySelectorAll('#lane-table .event')].pop().textContent"
        browser.wait(f"state.held?.at && {last}.startsWith('BUG: bug_on_writeback')")
        browser.click("#drop-caches")
        (mount / load.GROWN_FILE).read_bytes()
        browser.wait("state.held.since > 0 && /failure.*: [1-9]\\d* events? since/.test(document.getElementById('held').textContent)")
        self.assertTrue(browser.run(f"return {last}.startsWith('BUG: bug_on_writeback')"))
        self.picture(browser, "held")
        browser.click("#go-on")
        browser.wait(f"document.getElementById('held').hidden && !{last}.startsWith('BUG')")
        self.assertFalse(browser.run("return document.getElementById('hold').checked"))
        # By hand, the same without a failure.
        browser.click("#hold")
        browser.wait("!document.getElementById('held').hidden")
        self.assertNotIn("failure", browser.run("return document.getElementById('held').textContent"))
        browser.click("#hold")
        browser.wait("document.getElementById('held').hidden")
        mount.unmount()

    def test_no_label_of_the_lanes_is_cut(self):
        mount, browser = self.provoke()
        browser.wait("state.held?.at && document.querySelectorAll('#lane-table .event.bug').length === 1")
        for width in (1600, 1000):
            browser.resize(width, 1000)
            browser.wait("Math.abs(innerWidth - arguments[0]) < 40", width)
            browser.wait("document.querySelector('#lane-table .page.guilty')?.textContent.startsWith(arguments[0])", load.GROWN_FILE)
            self.picture(browser, f"labels-{width}")
            cut = browser.run("""return [...document.querySelectorAll("#lane-table > *")]
                                   .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
                                   .map((e) => e.textContent)""")
            self.assertEqual(cut, [], f"at {width} pixels")
        # The reports, the counters and the rest fit too.
        self.assertLessEqual(browser.run("return document.documentElement.scrollWidth - innerWidth"), 0)
        mount.unmount()

    def test_the_bug_of_the_mail_is_provoked_and_its_report_shown(self):
        mount, browser = self.provoke()
        self.picture(browser, "bug")
        browser.click("#report-list li:last-child button")
        browser.wait("document.getElementById('report').open")
        self.picture(browser, "report")
        text = browser.run("return document.getElementById('report-text').textContent")
        for words in ("takes that wake-up for the end of the writeback", "bug_on_writeback: P1", "page       index 0 of 'grow.dat'", "protocol   5.9"):
            self.assertIn(words, text)
        self.assertEqual(text, json.loads(run(WBFATCTL, mount, "oops", "show", "1", "--json").stdout)["text"])
        mount.unmount()

    def test_the_end_of_the_mount_is_told(self):
        mount = self.served()
        browser = self.look(mount)
        self.unmount(mount)
        browser.wait("document.getElementById('link').className === ''")
        self.picture(browser, "gone")
        self.assertIn("gone", browser.run("return document.getElementById('notice').textContent"))


    def test_what_the_load_does_is_said(self):
        mount = self.served()
        sentence = "Two threads lengthen <b>grow.dat</b>."
        self.assertEqual(run(WBFATCTL, mount, "web", "say", sentence).stdout, "")
        browser = self.look(mount)
        browser.wait("!document.getElementById('says').hidden && document.getElementById('says').textContent === arguments[0]", sentence)
        run(WBFATCTL, mount, "web", "say")
        browser.wait("document.getElementById('says').hidden")
        self.unmount(mount)


class ServerTest(PageCase):
    def test_nothing_is_served_unless_asked_for(self):
        mount = self.served()

        def listening():
            inodes = {os.readlink(f"/proc/{mount.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{mount.process.pid}/fd")}
            lines = pathlib.Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
            return [line.split()[1] for line in lines if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in inodes]

        self.assertEqual(listening(), [])
        self.url_of(mount)
        (address,) = listening()
        self.assertTrue(address.startswith("0100007F:"), address)
        self.assertEqual(run(WBFATCTL, mount, "web", "stop").returncode, 0)
        self.assertEqual(listening(), [])
        self.unmount(mount)

    def test_the_mount_option(self):
        mount = self.served(",http=127.0.0.1:0")
        self.assertRegex(mount.log(), r"the live page is at http://127\.0\.0\.1:\d+/[0-9a-f]{32}/")
        url = self.url_of(mount)
        self.assertIn(url, mount.log())
        with urllib.request.urlopen(url, timeout=10) as page:
            self.assertIn(b"wbfat", page.read())
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(re.sub(r"[0-9a-f]{32}/", "", url), timeout=10)
        self.assertEqual(caught.exception.code, 404)
        caught.exception.close()
        self.unmount(mount)

    def test_an_address_that_is_not_this_machines_own(self):
        self.expect_refused(1, ["http", "127.0.0.1:8080"], self.make_image(16), self.make_mountpoint(), "-o", "http=0.0.0.0:8080")


if __name__ == "__main__":
    wbfat_mount.main()
