// The conversation in the middle of the page: its messages, the field below, and the answers being written,
// also those of conversations that are not shown.
import { byId, element } from "./dom.js";
import { Generation, isRunning } from "./generation.js";
import { AssistantMessage, userMessage } from "./message.js";
import * as store from "./store.js";
import { t } from "./strings.js";

const SAVE_INTERVAL_MS = 1000;
const NEAR_END_PX = 64;
const TITLE_CHARS = 60;
const ANNOUNCED_MAX = 8;

export class Chat {
  // `onFull()`: the browser keeps no more; `onRunning()`: an answer has begun or ended; `onUnauthorized()`: a key
  // is needed, true: there is one now.
  constructor({ onFull, onRunning, onUnauthorized }) {
    this.onFull = onFull;
    this.onRunning = onRunning;
    this.onUnauthorized = onUnauthorized;
    this.model = "";
    this.generations = new Map();  // by conversation id
    this.removed = new Set();      // ids that are not to be written again
    this.log = byId("log");
    this.messages = byId("messages");
    this.field = byId("prompt");
    this.action = byId("send");
    this.jump = byId("jump");
    this.listen();
  }

  listen() {
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.running) this.stop();
      else this.send();
    });
    this.field.addEventListener("input", () => this.fit());
    this.field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
      // Without a keyboard Enter is the only way to a new line.
      const plain = !event.ctrlKey && !event.metaKey;
      if (plain && matchMedia("(pointer: coarse)").matches) return;
      event.preventDefault();
      this.send();
    });
    // Only a reader goes up; the log's own growth is no reason to stop following its end.
    this.log.addEventListener("scroll", () => {
      const up = this.log.scrollTop < this.scrolledTo;
      this.scrolledTo = this.log.scrollTop;
      if (up || this.atEnd) this.follow(this.atEnd);
    });
    this.jump.addEventListener("click", () => this.scrollToEnd());
    new ResizeObserver(() => this.following && this.scrollToEnd()).observe(this.messages);
    // What breaks while the page goes is no failure of the answer's: nothing is written after this.
    addEventListener("pagehide", () => {
      for (const { conversation } of this.generations.values()) this.saved(conversation);
      this.leaving = true;
    });
    addEventListener("pageshow", () => { this.leaving = false; });
  }

  get running() {
    return this.generations.has(this.conversation.id);
  }

  show(conversation) {
    this.removed.delete(conversation.id);
    this.conversation = this.generations.get(conversation.id)?.conversation ?? conversation;
    for (const message of this.conversation.messages) {
      // Of a page that was left: nobody writes it any more.
      if (isRunning(message) && !this.running) message.state = "interrupted";
    }
    this.render();
    this.scrollToEnd();
  }

  render() {
    this.views = this.conversation.messages.map((message) =>
      message.role === "user" ? { node: userMessage(message), update() {} } : this.assistantView(message));
    this.messages.replaceChildren(...this.views.map((view) => view.node));
    this.update();
  }

  assistantView(message) {
    return new AssistantMessage(message, { announce, again: () => this.again() });
  }

  append(view) {
    this.views.push(view);
    this.messages.append(view.node);
  }

  update() {
    byId("welcome").hidden = this.views.length > 0;
    for (const [at, view] of this.views.entries()) view.update(at === this.views.length - 1);
    this.updateAction();
  }

  updateAction() {
    this.action.dataset.action = this.running ? "stop" : "send";
    const label = t(this.running ? "stop" : "send");
    this.action.setAttribute("aria-label", label);
    this.action.title = label;
    this.action.disabled = !this.running && this.field.value.trim() === "";
  }

  // Of a streamed answer only its own view changes, once a frame.
  updateSoon(generation) {
    this.save(generation);
    if (generation.conversation !== this.conversation || this.frame !== undefined) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = undefined;
      this.views.at(-1)?.update(true);
    });
  }

  save(generation) {
    const now = performance.now();
    if (isRunning(generation.message) && now - (generation.savedAt ?? 0) < SAVE_INTERVAL_MS) return;
    generation.savedAt = now;
    this.saved(generation.conversation);
  }

  saved(conversation) {
    if (this.leaving || this.removed.has(conversation.id)) return;
    if (!store.saveConversation(conversation)) this.onFull();
  }

  // ---- What a reader does

  send() {
    const content = this.field.value.trim();
    if (content === "" || this.running) return;
    this.field.value = "";
    this.fit();
    const { conversation } = this;
    if (conversation.messages.length === 0) conversation.title = titleOf(content);
    const message = { role: "user", content };
    conversation.messages.push(message);
    this.append({ node: userMessage(message), update() {} });
    this.answer();
  }

  again() {
    if (this.running) return;
    this.conversation.messages.pop();
    this.views.pop().node.remove();
    this.answer();
  }

  stop() {
    this.generations.get(this.conversation.id)?.stop();
  }

  async answer() {
    const { conversation } = this;
    conversation.updated = Date.now();
    const generation = new Generation(conversation, this.model, () => this.updateSoon(generation));
    this.generations.set(conversation.id, generation);
    this.append(this.assistantView(generation.message));
    this.saved(conversation);
    this.update();
    this.scrollToEnd();
    this.onRunning();
    await generation.run();
    this.generations.delete(conversation.id);
    this.saved(conversation);
    if (conversation === this.conversation) this.update();
    this.onRunning();
    const { error } = generation.message;
    if (error?.status === 401 && await this.onUnauthorized() && conversation === this.conversation) this.again();
  }

  // The conversation is deleted: what is being written there ends.
  forget(id) {
    this.removed.add(id);
    this.generations.get(id)?.stop();
  }

  // A worker was lost: whatever is being written goes on, and says so.
  workerLost(name) {
    for (const generation of this.generations.values()) {
      if (!generation.message.lost.includes(name)) generation.message.lost.push(name);
      this.updateSoon(generation);
    }
  }

  // ---- The field and the end of the log

  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
    this.updateAction();
  }

  fill(text) {
    this.field.value = text;
    this.fit();
    this.field.focus();
  }

  get atEnd() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_END_PX;
  }

  follow(following) {
    this.following = following;
    this.jump.hidden = following;
  }

  scrollToEnd() {
    this.log.scrollTop = this.log.scrollHeight;
    this.scrolledTo = this.log.scrollTop;
    this.follow(true);
  }
}

function titleOf(content) {
  const line = content.split("\n", 1)[0];
  return line.length > TITLE_CHARS ? `${line.slice(0, TITLE_CHARS - 1)}…` : line;
}

// For screen readers, block by block: every token would drown everything else.
function announce(text) {
  const announcer = byId("announcer");
  announcer.append(element("p", {}, text));
  while (announcer.childElementCount > ANNOUNCED_MAX) announcer.firstElementChild.remove();
}
