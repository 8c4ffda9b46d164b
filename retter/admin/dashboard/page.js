"use strict";
(() => {
// The page of one RETTER: reads api/events, draws what it says, sends what the operator decides.
// All text goes in by textContent and setAttribute: a route or a reason can never become markup.

// What the chart shows: for how long, with which ticks, and how often the history is fetched again.
const SPANS = {
  recent: {length: 300, tick: 60, again: 0, words: "5 min ago"},
  hour: {length: 3600, tick: 600, again: 15, words: "1 h ago"},
  day: {length: 86400, tick: 4 * 3600, again: 60, words: "24 h ago"},
  month: {length: 30 * 86400, tick: 5 * 86400, again: 300, words: "30 days ago"},
};
let span = "recent";
const SILENCE_S = 5;            // a state comes every second: after so long the connection is lost
const RETRY_S = [1, 2, 4, 8];   // between attempts; the last for all that follow
const GOOD = ["fresh", "stored"], ILL = ["refused", "failed", "gave_up"], KINDS = [...GOOD, ...ILL];

const $ = (id) => document.getElementById(id);
const text = (id, words) => { const e = $(id); if (e.textContent !== words) e.textContent = words; };
// A figure and its unit stay on one line, and so do a method and its path.
const together = (words) => words.replace(/(\d) (?=%|(s|min|h|d|ms)\b)|([A-Z]{3,7}) (?=\/)/g, "$1$3\u00a0");
// As text, with what stands between backquotes as code.
const rich = (id, words) => {
  const e = $(id);
  if (e.dataset.words === words) return;
  e.dataset.words = words;
  e.replaceChildren(...words.split("`").map((part, i) => i % 2 ? make("code", part) : part));
};
const make = (name, words = "", kind = "") => {
  const e = document.createElement(name);
  e.textContent = words;
  if (kind) e.className = kind;
  return e;
};

// Words and figures

const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const tenth = new Intl.NumberFormat("en", {maximumFractionDigits: 1});
const count = (n) => n == null ? "–" : (Math.abs(n) < 10 && n % 1 ? tenth : whole).format(n);
const rate = (n) => n > 0 && n < 0.05 ? "<0.1" : count(n);
const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");
const until = (at) => new Date(at * 1000).toLocaleTimeString("en-GB", {hour: "2-digit", minute: "2-digit"});
function length(s) {
  s = Math.max(0, Math.round(s));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s < 600 && s % 60 ? ` ${s % 60} s` : ""}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}
function wait(ms) {
  if (ms == null) return "–";
  if (ms >= 10000) return `${whole.format(ms / 1000)} s`;
  if (ms >= 1000) return `${tenth.format(ms / 1000)} s`;
  return `${ms < 10 ? tenth.format(ms) : whole.format(ms)} ms`;
}
function size(bytes) {
  if (bytes == null) return "–";
  for (const [unit, factor] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]])
    if (bytes >= factor) return `${tenth.format(bytes / factor)} ${unit}`;
  return `${bytes} B`;
}
// Rounded towards the bad news: 99.96 % is not all.
const share = (part, all) => all <= 0 ? "–" : part >= all ? "100 %"
  : `${(Math.floor(1000 * part / all) / 10).toFixed(1)} %`;

const MODE_WORDS = {open: "holds the circuit open", closed: "holds the circuit closed", observe: "has RETTER observe only"};

// What is remembered for the chart

let samples = [];      // {at, fresh, stored, refused, failed, gave_up, p99, state}, of the last five minutes
let older = [];        // the same, of the chosen span, if that is longer
let olderAt = 0;
let present = "CLOSED", worst = "CLOSED";    // the circuit's state, and the worst one since the last sample
const enters = (state) => { if (HEIGHTS[state] > HEIGHTS[worst]) worst = state; };
function remember(s) {
  const at = Date.now() / 1000, last = samples.at(-1);
  present = s.state;
  enters(present);
  if (last && at - last.at < 0.5) return;    // asked for at once, after a change of state
  samples.push({at, ...s.second, p99: s.latency_ms.p99, state: worst});
  worst = present;
  while (samples.length && samples[0].at < at - SPANS.recent.length - 2) samples.shift();
  const {again} = SPANS[span];
  if (again && at - olderAt > again) recall().catch(() => { /* the next second tries again */ });
}
// What RETTER remembers goes before what this page has seen: at its start, and after a lost
// connection. Its clock may be another one, so all is counted back from now.
async function recall() {
  const wanted = span;
  olderAt = Date.now() / 1000;
  const past = await call(`api/history?span=${wanted}`), now = Date.now() / 1000;
  const rows = rowsOf(past, now - past.step_s);
  if (wanted !== span) return;
  if (span === "recent") samples = [...rows, ...samples.filter((one) => one.at >= now - 0.5)];
  else older = rows;
  drawChart();
}
// A row for each step in which RETTER ran; the newest ends at `last`.
function rowsOf(past, last) {
  const n = past.state.length;
  return past.state.map((state, i) => ({at: last - (n - 1 - i) * past.step_s, state, p99: past.p99_ms[i],
    ...Object.fromEntries(KINDS.map((kind) => [kind, past[kind][i]]))})).filter((one) => one.state);
}
const shown = () => span === "recent" ? samples : older;
const total = (one) => KINDS.reduce((sum, kind) => sum + (one[kind] || 0), 0);
const good = (one) => GOOD.reduce((sum, kind) => sum + (one[kind] || 0), 0);
const ill = (one) => ILL.reduce((sum, kind) => sum + (one[kind] || 0), 0);

