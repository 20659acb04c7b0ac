// The explorer's controls, as elements by name; app.js defines what they do.
import { button, check, element, fill, labelled, menu, number, range } from "./dom.js";

const SIGMA = { min: 0.5, max: 15, step: 0.1 };
const SLICES = [["", "no slice"], ["x", "slice x"], ["y", "slice y"], ["z", "slice z"]];
const BESIDE = [["", "one map"], ["start", "beside the first map"], ["map", "beside this map"], ["path", "beside this path"]];
const MODES = [["choose", "stars"], ["lasso", "lasso"], ["box", "box"], ["point", "any point"]];

/** Choice of one of few, as radio buttons. */
function choices(name, options, title, changed) {
  const group = element("span", { class: "choices", role: "radiogroup", "aria-label": title, title });
  const id = `cryotwin-${name}-${Math.random().toString(36).slice(2)}`;
  for (const [value, text] of options) {
    const radio = element("input", { type: "radio", name: id, value, checked: value === options[0][0], on: { change: () => changed(value) } });
    group.append(element("label", {}, radio, element("span", { text })));
  }
  return group;
}

/** @param {object} setup of the kernel @param {Record<string, Function>} act @returns {Record<string, HTMLElement>} */
export function panels(setup, act) {
  const p = {};
  path(p, setup, act);
  plane(p, setup, act);
  map(p, act);
  below(p, setup, act);
  p.root = element("div", { class: "cryotwin-explorer" },
    p.pathRow,
    element("div", { class: "halves" }, p.left, p.right),
    p.profileRow, p.selection, p.outputRow, p.status);
  keepKeys(p.root);
  return p;
}

/** Keys that a control uses must not also be the notebook's: its shortcuts take the arrows from a slider. */
function keepKeys(root) {
  for (const control of root.querySelectorAll("input, select, button, summary")) control.dataset.lmSuppressShortcuts = "true";
  root.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.altKey || event.stopPropagation());
}

function path(p, setup, act) {
  p.start = menu((value) => act.end("start", value));
  p.end = menu((value) => act.end("end", value));
  p.method = menu((value) => act.setting("method", value), setup.methods.map((name) => [name, name]));
  p.nSteps = number(11, { min: 2, max: 1000, step: 1 }, (value) => act.setting("n_steps", Math.round(value)));
  p.omega = number(2, { min: 1.01, max: 100, step: 0.1 }, (value) => act.setting("omega", value));
  p.seed = number(0, { min: 0, max: 2 ** 31 - 1, step: 1 }, (value) => act.setting("seed", Math.round(value)));
  p.compute = button("Compute", "Compute the path and its maps", act.compute, { class: "primary" });
  p.stop = button("Stop", "Stop computing", act.stop);
  p.undo = button("Undo", "Show the path before this one again", act.undo);
  p.ways = element("span", { class: "ways" });
  p.way = check("Way-points", "Clicks on stars add way-points of the path instead of its ends", act.way);
  p.more = element("details", { class: "more" }, element("summary", { text: "Settings" }),
    element("div", {}, labelled("Steps K", p.nSteps, "Number of steps: K + 1 maps"),
      labelled("ω", p.omega, "Parameter of Algorithm 1: larger values make the path less continuous"),
      labelled("Seed", p.seed, "Seed of the random samples")));
  p.pathRow = element("div", { class: "row" },
    labelled("Start", p.start), button("⇄", "Swap start and end", act.swap, { name: "Swap start and end" }), labelled("End", p.end),
    p.way.field, p.ways, labelled("Method", p.method), p.compute, p.stop, p.undo, p.more);
}

function plane(p, setup, act) {
  p.planeMenu = menu(act.plane, setup.planes.map((name) => [name, name]));
  p.colourMenu = menu(act.colour, setup.columns.map((name) => [name, name]));
  p.mode = choices("mode", MODES, "What a click or drag in the plane selects", act.mode);
  p.small = check("Small stars", "Show components with less than 0.5% of the particles", act.small);
  p.plane = element("div", { class: "plane" });
  p.legend = element("div", { class: "legend" });
  p.left = element("section", { class: "half", "aria-label": "Latent space" },
    element("div", { class: "row" }, labelled("Plane", p.planeMenu), labelled("Colour", p.colourMenu), p.small.field),
    element("div", { class: "row" }, p.mode),
    p.plane, p.legend);
}

