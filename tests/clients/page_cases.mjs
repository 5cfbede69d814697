// The page as somebody in front of it sees it: headless Chromium against a live cluster, whose workers die.
// Every case has a browser context of its own, and ends with: no request to anybody else, nothing that the
// Content-Security-Policy had to refuse, no error in the console. BOTTEGA_SHOTS=DIR keeps pictures.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

const { chromium } = createRequire(`${process.cwd()}/`)("playwright-core");
const { BOTTEGA_URL: URL_OPEN, BOTTEGA_LOCKED_URL: URL_LOCKED, BOTTEGA_KEY: KEY, BOTTEGA_SHOTS: SHOTS } = process.env;
const members = JSON.parse(process.env.BOTTEGA_MEMBERS);
const PATIENCE_MS = 60_000;  // a hang limit, not a measurement
const LONG = 900;            // tokens of an answer under which something happens

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.BOTTEGA_CHROMIUM,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});
after(() => browser?.close());

// settings: as the page keeps them; greedy unless said otherwise. errors: what the console may say.
async function visit(use, { url = URL_OPEN, settings = {}, context: options = {}, errors = /^$/ } = {}) {
  const context = await browser.newContext({ viewport: { width: 1300, height: 820 }, locale: "en-GB", ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const elsewhere = [], complaints = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) elsewhere.push(request.url());
  });
  page.on("pageerror", (error) => complaints.push(error.stack));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("dialog", (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  await page.addInitScript((kept) => {
    window.refused = [];
    document.addEventListener("securitypolicyviolation", (event) => window.refused.push(`${event.violatedDirective} ${event.blockedURI}`));
    if (!localStorage.getItem("bottega.settings")) localStorage.setItem("bottega.settings", JSON.stringify(kept));
  }, { temperature: "0", seed: "7", ...settings });
  try {
    await page.goto(url);
    await use(page, context);
    assert.deepEqual(await page.evaluate(() => window.refused), [], "the policy had to refuse something");
    assert.deepEqual(elsewhere, [], "requests to others");
    assert.deepEqual(complaints.filter((complaint) => !errors.test(complaint)), []);
  } catch (error) {
    console.error(complaints.join("\n"));
    throw error;
  } finally {
    await context.close();
  }
}

const picture = async (page, name) => { if (SHOTS) await page.screenshot({ path: `${SHOTS}/${name}.png` }); };
const modelKnown = (page) => page.waitForSelector("#model:not(:empty)");
const answers = (page) => page.locator(".message.assistant");
const inState = (page, state, number = 1) =>
  page.waitForFunction(([s, n]) => document.querySelectorAll(`.message.assistant[data-state="${s}"]`).length >= n, [state, number]);
const lettersOf = (page) => answers(page).last().evaluate((node) =>
  [...node.querySelectorAll(".markdown")].map((part) => part.textContent).join("\u0000"));

async function send(page, text) {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
}

// Answers go on for so many tokens, whatever the model would say to that.
function prolong(page, tokens = LONG) {
  return page.route("**/v1/chat/completions", (route) => route.continue({
    postData: JSON.stringify({ ...route.request().postDataJSON(), ignore_eos: true, max_tokens: tokens }),
  }));
}

const event = (chunk) => `data: ${JSON.stringify(chunk)}\n\n`;
const DONE = "data: [DONE]\n\n";
function sayInstead(page, deltas, end = DONE) {
  const chunks = deltas.map((delta, at) => ({ choices: [{ index: 0, delta }], usage: { completion_tokens: at + 1 } }));
  return page.route("**/v1/chat/completions", (route) =>
    route.fulfill({ contentType: "text/event-stream", body: chunks.map(event).join("") + end }));
}

async function until(what, condition) {
  for (const begin = Date.now(); ; await new Promise((resolve) => setTimeout(resolve, 20))) {
    const found = await condition();
    if (found) return found;
    if (Date.now() - begin > PATIENCE_MS) throw new Error(`never: ${what}`);
  }
}

const clusterNow = async () => (await fetch(`${URL_OPEN}/v1/cluster`)).json();
async function wholeCluster() {
  await until("a whole cluster", async () => {
    const { members: present } = await clusterNow();
    return present.length === Object.keys(members).length - 1 && present.every((member) => member.state === "active");
  });
}
// The name of a worker, and its process of now: what was killed before has come back as another.
async function kill(name, signal = "SIGKILL") {
  process.kill(members[name], signal);
}

test("an answer streams, thoughts fold, and the page says how fast it was", () => visit(async (page) => {
  await modelKnown(page);
  await picture(page, "welcome");
  await page.evaluate(() => {
    window.lengths = new Set();
    new MutationObserver(() => window.lengths.add(document.querySelector("#messages").textContent.length))
      .observe(document.querySelector("#messages"), { subtree: true, childList: true, characterData: true });
  });
  await send(page, "Quanto fa 47 + 85?");
  await page.waitForSelector(".reasoning[open]");
  await inState(page, "done");
  assert.match(await page.textContent(".content"), /132/);
  assert.ok(await page.evaluate(() => window.lengths.size) > 10, "it came in one piece");
  assert.equal(await page.locator(".reasoning").evaluate((node) => node.open), false);
  assert.match(await page.textContent(".reasoning summary"), /Thought/);
  await page.click(".reasoning summary");
  await page.waitForSelector(".reasoning[open] .markdown:not(:empty)");
  assert.match(await page.textContent(".stats"), /^\d+ tokens · first token \d+\.\d\d s · [\d,.]+ tokens\/s$/);
  assert.match(await page.textContent("#announcer"), /132/, "a screen reader hears it");
  assert.match(await page.title(), /bottega-tiny/);
  await page.waitForFunction(() => /busiest/.test(document.querySelector("#map").getAttribute("aria-label")));
  await picture(page, "answer");
}, { settings: { reasoningLanguage: "ita" } }));

test("stop ends it, also at the worker; what was said stays; answer again replaces it", () => visit(async (page) => {
  await modelKnown(page);
  await prolong(page, 4000);
  await send(page, "Tell me a story");
  await until("some text", async () => (await lettersOf(page)).length > 50);
  assert.equal(await page.getAttribute("#send", "aria-label"), "Stop");
  await page.press("#prompt", "Escape");
  await inState(page, "stopped");
  const stopped = await lettersOf(page);
  assert.ok(stopped.length > 50);
  await until("nothing running", async () =>
    /bottega_gateway_requests_running\{[^}]*\} 0\n/.test(await (await fetch(`${URL_OPEN}/metrics`)).text()));
  assert.equal(await lettersOf(page), stopped);
  assert.match(await page.textContent(".note"), /Stopped/);

  const asked = page.waitForRequest("**/v1/chat/completions");
  await page.click(".again");
  const body = (await asked).postDataJSON();
  assert.deepEqual(body.messages.map((message) => message.role), ["user"], "the old answer is not sent");
  await until("other text", async () => (await lettersOf(page)).length > 50);
  await page.click("#send");
  await inState(page, "stopped");
  assert.equal(await answers(page).count(), 1);
}));

