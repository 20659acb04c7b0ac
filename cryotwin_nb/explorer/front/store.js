// Maps of stars that have arrived, least recently used out first within a budget.
const BUDGET = 64 * 2 ** 20;  // bytes

export class StarMaps {
  #kept = new Map();
  #bytes = 0;

  /** @returns {{data: Int8Array, maps: object} | undefined} */
  get(star) {
    const found = this.#kept.get(star);
    if (found) {
      this.#kept.delete(star);
      this.#kept.set(star, found);
    }
    return found;
  }

  add(star, data, maps) {
    this.#bytes -= this.#kept.get(star)?.data.byteLength ?? 0;
    this.#kept.delete(star);
    this.#kept.set(star, { data, maps });
    this.#bytes += data.byteLength;
    for (const [oldest, { data: { byteLength } }] of this.#kept) {
      if (this.#bytes <= BUDGET || oldest === star) break;
      this.#kept.delete(oldest);
      this.#bytes -= byteLength;
    }
  }
}

/** What the scene needs to know of maps described by the kernel. */
export const scale = (maps) => ({ size: maps.size, voxelSize: maps.voxel ?? 1, offset: maps.offset, factor: maps.factor });

/** Share of a map's voxels at or above a density. */
export function enclosed(data, { offset, factor }, density) {
  const least = (density - offset) * factor;
  let above = 0;
  for (let i = 0; i < data.length; i++) above += data[i] >= least;
  return above / data.length;
}
