// The part of the plane that is shown: the extent of what is in it, and the user's zoom.

import { extentOf, flat, transform, visible, whole } from "./plane_frame.js";

export class View {
  #geometry = null;

  constructor(frame, scene, choice) {
    Object.assign(this, { frame, scene, choice, percentiles: {}, state: whole(), extent: extentOf([], [], []) });
  }

  #place() {
    const { clientWidth: width, clientHeight: height } = this.frame, known = this.#geometry;
    if (known?.t.width === width && known.t.height === height) return known;
    const t = transform(this.extent, { width, height }, this.state);
    this.#geometry = { t, places: this.scene.stars.map(({ x, y }) => t.to(x, y)) };
    return this.#geometry;
  }

  /** Transform between the plane and the screen. */
  get t() {
    return this.#place().t;
  }

  /** Position of each star on the screen. */
  places() {
    return this.#place().places;
  }

  look(state) {
    this.state = state;
    this.#geometry = null;
  }

  /** Fit the extent to the scene; a zoom that the user set is kept unless the path would lie outside. */
  fit(again = false) {
    const { scene, choice, state } = this, before = this.t.scale;
    const ends = [...choice.free(), ...choice.chosen().map((i) => scene.stars[i]).filter(Boolean)];
    const paths = [scene.path.curve, scene.path.steps, ...scene.routes.map((route) => route.curve)];
    const curves = [...paths, flat(ends.flatMap(({ x, y }) => [x, y]))];
    this.extent = extentOf(scene.points, scene.order.map((i) => scene.stars[i]), curves, this.percentiles);
    this.#geometry = null;
    if (again) return this.look(whole());
    if (state.x === null) return;
    this.look({ ...state, zoom: state.zoom * before / this.t.scale });
    if (!paths.every((curve) => visible(this.t, curve))) this.look(whole());
  }
}