// Drawing

function nice(top) {
  const power = 10 ** Math.floor(Math.log10(Math.max(top, 0.1)));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((step) => step * power >= top * 0.999) * power;
}
const gap = () => span === "recent" ? 4 : 4 * SPANS[span].length / 300;
function pieces(rows, apart = gap()) {    // runs of samples without a gap; a gap is drawn as one, not bridged
  const runs = [];
  for (const one of rows) {
    const run = runs.at(-1);
    if (run && one.at - run.at(-1).at < apart) run.push(one);
    else runs.push([one]);
  }
  return runs;
}
// From 0 to 300, the newest at the right.
const placeOf = (at) => 300 * (1 - (shown().at(-1).at - at) / SPANS[span].length);
function drawAreas(kinds, top, rows = shown(), runs = pieces(rows), place = placeOf, prefix = "area-") {
  const y = (n) => (100 - 100 * n / top).toFixed(2);
  const under = new Map(rows.map((one) => [one, 0]));
  for (const kind of kinds) {
    let path = "";
    for (const run of runs) {
      const x = (one) => place(one.at).toFixed(2);
      const low = run.map((one) => `${x(one)} ${y(under.get(one))}`).reverse();
      for (const one of run) under.set(one, under.get(one) + (one[kind] || 0));
      if (run.some((one) => one[kind])) path += `M${run.map((one) => `${x(one)} ${y(under.get(one))}`).join("L")}L${low.join("L")}Z`;
    }
    $(prefix + kind).setAttribute("d", path);
  }
}
function drawChart() {
  const rows = shown();
  if (rows.length) {
    const top = nice(Math.max(1, ...rows.map(good))), badTop = nice(Math.max(1, ...rows.map(ill)));
    drawAreas(GOOD, top);
    drawAreas(ILL, badTop);
    text("axis-top", `${count(top)} a second`);
    text("axis-middle", `${count(top / 2)}`);
    text("bad-axis-top", `${count(badTop)} a second`);
    drawTicks();
    drawBand();
    drawSpark();
  }
  const last = samples.slice(-60), sums = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
  for (const one of last) for (const kind of KINDS) sums[kind] += one[kind] || 0;
  const words = (kinds) => "In the last minute, on average: " +
    kinds.map((kind) => `${rate(sums[kind] / Math.max(1, last.length))} ${NAMES[kind]} a second`).join(", ");
  $("stack").setAttribute("aria-label", words(GOOD));
  $("bad-stack").setAttribute("aria-label", words(ILL));
}
const NAMES = {fresh: "fresh", stored: "stored", refused: "refused", failed: "failed", gave_up: "gave up"};
function drawTicks() {
  const {length: all, tick, words} = SPANS[span], places = [];
  for (let s = tick; s < all; s += tick) places.push(300 * (1 - s / all));
  const path = places.map((x) => `M${x} 0V100`).join("");
  $("ticks").setAttribute("d", path);
  $("bad-ticks").setAttribute("d", path);
  const at = shown().at(-1).at, days = span === "month";
  const label = (s) => days ? new Date((at - s) * 1000).toLocaleDateString("en-GB", {day: "numeric", month: "short"})
    : until(at - s);
  const marks = [[0, words]];
  for (let s = all - tick; s > 0; s -= tick) marks.push([100 * (1 - s / all), label(s)]);
  marks.push([100, "now"]);
  $("times").replaceChildren(...marks.map(([place, words]) => {
    const mark = make("span", words);
    mark.style.left = `${place}%`;
    return mark;
  }));
  for (const one of document.getElementsByClassName("span-begin")) one.textContent = words;
}
function drawServed(id, answers) {
  const all = KINDS.reduce((sum, kind) => sum + answers[kind], 0), well = answers.fresh + answers.stored;
  text(id, share(well, all));
  $(id).className = all > 0 && well < 0.99 * all ? "bad" : "";
}
const both = (minute) => Object.fromEntries(KINDS.map((kind) => [kind, minute.gets[kind] + minute.others[kind]]));
const svg = (name, attributes) => {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  return e;
};
function drawBand() {
  const spans = [], wide = 300 / SPANS[span].length * (span === "recent" ? 1 : 15), near = Math.max(4, 2 * wide);
  for (const one of shown()) {
    const last = spans.at(-1), x = placeOf(one.at);
    if (last && last.state === one.state && x - last.to < near) last.to = x;
    else spans.push({state: one.state, from: last && x - last.to < near ? last.to : x - wide, to: x});
  }
  // Each state has a height of its own as well, for who sees no colours.
  $("band").replaceChildren(...spans.map(({state, from, to}) =>
    svg("rect", {x: from, width: Math.max(0.3, to - from), y: 10 - HEIGHTS[state], height: HEIGHTS[state], "data-state": state})));
  $("band").setAttribute("aria-label", `The circuit's state over time; now ${present}`);
}
const HEIGHTS = {CLOSED: 2.5, LIMITING: 5, "HALF-OPEN": 7.5, OPEN: 10};
function drawSpark() {
  const known = shown().filter((one) => one.p99 != null);
  const top = nice(Math.max(1, ...known.map((one) => one.p99)));
  text("spark-top", known.length ? wait(top) : "");
  $("spark-p99").setAttribute("d", known.length < 2 ? "" : pieces(known).map((run) =>
    `M${run.map((one) => `${placeOf(one.at).toFixed(1)} ${(38 - 36 * one.p99 / top).toFixed(1)}`).join("L")}`).join(""));
}
function point(event) {
  const rows = shown();
  if (!rows.length) return;
  const box = $("plot").getBoundingClientRect(), x = 300 * (event.clientX - box.left) / box.width;
  const near = rows.reduce((a, b) => !a || Math.abs(placeOf(b.at) - x) < Math.abs(placeOf(a.at) - x) ? b : a, null);
  const hit = near && Math.abs(placeOf(near.at) - x) < 5;
  $("tip").hidden = !hit;
  $("cross").setAttribute("d", hit ? `M${placeOf(near.at)} 0V100` : "");
  if (!hit) return;
  text("tip", `${clock(near.at)}  ${near.state}  ` + KINDS.filter((kind) => near[kind] > 0).map((kind) => `${rate(near[kind])} ${NAMES[kind]}`).join("  "));
  $("tip").style.left = `${Math.min(Math.max(0, event.clientX - box.left - 80), Math.max(0, box.width - $("tip").offsetWidth))}px`;
}

