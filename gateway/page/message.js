// How one message looks, while it grows and afterwards.
import { element } from "./dom.js";
import { isRunning } from "./generation.js";
import { icon } from "./icons.js";
import { copyButton, MarkdownView } from "./render.js";
import { number, t } from "./strings.js";

export function userMessage(message) {
  return element("article", { class: "message user", "aria-label": t("you") },
                 element("p", { class: "text", dir: "auto" }, message.content));
}

export class AssistantMessage {
  // `announce` gets what a screen reader should say; `again` is what the button under the answer does.
  constructor(message, { announce, again }) {
    this.message = message;
    this.live = isRunning(message);
    const say = (text) => this.live && announce(text);

    this.summary = element("summary", { onclick: () => { this.touched = true; } });
    const reasoning = element("div", { class: "markdown" });
    this.reasoning = element("details", { class: "reasoning", hidden: true }, this.summary, reasoning);
    const content = element("div", { class: "markdown content" });
    this.note = element("p", { class: "note", hidden: true });
    this.stats = element("span", { class: "stats" });
    this.copy = copyButton(() => message.content);
    this.again = element("button", { type: "button", class: "quiet again", onclick: again }, icon("again"), element("span"));
    this.footer = element("footer", {}, this.stats, this.copy, this.again);
    this.node = element("article", { class: "message assistant", "aria-label": t("assistant") },
                        this.reasoning, content, this.note, this.footer);
    this.reasoningView = new MarkdownView(reasoning);
    this.contentView = new MarkdownView(content, say);
    this.update(false);
  }

  // `last`: of its conversation; only that one can be answered again.
  update(last) {
    const { message } = this;
    const running = isRunning(message);
    this.node.setAttribute("aria-busy", running);
    this.node.dataset.state = message.state;
    this.updateReasoning(running);
    this.contentView.update(message.content);
    this.note.replaceChildren(...this.notes().map((text) => element("span", {}, text)));
    this.note.hidden = this.note.childElementCount === 0;
    this.note.classList.toggle("failed", message.state === "failed");
    this.stats.textContent = this.statsText();
    this.copy.hidden = running || message.content === "";
    this.again.hidden = running || !last;
    this.again.lastChild.textContent = t(message.state === "failed" ? "retry" : "again");
    this.footer.hidden = this.stats.textContent === "" && this.copy.hidden && this.again.hidden;
    if (this.live && !running) {
      this.contentView.end();
      this.live = false;
    }
  }

  updateReasoning(running) {
    const { message } = this;
    this.reasoning.hidden = message.reasoning === "";
    if (this.reasoning.hidden) return;
    const thinking = message.state === "thinking";
    if (!this.touched) this.reasoning.open = thinking;  // until the reader decides
    const seconds = message.thoughtMs >= 100 && number(message.thoughtMs / 1000, 1);
    this.summary.textContent =
      thinking && running ? t("thinkingNow") : seconds ? t("thought", { seconds }) : t("thoughtSome");
    this.reasoningView.update(message.reasoning);
  }

  notes() {
    const { message } = this;
    const notes = (message.lost ?? []).map((name) => t("lostMeanwhile", { name }));
    switch (message.state) {
      case "waiting": notes.push(t("waiting")); break;
      case "stopped": notes.push(t("stopped")); break;
      case "interrupted": notes.push(t("interrupted")); break;
      case "failed": notes.push(...errorTexts(message.error)); break;
      case "done": if (message.finish === "length") notes.push(t("limit")); break;
    }
    return notes;
  }

  statsText() {
    const { stats } = this.message;
    if (!stats) return "";
    return [t("tokens", { count: number(stats.tokens) }), t("firstToken", { seconds: number(stats.firstTokenS, 2) }),
            t("speed", { speed: number(stats.speed, stats.speed < 100 ? 1 : 0) })].join(" · ");
  }
}

const ERRORS = { unreachable: "errorNetwork", cut: "errorCut", loading: "errorLoading", queue_full: "errorBusy" };

function errorTexts({ message, code, retryAfterS }) {
  const texts = [code in ERRORS ? t(ERRORS[code]) : message];
  if (retryAfterS > 0) texts.push(t("errorSeconds", { seconds: number(retryAfterS) }));
  return texts;
}
