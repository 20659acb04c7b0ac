// The plane: points, stars, path and selection on two canvases. One idea a file: plane_frame (what is shown where),
// plane_points (drawing points), plane_stars (hit test), plane_choice (roles), plane_select (rows inside an outline).

import { Choice } from "./plane_choice.js";
import { Control } from "./plane_control.js";
import { palette } from "./plane_draw.js";
import { apart, flat, visible, whole } from "./plane_frame.js";
import { listen } from "./plane_input.js";
import { drawMarks, PointLayer } from "./plane_layers.js";
import { elements, StarList } from "./plane_list.js";
import { byColour } from "./plane_select.js";
import { radii, shown } from "./plane_stars.js";
import { hintText, outsideText } from "./plane_text.js";
import { View } from "./plane_view.js";

const NO_PATH = { curve: new Float32Array(0), steps: new Float32Array(0), counts: null };

/**
 * @param {HTMLElement} element  is filled with the plane; its height is the plane's
 * @param {object} [on]
 * @param {(star: number, role: "start" | "end" | "way", replaced: number | null) => void} [on.onChoose]  `replaced`: the
 *   star that the click before at the same place took for the same role
 * @param {(star: number | null) => void} [on.onHover]  the star that a click or Enter would take
 * @param {(rows: Uint32Array) => void} [on.onLasso]  empty when the selection is removed
 * @param {(point: {x: number, y: number}, role: "start" | "end" | "way") => void} [on.onPoint]
 * @param {(step: number) => void} [on.onStep]  a step of the path was clicked
 */
