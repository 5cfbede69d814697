// One answer: asks the server and folds the stream into a message. Knows nothing of how it looks.
import { ApiError, chat } from "./api.js";
import { settings } from "./store.js";

const AT_ONCE_MS = 50;
const RUNNING = ["waiting", "thinking", "answering"];
export const isRunning = (message) => RUNNING.includes(message.state);

// The switches of EngGPT2's chat template; templates without them ignore what they do not know.
function templateSwitches() {
  if (settings.thinking === "off") return { enable_thinking: false };
  const language = { reasoning_lang: settings.reasoningLanguage };
  return settings.thinking === "turbo" ? { ...language, enable_turbo: true } : language;
}

function bodyOf(model, messages) {
  const body = { messages: [], chat_template_kwargs: templateSwitches() };
  if (model !== "") body.model = model;
  if (settings.system.trim() !== "") body.messages.push({ role: "system", content: settings.system });
  // Thoughts stay here: the template drops those of earlier turns.
  for (const { role, content } of messages) body.messages.push({ role, content });
  for (const [name, value] of [["temperature", settings.temperature], ["max_tokens", settings.maxTokens], ["seed", settings.seed]]) {
    if (value.trim() !== "") body[name] = Number(value);
  }
  return body;
}

export class Generation {
  // Adds its message to the conversation at once. `onChange` is called after each change of the message.
  constructor(conversation, model, onChange) {
    this.conversation = conversation;
    this.onChange = onChange;
    this.abort = new AbortController();
    this.body = bodyOf(model, conversation.messages.filter((message) => message.content !== ""));
    this.message = { role: "assistant", content: "", reasoning: "", state: "waiting", lost: [] };
    conversation.messages.push(this.message);
  }

  async run() {
    const { message } = this;
    this.begin = performance.now();
    try {
      for await (const chunk of chat(this.body, this.abort.signal)) {
        this.take(chunk, performance.now());
        this.onChange();
      }
      message.state = "done";
    } catch (error) {
      if (this.abort.signal.aborted) {
        message.state = "stopped";
      } else {
        if (!(error instanceof ApiError)) console.error(error);
        const { status = 0, code = "", retryAfterS = 0 } = error;
        message.state = "failed";
        message.error = { message: error.message, status, code, retryAfterS };
      }
    }
    this.onChange();
  }

  stop() {
    this.abort.abort();
  }

  take({ choices, usage }, now) {
    const { message } = this;
    const { delta = {}, finish_reason: finish } = choices[0] ?? {};
    const reasoning = delta.reasoning ?? delta.reasoning_content ?? "";
    const content = delta.content ?? "";
    if (reasoning !== "" && message.state === "waiting") {
      message.state = "thinking";
      this.thinkingSince = now;
    }
    if (content !== "" && message.state !== "answering") {
      if (message.state === "thinking") message.thoughtMs = now - this.thinkingSince;
      message.state = "answering";
    }
    message.reasoning += reasoning;
    message.content += content;
    if (finish) message.finish = finish;
    if (usage) this.measure(usage.completion_tokens, now);
  }

  // Speed is that of the tokens after the first, whose wait is the prompt's; of an answer that came all at once
  // it is that of the whole.
  measure(tokens, now) {
    if (tokens === 0) return;
    if (this.first === undefined) this.first = { tokens, now };
    if (tokens !== this.message.stats?.tokens) this.last = { tokens, now };
    const from = this.last.now - this.first.now >= AT_ONCE_MS ? this.first : { tokens: 0, now: this.begin };
    this.message.stats = {
      tokens,
      firstTokenS: (this.first.now - this.begin) / 1000,
      speed: (this.last.tokens - from.tokens) / (this.last.now - from.now) * 1000,
    };
  }
}
