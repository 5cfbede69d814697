// The mixture at work: a cell for each expert of each layer, the brighter the more rows a second it is given.
import { number, t } from "./strings.js";

const GAP_PX = 1;
const ROW_MIN_PX = 8, ROW_MAX_PX = 22;
const LEFT_PX = 22, BELOW_PX = 14;  // for the numbers of layers and experts
const EXPERT_TICK = 16;
const LAYER_TICKS_MAX = 8;
const EASE = 0.14;  // of the way to a new value, a frame

export class Heatmap {
  // `output` says what the cell under the pointer or the cursor is, `most` what the strongest colour means.
  constructor(canvas, output, most) {
    this.canvas = canvas;
    this.output = output;
    this.most = most;
    this.scale = 1;      // rows a second of the strongest colour
    this.shown = [];     // [layer * experts + expert] as drawn, on its way to the target
    this.held = null;    // id of the member whose experts are outlined
    this.cursor = null;  // {layer, expert}
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerdown", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.moveTo(null));
    canvas.addEventListener("blur", () => this.moveTo(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
  }

  update(cluster) {
    const { layers, experts, rows } = cluster;
    this.cluster = cluster;
    this.dense = new Set(cluster.dense_layers);
    this.target = Array.from({ length: layers * experts },
                             (_, key) => rows?.[Math.floor(key / experts)][key % experts] ?? 0);
    this.busiest = this.target.reduce((best, rows, key) => (rows > this.target[best] ? key : best), 0);
    // That of the busiest expert, now or a moment ago: the scale does not jump.
    this.scale = Math.max(this.target[this.busiest] ?? 0, 0.9 * this.scale, 1);
    this.most.textContent = t("rowsPerSecond", { rows: number(this.scale) });
    if (this.shown.length !== this.target.length) {
      this.shown = [...this.target];
      this.resize();
    }
    this.canvas.setAttribute("aria-label", this.summary());
    this.tell();
    this.animate();
  }

  highlight(member) {
    this.held = member;
    this.draw();
  }

  summary() {
    const { layers, experts } = this.cluster;
    if (layers === 0) return t("mapEmpty");
    const total = this.target.reduce((sum, rows) => sum + rows, 0);
    if (total === 0) return t("mapIdle", { layers, experts });
    return t("mapSummary", { layers, experts, rows: number(total),
                             layer: Math.floor(this.busiest / experts), expert: this.busiest % experts });
  }

  // ---- Looking closer

  point(event) {
    if (!this.cluster?.layers) return;
    const { layers, experts } = this.cluster;
    const box = this.canvas.getBoundingClientRect();
    const expert = Math.floor((event.clientX - box.left - LEFT_PX) / (box.width - LEFT_PX) * experts);
    const layer = Math.floor((event.clientY - box.top) / this.rowPx);
    const inside = expert >= 0 && expert < experts && layer >= 0 && layer < layers;
    this.moveTo(inside ? { layer, expert } : null);
  }

  key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (step === undefined || !this.cluster?.layers) return;
    event.preventDefault();
    const { layers, experts } = this.cluster;
    const { layer, expert } = this.cursor ?? { layer: 0 - step[0], expert: 0 - step[1] };
    this.moveTo({ layer: (layer + step[0] + layers) % layers, expert: (expert + step[1] + experts) % experts });
  }

  moveTo(cursor) {
    this.cursor = cursor;
    this.tell();
    this.draw();
  }

  tell() {
    this.output.textContent = this.cursor === null ? "" : this.describe(this.cursor);
  }

  describe({ layer, expert }) {
    if (this.dense.has(layer)) return t("mapDense", { layer });
    const { experts, replicas, members } = this.cluster;
    const holders = replicas[layer][expert].map((id) => members.find((member) => member.id === id)?.name ?? id);
    return t("mapCell", { layer, expert, rows: number(this.target[layer * experts + expert]),
                          holders: holders.join(", ") || t("mapNobody") });
  }

  // ---- Drawing

  resize() {
    const width = this.canvas.parentElement.clientWidth;
    if (!this.cluster?.layers || width === 0) return;
    const { layers } = this.cluster;
    this.rowPx = Math.min(ROW_MAX_PX, Math.max(ROW_MIN_PX, Math.floor(264 / layers)));
    this.width = width;
    this.height = this.rowPx * layers + BELOW_PX;
    const ratio = devicePixelRatio;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.height = `${this.height}px`;
    this.draw();
  }

  animate() {
    if (this.calm.matches) {
      this.shown = [...this.target];
      this.draw();
      return;
    }
    if (this.frame === undefined) this.frame = requestAnimationFrame(() => this.step());
  }

  step() {
    this.frame = undefined;
    let moving = false;
    for (const [key, target] of this.target.entries()) {
      const left = target - this.shown[key];
      const near = Math.abs(left) < this.scale / 500;
      this.shown[key] = near ? target : this.shown[key] + left * EASE;
      moving ||= !near;
    }
    this.draw();
    if (moving) this.animate();
  }

  draw() {
    if (!this.cluster?.layers || !this.width) return;
    const { layers, experts, replicas } = this.cluster;
    const pen = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    const color = (name) => style.getPropertyValue(name).trim();
    const missing = color("--missing");
    const ramp = rampOf(["--heat-0", "--heat-1", "--heat-2", "--heat-3"].map(color));
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    const cell = (this.width - LEFT_PX) / experts;
    const gap = cell >= 4 ? GAP_PX : 0;
    const box = (layer, expert) => {
      const left = Math.round(LEFT_PX + expert * cell), right = Math.round(LEFT_PX + (expert + 1) * cell);
      return [left, layer * this.rowPx, right - left - gap, this.rowPx - GAP_PX];
    };
    for (let layer = 0; layer < layers; ++layer) {
      if (this.dense.has(layer)) continue;
      for (let expert = 0; expert < experts; ++expert) {
        const holders = replicas[layer][expert];
        // A square root, as eyes do not see the small differences at the bottom of a straight scale.
        const heat = Math.sqrt(this.shown[layer * experts + expert] / this.scale);
        const dim = this.held !== null && holders.length > 0 && !holders.includes(this.held);
        pen.fillStyle = holders.length === 0 ? missing : ramp(Math.min(1, heat));
        pen.globalAlpha = dim ? 0.2 : 1;
        pen.fillRect(...box(layer, expert));
      }
    }
    pen.globalAlpha = 1;
    this.drawNumbers(pen, color("--muted"), cell);
    if (this.cursor !== null) {
      pen.strokeStyle = color("--text");
      pen.lineWidth = 1.5;
      const [left, top, width, height] = box(this.cursor.layer, this.cursor.expert);
      pen.strokeRect(left - 1, top - 1, width + 2, height + 2);
    }
  }

  drawNumbers(pen, color, cell) {
    const { layers, experts } = this.cluster;
    pen.fillStyle = color;
    pen.font = "10px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const every = Math.ceil(layers / LAYER_TICKS_MAX);
    for (let layer = 0; layer < layers; layer += every) {
      pen.fillText(layer, LEFT_PX - 6, (layer + 0.5) * this.rowPx);
    }
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    for (let expert = 0; expert < experts; expert += EXPERT_TICK) {
      pen.fillText(expert, LEFT_PX + expert * cell, this.height - 2);
    }
  }
}

// Colours "#rrggbb" at equal distances; between them a mix.
function rampOf(stops) {
  const parts = stops.map((stop) => [1, 3, 5].map((at) => Number.parseInt(stop.slice(at, at + 2), 16)));
  return (heat) => {
    const at = heat * (parts.length - 1), from = Math.min(Math.floor(at), parts.length - 2);
    const mixed = parts[from].map((part, i) => Math.round(part + (parts[from + 1][i] - part) * (at - from)));
    return `rgb(${mixed.join()})`;
  };
}
