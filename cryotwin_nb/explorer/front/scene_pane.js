// One half of the view: the surfaces of a map, the start and the changes over it, a slice and an atomic model.
import {
  AmbientLight, BufferGeometry, DirectionalLight, DoubleSide, Fog, FrontSide, Group, Mesh, MeshLambertMaterial,
  MeshPhongMaterial, Plane, Scene, Vector3,
} from "three";
import { COLOURS } from "./scene_colour.js";
import { Model } from "./scene_model.js";
import { Slice } from "./scene_slice.js";

const NOTHING = new BufferGeometry();
const BEHIND = 0.6;  // voxels; where the start is as it is now, it is hidden instead of shining through in patches

export class Pane {
  constructor() {
    this.scene = new Scene();
    this.scene.fog = new Fog("white", 1, 2);
    this.turned = new Group();  // turned by the camera's quaternion: lights stay with the viewer
    this.centred = new Group();  // in voxels, the box's centre at the origin
    this.scene.add(this.turned, new AmbientLight("white", 1.15));
    this.turned.add(this.centred);
    for (const [strength, ...place] of [[2.1, -0.5, 0.8, 1], [0.5, 0.9, -0.3, 0.6]]) {
      const light = new DirectionalLight("white", strength);
      light.position.set(...place);
      this.scene.add(light);
    }
    const seeThrough = { transparent: true, depthWrite: false };
    this.surface = this.mesh(new MeshPhongMaterial({ color: COLOURS.surface, specular: "#202428", shininess: 25 }), 0);
    this.start = this.mesh(new MeshLambertMaterial({ color: "#333333", opacity: 0.3, ...seeThrough }), 3);
    this.gained = this.mesh(new MeshLambertMaterial({ color: COLOURS.gained, opacity: 0.85, transparent: true }), 2);
    this.lost = this.mesh(new MeshLambertMaterial({ color: COLOURS.lost, opacity: 0.85, transparent: true }), 2);
    this.meshes = [this.surface, this.start, this.gained, this.lost];
    this.slice = new Slice();
    this.model = new Model();
    this.centred.add(this.slice.mesh, this.model.group);
    this.clip = new Plane();
    this.scale = null;
  }

  mesh(material, order) {
    const mesh = new Mesh(NOTHING, material);
    Object.assign(mesh, { renderOrder: order, visible: false, frustumCulled: false });
    this.centred.add(mesh);
    return mesh;
  }

  /** Show a surface in one of the meshes, or hide it. */
  put(name, geometry) {
    const mesh = this[name];
    if (mesh.geometry !== geometry && mesh.geometry.userData.dropped) mesh.geometry.dispose();
    mesh.visible = Boolean(geometry);
    mesh.geometry = geometry ?? NOTHING;
  }

  /** Colour the surface by the colours of its vertices. */
  painted(yes) {
    const { material } = this.surface;
    if (material.vertexColors === yes) return;
    material.vertexColors = yes;
    material.color.set(yes ? "white" : this.colour ?? COLOURS.surface);
    material.needsUpdate = true;
  }

  /** Where voxels are: the box's centre is the origin, and lengths are Å. */
  place({ size, voxelSize }) {
    this.scale = { size, voxelSize };
    this.centred.scale.setScalar(voxelSize);
    this.centred.position.setScalar(-voxelSize * (size - 1) / 2);
    this.model.place(voxelSize);
  }

  theme({ fog, dark }) {
    this.scene.fog.color.set(fog);
    this.start.material.color.set(dark ? "#e8e8e8" : "#333333");
  }

  /** Ready to be drawn, turned by `quaternion`; a slice cuts away what lies between it and the viewer. */
  ready(quaternion) {
    this.turned.quaternion.copy(quaternion);
    this.start.position.set(0, 0, -BEHIND).applyQuaternion(quaternion.clone().invert());
    this.surface.material.opacity = this.model.shown ? 0.35 : 1;
    this.surface.material.depthWrite = !this.model.shown;
    if (this.surface.material.transparent !== this.model.shown) {
      this.surface.material.transparent = this.model.shown;
      this.surface.material.needsUpdate = true;
    }
    const cut = this.slice.at && this.scale;
    if (cut) {
      const { axis, voxel } = this.slice.at;
      const normal = new Vector3().setComponent(axis, 1).applyQuaternion(quaternion);
      const point = new Vector3().setComponent(axis, (voxel - (this.scale.size - 1) / 2) * this.scale.voxelSize);
      if (normal.z > 0) normal.negate();
      this.clip.setFromNormalAndCoplanarPoint(normal, point.applyQuaternion(quaternion));
    }
    for (const { material } of this.meshes) {
      const planes = cut ? [this.clip] : null, side = cut ? DoubleSide : FrontSide;
      if (Boolean(material.clippingPlanes) !== Boolean(planes)) material.needsUpdate = true;
      Object.assign(material, { clippingPlanes: planes, side });
    }
  }

  dispose() {
    for (const { material } of this.meshes) material.dispose();
    this.slice.dispose();
    this.model.dispose();
  }
}