test("the switches say how it thinks", () => visit(async (page) => {
  await modelKnown(page);
  const ask = async () => {
    const asked = page.waitForRequest("**/v1/chat/completions");
    await send(page, "Quanto fa 12 + 30?");
    await inState(page, "done", await answers(page).count());
    return (await asked).postDataJSON().chat_template_kwargs;
  };
  assert.deepEqual(await ask(), { reasoning_lang: "en" });
  await page.getByRole("radio", { name: "Italian" }).check({ force: true });
  await page.getByRole("radio", { name: "Turbo" }).check({ force: true });
  assert.deepEqual(await ask(), { reasoning_lang: "ita", enable_turbo: true });
  await page.getByRole("radio", { name: "Off" }).check({ force: true });
  assert.deepEqual(await ask(), { enable_thinking: false });
  assert.ok(await answers(page).last().locator(".reasoning").isHidden());
  assert.ok(await page.getByRole("radio", { name: "Italian" }).isDisabled());
  await page.reload();
  assert.ok(await page.getByRole("radio", { name: "Off" }).isChecked());
  assert.ok(await page.getByRole("radio", { name: "Italian" }).isChecked());
}));

test("conversations outlive a reload, also in the middle of an answer", () => visit(async (page) => {
  await modelKnown(page);
  await send(page, "Quanto fa 1 + 2?");
  await inState(page, "done");
  const first = await lettersOf(page);
  await page.click("#new-chat");
  await prolong(page, 4000);
  await send(page, "A second one");
  await until("some text", async () => (await lettersOf(page)).length > 50);
  await page.reload();
  await inState(page, "interrupted");
  assert.ok((await lettersOf(page)).length > 10, "what had come is kept");
  assert.deepEqual(await page.locator("#conversations .open").allTextContents(), ["A second one", "Quanto fa 1 + 2?"]);
  await page.click("#conversations .open >> text=Quanto");
  assert.equal(await lettersOf(page), first);
  await page.getByRole("button", { name: "Delete “Quanto fa 1 + 2?”" }).click({ force: true });
  assert.deepEqual(await page.locator("#conversations .open").allTextContents(), ["A second one"]);
  await page.click("#notice button");
  assert.equal(await page.locator("#conversations .open").count(), 2);
  await page.click("#open-settings");
  await page.click("#remove-all");
  assert.equal(await page.locator("#conversations .open").count(), 2, "once is not enough");
  await page.click("#remove-all");
  assert.equal(await page.locator("#conversations .open").count(), 0);
  await page.keyboard.press("Escape");
  await page.reload();
  assert.equal(await page.locator("#conversations .open").count(), 0);
}));

