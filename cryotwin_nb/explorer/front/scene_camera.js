// The camera: a turn, a zoom and a shift, moved by mouse, touch and keys. It looks along -z, x to the right and y up.
import { Quaternion, Vector3 } from "three";

const KEY_TURN = Math.PI / 18, KEY_ZOOM = 1.15, KEY_SHIFT = 0.04, ZOOMS = [0.2, 40], SHIFTS = [-2, 2];
const RIGHT = new Vector3(1, 0, 0), UP = new Vector3(0, 1, 0), TOWARDS = new Vector3(0, 0, 1);
const within = (value, [low, high]) => Math.min(Math.max(value, low), high);

export class Camera {
  /**
   * @param {HTMLElement} element takes the events
   * @param {() => void} onMove the view must be drawn again
   * @param {() => void} onRest a movement has ended
   */
  constructor(element, onMove, onRest) {
    Object.assign(this, { element, onMove, onRest, turn: new Quaternion(), zoom: 1, shift: [0, 0], reach: 1 });
    this.pointers = new Map();
    this.listeners = new AbortController();
    const { signal } = this.listeners, listen = (name, act, more) =>
      element.addEventListener(name, act.bind(this), { signal, ...more });
    listen("pointerdown", this.down);
    listen("pointermove", this.move);
    listen("pointerup", this.up);
    listen("pointercancel", this.up);
    listen("wheel", this.wheel, { passive: false });
    listen("keydown", this.key);
    listen("dblclick", () => this.reset());
    listen("contextmenu", (event) => event.preventDefault());
  }

  get state() {
    const rounded = (value) => Math.round(value * 1e5) / 1e5;
    return { turn: this.turn.toArray().map(rounded), zoom: rounded(this.zoom), shift: this.shift.map(rounded) };
  }

  /** Shifts are in sides of the box; the state is checked, since it may come from a file. */
  set state({ turn, zoom, shift }) {
    const numbers = (values, n) => Array.isArray(values) && values.length === n && values.every(Number.isFinite);
    if (!numbers(turn, 4) || !Number.isFinite(zoom) || !numbers(shift, 2) || !(Math.hypot(...turn) > 1e-3)) {
      throw new Error("A camera has a turn of four numbers, a zoom and a shift of two numbers.");
    }
    this.turn.fromArray(turn).normalize();
    this.zoom = within(zoom, ZOOMS);
    this.shift = shift.map((value) => within(value, SHIFTS));
    this.onMove();
  }

  reset() {
    this.state = { turn: [0, 0, 0, 1], zoom: 1, shift: [0, 0] };
    this.onRest();
  }

  rotate(axis, angle) {
    this.turn.premultiply(new Quaternion().setFromAxisAngle(axis, angle)).normalize();
    this.onMove();
  }

  zoomBy(factor) {
    this.zoom = within(this.zoom * factor, ZOOMS);
    this.onMove();
  }

  /** Move the map by fractions of the view's height. */
  shiftBy(right, up) {
    this.shift = [right, up].map((by, i) => within(this.shift[i] + by * this.reach, SHIFTS));
    this.onMove();
  }

  down(event) {
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const spread = () => {
      const [[a, b], [c, d]] = [...this.pointers.values()];
      return Math.hypot(a - c, b - d) || 1;
    };
    const two = this.pointers.size === 2, former = two ? spread() : 1;
    const dx = event.clientX - before[0], dy = event.clientY - before[1], height = this.element.clientHeight || 1;
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (two) {
      this.zoomBy(spread() / former);
      this.shiftBy(dx / height / 2, -dy / height / 2);
    } else if (event.buttons & 6 || event.shiftKey) {
      this.shiftBy(dx / height, -dy / height);
    } else if (event.altKey) {
      this.rotate(TOWARDS, -dx / height * Math.PI);
    } else {
      const length = Math.hypot(dx, dy);
      if (length) this.rotate(new Vector3(dy / length, dx / length, 0), length / height * Math.PI);
    }
  }

  up(event) {
    if (this.pointers.delete(event.pointerId)) this.onRest();
  }

  /** The page scrolls unless the map has the focus or Ctrl is held. */
  wheel(event) {
    if (!event.ctrlKey && document.activeElement !== this.element && !this.element.matches(":focus")) return;
    event.preventDefault();
    this.zoomBy(Math.exp(-within(event.deltaY * (event.deltaMode ? 30 : 1), [-200, 200]) / 500));
    clearTimeout(this.wheeled);
    this.wheeled = setTimeout(this.onRest, 300);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (arrows && event.shiftKey) this.shiftBy(KEY_SHIFT * arrows[0], KEY_SHIFT * arrows[1]);
    else if (arrows && arrows[0]) this.rotate(UP, KEY_TURN * arrows[0]);
    else if (arrows) this.rotate(RIGHT, -KEY_TURN * arrows[1]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(KEY_ZOOM);
    else if (event.key === "-") this.zoomBy(1 / KEY_ZOOM);
    else if (event.key === "0" || event.key === "Home") return this.taken(event, this.reset());
    else return;
    this.taken(event, this.onRest());
  }

  /** The notebook must not act on the same key. */
  taken(event) {
    event.preventDefault();
    event.stopPropagation();
  }

  dispose() {
    clearTimeout(this.wheeled);
    this.listeners.abort();
  }
}
