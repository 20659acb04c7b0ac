// The explorer: what its controls do. Everything but computing and writing happens here, without the kernel.
import { element } from "./dom.js";
import { Link } from "./link.js";
import { MapView } from "./view_maps.js";
import { offerEnds, panels } from "./panels.js";
import { picture } from "./picture.js";
import { Player } from "./player.js";
import { PlaneView } from "./view_plane.js";
import { Profile } from "./profile.js";
import { Answers } from "./answers.js";
import { themed } from "./theme.js";

const TELL = 200, REST = 2500;  // ms until the look is told to the kernel, and the picture for the notebook is renewed
const KERNEL = {
  queued: "Queued: the kernel is busy.", gone: "The kernel is not connected: run the cell again to compute or write.",
};

export class App {
  constructor(model, root) {
    this.setup = model.get("setup");
    const card = model.get("card");
    Object.assign(this, { model, rev: card.rev, settings: { ...card.settings }, look: { ...card.look }, voxel: card.voxel });
    Object.assign(this, { result: null, states: [], rows: null, adding: false, touched: false, greeting: true, busy: null, timers: {} });
    this.p = panels(this.setup, this.actions());
    const hidden = `.cryotwin-still-${model.get("still")} { display: none !important }`;  // the picture for readers without a kernel
    root.append(element("style", { text: hidden }), this.p.root);
    this.profile = new Profile(this.p.profile, (k) => this.step(k));
    this.player = new Player(this.p.play, this);
    this.plane = new PlaneView(this, model);
    this.maps = new MapView(this);
    this.answers = new Answers(this);
    this.link = new Link(model, (content, buffers) => this.answers.take(content, buffers), (kernel) => this.kernel(kernel));
    this.theming = themed(this.p.root, (colours) => { this.plane.theme(colours); this.maps.theme(colours); this.colours = colours; });
    this.carded = () => this.card(model.get("card"));
    model.on("change:card", this.carded);
    this.show();
    const other = this.setup.components.length > 1 ? "two stars" : "the end with \"any point\"";
    this.say(null, `Choose ${other} and press Compute to see the maps on the way.`);
    this.plane.begin();
    this.link.ask({ do: "hello" });
    this.p.root.cryotwin = this;  // for tests
  }

  actions() {
    return {
      setting: (name, value) => this.set(name, value), look: (name, value) => this.setLook(name, value),
      end: (role, value) => this.set(role, value === "p" ? this.settings[role] : value[0] === "s" ? value.slice(1) : Number(value.slice(1))),
      swap: () => this.change({ start: this.settings.end, end: this.settings.start, ways: [...this.settings.ways].reverse() }),
      way: (on) => { this.adding = on; this.plane.role(on ? "way" : "start"); },
      compute: () => this.compute({ do: "compute", settings: this.settings }), undo: () => this.compute({ do: "undo" }),
      route: (chosen) => this.compute({ do: "route", chosen, version: this.version }),
      stop: () => this.link.ask({ do: "stop", of: null }),
      plane: (name) => this.plane.choose(name), colour: (name) => this.plane.colour(name),
      mode: (mode) => this.plane.mode(mode), small: (on) => this.plane.small(on),
      play: () => this.player.toggle(), step: (k) => this.step(k), sigma: (value) => this.setLook("sigma", value),
      volume: (on) => this.maps.constantVolume(on), slice: () => this.maps.slice(), cut: () => this.maps.slice(),
      beside: (what) => this.maps.beside(what), reset: () => this.maps.reset(),
      snapshot: () => this.snapshot(), support: () => this.link.ask({ do: "support", version: this.version }),
      meanStep: () => this.link.ask({ do: "mean", step: this.look.step, version: this.version }),
      write: () => this.ofRows({ do: "write", file: this.p.file.value }), mean: () => this.ofRows({ do: "mean" }),
      composition: () => this.compose(), deselect: () => this.plane.deselect(),
      voxel: (value) => this.link.ask({ do: "voxel", value }),
      export: () => this.link.ask({
        do: "export", version: this.version, look: this.look, folder: this.p.folder.value, movie: this.p.movie.box.checked,
      }),
    };
  }

  get version() { return this.result?.version ?? 0; }
  get stale() { return Boolean(this.result) && !same(this.settings, this.result.request); }

  /** The star of an end: a component, or the heaviest of a state; null for points and states that are not known. */
  starOf(end) {
    if (typeof end === "number") return end;
    const named = this.setup.labelled.find((c) => this.setup.components[c].name === end);
    return typeof end === "string" ? named ?? this.states.find((state) => state.id === end)?.star ?? null : null;
  }

  set(name, value) { this.change({ [name]: value }); }

  /** Change settings of the path: an old result is greyed at once. */
  change(values) {
    Object.assign(this.settings, values);
    if ("start" in values || "end" in values || "ways" in values) this.maps.ofEnd(values.end ?? values.start);
    this.show();
    this.tell();
  }

  setLook(name, value) {
    this.look[name] = value;
    if (name === "sigma") this.maps.show();  // many a second, while the slider moves
    else this.show();
    this.tell();
  }

  step(k) {
    if (!this.result) return;
    this.look.step = Math.min(Math.max(k, 0), this.result.n - 1);
    this.maps.ofPath();
    this.plane.step(this.look.step);
    this.profile.show(this.look.step);
    this.showStep();
    this.tell();
  }

  compute(request) {
    this.player.pause();
    this.busy = this.link.ask(request);
    this.say(null, "");
  }

  ofRows(request) {
    if (this.rows?.length) this.link.ask(request, [this.rows.slice().buffer]);
  }

