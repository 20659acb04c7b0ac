// Turns pointer, wheel and keyboard events of the plane's frame into gestures.

const STILL = 4;  // px that a click may move

/**
 * @param {HTMLElement} frame
 * @param {object} on
 * @param {() => boolean} on.drawing  whether a drag draws an outline (else it moves the plane)
 * @param {(x: number, y: number, event: PointerEvent) => void} on.tap
 * @param {(at: [number, number] | null) => void} on.hover
 * @param {(dx: number, dy: number) => void} on.move
 * @param {(x: number, y: number, factor: number) => void} on.zoom
 * @param {(phase: "begin" | "move" | "end" | "cancel", x: number, y: number) => void} on.outline
 * @param {(x: number, y: number) => void} on.reset
 * @param {(key: string, event: KeyboardEvent) => boolean} on.key  true if the key was used
 * @param {(focused: boolean) => void} on.focus
 * @returns {() => void}  stops listening
 */
export function listen(frame, on) {
  const pointers = new Map();
  let begun = null;  // {x, y, moved} of the first pointer

  const at = (event, clamp = false) => {
    const { left, top, width, height } = frame.getBoundingClientRect();
    const x = event.clientX - left - frame.clientLeft, y = event.clientY - top - frame.clientTop;
    return clamp ? [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)] : [x, y];
  };

  function down(event) {
    if (event.button !== 0) return;
    frame.focus({ preventScroll: true });
    frame.setPointerCapture(event.pointerId);
    const [x, y] = at(event);
    pointers.set(event.pointerId, [x, y]);
    if (pointers.size > 1) {
      if (begun?.moved && on.drawing()) on.outline("cancel", x, y);
      begun = null;
      return;
    }
    begun = { x, y, moved: false };
    on.hover([x, y]);
  }

  function pinch(event) {
    const [[ax, ay], [bx, by]] = [...pointers.values()];
    pointers.set(event.pointerId, at(event));
    const [[cx, cy], [dx, dy]] = [...pointers.values()];
    on.move((cx + dx - ax - bx) / 2, (cy + dy - ay - by) / 2);
    const factor = Math.hypot(cx - dx, cy - dy) / Math.max(Math.hypot(ax - bx, ay - by), 1);
    on.zoom((cx + dx) / 2, (cy + dy) / 2, factor);
  }

  function move(event) {
    const [x, y] = at(event);
    if (!pointers.has(event.pointerId)) return on.hover([x, y]);
    if (pointers.size > 1) return pinch(event);
    const [lastX, lastY] = pointers.get(event.pointerId);
    if (!begun) return;
    if (!begun.moved && Math.hypot(x - begun.x, y - begun.y) <= STILL) return;
    pointers.set(event.pointerId, [x, y]);
    if (!begun.moved) {
      begun.moved = true;
      on.hover(null);
      if (on.drawing()) on.outline("begin", begun.x, begun.y);
    }
    if (!on.drawing()) return on.move(x - lastX, y - lastY);
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) on.outline("move", ...at(one, true));
  }

  function up(event) {
    if (!pointers.delete(event.pointerId) || !begun) return;
    const { moved } = begun;
    begun = null;
    if (!moved) on.tap(...at(event), event);
    else if (on.drawing()) on.outline("end", ...at(event, true));
  }

  function cancel(event) {
    pointers.delete(event.pointerId);
    if (begun?.moved && on.drawing()) on.outline("cancel", 0, 0);
    begun = null;
  }

  function wheel(event) {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== frame && !frame.matches(":focus")) return;
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? 30 * event.deltaY : event.deltaY;
    on.zoom(...at(event), Math.exp(-Math.max(-240, Math.min(240, pixels)) / 400));
  }

  function key(event) {
    if (event.key === "Escape" && begun?.moved) {
      pointers.clear();
      begun = null;
      on.outline("cancel", 0, 0);
    } else if (event.ctrlKey || event.metaKey || event.altKey || !on.key(event.key, event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  const handlers = {
    pointerdown: down, pointermove: move, pointerup: up, pointercancel: cancel,
    pointerleave: () => pointers.size || on.hover(null),
    dblclick: (event) => on.reset(...at(event)),
    keydown: key, focus: () => on.focus(true), blur: () => on.focus(false),
  };
  for (const [name, handler] of Object.entries(handlers)) frame.addEventListener(name, handler);
  frame.addEventListener("wheel", wheel, { passive: false });
  return () => {
    for (const [name, handler] of Object.entries(handlers)) frame.removeEventListener(name, handler);
    frame.removeEventListener("wheel", wheel);
  };
}