test("an answer goes on in a conversation that is not shown", () => visit(async (page) => {
  await modelKnown(page);
  await prolong(page, 300);
  await send(page, "One");
  await until("some text", async () => (await lettersOf(page)).length > 10);
  await page.click("#new-chat");
  assert.equal(await answers(page).count(), 0);
  await page.waitForSelector("#conversations .running");
  await page.waitForSelector("#conversations:not(:has(.running))");
  await page.click("#conversations .open");
  await inState(page, "done");
}));

// The same answer twice; the second time `disturb` acts in the middle of it.
async function undisturbed(page, disturb) {
  await modelKnown(page);
  await prolong(page);
  await send(page, "Tell me a long story about the sea");
  await inState(page, "done");
  const calm = await lettersOf(page);
  await page.click(".again");
  await until("some text", async () => (await lettersOf(page)).length > 100);
  await page.waitForFunction(() => document.querySelectorAll("#workers li").length === 8);
  const name = await disturb();
  await page.waitForFunction((lost) => [...document.querySelectorAll("#events li")].some((line) =>
    /eventLost|eventRestarted/.test(line.dataset.event) && line.textContent.includes(lost)), name);
  await page.waitForSelector(`#workers [data-name="${name}"]:is(.back, [data-state="lost"])`);
  await picture(page, `lost-${name}`);
  await inState(page, "done");
  assert.equal(await lettersOf(page), calm);
  assert.match(await page.textContent(".note"), new RegExp(`${name} was lost meanwhile; the answer went on`));
}

test("an expert worker dies in the middle of an answer: the page shows it, the answer is the same", () => visit(async (page) => {
  await wholeCluster();
  await undisturbed(page, async () => {
    await kill("expert-1");
    return "expert-1";
  });
}));

test("the attention worker of an answer dies: the page shows it, the answer is the same", () => visit(async (page) => {
  await wholeCluster();
  await undisturbed(page, async () => {
    const { name } = await until("who runs it", async () =>
      (await clusterNow()).members.find((member) => member.role === "attention" && member.load >= 1));
    await kill(name);
    return name;
  });
}));

