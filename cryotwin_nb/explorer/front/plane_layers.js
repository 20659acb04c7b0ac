// The two canvases of the plane: points below, everything else above. Points are redrawn only if they or the view changed.

import * as draw from "./plane_draw.js";
import { rasterise } from "./plane_points.js";

const SHARPEST = 2;  // pixels per px

function fitted(canvas, { width, height }) {
  const ratio = Math.min(SHARPEST, window.devicePixelRatio || 1);
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  return ratio;
}

export class PointLayer {
  constructor(canvas) {
    this.canvas = canvas;
    this.outside = 0;
    this.drawn = "";
    this.edition = 0;  // of the points and their colours
  }

  /** Draw the points unless they are there already; returns how many lie outside the view. */
  draw({ points, colours }, t) {
    const ratio = Math.min(SHARPEST, window.devicePixelRatio || 1);
    const wanted = [this.edition, t.width, t.height, t.left, t.top, t.scale, ratio].join();
    if (wanted === this.drawn) return this.outside;
    fitted(this.canvas, t);
    const { width, height } = this.canvas, pen = this.canvas.getContext("2d");
    if (this.image?.width !== width || this.image?.height !== height) {
      this.image = pen.createImageData(width, height);
      this.sums = new Float32Array(4 * width * height);
    }
    const pixels = { left: ratio * t.left, top: ratio * t.top, scale: ratio * t.scale };
    this.outside = rasterise(this.image, points, colours, pixels, ratio, this.sums).outside;
    pen.putImageData(this.image, 0, 0);
    this.drawn = wanted;
    return this.outside;
  }

  dispose() {
    this.image = this.sums = null;
    this.canvas.width = this.canvas.height = 0;
  }
}

/** Draw everything but the points; returns the names written. */
export function drawMarks(canvas, t, places, scene, choice, focused) {
  const ratio = fitted(canvas, t), pen = canvas.getContext("2d"), { theme, order, sizes, active } = scene;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, t.width, t.height);
  const roles = choice.roles();
  draw.drawAxes(pen, t, scene, theme);
  const routes = draw.drawRoutes(pen, t, scene.routes, theme);
  draw.drawPath(pen, t, scene.path, scene.stale, theme);
  draw.drawSelection(pen, t, scene.outline, theme);
  draw.drawStars(pen, { ...scene, places, roles, hovered: scene.hovered?.star }, theme);
  const free = draw.drawFree(pen, t, choice.free(), theme);
  draw.drawStep(pen, t, scene.path, scene.step, scene.stale, theme);
  if (focused && active >= 0) draw.drawFocus(pen, ...places[active], sizes[active], theme);
  const names = starNames(scene, places, roles);
  return draw.drawNames(pen, t, [...free, ...names, ...routes], order.map((i) => places[i]), theme);
}

/** Names of the stars: those with a role first, then the labelled ones, the heaviest first. */
function starNames({ stars, order, sizes, theme }, places, roles) {
  const label = (i) => (i in roles ? `${roles[i] === "way" ? "way" : roles[i]}: ${stars[i].name || i}` : stars[i].label);
  const ranked = [...order.filter((i) => i in roles), ...order.filter((i) => !(i in roles) && stars[i].label)];
  return ranked.map((i) => ({
    text: label(i), x: places[i][0], y: places[i][1], radius: sizes[i] + (i in roles ? 3 : 0), must: i in roles,
    colour: i in roles ? theme[roles[i]] : stars[i].junk ? theme.muted : theme.ink,
  }));
}
