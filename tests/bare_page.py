"""A bare HTML page with a widget in it, and the widget in this process: no Jupyter, no kernel, no network.

The page loads the module as anywidget's own loader does, from a blob, and gives it a model whose messages travel to the
widget and back over a local server. `Bridge.busy` stands for a kernel that serves no messages.
"""

from __future__ import annotations

import base64
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = """<!doctype html><meta charset="utf-8"><title>bare</title>
<style>body { margin: 8px; font-family: sans-serif; background: var(--jp-layout-color0, white) }</style>
<div id="here"></div>
<script type="module">
const decode = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
const encode = (buffer) => {
  const bytes = new Uint8Array(buffer.buffer ?? buffer); let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
};
const state = await (await fetch("/state")).json();
for (const name of state.binary) state.values[name] = decode(state.values[name]);
const listeners = {};
let chain = Promise.resolve();
window.model = {
  get: (name) => state.values[name],
  on: (event, call) => (listeners[event] ??= []).push(call),
  off: (event, call) => { listeners[event] = (listeners[event] ?? []).filter((one) => one !== call); },
  send: (content, callbacks, buffers = []) => {
    if (window.gone) throw new Error("Cannot send");
    const body = JSON.stringify({ content, buffers: buffers.map(encode) });
    chain = chain.then(() => fetch("/send", { method: "POST", body })).catch(() => {});
  },
};
window.lose = () => { window.gone = true; for (const call of listeners.comm_live_update ?? []) call(); };
async function receive() {
  for (;;) {
    const messages = await (await fetch("/receive")).json();
    for (const { content, buffers, state: changed } of messages) {
      if (changed) {
        Object.assign(state.values, changed);
        for (const name of Object.keys(changed)) for (const call of listeners[`change:${name}`] ?? []) call();
      } else for (const call of listeners["msg:custom"] ?? []) call(content, buffers.map(decode));
    }
  }
}
const css = document.createElement("style");
css.textContent = state.css;
document.head.append(css);
const url = URL.createObjectURL(new Blob([state.esm], { type: "text/javascript" }));
const { default: widget } = await import(url);
window.close_widget = await widget.render({ model: window.model, el: document.getElementById("here") });
receive().catch(() => {});
</script>"""


class Bridge:
    """Serve a page for one explorer.

    Attributes
    ----------
    address : str
        Address of the page.
    busy : threading.Event
        While it is cleared, messages of the page wait.
    received : list of dict
        Messages of the page, in order.
    """

    def __init__(self, explorer: Any) -> None:
        self.explorer, self.received = explorer, []
        self.free = threading.Event()
        self.free.set()
        self._out: queue.Queue = queue.Queue()
        explorer.send = lambda content, buffers=None: self._put(content=content, buffers=self._encoded(buffers or []))
        explorer.observe(lambda change: self._put(state={"card": change["new"]}), "card")
        bridge = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answers = {"/": bridge.page, "/state": bridge.state, "/receive": bridge.receive}
                body = answers.get(self.path, lambda: b"")()
                self.answer(body, "text/html" if self.path == "/" else "application/json")

            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                bridge.take(sent["content"], [base64.b64decode(part) for part in sent["buffers"]])
                self.answer(b"{}", "application/json")

            def answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # the page has gone
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, content: dict, buffers: list[bytes]) -> None:
        """Give a message to the widget, as a kernel does when it is free."""
        self.free.wait()
        self.received.append(content)
        self.explorer._handle_custom_msg(content, [memoryview(part) for part in buffers])

    def page(self) -> bytes:
        return PAGE.encode()

    def state(self) -> bytes:
        self.explorer._draw_first()
        values = {name: getattr(self.explorer, name) for name in ("setup", "card", "plane_shown", "still")}
        binary = ["points_shown", "colours_shown"]
        values |= {name: base64.b64encode(getattr(self.explorer, name)).decode() for name in binary}
        answer = {"values": values, "binary": binary, "esm": str(self.explorer._esm), "css": str(self.explorer._css)}
        return json.dumps(answer).encode()

    def receive(self) -> bytes:
        """Return the messages for the page, waiting a while for the first."""
        found = []
        try:
            found.append(self._out.get(timeout=5))
            while len(found) < 50:
                found.append(self._out.get_nowait())
        except queue.Empty:
            pass
        return json.dumps(found).encode()

    def close(self) -> None:
        self.free.set()
        self._server.shutdown()
        self._server.server_close()

    def _put(self, **message: Any) -> None:
        self._out.put(message)

    def _encoded(self, buffers: list) -> list[str]:
        return [base64.b64encode(bytes(part)).decode() for part in buffers]
