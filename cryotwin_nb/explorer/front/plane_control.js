// What gestures and keys do. `scene` is the plane's state (see plane.js), `view` what part of it is shown.

import { whole, zoomed, moved, visible } from "./plane_frame.js";
import { box, rowsInside } from "./plane_select.js";
import { candidates, REACH, stepTo } from "./plane_stars.js";
import { clickText, starText, stepText } from "./plane_text.js";

const SHORTEST = 2;  // px between the corners of a drawn outline
const KEY_ZOOM = 1.25;

export class Control {
  /** `redraw` draws soon, `refit` after the choice changed; `on` has the callbacks of createPlane. */
  constructor(scene, view, choice, { frame, tip }, list, on, { redraw, refit }) {
    Object.assign(this, { scene, view, choice, frame, tip, list, on, redraw, refit });
    this.told = null;  // star that onHover was last called with
  }

  drawing = () => this.scene.mode === "lasso" || this.scene.mode === "box";

  #candidates(x, y) {
    return candidates(x, y, this.scene.stars, this.scene.order, this.view.places(), this.scene.sizes);
  }

  #stepAt(x, y) {
    const { steps } = this.scene.path, { t } = this.view;
    for (let k = 0; k < steps.length / 2; k++) {
      const [a, b] = t.to(steps[2 * k], steps[2 * k + 1]);
      if (Math.hypot(a - x, b - y) <= REACH) return k;
    }
    return -1;
  }

  /** Show what a click at a position would do, before it does. */
  hover = (at) => {
    const { scene, view } = this, choosing = at && scene.mode === "choose";
    const found = choosing ? this.choice.at(...at, this.#candidates(...at)) : null;
    const k = choosing && !found && this.on.onStep ? this.#stepAt(...at) : -1;
    if (found) this.#show(view.places()[found.star], clickText(found, scene.stars), scene.sizes[found.star]);
    else if (k >= 0) this.#show(at, stepText(k, scene.path.counts), REACH);
    else this.tip.hidden = true;
    this.frame.classList.toggle("on-star", Boolean(found) || k >= 0);
    scene.hovered = found;
    this.#tell(found ? found.star : null);
  };

  #tell(star) {
    if (star === this.told) return;
    this.told = star;
    this.on.onHover?.(star);
    this.redraw();
  }

  #show([x, y], text, radius) {
    const { tip } = this, { width } = this.view.t;
    tip.textContent = text;
    tip.hidden = false;
    const above = y - radius - tip.offsetHeight - 20;  // the star's own name stays in sight
    tip.style.left = `${Math.max(2, Math.min(x + 8, width - tip.offsetWidth - 2))}px`;
    tip.style.top = `${above > 2 ? above : y + radius + 20}px`;
  }

  #chosen(taken) {
    if (!taken) return;
    this.scene.active = taken.star;
    this.refit();
    this.on.onChoose?.(taken.star, taken.role, taken.replaced);
  }

  tap = (x, y, event) => {
    const { scene, choice } = this;
    if (this.drawing()) return this.deselect();
    if (scene.mode === "point") {
      const [a, b] = this.view.t.at(x, y), point = { x: a, y: b };
      const role = choice.takePoint(point, event.shiftKey);
      this.refit();
      return this.on.onPoint?.(point, role);
    }
    const found = choice.at(x, y, this.#candidates(x, y), event.shiftKey);
    if (found) this.#chosen(choice.take(found, x, y));
    else if (this.#stepAt(x, y) >= 0) this.on.onStep?.(this.#stepAt(x, y));
    this.hover([x, y]);
  };

  /** Remove the selection. */
  deselect() {
    if (this.scene.selected === null) return;
    Object.assign(this.scene, { outline: [], selected: null });
    this.redraw();
    this.on.onLasso?.(new Uint32Array(0));
  }

  outline = (phase, x, y) => {
    const { scene } = this, { t } = this.view;
    if (phase === "cancel") return this.#cancel();
    if (phase === "begin") {
      this.begun = t.at(x, y);
      Object.assign(scene, { outline: [...this.begun], selected: null });
    } else if (scene.mode === "box") {
      scene.outline = box(...this.begun, ...t.at(x, y));
    } else {
      const [a, b] = t.to(...scene.outline.slice(-2));
      if (Math.hypot(a - x, b - y) >= (phase === "end" ? 0.5 : SHORTEST)) scene.outline.push(...t.at(x, y));
    }
    this.redraw();
    if (phase !== "end") return;
    const rows = rowsInside(scene.points, scene.outline);
    scene.selected = rows.length;
    this.on.onLasso?.(rows);
  };

  #cancel() {
    Object.assign(this.scene, { outline: [], selected: null });
    this.redraw();
    this.on.onLasso?.(new Uint32Array(0));
  }

  key = (name) => {
    const { scene, view } = this, { t } = view;
    if (name === "Escape") {
      const there = scene.selected !== null;
      this.deselect();
      return there;
    }
    if (name === "Enter" || name === " ") {
      if (scene.active >= 0) this.#chosen(this.choice.byKey(scene.active));
      return true;
    }
    const factor = { "+": KEY_ZOOM, "=": KEY_ZOOM, "-": 1 / KEY_ZOOM }[name];
    if (factor) this.zoom(t.width / 2, t.height / 2, factor);
    else if (name === "0") this.#look(whole());
    else {
      const next = stepTo(name, scene.active, scene.order, view.places());
      if (next === undefined) return false;
      this.#goTo(next);
    }
    return true;
  };

  /** Move the keyboard's focus to a star, and the view if the star lies outside it. */
  #goTo(star) {
    const { scene, view } = this, { x, y } = scene.stars[star];
    scene.active = star;
    if (!visible(view.t, [x, y])) view.look({ zoom: view.state.zoom, x, y });
    this.list.focus(star);
    this.redraw();
    this.#show(view.places()[star], starText(scene.stars[star], this.choice.roles()[star]), scene.sizes[star]);
    this.#tell(star);
  }

  #look(state) {
    this.view.look(state);
    this.tip.hidden = true;
    this.redraw();
  }

  move = (dx, dy) => this.#look(moved(this.view.t, this.view.state, dx, dy));
  zoom = (x, y, factor) => this.#look(zoomed(this.view.t, this.view.state, x, y, factor));
  reset = (x, y) => {
    if (this.scene.mode !== "choose" || !this.#candidates(x, y).length) this.#look(whole());
  };

  focus = (focused) => {
    if (!focused) this.tip.hidden = true;
    this.#tell(null);
    this.redraw();
  };
}
