// Isosurfaces of volumes of 8-bit integers. Pure functions: no document, so a Web Worker can use them too.
import { TRIANGLES } from "./surface_table.js";

const PAD = 2;  // voxels around the volume: one to close the surface at the border, one more for the gradient there
const EMPTY = -128;  // density around the volume, below every level

/**
 * @typedef {{positions: Float32Array, normals: Float32Array, indices: Uint32Array}} Mesh
 * Vertices in voxels from the centre of the first voxel, normals that point to lower density, and triangles, three
 * indices each, counter-clockwise seen from outside.
 */

/** The volume with `PAD` empty voxels on each side. */
function padded(values, size) {
  const side = size + 2 * PAD, volume = new Int8Array(side ** 3).fill(EMPTY);
  for (let z = 0; z < size; z++) {
    for (let y = 0; y < size; y++) {
      const row = (z * size + y) * size;
      volume.set(values.subarray(row, row + size), ((z + PAD) * side + y + PAD) * side + PAD);
    }
  }
  return volume;
}

/** Vertices made so far, one for each edge of the grid that crosses the surface. */
class Vertices {
  constructor(volume, side, level) {
    Object.assign(this, { volume, side, level, count: 0, strides: [1, side, side * side] });
    this.positions = new Float32Array(3 * 4096);
    this.normals = new Float32Array(3 * 4096);
  }

  /** Add the vertex on the edge from voxel x, y, z along an axis; return its number. */
  add(x, y, z, axis) {
    const { volume, side, strides: [, row, layer] } = this;
    const near = (z * side + y) * side + x, far = near + this.strides[axis];
    const low = volume[near], t = (this.level - low) / (volume[far] - low), s = 1 - t;
    const slope = (step) =>
      s * (volume[near - step] - volume[near + step]) + t * (volume[far - step] - volume[far + step]);
    let u = slope(1), v = slope(row), w = slope(layer);
    if (u === 0 && v === 0 && w === 0) [u, v, w] = [0, 1, 2].map((i) => (i === axis ? low - volume[far] : 0));
    const scale = 1 / Math.sqrt(u * u + v * v + w * w), at = 3 * this.count;
    if (at === this.positions.length) this.grow();
    this.positions[at] = x - PAD + (axis === 0 ? t : 0);
    this.positions[at + 1] = y - PAD + (axis === 1 ? t : 0);
    this.positions[at + 2] = z - PAD + (axis === 2 ? t : 0);
    this.normals[at] = u * scale;
    this.normals[at + 1] = v * scale;
    this.normals[at + 2] = w * scale;
    return this.count++;
  }

  grow() {
    for (const name of ["positions", "normals"]) {
      const larger = new Float32Array(2 * this[name].length);
      larger.set(this[name]);
      this[name] = larger;
    }
  }
}

/**
 * The surface around the voxels above a level, closed at the volume's border.
 * @param {Int8Array} values volume of size³ voxels, x fastest
 * @param {number} size voxels on a side
 * @param {number} level contour level in units of the values
 * @returns {Mesh}
 */
export function isosurface(values, size, level) {
  if (values.length !== size ** 3) throw new RangeError(`${values.length} voxels are not a cube of side ${size}`);
  if (!(level >= EMPTY)) throw new RangeError(`Contour levels are numbers from ${EMPTY} up, not ${level}`);
  const side = size + 2 * PAD, layer = side * side, volume = padded(values, size);
  const vertices = new Vertices(volume, side, level);
  // Numbers of the vertices on the edges of two layers: x and y edges of the even, then the odd layer; z edges between.
  const made = new Int32Array(5 * layer).fill(-1);
  const planes = [0, 1].map((odd) => Int32Array.from({ length: 12 }, (_, edge) => {
    const [dx, dy, dz] = START[edge], axis = edge >> 2;
    return (axis === 2 ? 4 : 2 * ((odd + dz) & 1) + axis) * layer + dy * side + dx;
  }));
  let indices = new Uint32Array(8192), count = 0;
  for (let z = PAD - 1; z < side - PAD; z++) {
    const plane = planes[z & 1];
    for (let y = PAD - 1; y < side - PAD; y++) {
      let at = (z * side + y) * side + PAD - 1, pattern = 0;  // the first voxels of a row are empty
      for (let x = PAD - 1; x < side - PAD; x++, at++) {
        pattern = pattern >> 1 & 0x55 | (volume[at + 1] > level ? 2 : 0) | (volume[at + 1 + side] > level ? 8 : 0)
          | (volume[at + 1 + layer] > level ? 32 : 0) | (volume[at + 1 + layer + side] > level ? 128 : 0);
        if (pattern === 0 || pattern === 255) continue;
        const edges = TRIANGLES[pattern];
        if (count + edges.length > indices.length) {
          const larger = new Uint32Array(2 * indices.length);
          larger.set(indices);
          indices = larger;
        }
        for (let i = 0; i < edges.length; i++) {
          const edge = edges[i], place = plane[edge] + y * side + x;
          if (made[place] < 0) {
            const start = START[edge];
            made[place] = vertices.add(x + start[0], y + start[1], z + start[2], edge >> 2);
          }
          indices[count++] = made[place];
        }
      }
    }
    made.fill(-1, 2 * (z & 1) * layer, 2 * ((z & 1) + 1) * layer).fill(-1, 4 * layer);
  }
  const { positions, normals, count: n } = vertices;
  return { positions: positions.slice(0, 3 * n), normals: normals.slice(0, 3 * n), indices: indices.slice(0, count) };
}

