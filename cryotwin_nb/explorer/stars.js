// Points on a canvas; stars, path and labels as SVG above it. Scroll to zoom, drag to move, double-click to reset.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 26;

function element(parent, name, attributes = {}, text = "") {
  const made = parent.namespaceURI === SVG || name === "svg"
    ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function niceLength(longest) {
  const power = 10 ** Math.floor(Math.log10(longest));
  return power * (longest / power >= 5 ? 5 : longest / power >= 2 ? 2 : 1);
}

function render({ model, el }) {
  el.classList.add("cryotwin-stars");
  element(el, "style", {}, `.cryotwin-still-${model.get("still")} { display: none !important }`);  // live view
  const frame = element(el, "div", { class: "cryotwin-frame" });
  const canvas = element(frame, "canvas");
  const svg = element(frame, "svg");
  const tip = element(frame, "div", { class: "cryotwin-tip" });
  const hint = element(el, "div", { class: "cryotwin-hint" });
  const legend = element(el, "div", { class: "cryotwin-legend" });
  const zoom = { scale: 1, x: 0, y: 0 };
  let choosing = "start";

  const numbers = (name, Kind) => {
    const bytes = model.get(name);
    return new Kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  };

  // transform from plane coordinates to pixels of the frame: equal scales, y up
  function view() {
    const { clientWidth: width, clientHeight: height } = frame;
    const [left, bottom, right, top] = model.get("extent");
    const across = Math.max(right - left, 1e-9), up = Math.max(top - bottom, 1e-9);
    const scale = zoom.scale * Math.min((width - 2 * MARGIN) / across, (height - 2 * MARGIN) / up);
    return {
      width, height, scale,
      x: (x) => width / 2 + zoom.x + (x - (left + right) / 2) * scale,
      y: (y) => height / 2 + zoom.y - (y - (bottom + top) / 2) * scale,
    };
  }

  function drawPoints(v) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = v.width * ratio;
    canvas.height = v.height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const points = numbers("points", Float32Array), colours = numbers("colours", Uint8Array);
    const size = points.length > 3000 ? 2.4 : 3.2;
    for (let i = 0; i < points.length / 2; i++) {
      pen.fillStyle = `rgba(${colours[3 * i]},${colours[3 * i + 1]},${colours[3 * i + 2]},0.6)`;
      pen.fillRect(v.x(points[2 * i]) - size / 2, v.y(points[2 * i + 1]) - size / 2, size, size);
    }
  }

  function drawAxes(v) {
    const [across, up] = model.get("axes");
    element(svg, "text", { x: v.width / 2, y: v.height - 7, class: "axis" }, across);
    element(svg, "text", { x: 0, y: 0, class: "axis", transform: `translate(14 ${v.height / 2}) rotate(-90)` }, up);
    const unit = model.get("unit");
    if (!unit) return;
    const length = niceLength(v.width / 4 / v.scale), pixels = length * v.scale;
    element(svg, "line", { x1: v.width - 14 - pixels, x2: v.width - 14, y1: 14, y2: 14, class: "bar" });
    element(svg, "text", { x: v.width - 14, y: 28, class: "scale" }, `${+length.toPrecision(2)} ${unit}`);
  }

  function drawPath(v) {
    const curve = model.get("curve"), steps = model.get("steps");
    if (!curve.length) return;
    const line = curve.map(([x, y]) => `${v.x(x)},${v.y(y)}`).join(" ");
    element(svg, "polyline", { points: line, class: "halo" });
    element(svg, "polyline", { points: line, class: "path" });
    steps.forEach(([x, y], k) => element(svg, "circle", {
      cx: v.x(x), cy: v.y(y), r: 3, class: "step", "data-step": k,
    }));
  }

  function drawCurrentStep(v) {
    const here = model.get("steps")[model.get("step")];
    if (here) element(svg, "circle", { cx: v.x(here[0]), cy: v.y(here[1]), r: 7, class: "current" });
  }

  function drawStars(v) {
    const start = model.get("start"), end = model.get("end"), stars = model.get("stars");
    const order = stars.map((_, i) => i).sort((a, b) => stars[b].size - stars[a].size);  // small ones on top
    for (const i of order) {
      const star = stars[i], role = i === start ? "start" : i === end ? "end" : "";
      const mark = element(svg, "text", {
        x: v.x(star.x), y: v.y(star.y), class: `star ${role}`, "font-size": star.size + (role ? 8 : 0),
        "data-i": i, tabindex: 0, role: "button", "aria-label": star.tip,
      }, "★");
      const choose = () => {
        const other = model.get(choosing === "start" ? "end" : "start");
        if (i === other) return;
        model.set(choosing, i);
        choosing = choosing === "start" ? "end" : "start";
        model.save_changes();
        draw();
      };
      mark.addEventListener("click", choose);
      mark.addEventListener("keydown", (event) => event.key === "Enter" && choose());
      mark.addEventListener("pointerenter", () => showTip(v.x(star.x), v.y(star.y), star.tip));
      mark.addEventListener("pointerleave", () => { tip.style.display = "none"; });
    }
    for (const i of order) {
      const star = stars[i], role = i === start ? "start" : i === end ? "end" : "";
      const label = role ? `${role}: ${star.name || i}` : star.label;
      if (!label) continue;
      const x = Math.min(Math.max(v.x(star.x), 30), v.width - 30);
      element(svg, "text", {
        x, y: v.y(star.y) - star.size / 2 - (role ? 8 : 3), class: `label ${role}`, "text-anchor": "middle",
      }, label);
    }
  }

  function showTip(x, y, text) {
    tip.textContent = text;
    tip.style.display = "block";
    tip.style.left = `${Math.min(x + 10, frame.clientWidth - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(y - tip.offsetHeight - 10, 2)}px`;
  }

  function drawLegend() {
    const { title = "", entries, low, high, ramp } = model.get("legend");
    legend.replaceChildren();
    element(legend, "span", { class: "title" }, title);
    if (ramp) {
      element(legend, "span", {}, low);
      element(legend, "span", { class: "ramp", style: `background: linear-gradient(to right, ${ramp.join(",")})` });
      element(legend, "span", {}, high);
    }
    for (const [name, colour] of entries || []) {
      element(element(legend, "span", { class: "entry" }), "i", { style: `background: ${colour}` });
      legend.lastChild.append(name);
    }
    hint.textContent = `Click a star to set the ${choosing}. Scroll to zoom, drag to move.`;
  }

  function draw() {
    const v = view();
    if (v.width < 2) return;
    svg.replaceChildren();
    drawPoints(v);
    drawAxes(v);
    drawPath(v);
    drawStars(v);
    drawCurrentStep(v);  // above the stars, so that they do not hide it
    drawLegend();
  }

  frame.addEventListener("wheel", (event) => {
    event.preventDefault();
    const factor = Math.exp(-event.deltaY / 400), { left, top } = frame.getBoundingClientRect();
    const x = event.clientX - left - frame.clientWidth / 2, y = event.clientY - top - frame.clientHeight / 2;
    const scale = Math.min(40, Math.max(1, zoom.scale * factor)), grown = scale / zoom.scale;
    Object.assign(zoom, { scale, x: x - grown * (x - zoom.x), y: y - grown * (y - zoom.y) });
    draw();
  }, { passive: false });
  frame.addEventListener("dblclick", () => { Object.assign(zoom, { scale: 1, x: 0, y: 0 }); draw(); });
  frame.addEventListener("pointerdown", (down) => {
    if (down.target.classList.contains("star")) return;
    const from = { x: zoom.x - down.clientX, y: zoom.y - down.clientY };
    const move = (event) => { zoom.x = from.x + event.clientX; zoom.y = from.y + event.clientY; draw(); };
    const up = () => { window.removeEventListener("pointermove", move); window.removeEventListener("pointerup", up); };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", up);
  });

  const names = ["points", "colours", "stars", "extent", "axes", "unit", "curve", "steps", "step", "legend"];
  const events = [...names, "start", "end"].map((name) => `change:${name}`).join(" ");
  let waiting = 0;
  const drawSoon = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); };
  model.on(events, drawSoon);
  const watcher = new ResizeObserver(drawSoon);
  watcher.observe(frame);
  return () => { watcher.disconnect(); model.off(events, drawSoon); };
}

export default { render };