// How the application looks in each situation; in all others it is well.
const HEALTH = {"nothing there": ["sick", "not there"], down: ["sick", "not there"], hung: ["sick", "hangs"],
  failing: ["sick", "fails"], recovering: ["trial", "recovering"], limiting: ["full"], "one client": ["full"],
  "caught up": ["full"], "one route": ["full", "a part fails"], "some fail": ["full", "fails in part"],
  "hidden failures": ["full", "fails in part"]};
function drawPicture(s) {
  // Of the last second: what has stopped flowing is not shown as if it flowed.
  const {fresh, stored, refused, failed, gave_up: gone} = s.second, all = fresh + stored + refused + failed + gone;
  const width = (n) => n > 0 ? (1.5 + 4.5 * Math.sqrt(n / all)).toFixed(1) : "0";
  const app = fresh + failed;
  for (const [id, n] of Object.entries({"lane-in": all, "lane-fresh": app, "lane-stored": stored,
    "lane-refused": refused, "lane-store": stored, "lane-app-a": app, "lane-app-b": app}))
    $(id).style.strokeWidth = width(n);
  for (const id of ["lane-fresh", "lane-app-a", "lane-app-b", "pic-fresh"]) $(id).dataset.ill = String(failed > fresh);
  const at = s.forced === "observe" ? "shut" : s.paused || s.state === "OPEN" ? "open" : s.state === "HALF-OPEN" ? "half" : "shut";
  const row = [s.situation.row, ...s.situation.rows_beside].find((one) => HEALTH[one]);
  const [health, words] = HEALTH[row] || ["well"];
  $("lever").dataset.at = at;
  $("picture").dataset.state = s.paused || s.forced === "observe" ? "" : s.state;
  $("pic-app").dataset.health = health;
  text("pic-in", `${rate(all)}/s`);
  text("pic-state", s.paused ? "PAUSED" : s.forced === "observe" ? "OBSERVES" : s.state);
  text("pic-flight", words || (s.limit == null ? `${count(s.in_flight)} in flight` : `${count(s.in_flight)} of ${count(s.limit)}`));
  text("pic-fresh", app > 0 ? `${rate(app)}/s` : "");
  text("pic-stored", stored > 0 ? `${rate(stored)}/s` : "");
  text("pic-refused", refused > 0 ? `${rate(refused)}/s refused` : "");
  $("picture").setAttribute("aria-label", `Visitors send ${rate(all)} requests per second to RETTER. The circuit is ${s.state}: ` +
    `${rate(fresh)} per second are answered by the application, ${rate(failed)} with an error, ${rate(stored)} from the store, ${rate(refused)} are refused.`);
}

function meter(id, bar, part, all, words) {
  const percent = all > 0 ? Math.min(100, 100 * part / all) : 0;
  $(bar).style.width = `${percent}%`;
  $(id).dataset.full = String(percent >= 95);
  $(id).setAttribute("aria-valuenow", String(Math.round(percent)));
  $(id).setAttribute("aria-valuetext", words);
}

