// Puts the parts together: begin here.
import * as api from "./api.js";
import { Chat } from "./chat.js";
import { Cluster } from "./cluster.js";
import { byId, element } from "./dom.js";
import { icon } from "./icons.js";
import { applySetting, applyTheme, askForKey, bindRemoveAll, bindSettings } from "./settings.js";
import { notify, Sidebar } from "./sidebar.js";
import * as store from "./store.js";
import { setLanguage, t, translate } from "./strings.js";

const WIDE = matchMedia("(min-width: 1180px)");    // room for both drawers beside the chat
const MEDIUM = matchMedia("(min-width: 820px)");   // for the conversations
const MODEL_RETRY_MS = 2000;

store.loadSettings();
applyTheme();
setLanguage(store.settings.language);
for (const node of document.querySelectorAll("[data-icon]")) node.append(icon(node.dataset.icon));
translate();

const chat = new Chat({
  onFull: () => notify(t("errorFull")),
  onRunning() {
    sidebar.update(chat.conversation.id);
    cluster.poll();
  },
  onUnauthorized: unauthorized,
});

const cluster = new Cluster({
  wanted: () => drawers.panel.open || chat.generations.size > 0,
  onLost: (name) => chat.workerLost(name),
  onUnauthorized: unauthorized,
});

const sidebar = new Sidebar({
  onOpen(conversation) {
    openConversation(conversation);
    if (!MEDIUM.matches) drawers.sidebar.toggle(false);
    byId("prompt").focus();
  },
  running: (id) => chat.generations.get(id)?.conversation,
  onRemoved(id) {
    chat.forget(id);
    if (id === chat.conversation.id) openConversation(store.newConversation());
    else sidebar.update(chat.conversation.id);
  },
});

// A column where there is room, else a sheet over the chat that Escape and the shade close.
class Drawer {
  static all = [];

  constructor(id, room, open) {
    this.node = byId(id);
    this.button = byId(`toggle-${id}`);
    this.room = room;
    this.onToggle = () => {};
    Drawer.all.push(this);
    this.button.addEventListener("click", () => this.toggle(!this.open));
    this.node.querySelector(".close-drawer").addEventListener("click", () => this.toggle(false));
    room.addEventListener("change", () => this.toggle(room.matches));
    this.toggle(open);
  }

  get sheet() {
    return this.open && !this.room.matches;
  }

  toggle(open) {
    const changed = open !== this.open;
    this.open = open;
    this.node.classList.toggle("closed", !open);
    this.node.inert = !open;
    this.button.setAttribute("aria-expanded", open);
    const covered = Drawer.all.some((drawer) => drawer.sheet);
    byId("shade").hidden = !covered;
    document.querySelector("main").inert = covered;
    if (!changed) return;
    if (this.sheet) this.node.querySelector(".close-drawer").focus();
    else if (!open) this.button.focus({ preventScroll: true });
    this.onToggle(open);
  }
}

const drawers = {
  sidebar: new Drawer("sidebar", MEDIUM, MEDIUM.matches),
  panel: new Drawer("panel", WIDE, WIDE.matches && store.settings.panel !== false),
};
drawers.panel.onToggle = (open) => {
  if (WIDE.matches) store.changeSettings({ panel: open });
  cluster.poll();
};
byId("shade").addEventListener("click", closeSheets);

function closeSheets() {
  const sheets = Drawer.all.filter((drawer) => drawer.sheet);
  for (const drawer of sheets) drawer.toggle(false);
  return sheets.length > 0;
}

addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open]")) return;
  if (closeSheets() || !chat.running) return;
  event.preventDefault();
  chat.stop();
  byId("prompt").focus();
});

function openConversation(conversation) {
  store.setCurrentId(conversation.id);
  chat.show(conversation);
  sidebar.update(conversation.id);
}

byId("new-chat").addEventListener("click", () => {
  openConversation(store.newConversation());
  if (!MEDIUM.matches) drawers.sidebar.toggle(false);
  byId("prompt").focus();
});

async function unauthorized() {
  const given = await askForKey();
  byId("forget-key").hidden = store.apiKey() === "";
  if (given) learnModel();
  return given;
}

// What can be asked is known only once the server says so; until then it is asked again.
async function learnModel() {
  try {
    const [model] = await api.models();
    chat.model = model.id;
    byId("model").textContent = model.id;
    document.title = `${model.id} · Bottega`;
    greet();
  } catch (error) {
    if (error.status === 401) unauthorized();
    else setTimeout(learnModel, MODEL_RETRY_MS);
  }
}

function greet() {
  byId("welcome-more").textContent = t("welcomeMore", { model: chat.model || "Bottega" });
  byId("examples").replaceChildren(...["example1", "example2", "example3"].map((key) =>
    element("li", {}, element("button", { type: "button", onclick: () => chat.fill(t(key)) }, t(key)))));
}

bindSettings((name) => {
  applySetting(name);
  if (name === "theme") cluster.redraw();
  if (name !== "language") return;
  greet();
  chat.render();
  sidebar.update(chat.conversation.id);
  cluster.relabel();
});
applySetting("thinking");
bindRemoveAll(() => {
  for (const { id } of store.conversations()) {
    chat.forget(id);
    store.removeConversation(id);
  }
  openConversation(store.newConversation());
});
byId("forget-key").addEventListener("click", () => {
  store.setApiKey("");
  byId("forget-key").hidden = true;
});
byId("forget-key").hidden = store.apiKey() === "";
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => cluster.redraw());
byId("send").append(icon("send"), icon("stop"));

const current = store.conversations().find(({ id }) => id === store.currentId());
openConversation(current ?? store.newConversation());
greet();
learnModel();
cluster.poll();
if (matchMedia("(pointer: fine)").matches) byId("prompt").focus();
