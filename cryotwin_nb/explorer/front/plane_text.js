// Texts of the plane: names of stars for screen readers, tips, and the line below the frame.

const ROLES = { start: "start", end: "end", way: "way-point" };
export const KEYS =
  "Scroll zooms after a click here, or with Ctrl. Double-click or 0: whole plane. + and -: zoom. "
  + "Arrow keys, Page Up and Down: next star. Enter: choose.";

const many = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

/** What a star is, and its role if it has one. */
export function starText({ tip, name, junk }, role) {
  return `${role ? `${ROLES[role]}: ` : ""}${tip || name}${junk ? " (junk)" : ""}`;
}

/** What a click would take, and what the next click at the same place would. */
export function clickText({ star, role, replaced, others }, stars) {
  if (star === replaced) return starText(stars[star], role);
  const other = stars[others[0]], known = other?.name && other.name !== stars[star].name;
  const next = other ? `\nclick again: ${known ? other.name : other.tip}` : "";
  return `${starText(stars[star])}\nclick: ${ROLES[role]}${next}`;
}

export function stepText(k, counts) {
  return counts ? `step ${k}: ${many(counts[k], "particle")} near it` : `step ${k}`;
}

/** What lies outside the view; "" if nothing. */
export function outsideText(points, stars) {
  const away = [points && many(points, "point"), stars && many(stars, "star")].filter(Boolean);
  return away.length ? `${away.join(" and ")} outside` : "";
}

/** The line below the frame: what the mouse does, or what is selected; at most two lines at 300 px. */
export function hintText({ mode, selected }, next, focused) {
  if (mode === "lasso" || mode === "box") {
    if (selected !== null) return `${many(selected, "point")} selected. Escape removes the selection.`;
    return `Draw a ${mode === "box" ? "box" : "line"} around points to select them.`;
  }
  const target = mode === "point" ? "anywhere" : "a star";
  const role = next === "way" ? "add a way-point" : `set the ${next} (Shift: way-point)`;
  return `Click ${target} to ${role}. Drag moves, ${focused ? "" : "Ctrl + "}scroll zooms.`;
}
