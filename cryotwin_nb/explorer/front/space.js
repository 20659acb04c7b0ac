// Latents of all particles, with which the page draws any linear plane by itself, and colours by any column.
import { own } from "./link.js";

export class Space {
  constructor() {
    Object.assign(this, { planes: {}, latents: null, palettes: new Map() });
  }

  take({ planes }, [latents]) {
    Object.assign(this, { planes, latents: own(Float32Array, latents) });
  }

  keep({ colour, legend }, rgb) {
    this.palettes.set(colour, { legend, rgb });
  }

  /** Positions (m, 2) in a plane of latents (m, d), both flat. @param {{matrix: number[][], centre: number[]}} plane */
  static project({ matrix, centre }, latents) {
    const dim = matrix.length, found = new Float32Array(2 * latents.length / dim);
    for (let i = 0, from = 0; i < found.length; i += 2, from += dim) {
      let x = 0, y = 0;
      for (let k = 0; k < dim; k++) {
        const value = latents[from + k] - centre[k];
        x += value * matrix[k][0];
        y += value * matrix[k][1];
      }
      found[i] = x;
      found[i + 1] = y;
    }
    return found;
  }

  /** Paths of a result in a plane, as the kernel draws them; null without a result. */
  path(plane, result) {
    if (!result) return null;
    const pairs = (latents) => {
      const flat = Space.project(plane, latents.flat());
      return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
    };
    const routes = result.routes.map((route, r) => ({ ...route, curve: pairs(result.latents[r]) }));
    return { version: result.version, chosen: result.chosen, routes, steps: pairs(result.points) };
  }

  /** A plane with its points, the paths and free points in it, or null if it is left to the kernel. */
  draw(name, result, free) {
    const plane = this.planes[name];
    if (!plane || !this.latents) return null;
    const places = free.map((latent) => [latent, [...Space.project(plane, latent)]]);
    return { plane, path: this.path(plane, result), places, points: Space.project(plane, this.latents) };
  }
}