let lastRow = "";
function draw(s) {
  remember(s);
  const told = s.situation;
  $("hero").dataset.tone = told.tone;
  text("row", told.row);
  text("state", s.forced === "observe" ? `${s.state} (only observed)` : s.state);
  text("headline", together(told.now));
  text("visitors", together(told.visitors));
  text("does", together(told.retter));
  rich("you", told.you);
  $("you").parentElement.hidden = !told.you;
  $("also").replaceChildren(...told.also.map((one) => make("li", one)));
  text("since", together(`since ${clock(Date.now() / 1000 - told.lasted_s)}, for ${length(told.lasted_s)}`));
  drawForce(s);
  const all = total(s.rates);
  text("total", rate(all));
  drawServed("served", both(s.minute));
  drawServed("served-gets", s.minute.gets);
  drawServed("served-others", s.minute.others);
  for (const kind of KINDS) text(`now-${kind}`, rate(s.rates[kind]));
  drawPicture(s);
  if (!document.hidden) drawChart();
  text("p50", wait(s.latency_ms.p50));
  text("p99", wait(s.latency_ms.p99));
  text("in-flight", count(s.in_flight));
  text("limit", s.limit == null ? "no limit" : s.in_flight > s.limit ? `GETs are limited to ${count(s.limit)}` : `of ${count(s.limit)} at once`);
  meter("flight-meter", "flight-bar", s.in_flight, s.limit, `${count(s.in_flight)} of ${count(s.limit)}`);
  text("queue", count(s.queue));
  text("entries", count(s.store.entries));
  text("entries-word", s.store.entries === 1 ? "response" : "responses");
  text("store-bytes", size(s.store.bytes));
  text("store-max", `of ${size(s.store.bytes_max)}`);
  meter("store-meter", "store-bar", s.store.bytes, s.store.bytes_max, `${size(s.store.bytes)} of ${size(s.store.bytes_max)}`);
  const us = s.overhead_us.p50;
  text("overhead", us == null ? "–" : us < 1000 ? `${whole.format(us)} µs` : wait(us / 1000));
  // Mapped pages of the store on disk count as resident, and the system can drop them.
  text("rss", size(s.disk ? s.memory.anonymous_bytes : s.memory.rss_bytes));
  text("rss-note", s.disk ? `memory, and ${size(s.memory.mapped_bytes)} of mapped files` : "memory");
  drawDisk(s.disk);
  drawShared(s.shared);
  text("connections", count(s.connections));
  text("connections-word", s.connections === 1 ? "client connected" : "clients connected");
  text("lag", wait(s.loop_lag_ms));
  drawRoutes(s.routes);
  drawBusiest(s.busiest || []);
  drawTurns(s.turns || {});
  drawWorkers(s.workers || []);
  drawIncidents(s.incidents);
  drawEvents(s.events);
  $("hints").replaceChildren(...(s.hints || []).map((one) => make("li", one)));
  text("upstream", `in front of ${s.upstream.address}${s.upstream.fault ? ` (${s.upstream.fault})` : ""}`);
  text("version", `RETTER ${s.version}`);
  text("uptime", `up ${length(s.uptime_s)}`);
  text("as-of", `figures of ${clock(Date.now() / 1000)}`);
  document.title = `${told.row.toUpperCase()} · ${s.upstream.address} · RETTER`;
  if (told.row !== lastRow) {
    // Once for each change: a screen reader is told of the situation, not of every figure.
    if (lastRow) announce(`${told.now} ${told.visitors}`);
    lastRow = told.row;
    drawIcon();
  }
}
function announce(words) { text("live", words); }
const ICON = $("icon").href;     // a lifebelt, grey: its colour is the state's
function drawIcon() {
  const colour = getComputedStyle($("hero")).getPropertyValue("--now-fill").trim();
  $("icon").href = ICON.replace("%23888888", encodeURIComponent(colour));
}
function drawForce(s) {
  $("force").hidden = !s.forced;
  if (s.forced) text("force-words", s.forced_remaining_s == null ? `The configuration ${MODE_WORDS[s.forced]}.`
    : `An operator ${MODE_WORDS[s.forced]} until ${until(Date.now() / 1000 + s.forced_remaining_s)}, ${length(s.forced_remaining_s)} more.`);
  for (const button of $("modes").children)
    button.setAttribute("aria-pressed", String(button.dataset.mode === (s.forced || "auto")));
  $("pausing").hidden = !s.paused;
  if (s.paused) text("pausing-words", `Paused until ${clock(Date.now() / 1000 + (s.pause_remaining_s || 0))}, ${length(s.pause_remaining_s || 0)} more.`);
  $("resume").disabled = !s.paused;
}
let routesShown = "", eventsShown = "", incidentsShown = "";
function drawDisk(disk) {
  $("disk").hidden = !disk;
  if (!disk) return;
  const notes = [`on disk, ${count(disk.entries)} ${disk.entries === 1 ? "page" : "pages"}`, `${count(disk.commits)} commits`];
  if (disk.dirty) notes.push(`${count(disk.dirty)} not written yet`);
  if (disk.not_written) notes.push(`${count(disk.not_written)} dropped`);
  if (disk.set_aside) notes.push("a broken file was set aside");
  if (disk.trouble) notes.push("out of use");
  text("disk-bytes", size(disk.bytes_used));
  text("disk-note", notes.join(", "));
}

