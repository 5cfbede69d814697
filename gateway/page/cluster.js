// The panel beside the chat: asks the gateway each second how the cluster is, while somebody can see it.
import * as api from "./api.js";
import { byId } from "./dom.js";
import { Heatmap } from "./heatmap.js";
import { t } from "./strings.js";
import { Workers } from "./workers.js";

const POLL_MS = 1000;

export class Cluster {
  // `wanted()`: somebody looks, or an answer is being written; `onLost(name)` as of Workers; `onUnauthorized()`.
  constructor({ wanted, onLost, onUnauthorized }) {
    this.wanted = wanted;
    this.onUnauthorized = onUnauthorized;
    this.map = new Heatmap(byId("map"), byId("cell"), byId("most"));
    this.workers = new Workers(byId("workers"), byId("events"), { onLost, onPick: (id) => this.map.highlight(id) });
    document.addEventListener("visibilitychange", () => this.poll());
  }

  // Looks at once and then each second, for as long as it is wanted.
  async poll() {
    clearTimeout(this.timer);
    if (this.asking || document.hidden || !this.wanted()) return;
    this.asking = true;
    let error = null;
    const cluster = await api.cluster().catch((why) => { error = why; });
    const declined = error?.status === 401 && !await this.onUnauthorized();
    this.asking = false;
    clearTimeout(this.timer);
    if (!declined) this.timer = setTimeout(() => this.poll(), POLL_MS);
    if (error === null) this.show(cluster);
    else this.complain(t("clusterAway", { reason: error.message }));
  }

  show(cluster) {
    this.last = cluster;
    this.complain(cluster.router === null ? t("routerAway") : "");
    const any = cluster.layers > 0;
    byId("map").hidden = byId("scale").hidden = !any;
    byId("map-none").hidden = any && cluster.rows !== null;
    byId("map-none").textContent = t(any ? "mapNone" : "mapEmpty");
    this.map.update(cluster);
    this.workers.update(cluster);
    byId("epoch").textContent = t("epoch", { epoch: cluster.epoch });
  }

  complain(text) {
    byId("cluster-note").textContent = text;
    byId("cluster-note").hidden = text === "";
  }

  relabel() {
    this.workers.relabel();
    if (this.last) this.show(this.last);
  }

  redraw() {
    this.map.draw();
  }
}