test("a worker that stands still is seen, and so is its return", () => visit(async (page) => {
  await wholeCluster();
  const row = (states) => page.waitForSelector(states.map((state) => `#workers [data-name="expert-3"][data-state="${state}"]`).join());
  await row(["active"]);
  await kill("expert-3", "SIGSTOP");
  try {
    await row(["suspect", "lost"]);
    await row(["lost"]);
    assert.match(await page.textContent('#workers [data-name="expert-3"] .state'), /lost/);
    await picture(page, "lost");
  } finally {
    await kill("expert-3", "SIGCONT");
  }
  await row(["active"]);
  await page.waitForSelector('#events [data-event="eventBack"]');
}));

test("the map: a cell for each expert, by pointer and by keyboard; a worker's experts can be picked", () => visit(async (page) => {
  await wholeCluster();
  await page.waitForSelector("#map:not([hidden])");
  await page.focus("#map");
  await page.keyboard.press("ArrowRight");
  assert.match(await page.textContent("#cell"), /^Layer 0, expert 0: [\d,]+ rows\/s, on expert-\d, expert-\d$/);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.textContent("#cell"), /^Layer 1, expert 63: /);
  await page.hover("#map", { position: { x: 200, y: 10 } });
  assert.match(await page.textContent("#cell"), /^Layer 0, expert \d+: /);
  const pixels = () => page.evaluate(() => document.querySelector("#map").toDataURL());
  const plain = await pixels();
  await page.click('#workers [data-name="expert-0"] button');
  assert.equal(await page.getAttribute('#workers [data-name="expert-0"] button', "aria-pressed"), "true");
  assert.notEqual(await pixels(), plain);
  await page.click('#workers [data-name="expert-0"] button');
  assert.equal(await page.getAttribute('#workers [data-name="expert-0"] button', "aria-pressed"), "false");
}));

