// The canvas: one or two panes drawn with one camera, only when something has changed, and what is written over them.
import { ColorManagement, LinearSRGBColorSpace, OrthographicCamera, WebGLRenderer } from "three";
import { Camera } from "./scene_camera.js";
import { drawOverlay } from "./scene_overlay.js";
import { Pane } from "./scene_pane.js";

const FILL = 0.8;  // part of the box that the smaller side of a pane shows: molecules do not fill their boxes
const REST = 1500;  // ms after the last change until edges are smoothed in software, which holds up the next step
const NO_WEBGL = "this browser offers no WebGL 2. Everything else works.";

ColorManagement.enabled = false;  // colours are shown as they are given

let software;

/** Whether maps are drawn by the processor: then smooth edges take more than twice the time, and wait for a rest. */
function inSoftware() {
  const context = document.createElement("canvas").getContext("webgl2");
  if (!context) return false;
  const known = context.getExtension("WEBGL_debug_renderer_info");
  const name = context.getParameter(known ? known.UNMASKED_RENDERER_WEBGL : context.RENDERER);
  context.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

export class View {
  /** @param {{before: () => void, after: () => void, onMove, onRest, onError}} events */
  constructor(element, events) {
    Object.assign(this, { element, events, panes: [new Pane()], shown: 1, frame: 0, frames: 0, captions: [] });
    this.canvas = document.createElement("canvas");
    this.software = software ??= inSoftware();
    const wanted = { antialias: !this.software, alpha: true, powerPreference: "low-power" };
    const context = this.canvas.getContext("webgl2", wanted);
    if (!context) throw new Error(NO_WEBGL);
    this.renderer = new WebGLRenderer({ canvas: this.canvas, context });
    this.renderer.outputColorSpace = LinearSRGBColorSpace;
    Object.assign(this.renderer, { localClippingEnabled: true, autoClear: false });
    this.renderer.setClearColor(0, 0);
    this.over = document.createElement("canvas");
    this.place = document.createElement("div");
    this.place.className = "cryotwin-scene";
    this.place.append(this.canvas, this.over);
    Object.assign(this.place, { tabIndex: 0, title: "Drag to turn, Shift and drag to move, Ctrl and wheel to zoom" });
    this.place.setAttribute("role", "application");
    this.place.setAttribute("aria-roledescription", "density map");
    this.place.dataset.lmSuppressShortcuts = "true";  // keys of the map are not JupyterLab's
    this.describe("Density map");
    element.append(this.place);
    this.lens = new OrthographicCamera();
    this.camera = new Camera(this.place, () => { this.request(); events.onMove?.(); }, () => events.onRest());
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      events.onError(new Error("The browser took the graphics memory away; the maps come back when it returns it."));
    });
    this.canvas.addEventListener("webglcontextrestored", () => this.request());
    this.watcher = new ResizeObserver(() => this.resize());
    this.watcher.observe(this.place);
    Object.assign(this, { width: 0, height: 0 });  // until the watcher reports
    this.theme({});
    this.renderer.compile(this.panes[0].scene, this.lens);
  }

  describe(what) {
    this.place.setAttribute("aria-label", `${what}. Arrow keys turn it, plus and minus zoom, 0 resets.`);
  }

  /** The panes that are drawn; the second is made when it is first needed. */
  split(two) {
    if (two && !this.panes[1]) {
      this.panes[1] = new Pane();
      this.theme({});
    }
    this.shown = two ? 2 : 1;
    this.request();
  }

  /** @param {{background?: string, text?: string}} colours any CSS colours, variables too */
  theme({ background, text }) {
    if (background) this.place.style.backgroundColor = background;
    if (text) this.place.style.color = text;
    const { backgroundColor, color } = getComputedStyle(this.place);
    const clear = /^(transparent|rgba\(.*, 0\))$/.test(backgroundColor);
    const [red, green, blue] = (color.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
    const dark = red + green + blue > 384;  // bright text stands on a dark ground
    Object.assign(this, { text: color, background: clear ? null : backgroundColor });
    for (const pane of this.panes) pane.theme({ fog: clear ? (dark ? "#202020" : "#ffffff") : backgroundColor, dark });
    this.request();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.place;
    Object.assign(this, { width, height });
    if (!width || !height) return;
    this.coarse = Math.min(window.devicePixelRatio || 1, 2);
    this.pixels(this.coarse);
    this.draw();
  }

  pixels(ratio) {
    this.ratio = ratio;
    this.renderer.setPixelRatio(ratio);
    this.renderer.setSize(this.width, this.height, false);
    Object.assign(this.over, { width: this.width * ratio, height: this.height * ratio });
  }

  /** Draw before the next frame of the screen. */
  request() {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.rest);
    this.frame = 0;
    if (!this.width || !this.height || this.gone) return;
    if (this.ratio !== this.coarse) this.pixels(this.coarse);
    this.render();
    this.frames++;
    if (this.software && this.coarse < 2) this.rest = setTimeout(() => this.finely(() => {}), REST);
    this.events.after();
  }

  /** Draw twice as finely, which smooths edges, and use the result. */
  finely(use) {
    if (this.gone || !this.width || !this.height) return;
    this.pixels(2);
    this.render();
    use();
  }

  render() {
    this.events.before();
    const wide = this.width / this.shown, scale = this.panes[0].scale;
    const box = scale ? scale.size * scale.voxelSize : 1, { zoom, shift, turn } = this.camera;
    const high = box * FILL / zoom / Math.min(1, wide / this.height), half = high / 2, side = half * wide / this.height;
    this.camera.reach = high / box;
    const [right, up] = shift.map((value) => value * box);
    Object.assign(this.lens, { left: -side - right, right: side - right, top: half - up, bottom: -half - up });
    Object.assign(this.lens, { near: 0.01 * box, far: 4 * box });
    this.lens.position.z = 2 * box;
    this.lens.updateProjectionMatrix();
    this.renderer.setScissorTest(false);
    this.renderer.clear();
    this.renderer.setScissorTest(true);
    for (const [i, pane] of this.panes.slice(0, this.shown).entries()) {
      pane.ready(turn);
      Object.assign(pane.scene.fog, { near: 1.7 * box, far: 3.2 * box });
      this.renderer.setViewport(i * wide, 0, wide, this.height);
      this.renderer.setScissor(i * wide, 0, wide, this.height);
      this.renderer.render(pane.scene, this.lens);
    }
    const context = this.over.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.bar = drawOverlay(context, {
      width: this.width, height: this.height, pixelsPerAngstrom: scale ? this.height / high : 0, text: this.text,
      ground: this.background ?? "rgba(0, 0, 0, 0)", quaternion: turn, paint: this.paint, panes: this.shown,
      captions: this.captions, unit: this.unit ?? "Å",
    });
  }

  /** The view as a PNG, twice as fine as on the screen. @returns {Promise<Blob>} */
  async picture() {
    if (!this.width || !this.height) throw new Error("The maps are not on the screen, so there is no picture of them.");
    const result = document.createElement("canvas"), context = result.getContext("2d");
    this.finely(() => {
      Object.assign(result, { width: this.over.width, height: this.over.height });
      context.fillStyle = this.background ?? "rgba(0, 0, 0, 0)";
      context.fillRect(0, 0, result.width, result.height);
      context.drawImage(this.canvas, 0, 0, result.width, result.height);
      context.drawImage(this.over, 0, 0);
    });
    return new Promise((done, failed) => result.toBlob(
      (blob) => (blob ? done(blob) : failed(new Error("The browser could not write the picture."))), "image/png"));
  }

  dispose() {
    this.gone = true;
    cancelAnimationFrame(this.frame);
    clearTimeout(this.rest);
    this.watcher.disconnect();
    this.camera.dispose();
    for (const pane of this.panes) pane.dispose();
    this.renderer.dispose();
    this.renderer.forceContextLoss();
    this.place.remove();
  }
}
