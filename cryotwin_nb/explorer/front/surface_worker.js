// Contours maps away from the page's own thread (see scene_surfaces.js).
import { dust, isosurface } from "./surface.js";

self.onmessage = ({ data: { number, values, size, level, least } }) => {
  let mesh = isosurface(values, size, level);
  if (least) mesh = dust(mesh, least);
  self.postMessage({ number, mesh }, Object.values(mesh).map((array) => array.buffer));
};
