// The maps of a path as they arrive, and what surfaces are made from.
import { levelAtVolume } from "./surface.js";

const DUST = 1 / 13;  // of the box: parts smaller than this in every direction are dust
let ids = 0;

/**
 * A map as it is shown: density = byte / factor + offset.
 * @typedef {{id: number, values: Int8Array, size: number, voxelSize: number, offset: number, factor: number}} Volume
 */

/** The bytes of a message as signed integers, checked. @returns {Int8Array} */
export function bytesOf(data, size) {
  const view = ArrayBuffer.isView(data) ? data : new Uint8Array(data);
  if (view.byteLength !== size ** 3) throw new Error(`A map of ${view.byteLength} bytes is not of ${size}³ voxels.`);
  return new Int8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** @returns {Volume} */
export function volumeOf(data, { size, voxelSize = 1, offset = 0, factor = 1 }) {
  return { id: ++ids, values: bytesOf(data, size), size, voxelSize, offset, factor, levels: new Map() };
}

/** The maps of one path; those that have not arrived are null. */
export class MapSet {
  constructor(version, { n, ...scale }) {
    if (!(Number.isInteger(scale.size) && scale.size > 1 && scale.size <= 512)) {
      throw new Error(`Maps have a side of 2 to 512 voxels, not ${scale.size}.`);
    }
    Object.assign(this, { version, scale, n, volumes: new Array(n).fill(null), colours: new Array(n).fill(null) });
  }

  add(k, data) {
    if (!(Number.isInteger(k) && k >= 0 && k < this.n)) throw new Error(`There is no map ${k} among ${this.n}.`);
    this.volumes[k] = volumeOf(data, this.scale);
  }

  get bytes() { return this.volumes.reduce((sum, volume) => sum + (volume?.values.byteLength ?? 0), 0); }
}

/**
 * The level of a volume in its own bytes.
 * @param {Volume} volume
 * @param {number | {volume: number} | {density: number}} contour a level in bytes of `scale`, the part of the box that
 * the surface encloses, or a density
 */
export function levelOf(volume, contour, scale) {
  if (typeof contour === "number") {
    const { offset, factor } = scale ?? volume;
    return (contour / factor + offset - volume.offset) * volume.factor;
  }
  if ("density" in contour) return (contour.density - volume.offset) * volume.factor;
  if (!volume.levels.has(contour.volume)) {
    volume.levels.clear();
    volume.levels.set(contour.volume, levelAtVolume(volume.values, contour.volume));
  }
  return volume.levels.get(contour.volume);
}

export const densityOf = (volume, level) => level / volume.factor + volume.offset;

function recipe(volume, name, level, dusted, values) {
  const least = dusted ? Math.ceil(volume.size * DUST) : 0;
  const key = `${volume.id}:${name}@${level.toFixed(3)}/${least}`;
  return { key, size: volume.size, level: Math.max(level, -128), least, values };
}

/** Whether a surface belongs to none of these volumes. */
export function belongsToNone(volumes) {
  const ids = new Set(volumes.filter(Boolean).map((volume) => String(volume.id)));
  return (key) => !ids.has(key.split(":")[0]);
}

/** @returns {import("./scene_surfaces.js").Recipe} the surface of a map */
export function plain(volume, level, dusted) {
  return recipe(volume, "map", level, dusted, () => volume.values);
}

/** The density of `volume` over that of `other`, saturated. */
function excess(volume, other) {
  const result = new Int8Array(volume.values.length);
  for (let i = 0; i < result.length; i++) {
    const change = volume.values[i] - other.values[i];
    result[i] = change > 127 ? 127 : change < -127 ? -127 : change;
  }
  return result;
}

/** Surfaces of the density gained and lost since the first map, by at least half the density at the contour. */
export function changes(volume, first, level, dusted) {
  const half = Math.max(1, Math.abs(level + volume.offset * volume.factor) / 2);
  return {
    gained: recipe(volume, "gained", half, dusted, () => excess(volume, first)),
    lost: recipe(volume, "lost", half, dusted, () => excess(first, volume)),
  };
}