/** Where each edge of a cell starts, x, y, z from the cell's first corner (see surface_table.js for the numbers). */
const START = Array.from({ length: 12 }, (_, edge) => {
  const low = edge & 1, high = edge >> 1 & 1;
  return [[0, low, high], [low, 0, high], [low, high, 0]][edge >> 2];
});

/**
 * The surface without its connected parts that are smaller than `least` voxels in every direction.
 * @param {Mesh} mesh
 * @param {number} least
 * @returns {Mesh}
 */
export function dust({ positions, normals, indices }, least) {
  const n = positions.length / 3, part = parts(n, indices);
  const low = new Float32Array(3 * n).fill(Infinity), high = new Float32Array(3 * n).fill(-Infinity);
  for (let i = 0; i < n; i++) {
    for (let axis = 0, from = 3 * i, to = 3 * part[i]; axis < 3; axis++, from++, to++) {
      if (positions[from] < low[to]) low[to] = positions[from];
      if (positions[from] > high[to]) high[to] = positions[from];
    }
  }
  const number = new Int32Array(n).fill(-1), kept = { positions: positions.slice(), normals: normals.slice() };
  let vertices = 0, corners = 0;
  for (let i = 0; i < n; i++) {
    const at = 3 * part[i];
    if (Math.max(high[at] - low[at], high[at + 1] - low[at + 1], high[at + 2] - low[at + 2]) < least) continue;
    for (let axis = 0; axis < 3; axis++) {
      kept.positions[3 * vertices + axis] = positions[3 * i + axis];
      kept.normals[3 * vertices + axis] = normals[3 * i + axis];
    }
    number[i] = vertices++;
  }
  const triangles = indices.slice();
  for (let i = 0; i < indices.length; i++) {
    if (number[indices[i]] >= 0) triangles[corners++] = number[indices[i]];
  }
  return { positions: kept.positions.slice(0, 3 * vertices), normals: kept.normals.slice(0, 3 * vertices),
           indices: triangles.slice(0, corners) };
}

/** For each of n vertices, the number of one vertex of its connected part. */
function parts(n, indices) {
  const part = new Int32Array(n);
  for (let i = 0; i < n; i++) part[i] = i;
  const root = (i) => {
    while (part[i] !== i) i = part[i] = part[part[i]];
    return i;
  };
  for (let i = 0; i < indices.length; i += 3) {
    const a = root(indices[i]), b = root(indices[i + 1]), c = root(indices[i + 2]), least = Math.min(a, b, c);
    part[a] = part[b] = part[c] = least;
  }
  for (let i = 0; i < n; i++) part[i] = root(i);
  return part;
}

/**
 * The contour level above which a fraction of the voxels lies; voxels of one value are spread evenly around it.
 * @param {Int8Array} values
 * @param {number} fraction
 * @returns {number}
 */
export function levelAtVolume(values, fraction) {
  const counts = new Uint32Array(256);
  for (let i = 0; i < values.length; i++) counts[values[i] + 128]++;
  let above = Math.min(Math.max(fraction, 0), 1) * values.length;
  for (let value = 127; value >= -128; value--) {
    const here = counts[value + 128];
    if (here > 0 && above <= here) return value + 0.5 - above / here;
    above -= here;
  }
  return -128;
}
