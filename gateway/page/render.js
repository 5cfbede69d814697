// The tree of markdown.js as DOM nodes. A view keeps the nodes of blocks whose source has not changed, so
// that a streamed answer moves at its end only and a selection above it stays.
import { parseBlocks, parseInline, plainText } from "./markdown.js";
import { copyText, element } from "./dom.js";
import { icon } from "./icons.js";
import { t } from "./strings.js";

export class MarkdownView {
  // `onBlock` hears the letters of each block when it is complete: when another one follows it, or at end().
  constructor(container, onBlock = () => {}) {
    this.container = container;
    this.onBlock = onBlock;
    this.shown = [];  // {block, node}
    this.told = 0;    // blocks
  }

  update(text) {
    const blocks = parseBlocks(text);
    for (const [at, block] of blocks.entries()) {
      const shown = this.shown[at];
      if (shown?.block.source === block.source) continue;
      if (shown !== undefined && patch(shown, block)) continue;
      const node = blockNode(block);
      if (shown === undefined) this.container.append(node);
      else shown.node.replaceWith(node);
      this.shown[at] = { block, node };
    }
    for (const { node } of this.shown.splice(blocks.length)) node.remove();
    this.tell(blocks.length - 1);
  }

  end() {
    this.tell(this.shown.length);
  }

  tell(until) {
    for (; this.told < until; ++this.told) this.onBlock(plainText(this.shown[this.told].block));
  }
}

// What grows in place: the text of code, the items of a list. False: it has to be made anew.
function patch(shown, block) {
  const { block: before, node } = shown;
  if (before.type !== block.type) return false;
  if (block.type === "code" && before.language === block.language) {
    const code = node.querySelector("code");
    if (block.text.startsWith(before.text) && code.firstChild !== null) {
      code.firstChild.appendData(block.text.slice(before.text.length));
    } else {
      code.textContent = block.text;
    }
  } else if (block.type === "list" && before.ordered === block.ordered && before.tight === block.tight) {
    for (const [at, item] of block.items.entries()) {
      if (before.items[at]?.source === item.source) continue;
      const made = itemNode(item, block.tight);
      if (at < node.children.length) node.children[at].replaceWith(made);
      else node.append(made);
    }
    while (node.children.length > block.items.length) node.lastChild.remove();
  } else {
    return false;
  }
  shown.block = block;
  return true;
}

function blockNode(block) {
  switch (block.type) {
    case "heading": return element(`h${Math.min(block.level + 2, 6)}`, { dir: "auto" }, ...inlineNodes(block.text));
    case "code": return codeNode(block);
    case "rule": return element("hr");
    case "quote": return element("blockquote", {}, ...block.blocks.map(blockNode));
    case "list": return listNode(block);
    case "table": return tableNode(block);
    default: return element("p", { dir: "auto" }, ...inlineNodes(block.text));
  }
}

function listNode({ ordered, start, tight, items }) {
  const name = ordered ? "ol" : "ul";
  return element(name, { start: ordered && start !== 1 ? start : null },
                 ...items.map((item) => itemNode(item, tight)));
}

function itemNode({ done, blocks }, tight) {
  const inner = blocks.flatMap((block) =>
    tight && block.type === "paragraph" ? inlineNodes(block.text) : [blockNode(block)]);
  if (done === null) return element("li", { dir: "auto" }, ...inner);
  const box = element("input", { type: "checkbox", disabled: true, checked: done });
  return element("li", { class: "task", dir: "auto" }, box, " ", ...inner);
}

function tableNode({ align, head, rows }) {
  const cells = (name, row) => row.map((text, column) =>
    element(name, { class: align[column] && `align-${align[column]}`, scope: name === "th" ? "col" : null },
            ...inlineNodes(text)));
  return element("div", { class: "table", tabindex: "0", role: "group", "aria-label": t("table") },
    element("table", {},
      element("thead", {}, element("tr", {}, ...cells("th", head))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row))))));
}

function codeNode({ language, text }) {
  const code = element("code", {}, text);
  return element("figure", { class: "code" },
    element("figcaption", {}, element("span", {}, language || t("code")), copyButton(() => code.textContent)),
    element("pre", { tabindex: "0", role: "group", "aria-label": t("code") }, code));
}

export function copyButton(textOf, attributes = {}) {
  const button = element("button", { type: "button", class: "quiet copy", ...attributes, onclick: copy },
                         icon("copy"), element("span", {}, t("copy")));
  async function copy() {
    await copyText(textOf());
    button.replaceChildren(icon("done"), element("span", {}, t("copied")));
    setTimeout(() => button.replaceChildren(icon("copy"), element("span", {}, t("copy"))), 2000);
  }
  return button;
}

function inlineNodes(text) {
  return parseInline(text).map(inlineNode);
}

const TAGS = { emphasis: "em", strong: "strong", strike: "s" };

function inlineNode(node) {
  if (typeof node === "string") return node;
  if (node.type === "break") return element("br");
  if (node.type === "code") return element("code", {}, node.text);
  const children = node.children.map(inlineNode);
  if (node.type !== "link") return element(TAGS[node.type], {}, ...children);
  return element("a", { href: node.href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}
