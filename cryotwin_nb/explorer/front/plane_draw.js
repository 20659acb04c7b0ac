// Draws everything above the points: axes, routes, path, stars, names, selection. Each function draws with a 2-D context.

import { niceLength } from "./plane_frame.js";
import { placeNames } from "./plane_stars.js";

const ROUTES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];  // Okabe and Ito's palette
const WIDEST = 14;  // px, width of a route that all particles take

/** Colours of a theme; those of start and end are lighter on a dark ground. */
export function palette(ink, muted, paper) {
  const dark = luminance(paper) < 0.4;
  return {
    ink, muted, paper, dark,
    start: dark ? "#56b4e9" : "#0072b2", end: dark ? "#ff8c42" : "#d55e00", way: dark ? "#2fd6a3" : "#009e73",
    step: "#cc79a7", focus: dark ? "#f0e442" : "#000000",
  };
}

function luminance(colour) {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
  return a === 0 ? 1 : (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
}

function trace(pen, t, curve, closed = false) {
  pen.beginPath();
  for (let i = 0; i < curve.length; i += 2) pen.lineTo(...t.to(curve[i], curve[i + 1]));
  if (closed) pen.closePath();
}

function disc(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
}

export function drawAxes(pen, t, { axes, unit }, colours) {
  pen.font = "11px sans-serif";
  pen.fillStyle = colours.muted;
  pen.textAlign = "center";
  pen.fillText(axes[0], t.width / 2, t.height - 7, t.width - 12);
  pen.save();
  pen.translate(14, t.height / 2);
  pen.rotate(-Math.PI / 2);
  pen.fillText(axes[1], 0, 0, t.height - 12);
  pen.restore();
  if (!unit) return;
  const length = niceLength(t.width / 4 / t.scale), right = t.width - 14;
  pen.fillRect(right - length * t.scale, 12, length * t.scale, 2);
  pen.textAlign = "right";
  pen.fillText(`${+length.toPrecision(2)} ${unit}`, right, 26);
}

/** All routes, the widest below; width = share. Returns their names as texts to place, where each is by itself. */
export function drawRoutes(pen, t, routes, colours) {
  const order = routes.map((_, r) => r).sort((a, b) => routes[b].share - routes[a].share);
  pen.lineJoin = pen.lineCap = "round";
  const names = [];
  for (const r of order) {
    const { curve, share, name, at } = routes[r], width = Math.max(1.5, WIDEST * share);
    trace(pen, t, curve);
    pen.strokeStyle = colours.paper;
    pen.lineWidth = width + 3;
    pen.stroke();
    pen.globalAlpha = 0.85;
    pen.strokeStyle = ROUTES[r % ROUTES.length];
    pen.lineWidth = width;
    pen.stroke();
    pen.globalAlpha = 1;
    if (!name || !curve.length) continue;
    const [x, y] = t.to(...at);
    names.push({ text: name, x, y, radius: width / 2 + 2, colour: colours.ink });
  }
  return names;
}

export function drawPath(pen, t, { curve, steps, counts }, stale, colours) {
  if (!curve.length) return;
  pen.lineJoin = pen.lineCap = "round";
  pen.globalAlpha = stale ? 0.75 : 1;
  trace(pen, t, curve);
  pen.strokeStyle = colours.paper;
  pen.lineWidth = 6;
  pen.stroke();
  pen.strokeStyle = stale ? colours.muted : colours.ink;
  pen.lineWidth = stale ? 1.5 : 2.5;
  pen.setLineDash(stale ? [5, 5] : []);
  pen.stroke();
  pen.setLineDash([]);
  for (let k = 0; k < steps.length / 2; k++) {
    disc(pen, ...t.to(steps[2 * k], steps[2 * k + 1]), 3.5);
    pen.fillStyle = colours.paper;
    pen.fill();
    pen.lineWidth = 1.5;
    pen.setLineDash(counts?.[k] === 0 ? [2, 2] : []);  // no particle near it
    pen.stroke();
    pen.setLineDash([]);
  }
  pen.globalAlpha = 1;
}

export function drawStep(pen, t, { steps }, k, stale, colours) {
  if (!(k >= 0 && 2 * k < steps.length)) return;
  disc(pen, ...t.to(steps[2 * k], steps[2 * k + 1]), 7);
  pen.fillStyle = stale ? colours.paper : colours.step;
  pen.strokeStyle = stale ? colours.muted : colours.ink;
  pen.lineWidth = 2;
  pen.fill();
  pen.stroke();
}

function star(pen, x, y, radius) {
  pen.beginPath();
  for (let corner = 0; corner < 10; corner++) {
    const angle = Math.PI * (corner / 5 - 0.5), r = corner % 2 ? 0.42 * radius : radius;
    pen.lineTo(x + r * Math.cos(angle), y + r * Math.sin(angle));
  }
  pen.closePath();
}

/** Stars, the heavy ones above the light ones, those with a role and the one to be taken on top; junk is crossed out. */
export function drawStars(pen, { stars, order, places, sizes, roles, hovered }, colours) {
  const rank = (i) => (i === hovered ? 2 : i in roles ? 1 : 0);
  pen.lineJoin = "round";
  for (const i of [...order].reverse().sort((a, b) => rank(a) - rank(b))) {
    const [x, y] = places[i], radius = sizes[i] + (i in roles ? 3 : 0), { junk } = stars[i];
    star(pen, x, y, radius);
    pen.strokeStyle = colours.paper;
    pen.lineWidth = 3.5;
    pen.stroke();
    pen.fillStyle = i in roles ? colours[roles[i]] : i === hovered ? "#f0e442" : colours.paper;
    pen.globalAlpha = i in roles || i === hovered ? 1 : 0.4;  // the points below stay in sight
    pen.fill();
    pen.globalAlpha = 1;
    pen.strokeStyle = junk ? colours.muted : colours.ink;
    pen.lineWidth = 1.2;
    pen.setLineDash(junk ? [2, 2] : []);
    pen.stroke();
    pen.setLineDash([]);
    if (!junk) continue;
    pen.beginPath();
    pen.moveTo(x - 5, y - 5);
    pen.lineTo(x + 5, y + 5);
    pen.moveTo(x + 5, y - 5);
    pen.lineTo(x - 5, y + 5);
    pen.stroke();
  }
}

/** Ends and way-points that are free points, as squares; returns their names as texts to place. */
export function drawFree(pen, t, free, colours) {
  return free.map(({ x, y, role, name }) => {
    const [px, py] = t.to(x, y);
    pen.fillStyle = colours[role];
    pen.strokeStyle = colours.ink;
    pen.lineWidth = 1.5;
    pen.fillRect(px - 5, py - 5, 10, 10);
    pen.strokeRect(px - 5, py - 5, 10, 10);
    return { text: name, x: px, y: py, radius: 7, must: true, colour: colours[role] };
  });
}

/** Write names beside their marks without overlap, the first ones first; returns those written. */
export function drawNames(pen, frame, names, stars, colours) {
  pen.font = "bold 12px sans-serif";
  pen.textAlign = "left";
  pen.lineJoin = "round";
  const wanted = names.map((name) => ({ ...name, width: pen.measureText(name.text).width }));
  const placed = placeNames(wanted, frame, stars);
  for (const { text, x, y, colour } of placed) {
    pen.strokeStyle = colours.paper;
    pen.lineWidth = 3.5;
    pen.strokeText(text, x, y);
    pen.fillStyle = colour ?? colours.ink;
    pen.fillText(text, x, y);
  }
  return placed.map((name) => name.text);
}

export function drawSelection(pen, t, outline, colours) {
  if (outline.length < 4) return;
  trace(pen, t, outline, true);
  pen.globalAlpha = 0.12;
  pen.fillStyle = colours.ink;
  pen.fill("nonzero");
  pen.globalAlpha = 1;
  pen.strokeStyle = colours.paper;
  pen.lineWidth = 3;
  pen.stroke();
  pen.strokeStyle = colours.ink;
  pen.lineWidth = 1.5;
  pen.setLineDash([5, 3]);
  pen.stroke();
  pen.setLineDash([]);
}

export function drawFocus(pen, x, y, radius, colours) {
  disc(pen, x, y, radius + 5);
  pen.strokeStyle = colours.paper;
  pen.lineWidth = 5;
  pen.stroke();
  pen.strokeStyle = colours.focus;
  pen.lineWidth = 2.5;
  pen.stroke();
}
