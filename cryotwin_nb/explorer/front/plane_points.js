// Draws any number of points into an image: pure functions, no DOM.

const FULL = 0.9;  // opacity where the points are dense: at this percentile of the occupied pixels
const DENSE = 0.95;
const FAINTEST = 0.14, STRONGEST = 0.8;  // opacity of a single point
const FEW = 20_000;  // up to so many points, single ones stay in sight however dense the others are

/**
 * Draw points as smooth discs. Where discs overlap the colour is their mean, so that the order of the points does not
 * matter, and the opacity grows with their number; a single point is the fainter the more points overlap.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} image  overwritten
 * @param {Float32Array} points  (n, 2) in the plane's coordinates; points that are not finite are left out
 * @param {Uint8Array} colours  (n, 3)
 * @param {{left: number, top: number, scale: number}} t  transform to the pixels of the image
 * @param {number} ratio  pixels of the image per px
 * @param {Float32Array} [sums]  working memory of 4 values a pixel, overwritten
 * @returns {{outside: number, opacity: number}}  points beyond the image; opacity of a single point
 */
export function rasterise(image, points, colours, t, ratio, sums = new Float32Array(4 * image.width * image.height)) {
  const { width, height } = image, n = points.length / 2;
  const inside = count(points, t, width, height);
  const radius = ratio * Math.min(2.6, 0.8 + 40 / Math.sqrt(Math.max(inside, 1)));
  sums.fill(0);
  for (let i = 0; i < n; i++) {
    const x = t.left + t.scale * points[2 * i], y = t.top - t.scale * points[2 * i + 1];
    if (!(x > -radius && y > -radius && x < width + radius && y < height + radius)) continue;
    const x0 = Math.max(0, Math.ceil(x - radius - 1)), x1 = Math.min(width - 1, Math.floor(x + radius));
    const y0 = Math.max(0, Math.ceil(y - radius - 1)), y1 = Math.min(height - 1, Math.floor(y + radius));
    for (let b = y0; b <= y1; b++) {
      for (let a = x0; a <= x1; a++) {
        const u = a + 0.5 - x, v = b + 0.5 - y;
        const cover = Math.min(1, radius + 0.5 - Math.sqrt(u * u + v * v));
        if (cover <= 0) continue;
        const at = 4 * (b * width + a);
        sums[at] += cover * colours[3 * i];
        sums[at + 1] += cover * colours[3 * i + 1];
        sums[at + 2] += cover * colours[3 * i + 2];
        sums[at + 3] += cover;
      }
    }
  }
  const faintest = Math.min(0.5, FAINTEST * Math.max(1, Math.sqrt(5 * FEW / Math.max(inside, 1))));
  const opacity = Math.min(STRONGEST, Math.max(faintest, 1 - (1 - FULL) ** (1 / Math.max(overlap(sums), 1))));
  const rate = Math.log1p(-opacity), data = image.data;
  for (let at = 0; at < data.length; at += 4) {
    const cover = sums[at + 3];
    if (cover === 0) {
      data[at + 3] = 0;
      continue;
    }
    data[at] = sums[at] / cover;
    data[at + 1] = sums[at + 1] / cover;
    data[at + 2] = sums[at + 2] / cover;
    data[at + 3] = -255 * Math.expm1(rate * cover);
  }
  return { outside: n - inside, opacity };
}

function count(points, t, width, height) {
  let inside = 0;
  for (let i = 0; i < points.length; i += 2) {
    const x = t.left + t.scale * points[i], y = t.top - t.scale * points[i + 1];
    if (x >= 0 && y >= 0 && x < width && y < height) inside++;
  }
  return inside;
}

/** How many points lie over each other in the dense pixels. */
function overlap(sums) {
  const pixels = sums.length / 4, stride = Math.max(1, Math.floor(pixels / 100_000));
  const found = [];
  for (let i = 0; i < pixels; i += stride) if (sums[4 * i + 3] > 0) found.push(sums[4 * i + 3]);
  if (!found.length) return 1;
  return Float32Array.from(found).sort()[Math.floor(DENSE * (found.length - 1))];
}
