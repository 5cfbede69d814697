#include "core/text/chat_template.h"

#include <sys/resource.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bottega {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<std::string> RenderOnce(std::string_view source, std::string_view context = "{}",
                                       TemplateTokens tokens = {}) {
  auto compiled = ChatTemplate::Compile(source, tokens);
  if (!compiled.ok()) return compiled.status();
  return compiled->Render(context);
}

constexpr char kContext[] = R"({
  "messages": [
    {"role": "system", "content": " Sei breve. "},
    {"role": "user", "content": "Ciao <b>"},
    {"role": "assistant", "content": "Sì.", "tool_calls": [
      {"function": {"name": "meteo", "arguments": {"città": "Roma", "x": [1, 2.0, true, null]}}}]}],
  "s": "a,b,,c", "n": 7, "f": 1.0, "t": true, "no": null, "l": [3, 1, 2],
  "d": {"items": 5, "k": "v"}, "big": 1e16, "small": 0.00001})";

struct Snippet {
  const char* source;
  const char* rendered;
};

class Renders : public testing::TestWithParam<Snippet> {};

TEST_P(Renders, AsJinja2) {
  auto text = RenderOnce(GetParam().source, kContext);
  ASSERT_TRUE(text.ok()) << GetParam().source << ": " << text.status();
  EXPECT_EQ(*text, GetParam().rendered) << GetParam().source;
}

