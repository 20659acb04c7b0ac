// Play: one step after the other, at a steady rate, without the kernel.
const FRAME = 250;  // ms a step

export class Player {
  #timer = 0;

  /** @param {HTMLElement} button @param {object} app */
  constructor(button, app) {
    Object.assign(this, { button, app });
  }

  get playing() { return this.#timer !== 0; }

  toggle() {
    if (this.playing) return this.pause();
    const { app } = this;
    if (!app.result) return;
    if (app.look.step >= app.result.n - 1) app.step(0);
    const begun = performance.now() - FRAME * app.look.step;
    const next = () => {
      if (!app.maps.settled()) return this.#timer = setTimeout(next, 15);  // every step is seen, also on a slow machine
      const due = Math.min(app.look.step + 1, app.result.n - 1);
      app.step(due);
      if (due >= app.result.n - 1) return this.pause();
      this.#timer = setTimeout(next, Math.max(0, begun + FRAME * (due + 1) - performance.now()));
    };
    this.#timer = setTimeout(next, FRAME);
    this.#show("❚❚", "Pause");
  }

  pause() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#show("▶", "Play");
  }

  #show(sign, name) {
    this.button.textContent = sign;
    this.button.setAttribute("aria-label", name);
  }
}
