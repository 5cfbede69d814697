// The page's Markdown as a tree: what it understands, what it leaves as text, and how long hostile text takes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseBlocks, parseInline, plainText, safeUrl } from "../../gateway/page/markdown.js";

const em = (...children) => ({ type: "emphasis", children });
const strong = (...children) => ({ type: "strong", children });
const link = (href, ...children) => ({ type: "link", href, children });
const code = (text) => ({ type: "code", text });

test("inline", () => {
  for (const [text, ...nodes] of [
    ["plain", "plain"],
    ["a **b *c* d**", "a ", strong("b ", em("c"), " d")],
    ["***both***", em(strong("both"))],
    ["snake_case_stays _this_ not", "snake_case_stays ", em("this"), " not"],
    ["2 * 3 * 4", "2 * 3 * 4"],
    ["~~gone~~ ~kept~", { type: "strike", children: ["gone"] }, " ~kept~"],
    ["`a*b*` ``c`d``", code("a*b*"), " ", code("c`d")],
    ["`open", "`open"],
    ["\\*not\\* \\a", "*not* \\a"],
    ["one\ntwo", "one", { type: "break" }, "two"],
    ["[t](http://a.b/c_d_e)", link("http://a.b/c_d_e", "t")],
    ["[*t*](<http://a.b/x> \"title\")", link("http://a.b/x", em("t"))],
    ["[a](http://b.c/d_(e))", link("http://b.c/d_(e)", "a")],
    ["see https://a.b/c.", "see ", link("https://a.b/c", "https://a.b/c"), "."],
    ["(https://a.b/c)", "(", link("https://a.b/c", "https://a.b/c"), ")"],
    ["<mailto:a@b.c>", link("mailto:a@b.c", "mailto:a@b.c")],
    ["![alt](https://a.b/i.png)", link("https://a.b/i.png", "alt")],
    ["[a [b](http://b/) c](http://c/)", "[a ", link("http://b/", "b"), " c](", link("http://c/", "http://c/"), ")"],
  ]) {
    assert.deepEqual(parseInline(text), nodes, text);
  }
});

test("addresses that do more than lead somewhere are none", () => {
  for (const url of ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\nscript:alert(1)", " javascript:alert(1)", "\u0001javascript:alert(1)",
                     "data:text/html,<script>alert(1)</script>", "vbscript:x", "blob:null/b", "file:///etc/passwd",
                     "about:blank", "//host/path", "/v1/models", "relative", "", "http://"]) {
    assert.equal(safeUrl(url), null, url);
    const links = JSON.stringify([parseInline(`[t](${url})`), parseInline(`[t](<${url}>)`), parseInline(`<${url}>`), parseInline(`![t](${url})`)]);
    assert.ok(!links.includes('"link"'), url);
  }
});

test("HTML is text", () => {
  for (const text of ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!-- c -->", "&lt;b&gt;", "<a href='javascript:x'>y</a>"]) {
    assert.deepEqual(parseInline(text), [text]);
    assert.deepEqual(parseBlocks(text).map((block) => [block.type, block.text]), [["paragraph", text]]);
  }
});

const shape = (blocks) => blocks.map((block) => {
  switch (block.type) {
    case "list": return [block.ordered ? "ol" : "ul", ...block.items.map((item) => shape(item.blocks))];
    case "quote": return ["quote", ...shape(block.blocks)];
    case "code": return ["code", block.language, block.text];
    case "heading": return [`h${block.level}`, block.text];
    case "table": return ["table", block.head, ...block.rows];
    case "rule": return "rule";
    default: return block.text;
  }
});

