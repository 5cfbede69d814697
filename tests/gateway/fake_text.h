#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gateway/json.h"
#include "gateway/text.h"

namespace bottega::gateway {

// A toy text for tests: ids 0 to 255 are bytes, then control tokens, then words. The template is
// ChatML with calls as Hermes writes them; `enable_thinking: false` closes the thinking in the
// prompt, `open_think: true` opens it.
class FakeText : public GatewayText {
 public:
  enum : int32_t {
    kStart = 256,  // <|im_start|>
    kEnd,          // <|im_end|>, the eos
    kThink,
    kEndThink,
    kTurbo,
    kToolCall,
    kEndToolCall,
    kHello,  // first of the words
    kVocab = 272,
  };

  // `tags_special`: the file flags the tags of reasoning and calls special, as some do.
  explicit FakeText(bool tags_special = false) : tags_special_(tags_special) {
    added_ = {"<|im_start|>", "<|im_end|>",  "<think>",     "</think>",
              "/turbo",       "<tool_call>", "</tool_call>"};
    words_ = {"Hello", " world", "answer", "\n", "\n\n", "</thi", "nk>", "STOP", "è vero"};
  }

  std::string Bytes(int32_t id) const override {
    if (id < 256) return std::string(1, static_cast<char>(id));
    if (id < kHello) return added_[id - kStart];
    return words_.at(id - kHello);
  }
  std::string Text(int32_t id) const override {
    return id >= 128 && id < 256 ? "\uFFFD" : Bytes(id);
  }
  int32_t Word(const std::string& text) const {
    auto found = std::ranges::find(words_, text);
    return kHello + static_cast<int32_t>(found - words_.begin());
  }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, EncodeAs as) const override {
    std::vector<int32_t> ids;
    while (!text.empty()) {
      size_t used = 1;
      int32_t id = static_cast<unsigned char>(text[0]);
      for (size_t i = 0; i < added_.size() && as.parse_special_tokens; ++i) {
        if (!text.starts_with(added_[i])) continue;
        used = added_[i].size();
        id = kStart + static_cast<int32_t>(i);
      }
      ids.push_back(id);
      text.remove_prefix(used);
    }
    return ids;
  }

  bool IsSpecial(int32_t id) const override {
    const bool tag = id == kThink || id == kEndThink || id == kToolCall || id == kEndToolCall;
    return id == kStart || id == kEnd || (tags_special_ && tag);
  }

  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids, bool skip) const override {
    auto decoder = NewDecoder(skip);
    std::string text;
    for (int32_t id : ids) text += decoder->Push(id);
    return text + decoder->Flush();
  }

  class FakeDecoder : public Decoder {
   public:
    FakeDecoder(const FakeText& text, bool skip) : text_(text), skip_(skip) {}
    std::string Push(int32_t id) override {
      if (skip_ && text_.IsSpecial(id)) return "";
      held_ += text_.Bytes(id);
      // Whole code points only.
      size_t whole = held_.size();
      for (size_t back = 1; back <= std::min<size_t>(3, held_.size()); ++back) {
        const auto byte = static_cast<unsigned char>(held_[held_.size() - back]);
        if (byte < 0x80) break;
        if (byte >= 0xC0) {
          const size_t needs = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
          if (needs > back) whole = held_.size() - back;
          break;
        }
      }
      std::string out = held_.substr(0, whole);
      held_.erase(0, whole);
      return out;
    }
    std::string Flush() override { return held_.empty() ? "" : (held_.clear(), "\uFFFD"); }

   private:
    const FakeText& text_;
    const bool skip_;
    std::string held_;
  };
  std::unique_ptr<Decoder> NewDecoder(bool skip) const override {
    return std::make_unique<FakeDecoder>(*this, skip);
  }

  std::optional<int32_t> IdOf(std::string_view token) const override {
    auto found = std::ranges::find(added_, token);
    if (found == added_.end()) return std::nullopt;
    return kStart + static_cast<int32_t>(found - added_.begin());
  }
  size_t longest_token_bytes() const override { return 12; }
  const std::vector<std::string>& added_tokens() const override { return added_; }

  absl::StatusOr<std::string> Render(const std::string& context_json) const override {
    const Json context = Json::parse(context_json);
    std::string text;
    if (context.contains("tools")) text += "tools:" + context["tools"].dump() + "\n";
    for (const Json& message : context["messages"]) text += Turn(message) + "<|im_end|>\n";
    if (context.value("add_generation_prompt", false)) {
      text += "<|im_start|>assistant\n";
      if (!context.value("enable_thinking", true)) text += "<think>\n\n</think>\n\n";
      if (context.value("open_think", false)) text += "<think>\n";
    }
    return text;
  }
  absl::StatusOr<std::string> RenderContinued(const std::string& context_json) const override {
    Json context = Json::parse(context_json);
    const Json last = context["messages"].back();
    context["messages"].erase(context["messages"].size() - 1);
    absl::StatusOr<std::string> before = Render(context.dump());
    if (!before.ok()) return before;
    return *before + Turn(last);
  }
  bool thinks() const override { return true; }
  bool template_reads_parts() const override { return false; }

 private:
  static std::string Turn(const Json& message) {
    std::string text = "<|im_start|>" + message["role"].get<std::string>() + "\n" +
                       message["content"].get<std::string>();
    for (const Json& call : message.value("tool_calls", Json::array())) {
      text += "<tool_call>" + call["function"].dump() + "</tool_call>";
    }
    return text;
  }

  const bool tags_special_;
  std::vector<std::string> added_;
  std::vector<std::string> words_;
};

inline ModelText FakeModel(int64_t context = 4096) {
  return ModelText{.text = std::make_shared<FakeText>(),
                   .name = "toy",
                   .root = "toy",
                   .created = 1,
                   .max_model_len = context,
                   .vocab_size = FakeText::kVocab,
                   .eos_ids = {FakeText::kEnd},
                   .defaults = {}};
}

}  // namespace bottega::gateway
