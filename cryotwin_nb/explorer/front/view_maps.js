// The explorer's maps: those of the path, of a star that is pointed at or was chosen, or a single one from the kernel.
import { createScene } from "./scene.js";
import { enclosed, scale, StarMaps } from "./store.js";

const REST = 80;  // ms that the pointer rests on a star before its map is asked for

export class MapView {
  constructor(app) {
    Object.assign(this, { app, stars: new StarMaps(), failed: new Set(), hovered: null, pinned: null, single: null, info: null, fraction: null });
    const { p } = app;
    try {
      this.scene = createScene(p.scene, {
        onPicture: (drawn) => { this.drawn = drawn; this.frames = (this.frames ?? 0) + 1; },
        onError: (error) => app.say("Not possible.", error.message),
        onCamera: (camera) => { app.look.camera = camera; app.tell(); },
      });
      this.moved();
    } catch (error) {
      this.scene = null;
      p.scene.textContent = `Maps cannot be shown here: ${error.message} explorer.figure() draws them.`;
      p.scene.classList.add("wordy");
    }
    this.pinned = app.starOf(app.settings.start);
  }

  moved() {
    const { camera } = this.app.look;
    if (!this.scene || !camera?.turn) return;
    try { this.scene.camera = camera; } catch { /* a view from another version */ }
  }

  follow() {
    this.moved();
    if (this.app.result) this.ofPath();
    else this.ofEnd(this.app.settings.start);
  }

  hover(star) {
    this.hovered = star;
    this.app.later("hover", star === null ? 0 : REST, () => this.show());
  }

  /** Show the map of an end that was chosen, until the path is shown again. */
  ofEnd(end) {
    const star = this.app.starOf(end);
    if (star === null) return;
    this.failed.delete(star);
    Object.assign(this, { pinned: star, single: null });
  }

  ofPath() {
    Object.assign(this, { pinned: null, single: null });
    this.show();
  }

  /** The kernel could not decode the map of a star; it is asked again at the next click. */
  fail() {
    if (this.asked !== undefined) this.failed.add(this.asked);
    this.show();
  }

  takeStar({ component, maps }, data) {
    this.failed.delete(component);
    this.info ??= maps;
    this.stars.add(component, data, maps);
    this.show();
  }

  takeSingle({ title, maps }, data) {
    this.info ??= maps;
    Object.assign(this, { single: { title, maps, data }, pinned: null });
    this.show();
  }

  load({ version, maps, n }) {
    this.info = maps;
    this.scene?.load(version, { ...scale(maps), n });
    this.ofPath();
  }

  add(version, k, data) {
    this.scene?.add(version, k, data);
    if (k !== this.app.look.step) return;
    this.show();
    if (this.fraction !== null) this.contour();
  }

  /** What is shown: a map with its scale and caption, or the path's step. */
  present() {
    const { app, hovered, single } = this, star = hovered ?? (single ? null : this.pinned);
    if (star !== null && star !== undefined) {
      const found = this.stars.get(star), { tip } = app.setup.components[star];
      if (!found && !this.failed.has(star)) this.ask(star);
      const missing = this.failed.has(star);
      return found ? { ...found, caption: tip } : { caption: missing ? `${tip}: no map` : `${tip} …`, waiting: true, missing };
    }
    if (single) return { ...single, caption: single.title };
    if (!app.result) return { caption: "" };
    const { n, data } = app.result, known = data[app.look.step], missing = !known && app.result.ended;
    const caption = `step ${app.look.step} of ${n - 1}${known ? "" : missing ? ": no map" : " …"}`;
    return { maps: app.result.maps, data: null, caption, path: true, missing };
  }

  ask(star) {
    if (this.asked === star && this.app.link?.waiting.size) return;
    this.asked = star;
    this.app.link?.ask({ do: "star", component: star });
  }

  show() {
    const { app, scene } = this, { p, look } = app, now = this.present();
    const maps = now.maps ?? this.info, binned = maps && maps.size < maps.full;
    const note = binned ? `\nshown binned to ${maps.size}³; files have ${maps.full}³ voxels` : "";
    const unit = maps && maps.voxel === null ? "\nvoxel size not known: scale bar in voxels" : "";
    p.caption.textContent = now.caption + note + unit;
    p.scene.classList.toggle("of-path", Boolean(now.path));
    p.scene.classList.toggle("missing", Boolean(now.missing));
    this.showContour(maps);
    if (!scene || now.waiting) return;
    scene.unit(unit ? "voxels" : "Å");
    if (now.data) scene.peek(now.data, scale(now.maps));
    else if (now.path) scene.peek(null);
    if (now.path) scene.show(look.step);
    scene.overlay({ start: look.ghost, change: look.change });
    scene.paint(look.paint ? "change" : "none");
    scene.dustOff(!look.dust);
    this.now = now;
    this.contour();
  }

  sigma(maps) { return this.app.look.sigma ?? maps?.sigma ?? 2; }

  showContour(maps) {
    const { p } = this.app, value = this.sigma(maps);
    p.sigma.value = value;
    p.sigmaText.textContent = `${Number(value).toFixed(1)} σ`;
  }

  contour() {
    const { scene, now } = this, maps = now?.maps;
    if (!scene || !maps) return;
    const density = maps.mean + this.sigma(maps) * maps.std;
    scene.contour(this.fraction === null ? { density } : { volume: this.fraction });
  }

  /** Keep the volume that the contour encloses in the map shown now. */
  constantVolume(on) {
    const data = this.now?.data ?? this.app.result?.data[this.app.look.step], maps = this.now?.maps;
    const density = maps ? maps.mean + this.sigma(maps) * maps.std : 0;
    this.fraction = on && data ? enclosed(data, maps, density) : null;
    this.app.p.volume.box.checked = this.fraction !== null;
    this.contour();
  }

  slice() {
    const { slice: { value: axis }, cut } = this.app.p;
    cut.hidden = !axis;
    this.scene?.slice(axis ? { axis, position: Number(cut.value) } : null);
  }

  /** Show a second map beside the first, with the same camera. */
  beside(what) {
    const { app, scene } = this;
    if (!scene || !app.result) {
      app.p.beside.value = "";
      if (what) app.say("Not possible.", "Compute a path first.");
      return;
    }
    const step = app.look.step, here = `step ${step}`;
    const other = { start: { k: 0, captions: ["", "start"] }, map: { k: step, captions: ["", here] }, path: { k: null, captions: ["", "kept path"] } }[what];
    scene.second(other ? { version: app.version, ...other } : null);
    this.show();
  }

  /** Whether the step is drawn. */
  settled() {
    const { result, look } = this.app;
    return !this.scene || !result?.data[look.step] || (this.drawn?.version === result.version && this.drawn.k === look.step);
  }

  reset() { this.scene?.reset(); }
  theme(colours) { this.scene?.theme(colours); }
  async picture() { return this.scene ? this.scene.picture() : null; }
  dispose() { this.scene?.dispose(); }
}
