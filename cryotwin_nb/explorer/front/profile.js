// The profile of a path: log density, particles near each step, resolution of half maps; the present step is marked.
const SPACE = "http://www.w3.org/2000/svg";
const LEFT = 56, RIGHT = 14, TOP = 20, MIDDLE = 88, BOTTOM = 128, FOOT = 22, STRIP = 60;

function draw(parent, name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

export class Profile {
  /** @param {HTMLElement} element @param {(step: number) => void} onStep a step was clicked */
  constructor(element, onStep) {
    Object.assign(this, { element, profile: null, support: null, step: 0 });
    this.svg = document.createElementNS(SPACE, "svg");
    this.svg.setAttribute("role", "img");
    this.svg.addEventListener("click", (event) => this.profile && onStep(this.#nearest(event)));
    element.append(this.svg);
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(element);
  }

  /** @param {object | null} profile @param {object | null} support see drawing.py */
  set(profile, support) {
    Object.assign(this, { profile, support });
    this.draw();
  }

  show(step) {
    this.step = step;
    this.draw();
  }

  #nearest(event) {
    const { left } = this.svg.getBoundingClientRect(), x = event.clientX - left;
    return this.here.reduce((best, at, k) => Math.abs(at - x) < Math.abs(this.here[best] - x) ? k : best, 0);
  }

  draw() {
    const { svg, profile, support, step } = this, width = this.element.clientWidth;
    svg.replaceChildren();
    this.element.hidden = !profile;
    if (!profile || width < 100) return;
    const below = support ? STRIP : 0, height = BOTTOM + FOOT + 14 + below;
    for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) svg.setAttribute(name, value);
    const x = (at) => LEFT + (width - LEFT - RIGHT) * at / Math.max(profile.length, 1e-12);
    this.here = profile.at.map(x);
    svg.setAttribute("aria-label", `Profile of the path: log density and particles near its ${this.here.length} steps`);
    const k = Math.min(step, this.here.length - 1);
    draw(svg, "line", { class: "now", x1: this.here[k], x2: this.here[k], y1: TOP, y2: BOTTOM + below });
    this.#density(x, k);
    if (support) this.#resolution(support);
    this.#counts(draw(svg, "g", { transform: `translate(0 ${below})` }), k, width);
  }

  #density(x, k) {
    const { svg, profile } = this, { density } = profile;
    const low = Math.min(...density), high = Math.max(...density);
    const digits = high - low < 1 ? 2 : 1, written = (value) => (Number(value.toFixed(digits)) + 0).toFixed(digits);  // no -0.0
    const y = (value) => MIDDLE - (MIDDLE - TOP) * (value - low) / Math.max(high - low, 1e-12);
    draw(svg, "text", { class: "density", x: LEFT, y: TOP - 8 }, "log density relative to the start (nats)");
    draw(svg, "text", { x: LEFT - 8, y: TOP + 4, "text-anchor": "end" }, written(high));
    draw(svg, "text", { x: LEFT - 8, y: MIDDLE, "text-anchor": "end" }, written(low));
    draw(svg, "line", { class: "axis", x1: LEFT, x2: LEFT, y1: TOP, y2: MIDDLE });
    const across = density.map((value, i) => `${x(profile.length * i / (density.length - 1))},${y(value)}`);
    draw(svg, "polyline", { class: "density", points: across.join(" ") });
    profile.here.forEach((value, i) => draw(svg, "circle", { class: i === k ? "step current" : "step", cx: this.here[i], cy: y(value), r: 4 }));
  }

  #counts(part, k, width) {
    const { counts, radius, length } = this.profile, { here } = this, most = Math.max(1, ...counts);
    const gap = here.length > 1 ? Math.min(...here.slice(1).map((at, i) => at - here[i])) : 40, wide = Math.min(26, 0.7 * gap);
    draw(this.svg, "text", { class: "counts", x: width - RIGHT, y: TOP - 8, "text-anchor": "end" }, `particles within ${Number(radius.toPrecision(2))} latent units`);
    draw(part, "line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: BOTTOM, y2: BOTTOM });
    const apart = Math.ceil(26 / Math.max(gap, 1));  // labels that fit side by side
    counts.forEach((count, i) => {
      const tall = (BOTTOM - MIDDLE - 24) * count / most;
      draw(part, "rect", { class: "counts", x: here[i] - wide / 2, y: BOTTOM - tall, width: wide, height: tall });
      if (i % apart && i !== k) return;
      if (gap >= 14 || i === k) draw(part, "text", { x: here[i], y: BOTTOM - tall - 3, "text-anchor": "middle" }, count);
      draw(part, "text", { class: i === k ? "current" : "", x: here[i], y: BOTTOM + 13, "text-anchor": "middle" }, i);
    });
    draw(part, "text", { x: (LEFT + width - RIGHT) / 2, y: BOTTOM + FOOT + 8, "text-anchor": "middle" }, `step (path length: ${Number(length.toPrecision(3))} latent units)`);
  }

  /** Resolution of the half maps at each step, the finest on top, between the two panels. */
  #resolution({ resolution, images }) {
    const { svg, here } = this, top = MIDDLE + 26, bottom = MIDDLE + STRIP - 8;
    const known = resolution.map((_, i) => i).filter((i) => resolution[i] !== null);
    const values = known.map((i) => resolution[i]), coarse = Math.max(...values), fine = Math.min(...values);
    const y = (value) => bottom - (bottom - top) * (coarse - value) / Math.max(coarse - fine, 1e-12);
    draw(svg, "text", { class: "resolution", x: LEFT, y: MIDDLE + 12 }, "resolution of half maps (Å, FSC 0.143)");
    for (const i of known) {
      const at = here[i], up = y(resolution[i]);
      if (known.includes(i + 1)) draw(svg, "line", { class: "resolution", x1: at, y1: up, x2: here[i + 1], y2: y(resolution[i + 1]) });
      const mark = draw(svg, "polygon", { class: "resolution", points: `${at - 5},${up} ${at},${up - 5} ${at + 5},${up} ${at},${up + 5}` });
      draw(mark, "title", {}, `step ${i}: ${resolution[i].toFixed(1)} Å from ${Math.round(images[i])} images`);
      draw(svg, "text", { x: at, y: up - 7, "text-anchor": "middle" }, resolution[i].toFixed(1));
    }
  }

  dispose() {
    this.watcher.disconnect();
  }
}
