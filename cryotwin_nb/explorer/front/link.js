// The line to the kernel: every request is one message with all its settings, and its turn, which the answers repeat.
const PATIENCE = 250;  // ms until a request that the kernel has not taken is said to be queued

/** @typedef {"ready" | "queued" | "gone"} Kernel  "gone": not connected */

export class Link {
  /**
   * @param {object} model  anywidget's model
   * @param {(message: object, buffers: DataView[]) => void} onMessage
   * @param {(kernel: Kernel) => void} onKernel
   */
  constructor(model, onMessage, onKernel) {
    Object.assign(this, { model, onMessage, onKernel, kernel: "ready" });
    this.turn = Date.now() % 1e9;  // turns of an earlier page are not ours
    this.waiting = new Map();  // timer of each turn that the kernel has not taken
    this.latest = {};  // last turn of each kind of request
    this.receive = (content, buffers) => this.#received(content, buffers);
    this.checked = () => this.ask({ do: "ping" });
    model.on("msg:custom", this.receive);
    model.on("comm_live_update", this.checked);
  }

  /**
   * Send a request; an earlier one of the same kind is no longer wanted.
   * @param {object} request  {do, ...}
   * @param {ArrayBuffer[]} [buffers]
   * @returns {number | null} its turn; null without a kernel
   */
  ask(request, buffers = []) {
    const turn = ++this.turn;
    this.latest[request.do] = turn;
    this.waiting.set(turn, setTimeout(() => this.#set("queued"), PATIENCE));
    try {
      this.model.send({ ...request, turn }, undefined, buffers);
    } catch {
      this.#taken(turn);
      this.#set("gone");
      return null;
    }
    return turn;
  }

  /** Answers to requests of this kind are no longer wanted. */
  forget(kind) {
    this.latest[kind] = null;
  }

  /** Whether an answer is to the last request of its kind. */
  wanted(kind, turn) {
    return turn === null || turn === undefined || this.latest[kind] === turn;
  }

  #received(content, buffers) {
    if (this.kernel === "gone") this.#set("ready");
    if (content.kind === "begun") this.#taken(content.turn);
    else this.onMessage(content, buffers ?? []);
  }

  #taken(turn) {
    clearTimeout(this.waiting.get(turn));
    this.waiting.delete(turn);
    if (!this.waiting.size && this.kernel === "queued") this.#set("ready");
  }

  #set(kernel) {
    if (kernel === this.kernel) return;
    this.kernel = kernel;
    this.onKernel(kernel);
  }

  close() {
    for (const timer of this.waiting.values()) clearTimeout(timer);
    this.model.off("msg:custom", this.receive);
    this.model.off("comm_live_update", this.checked);
  }
}

/** The bytes of a message's buffer as a typed array of their own, which outlives the message. */
export function own(kind, view) {
  const bytes = view.buffer ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array(view);
  return new kind(bytes.slice().buffer);
}
