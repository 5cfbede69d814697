// Markdown as a tree of plain objects; render.js makes DOM nodes of it. HTML is not a part of the
// language here: whatever looks like it stays text. Every scan is linear in its input and every depth has
// a limit, since what is read comes from a model that anybody may have told what to say.
//
// Blocks:  {type, source, ...}   source: its lines, by which render.js sees what has changed
//   paragraph {text}   heading {level, text}   code {language, text}   rule   quote {blocks}
//   list {ordered, start, tight, items: [{source, done: true|false|null, blocks}]}
//   table {align: ["left"|"center"|"right"|null], head: [text], rows: [[text]]}
// Inline:  string | {type: "code", text} | {type: "break"}
//   | {type: "emphasis"|"strong"|"strike", children} | {type: "link", href, children}
//
// Left out on purpose: headings underlined by --- (models mean a rule), code by indentation, HTML.

const BLOCK_DEPTH_MAX = 12;
const INLINE_DEPTH_MAX = 24;
const COLUMNS_MAX = 64;
const URL_CHARS_MAX = 2048;

export function parseBlocks(text) {
  return blocksOf(withoutTabs(text.replace(/\r\n?/g, "\n").split("\n")), 0);
}

// A tab that indents is four spaces; those of code stay, since somebody may copy it.
function withoutTabs(lines) {
  let open = null;
  return lines.map((line) => {
    const fence = /^\s*(`{3,}|~{3,})/.exec(line)?.[1];
    if (fence !== undefined && open === null) open = fence;
    else if (open !== null && fence?.startsWith(open)) open = null;
    else if (open !== null) return line;
    return line.replace(/^[ \t]+/, (indent) => indent.replaceAll("\t", "    "));
  });
}

const indentOf = (line) => {
  let at = 0;
  while (line[at] === " ") ++at;
  return at;
};
const isBlank = (line) => indentOf(line) === line.length;
const withoutIndent = (line, most) => line.slice(Math.min(indentOf(line), most));

function fenceOf(line) {
  const match = /^ {0,3}(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/.exec(line);
  if (match === null) return null;
  return { indent: indentOf(line), mark: match[1][0], length: match[1].length, info: match[2].trim() };
}

function headingOf(line) {
  const match = /^ {0,3}(#{1,6})(?= |$)/.exec(line);
  if (match === null) return null;
  let text = line.slice(match[0].length).trim();
  let end = text.length;
  while (text[end - 1] === "#") --end;
  if (end === 0 || text[end - 1] === " ") text = text.slice(0, end).trim();
  return { level: match[1].length, text };
}

function isRule(line) {
  const marks = line.replaceAll(" ", "");
  const mark = marks[0];
  if (marks.length < 3 || (mark !== "-" && mark !== "*" && mark !== "_")) return false;
  return indentOf(line) < 4 && marks === mark.repeat(marks.length);
}

function markerOf(line) {
  const match = /^( *)([-*+]|\d{1,9}[.)])( +|$)/.exec(line);
  if (match === null || isRule(line)) return null;
  const [, indent, mark, space] = match;
  const blank = match[0].length === line.length;
  const content = indent.length + mark.length + (blank || space.length > 4 ? 1 : space.length);
  return {
    indent: indent.length,
    content,  // column at which the item's text begins
    kind: mark.at(-1),
    start: mark.length > 1 ? Number.parseInt(mark, 10) : null,
  };
}

const cellsOf = (line) => {
  const cells = [""];
  const row = line.trim();
  for (let at = row[0] === "|" ? 1 : 0; at < row.length; ++at) {
    if (row[at] === "\\" && row[at + 1] === "|") cells[cells.length - 1] += row[++at];
    else if (row[at] !== "|") cells[cells.length - 1] += row[at];
    else if (at + 1 < row.length) cells.push("");
  }
  return cells.map((cell) => cell.trim());
};

function tableAlignOf(head, below) {
  if (below === undefined || !head.includes("|") || !/^[ |:-]+$/.test(below)) return null;
  const cells = cellsOf(below);
  if (cells.length > COLUMNS_MAX || cells.length !== cellsOf(head).length) return null;
  const align = [];
  for (const cell of cells) {
    const inner = cell.slice(cell.startsWith(":") ? 1 : 0, cell.endsWith(":") ? -1 : undefined);
    if (inner === "" || inner !== "-".repeat(inner.length)) return null;
    const left = cell.startsWith(":"), right = cell.endsWith(":");
    align.push(left && right ? "center" : right ? "right" : left ? "left" : null);
  }
  return align;
}

// What ends a paragraph without a blank line.
function interrupts(line) {
  if (fenceOf(line) || headingOf(line) || isRule(line) || /^ {0,3}>/.test(line)) return true;
  const marker = markerOf(line);
  return marker !== null && marker.indent < 4 && (marker.start ?? 1) === 1 && marker.content < line.length;
}

function blocksOf(lines, depth) {
  if (depth >= BLOCK_DEPTH_MAX) {
    const text = lines.join("\n").trim();
    return text === "" ? [] : [{ type: "paragraph", source: text, text }];
  }
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    if (isBlank(lines[at])) {
      ++at;
      continue;
    }
    const { block, end } = blockAt(lines, at, depth);
    blocks.push({ ...block, source: lines.slice(at, end).join("\n") });
    at = end;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = fenceOf(line);
  if (fence !== null) return codeAt(lines, at, fence);
  const heading = headingOf(line);
  if (heading !== null) return { block: { type: "heading", ...heading }, end: at + 1 };
  if (isRule(line)) return { block: { type: "rule" }, end: at + 1 };
  if (/^ {0,3}>/.test(line)) return quoteAt(lines, at, depth);
  const marker = markerOf(line);
  if (marker !== null && marker.indent < 4) return listAt(lines, at, marker, depth);
  const align = tableAlignOf(line, lines[at + 1]);
  if (align !== null) return tableAt(lines, at, align);
  let end = at + 1;
  while (end < lines.length && !isBlank(lines[end]) && !interrupts(lines[end])) ++end;
  const text = lines.slice(at, end).map((l) => l.trimStart()).join("\n").trimEnd();
  return { block: { type: "paragraph", text }, end };
}

function codeAt(lines, at, fence) {
  const text = [];
  let end = at + 1;
  for (; end < lines.length; ++end) {
    const close = fenceOf(lines[end]);
    if (close?.mark === fence.mark && close.length >= fence.length && close.info === "") break;
    text.push(withoutIndent(lines[end], fence.indent));
  }
  const language = fence.info.split(" ")[0];
  return { block: { type: "code", language, text: text.join("\n") }, end: Math.min(end + 1, lines.length) };
}

function quoteAt(lines, at, depth) {
  const inner = [];
  let end = at;
  for (; end < lines.length; ++end) {
    const match = /^ {0,3}> ?/.exec(lines[end]);
    if (match !== null) inner.push(lines[end].slice(match[0].length));
    else if (!isBlank(lines[end]) && !isBlank(inner.at(-1)) && !interrupts(lines[end])) inner.push(lines[end]);
    else break;
  }
  return { block: { type: "quote", blocks: blocksOf(inner, depth + 1) }, end };
}

function listAt(lines, at, first, depth) {
  const items = [];
  let end = at, tight = true;
  while (end < lines.length) {
    const marker = markerOf(lines[end]);
    const sibling = marker?.kind === first.kind && Math.abs(marker.indent - first.indent) < 2;
    if (!sibling) break;
    const item = itemAt(lines, end, marker, depth);
    items.push(item.item);
    end = item.end;
    // A blank line between two items or two blocks of one sets them apart.
    let next = end;
    while (next < lines.length && isBlank(lines[next])) ++next;
    if (item.loose) tight = false;
    if (next > end && next < lines.length) {
      const following = markerOf(lines[next]);
      if (following?.kind !== first.kind || Math.abs(following.indent - first.indent) >= 2) break;
      tight = false;
      end = next;
    }
  }
  const ordered = first.start !== null;
  return { block: { type: "list", ordered, start: first.start ?? 1, tight, items }, end };
}

function itemAt(lines, at, marker, depth) {
  const inner = [lines[at].slice(marker.content)];
  let end = at + 1, kept = end;  // blank lines at the end are not the item's
  for (; end < lines.length; ++end) {
    const line = lines[end];
    if (isBlank(line)) {
      inner.push("");
      continue;
    }
    const indent = indentOf(line);
    // Models indent what is nested by two, whatever the width of the marker above.
    const nested = indent >= marker.indent + 2 && markerOf(line) !== null;
    const lazy = kept === end && markerOf(line) === null && !interrupts(line);
    if (indent < marker.content && !nested && !lazy) break;
    inner.push(withoutIndent(line, marker.content));
    kept = end + 1;
  }
  inner.length = kept - at;
  const task = /^\[([ xX])\] /.exec(inner[0]);
  if (task !== null) inner[0] = inner[0].slice(task[0].length);
  const blocks = blocksOf(inner, depth + 1);
  const loose = blocks.length > 1 && inner.some((line, i) => i > 0 && isBlank(line)) &&
      blocks.filter((block) => block.type === "paragraph").length > 1;
  const item = { source: lines.slice(at, kept).join("\n"), done: task && task[1] !== " ", blocks };
  return { item, end: kept, loose };
}

function tableAt(lines, at, align) {
  const head = cellsOf(lines[at]), rows = [];
  let end = at + 2;
  for (; end < lines.length && !isBlank(lines[end]) && !interrupts(lines[end]); ++end) {
    const cells = cellsOf(lines[end]);
    rows.push(head.map((_, column) => cells[column] ?? ""));
  }
  return { block: { type: "table", align, head, rows }, end };
}

// ---- Inline

// Only what a reader may follow safely; anything else is no link at all.
export function safeUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
}

const PUNCTUATION = /[\p{P}\p{S}]/u;
const SPACE = /\s/;
const ESCAPABLE = /[!-/:-@[-`{-~]/;

export function parseInline(text) {
  return treeOf(new InlineScanner(text).scan());
}

class InlineScanner {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.flat = [];      // strings, nodes, and runs of * _ ~
    this.brackets = [];  // indices in flat of [ and ![ that may open a link
    this.ticks = null;   // by length: where runs of backticks begin, ascending
  }

  scan() {
    let from = 0;  // of the plain text not yet in flat
    const special = /[\\`*_~[\]!<\n]|https?:\/\//g;
    while (this.at < this.text.length) {
      special.lastIndex = this.at;
      const match = special.exec(this.text);
      if (match === null) break;
      this.at = match.index;
      const before = this.at;
      const found = this.take(match[0]);
      if (found === null) {
        this.at = before + match[0].length;
        continue;
      }
      if (before > from) this.flat.push({ text: this.text.slice(from, before) });
      // A link swallows what stands since its bracket, so plain text goes in first.
      const node = found();
      if (node !== undefined) this.flat.push(node);
      from = this.at;
    }
    if (from < this.text.length) this.flat.push({ text: this.text.slice(from) });
    matchRuns(this.flat);
    return this.flat;
  }

  // Moves past what begins here and returns how to make its node; null: it is plain text.
  take(mark) {
    switch (mark[0]) {
      case "\\": return this.escape();
      case "`": return this.code();
      case "*": case "_": case "~": return this.run(mark[0]);
      case "[": return this.open(1);
      case "!": return this.text[this.at + 1] === "[" ? this.open(2) : null;
      case "]": return this.close();
      case "<": return this.angle();
      case "\n": return this.newline();
      default: return this.bareUrl();
    }
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next === "\n") {
      this.at += 2;
      return () => ({ type: "break" });
    }
    if (next === undefined || !ESCAPABLE.test(next)) return null;
    this.at += 2;
    return () => ({ text: next });
  }

  newline() {
    ++this.at;
    return () => ({ type: "break" });
  }

  code() {
    if (this.ticks === null) {
      this.ticks = new Map();
      for (const { 0: run, index } of this.text.matchAll(/`+/g)) {
        if (!this.ticks.has(run.length)) this.ticks.set(run.length, { starts: [], next: 0 });
        this.ticks.get(run.length).starts.push(index);
      }
    }
    let length = 0;
    while (this.text[this.at + length] === "`") ++length;
    const begin = this.at + length;
    const runs = this.ticks.get(length) ?? { starts: [], next: 0 };
    while (runs.next < runs.starts.length && runs.starts[runs.next] < begin) ++runs.next;
    const end = runs.starts[runs.next];
    this.at = begin;
    if (end === undefined) return () => ({ text: "`".repeat(length) });
    let inner = this.text.slice(begin, end).replaceAll("\n", " ");
    if (inner.startsWith(" ") && inner.endsWith(" ") && inner.trim() !== "") inner = inner.slice(1, -1);
    this.at = end + length;
    return () => ({ type: "code", text: inner });
  }

  run(mark) {
    const begin = this.at;
    let end = begin;
    while (this.text[end] === mark) ++end;
    if (mark === "~" && end - begin !== 2) {
      this.at = end;
      return () => ({ text: mark.repeat(end - begin) });
    }
    const before = this.text[begin - 1] ?? " ", after = this.text[end] ?? " ";
    const spaceBefore = SPACE.test(before), spaceAfter = SPACE.test(after);
    const pointBefore = PUNCTUATION.test(before), pointAfter = PUNCTUATION.test(after);
    const left = !spaceAfter && (!pointAfter || spaceBefore || pointBefore);
    const right = !spaceBefore && (!pointBefore || spaceAfter || pointAfter);
    const word = mark === "_";  // not inside_a_word
    this.at = end;
    return () => ({
      run: mark, count: end - begin, length: end - begin, opens: [], closes: [],
      canOpen: left && (!word || !right || pointBefore),
      canClose: right && (!word || !left || pointAfter),
    });
  }

  open(length) {
    const text = this.text.slice(this.at, this.at + length);
    this.at += length;
    return () => {
      this.brackets.push(this.flat.length);
      return { text };
    };
  }

  close() {
    const target = this.brackets.length > 0 ? this.targetAt(this.at + 1) : null;
    if (target === null) {
      ++this.at;
      return () => {
        this.brackets.pop();
        return { text: "]" };
      };
    }
    this.at = target.end;
    return () => {
      const opened = this.brackets.pop();
      const inner = this.flat.splice(opened).slice(1);
      matchRuns(inner);
      this.brackets.length = 0;  // no link within a link
      const href = safeUrl(target.url);
      const children = treeOf(inner.map((node) => (node.type === "link" ? { text: textOf(node) } : node)));
      return href === null ? { type: "plain", children } : { type: "link", href, children };
    };
  }

  // "(url)", "(<url> "title")" at `at`; the title is not shown.
  targetAt(at) {
    const target = /\(\s{0,9}(?:<([^<>\n]{0,2048})>|((?:[^\s()<>\\]|\\.|\((?:[^\s()]{0,256})\)){0,2048}))(?:\s{1,9}(?:"[^"]{0,512}"|'[^']{0,512}'))?\s{0,9}\)/y;
    target.lastIndex = at;
    const match = target.exec(this.text);
    if (match === null) return null;
    const url = (match[1] ?? match[2]).replace(/\\([!-/:-@[-`{-~])/g, "$1");
    return { url, end: target.lastIndex };
  }

  angle() {
    const address = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2048})>/y;
    address.lastIndex = this.at;
    const match = address.exec(this.text);
    const href = match && safeUrl(match[1]);
    if (href === null) return null;
    this.at = address.lastIndex;
    return () => ({ type: "link", href, children: [match[1]] });
  }

  bareUrl() {
    if (/\w/.test(this.text[this.at - 1] ?? "")) return null;
    const rest = this.text.slice(this.at, this.at + URL_CHARS_MAX);
    let url = /^[^\s<>"`*|\\\]]+/.exec(rest)[0];
    // The sentence's own punctuation, and a bracket that was opened before the address.
    for (let last = url.at(-1); url !== ""; last = url.at(-1)) {
      const unopened = last === ")" && url.split(")").length > url.split("(").length;
      if (!".,;:!?'_~".includes(last) && !unopened) break;
      url = url.slice(0, -1);
    }
    const href = safeUrl(url);
    if (href === null) return null;
    this.at += url.length;
    return () => ({ type: "link", href, children: [url] });
  }
}

// CommonMark's rule for * and _: a closing run takes the nearest opening one. `bottoms` remembers what has
// been looked for in vain, which keeps the whole linear.
function matchRuns(flat) {
  const runs = flat.filter((node) => node.run !== undefined && node.length > 0);
  for (const [at, run] of runs.entries()) {
    run.at = at;
    run.previous = runs[at - 1] ?? null;  // whatever stands between a pair is skipped from then on
  }
  const bottoms = new Map();
  for (const closer of runs) {
    while (closer.canClose && closer.length > 0) {
      const key = `${closer.run}${closer.canOpen}${closer.count % 3}`;
      const bottom = bottoms.get(key) ?? -1;
      let opener = closer.previous;
      while (opener !== null && opener.at > bottom && !pairs(opener, closer)) opener = opener.previous;
      if (opener === null || opener.at <= bottom) {
        bottoms.set(key, closer.at - 1);
        break;
      }
      const length = opener.length >= 2 && closer.length >= 2 ? 2 : 1;
      const type = opener.run === "~" ? "strike" : length === 2 ? "strong" : "emphasis";
      opener.opens.push(type);
      closer.closes.push(type);
      opener.length -= length;
      closer.length -= length;
      closer.previous = opener.length > 0 ? opener : opener.previous;
    }
  }
}

function pairs(opener, closer) {
  if (opener.run !== closer.run || !opener.canOpen || opener.length === 0) return false;
  if (closer.run === "~") return opener.length >= 2 && closer.length >= 2;
  // `*foo**bar*`: a run that could do both pairs only if the sum is no multiple of 3.
  const both = opener.canClose || closer.canOpen;
  return !both || (opener.count + closer.count) % 3 !== 0 || (opener.count % 3 === 0 && closer.count % 3 === 0);
}

function treeOf(flat) {
  const root = [];
  const stack = [];  // {children, node: null where the limit of depth is passed}
  let into = root;
  const text = (value) => {
    if (value === "") return;
    if (typeof into.at(-1) === "string") into[into.length - 1] += value;
    else into.push(value);
  };
  for (const node of flat) {
    if (typeof node === "string") {
      text(node);
    } else if (node.run !== undefined) {
      for (let i = 0; i < node.closes.length && stack.length > 0; ++i) into = stack.pop();
      text(node.run.repeat(node.length));
      for (const type of node.opens.toReversed()) {
        stack.push(into);
        if (stack.length > INLINE_DEPTH_MAX) continue;
        const child = { type, children: [] };
        into.push(child);
        into = child.children;
      }
    } else if (node.type === "plain") {
      for (const child of node.children) typeof child === "string" ? text(child) : into.push(child);
    } else if (node.type === undefined) {
      text(node.text);
    } else {
      into.push(node);
    }
  }
  return root;
}

// Its letters alone.
function textOf(node) {
  if (typeof node === "string") return node;
  if (node.type === "break") return " ";
  return node.children ? node.children.map(textOf).join("") : node.text ?? "";
}

// A block's letters, for who listens.
export function plainText(block) {
  switch (block.type) {
    case "rule": return "";
    case "code": return block.text;
    case "quote": return block.blocks.map(plainText).join(" ");
    case "list": return block.items.map((item) => item.blocks.map(plainText).join(" ")).join("; ");
    case "table": return [block.head, ...block.rows].map((row) => row.join(", ")).join("; ");
    default: return parseInline(block.text).map(textOf).join("");
  }
}