function drawShared(shared) {
  $("shared").hidden = !shared;
  if (!shared) return;
  const notes = [`${count(shared.written)} shared`, `${count(shared.hits)} found there`];
  if (shared.dropped) notes.push(`${count(shared.dropped)} dropped`);
  if (!shared.connected) notes.push("the server is away");
  text("shared-boxes", shared.boxes === 1 ? "1 box" : `${count(shared.boxes)} boxes`);
  text("shared-note", notes.join(", "));
}

function drawRoutes(routes) {
  const shape = JSON.stringify(routes);
  if (shape === routesShown) return;
  routesShown = shape;
  if (!routes.length) return;
  $("routes").replaceChildren(...routes.map((one) => {
    const row = make("tr"), ill = one.state === "OPEN";
    row.append(make("td", one.route), make("td", one.state || "", ill ? "bad" : "muted"), make("td", wait(one.p50_ms)),
      make("td", wait(one.p99_ms)), make("td", count(one.requests)), make("td", count(one.errors), one.errors ? "bad" : "muted"));
    return row;
  }));
}
function drawBusiest(pages) {
  if (!pages.length) return;
  $("busiest").replaceChildren(...pages.map((one) => {
    const row = make("tr");
    row.append(make("td", one.url, "url"), make("td", one.places < 0.05 ? "<0.1" : tenth.format(one.places)), make("td", `${Math.round(100 * one.share)} %`));
    return row;
  }));
}
function drawTurns(turns) {
  $("turns").hidden = !turns.sorting;
  if (!turns.sorting) return;
  const part = (of, who) => of === null ? "" : ` ${who} get ${Math.round(100 * of)} % of their requests answered fresh.`;
  text("lanes", `${Object.entries(turns.lanes).map(([lane, one]) => `${count(one.waiting)} ${lane}`).join(", ")} waiting; ${count(turns.clients)} ${turns.clients === 1 ? "client" : "clients"} told apart.`
    + part(turns.fresh_share.visitors, "Visitors") + part(turns.fresh_share.heavy, "Heavy clients"));
  $("heaviest").replaceChildren(...turns.heaviest.map((one) => {
    const row = make("tr");
    row.append(make("td", one.client || one.kind), make("td", one.lane, one.lane === "heavy" ? "bad" : "muted"),
      make("td", one.demand.toFixed(2)), make("td", `${Math.round(100 * one.share)} %`));
    return row;
  }));
}
function drawWorkers(workers) {
  $("workers").hidden = !workers.length;
  $("worker-rows").replaceChildren(...workers.map((one) => {
    const row = make("tr"), name = make("th", String(one.worker)), since = make("td");
    name.scope = "row";
    if (one.leads) name.append(" ", make("b", "leads"));
    const time = timed(one.since), age = Date.now() / 1000 - one.since;
    if (age > 86400) time.textContent = new Date(one.since * 1000).toLocaleDateString("en-GB", {day: "numeric", month: "short"});
    since.append(time);
    row.append(name, make("td", String(one.pid)), make("td", rate(one.requests_rate)), make("td", count(one.in_flight)),
      since, make("td", count(one.restarts), one.restarts ? "" : "muted"));
    return row;
  }));
}
const sum = (one, kind) => one.gets[kind] + one.others[kind];
const BAD = [["refused", "got a 503"], ["failed", "got an error"], ["gave_up", "gave up"]];
const answersSaved = (n) => `${count(n)} ${n === 1 ? "answer" : "answers"} saved by RETTER`;
const lastedOf = (one) => length(one.lasted_s) + (one.ended ? "" : one.calm ? ", calm now" : " so far");
const causesOf = (one) => one.causes.length < 2 ? one.cause
  : one.causes.map((cause) => `For ${length(cause.lasted_s)}: ${cause.now}`).join(" ");
function drawIncidents(incidents) {
  const shape = JSON.stringify(incidents);
  if (shape === incidentsShown || !incidents.length) return;
  incidentsShown = shape;
  const spared = incidents.reduce((sum, one) => sum + one.spared, 0);
  text("spared", `${answersSaved(spared)} in ${incidents.length === 1 ? "one incident" : `the last ${incidents.length} incidents`}`);
  $("incidents").replaceChildren(...incidents.slice().reverse().map((one) => {
    const item = make("li"), time = timed(one.began);
    const lasted = make("span", lastedOf(one), "to");
    lasted.dataset.tone = one.tone;
    const bad = BAD.filter(([kind]) => sum(one, kind)).map(([kind, words]) => `${count(sum(one, kind))} ${words}`);
    const words = make("span", "", "words");
    words.append(make("b", answersSaved(one.spared)), bad.length ? `, ${bad.join(", ")}. ` : ". ", `${causesOf(one)} `);
    const more = make("a", "Look closer");
    more.href = `#incident-${one.number}`;
    more.setAttribute("aria-label", `Look closer at the incident of ${clock(one.began)}`);
    words.append(more);
    item.append(time, lasted, words);
    return item;
  }));
}
function timed(at) {
  const time = make("time", clock(at), "muted");
  time.dateTime = new Date(at * 1000).toISOString();
  time.title = new Date(at * 1000).toLocaleString("en-GB");
  return time;
}
function changeOf(one) {
  const item = make("li"), to = make("span", one.to, "to");
  to.dataset.state = one.to;
  const often = one.times > 1 ? ` (${count(one.times)} times since ${clock(one.first_at)})` : "";
  item.append(timed(one.at), to, make("span", one.words + often, "words"));
  return item;
}

