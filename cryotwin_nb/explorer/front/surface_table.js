// Triangles of an isosurface within a cell of eight voxels, for each of the 256 patterns of corners above the level.
//
// A corner's number has its x, y, z as bits 0, 1, 2. An edge's number is 4 * axis + the two other bits of its corners.
// On each face, every run of corners above the level is cut off by one segment; seen from outside, the run lies to
// its right. Segments of the six faces join into closed loops, so neighbouring cells, which see the same segments, fit
// without gaps. A loop is cut into triangles along diagonals inside the cell, since a diagonal on a face could belong
// to four triangles instead of two.

/** Number of the edge between two neighbouring corners. */
function edgeBetween(one, other) {
  const low = Math.min(one, other), axis = Math.log2(one ^ other);
  const others = axis === 0 ? low >> 1 : axis === 1 ? (low & 1) | (low >> 1 & 2) : low & 3;
  return 4 * axis + others;
}

/** The faces: corners in counter-clockwise order seen from outside. */
const FACES = [0, 1, 2].flatMap((axis) => {
  const u = 1 << (axis + 1) % 3, v = 1 << (axis + 2) % 3, top = 1 << axis;
  return [[top, top | u, top | u | v, top | v], [v, u | v, u, 0]];
});
const FACES_OF_EDGE = Array.from({ length: 12 }, (_, edge) => new Set([...FACES.keys()].filter(
  (face) => FACES[face].some((corner, i) => edgeBetween(corner, FACES[face][(i + 1) % 4]) === edge))));

/** Loops of edges around the corners above the level. */
function loops(pattern) {
  const next = new Map(), above = (corner) => pattern >> corner & 1;
  for (const face of FACES) {
    for (let i = 0; i < 4; i++) {
      if (!above(face[i]) || above(face[(i + 1) % 4])) continue;  // a run ends between corners i and i + 1
      let first = i;
      while (above(face[(first + 3) % 4])) first -= first ? 1 : -3;
      next.set(edgeBetween(face[(first + 3) % 4], face[first]), edgeBetween(face[i], face[(i + 1) % 4]));
    }
  }
  const found = [];
  while (next.size) {
    const loop = [];
    let edge = next.keys().next().value;
    while (next.has(edge)) {
      loop.push(edge);
      const following = next.get(edge);
      next.delete(edge);
      edge = following;
    }
    found.push(loop);
  }
  return found;
}

/** Triangles of the part first ... last of a loop, with the fewest diagonals on faces. */
function cut(loop, first = 0, last = loop.length - 1) {
  if (last - first < 2) return { cost: 0, triangles: [] };
  let best = { cost: Infinity };
  for (let middle = first + 1; middle < last; middle++) {
    const parts = [cut(loop, first, middle), cut(loop, middle, last)];
    const diagonals = [[first, middle], [middle, last]].filter(([a, b]) => b - a > 1);
    const cost = parts[0].cost + parts[1].cost + diagonals.filter(
      ([a, b]) => [...FACES_OF_EDGE[loop[a]]].some((face) => FACES_OF_EDGE[loop[b]].has(face))).length;
    if (cost < best.cost) {
      best = { cost, triangles: [...parts[0].triangles, loop[first], loop[middle], loop[last], ...parts[1].triangles] };
    }
  }
  return best;
}

/** For each pattern, its triangles as numbers of edges, three a triangle. */
export const TRIANGLES = Array.from({ length: 256 }, (_, pattern) =>
  Uint8Array.from(loops(pattern).flatMap((loop) => cut(loop).triangles)));