  selected(rows) {
    this.rows = rows;
    this.p.selection.hidden = !rows.length;
    this.p.selected.textContent = `${rows.length.toLocaleString("en")} of ${this.setup.shown.toLocaleString("en")} particles`;
    this.p.composition.replaceChildren();
    if (rows.length) this.compose();
  }

  compose() { this.ofRows({ do: "selection", colour: this.p.by.value }); }

  /** Settings that code has changed. */
  card(card) {
    if (card.rev === this.rev) return;
    this.rev = card.rev;
    if (this.touched && this.greeting) return this.tell();
    Object.assign(this, { settings: { ...card.settings }, look: { ...card.look }, voxel: card.voxel });
    this.plane.follow();
    this.maps.follow();
    this.show();
  }

  /** Tell the kernel of the look, which asks for no answer, and renew the notebook's picture when nothing changes. */
  tell() {
    this.touched = true;
    this.later("look", TELL, () => {
      this.link.ask({ do: "look", rev: this.rev, look: this.look, settings: this.settings });
    });
    this.changed();
  }

  changed() { this.later("picture", REST, () => this.sendPicture()); }

  later(name, delay, act) {
    clearTimeout(this.timers[name]);
    this.timers[name] = setTimeout(act, delay);
  }

  async sendPicture() {
    if (this.player.playing || this.closed || this.link.kernel !== "ready") return this.closed || this.changed();
    const [plane, map] = [await this.plane.picture(), await this.maps.picture()];
    const blob = await picture(plane, map, this.profile.svg, this.p.caption.textContent.split("\n")[0], this.colours);
    const bytes = await blob.arrayBuffer();
    if (!this.closed) this.link.ask({ do: "picture" }, [bytes]);
  }

  async snapshot() {
    const blob = await this.maps.picture();
    if (!blob) return this.say("Not possible.", "There is no map to save.");
    const bytes = await blob.arrayBuffer();
    this.link.ask({ do: "snapshot", step: this.look.step, folder: this.p.folder.value }, [bytes]);
  }

  kernel(kernel) {
    const { p } = this;
    p.kernel.hidden = kernel === "ready";
    p.kernel.textContent = KERNEL[kernel] ?? "";
    if (kernel === "gone") this.progress(null);
  }

  say(word, text) {
    this.p.message.replaceChildren(...(word ? [element("b", { text: word })] : []), text);
  }

  /** @param {{share: number | null, text: string} | null} doing */
  progress(doing) {
    const { p } = this;
    p.bar.hidden = !doing;
    p.doing.textContent = doing?.text ?? "";
    if (doing && doing.share !== null) p.bar.value = doing.share;
    else p.bar.removeAttribute("value");
  }

  showStep() {
    const { p, result, look } = this;
    p.step.value = look.step;
    p.stepText.textContent = result ? `${look.step} of ${result.n - 1}` : "–";
    const found = result?.support?.findings[look.step] ?? [];
    const counted = result?.barrier && `By counting images: ${result.barrier}.`;
    const words = [counted, result?.support?.verdict, ...found.map((finding) => `step ${look.step}: ${finding}`)];
    p.words.replaceChildren(...words.filter(Boolean).map((text) => element("div", { text })));
  }

  /** Show all settings in the controls, and whether the result is of these settings. */
  show() {
    const { p, settings, look, result, stale } = this;
    if (stale && !this.stalled) this.say(null, "");  // it was about the former path
    this.stalled = stale;
    for (const role of ["start", "end"]) offerEnds(p[role], this.setup, this.states, settings[role]);
    p.method.value = settings.method;
    [p.nSteps.value, p.omega.value, p.seed.value] = [settings.n_steps, settings.omega, settings.seed];
    p.omega.disabled = settings.method !== "Algorithm 1";
    p.ways.replaceChildren(...settings.ways.map((way, i) => this.chip(way, i)));
    [p.planeMenu.value, p.colourMenu.value] = [look.plane, look.colour];
    for (const name of ["ghost", "change", "paint"]) p[name].box.checked = look[name];
    p.dust.box.checked = !look.dust;
    p.voxelField.hidden = this.voxel !== null && this.voxel !== undefined;
    p.root.classList.toggle("stale", stale);
    p.stale.hidden = !stale;
    p.profileRow.hidden = !result;
    p.undo.disabled = !result?.history;
    p.routesField.hidden = !result || result.titles.length < 2;
    this.plane.ends();
    this.plane.stale(stale);
    this.maps.show();
    this.showStep();
  }

  chip(way, i) {
    const name = Array.isArray(way) ? "point" : typeof way === "string" ? way : this.setup.components[way].name || `component ${way}`;
    const remove = () => this.change({ ways: this.settings.ways.filter((_, k) => k !== i) });
    return element("button", { type: "button", text: `${name} ×`, title: "Remove this way-point", on: { click: remove } });
  }

  close() {
    this.closed = true;
    this.player.pause();
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
    this.model.off("change:card", this.carded);
    for (const part of [this.link, this.theming]) part.close();
    for (const part of [this.profile, this.plane, this.maps]) part.dispose();
    this.p.root.remove();
  }
}

const same = (a, b) => JSON.stringify(relevant(a)) === JSON.stringify(relevant(b));
const relevant = ({ start, end, ways, method, n_steps: n, omega, seed }) => [start, end, ways, method, n, method === "Algorithm 1" ? omega : 0, seed];

function render({ model, el }) {
  const app = new App(model, el);
  return () => app.close();
}

export default { render };
