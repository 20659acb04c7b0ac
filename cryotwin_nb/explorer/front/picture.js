// The picture for readers without a kernel, from the browser's own canvases.

const WIDTH = 960, MOST = 400_000;  // px; bytes

const loaded = (blob) => blob ? createImageBitmap(blob) : null;

async function drawing(svg) {
  if (!svg.childElementCount) return null;
  const copy = svg.cloneNode(true), all = [svg, ...svg.querySelectorAll("*")], copies = [copy, ...copy.querySelectorAll("*")];
  all.forEach((one, i) => {
    const look = getComputedStyle(one);
    for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray", "paint-order", "font"]) copies[i].style.setProperty(name, look.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  await image.decode();
  return image;
}

/**
 * Plane and map side by side, the profile below.
 * @param {Blob | null} plane @param {Blob | null} map @param {SVGElement} profile @param {string} caption
 * @returns {Promise<Blob>} a PNG
 */
export async function picture(plane, map, profile, caption, colours) {
  const parts = [await loaded(plane), await loaded(map)], below = await drawing(profile);
  const half = WIDTH / 2, tall = Math.round(half * 0.75), lower = below ? Math.round(WIDTH * below.height / below.width) : 0;
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  for (let scale = 1; ; scale *= 0.8) {
    canvas.width = WIDTH * scale;
    canvas.height = (tall + 20 + lower) * scale;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.fillStyle = colours.background;
    pen.fillRect(0, 0, WIDTH, tall + 20 + lower);
    parts.forEach((part, i) => {
      if (!part) return;
      const fit = Math.min(half / part.width, tall / part.height), [w, h] = [fit * part.width, fit * part.height];
      pen.drawImage(part, i * half + (half - w) / 2, (tall - h) / 2, w, h);
    });
    pen.fillStyle = colours.text;
    pen.font = "13px sans-serif";
    pen.fillText(caption, half + 8, tall + 14);
    if (below) pen.drawImage(below, 0, tall + 20, WIDTH, lower);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    if (blob.size < MOST || scale < 0.3) return blob;
  }
}