function map(p, act) {
  p.play = button("▶", "Play the steps", act.play, { name: "Play" });
  p.step = range({ min: 0, max: 0, step: 1, value: 0 }, act.step);
  p.stepText = element("output", { class: "number", text: "–" });
  p.scene = element("div", { class: "scene" });
  p.caption = element("div", { class: "caption", "aria-live": "polite" });
  p.sigma = range({ ...SIGMA, value: 2 }, act.sigma);
  p.sigmaText = element("output", { class: "number" });
  p.volume = check("Constant volume", "Contour that encloses the same volume in every map", act.volume);
  p.ghost = check("Start map", "Overlay the map at the start", (on) => act.look("ghost", on));
  p.change = check("Gain/loss", "Density gained (blue) and lost (orange) since the start, at half the contour level", (on) => act.look("change", on));
  p.paint = check("Paint change", "Paint the local change since the start on the surface", (on) => act.look("paint", on));
  p.dust = check("Dust off", "Hide small parts of the surface", (on) => act.look("dust", !on));
  p.slice = menu(act.slice, SLICES);
  p.slice.setAttribute("aria-label", "Slice");
  p.cut = range({ min: 0, max: 1, step: 0.01, value: 0.5 }, act.cut);
  p.cut.setAttribute("aria-label", "Position of the slice");
  p.cut.hidden = true;
  p.beside = menu(act.beside, BESIDE);
  p.beside.setAttribute("aria-label", "Compare");
  p.right = element("section", { class: "half", "aria-label": "Map" },
    element("div", { class: "row" }, p.play, labelled("Step", p.step), p.stepText),
    element("div", { class: "row" }, labelled("Contour (σ)", p.sigma), p.sigmaText, p.volume.field),
    element("div", { class: "stage" }, p.scene, p.caption),
    element("div", { class: "row" }, p.ghost.field, p.change.field, p.paint.field, p.dust.field, p.slice, p.cut, p.beside,
      button("Reset", "Show the whole map from the front", act.reset),
      button("Snapshot", "Save the map's picture as a PNG in the folder below", act.snapshot)));
}

function below(p, setup, act) {
  p.routes = menu((value) => act.route(Number(value)));
  p.routesField = labelled("Path", p.routes);
  p.support = button("Support by images", "Resolution of half maps from the images near each step only", act.support);
  p.support.hidden = !setup.support;
  p.meanStep = button("Mean map of this step", "Map from the images near this step", act.meanStep);
  p.profile = element("div", { class: "profile", hidden: true });
  p.words = element("div", { class: "words" });
  p.stale = element("div", { class: "badge", text: "The settings have changed since. Press Compute.", hidden: true });
  p.profileRow = element("div", { class: "result" },
    element("div", { class: "row" }, p.routesField, p.support, p.meanStep, p.stale), p.profile, p.words);
  p.profileRow.hidden = true;
  p.selected = element("strong");
  p.composition = element("div", { class: "composition" });
  p.by = menu(act.composition, setup.columns.map((name) => [name, name]));
  p.file = element("input", { type: "text", value: "selection.star" });
  p.write = button("Write", "Write the selected particles to a file (.star, .cs or .pkl)", act.write);
  p.mean = button("Mean map", "Map from the selected images", act.mean);
  const why = setup.particles ? "" : "Needs the images: PathwayExplorer(particles=...)";
  for (const one of [p.write, p.mean, p.meanStep]) {
    one.disabled = !setup.particles;
    if (why) one.title = why;
  }
  p.selection = element("div", { class: "selection", hidden: true },
    element("div", { class: "row" }, p.selected, labelled("by", p.by), labelled("File", p.file), p.write, p.mean,
      button("Deselect", "Remove the selection", act.deselect), element("span", { class: "why", text: why })),
    p.composition);
  p.folder = element("input", { type: "text", placeholder: "pathway (new)" });
  p.movie = check("with movie", "Write a movie of the maps, too, which takes longer", () => {});
  p.voxel = number("", { min: 0.01, max: 1000, step: 0.01 }, act.voxel);
  p.voxelField = labelled("Voxel size (Å)?", p.voxel, "The voxel size is not known; files need it");
  p.export = button("Export", "Write maps, differences, latents, scripts for ChimeraX, PyMOL and Mol*, and a figure", act.export);
  p.outputRow = element("div", { class: "row" }, labelled("Folder", p.folder), p.movie.field, p.voxelField, p.export);
  p.kernel = element("span", { class: "badge", hidden: true });
  p.bar = element("progress", { max: 1, hidden: true, "aria-label": "Progress" });
  p.doing = element("span");
  p.message = element("span", { class: "message" });
  p.status = element("div", { class: "status", role: "status" }, p.kernel, p.bar, p.doing, p.message);
}

/** Menus of the ends: states first, once they are known, then components by weight. */
export function offerEnds(select, setup, states, value) {
  const heaviest = setup.components.map((_, c) => c).sort((a, b) => setup.components[b].mass - setup.components[a].mass);
  const share = (mass) => `${(100 * mass).toFixed(1)}%`;
  const stars = heaviest.map((c) => {
    const { name, mass } = setup.components[c];
    return [`c${c}`, [c, name, `(${share(mass)})`].filter((part) => part !== "").join(" ")];
  });
  const groups = [{ group: "Stars", options: stars }];
  if (states.length) groups.push({ group: "States", options: states.map((s) => [`s${s.id}`, `${s.name} (${share(s.mass)})`]) });
  if (Array.isArray(value)) groups.push({ group: "Point", options: [["p", "point of the plane"]] });
  fill(select, groups);
  const wanted = Array.isArray(value) ? "p" : typeof value === "string" ? `s${value}` : `c${value}`;
  if (![...select.options].some((option) => option.value === wanted)) {
    select.append(element("option", { value: wanted, text: String(value) }));
  }
  select.value = wanted;
}
