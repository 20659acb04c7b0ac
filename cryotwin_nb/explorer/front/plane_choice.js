// Which role the next click gives to a star, which star it takes, and the ends and way-points chosen so far.

const SAME_PLACE = 3;  // px between clicks that count as clicks at the same place

/** @typedef {number | {x: number, y: number} | null} End  a star, a free point of the plane, or not chosen */
/** @typedef {{star: number, role: string, replaced: number | null, others: number[]}} Taken  what a click takes */

export class Choice {
  constructor() {
    /** @type {{start: End, end: End, ways: End[]}} */
    this.ends = { start: null, end: null, ways: [] };
    this.next = "start";  // role of the next click
    this.last = null;  // {x, y, star, role} of the last click on a star
  }

  /** Set by the app. A click that follows is a first click, unless the ends are those that the last click made. */
  set({ start = null, end = null, ways = [] }) {
    const { last } = this, kept = last && (last.role === "way" ? ways.at(-1) : { start, end }[last.role]) === last.star;
    const given = (one) => (typeof one === "number" ? (one >= 0 ? one : null) : one ?? null);
    this.ends = { start: given(start), end: given(end), ways: ways.map(given).filter((way) => way !== null) };
    if (!kept) this.last = null;
  }

  all() {
    return [["start", this.ends.start], ["end", this.ends.end], ...this.ends.ways.map((way) => ["way", way])];
  }

  /** Stars that are an end or a way-point. */
  chosen() {
    return this.all().map(([, end]) => end).filter((end) => typeof end === "number" && end >= 0);
  }

  /** Role of each star that has one. */
  roles() {
    return Object.fromEntries(this.all().filter(([, end]) => typeof end === "number").map(([role, end]) => [end, role]));
  }

  /** Ends and way-points that are not stars: [{x, y, role, name}]. */
  free() {
    const free = this.all().filter(([, end]) => end !== null && typeof end === "object");
    return free.map(([role, { x, y }]) => ({ x, y, role, name: role === "way" ? "way-point" : role }));
  }

  /**
   * What a click at a position takes. A click at the place of the last one takes the next star there for the same role;
   * a star cannot be both ends.
   *
   * @param {number[]} candidates  stars there, the first to be taken first
   * @returns {Taken | null}
   */
  at(x, y, candidates, way = false) {
    const again = this.last && Math.hypot(x - this.last.x, y - this.last.y) <= SAME_PLACE ? this.last : null;
    const role = way ? "way" : again?.role ?? this.next;
    const other = { start: this.ends.end, end: this.ends.start }[role];
    const stars = candidates.filter((star) => star !== other);
    if (!stars.length) return null;
    const before = again?.role === role ? stars.indexOf(again.star) : -1, turn = (before + 1) % stars.length;
    const others = [...stars.slice(turn + 1), ...stars.slice(0, turn)];
    return { star: stars[turn], role, replaced: before < 0 ? null : stars[before], others };
  }

  /** Take what a click would take; null if it is taken already. */
  take(taken, x, y) {
    const { star, role, replaced } = taken;
    this.last = { x, y, star, role };
    if (star === replaced) return null;
    this.#give(role, star, replaced);
    return taken;
  }

  /** What Enter on a star takes; null if the star is the other end. */
  byKey(star) {
    this.last = null;
    const role = this.next;
    if (star === { start: this.ends.end, end: this.ends.start }[role]) return null;
    this.#give(role, star, null);
    return { star, role, replaced: null, others: [] };
  }

  /** Take a free point; returns its role. */
  takePoint(point, way = false) {
    const role = way ? "way" : this.next;
    this.last = null;
    this.#give(role, point, null);
    return role;
  }

  #give(role, end, replaced) {
    if (role === "way") {
      const at = replaced === null ? -1 : this.ends.ways.lastIndexOf(replaced);
      this.ends.ways.splice(at < 0 ? this.ends.ways.length : at, at < 0 ? 0 : 1, end);
    } else {
      this.ends[role] = end;
      this.next = role === "start" ? "end" : "start";
    }
  }
}
