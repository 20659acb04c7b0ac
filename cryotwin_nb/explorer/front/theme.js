// Light or dark: by the colours around the explorer, which Jupyter's themes and the system set.

const brightness = (colour) => {
  const [r, g, b] = (colour.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
  return 0.299 * r + 0.587 * g + 0.114 * b;
};

/** Call `changed` with {text, background} now and whenever the theme changes; the element's class says which it is. */
export function themed(root, changed) {
  let last = null;
  const look = () => {
    const probe = document.createElement("span");
    probe.style.cssText = "color: var(--ink); background: var(--paper); position: absolute";
    root.append(probe);
    const { color: text, backgroundColor: background } = getComputedStyle(probe);
    probe.remove();
    if (text + background === last) return;
    last = text + background;
    const dark = background !== "" && brightness(background) < 128;
    root.classList.toggle("dark", dark);
    root.classList.toggle("light", !dark);
    changed({ text: text || "#212121", background: background || "#ffffff" });
  };
  const soon = () => { look(); setTimeout(look, 300); };  // style sheets of a theme arrive later
  const system = matchMedia("(prefers-color-scheme: dark)"), watcher = new MutationObserver(soon);
  system.addEventListener("change", soon);
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class", "style"] });
  const shown = new ResizeObserver(look);  // styles are known once the element is in the page
  shown.observe(root);
  look();
  return { close: () => { shown.disconnect(); watcher.disconnect(); system.removeEventListener("change", soon); } };
}
