// An atomic model in the map: atoms as balls, bonds as sticks.
import {
  Color, CylinderGeometry, Group, IcosahedronGeometry, InstancedMesh, MeshLambertMaterial, Object3D, Vector3,
} from "three";

const BALL = 0.25, STICK = 0.12;  // radii in mean lengths of bonds: of atoms, or of a trace of residues
const UP = new Vector3(0, 1, 0);

export class Model {
  constructor() { this.group = new Group(); }

  get shown() { return this.group.children.length > 0; }

  /** Lengths inside are Å from the centre of the first voxel. */
  place(voxelSize) { this.group.scale.setScalar(1 / voxelSize); }

  /**
   * @param {{positions: Float32Array, colours?: Uint8Array, bonds?: Uint32Array} | null} model positions (n, 3) in Å,
   * colours (n, 3) red, green, blue, and pairs of bonded atoms
   */
  set(model) {
    this.dispose();
    if (!model) return;
    const { positions, colours, bonds = new Uint32Array() } = model, n = positions.length / 3;
    if (!Number.isInteger(n) || (colours && colours.length !== 3 * n) || bonds.some((atom) => atom >= n)) {
      throw new Error("An atomic model has three coordinates and three colours an atom, and bonds between its atoms.");
    }
    const atom = (i) => new Vector3(positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]);
    const colour = new Color(), byte = (i, j) => (colours ? colours[3 * i + j] / 255 : 0.5);
    const painted = (mesh, at, i) => mesh.setColorAt(at, colour.setRGB(byte(i, 0), byte(i, 1), byte(i, 2)));
    const place = new Object3D();
    let long = 0;
    for (let i = 0; i < bonds.length; i += 2) long += atom(bonds[i]).distanceTo(atom(bonds[i + 1]));
    long = long / (bonds.length / 2) || 2;
    const ball = new IcosahedronGeometry(BALL * long, n > 5000 ? 0 : 1);
    const balls = new InstancedMesh(ball, new MeshLambertMaterial(), n);
    for (let i = 0; i < n; i++) {
      place.position.copy(atom(i));
      place.updateMatrix();
      balls.setMatrixAt(i, place.matrix);
      painted(balls, i, i);
    }
    const halves = bonds.length;  // each half of a bond has the colour of its atom
    const stick = new CylinderGeometry(STICK * long, STICK * long, 1, 6, 1, true);
    const sticks = new InstancedMesh(stick, new MeshLambertMaterial(), halves);
    for (let i = 0; i < halves; i++) {
      const from = atom(bonds[i]), half = atom(bonds[i ^ 1]).sub(from).multiplyScalar(0.5);
      place.position.copy(from).addScaledVector(half, 0.5);
      place.scale.set(1, half.length() || 1e-6, 1);
      place.quaternion.setFromUnitVectors(UP, half.normalize());
      place.updateMatrix();
      sticks.setMatrixAt(i, place.matrix);
      painted(sticks, i, bonds[i]);
    }
    for (const mesh of [balls, sticks]) mesh.frustumCulled = false;
    this.group.add(balls, sticks);
  }

  dispose() {
    for (const mesh of [...this.group.children]) {
      this.group.remove(mesh);
      mesh.geometry.dispose();
      mesh.material.dispose();
      mesh.dispose();
    }
  }
}
