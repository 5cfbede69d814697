#include "gateway/json.h"

#include <fmt/format.h>

#include <unordered_set>
#include <vector>

#include "core/base/limits.h"
#include "core/base/reason.h"

namespace bottega::gateway {
namespace {

// Builds the document event by event, so that every limit is checked before memory is taken.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(Json& root) : root_(root) {}

  bool null() override { return Put(nullptr); }
  bool boolean(bool value) override { return Put(value); }
  bool number_integer(number_integer_t value) override { return Put(value); }
  bool number_unsigned(number_unsigned_t value) override { return Put(value); }
  bool number_float(number_float_t value, const string_t&) override { return Put(value); }
  bool string(string_t& value) override { return CheckText(value) && Put(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return Open(Json::object()); }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (!CheckText(name)) return false;
    if (!open_.back().keys.insert(name).second) {
      // The name is the client's own; it goes back to the client only, as `param`.
      return Refuse("a key occurs twice in one object", name);
    }
    open_.back().key = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Refuse(fmt::format("the body is not valid JSON (at byte {})", position));
  }

  const absl::Status& status() const { return status_; }

 private:
  struct Container {
    Json* value;
    std::string key;                         // of the member to come
    std::unordered_set<std::string> keys{};  // seen
  };

  bool Refuse(std::string_view message, std::string_view param = "") {
    if (status_.ok()) status_ = MakeError(Reason::kInvalidValue, message, param.substr(0, 128));
    return false;
  }

  bool CheckText(const std::string& text) {
    if (text.find('\0') == std::string::npos) return true;
    return Refuse("U+0000 is not accepted in strings");
  }

  template <class T>
  bool Put(T&& value) {
    return Add(Json(std::forward<T>(value))) != nullptr;
  }

  // Straight into the containers: ordered_json's own insertion looks through all keys each time.
  Json* Add(Json value) {
    if (++values_ > limits::kJsonValuesMax) {
      Refuse(fmt::format("the body holds more than {} JSON values", limits::kJsonValuesMax));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Container& into = open_.back();
    if (into.value->is_array()) {
      auto& items = into.value->get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    Json::object_t::Container& members = into.value->get_ref<Json::object_t&>();
    members.emplace_back(std::move(into.key), std::move(value));
    return &members.back().second;
  }

  bool Open(Json empty) {
    if (open_.size() >= limits::kJsonDepthMax) {
      return Refuse(fmt::format("the body is nested deeper than {}", limits::kJsonDepthMax));
    }
    Json* added = Add(std::move(empty));
    if (added == nullptr) return false;
    open_.push_back(Container{added, "", {}});
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  std::vector<Container> open_;
  size_t values_ = 0;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<Json> ParseRequestJson(std::string_view text) {
  Json root;
  Builder builder(root);
  if (!Json::sax_parse(text, &builder)) {
    if (!builder.status().ok()) return builder.status();
    return MakeError(Reason::kInvalidValue, "the body is not valid JSON");
  }
  return root;
}

std::string DumpJson(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string_view KindOf(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::boolean:
      return "a boolean";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::object:
      return "an object";
    default:
      return "a number";
  }
}

}  // namespace bottega::gateway
