#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bottega {

// The strings of the model's special tokens, which templates read by these names; empty: not set.
struct TemplateTokens {
  std::string bos_token;
  std::string eos_token;
  std::string pad_token;
  std::string unk_token;
};

// A model's chat template: Jinja2 as transformers sets it up. Const methods may run on any number
// of threads at once.
class ChatTemplate {
 public:
  // Refuses (kModelRefused, with line and name) syntax errors and the few constructs that would not
  // render as they do with Jinja2.
  static absl::StatusOr<ChatTemplate> Compile(std::string_view source, TemplateTokens tokens = {});

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `context_json` is an object: "messages", and as wanted "tools", "documents",
  // "add_generation_prompt" and the template's own variables. Absent tools and documents are None,
  // as with transformers. Errors are kInvalidValue: the template's raise_exception with its
  // message, or a limit (core/base/limits.h) reached.
  absl::StatusOr<std::string> Render(std::string_view context_json) const;
  // The same at a given time, which strftime_now shows (seconds since 1970, local time zone).
  absl::StatusOr<std::string> RenderAt(std::string_view context_json, int64_t now_s) const;
  // The last message stays open, for the model to go on with: the text ends where its content ends
  // (transformers' continue_final_message). Content is a string, or parts of which the last one
  // with text counts.
  absl::StatusOr<std::string> RenderContinued(std::string_view context_json) const;

  // The names that the template reads and nothing in it sets, sorted.
  const std::vector<std::string>& variables() const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The template inside tokenizer_config.json, for models without a chat_template.jinja: a string, or
// a list of {name, template}, of which `name` is taken. kModelRefused if there is none.
absl::StatusOr<std::string> ChatTemplateOfTokenizerConfig(std::string_view tokenizer_config_json,
                                                          std::string_view name = "default");

// The special tokens that tokenizer_config.json names; each a string or {content, ...}.
absl::StatusOr<TemplateTokens> TokensOfTokenizerConfig(std::string_view tokenizer_config_json);

}  // namespace bottega