// One incident has a page of its own: what comes after # in the address names it.
let asked = 0;    // incidents, by this page: only the answer about the last one is shown
async function showIncident() {
  const mine = ++asked;
  const number = /^#incident-([0-9]+)$/.exec(location.hash)?.[1];
  $("incident").hidden = !number;
  $("present").hidden = Boolean(number);
  if (!number) return;
  text("incident-title", "Looking it up");
  let found;
  try { found = await call(`api/incidents?number=${number}`); }
  catch (error) { found = error; }
  if (mine !== asked) return;
  if (found instanceof Error) { text("incident-title", found.message); return; }
  const {incident: one, changes, history} = found;
  $("incident-row").parentElement.parentElement.dataset.tone = one.tone;
  text("incident-row", one.causes.find((cause) => cause.now === one.cause)?.row || one.rows[0]);
  const began = new Date(one.began * 1000).toLocaleString("en-GB");
  text("incident-when", one.ended ? `${began}, for ${length(one.lasted_s)}` : `since ${began}, for ${lastedOf(one)}`);
  text("incident-title", one.cause);
  const got = (answers) => share(answers.fresh + answers.stored, KINDS.reduce((all, kind) => all + answers[kind], 0));
  const figures = [["Answers saved by RETTER", count(one.spared)], ["GETs got a page", got(one.gets)], ["Other methods got an answer", got(one.others)],
    ...KINDS.map((kind) => [NAMES[kind][0].toUpperCase() + NAMES[kind].slice(1), count(sum(one, kind))])];
  $("incident-figures").replaceChildren(...figures.map(([name, value]) => {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", value));
    return pair;
  }));
  drawPast(rowsOf(history, history.until), history.step_s);
  $("incident-course").replaceChildren(...one.course.map((at) => {
    const item = make("li"), row = make("span", at.row, "to");
    row.dataset.tone = at.tone;
    item.append(timed(at.at), row, make("span", [at.now, at.you].join(" ").replaceAll("`", ""), "words"));
    return item;
  }));
  $("incident-changes").replaceChildren(...(changes.length ? changes.map(changeOf) : [make("li", "Nothing that is still remembered", "muted")]));
  $("incident").focus();
}
function drawPast(rows, step) {
  const from = rows.length ? rows[0].at - step : 0, to = rows.length ? rows.at(-1).at : 1;
  const place = (at) => 300 * (at - from) / (to - from), runs = pieces(rows, 1.5 * step);
  for (const [kinds, id, axis] of [[GOOD, "incident-good", "incident-top"], [ILL, "incident-bad", "incident-bad-top"]]) {
    const all = (one) => kinds.reduce((whole, kind) => whole + one[kind], 0), most = Math.max(0, ...rows.map(all)), top = nice(Math.max(1, most));
    drawAreas(kinds, top, rows, runs, place, "past-");
    text(axis, rows.length ? `${count(top)} a second` : "");
    $(id).setAttribute("aria-label", rows.length ? `${kinds.map((kind) => NAMES[kind]).join(", ")}: at most ${rate(most)} a second` : "No figures are kept");
  }
  text("incident-from", rows.length ? clock(from) : "");
  text("incident-to", rows.length ? clock(to) : "");
}
addEventListener("hashchange", showIncident);

function drawEvents(events) {
  const shape = JSON.stringify(events);
  if (shape === eventsShown || !events.length) return;
  eventsShown = shape;
  $("events").replaceChildren(...events.slice().reverse().map(changeOf));
}

// Talking to RETTER

const KEY = "retter-token";    // of this tab and no longer: sessionStorage
let token = "";
try { token = sessionStorage.getItem(KEY) || ""; } catch { /* storage is switched off: memory only */ }
const headers = (more = {}) => token ? {...more, Authorization: `Bearer ${token}`} : more;

let asking = null;
function askToken() {
  if (asking) return asking;
  asking = new Promise((done) => {
    text("token-words", token ? "This token is wrong. The right one was set with --admin-token."
      : "This listener requires the token that was set with --admin-token.");
    $("token").value = "";
    $("ask-token").showModal();
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      token = $("token").value.trim();
      try { sessionStorage.setItem(KEY, token); } catch { /* memory only */ }
      $("ask-token").close();
      asking = null;
      done();
    };
  });
  return asking;
}
$("ask-token").addEventListener("cancel", (event) => event.preventDefault());

