// Which stars are shown, which one a click takes, which one an arrow key goes to, where names go: pure functions, no DOM.

/**
 * @typedef {object} Star
 * @property {number} x
 * @property {number} y
 * @property {number} mass  share of the particles, 0 to 1
 * @property {string} name  name of its state; several stars can have the same
 * @property {string} label  name to write beside it; "" for all but the heaviest star of a state
 * @property {string} tip  what it is, in a few words
 * @property {boolean} [junk]
 */

export const REACH = 6;  // px within which a click takes the heaviest star rather than the nearest
const AXIS = 20;  // px at the left edge, kept free for the name of the y axis
const SMALL = 0.005;  // stars with less mass are shown on demand

/** Radius of each star, px. */
export function radii(stars) {
  const largest = Math.max(1e-12, ...stars.map((star) => star.mass));
  return stars.map((star) => 6 + 8 * Math.sqrt(Math.max(0, star.mass) / largest));
}

/** Stars that are shown, heaviest first: not the small ones, unless they are labelled, `chosen` or all are asked for. */
export function shown(stars, chosen, small) {
  const kept = stars.map((_, i) => i).filter((i) => {
    const { x, y, mass, label } = stars[i];
    return Number.isFinite(x + y) && (small || mass >= SMALL || label || chosen.includes(i));
  });
  return kept.sort((i, j) => stars[j].mass - stars[i].mass);
}

/**
 * Stars that clicks at a position take, one after the other: those whose centre is within REACH, the labelled ones first
 * and of these the heaviest; then those whose own disc covers the position, the nearest first.
 *
 * @param {number[]} order  stars that are shown
 * @param {[number, number][]} places  position of each star, px
 */
export function candidates(px, py, stars, order, places, sizes) {
  const distance = (i) => Math.hypot(places[i][0] - px, places[i][1] - py);
  const near = order.filter((i) => distance(i) <= REACH);
  near.sort((i, j) => Boolean(stars[j].label) - Boolean(stars[i].label) || stars[j].mass - stars[i].mass);
  const around = order.filter((i) => distance(i) > REACH && distance(i) <= sizes[i]);
  return [...near, ...around.sort((i, j) => distance(i) - distance(j))];
}

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * The star that a key goes to from star `from`: arrows to the nearest in that direction, PageDown and PageUp to the next
 * lighter and heavier one, Home and End to the heaviest and the lightest; undefined for other keys.
 */
export function stepTo(key, from, order, places) {
  const rank = Math.max(0, order.indexOf(from)), last = order.length - 1;
  const ranks = { Home: 0, End: last, PageDown: Math.min(rank + 1, last), PageUp: Math.max(rank - 1, 0) };
  if (key in ranks) return order[ranks[key]];
  if (!(key in DIRECTIONS) || from < 0) return undefined;
  const [dx, dy] = DIRECTIONS[key];
  let best = from, least = Infinity;
  for (const i of order) {
    const x = places[i][0] - places[from][0], y = places[i][1] - places[from][1];
    const along = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
    if (i === from || along <= 0 || aside > 2 * along) continue;
    const cost = along + 2 * aside;
    if (cost < least) [best, least] = [i, cost];
  }
  return best;
}

/**
 * Places for names beside their stars such that no two overlap and none leaves the frame: the most important first,
 * above, below, right or left of its star, where it hides the fewest other stars; a name without a free place is left out.
 *
 * @param {{text: string, x: number, y: number, radius: number, width: number, must?: boolean}[]} wanted  in order of
 *   importance; `width` of the text, px; one that `must` be written is, even over others
 * @param {[number, number][]} stars  positions of the stars that are shown, px
 * @returns {{text: string, x: number, y: number}[]}  left end and baseline of the texts
 */
export function placeNames(wanted, frame, stars = [], height = 13) {
  const taken = [], placed = [];
  const free = (box) => !taken.some((t) => box[0] < t[2] && box[2] > t[0] && box[1] < t[3] && box[3] > t[1]);
  const within = ([x0, y0, x1, y1]) => x0 >= AXIS && y0 >= 2 && x1 <= frame.width - 2 && y1 <= frame.height - 2;
  for (const name of wanted) {
    const { x, y, radius: r, width: w } = name;
    if (x < 0 || y < 0 || x > frame.width || y > frame.height) continue;
    const corners = [
      [x - w / 2, y - r - height - 1], [x - w / 2, y + r + 1], [x + r + 3, y - height / 2], [x - r - 3 - w, y - height / 2],
    ];
    const boxes = corners.map(([a, b]) => [a, b, a + w, b + height]).filter(within);
    const hidden = ([x0, y0, x1, y1]) => stars.filter(([a, b]) => a > x0 - 4 && a < x1 + 4 && b > y0 - 4 && b < y1 + 4).length;
    boxes.sort((a, b) => hidden(a) - hidden(b));  // stable: above first
    let box = boxes.find(free);
    if (!box && name.must) box = boxes[0];
    if (!box) continue;
    taken.push(box);
    placed.push({ ...name, x: box[0], y: box[3] - 3 });
  }
  return placed;
}