test("the cluster is asked while the page can be seen, and not otherwise", () => visit(async (page) => {
  await modelKnown(page);
  let asked = 0;
  page.on("request", (request) => { asked += request.url().endsWith("/v1/cluster"); });
  await until("three looks", () => asked >= 3);
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { configurable: true, value: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await page.waitForTimeout(1500);  // one that was on its way
  const before = asked;
  await page.waitForTimeout(3000);
  assert.equal(asked, before);
  await page.evaluate(() => {
    delete document.hidden;
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await until("another look", () => asked > before);
  await page.click("#toggle-panel");
  await page.waitForSelector("#panel", { state: "hidden" });
  await page.waitForTimeout(1500);
  const closed = asked;
  await page.waitForTimeout(3000);
  assert.equal(asked, closed);
}));

test("a router or a gateway that is away is said, and the last picture stays", () => visit(async (page) => {
  await page.waitForSelector("#workers li");
  const note = (text) => page.waitForFunction((part) => {
    const line = document.querySelector("#cluster-note");
    return part === "" ? line.hidden : !line.hidden && line.textContent.includes(part);
  }, text);
  const table = await clusterNow();
  table.members.push({ id: 1, name: "newer", role: "scribe", state: "resting", incarnation: "1" });
  await page.route("**/v1/cluster", (route) => route.fulfill({ json: { ...table, router: null, rows: null } }));
  await note("No router answers");
  assert.match(await page.textContent('#workers [data-name="newer"]'), /scribe · resting/);
  await page.unrouteAll();
  await page.route("**/v1/cluster", (route) => route.abort());
  await note("does not say");
  assert.ok(await page.locator("#workers li").count() > 1);
  await page.unrouteAll();
  await note("");
}, { errors: /Failed to load resource/ }));

const HOSTILE = [
  "<script>window.hit = 1</script>", "<img src=x onerror='window.hit = 2'>", "<svg onload=window.hit=3>", "<iframe src='javascript:parent.hit=4'></iframe>",
  "[a](javascript:window.hit=5)", "[b](JAVASCRIPT:window.hit=6 \"t\")", "[c](data:text/html,<script>window.hit=7</script>)", "[d](vbscript:x)",
  "![e](http://evil.example/pixel.png)", "![f](//evil.example/pixel.png)", "<http://evil.example/\"onmouseover=\"window.hit=8>",
  "[g](http://evil.example/\"onclick=\"window.hit=9)", "[h](<http://evil.example/' style='x>)", "[i](\u0000javascript:window.hit=10)",
  "```\"><script>window.hit=11</script>\n</code></pre><script>window.hit=12</script>\n```", "`<b onclick=window.hit=13>`",
  "| <script>window.hit=14</script> | [x](javascript:window.hit=15) |\n|---|---|\n| <img src=http://evil.example/> | y |",
  "# <style>*{display:none}</style>", "> <form action=http://evil.example/><button>x</button></form>", "- <base href=http://evil.example/>",
  "<link rel=stylesheet href=http://evil.example/x.css>", "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
  "&lt;script&gt;window.hit=16&lt;/script&gt;", "<!--", "]]>", "\u202ejavascript:window.hit=17", "[".repeat(5000), "*a **b ".repeat(500),
].join("\n\n");

test("nothing that a model, a person or a stored conversation says becomes markup, script or a request", () => visit(async (page) => {
  await modelKnown(page);
  await sayInstead(page, [{ role: "assistant", content: "" }, { reasoning: HOSTILE }, ...HOSTILE.match(/[^]{1,97}/g).map((content) => ({ content }))]);
  const check = async () => {
    await inState(page, "done");
    const found = await page.evaluate(() => {
      const all = [...document.querySelectorAll("#messages *, #conversations *, #announcer *")];
      return {
        hit: window.hit,
        elements: all.map((node) => node.localName).filter((name) => /^(script|img|iframe|object|embed|style|link|meta|base|form|video|audio|input)$/.test(name)),
        handlers: all.flatMap((node) => [...node.attributes].filter(({ name }) => /^on|^style$|^src/.test(name)).map(({ name }) => name)),
        links: [...document.querySelectorAll("#messages a")].map((link) => [link.protocol, link.rel, link.target]),
      };
    });
    assert.equal(found.hit, undefined);
    assert.deepEqual(found.elements, []);
    assert.deepEqual(found.handlers, []);
    assert.ok(found.links.length > 0);
    for (const link of found.links) assert.deepEqual(link, ["http:", "noopener noreferrer nofollow", "_blank"]);
    assert.match(await page.textContent(".content"), /<script>window\.hit = 1<\/script>/, "it is there to be read");
  };
  await send(page, HOSTILE.slice(0, 2000));
  await check();
  await page.reload();
  await check();
}));

test("even a bug could not turn text into markup: the policy refuses it", () => visit(async (page) => {
  const outcome = await page.evaluate(async () => {
    const tries = {};
    try {
      document.body.innerHTML = "<b>x</b>";
      tries.html = "done";
    } catch (error) {
      tries.html = error.name;
    }
    try {
      document.body.setAttribute("onclick", "window.hit = 1");
      tries.handler = "done";
    } catch (error) {
      tries.handler = error.name;
    }
    const script = document.createElement("script");
    script.append("window.hit = 2");
    document.body.append(script);
    tries.hit = window.hit;
    tries.fetch = await fetch("http://127.0.0.2:9/").then(() => "done", () => "refused");
    await new Promise((resolve) => setTimeout(resolve));
    tries.refused = window.refused.splice(0).map((line) => line.split(" ")[0]);
    return tries;
  });
  assert.equal(outcome.html, "TypeError");
  assert.equal(outcome.handler, "TypeError");
  assert.equal(outcome.hit, undefined);
  assert.equal(outcome.fetch, "refused");
  for (const directive of ["connect-src", "require-trusted-types-for"]) assert.ok(outcome.refused.includes(directive), `${outcome.refused}`);
}, { errors: /Content Security Policy|TrustedHTML|TrustedScript|Fetch API cannot load/ }));

test("trouble is said, and there is a way on", () => visit(async (page) => {
  await modelKnown(page);
  const trouble = async (answer, text) => {
    await page.unrouteAll();
    await page.route("**/v1/chat/completions", answer);
    if (await answers(page).count() === 0) await send(page, "Quanto fa 2 + 2?");
    else await page.click(".again");
    await page.waitForFunction((part) => document.querySelector(".message .note.failed")?.textContent.includes(part), text);
  };
  const stream = (body) => (route) => route.fulfill({ contentType: "text/event-stream", body });
  const part = event({ choices: [{ index: 0, delta: { content: "half" } }] });
  await trouble((route) => route.abort(), "cannot be reached");
  await trouble(stream(part), "broke off");
  assert.equal(await page.textContent(".content"), "half");
  await trouble(stream(part + event({ error: { message: "the worker says so", code: "internal_error" } })), "the worker says so");
  await trouble((route) => route.fulfill({ status: 429, headers: { "Retry-After": "3" }, json: { error: { message: "full", code: "queue_full" } } }), "Try again in 3 s.");
  await trouble((route) => route.fulfill({ status: 502, body: "<h1>proxy</h1>" }), "HTTP 502");
  await page.unrouteAll();
  await page.getByRole("button", { name: "Try again" }).click();
  await inState(page, "done");
  assert.ok(await page.locator(".message .note").isHidden());
}, { errors: /Failed to load resource/ }));

test("a browser without room says so and goes on", () => visit(async (page) => {
  await modelKnown(page);
  await page.evaluate(() => { Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); }; });
  await sayInstead(page, [{ content: "fine" }]);
  await send(page, "x");
  await inState(page, "done");
  assert.match(await page.textContent("#notice"), /no room left/);
}));

test("with a keyboard alone", () => visit(async (page) => {
  await modelKnown(page);
  await page.focus(".skip");
  assert.ok((await page.locator(".skip").boundingBox()).y >= 0, "it is seen once it has the focus");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
  await page.keyboard.type("first");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("second");
  assert.equal(await page.inputValue("#prompt"), "first\nsecond");
  await sayInstead(page, [{ content: "`code`\n\n```js\n1\n```" }]);
  await page.keyboard.press("Control+Enter");
  await inState(page, "done");
  assert.equal(await page.textContent(".user .text"), "first\nsecond");
  // The switches are one stop each, moved by arrows.
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.value), "on");
  await page.keyboard.press("ArrowRight");
  assert.ok(await page.getByRole("radio", { name: "Turbo" }).isChecked());
  // Everything that can be done can be reached, and has a name.
  const names = [];
  await page.focus(".skip");
  for (let i = 0; i < 60; ++i) {
    await page.keyboard.press("Tab");
    names.push(await page.evaluate(() => {
      const node = document.activeElement;
      return node === document.body ? "" : node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.title || node.textContent;
    }));
    if (names.at(-1) === "Skip to the message field") break;
  }
  for (const wanted of ["New chat", "Settings", "Copy", "Answer again", "Message"]) assert.ok(names.includes(wanted), `${wanted}: ${names}`);
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, select, textarea, canvas, [tabindex]")]
    .filter((node) => !(node.getAttribute("aria-label") || node.labels?.length || node.textContent.trim() || node.title)).map((node) => node.outerHTML));
  assert.deepEqual(nameless, []);
}));

