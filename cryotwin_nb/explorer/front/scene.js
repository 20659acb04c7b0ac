// The maps of a path in three dimensions, with everything that needs no kernel: steps, contour, overlays, camera.
import { colourSurface, stops } from "./scene_colour.js";
import { MapSet, belongsToNone, changes, densityOf, levelOf, plain, volumeOf } from "./scene_maps.js";
import { Surfaces } from "./scene_surfaces.js";
import { View } from "./scene_view.js";

const DEFAULT_CONTOUR = { volume: 0.03 };
const PEEKS = 16;
const AXES = { x: 0, y: 1, z: 2, 0: 0, 1: 1, 2: 2 };
const NOTHING = Object.freeze({ surface: null, start: null, gained: null, lost: null });

/**
 * @param {HTMLElement} element of a size of its own
 * @param {object} [events]
 * @param {(drawn: {version, k: number | null, level: number | null}) => void} [events.onPicture] after each drawing
 * @param {(error: Error) => void} [events.onError]
 * @param {(camera: object) => void} [events.onCamera] when the reader has moved the camera
 * @param {number} [events.budget] bytes for surfaces
 * @returns {Stage}
 * @throws {Error} with a sentence for the reader, where there is no WebGL
 */
export function createScene(element, events = {}) {
  return new Stage(element, events);
}

class Stage {
  constructor(element, { onPicture = () => {}, onError = () => {}, onCamera = () => {}, budget = 192 * 2 ** 20 }) {
    Object.assign(this, { onPicture, onError, sets: new Map(), version: null, k: 0, colours: 0 });
    Object.assign(this, { level: DEFAULT_CONTOUR, clean: false, painted: "none", other: null, looked: null, cut: null });
    this.overlays = { start: false, change: false };
    this.peeks = new Map();  // single maps shown lately: shown again, they are not contoured again
    this.drawn = { version: null, k: null, level: null };
    this.surfaces = new Surfaces(budget);
    this.view = new View(element, {
      before: () => this.refresh(), after: () => this.onPicture(this.drawn),
      onRest: () => onCamera(this.camera), onError: (error) => this.onError(error),
    });
  }

  /** Expect the n maps of a new path; those of other paths are dropped, but for the one beside it. */
  load(version, scale) {
    const set = new MapSet(version, scale), former = this.sets.get(this.version);
    const beside = this.other && this.sets.get(this.other.version ?? this.version);
    if (this.other) this.other.version = beside.version;
    this.sets = new Map([[version, set]]);
    if (beside) this.sets.set(beside.version, beside);
    if (former && former.scale.size * former.scale.voxelSize !== scale.size * scale.voxelSize) this.view.camera.reset();
    Object.assign(this, { version, k: Math.min(this.k, set.n - 1) });
    this.changed();
  }

  /** A map arrives, in any order; maps of paths that have been dropped are ignored. */
  add(version, k, data) {
    const set = this.sets.get(version);
    if (!set) return;
    this.guard(() => set.add(k, data));
    this.changed();
  }

  show(k) {
    this.k = k;
    this.changed();
  }

  /** @param {number | {volume: number} | {density: number}} level in bytes, enclosed part of the box, or a density */
  contour(level) {
    this.guard(() => {
      if (![level, level?.volume, level?.density].some(Number.isFinite)) throw new Error("A contour is a number.");
      this.level = level;
    });
    this.changed();
  }

  overlay({ start = false, change = false }) {
    this.overlays = { start, change };
    this.changed();
  }

  /** @param {"none" | "change" | "colour"} by the change since the first map, or the values of `setColour` */
  paint(by) {
    this.painted = by;
    this.changed();
  }

  /**
   * Colour map k by a value for each voxel.
   * @param {ArrayLike<number> | null} values
   * @param {{map: string | string[], low: number, high: number, label: string}} scale
   */
  setColour(k, values, scale = {}) {
    const set = this.sets.get(this.version);
    if (!set) return;
    const { size } = set.scale, key = `colour ${++this.colours}`;
    this.guard(() => {
      if (values && values.length !== size ** 3) throw new Error("Colours are one value for each voxel.");
      set.colours[k] = values && { key, values, size, map: "sequential", low: 0, high: 1, ...scale };
    });
    this.changed();
  }

  setModel(model) {
    this.guard(() => this.view.panes[0].model.set(model));
    this.changed();
  }

  /**
   * Show a section and what lies behind it.
   * @param {{axis: 0 | 1 | 2 | "x" | "y" | "z", position: number} | null} where position from 0 to 1
   */
  slice(where) {
    this.cut = where && { axis: AXES[where.axis] ?? 2, position: where.position };
    this.changed();
  }

  dustOff(yes) {
    this.clean = yes;
    this.changed();
  }

  /**
   * Show two maps side by side with one camera: on the right map k of a path, or the one at the same place of the path.
   * @param {{version?, k?: number | null, captions?: string[]} | string | number | null} other by default the path now
   */
  second(other) {
    const asked = other === null || typeof other === "object" ? other : { version: other };
    this.other = asked && { k: null, captions: [], ...asked, version: asked.version ?? this.version };
    this.view.split(Boolean(this.other));
    this.changed();
  }

