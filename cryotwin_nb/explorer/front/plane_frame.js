// Which part of the plane is shown, and where a position of the plane lies on the screen: pure functions, no DOM.

/** @typedef {{left: number, bottom: number, right: number, top: number}} Extent  in the plane's coordinates, y up */

const MARGIN = 32;  // px kept free at each edge, for the names of the axes and the stars
const SAMPLE = 50_000;  // points used for the percentiles
const CLOSEST = 400, FARTHEST = 0.02;  // limits of the zoom; 1 fits the extent into the frame

/** Pairs [[x, y], ...] or a flat array as a flat Float32Array. */
export function flat(pairs) {
  if (pairs instanceof Float32Array) return pairs;
  return Float32Array.from(pairs?.length && pairs[0].length === 2 ? [...pairs].flatMap((pair) => [...pair]) : pairs ?? []);
}

/** Percentiles `low` and `high` of one coordinate of the points; null without finite points. */
function range(points, coordinate, low, high) {
  const n = points.length / 2, stride = Math.max(1, Math.floor(n / SAMPLE));
  const values = new Float64Array(Math.ceil(n / stride));
  let kept = 0;
  for (let i = 0; i < n; i += stride) {
    const value = points[2 * i + coordinate];
    if (Number.isFinite(value)) values[kept++] = value;
  }
  if (!kept) return null;
  const sorted = values.subarray(0, kept).sort();
  const at = (percent) => sorted[Math.round((kept - 1) * percent / 100)];
  return [at(low), at(high)];
}

function include(extent, x, y) {
  if (!Number.isFinite(x) || !Number.isFinite(y)) return;
  extent.left = Math.min(extent.left, x);
  extent.right = Math.max(extent.right, x);
  extent.bottom = Math.min(extent.bottom, y);
  extent.top = Math.max(extent.top, y);
}

/**
 * Extent of percentiles of the points, of the stars not far from these, and of all `curves` (flat arrays), wherever
 * they lie. A far star, such as a component of junk, does not empty the plane.
 */
export function extentOf(points, stars, curves, { low = 0.2, high = 99.8 } = {}) {
  const extent = { left: Infinity, right: -Infinity, bottom: Infinity, top: -Infinity };
  const across = range(points, 0, low, high), up = range(points, 1, low, high);
  if (across && up) {
    include(extent, across[0], up[0]);
    include(extent, across[1], up[1]);
  }
  const reach = across && up ? Math.max(across[1] - across[0], up[1] - up[0]) / 3 : Infinity;
  const core = { ...extent };
  for (const { x, y, junk } of stars) {
    const near = x > core.left - reach && x < core.right + reach && y > core.bottom - reach && y < core.top + reach;
    if (reach === Infinity || (near && !junk)) include(extent, x, y);
  }
  for (const curve of curves) for (let i = 0; i < curve.length; i += 2) include(extent, curve[i], curve[i + 1]);
  return extent.left <= extent.right ? extent : { left: -1, right: 1, bottom: -1, top: 1 };
}

/** What the user made of the extent: `zoom` 1 fits it into the frame, `x`, `y` is the centre (null: the extent's). */
export const whole = () => ({ zoom: 1, x: null, y: null });

/** Positions on the screen, px from the frame's upper left corner; both axes have the same scale (px per unit). */
export function transform(extent, { width, height }, view) {
  const across = Math.max(extent.right - extent.left, 1e-9), up = Math.max(extent.top - extent.bottom, 1e-9);
  const free = (length) => Math.max(length - 2 * MARGIN, length / 2, 1);
  const scale = view.zoom * Math.min(free(width) / across, free(height) / up);
  const x = view.x ?? (extent.left + extent.right) / 2, y = view.y ?? (extent.bottom + extent.top) / 2;
  return {
    width, height, scale, centre: [x, y],
    left: width / 2 - x * scale,  // screen x = left + scale * x
    top: height / 2 + y * scale,  // screen y = top - scale * y
    at: (px, py) => [x + (px - width / 2) / scale, y - (py - height / 2) / scale],
    to: (a, b) => [width / 2 + (a - x) * scale, height / 2 - (b - y) * scale],
  };
}

/** The view after zooming by `factor` about a position of the screen, which stays where it is. */
export function zoomed(t, view, px, py, factor) {
  const zoom = Math.min(CLOSEST, Math.max(FARTHEST, view.zoom * factor)), grown = zoom / view.zoom;
  const [x, y] = t.at(px, py), [cx, cy] = t.centre;
  return { zoom, x: x + (cx - x) / grown, y: y + (cy - y) / grown };
}

/** The view after the plane was dragged by (dx, dy) px. */
export function moved(t, view, dx, dy) {
  return { zoom: view.zoom, x: t.centre[0] - dx / t.scale, y: t.centre[1] + dy / t.scale };
}

/** Whether all of a flat array of positions lies on the screen. */
export function visible(t, curve) {
  for (let i = 0; i < curve.length; i += 2) {
    const [x, y] = t.to(curve[i], curve[i + 1]);
    if (!(x >= 0 && y >= 0 && x <= t.width && y <= t.height)) return false;
  }
  return true;
}

/** Largest of 1, 2, 5 times a power of ten that is at most `longest`. */
export function niceLength(longest) {
  const power = 10 ** Math.floor(Math.log10(longest));
  return power * (longest / power >= 5 ? 5 : longest / power >= 2 ? 2 : 1);
}

/** The corner of a curve (flat) that is farthest from all other curves; the middle one without others. */
export function apart(curve, others) {
  const corners = others.flatMap((other) => pairs(other));
  const gap = ([x, y]) => corners.reduce((least, [a, b]) => Math.min(least, (a - x) ** 2 + (b - y) ** 2), Infinity);
  const own = pairs(curve), gaps = own.map(gap), most = Math.max(...gaps);
  return own[others.length ? gaps.indexOf(most) : own.length >> 1];
}

const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
