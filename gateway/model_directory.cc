#include "gateway/model_directory.h"

#include <filesystem>
#include <memory>
#include <utility>

#include "core/base/status.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"
#include "gateway/model_text.h"

namespace bottega {
namespace {

struct Template {
  std::string source;
  TemplateTokens tokens;
};

// chat_template.jinja beats the one inside tokenizer_config.json; a model may have neither.
absl::StatusOr<Template> ReadTemplate(const PackedModel& model) {
  Template found;
  absl::StatusOr<std::string> config = model.ReadCopiedFile("tokenizer_config.json");
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
  if (config.ok()) {
    ASSIGN_OR_RETURN(found.tokens, TokensOfTokenizerConfig(*config));
  }
  absl::StatusOr<std::string> file = model.ReadCopiedFile("chat_template.jinja");
  if (file.ok()) {
    found.source = *std::move(file);
  } else if (!absl::IsNotFound(file.status())) {
    return file.status();
  } else if (config.ok()) {
    absl::StatusOr<std::string> inside = ChatTemplateOfTokenizerConfig(*config);
    if (inside.ok()) found.source = *std::move(inside);
  }
  return found;
}

}  // namespace

absl::StatusOr<ModelText> LoadModelText(const PackedModel& model, std::string served_name,
                                        const std::string& root) {
  ASSIGN_OR_RETURN(const std::string tokenizer_json, model.ReadCopiedFile("tokenizer.json"));
  ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(tokenizer_json));
  ASSIGN_OR_RETURN(Template found, ReadTemplate(model));
  std::shared_ptr<const ChatTemplate> chat_template;
  if (!found.source.empty()) {
    ASSIGN_OR_RETURN(ChatTemplate compiled, ChatTemplate::Compile(found.source, found.tokens));
    chat_template = std::make_shared<const ChatTemplate>(std::move(compiled));
  }
  const ModelConfig& config = model.config();
  const SamplingDefaults& sampling = config.sampling;
  ModelText text;
  text.text = MakeGatewayText(std::make_shared<const Tokenizer>(std::move(tokenizer)),
                              std::move(chat_template), found.source);
  text.name = served_name.empty() ? std::filesystem::path(root).filename().string() : served_name;
  text.root = root;
  text.created = 0;
  text.max_model_len = config.max_positions;
  text.vocab_size = config.vocab_size;
  text.eos_ids = config.eos_ids;
  text.defaults = {
      .temperature = sampling.do_sample.value_or(true) ? sampling.temperature.value_or(1) : 0,
      .top_p = sampling.top_p.value_or(1),
      .min_p = sampling.min_p.value_or(0),
      .top_k = sampling.top_k.value_or(0),
      .repetition_penalty = sampling.repetition_penalty.value_or(1)};
  return text;
}

}  // namespace bottega