async function call(path, body) {
  for (;;) {
    const answer = await fetch(path, body === undefined ? {headers: headers(), cache: "no-store"}
      : {method: "POST", headers: headers({"Content-Type": "application/json"}), body: JSON.stringify(body)});
    if (answer.status === 401) { await askToken(); continue; }
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(found.error || `RETTER answered ${answer.status}`);
    return found;
  }
}

function link(kind, words) {
  if (document.body.dataset.link !== kind && kind !== "wait")
    announce(kind === "lost" ? "Connection to RETTER lost" : "Connected to RETTER");
  document.body.dataset.link = $("link").dataset.link = kind;
  text("link-words", words);
  $("again").hidden = kind !== "lost";
}

// Returns whether to ask again at once. EventSource can send no Authorization field, so the stream is read with fetch.
async function listen(heard) {
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), 1000 * SILENCE_S);
  const alive = () => { clearTimeout(timer); timer = setTimeout(() => stop.abort(), 1000 * SILENCE_S); };
  try {
    const answer = await fetch("api/events", {headers: headers({Accept: "text/event-stream"}), cache: "no-store", signal: stop.signal});
    if (answer.status === 401) { clearTimeout(timer); await askToken(); return true; }
    if (!answer.ok) throw new Error(`RETTER answered ${answer.status}`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return false;
      alive();
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) heard(block);
    }
  } finally { clearTimeout(timer); stop.abort(); }
}
function take(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (name === "state" && data.length) draw(JSON.parse(data.join("\n")));
  if (name === "transition") {
    enters(JSON.parse(data.join("\n")).to);    // it may be over before the next state is told
    call("api/state").then(draw, () => { /* the next second tells */ });
  }
}

let hurry = () => {};
$("again").addEventListener("click", () => hurry());
async function stayConnected() {
  for (let failures = 0, lostAt = 0; ;) {
    let trouble = "Connection lost";
    try {
      const atOnce = await listen((block) => {
        take(block);
        failures = lostAt = 0;
        if (document.body.dataset.link !== "live") recall().catch(() => { /* the chart begins empty */ });
        link("live", "Live");
      });
      if (atOnce) continue;
    } catch (error) {
      // Fetch says TypeError for every broken connection, and the watch aborts a silent one.
      if (!(error instanceof TypeError) && !["AbortError", "Error"].includes(error.name)) throw error;
      if (error.name === "Error") trouble = error.message;
    }
    lostAt ||= Date.now() / 1000;
    const pause = RETRY_S[Math.min(failures++, RETRY_S.length - 1)];
    let hurried = false;
    for (let left = pause; left > 0 && !hurried; left--) {
      link("lost", `${trouble} ${length(Date.now() / 1000 - lostAt)} ago; next attempt in ${left} s`);
      await new Promise((done) => {
        const timer = setTimeout(done, 1000);
        hurry = () => { hurried = true; clearTimeout(timer); done(); };
      });
    }
    link("lost", `${trouble}; trying again`);
  }
}

// What the operator decides

function confirmed(title, words, yes) {
  return new Promise((done) => {
    text("confirm-title", title);
    text("confirm-words", words);
    text("confirm-yes", yes);
    let answer = false;
    $("confirm-yes").onclick = () => { answer = true; $("confirm").close(); };
    $("confirm-no").onclick = () => $("confirm").close();
    // The event comes later than the close: that of the question before may still be on its way.
    $("confirm").onclose = () => { if (!$("confirm").open) done(answer); };
    $("confirm").showModal();
  });
}
function answer(words, bad = false) { $("answer").dataset.bad = String(bad); text("answer", words); }
async function act(path, body, words) {
  try {
    await call(path, body);
    answer(words);
  } catch (error) {
    answer(`That did not work: ${error instanceof TypeError ? "RETTER does not answer" : error.message}.`, true);
  }
}
const MODES = {
  open: ["Hold the circuit open", "A GET gets its stored page. GETs without one, and all other methods, still go to the application, within its limit."],
  closed: ["Hold the circuit closed", "Everything is forwarded to the application: RETTER does not protect it from overload."],
  observe: ["Only observe", "Everything is forwarded to the application; RETTER only says what it would do."],
};
const release = () => act("api/circuit", {mode: "auto"}, `The circuit is automatic again since ${clock(Date.now() / 1000)}.`);
$("modes").addEventListener("click", async (event) => {
  const mode = event.target.dataset.mode;
  if (!mode) return;
  if (mode === "auto") { await release(); return; }
  const chosen = $("hold-for"), seconds = Number(chosen.value), [title, words] = MODES[mode];
  if (await confirmed(`${title} for ${chosen.selectedOptions[0].textContent}?`, words, title))
    await act("api/circuit", {mode, seconds}, `In force until ${until(Date.now() / 1000 + seconds)}: ${title.toLowerCase()}.`);
});
$("release").addEventListener("click", release);
$("pause").addEventListener("click", async () => {
  const chosen = $("pause-for"), seconds = Number(chosen.value);
  if (await confirmed(`Pause the application for ${chosen.selectedOptions[0].textContent}?`,
    "It gets no new requests. A GET gets its stored page. GETs without one, and all other methods, are held until you resume or the time is over: 256 requests at most, for 50 seconds each, then they get a 503.", "Pause"))
    await act("api/pause", {seconds}, `Paused until ${clock(Date.now() / 1000 + seconds)}.`);
});
const resume = () => act("api/resume", {}, `Resumed at ${clock(Date.now() / 1000)}.`);
$("resume").addEventListener("click", resume);
$("resume-here").addEventListener("click", resume);

