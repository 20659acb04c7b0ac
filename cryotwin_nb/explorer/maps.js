// Runs once in each nglview view (`this`, with its NGL in scope): keeps all maps of a path as components and shows one
// of them. Python sends {type: "cryotwin", task, ...}; the tasks are the methods of `tasks` below.
(() => {
  const view = this, stage = this.stage;
  if (view.cryotwin) return;
  const BLUE = "#0072b2", ORANGE = "#d55e00", GREY = "#b9c4d2", DARK = "#333333";
  const state = { version: -1, drawn: -1, ready: -1, steps: [], start: null, changes: [], step: 0, level: 0, change: 0,
                  showStart: false, showChange: false, unseen: true };
  view.cryotwin = view.el.cryotwin = Object.assign(state, { stage });
  view.el.classList.add("cryotwin-maps");
  // Private attributes of nglview 4.0: the picking info and the jQuery UI container of a view. If they are renamed, the
  // view shows atom names on hover or keeps a fixed width.
  view.$pickingInfo.hide();
  view.$container.resizable("destroy");  // the view adapts to the width of the notebook
  stage.setParameters({ backgroundColor: "white", lightIntensity: 1.15, ambientIntensity: 0.35, clipDist: 0 });

  const surface = (component, level, color, more = {}) => component.addRepresentation("surface", {
    isolevel: level, isolevelType: "value", color, useWorker: false, opaqueBack: false, ...more,
  });

  async function load(bytes) {
    return stage.loadFile(new Blob([bytes]), { ext: "mrc", defaultRepresentation: false });
  }

  // Add the map of a step and its surface; return false if another path was loaded in the meantime.
  async function add(made, k, bytes, version) {
    const component = await load(bytes);
    if (version !== state.version) { stage.removeComponent(component); return false; }
    component.setVisibility(false);
    made[k] = { component, surfaces: [surface(component, state.level, GREY)], levels: [state.level] };
    return true;
  }

  async function addRest(made, buffers, version) {
    for (const k of buffers.keys()) {
      if (made[k]) continue;
      await new Promise((seen) => setTimeout(seen, 10));
      if (!await add(made, k, buffers[k], version)) return;
      if (k === state.step) look();
    }
    const component = await load(buffers[0]);
    if (version !== state.version) { stage.removeComponent(component); return; }
    const ghost = surface(component, state.level, DARK, { opacity: 0.35, depthWrite: false });
    state.start = { component, levels: [state.level], surfaces: [ghost] };
    look();
    view.send({ type: "cryotwin", event: "loaded", version });
  }

  const failed = (error) => view.send({ type: "cryotwin", event: "failed", reason: String(error) });

  // Update surfaces whose contour level has changed; the others are kept.
  function fresh(kept, levels) {
    kept.surfaces.forEach((one, i) => {
      if (kept.levels[i] !== levels[i]) one.setParameters({ isolevel: levels[i] });
    });
    kept.levels = levels;
  }

  function look() {
    const current = state.steps[state.step];
    if (!current) return;
    fresh(current, [state.level]);
    state.steps.forEach((kept, k) => kept?.component.setVisibility(k === state.step));
    if (state.start) {
      if (state.showStart) fresh(state.start, [state.level]);
      state.start.component.setVisibility(state.showStart && state.step > 0);
    }
    state.changes.forEach((kept, k) => {
      const seen = state.showChange && k === state.step && k > 0;
      if (seen) fresh(kept, [state.change, -state.change]);
      kept.component.setVisibility(seen);
    });
    stage.viewer.requestRender();
    requestAnimationFrame(() => { state.drawn = state.step; });
  }

  // Update the other steps while idle, so that they are ready when the slider moves.
  let turn = 0;
  function refreshRest() {
    const mine = ++turn;
    const next = () => {
      if (mine !== turn) return;
      const stale = state.steps.find((kept) => kept && kept.levels[0] !== state.level);
      if (!stale) return;
      fresh(stale, [state.level]);
      setTimeout(next, 30);
    };
    setTimeout(next, 150);
  }

  // During the layout of the notebook, the view has no width yet, so NGL cannot set the camera distance.
  function fit() {
    const { clientWidth: width } = view.el;
    if (width < 2 || !view.el.isConnected) return false;
    view.setSize(`${width}px`, view.model.get("_view_height"));
    return true;
  }

  function reset() {
    const current = state.steps[state.step];
    if (!current) return;
    state.unseen = !fit();
    const turned = stage.viewer.rotationGroup.quaternion.clone().set(0, 1, 0, 0);
    stage.viewerControls.rotate(turned);  // NGL views along +z; maps are viewed along -z with x to the right
    stage.viewerControls.center(current.component.getCenter());
    stage.viewerControls.distance(-0.72 * Math.abs(current.component.getZoom()));  // boxes are wider than molecules
  }

  const tasks = {
    async load({ version, level, step }, buffers) {
      if (version <= state.version) return;
      const first = state.version < 0;
      state.version = version;
      const former = [...state.steps, ...state.changes, state.start].filter(Boolean);
      Object.assign(state, { level, step, start: null, changes: [] });
      const made = new Array(buffers.length).fill(null);
      if (!await add(made, step, buffers[step], version)) return;
      Object.assign(state, { steps: made, drawn: -1 });
      former.forEach((kept) => stage.removeComponent(kept.component));
      if (first) reset();
      look();
      state.ready = version;
      addRest(made, buffers, version).catch(failed);  // not awaited: the current step is already shown
    },
    async changes({ version, change }, buffers) {
      if (version !== state.version || state.changes.length) return;
      state.change = change;
      const made = [];
      for (const bytes of buffers) {
        const component = await load(bytes);
        const paint = { opacity: 0.85 };
        made.push({ component, levels: [change, -change],
                    surfaces: [surface(component, change, BLUE, paint), surface(component, -change, ORANGE, paint)] });
        component.setVisibility(false);
      }
      if (version === state.version) state.changes = made;
      look();
    },
    show({ step }) { state.step = step; look(); },
    level({ level, change }) { Object.assign(state, { level, change }); look(); refreshRest(); },
    overlay({ start, change }) { Object.assign(state, { showStart: start, showChange: change }); look(); },
    reset,
    async picture({ number }) {
      const blob = await stage.makeImage({ antialias: true, trim: false, transparent: false, factor: 2 });
      view.send({ type: "cryotwin", event: "picture", number }, [await blob.arrayBuffer()]);
    },
  };

  // Run tasks in order: a later task must not overtake a map that is still loading.
  let queue = Promise.resolve();
  view.model.on("msg:custom", (message, buffers) => {
    if (message.type !== "cryotwin") return;
    const given = buffers && buffers.length ? buffers : message.buffers || [];
    queue = queue.then(() => tasks[message.task](message, given)).catch(failed);
  });

  const watcher = new ResizeObserver(() => { if (fit() && state.unseen) reset(); });
  watcher.observe(view.el);
  view.send({ type: "cryotwin", event: "ready", webgl: Boolean(stage.viewer.renderer) });
})();
