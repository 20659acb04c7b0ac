// Surfaces of maps, cached within a budget of memory; those that may be shown next are made in a Web Worker.
import { BufferAttribute, BufferGeometry } from "three";
import { dust, isosurface } from "./surface.js";

/* global SURFACE_WORKER */
const workerSource = typeof SURFACE_WORKER === "string" ? SURFACE_WORKER : null;  // put in by build.mjs

const PAUSE = 120;  // ms after the last change: while a slider moves, the surfaces of other steps wait

/**
 * @typedef {{key: string, size: number, level: number, least: number, values: () => Int8Array}} Recipe
 * What a surface is made from; `least` voxels is the size below which parts are dust (0: all are kept).
 */

export class Surfaces {
  /** @param {number} budget bytes, in the page and on the graphics card together */
  constructor(budget) {
    Object.assign(this, { budget, bytes: 0, turn: 0, waiting: [], wanted: new Set(), running: null });
    this.kept = new Map();  // from the least to the most recently used
    this.worker = startWorker((message) => this.arrived(message), () => {
      this.worker = this.running = null;
      this.next();
    });
  }

  /** Surfaces asked for from now on, until the next call, are not dropped. */
  begin() { this.turn++; }

  has(recipe) { return this.kept.has(recipe.key); }

  /** The surface of a recipe, made now unless it is kept. @param {Recipe} recipe @returns {BufferGeometry} */
  get(recipe) {
    const entry = this.kept.get(recipe.key) ?? this.keep(recipe.key, contour(recipe));
    this.kept.delete(recipe.key);
    this.kept.set(recipe.key, entry);
    entry.turn = this.turn;
    this.trim();
    return entry.geometry;
  }

  /** Make these surfaces in the background, in this order, while there is room; those asked before are forgotten. */
  prepare(recipes) {
    this.waiting = recipes.filter((recipe) => !this.has(recipe));
    this.wanted = new Set(recipes.map((recipe) => recipe.key));
    clearTimeout(this.rest);
    this.rest = setTimeout(() => this.next(), PAUSE);
  }

  next() {
    if (this.running || !this.waiting.length || !this.roomForMore()) return;
    const recipe = this.waiting.shift();
    if (this.has(recipe)) return this.next();
    this.running = recipe;
    if (this.worker) {
      const { size, level, least, key } = recipe;
      this.worker.postMessage({ number: key, values: recipe.values(), size, level, least });
    } else {
      this.idle = setTimeout(() => this.arrived({ number: recipe.key, mesh: contour(recipe) }), 30);
    }
  }

  arrived({ number, mesh }) {
    const current = this.running?.key === number;
    if (current) this.running = null;
    if (current && this.wanted.has(number) && !this.kept.has(number)) this.keep(number, mesh);
    this.trim();
    this.next();
  }

  /** Whether one more surface fits beside those that are shown or may be next. */
  roomForMore() {
    const used = [...this.kept].filter(([key, entry]) => this.wanted.has(key) || entry.turn === this.turn);
    const bytes = used.reduce((sum, [, entry]) => sum + entry.bytes, 0);
    return bytes + bytes / Math.max(used.length, 1) <= this.budget;
  }

  keep(key, mesh) {
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", new BufferAttribute(mesh.positions, 3));
    geometry.setAttribute("normal", new BufferAttribute(mesh.normals, 3));
    geometry.setIndex(new BufferAttribute(mesh.indices, 1));
    const bytes = 2 * Object.values(mesh).reduce((sum, array) => sum + array.byteLength, 0);
    const entry = { geometry, bytes, turn: -1 };
    this.kept.set(key, entry);
    this.bytes += bytes;
    return entry;
  }

  trim() {
    const order = [...this.kept].filter(([, entry]) => entry.turn !== this.turn);
    const unwanted = ([key]) => !this.wanted.has(key);
    for (const [key] of [...order.filter(unwanted), ...order.filter((one) => !unwanted(one))]) {
      if (this.bytes <= this.budget) return;
      this.drop(key);
    }
  }

  drop(key) {
    const { geometry, bytes } = this.kept.get(key);
    geometry.dispose();
    geometry.userData.dropped = true;  // a pane that still shows it disposes of it in the end
    this.bytes -= bytes;
    this.kept.delete(key);
  }

  /** Forget the surfaces of maps that are gone. @param {(key: string) => boolean} gone */
  forget(gone) {
    for (const key of [...this.kept.keys()]) if (gone(key)) this.drop(key);
    this.waiting = this.waiting.filter((recipe) => !gone(recipe.key));
  }

  dispose() {
    this.waiting = [];
    clearTimeout(this.rest);
    clearTimeout(this.idle);
    this.worker?.terminate();
    this.worker = null;
    this.forget(() => true);
  }
}

function contour({ values, size, level, least }) {
  const mesh = isosurface(values(), size, level);
  return least ? dust(mesh, least) : mesh;
}

/** The worker, or null where a page may not start one: then surfaces are made in pauses of the page's own thread. */
function startWorker(onMessage, onFailure) {
  if (!workerSource) return null;
  const address = URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" }));
  try {
    const worker = new Worker(address);
    worker.onmessage = ({ data }) => onMessage(data);
    worker.onerror = (event) => { event.preventDefault(); worker.terminate(); onFailure(); };
    return worker;
  } catch {
    return null;
  } finally {
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }
}
