// What is written over the maps: scale bar, axes, the scale of the paint, and the line between two halves.
import { stops } from "./scene_colour.js";

const FONT = "12px system-ui, sans-serif", EDGE = 12, AXIS = 22;

/** A length of 1, 2 or 5 times a power of ten that is at most `most`. */
export function niceLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map((digit) => digit * power).find((length) => length <= most * (1 + 1e-9));
}

/**
 * @param {CanvasRenderingContext2D} context scaled to CSS pixels
 * @param {{width, height, pixelsPerAngstrom, text, ground, quaternion, paint, panes, captions}} what
 */
export function drawOverlay(context, what) {
  const { width, height, pixelsPerAngstrom, text, ground, quaternion, paint, panes, captions, unit } = what;
  context.clearRect(0, 0, width, height);
  Object.assign(context, { font: FONT, fillStyle: text, strokeStyle: text, lineWidth: 2, textBaseline: "bottom" });
  if (panes === 2) {
    context.globalAlpha = 0.4;
    line(context, [[width / 2, 0], [width / 2, height]], 1);
    context.globalAlpha = 1;
  }
  context.textAlign = "center";
  captions.forEach((caption, i) => context.fillText(caption, width * (i + 0.5) / panes, 20, width / panes - 2 * EDGE));
  const onGround = (left, top, wide, high) => {
    Object.assign(context, { globalAlpha: 0.7, fillStyle: ground });
    context.fillRect(left, top, wide, high);
    Object.assign(context, { globalAlpha: 1, fillStyle: text });
  };
  if (!pixelsPerAngstrom) return null;
  const bar = scaleBar(context, height, width / panes, pixelsPerAngstrom, unit, onGround);
  onGround(width - EDGE - 2 * AXIS - 20, height - 2 * AXIS - EDGE - 18, 2 * AXIS + 26, 2 * AXIS + 26);
  axes(context, width - EDGE - AXIS - 8, height - EDGE - AXIS - 4, quaternion);
  if (paint) legend(context, height, paint, onGround);
  return bar;
}

function line(context, [start, ...rest], lineWidth = 2) {
  context.lineWidth = lineWidth;
  context.beginPath();
  context.moveTo(...start);
  for (const point of rest) context.lineTo(...point);
  context.stroke();
}

function scaleBar(context, height, width, pixelsPerAngstrom, unit, onGround) {
  const length = niceLength(Math.min(120, width / 3) / pixelsPerAngstrom), long = length * pixelsPerAngstrom;
  const bottom = height - EDGE;
  onGround(EDGE - 6, bottom - 24, long + 12, 30);
  line(context, [[EDGE, bottom - 5], [EDGE, bottom], [EDGE + long, bottom], [EDGE + long, bottom - 5]]);
  context.textAlign = "left";
  context.fillText(`${length} ${unit}`, EDGE + 2, bottom - 6);
  return { length, pixels: long };
}

/** The map's axes as they lie in the view; those that point to the viewer last. */
function axes(context, x, y, quaternion) {
  const directions = ["x", "y", "z"].map((name, i) => ({ name, at: turned(quaternion, i) }));
  for (const { name, at: [u, v, w] } of directions.sort((one, other) => one.at[2] - other.at[2])) {
    context.globalAlpha = w < -0.3 ? 0.45 : 1;
    const long = Math.hypot(u, v);
    line(context, [[x, y], [x + AXIS * u, y - AXIS * v]], 1.5);
    Object.assign(context, { textAlign: "center", textBaseline: "middle" });
    const reach = long < 0.25 ? [-9, 9] : [(AXIS + 8) * u, -(AXIS + 8) * v];
    context.fillText(name, x + reach[0], y + reach[1]);
  }
  Object.assign(context, { globalAlpha: 1, textBaseline: "bottom" });
}

function turned({ x, y, z, w }, axis) {
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
    [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
    [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
  ][axis];
}

function legend(context, height, { map, low, high, label = "" }, onGround) {
  const left = EDGE, wide = 120, top = height - EDGE - 62, colours = stops(map);
  onGround(left - 6, top - 20, Math.max(wide, context.measureText(label).width) + 12, 50);
  const gradient = context.createLinearGradient(left, 0, left + wide, 0);
  colours.forEach((colour, i) => gradient.addColorStop(i / (colours.length - 1), colour));
  const text = context.fillStyle;
  context.fillStyle = gradient;
  context.fillRect(left, top, wide, 8);
  context.fillStyle = text;
  context.textAlign = "left";
  context.fillText(label, left, top - 2);
  context.fillText(String(low), left, top + 24);
  context.textAlign = "right";
  context.fillText(String(high), left + wide, top + 24);
}
