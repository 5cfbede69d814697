#include "core/model/synthetic_text.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "core/base/status.h"
#include "core/model/refusal.h"
#include "nlohmann/json.hpp"

namespace bottega {
namespace {

using nlohmann::json;

constexpr std::string_view kFirst[] = {"<unk>", "<s>", "</s>"};
constexpr int kBytesEnd = 3 + 256;

struct ControlToken {
  std::string_view text;
  bool special;
};
constexpr ControlToken kControl[] = {
    {"<|im_start|>", true},     {"<|im_end|>", true},        {"<think>", false},
    {"</think>", false},        {"/reasoning_en", false},    {"/reasoning_ita", false},
    {"/turbo", false},          {"<tool_call>", false},      {"</tool_call>", false},
    {"<tool_response>", false}, {"</tool_response>", false}, {"<|pad|>", true}};
constexpr int kControlCount = static_cast<int>(std::size(kControl));
constexpr int kImEnd = 1;  // among them

constexpr char kTemplate[] =
    R"({#- Turns of the form <|im_start|>role, newline, text, <|im_end|>. -#}
{%- for message in messages -%}
    {{- '<|im_start|>' ~ message.role ~ '\n' -}}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- else -%}
        {%- for part in message.content or [] -%}
            {{- part.text -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}
        {{- '<think>\n\n</think>\n\n' -}}
    {%- endif -%}
{%- endif -%}
)";

// Of a code point below U+0800.
std::string Utf8(int point) {
  if (point < 0x80) return {static_cast<char>(point)};
  return {static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 0x3f))};
}

// The stand-ins of byte-level BPE: a printable byte is its own character, the others are U+0100 and
// on, in the order of the bytes.
std::vector<std::string> ByteTokens() {
  std::vector<std::string> tokens;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    tokens.push_back(Utf8(printable ? byte : next++));
  }
  return tokens;
}

// A word that can be said, after a space; every `index` its own.
std::string MadeUpWord(int index) {
  constexpr std::string_view kConsonants = "bcdfglmnprstvz", kVowels = "aeiou";
  constexpr int kSyllables = static_cast<int>(kConsonants.size() * kVowels.size());
  std::string word;
  for (int count = 0; count < 3 || index > 0; ++count, index /= kSyllables) {
    const size_t syllable = static_cast<size_t>(index % kSyllables);
    word.insert(0, {kConsonants[syllable / kVowels.size()], kVowels[syllable % kVowels.size()]});
  }
  return "\u0120" + word;
}

int ControlBegin(const ModelConfig& config) {
  const int last = config.vocab_size - kControlCount;
  if (config.eos_ids.empty()) return last;
  const int begin = config.eos_ids.back() - kImEnd;
  return begin >= kBytesEnd && begin <= last ? begin : last;
}

json Added(int id, std::string_view text, bool special) {
  return {
      {"id", id},        {"content", std::string(text)}, {"single_word", false}, {"lstrip", false},
      {"rstrip", false}, {"normalized", false},          {"special", special}};
}

std::string TokenizerJson(const ModelConfig& config) {
  std::vector<std::string> tokens(std::begin(kFirst), std::end(kFirst));
  for (std::string& token : ByteTokens()) tokens.push_back(std::move(token));
  json added = json::array();
  for (int id = 0; id < static_cast<int>(std::size(kFirst)); ++id) {
    added.push_back(Added(id, kFirst[id], true));
  }
  const int begin = ControlBegin(config);
  for (int id = kBytesEnd; id < config.vocab_size; ++id) {
    const int control = id - begin;
    if (control < 0 || control >= kControlCount) {
      tokens.push_back(MadeUpWord(id - kBytesEnd));
      continue;
    }
    tokens.emplace_back(kControl[control].text);
    added.push_back(Added(id, kControl[control].text, kControl[control].special));
  }
  json vocabulary = json::object();
  for (size_t id = 0; id < tokens.size(); ++id) vocabulary[tokens[id]] = id;
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  const json root = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", byte_level},
                     {"post_processor", nullptr},
                     {"decoder", byte_level},
                     {"model",
                      {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", nullptr},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", false},
                       {"byte_fallback", false},
                       {"ignore_merges", false},
                       {"vocab", vocabulary},
                       {"merges", json::array()}}}};
  return root.dump() + "\n";
}

}  // namespace

absl::StatusOr<std::vector<TextFile>> SyntheticText(const ModelConfig& config) {
  if (config.vocab_size < kBytesEnd + kControlCount) {
    return RefuseModel("config.json: vocab_size is ", config.vocab_size,
                       "; a tokenizer of bytes and control tokens needs at least ",
                       kBytesEnd + kControlCount);
  }
  const json generation = {{"do_sample", true},
                           {"eos_token_id", ControlBegin(config) + kImEnd},
                           {"temperature", 0.6},
                           {"top_k", 20},
                           {"top_p", 0.95}};
  return std::vector<TextFile>{{"chat_template.jinja", kTemplate},
                               {"generation_config.json", generation.dump(1) + "\n"},
                               {"tokenizer.json", TokenizerJson(config)}};
}

}  // namespace bottega
