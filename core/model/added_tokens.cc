#include "core/model/added_tokens.h"

#include "core/base/limits.h"
#include "core/model/refusal.h"
#include "nlohmann/json.hpp"

namespace bottega {
namespace {

using nlohmann::json;

// Follows the parser's depth: 1 in the root object, 2 in the list, 3 in one token.
class TokenWalk : public nlohmann::json_sax<json> {
 public:
  std::vector<AddedToken> tokens;
  bool finished = false;  // the list was read to its end, or the text has none

  bool key(string_t& name) override {
    if (depth_ == 1) in_list_ = name == "added_tokens";
    key_ = name;
    return true;
  }
  bool start_object(size_t) override {
    ++depth_;
    if (in_list_ && depth_ == 3) tokens.emplace_back();
    return Shallow();
  }
  bool end_object() override {
    finished = --depth_ == 0;
    return true;
  }
  bool start_array(size_t) override {
    ++depth_;
    return Shallow();
  }
  bool end_array() override {
    --depth_;
    finished = in_list_ && depth_ == 1;
    return !finished;
  }
  bool string(string_t& value) override {
    if (AtToken("content")) tokens.back().text = value;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (AtToken("id")) tokens.back().id = static_cast<int64_t>(value & INT64_MAX);
    return true;
  }
  bool boolean(bool value) override {
    if (AtToken("special")) tokens.back().special = value;
    return true;
  }
  bool null() override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool parse_error(size_t, const std::string&, const json::exception&) override { return false; }

 private:
  bool AtToken(std::string_view key) const {
    return in_list_ && depth_ == 3 && key_ == key && !tokens.empty();
  }
  bool Shallow() const {
    return depth_ <= limits::kJsonDepthMax && tokens.size() <= limits::kTensorsMax;
  }

  size_t depth_ = 0;
  bool in_list_ = false;
  std::string key_;
};

}  // namespace

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(std::string_view tokenizer_json) {
  if (tokenizer_json.size() > limits::kTokenizerBytesMax) {
    return RefuseModel("tokenizer.json: more than ", limits::kTokenizerBytesMax, " bytes");
  }
  TokenWalk walk;
  json::sax_parse(tokenizer_json, &walk);
  if (!walk.finished) return RefuseModel("tokenizer.json: not valid JSON, or nested too deep");
  return std::move(walk.tokens);
}

}  // namespace bottega