export function createPlane(element, on = {}) {
  const parts = elements(element), { root, frame, hint, markCanvas } = parts;
  const scene = {
    points: new Float32Array(0), colours: new Uint8Array(0), stars: [], sizes: [], order: [], small: false,
    axes: ["", ""], unit: "", path: NO_PATH, routes: [], step: -1, stale: false,
    mode: "choose", outline: [], selected: null, hovered: null, active: -1, theme: null,
  };
  const choice = new Choice(), layer = new PointLayer(parts.pointCanvas), list = new StarList(parts);
  const view = new View(frame, scene, choice);
  let waiting = 0, settled = [], names = [];

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;  // screen readers speak a text that changed
  }

  function redraw() {
    waiting ||= requestAnimationFrame(render);
  }

  function render() {
    waiting = 0;
    const { t } = view;
    if (t.width >= 2 && t.height >= 2) {
      const pointsOutside = layer.draw(scene, t);
      names = drawMarks(markCanvas, t, view.places(), scene, choice, frame.matches(":focus-visible"));
      const starsOutside = scene.order.filter((i) => !visible(t, [scene.stars[i].x, scene.stars[i].y])).length;
      write(parts.outside, outsideText(pointsOutside, starsOutside));
      write(hint, hintText(scene, choice.next, frame.matches(":focus")));
    }
    for (const resolve of settled.splice(0)) resolve();
  }

  /** After a change of stars or of what is chosen. */
  function restar() {
    scene.order = shown(scene.stars, choice.chosen(), scene.small);
    if (!scene.order.includes(scene.active)) scene.active = choice.chosen()[0] ?? scene.order[0] ?? -1;
    list.show(scene, choice.roles());
  }

  function refit(again = false) {
    restar();
    view.fit(again);
    redraw();
  }

  function theme(colours = {}) {
    const style = getComputedStyle(root), of = (name) => style.getPropertyValue(`--cryotwin-plane-${name}`).trim();
    scene.theme = palette(colours.text ?? of("ink"), colours.muted ?? of("muted"), colours.background ?? of("paper"));
    redraw();
  }

  const control = new Control(scene, view, choice, parts, list, on, { redraw, refit });
  const deaf = listen(frame, control);
  const watcher = new ResizeObserver(redraw);
  watcher.observe(frame);
  theme();

  return {
    /** All points (n, 2), of any number, and their colours (n, 3); shows the whole plane. Rows are those of `xy`. */
    points(xy, rgb) {
      Object.assign(scene, { points: flat(xy), colours: rgb, outline: [], selected: null });
      layer.edition++;
      refit(true);
    },
    /** Other colours of the same points; the view is kept. */
    colours(rgb) {
      scene.colours = rgb;
      layer.edition++;
      redraw();
    },
    /** @param {import("./plane_stars.js").Star[]} stars */
    stars(stars) {
      Object.assign(scene, { stars, sizes: radii(stars) });
      refit();
    },
    showSmall(small) {
      scene.small = small;
      refit();
    },
    /** Percentiles {low, high} of the points that the frame spans. */
    frame(percentiles = {}) {
      view.percentiles = percentiles;
      refit(true);
    },
    axes(axes, unit = "") {
      Object.assign(scene, { axes: axes.some(Boolean) ? axes : ["embedding", ""], unit });
      redraw();
    },
    /** Path {curve, steps: (m, 2), counts: number of particles near each step}, or null. */
    path(path) {
      const { curve, steps, counts = null } = path ?? NO_PATH;
      scene.path = { curve: flat(curve), steps: flat(steps), counts };
      refit();
    },
    /** Routes [{curve: (m, 2), share, name}], drawn all at once as wide as their shares. */
    routes(routes) {
      const curves = (routes ?? []).map((route) => flat(route.curve));
      const at = (curve) => apart(curve, curves.filter((other) => other !== curve));
      scene.routes = curves.map((curve, r) => ({ ...routes[r], curve, at: at(curve) }));
      refit();
    },
    step(k) {
      scene.step = k;
      redraw();
    },
    /** Ends and way-points: stars, free points {x, y}, or null. */
    ends(ends) {
      choice.set(ends);
      refit();
    },
    /** Role that the next click gives: "start", "end" or "way"; "way" stays until another is set. */
    role(role) {
      choice.next = role;
      choice.last = null;
      redraw();
    },
    stale(stale) {
      scene.stale = stale;
      redraw();
    },
    /** "choose" a star, "lasso" or "box" around points, or any "point". A selection is kept. */
    mode(mode) {
      scene.mode = mode;
      frame.classList.toggle("drawing", control.drawing());
      control.hover(null);
      redraw();
    },
    deselect: () => control.deselect(),
    /** Composition of rows by the present colours: [{colour: "#rrggbb", count}], the most frequent first. */
    count: (rows) => byColour(rows, scene.colours),
    /** Colours again from the style sheet, or {text, background, muted}. */
    theme,
    resize: redraw,
    /** Zoom {zoom, x, y} to keep and to set again; null shows the whole plane. */
    get view() {
      return { ...view.state };
    },
    set view(state) {
      const fits = state && Number.isFinite(state.zoom) && state.zoom > 0 && Number.isFinite(state.x + state.y);
      view.look(fits ? { zoom: state.zoom, x: state.x, y: state.y } : whole());
      redraw();
    },
    /** Position of a point of the plane, px from the frame's upper left corner. */
    where: (x, y) => view.t.to(x, y),
    /** Names that are written beside stars and routes. */
    get names() {
      return names;
    },
    /** Resolves once all changes are drawn. */
    settled: () => new Promise((resolve) => { settled.push(resolve); redraw(); }),
    /** The plane as a PNG. */
    async picture() {
      const copy = document.createElement("canvas"), pen = copy.getContext("2d");
      Object.assign(copy, { width: markCanvas.width, height: markCanvas.height });
      pen.fillStyle = scene.theme.paper;
      pen.fillRect(0, 0, copy.width, copy.height);
      for (const canvas of [layer.canvas, markCanvas]) pen.drawImage(canvas, 0, 0);
      return new Promise((resolve) => copy.toBlob(resolve, "image/png"));
    },
    dispose() {
      cancelAnimationFrame(waiting);
      watcher.disconnect();
      deaf();
      layer.dispose();
      markCanvas.width = markCanvas.height = 0;
      root.remove();
    },
  };
}
