#include "gateway/model_text.h"

#include <utility>

#include "core/base/reason.h"
#include "core/text/detokenizer.h"

namespace bottega {
namespace {

class StreamingDecoder : public GatewayText::Decoder {
 public:
  StreamingDecoder(const Tokenizer& tokenizer, bool skip_special)
      : decoder_(tokenizer, skip_special) {}
  std::string Push(int32_t id) override { return decoder_.Push(id); }
  std::string Flush() override { return decoder_.Flush(); }

 private:
  StreamDecoder decoder_;
};

class CoreText : public GatewayText {
 public:
  CoreText(std::shared_ptr<const Tokenizer> tokenizer,
           std::shared_ptr<const ChatTemplate> chat_template, const std::string& source)
      : tokenizer_(std::move(tokenizer)), template_(std::move(chat_template)) {
    for (const AddedToken& token : tokenizer_->added_tokens()) added_.push_back(token.content);
    // `{% for part in message.content %}`, `{% for part in content %}`, in their usual spellings.
    for (const char* loop : {" in content", " in message.content", " in message['content']",
                             " in message[\"content\"]"}) {
      reads_parts_ |= source.find(loop) != std::string::npos;
    }
    thinks_ = tokenizer_->IdOf("<think>").has_value() || source.find("think") != std::string::npos;
  }

  std::string Text(int32_t id) const override {
    return tokenizer_->Decode(absl::MakeConstSpan(&id, 1), false).value_or("");
  }
  std::string Bytes(int32_t id) const override { return tokenizer_->TokenBytes(id).value_or(""); }
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, EncodeAs as) const override {
    return tokenizer_->Encode(text, {.add_special_tokens = as.add_special_tokens,
                                     .parse_special_tokens = as.parse_special_tokens});
  }
  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids,
                                     bool skip_special) const override {
    return tokenizer_->Decode(absl::MakeConstSpan(ids.data(), ids.size()), skip_special);
  }
  std::unique_ptr<Decoder> NewDecoder(bool skip_special) const override {
    return std::make_unique<StreamingDecoder>(*tokenizer_, skip_special);
  }
  std::optional<int32_t> IdOf(std::string_view token) const override {
    return tokenizer_->IdOf(token);
  }
  bool IsSpecial(int32_t id) const override {
    for (const AddedToken& token : tokenizer_->added_tokens()) {
      if (token.id == id) return token.special;
    }
    return false;
  }
  size_t longest_token_bytes() const override { return tokenizer_->longest_token_bytes(); }
  const std::vector<std::string>& added_tokens() const override { return added_; }

  absl::StatusOr<std::string> Render(const std::string& context_json) const override {
    if (template_ == nullptr) return NoTemplate();
    return template_->Render(context_json);
  }
  absl::StatusOr<std::string> RenderContinued(const std::string& context_json) const override {
    if (template_ == nullptr) return NoTemplate();
    return template_->RenderContinued(context_json);
  }
  bool thinks() const override { return thinks_; }
  bool template_reads_parts() const override { return reads_parts_; }

 private:
  static absl::Status NoTemplate() {
    return MakeError(Reason::kNotSupported, "this model has no chat template; use /v1/completions");
  }

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const std::shared_ptr<const ChatTemplate> template_;
  std::vector<std::string> added_;
  bool reads_parts_ = false;
  bool thinks_ = false;
};

}  // namespace

std::shared_ptr<const GatewayText> MakeGatewayText(
    std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<const ChatTemplate> chat_template,
    const std::string& template_source) {
  return std::make_shared<CoreText>(std::move(tokenizer), std::move(chat_template),
                                    template_source);
}

}  // namespace bottega