  /** Show a single map in place of the path's, as of a star that is pointed at; null: the path again. */
  peek(data, scale = this.sets.get(this.version)?.scale) {
    this.guard(() => { this.looked = data && (this.peeks.get(data) ?? volumeOf(data, scale)); });
    if (this.looked) {
      this.peeks.delete(data);
      this.peeks.set(data, this.looked);
      if (this.peeks.size > PEEKS) this.peeks.delete(this.peeks.keys().next().value);
    }
    this.changed();
  }

  get camera() { return this.view.camera.state; }
  set camera(state) { this.view.camera.state = state; }
  reset() { this.view.camera.reset(); }
  picture() { return this.view.picture(); }
  theme(colours) { this.view.theme(colours); }
  resize() { this.view.resize(); }
  unit(name) { this.view.unit = name; }  // of the scale bar
  describe(what) { this.view.describe(what); }

  /** Bytes of maps and surfaces. */
  get bytes() {
    const maps = [...this.sets.values()].reduce((sum, set) => sum + set.bytes, 0);
    const peeks = [...this.peeks.values()].reduce((sum, volume) => sum + volume.values.byteLength, 0);
    return maps + peeks + this.surfaces.bytes;
  }

  dispose() {
    this.surfaces.dispose();
    this.view.dispose();
    this.sets.clear();
    this.peeks.clear();
    Object.assign(this, { looked: null, version: null, onPicture: () => {}, onError: () => {} });
  }

  guard(act) {
    try { act(); } catch (error) { this.onError(error); }
  }

  changed() {
    this.stale = true;
    this.view.request();
  }

  // ------------------------------------------------------------------ what is shown

  /** What each pane shows: a set and the number of its map, or a single map. */
  *shown() {
    const set = this.sets.get(this.version);
    yield this.looked ? { volume: this.looked } : { set, k: this.k, volume: set?.volumes[this.k] };
    if (!this.other) return;
    const beside = this.sets.get(this.other.version);
    const k = this.other.k ?? Math.round(this.k * (beside.n - 1) / Math.max(set.n - 1, 1));
    yield { set: beside, k, volume: beside.volumes[k] };
  }

  levelOf(volume) { return levelOf(volume, this.level, this.sets.get(this.version)?.scale); }

  /** The surfaces of a map by the mesh that shows each. */
  recipes({ set, k, volume }) {
    const first = set?.volumes[0], level = this.levelOf(volume);
    const result = { ...NOTHING, surface: plain(volume, level, this.clean) };
    if (!first || k === 0) return result;
    if (this.overlays.start) result.start = plain(first, this.levelOf(first), this.clean);
    if (this.overlays.change) Object.assign(result, changes(volume, first, level, this.clean));
    return result;
  }

  paintOf({ set, k, volume }) {
    if (this.painted === "colour") return set?.colours[k];
    const first = set?.volumes[0];
    if (this.painted !== "change" || !first) return null;
    const level = this.levelOf(volume), reach = 2 * changes(volume, first, level).gained.level;
    return {
      key: `change from ${first.id} by ${reach}`, values: first.values, size: first.size,  // the map's own are `level`
      map: [...stops("change")].reverse(), low: level - reach, high: level + reach,
      legend: { map: "change", low: "less", high: "more", label: "density since the start" },
    };
  }

  refresh() {
    if (!this.stale) return;
    this.stale = false;
    this.guard(() => this.arrange());
  }

  /** Give every pane its surfaces; a pane whose map has not arrived keeps what it shows. */
  arrange() {
    const held = [...this.sets.values()].flatMap((set) => set.volumes);
    this.surfaces.forget(belongsToNone([...held, ...this.peeks.values()]));
    this.surfaces.begin();
    this.view.paint = null;
    this.view.captions = this.other?.captions ?? [];
    for (const [i, what] of [...this.shown()].entries()) {
      if (!what.volume) continue;
      const pane = this.view.panes[i], paint = this.paintOf(what);
      pane.place(what.volume);
      for (const [name, recipe] of Object.entries(this.recipes(what))) {
        pane.put(name, recipe && this.surfaces.get(recipe));
      }
      if (paint) colourSurface(pane.surface.geometry, paint);
      pane.painted(Boolean(paint));
      const level = this.levelOf(what.volume);
      pane.slice.show(what.volume, this.cut, level);
      this.view.paint ??= paint?.legend ?? paint;
      if (i > 0) continue;
      this.drawn = { version: what.set?.version ?? null, k: what.k ?? null, level: densityOf(what.volume, level) };
    }
    this.surfaces.prepare(this.soon());
  }

  /** Surfaces of the steps that may be shown next, the nearest ones ahead first. */
  soon() {
    const set = this.sets.get(this.version);
    if (!set) return [];
    const order = Array.from({ length: set.n }, (_, i) => (this.k + i) % set.n);
    const next = order.map((k) => ({ set, k, volume: set.volumes[k] })).filter(({ volume }) => volume);
    return next.flatMap((what) => Object.values(this.recipes(what)).filter(Boolean));
  }
}
