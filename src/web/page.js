// The live page: hears what changes over a WebSocket (src/live_feed.h says how), draws it, and gives commands.
"use strict";

const $ = (id) => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className || "";
  if (text !== undefined) made.textContent = text;
  return made;
}

// --- what is known

const state = {
  files: new Map(),    // id -> File
  tasks: new Map(),    // task -> name
  stats: {},
  history: [],         // {time, dirty, writeback, written}: the curves
  events: [],
  held: null,          // {events, since, at}: what the lanes show meanwhile, how many came since, of which failure, if any
  holdsAtFailure: true,
  opened: null,        // seconds since the mount; a failure before that is among the reports, and holds nothing
  followed: null,      // {id, index}: only this page's events
  failed: false,       // an assertion has
  limits: null,        // pages: background, limit
};
const kHistorySeconds = 30;
const kMaxEvents = 400;
const kMaxRows = 34;
const kPageBytes = 4096;

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1000 && unit + 1 < units.length; ++unit) bytes /= 1024;
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

// --- colours: the page's own, from the style sheet

let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["absent", "clean", "dirty", "writeback", "redirtied", "locked", "waited", "guilty", "card",
                      "line", "soft", "ink", "sans"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

// --- files: a strip of cells each, 64 to a word

// Bit `n` of a 64-bit number in hexadecimal, for all n, as two halves.
function halves(hex) {
  if (!hex) return [0, 0];
  const padded = hex.padStart(16, "0");
  return [parseInt(padded.slice(8), 16), parseInt(padded.slice(0, 8), 16)];
}
const bitOf = (pair, n) => (pair[n >> 5] >>> (n & 31)) & 1;

class File {
  constructor(id) {
    this.id = id;
    this.words = new Map();  // number -> pairs of halves: present, dirty, writeback, locked, waited for
    this.stale = new Set();  // words to be drawn
    this.guilty = new Map(); // page index -> its last report
    this.root = element("div", "file");
    const head = element("div", "head");
    this.name = element("span", "name");
    this.size = element("span", "size");
    this.verdict = element("button", "guilty");
    this.verdict.hidden = true;
    head.append(this.name, this.verdict, this.size);
    this.canvas = element("canvas");
    this.canvas.addEventListener("click", (event) => this.follow(event));
    this.root.append(head, this.canvas);
    this.cells = 0;
  }

  describe(name, bytes, pagesACell) {
    this.name.textContent = name;
    this.name.title = name;
    this.pagesACell = pagesACell;
    this.size.textContent = size(bytes) + (pagesACell === 1 ? "" : `, ${size(pagesACell * kPageBytes)} a cell`);
    const cells = Math.max(1, Math.ceil(bytes / kPageBytes / pagesACell));
    if (cells !== this.cells) {
      this.cells = cells;
      this.layOut();
    }
  }

  accuse(guilty) {
    if (JSON.stringify([...guilty]) === JSON.stringify([...this.guilty])) return;
    this.guilty = guilty;
    this.verdict.hidden = guilty.size === 0;
    const report = Math.max(...guilty.values());
    this.verdict.textContent =
      `${guilty.size === 1 ? "page" : "pages"} ${[...guilty.keys()].join(", ")}: see report #${report}`;
    this.verdict.onclick = () => showReport(this.verdict, report);
    this.drawAll();
    lanesAreStale = true;
  }

  // Cells as large as they can be without the strip growing too tall.
  layOut() {
    const width = Math.max(200, this.root.clientWidth || $("files").clientWidth || 900);
    const scale = window.devicePixelRatio || 1;
    let cell = 22;
    const rowsAt = (side) => Math.ceil(this.cells / Math.floor(width / side));
    while (cell > 4 && rowsAt(cell) * cell > 132) --cell;
    this.cell = cell;
    this.columns = Math.floor(width / cell);
    const rows = Math.max(1, rowsAt(cell));
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(rows * cell * scale);
    this.canvas.style.height = `${rows * cell}px`;
    this.context = this.canvas.getContext("2d");
    this.context.scale(scale, scale);
    this.drawAll();
  }

  take(update) {
    const [, number, ...bits] = update;
    if (bits.length === 0) this.words.delete(number);
    else this.words.set(number, [0, 1, 2, 3, 4].map((which) => halves(bits[which])));
    this.stale.add(number);
  }

  colourOf(word, n) {
    if (!word || !bitOf(word[0], n)) return colours.absent;
    if (bitOf(word[4], n)) return colours.waited;
    if (bitOf(word[3], n)) return colours.locked;
    const dirty = bitOf(word[1], n);
    if (bitOf(word[2], n)) return dirty ? colours.redirtied : colours.writeback;
    return dirty ? colours.dirty : colours.clean;
  }

  drawWord(number) {
    const word = this.words.get(number);
    const gap = this.cell >= 8 ? 2 : 1;
    const last = Math.min(this.cells, (number + 1) * 64);
    const guilty = new Set([...this.guilty.keys()].map((index) => Math.floor(index / this.pagesACell)));
    for (let at = number * 64; at < last; ++at) {
      const x = (at % this.columns) * this.cell;
      const y = Math.floor(at / this.columns) * this.cell;
      this.context.fillStyle = this.colourOf(word, at & 63);
      this.context.fillRect(x, y, this.cell - gap, this.cell - gap);
      if (guilty.has(at)) this.frame(x, y, this.cell - gap);
    }
  }

  // Around a guilty cell; inside it stays the colour of what the page is in now, as far as there is room.
  frame(x, y, side) {
    const fill = this.context.fillStyle;
    const edge = side >= 12 ? 3 : side >= 8 ? 2 : side;
    this.context.fillStyle = colours.guilty;
    this.context.fillRect(x, y, side, side);
    if (2 * edge + 2 >= side) return;
    this.context.fillStyle = colours.card;
    this.context.fillRect(x + edge, y + edge, side - 2 * edge, side - 2 * edge);
    this.context.fillStyle = fill;
    this.context.fillRect(x + edge + 1, y + edge + 1, side - 2 * edge - 2, side - 2 * edge - 2);
  }

  drawAll() {
    this.stale.clear();
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (let number = 0; number * 64 < this.cells; ++number) this.drawWord(number);
  }

  draw() {
    for (const number of this.stale) this.drawWord(number);
    this.stale.clear();
  }

  follow(event) {
    const column = Math.floor(event.offsetX / this.cell);
    const at = Math.floor(event.offsetY / this.cell) * this.columns + column;
    if (column >= this.columns || at >= this.cells || this.pagesACell !== 1) return;
    state.followed = {id: this.id, index: at};
    $("followed").textContent = `page ${at} of ${this.name.textContent} ✕`;
    $("followed").hidden = false;
    lanesAreStale = true;
  }

  // How many pages are in which state: for whoever cannot see colours, and for tests.
  count() {
    const total = {present: 0, dirty: 0, writeback: 0};
    for (const word of this.words.values()) {
      for (let n = 0; n < 64; ++n) {
        total.present += bitOf(word[0], n);
        total.dirty += bitOf(word[1], n);
        total.writeback += bitOf(word[2], n);
      }
    }
    return total;
  }
}

function takeFiles(list) {
  const seen = new Set();
  for (const [id, name, bytes, pagesACell] of list) {
    seen.add(id);
    let file = state.files.get(id);
    if (!file) {
      file = new File(id);
      state.files.set(id, file);
      $("files").append(file.root);
    }
    file.describe(name, bytes, pagesACell);
  }
  for (const [id, file] of state.files) {
    if (!seen.has(id)) {
      file.root.remove();
      state.files.delete(id);
    }
  }
}

function takeGuilty(list) {
  for (const file of state.files.values()) {
    file.accuse(new Map(list.filter(([id]) => id === file.id).map(([, index, report]) => [index, report])));
  }
}

// --- counters and curves

const kShownStats = [
  ["cached", (s) => `${size(s.nr_cached * kPageBytes)} of ${size(s.nr_frames * kPageBytes)}`],
  ["read", (s) => `${size(s.pages_read * kPageBytes)} in ${s.bios_read}`],
  ["written", (s) => `${size(s.pages_written * kPageBytes)} in ${s.bios_written}`],
  ["waits for page locks", (s) => s.lock_waits.toLocaleString()],
  ["waits for writeback", (s) => s.writeback_waits.toLocaleString()],
  ["writers throttled", (s) => s.throttle_waits.toLocaleString()],
];

function takeStats(time, changed) {
  Object.assign(state.stats, changed);
  const s = state.stats;
  state.history.push({time, dirty: s.nr_dirty, writeback: s.nr_writeback, written: s.pages_written});
}

function trimHistory(now) {
  // The one before the window stays: the curve begins at the window's edge.
  while (state.history.length > 2 && state.history[1].time < now - kHistorySeconds) state.history.shift();
}

// MiB/s over the last second.
function writeRate(now) {
  const last = state.history[state.history.length - 1];
  const before = state.history.find((point) => point.time >= now - 1);
  if (!last || !before || now - last.time > 1) return 0;
  const first = state.history[Math.max(0, state.history.indexOf(before) - 1)];
  return (last.written - first.written) * kPageBytes / 2 ** 20;
}

function drawCurves(now) {
  const canvas = $("curves");
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  let top = 16;
  for (const point of state.history) top = Math.max(top, point.dirty + point.writeback);
  const limit = state.limits && state.limits.background_pages;
  const x = (time) => width * (1 - (now - time) / kHistorySeconds);
  const y = (pages) => height - (height - 18) * pages / top;
  // Stacked: dirty on top of writeback, in steps, because counts jump.
  const area = (value, colour) => {
    context.beginPath();
    context.moveTo(0, height);
    let level = 0;
    for (const point of state.history) {
      const at = Math.max(0, x(point.time));
      context.lineTo(at, y(level));
      level = value(point);
      context.lineTo(at, y(level));
    }
    context.lineTo(width, y(level));
    context.lineTo(width, height);
    context.fillStyle = colour;
    context.fill();
  };
  area((point) => point.dirty + point.writeback, colours.dirty);
  area((point) => point.writeback, colours.writeback);
  context.fillStyle = colours.line;
  context.fillRect(0, height - 1, width, 1);
  context.fillStyle = colours.ink;
  context.font = `12px ${colours.sans}`;
  context.fillText(size(top * kPageBytes), 2, 12);
  context.textAlign = "right";
  context.fillText(`the last ${kHistorySeconds} s`, width - 2, 12);
  context.textAlign = "left";
  if (limit && limit <= top) {
    context.strokeStyle = colours.ink;
    context.setLineDash([4, 4]);
    context.beginPath();
    context.moveTo(0, y(limit));
    context.lineTo(width, y(limit));
    context.stroke();
    context.setLineDash([]);
    context.textAlign = "right";
    context.fillText("the flusher starts", width - 2, y(limit) - 5);
    context.textAlign = "left";
  }
}

// Text that has not changed costs no layout.
function show(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function showNumbers(now) {
  const s = state.stats;
  if (s.nr_frames === undefined) return;
  show($("now-dirty"), s.nr_dirty.toLocaleString());
  show($("now-writeback"), s.nr_writeback.toLocaleString());
  show($("now-rate"), writeRate(now).toFixed(0));
  const list = $("stats");
  if (list.children.length === 0) {
    for (const [name] of kShownStats) list.append(element("dt", "", name), element("dd"));
  }
  kShownStats.forEach(([, text], n) => show(list.children[2 * n + 1], text(s)));
}

// --- lanes

let lanesAreStale = false;
const kKindState = {
  "lock": "locked", "unlock": "", "dirty": "dirty", "clear dirty": "dirty", "set writeback": "writeback",
  "clear writeback": "writeback", "submit": "writeback", "complete": "writeback", "wait": "waited", "woken": "waited",
  "wake": "waited", "BUG": "bug waited",
};

function takeEvents(list) {
  for (const event of list) {
    state.events.push(event);
    if (state.held) ++state.held.since;
    else if (event[2] === "BUG" && state.holdsAtFailure && event[0] / 1e6 > state.opened) hold(event);
  }
  if (state.events.length > kMaxEvents) state.events.splice(0, state.events.length - kMaxEvents);
  if (!state.held) lanesAreStale = true;
}

// The lanes show what has happened until now, and nothing later: what came before a failure would be gone in a moment.
function hold(failure) {
  state.held = {events: state.events.slice(-kMaxEvents), since: 0, at: failure};
  $("hold").checked = true;
  lanesAreStale = true;
}

// Whoever lets the lanes go on after a failure wants to see them move, though more fail: until another protocol is chosen.
function goOn() {
  if (state.held?.at) state.holdsAtFailure = false;
  state.held = null;
  $("hold").checked = false;
  lanesAreStale = true;
}

function showHeld() {
  const held = state.held;
  $("held").hidden = !held;
  if (!held) return;
  const later = held.since === 1 ? "1 event" : `${held.since.toLocaleString()} events`;
  show($("held").firstElementChild,
    `${held.at ? "Held at the failure, which is the last row" : "Held"}: ${later} since.`);
}

function drawLanes() {
  const table = $("lane-table");
  const followed = state.followed;
  const rows = (state.held?.events ?? state.events).filter((event) =>
    !followed || (event[3] === followed.id && event[4] === followed.index)).slice(-kMaxRows);
  table.replaceChildren();
  if (rows.length === 0) {
    table.style.gridTemplateColumns = "1fr";
    table.append(element("p", "empty", followed ? "Nothing has happened to this page lately." : "Nothing happens."));
    return;
  }
  const tasks = [...new Set(rows.map((event) => event[1]))].sort((a, b) => a - b);
  table.style.gridTemplateColumns = `6.6em fit-content(13em) repeat(${tasks.length}, minmax(6.5em, 1fr))`;
  table.append(element("span", "lane", ""), element("span", "lane", "page"));
  const names = tasks.map((task) => (state.tasks.get(task) || "task").replace(/^wbfat-/, ""));
  tasks.forEach((task, n) => {
    const isOneOfSeveral = names.indexOf(names[n]) !== names.lastIndexOf(names[n]);
    table.append(element("span", "lane", names[n] + (isOneOfSeveral ? ` #${task}` : "")));
  });
  const end = rows[rows.length - 1][0];
  rows.forEach(([time, task, kind, id, index, text], row) => {
    const margin = element("span", "time", `${((time - end) / 1000).toFixed(3)} ms`);
    margin.style.gridRow = row + 2;
    const file = state.files.get(id);
    const page = element("span", `page ${file?.guilty.has(index) ? "guilty" : ""}`,
      index < 0 ? "" : file ? `${file.name.textContent} ${index}` : String(index));
    page.style.gridRow = row + 2;
    page.style.gridColumn = 2;
    // Threads go by the names their lanes have.
    const event = element("span", `event ${kKindState[kind] ?? ""}`, text.replace(/'wbfat-/, "'"));
    event.style.gridRow = row + 2;
    event.style.gridColumn = tasks.indexOf(task) + 3;
    table.append(margin, page, event);
  });
}

// --- commands

let socket = null;
const waiting = [];  // replies come in the order of the commands

function command(name, ...words) {
  return new Promise((resolve, reject) => {
    if (!socket || socket.readyState !== WebSocket.OPEN) {
      reject(new Error("not connected"));
      return;
    }
    waiting.push({resolve, reject});
    socket.send(JSON.stringify({command: name, words}));
  });
}

let noticeTimer = 0, lasting = "";
// Good news goes soon, bad news later; then what lasts comes back.
function notice(text, kind) {
  if (kind === "lasts") lasting = text;
  $("notice").textContent = text;
  $("notice").className = kind === "good" ? "good" : "";
  $("notice").hidden = false;
  clearTimeout(noticeTimer);
  if (kind === "lasts") return;
  noticeTimer = setTimeout(() => {
    if (lasting) notice(lasting, "lasts");
    else $("notice").hidden = true;
  }, kind === "good" ? 2500 : 8000);
}

// Runs a command for a control, which is disabled meanwhile.
async function run(control, name, ...words) {
  control.disabled = true;
  try {
    return await command(name, ...words);
  } catch (error) {
    notice(error.message);
    return null;
  } finally {
    control.disabled = false;
  }
}

// --- settings and reports

let presets = [];

function showProtocol(text) {
  const select = $("protocol");
  select.replaceChildren();
  // One that is no preset is shown all the same.
  const names = presets.map((preset) => preset.name);
  for (const name of names.includes(text) ? names : [text, ...names]) {
    const option = element("option", "", name);
    option.value = name;
    const preset = presets.find((one) => one.name === name);
    option.title = preset ? preset.help : "";
    select.append(option);
  }
  select.value = text;
  const help = presets.find((one) => one.name === text)?.help;
  $("protocol-help").textContent = `The page protocol ${text}${help ? `: ${help}.` : "."}`;
}

async function loadAssertions() {
  const {assertions} = await command("assert", "list");
  const list = $("assertion-list");
  list.replaceChildren();
  for (const one of assertions) {
    const row = element("div", "assertion");
    const name = element("span", "", one.name);
    name.title = one.help;
    const hits = element("b", "", one.hits || "");
    hits.dataset.name = one.name;
    const select = element("select", one.state);
    for (const value of ["off", "warn", "bug"]) select.append(element("option", "", value));
    select.value = one.state;
    select.setAttribute("aria-label", one.name);
    select.addEventListener("change", async () => {
      await run(select, "assert", "set", `${one.name}:${select.value}`);
      select.className = select.value;
    });
    row.append(name, hits, select);
    list.append(row);
  }
}

async function showReport(button, number) {
  const full = await run(button, "oops", "show", String(number));
  if (!full) return;
  $("report-title").textContent = full.title;
  $("report-text").textContent = full.text;
  $("report").showModal();
}

async function loadReports() {
  const {reports} = await command("oops", "list");
  const list = $("report-list");
  list.replaceChildren();
  for (const report of reports.reverse()) {
    const button = element("button");
    button.append(element("b", "", `#${report.number} `), report.title, element("small", "", `${report.task}, protocol ${report.protocol}`));
    button.addEventListener("click", () => showReport(button, report.number));
    const item = element("li");
    item.append(button);
    list.append(item);
  }
}

async function loadStatus() {
  const status = await command("status");
  const volume = status.volume;
  state.limits = status.flusher;
  $("volume").textContent =
    `${volume.mountpoint}: FAT${volume.fat}${volume.label ? ` “${volume.label}”` : ""} on ${volume.device}`;
  $("volume").title = $("volume").textContent;
  document.title = `wbfat ${volume.mountpoint}`;
}

function takeSettings(update) {
  if (update.protocol !== undefined) {
    showProtocol(update.protocol);
    state.holdsAtFailure = true;
  }
  if (update.says !== undefined) {
    show($("says"), update.says);
    $("says").hidden = !update.says;
  }
  if (update.trace !== undefined) $("trace").checked = update.trace;
  if (update.paused !== undefined) $("flusher").textContent = update.paused ? "resume flusher" : "pause flusher";
  if (update.read_only) {
    notice(update.reports || state.failed ? "An assertion failed, and the volume takes no more changes: see Reports for who did what."
      : "The volume is read-only.", "lasts");
  }
  if (update.hits !== undefined) {
    for (const hits of document.querySelectorAll(".assertion b")) hits.textContent = update.hits[hits.dataset.name] ?? "";
  }
  if (update.reports) state.failed = true;
  if (update.reports !== undefined) loadReports().catch(() => {});
}

// --- the connection

function takeUpdate(update) {
  state.opened ??= update.t;
  if (update.stats) takeStats(update.t, update.stats);
  if (update.files) takeFiles(update.files);
  if (update.guilty) takeGuilty(update.guilty);
  for (const cells of update.cells ?? []) state.files.get(cells[0])?.take(cells);
  for (const [task, name] of Object.entries(update.tasks ?? {})) state.tasks.set(Number(task), name);
  if (update.events) takeEvents(update.events);
  takeSettings(update);
  clock = {mount: update.t, here: performance.now() / 1000};
}

let clock = {mount: 0, here: 0};
const mountTime = () => clock.mount + performance.now() / 1000 - clock.here;

function connect() {
  socket = new WebSocket(`ws://${location.host}${location.pathname}live`);
  socket.addEventListener("open", async () => {
    $("link").className = "on";
    $("link").title = "connected";
    try {
      await loadStatus();
      presets = (await command("protocol", "list")).presets;
      showProtocol((await command("protocol", "get")).protocol);
      await loadAssertions();
      await loadReports();
    } catch (error) {
      notice(error.message);
    }
  });
  socket.addEventListener("message", ({data}) => {
    const message = JSON.parse(data);
    if (message.ok === undefined) {
      takeUpdate(message);
      return;
    }
    const {resolve, reject} = waiting.shift();
    if (message.ok) resolve(message.result);
    else reject(new Error(message.error));
  });
  socket.addEventListener("close", () => {
    $("link").className = "";
    $("link").title = "not connected";
    for (const {reject} of waiting.splice(0)) reject(new Error("the daemon is gone"));
    notice("The mount is gone, or the page was switched off.", "lasts");
  });
}

// Cells are drawn as soon as they change; what is read rather than seen, a few times a second.
const kSlowPeriod = 100;
let lastSlow = 0;
function frame(now) {
  for (const file of state.files.values()) file.draw();
  if (now - lastSlow >= kSlowPeriod) {
    lastSlow = now;
    const time = mountTime();
    trimHistory(time);
    drawCurves(time);
    showNumbers(time);
    showHeld();
    if (lanesAreStale) {
      lanesAreStale = false;
      drawLanes();
    }
  }
  requestAnimationFrame(frame);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  readColours();
  for (const file of state.files.values()) file.drawAll();
}

function begin() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  $("theme").addEventListener("click", () =>
    setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  for (const name of ["sync", "drop-caches"]) {
    $(name).addEventListener("click", async () => {
      if (await run($(name), name)) notice(name === "sync" ? "What the cache held is on the disk." : "Clean pages were dropped.", "good");
    });
  }
  $("flusher").addEventListener("click", () =>
    run($("flusher"), "flusher", $("flusher").textContent.startsWith("pause") ? "pause" : "resume"));
  $("protocol").addEventListener("change", async () => {
    const wanted = $("protocol").value;
    const done = await run($("protocol"), "protocol", "set", wanted);
    if (done) notice(`The protocol is ${done.protocol} now.`, "good");
    else showProtocol((await command("protocol", "get")).protocol);
  });
  $("trace").addEventListener("change", () => run($("trace"), "trace", $("trace").checked ? "on" : "off"));
  $("hold").addEventListener("change", () => { if ($("hold").checked) hold(null); else goOn(); });
  $("go-on").addEventListener("click", goOn);
  $("followed").addEventListener("click", () => {
    state.followed = null;
    $("followed").hidden = true;
    lanesAreStale = true;
  });
  addEventListener("resize", () => { for (const file of state.files.values()) file.layOut(); });
  connect();
  requestAnimationFrame(frame);
}

begin();
