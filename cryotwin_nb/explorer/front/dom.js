// Building blocks of the page: elements with their attributes, and labelled controls.

/** @returns {HTMLElement} an element with attributes (`text` is its text, `on` its listeners) and children */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  const { text, on = {}, ...rest } = attributes;
  for (const [key, value] of Object.entries(rest)) {
    if (typeof value === "boolean") made[key] = value;
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  if (text !== undefined) made.textContent = text;
  for (const [event, listener] of Object.entries(on)) made.addEventListener(event, listener);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

let ids = 0;

/** A control beside its visible label. */
export function labelled(text, control, title) {
  control.id = `cryotwin-control-${++ids}-${Math.random().toString(36).slice(2, 8)}`;
  return element("span", { class: "field", title }, element("label", { text, for: control.id }), control);
}

export function button(text, title, click, more = {}) {
  return element("button", { type: "button", text, title, "aria-label": more.name ?? null, on: { click }, class: more.class });
}

export function check(text, title, changed) {
  const box = element("input", { type: "checkbox", on: { change: () => changed(box.checked) } });
  return { box, field: element("label", { class: "field check", title }, box, element("span", { text })) };
}

export function menu(changed, options = []) {
  const made = element("select", { on: { change: () => changed(made.value) } });
  fill(made, options);
  return made;
}

/** Options [[value, text]] or groups {group, options}; the value is kept if it is still offered. */
export function fill(select, options) {
  const { value } = select;
  const one = ([of, text]) => element("option", { value: of, text });
  const many = (entry) => Array.isArray(entry) ? one(entry)
    : element("optgroup", { label: entry.group }, ...entry.options.map(one));
  select.replaceChildren(...options.map(many));
  if ([...select.options].some((option) => option.value === value)) select.value = value;
}

export function number(value, { min, max, step }, changed) {
  const made = element("input", { type: "number", value, min, max, step, on: { change: () => {
    const given = Number(made.value);
    if (made.value === "" || !Number.isFinite(given)) made.value = value;
    else made.value = value = Math.min(Math.max(given, min), max);
    changed(Number(made.value));
  } } });
  return made;
}

export function range({ min, max, step, value }, changed) {
  const made = element("input", { type: "range", min, max, step, value, on: { input: () => changed(Number(made.value)) } });
  return made;
}
