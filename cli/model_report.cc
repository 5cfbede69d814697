#include "cli/model_report.h"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <optional>

#include "core/model/footprint.h"
#include "core/model/tensor_set.h"

namespace bottega {
namespace {

// Tokens that the chat formats of these models use; their ids are the file's.
constexpr const char* kChatTokens[] = {"<|im_start|>",    "<|im_end|>",      "<think>",
                                       "</think>",        "/reasoning_en",   "/reasoning_ita",
                                       "/turbo",          "<tool_call>",     "</tool_call>",
                                       "<tool_response>", "</tool_response>"};

__attribute__((format(printf, 1, 2))) std::string Format(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return text;
}

std::string Gib(uint64_t bytes) {
  const double gib = static_cast<double>(bytes) / (1u << 30);
  return gib >= 0.1 ? Format("%.2f GiB", gib) : Format("%.2f MiB", gib * 1024);
}

std::string Parameters(int64_t count) {
  const auto number = static_cast<double>(count);
  if (count < 100'000) return std::to_string(count);
  return count >= 100'000'000 ? Format("%.2f billion", number / 1e9)
                              : Format("%.2f million", number / 1e6);
}

std::string Line(const std::string& name, const std::string& value) {
  return Format("%-12s ", name.c_str()) + value + "\n";
}

std::string Layers(const ModelConfig& c) {
  if (c.num_dense_layers() == 0) return Format("%d, each with experts", c.num_layers);
  std::string dense;
  for (int layer = 0; layer < c.num_layers; ++layer) {
    if (!c.is_moe_layer[static_cast<size_t>(layer)]) dense += " " + std::to_string(layer);
  }
  return Format("%d: %d with experts, %d dense of width %d (", c.num_layers, c.num_moe_layers(),
                c.num_dense_layers(), c.dense_width) +
         dense.substr(1) + ")";
}

std::string Rope(const ModelConfig& c) {
  std::string text = Format("theta %.15g", c.rope.theta);
  if (c.rope.kind != RopeConfig::Kind::kYarn) return text;
  return text + Format(", YaRN factor %g over %g positions (beta %g to %g, attention factor %.6g)",
                       c.rope.factor, c.rope.original_max_positions, c.rope.beta_fast,
                       c.rope.beta_slow, c.rope.attention_factor);
}

std::string Sampling(const SamplingDefaults& s) {
  std::string text;
  auto add = [&text](const char* name, std::optional<double> value) {
    if (value) text += Format("%s%s %g", text.empty() ? "" : ", ", name, *value);
  };
  if (s.do_sample) text += *s.do_sample ? "do_sample true" : "do_sample false";
  add("temperature", s.temperature);
  add("top_p", s.top_p);
  add("top_k", s.top_k ? std::optional<double>(*s.top_k) : std::nullopt);
  add("min_p", s.min_p);
  add("repetition_penalty", s.repetition_penalty);
  return text.empty() ? "no defaults in generation_config.json" : text;
}

std::string Ids(const ModelConfig& c) {
  std::string text = "end";
  for (int32_t id : c.eos_ids) text += " " + std::to_string(id);
  if (c.eos_ids.empty()) text += " none";
  if (c.bos_id) text += ", begin " + std::to_string(*c.bos_id);
  if (c.pad_id) text += ", padding " + std::to_string(*c.pad_id);
  return text;
}

// "<think> 131074", absent ones named: the parsers then match text across tokens.
std::string ChatTokens(const std::vector<AddedToken>& added) {
  std::string found;
  std::string absent;
  for (const char* text : kChatTokens) {
    auto it = std::find_if(added.begin(), added.end(),
                           [text](const AddedToken& token) { return token.text == text; });
    if (it == added.end()) {
      absent += std::string(" ") + text;
    } else {
      found += (found.empty() ? "" : ", ") + std::string(text) + " " + std::to_string(it->id) +
               (it->special ? " (special)" : "");
    }
  }
  if (found.empty()) found = "none";
  return Format("%zu added; ", added.size()) + found +
         (absent.empty() ? "" : "; not found:" + absent);
}

std::string Weights(const ModelConfig& c, const MemoryLimit& memory) {
  std::string text;
  for (WeightFormat format : kEveryWeightFormat) {
    const std::optional<uint64_t> bytes = PackedBytesOf(c, format);
    std::string line;
    if (!bytes) {
      line = "not possible: a width is no multiple of 8";
    } else {
      line = Format("%11s", Gib(*bytes).c_str());
      const uint64_t need = *bytes + kWorkingBytes;
      if (memory.bytes > need) {
        const uint64_t tokens = (memory.bytes - need) / KvBytesPerToken(c, DType::kBF16);
        line += Format("  fits; leaves room for %" PRIu64 " tokens of context", tokens);
      } else if (memory.bytes > 0) {
        line += Format("  does not fit: %s too much", Gib(need - memory.bytes).c_str());
      }
    }
    text += Line(text.empty() ? "weights" : "",
                 Format("%-5s", std::string(Name(format)).c_str()) + line);
  }
  return text;
}

}  // namespace

std::string ModelReport::Text() const {
  const ModelConfig& c = config;
  const ParameterCounts counts = CountParameters(c);
  std::string text = Line("model", c.model_type + ", " + directory);
  text += Line("layers", Layers(c));
  text += Line("hidden", std::to_string(c.hidden_size));
  text += Line("attention",
               Format("%d query heads over %d key-value heads of %d, q and k normed per head",
                      c.num_heads, c.num_kv_heads, c.head_dim));
  text += Line("experts", Format("%d a layer, %d per token, width %d, routing weights %s",
                                 c.num_experts, c.experts_per_token, c.expert_width,
                                 c.norm_topk_prob ? "renormalised" : "not renormalised"));
  text += Line("rope", Rope(c));
  text += Line("context", std::to_string(c.max_positions) + " tokens");
  text += Line("vocabulary", Format("%d, head %s", c.vocab_size,
                                    c.tied_head ? "tied to the embedding" : "of its own"));
  text += Line("token ids", Ids(c));
  text += Line("chat tokens", ChatTokens(added_tokens));
  text += Line("sampling", Sampling(c.sampling));
  std::string names;
  for (const std::string& file : files) names += (names.empty() ? "" : ", ") + file;
  text += Line("files", names.empty() ? "none beside the weights" : names);
  text += Line("parameters", Parameters(counts.total) + ", " + Parameters(counts.active) +
                                 " read per token; one expert " + Parameters(counts.one_expert));
  text += Weights(c, memory);
  text +=
      Line("kv cache", Format("%" PRIu64 " bytes a token in bf16, %" PRIu64 " in f32",
                              KvBytesPerToken(c, DType::kBF16), KvBytesPerToken(c, DType::kF32)));
  text +=
      Line("memory", Gib(memory.bytes) + (memory.from_cgroup ? ", the limit of this control group"
                                                             : ", this machine's"));
  if (std::find(files.begin(), files.end(), "tokenizer.json") == files.end()) {
    text += Line("note", "no tokenizer.json: it can be packed, not served");
  }
  for (const std::string& note : c.notes) text += Line("note", note);
  for (const std::string& field : c.unknown_fields) {
    text += Line("unknown", field + " (config.json; not known to change the maths)");
  }
  return text;
}

}  // namespace bottega