test("a phone: nothing is wider than the screen, and both sheets open and close", () => visit(async (page) => {
  await modelKnown(page);
  const fits = async (what) => assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), what);
  await fits("welcome");
  await sayInstead(page, [{ reasoning: "w".repeat(400) }, { content: `${"long".repeat(200)}\n\n\`\`\`\n${"code ".repeat(80)}\n\`\`\`\n\n|${"head|".repeat(20)}\n|${"--|".repeat(20)}\n|${"cell|".repeat(20)}\n\n${"- a\n".repeat(3)}` }]);
  await page.fill("#prompt", "u".repeat(300));
  await page.tap("#send");
  await inState(page, "done");
  await fits("messages");
  for (const message of await page.locator(".message").all()) {
    assert.ok((await message.boundingBox()).width <= 360);
  }
  await picture(page, "phone");
  await page.tap("#toggle-panel");
  await page.waitForSelector("#map:not([hidden])");
  await fits("panel");
  assert.equal(await page.evaluate(() => document.querySelector("main").inert), true);
  await picture(page, "phone-map");
  await page.tap("#panel .close-drawer");
  await page.waitForSelector("#panel", { state: "hidden" });
  await page.tap("#toggle-sidebar");
  await page.waitForSelector("#sidebar", { state: "visible" });
  await fits("sidebar");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#sidebar", { state: "hidden" });
  // A keyboard on glass has no Shift+Enter.
  await page.tap("#prompt");
  await page.keyboard.press("Enter");
  assert.equal(await page.inputValue("#prompt"), "\n");
}, { context: { viewport: { width: 360, height: 720 }, hasTouch: true, isMobile: true } }));

