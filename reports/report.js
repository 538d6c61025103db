"use strict";
// The report's script: theme, table, links between drawings and table, timeline. It reads the two JSON blocks of its
// page, builds nodes with textContent only, and asks nothing of any network.
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const whole = (n) => Math.round(n).toLocaleString("en");

  // Theme: the system's until somebody presses the button.
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    draw();
  });

  // Tip.
  const tip = $("tip");
  function say(text, x, y) {
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18) + "px";
  }

  // One layer at a time is marked: in the table and in every drawing.
  const body = $("table").tBodies[0];
  const rows = new Map([...body.rows].map((row) => [row.dataset.layer, row]));
  const marks = new Map();
  for (const mark of document.querySelectorAll("svg .mark")) {
    const title = mark.querySelector("title");
    mark.dataset.said = title.textContent;
    title.remove(); // the tip below says it sooner than the browser's
    if (!marks.has(mark.dataset.layer)) marks.set(mark.dataset.layer, []);
    marks.get(mark.dataset.layer).push(mark);
  }
  let current = null;
  function choose(layer) {
    if (layer === current) return;
    for (const mark of marks.get(current) || []) { mark.classList.remove("here"); mark.ownerSVGElement.classList.remove("one"); }
    rows.get(current)?.classList.remove("here");
    current = layer;
    for (const mark of marks.get(layer) || []) { mark.classList.add("here"); mark.ownerSVGElement.classList.add("one"); }
    rows.get(layer)?.classList.add("here");
  }
  for (const list of marks.values()) for (const mark of list) {
    mark.addEventListener("pointermove", (e) => { choose(mark.dataset.layer); say(mark.dataset.said, e.clientX, e.clientY); });
    mark.addEventListener("pointerleave", () => { choose(null); say(""); });
    mark.addEventListener("click", () => focusRow(rows.get(mark.dataset.layer)));
  }
  for (const [layer, row] of rows) {
    row.addEventListener("pointerenter", () => choose(layer));
    row.addEventListener("pointerleave", () => choose(null));
    row.addEventListener("focus", () => choose(layer));
  }
  function focusRow(row) {
    if (!row) return;
    for (const other of rows.values()) other.tabIndex = -1;
    row.tabIndex = 0;
    row.focus();
    row.scrollIntoView({ block: "nearest" });
  }
  body.addEventListener("keydown", (e) => {
    const visible = [...body.rows].filter((row) => !row.hidden);
    const at = visible.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: visible.length - 1 }[e.key];
    if (at < 0 || to === undefined) return;
    e.preventDefault();
    focusRow(visible[Math.max(0, Math.min(to, visible.length - 1))]);
  });

  // Sorting: numbers by the exact value behind them, names as a reader would; equal rows keep their order.
  const heads = [...$("table").tHead.rows[0].cells];
  function key(row, column) {
    const cell = row.cells[column], exact = cell.querySelector("data");
    if (exact) return exact.value === "inf" ? Infinity : Number(exact.value);
    const text = cell.textContent.trim();
    return text !== "" && !isNaN(text) ? Number(text) : text.toLowerCase();
  }
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("n");
      const up = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : !numeric || column === 0;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = [...body.rows].map((row) => [key(row, column), row]);
      order.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1));
      body.append(...order.map(([, row]) => row));
    });
  });
  const filter = $("filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = [1, 2, 3, 7].map((i) => row.cells[i].textContent.toLowerCase()).join(" ");
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    $("shown").textContent = words.length ? `${shown} of ${body.rows.length} layers` : "";
  });

  // Timeline: one lane an engine, and the DRAM rate below.
  const canvas = $("canvas"), pen = canvas.getContext("2d");
  const LEFT = 66, RIGHT = 14, TOP = 10, LANE = 32, GAP = 8, AXIS = 26;
  const tracks = data.tracks;
  if (!tracks.length) return;
  for (const track of tracks) { // neighbouring layers in two shades
    let shade = 0;
    track.shade = track.layer.map((layer, i) => (i && layer !== track.layer[i - 1] ? (shade ^= 1) : shade));
  }
  canvas.parentElement.hidden = false;
  let from = 0, to = data.cycles;
  const lanes = tracks.length * (LANE + GAP);
  const height = TOP + lanes + (data.rate ? 70 : 0) + AXIS;
  canvas.style.height = height + "px";
  const x = (cycle) => LEFT + ((cycle - from) / (to - from)) * (canvas.clientWidth - LEFT - RIGHT);
  const cycleAt = (px) => from + ((px - LEFT) / (canvas.clientWidth - LEFT - RIGHT)) * (to - from);
  function first(list, value) { // first slice that may reach `value`
    let lo = 0, hi = list.length;
    while (lo < hi) { const mid = (lo + hi) >> 1; if (list[mid] < value) lo = mid + 1; else hi = mid; }
    return Math.max(0, lo - 1);
  }
  function draw() {
    if (!data.tracks.length) return; // the theme button may ask before there is anything to draw
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const ink = colour("ink"), soft = colour("soft"), faint = colour("faint"), line = colour("line"), inside = colour("inside");
    const face = getComputedStyle(document.body).fontFamily;
    pen.textBaseline = "middle";
    // Axis: steps of 1, 2 or 5.
    const target = (to - from) / Math.max(3, width / 130), power = 10 ** Math.floor(Math.log10(Math.max(target, 1)));
    const step = Math.max(1, [1, 2, 5, 10].map((m) => m * power).find((s) => s >= target));
    pen.font = "11px " + face;
    pen.textAlign = "center";
    for (let c = Math.ceil(from / step) * step; c <= to; c += step) {
      pen.fillStyle = line;
      pen.fillRect(Math.round(x(c)), TOP, 1, height - TOP - AXIS + 4);
      pen.fillStyle = faint;
      pen.fillText(whole(c), Math.min(Math.max(x(c), LEFT + 10), width - 34), height - AXIS / 2);
    }
    pen.textAlign = "right";
    pen.fillText("cycle", LEFT - 12, height - AXIS / 2);
    tracks.forEach((track, lane) => {
      const y = TOP + lane * (LANE + GAP);
      pen.fillStyle = soft;
      pen.font = "600 11px " + face;
      pen.textAlign = "right";
      pen.fillText(track.engine.toUpperCase(), LEFT - 12, y + LANE / 2);
      const base = colour(track.engine);
      pen.save();
      pen.beginPath();
      pen.rect(LEFT, y, width - LEFT - RIGHT, LANE);
      pen.clip();
      pen.textAlign = "left";
      pen.font = "11px " + face;
      for (let i = first(track.start, from); i < track.start.length && track.start[i] <= to; i++) {
        const a = x(track.start[i]), b = x(track.start[i] + track.length[i]), wide = Math.max(b - a, 0.6);
        pen.globalAlpha = track.shade[i] ? 0.76 : 1;
        pen.fillStyle = base;
        pen.fillRect(a, y, wide > 3 ? wide - 0.7 : wide, LANE);
        pen.globalAlpha = 1;
        const name = data.layers[track.layer[i]];
        if (wide > 44 && name) {
          const at = Math.max(a, LEFT) + 6, room = Math.min(b, width - RIGHT) - at - 4, fits = Math.floor(room / 6.2);
          pen.fillStyle = inside;
          if (fits > 4) pen.fillText(name.length > fits ? name.slice(0, fits - 1) + "…" : name, at, y + LANE / 2 + 0.5);
        }
      }
      pen.restore();
    });
    if (data.rate) drawRate(TOP + lanes, 62, width, soft, faint, face);
    const ms = (n) => (n / data.clock_mhz / 1e3).toPrecision(4);
    $("window").textContent = `Cycles ${whole(from)} to ${whole(to)}, ${ms(to - from)} ms of ${ms(data.cycles)}.`;
  }
  function drawRate(y, tall, width, soft, faint, face) {
    const r = data.rate, peak = r.peak || 1, base = y + tall;
    pen.fillStyle = soft;
    pen.font = "600 11px " + face;
    pen.textAlign = "right";
    pen.fillText("DRAM", LEFT - 12, base - tall / 2 - 7);
    pen.font = "10px " + face;
    pen.fillStyle = faint;
    pen.fillText("B/cycle", LEFT - 12, base - tall / 2 + 8);
    pen.textAlign = "left";
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, y, width - LEFT - RIGHT, tall + 2);
    pen.clip();
    const a = Math.max(0, Math.floor(from / r.step) - 1), b = Math.min(r.load.length, Math.ceil(to / r.step) + 1);
    for (const [kind, under] of [["save", r.load], ["load", null]]) {
      pen.fillStyle = colour(kind);
      pen.beginPath();
      pen.moveTo(x(a * r.step), base);
      for (let i = a; i < b; i++) {
        const v = Math.min(1.15, (r[kind][i] + (under ? under[i] : 0)) / peak);
        pen.lineTo(x(i * r.step), base - v * (tall - 10));
        pen.lineTo(x((i + 1) * r.step), base - v * (tall - 10));
      }
      pen.lineTo(x(b * r.step), base);
      pen.fill();
    }
    pen.restore();
    pen.fillStyle = faint;
    for (let px = LEFT; px < width - RIGHT; px += 6) pen.fillRect(px, base - tall + 10, 3, 1);
    pen.textAlign = "right";
    pen.fillText("peak " + Number(peak.toPrecision(3)) + " B/cycle", width - RIGHT - 2, base - tall + 4);
  }
  function view(a, b) {
    const span = Math.min(data.cycles, Math.max(b - a, 40));
    from = Math.max(0, Math.min(a, data.cycles - span));
    to = from + span;
    draw();
  }
  function zoom(factor, centre) { view(centre - (centre - from) * factor, centre + (to - centre) * factor); }
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    if (Math.abs(e.deltaX) > Math.abs(e.deltaY)) { const d = (e.deltaX / canvas.clientWidth) * (to - from); view(from + d, to + d); }
    else zoom(e.deltaY > 0 ? 1.25 : 0.8, cycleAt(e.offsetX));
  }, { passive: false });
  let drag = null;
  canvas.addEventListener("pointerdown", (e) => { drag = { px: e.clientX, from, to }; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (drag) {
      const d = ((drag.px - e.clientX) / (canvas.clientWidth - LEFT - RIGHT)) * (drag.to - drag.from);
      view(drag.from + d, drag.to + d);
      return say("");
    }
    const lane = Math.floor((e.offsetY - TOP) / (LANE + GAP)), track = tracks[lane], at = cycleAt(e.offsetX);
    if (!track || e.offsetX < LEFT) return say("");
    const i = first(track.start, at + 1), until = track.start[i] + track.length[i];
    if (track.start[i] > at || until < at) { choose(null); return say(""); }
    const many = track.count[i] > 1 ? `${track.count[i]} instructions, busy ${whole(track.busy[i])} cycles` : `${whole(track.busy[i])} cycles`;
    choose(String(track.layer[i] + 1));
    say(`${track.engine.toUpperCase()} · ${data.layers[track.layer[i]] || "no layer"}\ncycles ${whole(track.start[i])} to ${whole(until)}\n${many}`, e.clientX, e.clientY);
  });
  canvas.addEventListener("pointerleave", () => { say(""); choose(null); });
  canvas.addEventListener("keydown", (e) => {
    const d = (to - from) / 6, centre = (from + to) / 2;
    const act = { ArrowLeft: () => view(from - d, to - d), ArrowRight: () => view(from + d, to + d), "+": () => zoom(0.7, centre),
      "=": () => zoom(0.7, centre), "-": () => zoom(1.43, centre), 0: () => view(0, data.cycles), Home: () => view(0, data.cycles) }[e.key];
    if (act) { e.preventDefault(); act(); }
  });
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
