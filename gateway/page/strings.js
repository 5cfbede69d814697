// What the page says, in English and Italian. The interface's language is not the model's: that is a switch
// of the chat.
export const STRINGS = {
  en: {
    skip: "Skip to the message field",
    conversations: "Conversations", newChat: "New chat", noConversations: "Kept in this browser only.",
    untitled: "New chat", remove: "Delete “{title}”", removed: "Deleted.", undo: "Undo",
    chat: "Chat", mixture: "Mixture", settings: "Settings", close: "Close", workersAndMap: "Workers and map",
    welcome: "Ask something.", welcomeMore: "{model} answers in Italian and English. Every answer passes through a mixture of experts that you can watch at work.",
    example1: "What is 47 + 85?", example2: "Scrivi una poesia breve sul mare.", example3: "Explain what a mixture of experts is.",
    prompt: "Message", promptPlaceholder: "Write a message", promptHint: "Enter sends, Shift+Enter starts a new line, Esc stops.",
    send: "Send", stop: "Stop", again: "Answer again", retry: "Try again", copy: "Copy", copied: "Copied", code: "Code", table: "Table",
    thinking: "Thinking", off: "Off", on: "On", turbo: "Turbo", thinkingIn: "Thinks in",
    english: "English", italian: "Italian", thinkingNow: "Thinking…", thought: "Thought for {seconds} s", thoughtSome: "Thought",
    you: "You", assistant: "Assistant", waiting: "Waiting for the first token…",
    tokens: "{count} tokens", firstToken: "first token {seconds} s", speed: "{speed} tokens/s",
    stopped: "Stopped.", interrupted: "Interrupted: the page was closed or reloaded.", limit: "Ended at the token limit.",
    lostMeanwhile: "{name} was lost meanwhile; the answer went on.",
    jump: "Jump to the latest",
    errorNetwork: "The server cannot be reached.", errorCut: "The answer broke off: the connection ended.",
    errorLoading: "The model is still loading.", errorBusy: "The server is busy.",
    errorSeconds: "Try again in {seconds} s.",
    errorFull: "This browser has no room left for conversations: delete some.",
    keyTitle: "API key", keyAsk: "This server asks for an API key. It is kept until this tab is closed.",
    keyWrong: "The server refused this key.", keyUse: "Use it", keyForget: "Forget the API key", cancel: "Cancel",
    appearance: "Appearance", theme: "Colours", interfaceLanguage: "Interface language", automatic: "Automatic", light: "Light", dark: "Dark",
    sampling: "Answers", system: "System prompt", temperature: "Temperature", maxTokens: "Most tokens", seed: "Seed",
    unset: "the model's own", removeAll: "Delete all conversations", removeAllSure: "Delete all? Click again.",
    mapTitle: "Rows a second, by layer and expert", mapHint: "Arrow keys move from expert to expert.",
    mapCell: "Layer {layer}, expert {expert}: {rows} rows/s, on {holders}", mapNobody: "nobody", mapDense: "Layer {layer} has no experts.",
    mapSummary: "{layers} layers of {experts} experts; {rows} rows a second; busiest: layer {layer}, expert {expert}.",
    mapIdle: "{layers} layers of {experts} experts; idle.",
    mapNone: "No expert worker has reported rows yet.", mapEmpty: "No model yet.", layer: "layer", expert: "expert",
    workers: "Workers", events: "What happened", noEvents: "Nothing yet.",
    gateway: "gateway", router: "router", attention: "attention", expertRole: "experts",
    active: "active", joining: "joining", draining: "draining", suspect: "suspect", dead: "dead", quarantined: "quarantined", lost: "lost",
    rowsPerSecond: "{rows} rows/s", running: "{count} running", held: "{held} of {assigned} experts",
    lostFor: "for {seconds} s", backFor: "back for {seconds} s",
    showHeld: "Show on the map what {name} holds",
    eventLost: "{name} was lost", eventBack: "{name} is back", eventRestarted: "{name} was restarted", eventJoined: "{name} joined", eventState: "{name} is {state}",
    routerAway: "No router answers: this is the last table known.", clusterAway: "The gateway does not say how the cluster is ({reason}).",
    epoch: "epoch {epoch}",
  },
  it: {
    skip: "Vai al campo del messaggio",
    conversations: "Conversazioni", newChat: "Nuova chat", noConversations: "Conservate solo in questo browser.",
    untitled: "Nuova chat", remove: "Elimina “{title}”", removed: "Eliminata.", undo: "Annulla",
    chat: "Chat", mixture: "Mistura", settings: "Impostazioni", close: "Chiudi", workersAndMap: "Worker e mappa",
    welcome: "Chiedi qualcosa.", welcomeMore: "{model} risponde in italiano e in inglese. Ogni risposta passa per una mistura di esperti che puoi guardare al lavoro.",
    example1: "Quanto fa 47 + 85?", example2: "Scrivi una poesia breve sul mare.", example3: "Spiega che cos'è una mistura di esperti.",
    prompt: "Messaggio", promptPlaceholder: "Scrivi un messaggio", promptHint: "Invio manda, Maiusc+Invio va a capo, Esc ferma.",
    send: "Invia", stop: "Ferma", again: "Rispondi di nuovo", retry: "Riprova", copy: "Copia", copied: "Copiato", code: "Codice", table: "Tabella",
    thinking: "Ragionamento", off: "No", on: "Sì", turbo: "Turbo", thinkingIn: "Ragiona in",
    english: "Inglese", italian: "Italiano", thinkingNow: "Sta ragionando…", thought: "Ha ragionato per {seconds} s", thoughtSome: "Ragionamento",
    you: "Tu", assistant: "Assistente", waiting: "In attesa del primo token…",
    tokens: "{count} token", firstToken: "primo token {seconds} s", speed: "{speed} token/s",
    stopped: "Fermata.", interrupted: "Interrotta: la pagina è stata chiusa o ricaricata.", limit: "Finita al limite di token.",
    lostMeanwhile: "{name} è andato perso nel frattempo; la risposta è proseguita.",
    jump: "Vai alla fine",
    errorNetwork: "Il server non è raggiungibile.", errorCut: "La risposta si è interrotta: la connessione è finita.",
    errorLoading: "Il modello si sta ancora caricando.", errorBusy: "Il server è occupato.",
    errorSeconds: "Riprova tra {seconds} s.",
    errorFull: "In questo browser non c'è più posto per le conversazioni: eliminane qualcuna.",
    keyTitle: "Chiave API", keyAsk: "Questo server chiede una chiave API. Resta finché questa scheda non viene chiusa.",
    keyWrong: "Il server ha rifiutato questa chiave.", keyUse: "Usa", keyForget: "Dimentica la chiave API", cancel: "Annulla",
    appearance: "Aspetto", theme: "Colori", interfaceLanguage: "Lingua dell'interfaccia", automatic: "Automatico", light: "Chiaro", dark: "Scuro",
    sampling: "Risposte", system: "Istruzioni di sistema", temperature: "Temperatura", maxTokens: "Token al massimo", seed: "Seme",
    unset: "del modello", removeAll: "Elimina tutte le conversazioni", removeAllSure: "Tutte? Premi di nuovo.",
    mapTitle: "Righe al secondo, per strato ed esperto", mapHint: "Le frecce passano da un esperto all'altro.",
    mapCell: "Strato {layer}, esperto {expert}: {rows} righe/s, su {holders}", mapNobody: "nessuno", mapDense: "Lo strato {layer} non ha esperti.",
    mapSummary: "{layers} strati di {experts} esperti; {rows} righe al secondo; il più occupato: strato {layer}, esperto {expert}.",
    mapIdle: "{layers} strati di {experts} esperti; a riposo.",
    mapNone: "Nessun worker ha ancora riferito righe.", mapEmpty: "Ancora nessun modello.", layer: "strato", expert: "esperto",
    workers: "Worker", events: "Che cosa è successo", noEvents: "Ancora niente.",
    gateway: "gateway", router: "router", attention: "attenzione", expertRole: "esperti",
    active: "attivo", joining: "in arrivo", draining: "in uscita", suspect: "sospetto", dead: "morto", quarantined: "in quarantena", lost: "perso",
    rowsPerSecond: "{rows} righe/s", running: "{count} in corso", held: "{held} di {assigned} esperti",
    lostFor: "da {seconds} s", backFor: "tornato da {seconds} s",
    showHeld: "Mostra sulla mappa che cosa tiene {name}",
    eventLost: "{name} è andato perso", eventBack: "{name} è tornato", eventRestarted: "{name} è ripartito", eventJoined: "{name} è arrivato", eventState: "{name} è {state}",
    routerAway: "Nessun router risponde: questa è l'ultima tabella nota.", clusterAway: "Il gateway non dice come sta il cluster ({reason}).",
    epoch: "epoca {epoch}",
  },
};

let language = "en";
let locale = "en";  // for numbers and times: the browser's own kind of the language

// "auto": the first of the browser's languages that there is.
export function setLanguage(wanted) {
  const known = wanted === "auto" ? navigator.languages.map((tag) => tag.slice(0, 2)) : [wanted];
  language = known.find((tag) => tag in STRINGS) ?? "en";
  locale = navigator.languages.find((tag) => tag.slice(0, 2) === language) ?? language;
  document.documentElement.lang = language;
}

// "{name}" in the string is replaced by values.name. A word of a newer server's (a role, a state) stays as it is.
export function t(key, values = {}) {
  return (STRINGS[language][key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(locale, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

export function clock(time) {
  return new Intl.DateTimeFormat(locale, { timeStyle: "medium" }).format(time);
}

// What index.html says itself: data-t is the text, data-t-label, data-t-title and data-t-placeholder
// are attributes.
export function translate(root = document) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const [name, attribute] of [["label", "aria-label"], ["title", "title"], ["placeholder", "placeholder"]]) {
    for (const node of root.querySelectorAll(`[data-t-${name}]`)) {
      node.setAttribute(attribute, t(node.getAttribute(`data-t-${name}`)));
    }
  }
}