test("light and dark, by the system or by choice", () => visit(async (page) => {
  const luminance = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number).reduce((a, b) => a + b) / 3);
  await page.emulateMedia({ colorScheme: "light" });
  assert.ok(await luminance() > 200);
  await page.emulateMedia({ colorScheme: "dark" });
  assert.ok(await luminance() < 60);
  await page.click("#open-settings");
  await page.selectOption('[data-setting="theme"]', "light");
  assert.ok(await luminance() > 200);
  await page.selectOption('[data-setting="theme"]', "dark");
  await page.emulateMedia({ colorScheme: "light" });
  assert.ok(await luminance() < 60);
  await page.reload();
  assert.ok(await luminance() < 60, "it is kept");
  await modelKnown(page);
  await picture(page, "dark");
}));

test("Italian where the browser is, English by choice", () => visit(async (page) => {
  await modelKnown(page);
  assert.equal(await page.getAttribute("html", "lang"), "it");
  assert.equal(await page.textContent("#new-chat"), "Nuova chat");
  await page.waitForSelector("#workers li");
  assert.match(await page.textContent("#workers"), /attenzione · attivo/);
  const untold = await page.evaluate(async () => {
    const { STRINGS } = await import(new URL("page/strings.js", document.baseURI));
    const [english, italian] = Object.values(STRINGS).map((strings) => Object.entries(strings).map(([key, text]) => `${key} ${text.match(/\{\w+\}/g)?.sort() ?? ""}`));
    return english.filter((key) => !italian.includes(key)).concat(italian.filter((key) => !english.includes(key)));
  });
  assert.deepEqual(untold, [], "said in one language only, or with other values");
  await page.click("#open-settings");
  await page.selectOption('[data-setting="language"]', "en");
  assert.equal(await page.textContent("#new-chat"), "New chat");
  assert.equal(await page.getAttribute("html", "lang"), "en");
  assert.match(await page.textContent("#workers"), /attention · active/);
}, { context: { locale: "it-IT" } }));

test("less motion for who wants less", () => visit(async (page) => {
  await page.route("**/v1/chat/completions", () => {});  // never answered
  await modelKnown(page);
  await send(page, "x");
  await inState(page, "waiting");
  assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
}, { context: { reducedMotion: "reduce" } }));

test("a server with keys: the page asks, keeps it for the tab, and the one process has a map too", () => visit(async (page, context) => {
  await page.waitForSelector("#key[open]");
  assert.ok(await page.locator("#key-wrong").isHidden());
  await page.fill("#key-field", "wrong");
  await page.press("#key-field", "Enter");
  await page.waitForSelector("#key[open] #key-wrong:not([hidden])");
  await page.fill("#key-field", KEY);
  await page.getByRole("button", { name: "Use it" }).click();
  await modelKnown(page);
  await send(page, "Quanto fa 12 + 30?");
  await inState(page, "done");
  assert.match(await page.textContent(".content"), /42/);
  await page.waitForFunction(() => /busiest/.test(document.querySelector("#map").getAttribute("aria-label")));
  assert.equal(await page.locator("#workers li").count(), 4);
  assert.ok(!JSON.stringify(await page.evaluate(() => ({ ...localStorage }))).includes(KEY));
  assert.equal(await page.evaluate(() => sessionStorage.getItem("bottega.key")), KEY);
  await page.reload();
  await modelKnown(page);
  const other = await context.newPage();
  await other.goto(URL_LOCKED);
  await other.waitForSelector("#key[open]");
  await other.close();
}, { url: URL_LOCKED, errors: /401 \(Unauthorized\)/ }));
