// A section through a map: its density in grey on a plane of the box.
import { BufferAttribute, BufferGeometry, DataTexture, DoubleSide, LinearFilter, Mesh, MeshBasicMaterial } from "three";

const AROUND = 200, RIM = 24;  // opacity outside the surface, of 255; levels over which it rises

export class Slice {
  constructor() {
    this.material = new MeshBasicMaterial({ side: DoubleSide, fog: false, transparent: true, depthWrite: false });
    this.mesh = new Mesh(new BufferGeometry(), this.material);
    this.mesh.geometry.setAttribute("uv", new BufferAttribute(Float32Array.of(0, 0, 1, 0, 1, 1, 0, 1), 2));
    this.mesh.geometry.setIndex([0, 1, 2, 0, 2, 3]);
    Object.assign(this.mesh, { visible: false, frustumCulled: false, renderOrder: 1 });
    this.at = null;
  }

  /** Show the section across an axis (0, 1, 2) at a fraction of the box, or none; below the level it is see-through. */
  show(volume, where, level) {
    this.mesh.visible = Boolean(volume && where);
    this.at = null;
    if (!this.mesh.visible) return;
    const { values, size } = volume, { axis, position } = where;
    const voxel = Math.round(Math.min(Math.max(position, 0), 1) * (size - 1));
    this.at = { axis, voxel };
    const across = [0, 1, 2].filter((other) => other !== axis), strides = [1, size, size * size];
    const [lower, upper] = [-0.5, size - 0.5];
    const corners = [[lower, lower], [upper, lower], [upper, upper], [lower, upper]].flatMap(([u, v]) => {
      const place = [voxel, voxel, voxel];
      [place[across[0]], place[across[1]]] = [u, v];
      return place;
    });
    this.mesh.geometry.setAttribute("position", new BufferAttribute(Float32Array.from(corners), 3));
    volume.highest ??= values.reduce((most, value) => Math.max(most, value), -127);
    const scale = 255 / (volume.highest + 128);  // the densest voxel of the map is white
    const pixels = new Uint8Array(4 * size * size), [u, v] = across.map((other) => strides[other]);
    for (let j = 0, to = 0; j < size; j++) {
      for (let i = 0, from = voxel * strides[axis] + j * v; i < size; i++, from += u) {
        pixels[to++] = pixels[to++] = pixels[to++] = (values[from] + 128) * scale;
        pixels[to++] = AROUND + (255 - AROUND) * Math.min(Math.max((values[from] - level) / RIM + 0.5, 0), 1);
      }
    }
    this.texture(pixels, size);
  }

  texture(pixels, size) {
    if (this.material.map?.image.width === size) {
      this.material.map.image.data.set(pixels);
    } else {
      this.material.map?.dispose();
      this.material.map = new DataTexture(pixels, size, size);
      Object.assign(this.material.map, { magFilter: LinearFilter, minFilter: LinearFilter });
      this.material.needsUpdate = true;
    }
    this.material.map.needsUpdate = true;
  }

  dispose() {
    this.mesh.geometry.dispose();
    this.material.map?.dispose();
    this.material.dispose();
  }
}
