#include "core/model/checked_json.h"

#include <string>
#include <unordered_set>
#include <vector>

#include "core/base/limits.h"
#include "core/model/refusal.h"

namespace bottega {
namespace {

using nlohmann::json;

// Walks the text without building it; the first broken rule ends the walk.
class RuleCheck : public nlohmann::json_sax<json> {
 public:
  const std::string& complaint() const { return complaint_; }

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override { return Value(); }
  bool string(string_t&) override { return Value(); }
  bool binary(binary_t&) override { return Value(); }
  bool start_object(size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool start_array(size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    return Complain("key \"" + name + "\" occurs twice");
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return Complain("not valid JSON at byte " + std::to_string(position));
  }

 private:
  bool Complain(std::string what) {
    complaint_ = std::move(what);
    return false;
  }
  bool Value() {
    if (++values_ <= limits::kJsonValuesMax) return true;
    return Complain("more than " + std::to_string(limits::kJsonValuesMax) + " values");
  }
  bool Enter() {
    keys_.emplace_back();
    if (keys_.size() <= limits::kJsonDepthMax) return Value();
    return Complain("nested deeper than " + std::to_string(limits::kJsonDepthMax));
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::unordered_set<std::string>> keys_;  // one set per open object or array
  size_t values_ = 0;
  std::string complaint_;
};

}  // namespace

absl::StatusOr<json> ParseCheckedJson(std::string_view text, std::string_view file,
                                      size_t bytes_max) {
  if (text.size() > bytes_max) {
    return RefuseModel(file, ": ", text.size(), " bytes; the limit is ", bytes_max);
  }
  RuleCheck check;
  if (!json::sax_parse(text, &check)) return RefuseModel(file, ": ", check.complaint());
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return RefuseModel(file, ": not a JSON object");
  return value;
}

}  // namespace bottega
