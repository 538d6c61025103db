"use strict";
// The study's script: theme, scatter and parallel coordinates linked to each other and to the table of the front.
// It reads the JSON block of its page, builds nodes with textContent only, and asks nothing of any network.
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const number = (v) => Math.abs(v) >= 1e4 || (v && Math.abs(v) < 1e-3) ? v.toExponential(2) : +v.toPrecision(4) + "";

  // A design: its place on each axis, a value an objective of the best claim known, and which claim that is.
  const aims = data.aims, axes = data.axes.filter((a) => a.labels.length > 1);
  const points = data.points.map(([id, state, choices, values]) => ({ id, front: state > 1, simulated: state % 2 === 1, choices, values }));
  const byId = new Map(points.map((p) => [p.id, p]));

  // Columns of the parallel coordinates: choices in their order, then objectives with the better end up.
  function scaled(low, high, log) {
    const f = log ? Math.log10 : (v) => v, a = f(low), b = f(high);
    return (v) => (b > a ? (f(v) - a) / (b - a) : 0.5);
  }
  const columns = axes.map((a) => ({ title: a.name, labels: a.labels, at: (p) => (a.labels.length > 1 ? p.choices[a.index] / (a.labels.length - 1) : 0.5) }));
  const scales = aims.map((aim, j) => {
    const all = points.map((p) => p.values[j]);
    const low = Math.min(...all), high = Math.max(...all), log = low > 0 && high / low > 8;
    const at = scaled(low, high, log);
    return { low, high, log, at };
  });
  aims.forEach((aim, j) => columns.push({
    title: aim.title, objective: j, at: (p) => (aim.maximise ? scales[j].at(p.values[j]) : 1 - scales[j].at(p.values[j])),
    ends: aim.maximise ? [scales[j].low, scales[j].high] : [scales[j].high, scales[j].low],
  }));

  let current = null;
  const ranges = new Map(); // column -> [low, high] in 0..1
  const kept = (p) => { for (const [c, [a, b]] of ranges) { const v = columns[c].at(p); if (v < a - 1e-9 || v > b + 1e-9) return false; } return true; };

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
  const told = (p) => [
    "design " + p.id + (p.front ? ", on the front" : "") + (p.simulated ? ", simulated" : ", estimate"),
    ...aims.map((a, j) => a.title + " " + number(p.values[j]) + (a.unit ? " " + a.unit : "")),
    axes.map((a) => a.name + " " + a.labels[p.choices[a.index]]).join(", "),
  ].join("\n");

  function sized(canvas) {
    const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    canvas.width = Math.round(box.width * ratio); canvas.height = Math.round(box.height * ratio);
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, box.width, box.height);
    g.font = "12px system-ui, sans-serif";
    return [g, box.width, box.height];
  }

  // Scatter.
  const scatter = $("scatter");
  let places = [];
  function ticks(s) {
    const out = [];
    if (s.log) {
      for (let d = Math.floor(Math.log10(s.low)); d <= Math.log10(s.high); d++) for (const m of [1, 2, 5]) { const v = m * 10 ** d; if (v >= s.low && v <= s.high) out.push(v); }
      return out;
    }
    const step0 = (s.high - s.low) / 5 || 1, e = 10 ** Math.floor(Math.log10(step0)), step = [1, 2, 5, 10].map((m) => m * e).find((m) => m >= step0);
    for (let v = Math.ceil(s.low / step) * step; v <= s.high + 1e-12; v += step) out.push(v);
    return out;
  }
  function drawScatter() {
    const [g, w, h] = sized(scatter), i = +$("x").value, j = +$("y").value, sx = scales[i], sy = scales[j];
    const left = 70, right = w - 24, top = 18, bottom = h - 46;
    const x = (p) => left + sx.at(p.values[i]) * (right - left), y = (p) => bottom - sy.at(p.values[j]) * (bottom - top);
    g.strokeStyle = colour("line"); g.fillStyle = colour("soft"); g.lineWidth = 1; g.textAlign = "center";
    for (const t of ticks(sx)) { const at = left + sx.at(t) * (right - left); g.beginPath(); g.moveTo(at, top); g.lineTo(at, bottom); g.stroke(); g.fillText(number(t), at, bottom + 18); }
    g.textAlign = "right";
    for (const t of ticks(sy)) { const at = bottom - sy.at(t) * (bottom - top); g.beginPath(); g.moveTo(left, at); g.lineTo(right, at); g.stroke(); g.fillText(number(t), left - 8, at + 4); }
    g.textAlign = "center"; g.fillStyle = colour("ink");
    const label = (a) => a.title + (a.unit ? ", " + a.unit : "") + (a.maximise ? " (more is better)" : "");
    g.fillText(label(aims[i]), (left + right) / 2, h - 10);
    g.save(); g.translate(14, (top + bottom) / 2); g.rotate(-Math.PI / 2); g.fillText(label(aims[j]), 0, 0); g.restore();
    places = [];
    const layer = (p) => (p.front ? 2 : p.simulated ? 1 : 0);
    for (const p of [...points].sort((a, b) => layer(a) - layer(b))) {
      const in_ = kept(p), px = x(p), py = y(p);
      if (in_) places.push([px, py, p]);
      g.globalAlpha = in_ ? 1 : 0.12;
      g.beginPath(); g.arc(px, py, p.front ? 5 : p.simulated ? 4 : 2.6, 0, 2 * Math.PI);
      if (p.front) { g.fillStyle = colour("dwc"); g.fill(); } else if (p.simulated) { g.fillStyle = colour("conv"); g.fill(); } else { g.strokeStyle = colour("faint"); g.globalAlpha *= 0.75; g.stroke(); }
      if (p.front && !p.simulated) { g.fillStyle = colour("card"); g.beginPath(); g.arc(px, py, 2.2, 0, 2 * Math.PI); g.fill(); }
    }
    g.globalAlpha = 1;
    if (current) { g.strokeStyle = colour("ink"); g.lineWidth = 2; g.beginPath(); g.arc(x(current), y(current), 8, 0, 2 * Math.PI); g.stroke(); }
    const n = points.filter(kept).length;
    $("shown").textContent = n + " of " + points.length + " designs";
    $("clear").hidden = !ranges.size;
  }

  // Parallel coordinates.
  const parallel = $("parallel");
  let frame = { left: 0, step: 1, top: 0, bottom: 1 };
  function drawParallel() {
    const [g, w, h] = sized(parallel), left = 60, right = w - 60, top = 46, bottom = h - 34;
    const step = columns.length > 1 ? (right - left) / (columns.length - 1) : 0;
    frame = { left, step, top, bottom };
    const y = (c, p) => bottom - columns[c].at(p) * (bottom - top);
    const line = (p) => { g.beginPath(); columns.forEach((c, k) => (k ? g.lineTo(left + k * step, y(k, p)) : g.moveTo(left, y(0, p)))); g.stroke(); };
    const faded = Math.max(0.05, Math.min(0.5, 40 / points.length));
    for (const p of points) if (!p.front) { g.lineWidth = 1; g.strokeStyle = colour(p.simulated ? "conv" : "faint"); g.globalAlpha = kept(p) ? (p.simulated ? 0.4 : faded) : 0.02; line(p); }
    for (const p of points) if (p.front) { g.lineWidth = 1.6; g.strokeStyle = colour("dwc"); g.globalAlpha = kept(p) ? 0.85 : 0.06; line(p); }
    g.globalAlpha = 1;
    if (current) { g.lineWidth = 3; g.strokeStyle = colour("ink"); line(current); }
    columns.forEach((c, k) => {
      const x = left + k * step, align = k === 0 ? "left" : k === columns.length - 1 ? "right" : "center";
      g.strokeStyle = colour("faint"); g.lineWidth = 1; g.beginPath(); g.moveTo(x, top); g.lineTo(x, bottom); g.stroke();
      g.textAlign = "center"; g.fillStyle = colour("ink");
      g.fillText(cut(g, c.title, Math.max(40, step - 8)), x, (k % 2 ? 30 : 14));
      g.fillStyle = colour("soft");
      if (c.labels) c.labels.forEach((label, n) => { if (c.labels.length <= 9 || n % Math.ceil(c.labels.length / 9) === 0) { const py = bottom - (n / (c.labels.length - 1)) * (bottom - top); g.textAlign = "left"; halo(g, cut(g, label, Math.max(30, step - 12)), x + 5, py + 4); } });
      else { g.textAlign = align; halo(g, number(c.ends[1]), x, top - 4); halo(g, number(c.ends[0]), x, bottom + 16); }
      const r = ranges.get(k);
      if (r) { g.fillStyle = colour("dwc"); g.globalAlpha = 0.28; g.fillRect(x - 8, bottom - r[1] * (bottom - top), 16, Math.max(2, (r[1] - r[0]) * (bottom - top))); g.globalAlpha = 1; }
    });
  }
  function halo(g, text, x, y) { g.save(); g.strokeStyle = colour("card"); g.lineWidth = 3; g.strokeText(text, x, y); g.restore(); g.fillText(text, x, y); }
  function cut(g, text, width) { while (text.length > 3 && g.measureText(text).width > width) text = text.slice(0, -2) + "…"; return text; }
  const draw = () => { drawScatter(); drawParallel(); };

  // One design at a time is marked, in both drawings and in the table.
  const body = $("table").tBodies[0];
  const rows = new Map([...body.rows].map((row) => [+row.dataset.number, row]));
  function choose(p) {
    if (p === current) return;
    rows.get(current?.id)?.classList.remove("here");
    current = p;
    rows.get(p?.id)?.classList.add("here");
    draw();
  }
  scatter.addEventListener("pointermove", (e) => {
    let best = null, least = 144;
    for (const [x, y, p] of places) { const d = (x - e.offsetX) ** 2 + (y - e.offsetY) ** 2; if (d <= least) { least = d; best = p; } }
    choose(best);
    say(best ? told(best) : "", e.clientX, e.clientY);
  });
  for (const canvas of [scatter, parallel]) canvas.addEventListener("pointerleave", () => { if (!drag) choose(null); say(""); });
  scatter.addEventListener("click", () => focusRow(rows.get(current?.id)));
  for (const [id, row] of rows) {
    row.addEventListener("pointerenter", () => choose(byId.get(id)));
    row.addEventListener("pointerleave", () => choose(null));
    row.addEventListener("focus", () => choose(byId.get(id)));
  }
  function focusRow(row) {
    if (!row) return;
    for (const other of rows.values()) other.tabIndex = -1;
    row.tabIndex = 0; row.focus(); row.scrollIntoView({ block: "nearest" });
  }
  body.addEventListener("keydown", (e) => {
    const list = [...body.rows], at = list.indexOf(document.activeElement), to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: list.length - 1 }[e.key];
    if (at < 0 || to === undefined) return;
    e.preventDefault();
    focusRow(list[Math.max(0, Math.min(to, list.length - 1))]);
  });

  // Ranges: drag along an axis; a click without a drag drops that axis' range.
  let drag = null;
  const level = (y) => Math.max(0, Math.min(1, (frame.bottom - y) / (frame.bottom - frame.top)));
  parallel.addEventListener("pointerdown", (e) => {
    const k = Math.round((e.offsetX - frame.left) / (frame.step || 1));
    if (k < 0 || k >= columns.length || Math.abs(e.offsetX - frame.left - k * frame.step) > 24) return;
    drag = { k, from: level(e.offsetY) };
    if (e.isTrusted) parallel.setPointerCapture(e.pointerId);
  });
  parallel.addEventListener("pointermove", (e) => {
    if (drag) { const to = level(e.offsetY); ranges.set(drag.k, [Math.min(drag.from, to), Math.max(drag.from, to)]); draw(); return; }
    // The nearest line where the pointer is.
    const t = (e.offsetX - frame.left) / (frame.step || 1), a = Math.max(0, Math.min(columns.length - 1, Math.floor(t))), b = Math.min(columns.length - 1, a + 1), f = t - a, v = level(e.offsetY);
    let best = null, least = 0.02;
    for (const p of points) { if (!kept(p)) continue; const d = Math.abs(columns[a].at(p) * (1 - f) + columns[b].at(p) * f - v) * (p.front ? 0.7 : 1); if (d < least) { least = d; best = p; } }
    choose(best);
    say(best ? told(best) : "", e.clientX, e.clientY);
  });
  addEventListener("pointerup", () => { if (drag) { const r = ranges.get(drag.k); if (!r || r[1] - r[0] < 0.01) ranges.delete(drag.k); drag = null; draw(); } });
  $("clear").addEventListener("click", () => { ranges.clear(); draw(); });
  for (const id of ["x", "y"]) $(id).addEventListener("change", draw);

  // Sorting, by the exact value behind a number.
  const heads = [...$("table").tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => { const cell = row.cells[column], exact = cell.querySelector("data"), text = cell.textContent.trim(); return exact ? +exact.value : text !== "" && isFinite(text) ? +text : text; };
    const list = [...body.rows].sort((p, q) => { const a = key(p), b = key(q); return (falling ? -1 : 1) * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true })); });
    body.append(...list);
  }));

  // Theme: the system's until somebody presses the button.
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("resize", draw);
  draw();
})();
