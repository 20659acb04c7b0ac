// Rows inside a drawn outline, and what they consist of: pure functions, no DOM.

/**
 * Rows of the points inside a closed outline, both (n, 2) flat in the plane's coordinates. A region that the outline goes
 * around more than once is inside too (nonzero winding number), as it is drawn.
 *
 * @returns {Uint32Array}
 */
export function rowsInside(points, outline) {
  const corners = outline.length / 2;
  if (corners < 3) return new Uint32Array(0);
  let left = Infinity, right = -Infinity, bottom = Infinity, top = -Infinity;
  for (let i = 0; i < outline.length; i += 2) {
    left = Math.min(left, outline[i]);
    right = Math.max(right, outline[i]);
    bottom = Math.min(bottom, outline[i + 1]);
    top = Math.max(top, outline[i + 1]);
  }
  const rows = new Uint32Array(points.length / 2);
  let found = 0;
  for (let i = 0; i < rows.length; i++) {
    const x = points[2 * i], y = points[2 * i + 1];
    if (x >= left && x <= right && y >= bottom && y <= top && winding(x, y, outline)) rows[found++] = i;
  }
  return rows.slice(0, found);
}

/** How often the outline goes around a position, anticlockwise. */
function winding(x, y, outline) {
  let turns = 0, ax = outline[outline.length - 2], ay = outline[outline.length - 1];
  for (let i = 0; i < outline.length; i += 2) {
    const bx = outline[i], by = outline[i + 1];
    if (ay <= y !== by <= y) {  // the side crosses the horizontal line through the position
      const toTheLeft = (bx - ax) * (y - ay) - (x - ax) * (by - ay);
      if (by > ay && toTheLeft > 0) turns++;
      else if (by < ay && toTheLeft < 0) turns--;
    }
    ax = bx;
    ay = by;
  }
  return turns;
}

/** Outline of the box between two corners, flat. */
export function box(x0, y0, x1, y1) {
  return [x0, y0, x1, y0, x1, y1, x0, y1];
}

/**
 * Number of rows of each colour, the most frequent first: the composition by the column that the points are coloured by.
 *
 * @returns {{colour: string, count: number}[]}
 */
export function byColour(rows, colours) {
  const counts = new Map();
  for (const row of rows) {
    const colour = (colours[3 * row] << 16) | (colours[3 * row + 1] << 8) | colours[3 * row + 2];
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  const hex = (colour) => `#${colour.toString(16).padStart(6, "0")}`;
  return [...counts].sort((a, b) => b[1] - a[1]).map(([colour, count]) => ({ colour: hex(colour), count }));
}