$("why").addEventListener("submit", async (event) => {
  event.preventDefault();
  const show = (pairs) => $("why-answer").replaceChildren(...pairs.map(([name, value]) => {
    const line = make("div");
    const unit = name.endsWith("_s") && value !== null ? " s" : "";
    line.append(make("dt", name.replace(/_s$/, "").replaceAll("_", " ")),
                make("dd", value === true ? "yes" : value === false ? "no" : String(value ?? "–") + unit));
    return line;
  }));
  const flat = (found, under = "") => Object.entries(found).flatMap(([name, value]) =>
    value !== null && typeof value === "object" ? flat(value, `${under}${name}: `) : [[under + name, value]]);
  try {
    const {words, ...rest} = await call(`api/why?as=browser&url=${encodeURIComponent($("why-url").value)}`);
    show([["answer", words], ...flat(rest)]);
  } catch (error) { show([["error", error.message]]); }
});

// What is stored: a part at a time, so that no visitor waits for an operator

let further = 0, looks = 0;    // where to go on; how often was looked: the last look counts
async function lookThrough(skip) {
  const mine = ++looks;
  $("stored-more").hidden = true;
  const query = new URLSearchParams({search: $("stored-search").value, owner: $("stored-owner").value, skip});
  let found;
  try { found = await call(`api/stored?${query}`); }
  catch (error) { found = error; }
  if (mine !== looks) return;
  if (found instanceof Error) {
    text("stored-words", found.message);
    $("stored-more").hidden = !skip;
    return;
  }
  if (!skip) $("stored-rows").replaceChildren();
  $("stored-rows").append(...found.entries.map(storedRow));
  further = found.next;
  $("stored-more").hidden = further === null;
  const lacks = found.complete === false ? "; some pages of a worker are missing" : "";
  text("stored-words", `${count(found.looked_through)} of ${count(found.of)} looked through, the newest first${lacks}`);
}
function storedRow(one) {
  const row = make("tr"), last = make("td"), notes = [];
  if (one.status !== 200) notes.push(`status ${one.status}`);
  if (one.variants > 1) notes.push(`${one.variants} variants`);
  if (one.superseded) notes.push("changed since");
  if (one.withdrawn) notes.push("withdrawn");
  const url = make("td", one.url, "url");
  if (notes.length) url.append(make("span", ` ${notes.join(", ")}`, "muted"));
  const purge = make("button", "Purge", "quiet");
  purge.type = "button";
  purge.setAttribute("aria-label", `Purge ${one.url}`);
  purge.addEventListener("click", async () => {
    if (!await confirmed("Purge this URL?", `${one.url}, for everyone and for all visitors. The next visitor gets it from the application.`, "Purge")) return;
    try {
      const {purged, complete} = await call("api/purge", {url: one.url.startsWith("/") ? one.url : `http://${one.url}`});
      text("stored-words", `${complete ? "" : "at least "}${count(purged)} purged`);
      row.remove();
    } catch (error) { text("stored-words", `That did not work: ${error.message}`); }
  });
  last.append(purge);
  row.append(url, make("td", one.owner === "everyone" ? "everyone" : "one visitor"), make("td", length(one.age_s)), make("td", size(one.bytes)), last);
  return row;
}
$("stored").addEventListener("submit", (event) => { event.preventDefault(); lookThrough(0); });
$("stored-more").addEventListener("click", () => lookThrough(further));

// Light and dark: as the system has it, until the switch says otherwise

const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = "";
try { theme = localStorage.getItem("retter-theme") || ""; } catch { /* not kept */ }
function paint() {
  const now = theme || (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = now;
  text("theme", now === "dark" ? "Light theme" : "Dark theme");
  if (lastRow) drawIcon();
}
$("theme").addEventListener("click", () => {
  theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("retter-theme", theme); } catch { /* not kept */ }
  paint();
});
dark.addEventListener("change", paint);
paint();
$("span").addEventListener("change", () => {
  span = $("span").value;
  older = [];
  recall().catch((error) => answer(`No history: ${error.message}`, true));
});
$("plot").addEventListener("pointermove", point);
$("plot").addEventListener("pointerleave", () => { $("tip").hidden = true; $("cross").setAttribute("d", ""); });
showIncident();
stayConnected();
})();
