#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "gateway/answer_format.h"

namespace bottega {

// What the gateway asks of a model's tokenizer and chat template (core/text behind it; tests bring
// their own). Any thread; all calls are const.
class GatewayText : public gateway::TokenNames {
 public:
  // Turns ids into text, piece by piece, never half a code point.
  class Decoder {
   public:
    virtual ~Decoder() = default;
    virtual std::string Push(int32_t id) = 0;
    // What is held back; the decoder goes on after it.
    virtual std::string Flush() = 0;
  };

  struct EncodeAs {
    bool add_special_tokens = false;   // what the tokenizer's file adds round a raw text
    bool parse_special_tokens = true;  // off: `<|im_end|>` is ten characters like others
  };
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, EncodeAs as) const = 0;
  virtual absl::StatusOr<std::string> Decode(std::span<const int32_t> ids,
                                             bool skip_special_tokens) const = 0;
  virtual std::unique_ptr<Decoder> NewDecoder(bool skip_special_tokens) const = 0;
  virtual std::optional<int32_t> IdOf(std::string_view token) const = 0;
  // Flagged special in the tokenizer's file: hidden by skip_special_tokens.
  virtual bool IsSpecial(int32_t id) const = 0;
  virtual size_t longest_token_bytes() const = 0;

  // Texts that the tokenizer would turn into control tokens wherever they stand.
  virtual const std::vector<std::string>& added_tokens() const = 0;

  // `context_json`: messages, tools, add_generation_prompt and what else the template reads.
  virtual absl::StatusOr<std::string> Render(const std::string& context_json) const = 0;
  // The same, ending where the last message's content ends.
  virtual absl::StatusOr<std::string> RenderContinued(const std::string& context_json) const = 0;
  // The model knows `<think>`: else its answers are never searched for reasoning.
  virtual bool thinks() const = 0;
  // The template itself goes through a message's list of parts; else they are joined before.
  virtual bool template_reads_parts() const = 0;
};

// A model as the gateway sees it. No maths.
struct ModelText {
  std::shared_ptr<const GatewayText> text;
  std::string name;  // as served
  std::string root;  // where it came from, shown by /v1/models
  int64_t created = 0;
  int64_t max_model_len = 0;  // context: prompt and answer
  int64_t vocab_size = 0;     // ids of prompts are below it
  std::vector<int32_t> eos_ids;

  // generation_config.json: what a request leaves open. do_sample: false is temperature 0.
  struct Defaults {
    double temperature = 1;
    double top_p = 1;
    double min_p = 0;
    int32_t top_k = 0;  // 0: off
    double repetition_penalty = 1;
  } defaults;
};

}  // namespace bottega
