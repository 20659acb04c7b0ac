// Messages of the kernel. Answers to requests that are no longer wanted are dropped.
import { element, fill } from "./dom.js";
import { own } from "./link.js";

const SHOWN = ["path", "support", "mean", "export", "write"];  // jobs whose progress is shown
const ASKED = { path: null, plane: "plane", colours: "colours", selection: "selection", star: null };

export class Answers {
  constructor(app) {
    this.app = app;
  }

  take(content, buffers) {
    const { kind } = content, asked = ASKED[kind];
    if (asked && !this.app.link.wanted(asked, content.turn)) return;
    this[`take_${kind}`]?.(content, buffers);
  }

  take_progress({ of, turn, share, text }) {
    const { app } = this;
    if (!SHOWN.includes(of) || (of === "path" && turn !== app.busy)) return;
    app.progress({ share, text });
  }

  take_done({ of, turn, text }) {
    const { app } = this;
    if (of === "hello") app.greeting = false;
    if (of === "path" && turn !== app.busy) return;
    if (SHOWN.includes(of)) app.progress(null);
    if (text) app.say(null, text);
    if (of === "path") app.busy = null;
  }

  take_failed({ of, turn, word, text }) {
    const { app } = this, kinds = { compute: "path", route: "path", undo: "path" };
    if (kinds[of] === "path" || of === "path") {
      if (turn !== app.busy) return;
      app.busy = null;
      if (app.result && !app.result.profile) app.result.ended = true;  // no more maps come
    }
    if (word === "Stopped." && !SHOWN.includes(of)) return;
    if (SHOWN.includes(kinds[of] ?? of)) app.progress(null);
    app.say(word, text);
    if (of === "star") app.maps.fail();
    else app.maps.show();
  }

  take_note({ text }) {
    this.app.say(null, text);
  }

  take_path(content) {
    const { app } = this, { turn } = content;
    if (turn !== null && turn !== undefined && turn !== app.busy) return;
    if (!app.result) app.say(null, "");
    app.result = { ...content, profile: null, support: null, barrier: "", history: app.result?.history ?? 0, data: [] };
    app.look.step = Math.min(app.look.step, content.n - 1);
    app.p.step.max = content.n - 1;
    fill(app.p.routes, content.titles.map((title, i) => [i, title]));
    app.p.routes.value = content.chosen;
    app.profile.set(null, null);
    app.plane.takePath(content);
    app.maps.load(content);
    app.show();
  }

  take_map({ version, k }, [buffer]) {
    const { app } = this;
    if (version !== app.version) return;
    app.result.data[k] = own(Int8Array, buffer);
    app.maps.add(version, k, app.result.data[k]);
  }

  take_answer({ version, profile, barrier, support, history }) {
    const { app } = this;
    if (version !== app.version) return;
    Object.assign(app.result, { profile, barrier, support, history });
    app.p.profileRow.hidden = false;
    app.profile.set(profile, support);
    app.profile.show(app.look.step);
    app.plane.counts();
    app.show();
    app.changed();
  }

  take_support({ version, ...support }) {
    const { app } = this;
    if (version !== app.version) return;
    app.result.support = support;
    app.profile.set(app.result.profile, support);
    app.showStep();
    app.changed();
  }

  take_star(content, [buffer]) {
    this.app.maps.takeStar(content, own(Int8Array, buffer));
  }

  take_single(content, [buffer]) {
    this.app.maps.takeSingle(content, own(Int8Array, buffer));
  }

  take_states({ states }) {
    this.app.states = states;
    this.app.show();
  }

  take_plane(content, buffers) {
    this.app.plane.take(content, buffers);
  }

  take_colours(content, buffers) {
    this.app.plane.takeColours(content, buffers);
  }

  take_space(content, buffers) {
    this.app.plane.space.take(content, buffers);
  }

  take_palette(content, [buffer]) {
    this.app.plane.space.keep(content, own(Uint8Array, buffer));
  }

  take_point(content) {
    this.app.plane.takePoint(content);
  }

  take_voxel({ value }) {
    this.app.voxel = value;
    if (this.app.result) this.app.result.maps.voxel = value * Math.ceil(this.app.result.maps.full / this.app.result.maps.size);
    this.app.show();
  }

  take_folder({ folder }) {
    this.app.p.folder.value = folder;
  }

  take_selection({ n, colour, parts }) {
    const { app } = this;
    if (n !== app.rows?.length) return;
    app.p.by.value = colour;
    app.p.composition.replaceChildren(...parts.filter(([, here]) => here).map(([name, here, all]) =>
      element("span", { text: `${name}: ${here.toLocaleString("en")} (${Math.round(100 * here / n)}%; of ${all.toLocaleString("en")})` })));
  }
}
