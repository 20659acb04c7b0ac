// The explorer's plane: points and colours from the kernel, ends and way-points, selections.
import { element } from "./dom.js";
import { own } from "./link.js";
import { createPlane } from "./plane.js";
import { Space } from "./space.js";

const LIFT = 0.3;  // share of white in the colours of a scale on a dark ground, on which its low end is not seen
const key = (latent) => JSON.stringify(latent);

export class PlaneView {
  constructor(app, model) {
    Object.assign(this, { app, model, space: new Space(), drawn: null, colours: null, places: new Map(), legend: null });
    this.plane = createPlane(app.p.plane, {
      onChoose: (star, role, replaced) => this.chosen(star, role, replaced),
      onHover: (star) => app.maps.hover(star),
      onLasso: (rows) => app.selected(rows),
      onPoint: (point, role) => this.point(point, role),
      onStep: (k) => app.step(k),
    });
  }

  /** Draw what came with the page, or ask for it. */
  begin() {
    const { model, app } = this, shown = model.get("plane_shown");
    const { points, colours } = { points: model.get("points_shown"), colours: model.get("colours_shown") };
    const free = [app.settings.start, app.settings.end, ...app.settings.ways].some(Array.isArray);
    if (points?.byteLength && shown.name === app.look.plane && shown.colour === app.look.colour && !free) {
      this.colours = own(Uint8Array, colours);
      this.showLegend(shown.legend);
      this.take({ plane: shown, path: null, places: [] }, [points]);
    } else {
      this.ask();
    }
  }

  ask() {
    const { app } = this;
    app.link.ask({ do: "colours", colour: app.look.colour });
    app.link.ask({ do: "plane", plane: app.look.plane, settings: app.settings });
  }

  follow() {
    if (this.drawn && this.drawn.name !== this.app.look.plane) this.choose(this.app.look.plane);
    if (this.legend && this.legend.title !== this.app.look.colour) this.colour(this.app.look.colour);
  }

  choose(name) {
    const { app } = this, { settings, result } = app;
    const free = [settings.start, settings.end, ...settings.ways].filter(Array.isArray);
    const drawn = this.space.draw(name, result, free);
    app.setLook("plane", name);
    app.link.forget("plane");
    if (drawn) this.take(drawn, [drawn.points]);
    else app.link.ask({ do: "plane", plane: name, settings });
  }

  colour(name) {
    const { app } = this, known = this.space.palettes.get(name);
    app.setLook("colour", name);
    app.link.forget("colours");
    if (known) this.recolour(known.legend, known.rgb);
    else app.link.ask({ do: "colours", colour: name });
  }

  take({ plane, path, places }, [points]) {
    const { app } = this, { components } = app.setup;
    this.drawn = plane;
    this.points = own(Float32Array, points);
    this.places = new Map([...places, ...(app.pending ?? [])].map(([latent, xy]) => [key(latent), xy]));
    const n = this.points.length / 2;
    if (this.colours?.length !== 3 * n) this.colours = new Uint8Array(3 * n).fill(128);
    this.plane.axes(plane.axes, plane.unit);
    this.plane.points(this.points, this.toned());
    this.plane.stars(components.map((component, c) => ({ ...component, x: plane.stars[c][0], y: plane.stars[c][1] })));
    if (path && path.version === app.version) this.path(path);
    this.ends();
    app.changed();
  }

  takeColours(content, [rgb]) {
    const colours = own(Uint8Array, rgb);
    this.space.keep(content, colours);
    this.recolour(content.legend, colours);
  }

  recolour(legend, colours) {
    this.colours = colours;
    this.showLegend(legend);
    if (this.points?.length === this.colours.length / 3 * 2) this.plane.colours(this.toned());
    this.app.changed();
  }

  /** The colours of the points as they are drawn. */
  toned() {
    return this.dark && this.legend?.ramp ? this.colours.map((value) => value + (255 - value) * LIFT) : this.colours;
  }

  showLegend(legend) {
    const { legend: place } = this.app.p, { title, entries = [], low, high, ramp } = this.legend = legend;
    place.replaceChildren(element("span", { text: title }));
    if (ramp) {
      const colours = ramp.map((colour) => this.dark ? `color-mix(in srgb, white ${100 * LIFT}%, ${colour})` : colour);
      place.append(element("span", { class: "scale" }, element("span", { text: low }),
        element("span", { class: "ramp", style: `background: linear-gradient(to right, ${colours.join(",")})` }),
        element("span", { text: high })));
    }
    for (const [name, colour] of entries) {
      place.append(element("span", {}, element("i", { style: `background: ${colour}` }), name));
    }
  }

  /** A new path, which the kernel has drawn in the plane that it knew of. */
  takePath(content) {
    const { name } = this.drawn ?? {}, plane = this.space.planes[name];
    if (content.plane === name) this.path(content);
    else if (plane) this.path(this.space.path(plane, content));
    else if (name) this.app.link.ask({ do: "plane", plane: name, settings: this.app.settings });
  }

  path({ routes, chosen, steps }) {
    const shares = routes.map((route) => ({ ...route, name: `${Math.round(100 * route.share)}%` }));
    this.plane.routes(shares.length > 1 ? shares : []);  // their states are in the menu
    this.plane.path({ curve: routes[chosen].curve, steps, counts: this.app.result?.profile?.counts ?? null });
    this.last = { routes, chosen, steps };
    this.plane.step(this.app.look.step);
  }

  counts() {
    if (this.last) this.path(this.last);
  }

  /** A star was chosen by mouse or keyboard. */
  chosen(star, role, replaced) {
    const { settings } = this.app;
    if (role !== "way") return this.app.change({ [role]: star });
    const ways = replaced === null || replaced === undefined ? settings.ways : settings.ways.slice(0, -1);
    this.app.change({ ways: [...ways, star] });
  }

  point(point, role) {
    const { app } = this;
    this.asked = { role, turn: app.link.ask({ do: "point", plane: app.look.plane, xy: [point.x, point.y] }) };
  }

  /** The kernel has found the particle nearest to a point that was clicked. */
  takePoint({ latent, xy, turn }) {
    if (turn !== this.asked?.turn) return;
    this.places.set(key(latent), xy);
    const { role } = this.asked, { settings } = this.app;
    this.app.change(role === "way" ? { ways: [...settings.ways, latent] } : { [role]: latent });
  }

  /** A star, a free point, or null if it is not known yet. */
  placed(end) {
    if (Array.isArray(end)) {
      const xy = this.places.get(key(end));
      return xy ? { x: xy[0], y: xy[1] } : null;
    }
    return typeof end === "string" ? this.app.starOf(end) : end;
  }

  ends() {
    const { start, end, ways } = this.app.settings;
    if (!this.drawn) return;
    const placed = ways.map((way) => this.placed(way)).filter((way) => way !== null);
    this.plane.ends({ start: this.placed(start), end: this.placed(end), ways: placed });
  }

  step(k) { this.plane.step(k); }
  stale(stale) { this.plane.stale(stale); }
  mode(mode) { this.plane.mode(mode); }
  small(on) { this.plane.showSmall(on); }
  role(role) { this.plane.role(role); }
  theme(colours) {
    this.dark = this.app.p.root.classList.contains("dark");
    this.plane.theme(colours);
    if (!this.drawn || !this.legend) return;
    this.plane.colours(this.toned());
    this.showLegend(this.legend);
  }

  deselect() { this.plane.deselect(); }
  picture() { return this.plane.picture(); }
  dispose() { this.plane.dispose(); }
}
