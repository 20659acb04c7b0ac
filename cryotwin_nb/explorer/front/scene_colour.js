// Colours on surfaces: a value for each voxel, read at the vertices and looked up in a scale of colours.
import { BufferAttribute, Color } from "three";

/** Okabe and Ito's colours, told apart by colour-blind readers too. */
export const COLOURS = { surface: "#b4c0cf", gained: "#0072b2", lost: "#d55e00" };
const SCALES = {
  change: [COLOURS.lost, "#d9a37f", COLOURS.surface, "#6ba3c4", COLOURS.gained],
  sequential: ["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"],
};

/** The colours of a scale: a name above or a list of CSS colours from low to high. */
export function stops(map) {
  const colours = Array.isArray(map) ? map : SCALES[map];
  if (!colours || colours.length < 2) throw new Error(`There is no scale of colours "${map}".`);
  return colours;
}

/** 256 colours, four bytes each. */
function table(map) {
  const colours = stops(map).map((name) => new Color(name)), result = new Uint8Array(1024), mixed = new Color();
  for (let i = 0; i < 256; i++) {
    const place = i / 255 * (colours.length - 1), low = Math.min(Math.floor(place), colours.length - 2);
    mixed.copy(colours[low]).lerp(colours[low + 1], place - low);
    result.set([255 * mixed.r, 255 * mixed.g, 255 * mixed.b, 255], 4 * i);
  }
  return result;
}

/** The value of a volume at x, y, z, between its voxels by linear interpolation. */
export function sample(values, size, x, y, z) {
  const last = size - 1;
  x = x < 0 ? 0 : x > last ? last : x;
  y = y < 0 ? 0 : y > last ? last : y;
  z = z < 0 ? 0 : z > last ? last : z;
  const i = x < last ? x | 0 : last - 1, j = y < last ? y | 0 : last - 1, k = z < last ? z | 0 : last - 1;
  const u = x - i, v = y - j, w = z - k, row = size, layer = size * size, at = (k * size + j) * size + i;
  const line = (p) => values[p] * (1 - u) + values[p + 1] * u;
  const plane = (p) => line(p) * (1 - v) + line(p + row) * v;
  return plane(at) * (1 - w) + plane(at + layer) * w;
}

/**
 * Colour the vertices of a surface by the values around them.
 * @param {import("three").BufferGeometry} geometry
 * @param {{key: string, values: ArrayLike<number>, size: number, map: string | string[], low, high}} paint
 */
export function colourSurface(geometry, { key, values, size, map, low, high }) {
  if (geometry.userData.paint === key) return;
  const positions = geometry.getAttribute("position"), { array, count } = positions;
  const colours = new Uint8Array(4 * count), known = table(map), scale = 255 / (high - low || 1);
  for (let i = 0; i < count; i++) {
    const value = sample(values, size, array[3 * i], array[3 * i + 1], array[3 * i + 2]);
    const at = 4 * Math.min(Math.max(Math.round((value - low) * scale) || 0, 0), 255);
    for (let j = 0; j < 4; j++) colours[4 * i + j] = known[at + j];
  }
  geometry.setAttribute("color", new BufferAttribute(colours, 4, true));
  geometry.userData.paint = key;
}