// What Jinja2 3.1 gave with transformers' setup.
const Snippet kSnippets[] = {
    // White space.
    {"a\n  {% if t %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
    {"a\n  {%- if t -%}\n  b\n  {%- endif -%}\nc", "abc"},
    {"a\n{# no #}\nb", "a\nb"},
    {"x\r\ny\rz\n", "x\ny\nz"},
    {"{{ n }}\n\n", "7\n"},
    // Python's text of values.
    {"{{ t }} {{ no }} {{ f }} {{ big }} {{ small }} {{ missing }}", "True None 1.0 1e+16 1e-05 "},
    {"{{ [1, 'it\\'s', \"q\", none, true, 2.50] }}", "[1, \"it's\", 'q', None, True, 2.5]"},
    {"{{ {'a': {'b': (1,)}} }}", "{'a': {'b': (1,)}}"},
    {"{{ 1 ~ t ~ no ~ l }}", "1TrueNone[3, 1, 2]"},
    {"{{ 'è\\n' }}|{{ ['è\\n'] }}", "è\n|['è\\n']"},
    // tojson is json.dumps(ensure_ascii=False).
    {"{{ messages[2].tool_calls[0].function.arguments|tojson }}",
     "{\"città\": \"Roma\", \"x\": [1, 2.0, true, null]}"},
    {"{{ messages[1]|tojson }}", "{\"role\": \"user\", \"content\": \"Ciao <b>\"}"},
    {"{{ {'a': [1], 'b': []}|tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}"},
    {"{{ {'b': 1, 'a': 2}|tojson(separators=(',', ':'), sort_keys=true) }}", "{\"a\":2,\"b\":1}"},
    {"{{ 'è'|tojson(ensure_ascii=true) }}{{ '\"\\\\\\t/'|tojson }}", "\"\\u00e8\"\"\\\"\\\\\\t/\""},
    // Python's methods.
    {"{{ s.split(',') }}{{ s.split(',', 1)[1] }}{{ s.rsplit(',', 1)[0] }}",
     "['a', 'b', '', 'c']b,,ca,b,"},
    {"{{ s.split(sep=',', maxsplit=1)|length }}{{ ' a  b '.split() }}", "2['a', 'b']"},
    {"{{ messages[0].content.strip() }}|{{ 'xxaxx'.lstrip('x') }}", "Sei breve.|axx"},
    {"{{ s.startswith('a') }}{{ s.endswith(('x', 'c')) }}{{ s.find('b') }}{{ s.find('z') }}",
     "TrueTrue2-1"},
    {"{{ 'a</think>b'.split('</think>')[-1] }}{{ 'abc'.partition('b') }}", "b('a', 'b', 'c')"},
    {"{{ 'abc'.removeprefix('a') }}{{ '5'.zfill(3) }}{{ 'ab'.center(5) }}|", "bc005  ab |"},
    {"{{ 'hello world'.title() }}{{ 'x' * 3 }}{{ [0] * 2 }}", "Hello Worldxxx[0, 0]"},
    {"{{ '%s=%d' % ('a', 5) }}{{ '{}-{x}'.format(1, x=2) }}", "a=51-2"},
    {"{{ d.get('k') }}{{ d.get('z', 0) }}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
     "v0items=5;k=v;"},
    {"{{ d['items'] }}{{ 'yes' if d.items }}", "5yes"},
    // Slices, also backwards.
    {"{{ l[::-1] }}{{ 'abc'[::-1] }}{{ l[1:] }}{{ l[-2:] }}{{ l[2:0:-1] }}",
     "[2, 1, 3]cba[1, 2][1, 2][2, 1]"},
    {"{% for m in messages[::-1] %}{{ m.role }} {% endfor %}", "assistant user system "},
    // Filters and tests.
    {"{{ l|sort|join('<') }}{{ l|last }}{{ l|length }}{{ []|first }}", "1<2<323"},
    {"{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list }}",
     "['Ciao <b>']"},
    {"{{ missing|default('x') }}{{ no|default('x', true) }}{{ '12'|int + 1 }}{{ 'x'|int(5) }}",
     "xx135"},
    {"{{ 2.5|round }}{{ 7|round }}{{ '3.7'|float }}", "2.073.7"},
    {"{{ no is none }}{{ no is iterable }}{{ 'a' is sequence }}{{ d is mapping }}{{ t is number }}",
     "TrueFalseTrueTrueTrue"},
    {"{{ 'a\\n\\nb'|indent(2) }}", "a\n\n  b"},
    // Statements.
    {"{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if loop.last %}!{% endif %}"
     "{% endfor %}",
     "32!"},
    {"{% for x in l %}{% if loop.index == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "3"},
    {"{% set ns = namespace(n=0) %}{% for x in l %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}",
     "6"},
    {"{% set x = 1 %}{% for y in l %}{% set x = y %}{% endfor %}{{ x }}", "1"},
    {"{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}"
     "{{ m(1) }}{{ m(b=3, a=4) }}{% call m(5) %}c{% endcall %}",
     "124352c"},
    {"{% generation %}x{% set q = 1 %}{% endgeneration %}{{ q }}\n{%- generation -%} y "
     "{%- endgeneration -%} z",
     "xyz"},
    {"{% with a = n, b = a %}{{ a }}{{ b }}{% endwith %}", "7"},
    {"{% raw %}{{ n }}{% endraw %}", "{{ n }}"},
    // What transformers always passes.
    {"{{ tools }}{{ documents is none }}{{ add_generation_prompt }}", "NoneTrueFalse"},
};

INSTANTIATE_TEST_SUITE_P(Snippets, Renders, testing::ValuesIn(kSnippets));

class Fails : public testing::TestWithParam<const char*> {};

TEST_P(Fails, AsJinja2) {
  auto text = RenderOnce(GetParam(), kContext);
  ASSERT_FALSE(text.ok()) << GetParam() << " gave " << *text;
  EXPECT_EQ(ReasonOf(text.status()), Reason::kInvalidValue) << text.status();
  EXPECT_THAT(std::string(text.status().message()), HasSubstr("line 1"));
}

INSTANTIATE_TEST_SUITE_P(Expressions, Fails,
                         testing::Values("{{ missing.foo }}", "{{ missing() }}", "{{ 'a' + 1 }}",
                                         "{{ no + 1 }}", "{{ 1 / 0 }}", "{{ 1 in s }}",
                                         "{{ l < 5 }}", "{{ no|length }}", "{{ n|first }}",
                                         "{{ missing|int }}", "{% for x in no %}{% endfor %}",
                                         "{{ missing|tojson }}", "{{ l.append(1) }}",
                                         "{% set d.k = 1 %}", "{{ ','.join(l) }}"));

TEST(ChatTemplate, RaiseExceptionIsTheMessage) {
  auto text = RenderOnce("{{ raise_exception('I turni devono alternarsi') }}");
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(ReasonOf(text.status()), Reason::kInvalidValue);
  EXPECT_EQ(text.status().message(), "I turni devono alternarsi");
}

TEST(ChatTemplate, SpecialTokensAreVariablesThatTheContextMayReplace) {
  TemplateTokens tokens = {.bos_token = "<s>", .eos_token = "</s>"};
  const char* source = "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}";
  EXPECT_EQ(RenderOnce(source, "{}", tokens).value(), "<s></s>False");
  EXPECT_EQ(RenderOnce(source, R"({"bos_token": "B"})", tokens).value(), "B</s>False");
}

TEST(ChatTemplate, StrftimeNowShowsTheGivenTime) {
  setenv("TZ", "UTC0", 1);
  tzset();
  auto compiled = ChatTemplate::Compile("{{ strftime_now('%d %b %Y, %H:%M') }}");
  ASSERT_TRUE(compiled.ok());
  EXPECT_EQ(compiled->RenderAt("{}", 1'700'000'000).value(), "14 Nov 2023, 22:13");
}

TEST(ChatTemplate, KnowsItsVariables) {
  auto compiled = ChatTemplate::Compile(
      "{% set x = enable_turbo %}{% for m in messages %}{{ m.role ~ x }}{% endfor %}"
      "{% macro f(a) %}{{ a ~ reasoning_lang }}{% endmacro %}{{ raise_exception('x') if no }}");
  ASSERT_TRUE(compiled.ok());
  EXPECT_THAT(compiled->variables(),
              ElementsAre("enable_turbo", "messages", "no", "reasoning_lang"));
}

TEST(ChatTemplate, ContextMustBeAnObject) {
  auto compiled = ChatTemplate::Compile("x");
  ASSERT_TRUE(compiled.ok());
  for (std::string context : {"", "{", "[]", "null", "{\"a\": \xFF}", "{\"a\": 1}x"}) {
    auto text = compiled->Render(context);
    EXPECT_EQ(ReasonOf(text.status()), Reason::kInvalidValue) << context;
  }
  std::string deep = "{\"a\": " + std::string(100'000, '[') + "}";
  EXPECT_EQ(ReasonOf(compiled->Render(deep).status()), Reason::kInvalidValue);
}

TEST(ChatTemplate, ContinuesTheLastMessage) {
  auto compiled = ChatTemplate::Compile(
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}");
  ASSERT_TRUE(compiled.ok());
  auto open = [&](const char* context) { return compiled->RenderContinued(context); };
  EXPECT_EQ(open(R"({"messages": [{"role": "u", "content": "a"}, {"role": "m", "content": "b "}]})")
                .value(),
            "<u>a<end>\n<m>b ");
  EXPECT_FALSE(open(R"({"messages": []})").ok());
  EXPECT_FALSE(open(R"({"messages": [{"role": "u", "content": null}]})").ok());
  EXPECT_FALSE(open("no").ok());
  auto stripping =
      ChatTemplate::Compile("{% for m in messages %}{{ m.content|trim }}!{% endfor %}");
  EXPECT_EQ(stripping->RenderContinued(R"({"messages": [{"role": "u", "content": "a "}]})").value(),
            "a");
  auto forgetful = ChatTemplate::Compile("x");
  EXPECT_FALSE(forgetful->RenderContinued(R"({"messages": [{"content": "a"}]})").ok());
}

TEST(ChatTemplate, ManyThreadsOneAnswer) {
  auto compiled = ChatTemplate::Compile(
      "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ m|tojson }}"
      "{% endfor %}{{ ns.n }}");
  ASSERT_TRUE(compiled.ok());
  std::string expected = compiled->Render(kContext).value();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) EXPECT_EQ(compiled->Render(kContext).value(), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

struct Refusal {
  const char* source;
  const char* said;
};

class Refuses : public testing::TestWithParam<Refusal> {};

TEST_P(Refuses, ByName) {
  auto compiled = ChatTemplate::Compile(GetParam().source);
  ASSERT_FALSE(compiled.ok()) << GetParam().source;
  EXPECT_EQ(ReasonOf(compiled.status()), Reason::kModelRefused) << compiled.status();
  EXPECT_THAT(std::string(compiled.status().message()), HasSubstr(GetParam().said));
}

INSTANTIATE_TEST_SUITE_P(
    Constructs, Refuses,
    testing::Values(
        Refusal{"{{ x|xmlattr }}", "xmlattr"}, Refusal{"{{ x|truncate(5) }}", "truncate"},
        Refusal{"{{ x is escaped }}", "escaped"}, Refusal{"{{ x.encode() }}", "encode"},
        Refusal{"{% macro m() %}{{ varargs }}{% endmacro %}", "varargs"},
        Refusal{"{{ cycler(1, 2) }}", "cycler"}, Refusal{"{{ ''.__class__ }}", "__class__"},
        Refusal{"{{ x.format.__globals__ }}", "__globals__"},
        Refusal{"{% set ns = namespace() %}{% set ns._x = 1 %}", "_x"},
        Refusal{"\n\n{% include 'x' %}", "line 3: the tag 'include'"},
        Refusal{"{% extends 'x' %}", "extends"}, Refusal{"{% import 'x' as y %}", "import"},
        Refusal{"{% from 'x' import y %}", "from"},
        Refusal{"{% autoescape true %}{% endautoescape %}", "autoescape"},
        Refusal{"{% do x() %}", "do"}, Refusal{"{% if x %}", "end of"}, Refusal{"{{ x", ""},
        Refusal{"{% endif %}", "endif"}, Refusal{"{{ a b }}", ""}, Refusal{"\xFF", "UTF-8"}));

std::string Times(size_t n, const std::string& text) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += text;
  return out;
}

// Each would take the process' stack, memory or time if nothing stopped it. None may succeed, or
// leave more than a bounded trace in memory.
TEST(ChatTemplate, M11_HostileTemplatesAreStopped) {
  const std::string ns = "{% set ns = namespace(x=[1]) %}";
  const std::string forever = "{% for i in range(100000) %}";
  const std::vector<std::string> sources = {
      // Steps and output.
      "{% for i in range(1000000000) %}x{% endfor %}",
      forever + forever + "{% endfor %}{% endfor %}",
      forever + Times(100'000, "R") + "{% endfor %}",
      forever + "{{ messages }}{% endfor %}",
      "{{ (range(100000)|list) * 100 }}",
      "{% macro a(x) %}{{ x }}{{ x }}{% endmacro %}{{ " + Times(24, "a(") + "'0123456789'" +
          Times(24, ")") + " }}",
      // Strings that double, repeat, pad.
      "{% set x = 'ab' %}" + Times(60, "{% set x = x ~ x %}"),
      "{% set x = 'ab' %}" + Times(60, "{% set x = x + x %}"),
      "{{ 'a' * 1000000000 }}",
      "{{ [1] * 1000000000 }}",
      "{{ ('a' * 10000).replace('a', 'b' * 1000000) }}",
      "{{ ('a' * 10000)|replace('a', 'b' * 1000000) }}",
      "{{ ('a' * 1000000)|list|join('b' * 100000) }}",
      "{{ 'a'|indent(1000000000, true) }}",
      "{{ [1]|tojson(indent=1000000000) }}",
      "{{ 'a'|center(10000000000) }}{{ 'a'.center(10000000000) }}",
      "{{ 'a'.ljust(1000000000000) }}",
      "{{ 'a'.zfill(100000000000) }}",
      "{{ '\\t'.expandtabs(1000000000000) }}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '{:>10000000000}'.format(1) }}",
      "{{ ('{0}' * 100000).format('a' * 1000000) }}",
      "{{ '%.1000000000f'|format(1.0) }}",
      "{{ [1]|batch(1000000000, 'x') }}",
      "{{ [1]|slice(1000000000) }}",
      "{{ 2 ** 1000000000 }}",
      // Values that share, nest, or hold themselves.
      "{% set x = [1] %}" + Times(60, "{% set x = [x, x] %}") + "{{ x }}",
      "{% set x = [1] %}" + Times(60, "{% set x = x + x %}") + "{{ x|length }}",
      ns + forever + "{% set ns.x = [ns.x] %}{% endfor %}",
      ns + forever + "{% set ns.x = ns.x|batch(1) %}{% endfor %}",
      ns + forever + "{% set ns.x = dict(a=ns.x) %}{% endfor %}",
      ns + forever + "{% set ns.x = [ns.x.count] %}{% endfor %}",
      ns + forever + "{% for q in [ns.x] %}{% set ns.x = loop %}{% endfor %}{% endfor %}",
      ns + "{% set ns.x = ns %}{{ ns }}",
      ns + "{% set ns.x = [ns] %}{{ ns }}",
      ns + "{% set ns.a, ns.b = ns, ns %}{{ ns }}",
      ns + "{% set other = namespace(x=ns) %}{% set ns.x = other %}{{ ns }}",
      ns + "{% for q in [1] %}{{ loop.changed(loop) }}{% endfor %}",
      // Calls without end.
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
      "{% block b %}{{ self.b() }}{% endblock %}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      // Work that one step hides.
      "{% set x = 'a' * 1000000 %}" + forever + "{% set y = x|upper %}{% endfor %}",
      "{% set x = 'a' * 1000000 %}" + forever + "{% set y = 'b' in x %}{% endfor %}",
      "{% set x = 'a ' * 500000 %}" + forever + "{% set y = x.split() %}{% endfor %}",
      "{% set x = range(100000)|list %}" + forever + "{% set y = x|sort %}{% endfor %}",
      "{% set x = range(100000)|list %}" + forever + "{% set y = x[1:] %}{% endfor %}",
      // Parsers that recurse.
      "{{ " + Times(300'000, "1+") + "1 }}",
      "{{ x" + Times(100'000, "|string") + " }}",
      "{{ " + Times(100'000, "(") + "1" + Times(100'000, ")") + " }}",
      "{{ " + Times(100'000, "not ") + "1 }}",
      "{% if x %}" + Times(50'000, "{% elif x %}") + "{% endif %}",
      Times(50'000, "{% if x %}"),
      Times(10'000, "{% filter upper %}"),
      Times(100'000, "{{"),
  };
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  for (const std::string& source : sources) {
    auto text = RenderOnce(source, kContext);
    EXPECT_FALSE(text.ok()) << source.substr(0, 100);
    Reason reason = ReasonOf(text.status());
    EXPECT_TRUE(reason == Reason::kInvalidValue || reason == Reason::kModelRefused)
        << text.status();
    EXPECT_LT(text.status().message().size(), 5000u);
  }
  getrusage(RUSAGE_SELF, &after);
#ifndef __SANITIZE_ADDRESS__  // it keeps freed memory for a while
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 600 << 10) << "KiB";
#endif
}

// As deep and as long as is let through, on a thread's stack.
TEST(ChatTemplate, TheLargestTemplatesAllowedDoNotExhaustTheStack) {
  const std::vector<std::string> sources = {
      "{{ " + Times(1900, "1+") + "1 }}",
      "{{ 'x'" + Times(1300, "|string") + " }}",
      "{{ " + Times(3900, "not ") + "1 }}",
      "{{ " + Times(3900, "-") + "1 }}",
      "{{ x" + Times(1900, ".a") + " }}",
      "{% if x %}" + Times(999, "{% elif x %}") + "{% endif %}",
      Times(140, "{% if x %}") + Times(140, "{% endif %}"),
      Times(100, "{% for i in [1] %}") + Times(100, "{% endfor %}"),
      "{% macro m(n) %}{% if n %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(80) }}",
      "{% set ns = namespace(x=[]) %}{% for i in range(190) %}{% set ns.x = [ns.x] %}{% endfor %}"
      "{{ ns.x == ns.x }}{{ ns.x|tojson }}{{ ns.x }}",
  };
  std::thread([&] {
    for (const std::string& source : sources) {
      auto text = RenderOnce(source);
      EXPECT_TRUE(text.ok() || ReasonOf(text.status()) == Reason::kInvalidValue) << text.status();
    }
    EXPECT_TRUE(RenderOnce(sources[8]).ok());
    EXPECT_TRUE(RenderOnce(sources[9]).ok());
  }).join();
}

TEST(ChatTemplate, RefusesTooManyBytes) {
  auto compiled = ChatTemplate::Compile(std::string(limits::kChatTemplateBytesMax + 1, 'x'));
  EXPECT_EQ(ReasonOf(compiled.status()), Reason::kModelRefused);
}

TEST(ChatTemplate, OutputUpToTheLimitIsFine) {
  std::string half = std::string(limits::kTemplateOutputBytesMax / 2, 'x');
  std::string context = nlohmann::json({{"x", half}}).dump();
  EXPECT_EQ(RenderOnce("{{ x }}{{ x }}", context)->size(), limits::kTemplateOutputBytesMax);
  EXPECT_FALSE(RenderOnce("{{ x }}{{ x }}!", context).ok());
}

TEST(TokenizerConfig, TemplateAsStringOrByName) {
  auto get = [](const char* json, std::string_view name = "default") {
    return ChatTemplateOfTokenizerConfig(json, name);
  };
  EXPECT_EQ(get(R"({"chat_template": "x{{ y }}"})").value(), "x{{ y }}");
  const char* list = R"({"chat_template": [{"name": "tool_use", "template": "T"},
                                           {"name": "default", "template": "D"}]})";
  EXPECT_EQ(get(list).value(), "D");
  EXPECT_EQ(get(list, "tool_use").value(), "T");
  for (const char* bad : {"", "[]", "{}", R"({"chat_template": null})", R"({"chat_template": 5})",
                          R"({"chat_template": []})", R"({"chat_template": [{"name": "default"}]})",
                          R"({"chat_template": [{"name": "x", "template": "D"}, 5]})"}) {
    EXPECT_EQ(ReasonOf(get(bad).status()), Reason::kModelRefused) << bad;
  }
}

TEST(TokenizerConfig, TokensAsStringOrObject) {
  auto tokens = TokensOfTokenizerConfig(
      R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null})");
  ASSERT_TRUE(tokens.ok());
  EXPECT_EQ(tokens->bos_token, "<s>");
  EXPECT_EQ(tokens->eos_token, "</s>");
  EXPECT_EQ(tokens->pad_token, "");
  EXPECT_FALSE(TokensOfTokenizerConfig("[").ok());
}

}  // namespace
}  // namespace bottega
