// The list of conversations.
import { byId, element } from "./dom.js";
import { icon } from "./icons.js";
import * as store from "./store.js";
import { t } from "./strings.js";

const UNDO_MS = 8000;

export class Sidebar {
  // `onOpen(conversation)`; `running(id)`: the conversation where an answer is being written;
  // `onRemoved(id)`.
  constructor({ onOpen, running, onRemoved }) {
    Object.assign(this, { onOpen, running, onRemoved });
    this.list = byId("conversations");
    addEventListener("storage", (event) => {
      if (store.isConversationKey(event.key)) this.update(this.current);
    });
  }

  update(current) {
    this.current = current;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.id : undefined;
    const conversations = store.conversations();
    this.list.replaceChildren(...conversations.map((conversation) => this.row(conversation)));
    byId("no-conversations").hidden = conversations.length > 0;
    if (focused !== undefined) this.list.querySelector(`button[data-id="${focused}"]`)?.focus();
  }

  row(conversation) {
    const { id } = conversation;
    const title = conversation.title || t("untitled");
    const open = element("button", {
      type: "button", class: "open", "data-id": id, title, "aria-current": id === this.current ? "page" : null,
      onclick: () => this.onOpen(conversation),
    }, title);
    const label = t("remove", { title });
    const remove = element("button", {
      type: "button", class: "quiet remove", "aria-label": label, title: label, onclick: () => this.remove(conversation),
    }, icon("remove"));
    return element("li", { class: this.running(id) ? "running" : null }, open, remove);
  }

  remove(conversation) {
    const newest = this.running(conversation.id) ?? conversation;
    store.removeConversation(conversation.id);
    this.onRemoved(conversation.id);
    const undo = () => {
      store.saveConversation(newest);
      this.update(this.current);
    };
    notify(t("removed"), { label: t("undo"), act: undo });
  }
}

let noticeTimer;

// One line at the bottom of the page, with a button if there is something to do about it.
export function notify(text, action) {
  const notice = byId("notice");
  const hide = () => { notice.hidden = true; };
  const button = action && element("button", { type: "button", onclick: () => { hide(); action.act(); } }, action.label);
  notice.replaceChildren(element("span", {}, text), ...(button ? [button] : []));
  notice.hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(hide, UNDO_MS);
}