test("blocks", () => {
  for (const [text, ...blocks] of [
    ["# One #\n###### Six\n####### none", ["h1", "One"], ["h6", "Six"], "####### none"],
    ["a\nb\n\nc", "a\nb", "c"],
    ["a\n---\nb", "a", "rule", "b"],
    ["```py\nx = 1\n\n  y\n```\nz", ["code", "py", "x = 1\n\n  y"], "z"],
    ["~~~\n```\n~~~", ["code", "", "```"]],
    ["```\nopen", ["code", "", "open"]],
    ["```make\n\tcc\n```", ["code", "make", "\tcc"]],
    ["- a\n- b\n  - c\n\td", ["ul", ["a"], ["b", ["ul", ["c\nd"]]]]],
    ["1. a\n  - b\n2. c", ["ol", ["a", ["ul", ["b"]]], ["c"]]],
    ["- a\n\n- b", ["ul", ["a"], ["b"]]],
    ["- a\n* b", ["ul", ["a"]], ["ul", ["b"]]],
    ["- ```\n  x\n  ```", ["ul", [["code", "", "x"]]]],
    ["text\n2. no list", "text\n2. no list"],
    ["> a\nb\n> > c\n\nd", ["quote", "a\nb", ["quote", "c"]], "d"],
    ["| a | b |\n|---|:-:|\n| 1 | 2 \\| 3 |\n| 4 |\nafter", ["table", ["a", "b"], ["1", "2 | 3"], ["4", ""], ["after", ""]]],
    ["a | b\n- | -", ["table", ["a", "b"]]],
    ["a | b\n- | - | -", "a | b", ["ul", ["| - | -"]]],
    ["***", "rule"],
    ["", ],
  ]) {
    assert.deepEqual(shape(parseBlocks(text)), blocks, text);
  }
  const [list] = parseBlocks("3. a\n4. b\n\n   c");
  assert.deepEqual([list.start, list.tight], [3, false]);
  assert.deepEqual(parseBlocks("- [x] a\n- [ ] b\n- c")[0].items.map((item) => item.done), [true, false, null]);
  assert.deepEqual(parseBlocks("|a|b|c|\n|:-|-:|:-:|")[0].align, ["left", "right", "center"]);
});

test("what is written before stays as it is while more comes", () => {
  const text = "# T\n\npara *one*\n\n- a\n- b\n\n```js\nlet x;\n```\n\nend of it";
  const whole = parseBlocks(text).map((block) => block.source);
  for (let end = 1; end <= text.length; ++end) {
    const sources = parseBlocks(text.slice(0, end)).map((block) => block.source);
    assert.deepEqual(sources.slice(0, -1), whole.slice(0, sources.length - 1), text.slice(0, end));
  }
});

test("a listener hears the letters", () => {
  assert.equal(parseBlocks("a **b** [c](http://d)\n\n- e\n- `f`").map(plainText).join(" / "), "a b c / e; f");
});

// Quadratic work on these would take minutes.
test("hostile text takes no longer than its length", () => {
  const many = 40_000;
  const hostile = [
    "[", "]", "![", "[a](b", "[a](", "*", "*a ", "_a", "*a _b ", "a*b_", "**a ", "~~a", "`", "``` ", "> ", ">", "- ", "1. ", "#", "# ", "\\*", "<", "<https://",
    "https://", "|", "|-", "|\n", "\n", "-\n", "```\n", "> -\n", "a\n", "\t", "\u202e", "((", "[[]](",
  ].map((part) => part.repeat(many / part.length));
  hostile.push("https://" + ")".repeat(many), "[a](" + "(".repeat(many), "# " + " ".repeat(many) + "x", "~".repeat(many) + "`",
               "[".repeat(many) + "](http://a)".repeat(many / 10),
               "*a **b ".repeat(many / 8) + "** *".repeat(many / 8),
               Array.from({ length: 300 }, (_, i) => "`".repeat(i)).join(" "),
               Array.from({ length: 300 }, (_, i) => `${"  ".repeat(i)}- x`).join("\n"));
  const begin = performance.now();
  for (const text of hostile) {
    for (const block of everyBlock(parseBlocks(text))) {
      for (const inline of [block.text, ...(block.head ?? []), ...(block.rows ?? []).flat()]) {
        if (inline !== undefined) assert.ok(depthOf(parseInline(inline)) < 64);
      }
    }
  }
  const seconds = (performance.now() - begin) / 1000;
  assert.ok(seconds < 30, `${seconds} s`);
});

function* everyBlock(blocks) {
  for (const block of blocks) {
    yield block;
    yield* everyBlock(block.blocks ?? []);
    for (const item of block.items ?? []) yield* everyBlock(item.blocks);
  }
}

function depthOf(nodes) {
  return 1 + Math.max(0, ...nodes.slice(0, 1000).map((node) => (node.children ? depthOf(node.children) : 0)));
}
