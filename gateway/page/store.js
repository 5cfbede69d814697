// What stays in the browser: one entry of localStorage a conversation, one for the settings; the API key
// in sessionStorage, so that it ends with the tab. What cannot be read (another version's, damaged) is
// as if it were not there.
//
// Conversation: {id, title, updated, messages: [
//   {role: "user", content} |
//   {role: "assistant", content, reasoning, thoughtMs, state, error, finish, stats, lost: [names]}]}
// state: "waiting" | "thinking" | "answering" | "done" | "stopped" | "failed" | "interrupted"

const CONVERSATION = "bottega.conversation.";
const SETTINGS = "bottega.settings";
const CURRENT = "bottega.current";
const KEY = "bottega.key";

const DEFAULTS = {
  language: "auto", theme: "auto", panel: null,
  thinking: "on", reasoningLanguage: "en",
  system: "", temperature: "", maxTokens: "", seed: "",
};

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

// False: the browser has no room left, or gives none (private mode).
function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

const isConversation = (value) =>
  typeof value?.id === "string" && typeof value.title === "string" && Array.isArray(value.messages) &&
  value.messages.every((message) => typeof message?.content === "string");

export function conversations() {
  const found = [];
  for (let at = 0; at < localStorage.length; ++at) {
    const key = localStorage.key(at);
    const value = key.startsWith(CONVERSATION) ? read(key) : null;
    if (isConversation(value)) found.push(value);
  }
  return found.sort((one, other) => other.updated - one.updated);
}

export const isConversationKey = (key) => key === null || key.startsWith(CONVERSATION);

export function newConversation() {
  // randomUUID wants a secure context; the page may be read over plain HTTP.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  const id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { id, title: "", updated: Date.now(), messages: [] };
}

export const saveConversation = (conversation) => write(CONVERSATION + conversation.id, conversation);
export const removeConversation = (id) => localStorage.removeItem(CONVERSATION + id);

// This tab's. A new tab begins with an empty chat: of two that write one conversation the last one
// would win.
export const currentId = () => sessionStorage.getItem(CURRENT);
export const setCurrentId = (id) => sessionStorage.setItem(CURRENT, id);

export const settings = { ...DEFAULTS };
export function loadSettings() {
  const saved = read(SETTINGS);
  for (const name of Object.keys(DEFAULTS)) {
    const value = saved?.[name];
    if (typeof value === typeof DEFAULTS[name] || (name === "panel" && typeof value === "boolean")) settings[name] = value;
  }
}
export function changeSettings(changes) {
  Object.assign(settings, changes);
  write(SETTINGS, settings);
}

export const apiKey = () => sessionStorage.getItem(KEY) ?? "";
export function setApiKey(key) {
  if (key === "") sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}
