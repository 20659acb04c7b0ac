// The DOM of the plane: its frame, and the stars as a list for screen readers, with one tab stop.

import { KEYS, starText } from "./plane_text.js";

let planes = 0;  // elements of a page need different ids

export function made(parent, name, attributes = {}) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

/** Elements of a plane inside `parent`. */
export function elements(parent) {
  const root = made(parent, "div", { class: "cryotwin-plane" });
  const frame = made(root, "div", {
    class: "cryotwin-plane-frame", tabindex: 0, role: "listbox", "aria-multiselectable": "true", "aria-label": "Stars in the plane",
    "data-lm-suppress-shortcuts": "true",  // JupyterLab leaves the keys to the plane
  });
  const canvas = () => made(frame, "canvas", { "aria-hidden": "true" });
  return {
    root, frame, pointCanvas: canvas(), markCanvas: canvas(),
    list: made(frame, "div", { class: "cryotwin-plane-stars", role: "presentation" }),
    tip: made(frame, "div", { class: "cryotwin-plane-tip", hidden: "", "aria-hidden": "true" }),
    outside: made(frame, "div", { class: "cryotwin-plane-outside" }),
    hint: made(root, "div", { class: "cryotwin-plane-hint", role: "status", title: KEYS }),
  };
}

/** The frame keeps the keyboard's focus; aria-activedescendant says which star has it, over all redraws. */
export class StarList {
  constructor({ frame, list }) {
    this.frame = frame;
    this.list = list;
    this.prefix = `cryotwin-plane-${planes++}-star-`;
  }

  show({ stars, order, active }, roles) {
    this.list.replaceChildren();
    for (const i of order) {
      const option = made(this.list, "div", { role: "option", id: this.prefix + i, "aria-selected": i in roles });
      option.textContent = starText(stars[i], roles[i]);
    }
    this.focus(active);
  }

  focus(active) {
    if (active >= 0) this.frame.setAttribute("aria-activedescendant", this.prefix + active);
    else this.frame.removeAttribute("aria-activedescendant");
  }
}
