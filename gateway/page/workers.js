// Who is in the cluster, who was a moment ago, and what happened meanwhile.
import { element } from "./dom.js";
import { clock, number, t } from "./strings.js";

const ROLES = ["router", "gateway", "attention", "expert"];
const LOST_KEPT_MS = 5 * 60_000;  // how long a lost member stays in the list
const BACK_SHOWN_MS = 20_000;     // and one that has come back is marked
const EVENTS_MAX = 20;

export class Workers {
  // `onLost(name)`: also if it was replaced between two looks; `onPick(id)`: whose experts to show, or null.
  constructor(list, events, { onLost, onPick }) {
    this.list = list;
    this.events = events;
    this.onLost = onLost;
    this.onPick = onPick;
    this.known = new Map();  // name -> {member, lostAt, backAt}, times or null
    this.rows = new Map();   // name -> its row's nodes
    this.picked = null;      // name
  }

  update(cluster) {
    const now = Date.now();
    const first = this.known.size === 0;
    const present = new Set();
    for (const member of cluster.members) {
      present.add(member.name);
      const before = this.known.get(member.name);
      const returned = !first && this.compare(before, member);
      this.known.set(member.name, { member, lostAt: null, backAt: returned ? now : before?.backAt ?? null });
    }
    for (const [name, entry] of this.known) {
      if (present.has(name)) continue;
      if (entry.lostAt === null) {
        entry.lostAt = now;
        // Who was leaving has left; that is no loss.
        if (entry.member.state !== "draining") this.lost("eventLost", name);
      } else if (now - entry.lostAt > LOST_KEPT_MS) {
        this.known.delete(name);
      }
    }
    this.render(cluster, now);
  }

  // True: it was away, if only between two looks.
  compare(before, { name, incarnation, state }) {
    if (before === undefined) {
      this.tell("eventJoined", name);
      return false;
    }
    if (before.lostAt !== null) {
      this.tell("eventBack", name);
      return true;
    }
    if (before.member.incarnation !== incarnation) {
      this.lost("eventRestarted", name);
      return true;
    }
    if (before.member.state !== state && ["suspect", "quarantined", "draining"].includes(state)) {
      this.tell("eventState", name, { state: t(state) });
    }
    return false;
  }

  lost(event, name) {
    this.tell(event, name);
    this.onLost(name);
  }

  tell(event, name, values = {}) {
    this.events.querySelector(".empty")?.remove();
    this.events.prepend(element("li", { "data-event": event }, element("time", {}, clock(Date.now())), " ",
                                t(event, { name, ...values })));
    while (this.events.childElementCount > EVENTS_MAX) this.events.lastElementChild.remove();
  }

  render({ router }, now) {
    const entries = [...this.known.values()].sort((one, other) =>
      ROLES.indexOf(one.member.role) - ROLES.indexOf(other.member.role) ||
      one.member.name.localeCompare(other.member.name, "en", { numeric: true }));
    const wanted = entries.map((entry) => this.row(entry, now));
    if (router !== null) wanted.unshift(this.row({ member: { name: router, role: "router", state: "active" }, lostAt: null, backAt: null }, now));
    const same = wanted.length === this.list.children.length && wanted.every((node, at) => node === this.list.children[at]);
    if (!same) this.list.replaceChildren(...wanted);
    for (const name of this.rows.keys()) {
      if (name !== router && !this.known.has(name)) this.rows.delete(name);
    }
  }

  // A row's nodes stay, so that focus and selection do too.
  row({ member, lostAt, backAt }, now) {
    const { name, role } = member;
    if (!this.rows.has(name)) this.rows.set(name, this.newRow(member));
    const { node, id, state, load, held } = this.rows.get(name);
    const shown = lostAt === null ? member.state : "lost";
    const parts = [t(role === "expert" ? "expertRole" : role), t(shown)];
    const seconds = (time) => ({ seconds: Math.round((now - time) / 1000) });
    const back = lostAt === null && backAt !== null && now - backAt < BACK_SHOWN_MS;
    if (lostAt !== null) parts[1] += ` ${t("lostFor", seconds(lostAt))}`;
    else if (back) parts.push(t("backFor", seconds(backAt)));
    node.dataset.state = shown;
    node.classList.toggle("back", back);
    state.textContent = parts.join(" · ");
    load.textContent = lostAt === null ? loadText(member) : "";
    held.textContent = lostAt === null && member.experts_assigned !== undefined
      ? t("held", { held: number(member.experts_held), assigned: number(member.experts_assigned) }) : "";
    id.value = member.id;
    if (role === "expert" && this.picked === name) this.onPick(lostAt === null ? member.id : null);
    return node;
  }

  newRow({ name, role }) {
    const state = element("span", { class: "state" }), load = element("span", { class: "load" });
    const held = element("span", { class: "held" }), id = {};
    const title = element("span", { class: "name" }, name);
    const parts = [element("span", { class: "dot", "aria-hidden": "true" }), title, state, load, held];
    const node = element("li", { "data-name": name, "data-role": role });
    if (role !== "expert") {
      node.append(element("div", { class: "row" }, ...parts));
    } else {
      const label = t("showHeld", { name });
      const button = element("button", { type: "button", class: "row", "aria-pressed": `${this.picked === name}`, title: label,
                                         onclick: () => this.pick(name, id.value) }, ...parts);
      node.append(button);
    }
    return { node, id, state, load, held };
  }

  pick(name, id) {
    this.picked = this.picked === name ? null : name;
    for (const button of this.list.querySelectorAll("button.row")) {
      button.setAttribute("aria-pressed", button.parentElement.dataset.name === this.picked);
    }
    this.onPick(this.picked === null ? null : id);
  }

  // The rows are made anew, in another language.
  relabel() {
    this.rows.clear();
    this.list.replaceChildren();
  }
}

function loadText({ role, load }) {
  if (load === undefined) return "";
  if (role === "expert") return t("rowsPerSecond", { rows: number(load) });
  return role === "attention" ? t("running", { count: number(load) }) : "";
}
