#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace bottega {

// Typed reads from one JSON object, for code that reads dozens of fields: the first bad field is
// remembered in status() and every later read still returns something harmless, so the caller
// checks once, before it computes with the values. null counts as absent everywhere.
class JsonFields {
 public:
  // `object` outlives this. `file` begins every message.
  JsonFields(const nlohmann::json& object, std::string_view file) : object_(object), file_(file) {}

  const absl::Status& status() const { return status_; }
  bool Has(std::string_view name) const { return Find(name) != nullptr; }
  const nlohmann::json* Find(std::string_view name) const;  // nullptr: absent or null

  // Without a default the field is required. Past lo..hi is refused.
  int64_t Int(std::string_view name, int64_t lo, int64_t hi,
              std::optional<int64_t> otherwise = std::nullopt);
  double Number(std::string_view name, double lo, double hi,
                std::optional<double> otherwise = std::nullopt);
  bool Bool(std::string_view name, bool otherwise);
  std::string Text(std::string_view name, std::string_view otherwise);
  // An array of integers, or one integer; absent: empty.
  std::vector<int64_t> Ints(std::string_view name, int64_t lo, int64_t hi);

  void Refuse(std::string_view name, std::string_view what);

 private:
  bool InRange(std::string_view name, const nlohmann::json& value, int64_t lo, int64_t hi);

  const nlohmann::json& object_;
  std::string file_;
  absl::Status status_;
};

// `value` as JSON, cut to a length fit for a message.
std::string Shown(const nlohmann::json& value);

}  // namespace bottega
