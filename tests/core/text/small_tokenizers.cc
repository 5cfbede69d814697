#include "tests/core/text/small_tokenizers.h"

#include <array>
#include <utility>

namespace bottega {
namespace {

using nlohmann::ordered_json;

std::string Utf8(unsigned c) {
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
}

ordered_json Added(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

ordered_json Frame() {
  return {{"version", "1.0"},          {"truncation", nullptr},
          {"padding", nullptr},        {"added_tokens", ordered_json::array()},
          {"normalizer", nullptr},     {"pre_tokenizer", nullptr},
          {"post_processor", nullptr}, {"decoder", nullptr},
          {"model", nullptr}};
}

}  // namespace

std::string PrintableByte(unsigned byte) {
  unsigned next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    unsigned shown = printable ? b : next++;
    if (b == byte) return Utf8(shown);
  }
  return "";
}

ordered_json ByteLevelTokenizer() {
  ordered_json vocab = ordered_json::object();
  for (unsigned b = 0; b < 256; ++b) vocab[PrintableByte(b)] = b;
  const std::string space = PrintableByte(' ');
  // é is C3 A9; the first two bytes of an emoji (F0 9F) make a token that ends inside a character.
  const std::vector<std::pair<std::string, std::string>> merges = {
      {"c", "i"},
      {"ci", "a"},
      {space, "ci"},
      {PrintableByte(0xC3), PrintableByte(0xA9)},
      {PrintableByte(0xF0), PrintableByte(0x9F)},
      {space, space}};
  ordered_json pairs = ordered_json::array();
  int id = 256;
  for (const auto& [a, b] : merges) {
    vocab[a + b] = id++;
    pairs.push_back({a, b});
  }
  ordered_json json = Frame();
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern",
          {{"Regex",
            "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"}}},
         {"behavior", "Isolated"},
         {"invert", false}},
        {{"type", "ByteLevel"},
         {"add_prefix_space", false},
         {"trim_offsets", false},
         {"use_regex", false}}}}};
  json["decoder"] = {{"type", "ByteLevel"},
                     {"add_prefix_space", false},
                     {"trim_offsets", false},
                     {"use_regex", false}};
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", false},
                   {"vocab", vocab},
                   {"merges", pairs}};
  const std::array<std::pair<const char*, bool>, 5> added = {{{"<|im_start|>", true},
                                                              {"<|im_end|>", true},
                                                              {"<think>", false},
                                                              {"</think>", false},
                                                              {"/turbo", false}}};
  for (const auto& [content, special] : added)
    json["added_tokens"].push_back(Added(id++, content, special));
  return json;
}

ordered_json ByteFallbackTokenizer() {
  ordered_json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  int id = 3;
  for (int b = 0; b < 256; ++b) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", b);
    vocab[text] = id++;
  }
  for (const char* token : {"▁", "a", "b", "c", "i", "o", "▁c", "ci", "▁ci", "▁a"})
    vocab[token] = id++;
  ordered_json pairs = ordered_json::array();
  for (const auto& [a, b] : {std::pair("c", "i"), std::pair("▁", "ci"), std::pair("▁", "a")}) {
    pairs.push_back(ordered_json::array({a, b}));
  }
  ordered_json json = Frame();
  json["added_tokens"] = {Added(0, "<unk>", true), Added(1, "<s>", true), Added(2, "</s>", true)};
  json["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Prepend"}, {"prepend", "▁"}},
        {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}};
  json["decoder"] = {{"type", "Sequence"},
                     {"decoders",
                      {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                       {{"type", "ByteFallback"}},
                       {{"type", "Fuse"}},
                       {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", "<unk>"},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", true},
                   {"byte_fallback", true},
                   {"ignore_merges", false},
                   {"vocab", vocab},
                   {"merges", pairs}};
  return json;
}

ordered_json WordPieceTokenizer() {
  ordered_json vocab = ordered_json::object();
  int id = 0;
  for (const char* token : {"[UNK]", "[CLS]", "[SEP]", "ciao", "come", "stai", "##mo", "##ndo", "a",
                            "##a", "?", ",", "'", "s"}) {
    vocab[token] = id++;
  }
  ordered_json json = Frame();
  json["added_tokens"] = {Added(0, "[UNK]", true), Added(1, "[CLS]", true),
                          Added(2, "[SEP]", true)};
  json["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  json["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  json["post_processor"] = {
      {"type", "BertProcessing"}, {"sep", {"[SEP]", 2}}, {"cls", {"[CLS]", 1}}};
  json["model"] = {{"type", "WordPiece"},
                   {"unk_token", "[UNK]"},
                   {"continuing_subword_prefix", "##"},
                   {"max_input_chars_per_word", 100},
                   {"vocab", vocab}};
  return json;
}

ordered_json UnigramTokenizer() {
  ordered_json vocab = ordered_json::array();
  for (const char* token : {"<unk>", "</s>", "▁", "▁ciao", "▁a", "a", "c", "i", "o", "ciao", "é"}) {
    vocab.push_back({token, -1.0 - static_cast<double>(vocab.size())});
  }
  ordered_json json = Frame();
  json["added_tokens"] = {Added(0, "<unk>", true), Added(1, "</s>", true)};
  json["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}};
  json["decoder"] = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}};
  json["model"] = {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", vocab}, {"byte_fallback", false}};
  return json;
}

}  // namespace bottega
