#include "core/model/json_fields.h"

#include <cmath>

#include "core/model/refusal.h"

namespace bottega {

using nlohmann::json;

std::string Shown(const json& value) {
  constexpr size_t kMax = 60;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  if (text.size() > kMax) text = text.substr(0, kMax) + "...";
  return text;
}

const json* JsonFields::Find(std::string_view name) const {
  auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void JsonFields::Refuse(std::string_view name, std::string_view what) {
  if (status_.ok()) status_ = RefuseModel(file_, ": ", name, " ", what);
}

bool JsonFields::InRange(std::string_view name, const json& value, int64_t lo, int64_t hi) {
  // 24.0 is not an integer here: nobody writes a count so, and 2^63 must not wrap.
  bool fits = value.is_number_integer() &&
              (!value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{INT64_MAX});
  if (fits) {
    int64_t n = value.get<int64_t>();
    if (n >= lo && n <= hi) return true;
  }
  Refuse(name, "is " + Shown(value) + "; expected an integer from " + std::to_string(lo) + " to " +
                   std::to_string(hi));
  return false;
}

int64_t JsonFields::Int(std::string_view name, int64_t lo, int64_t hi,
                        std::optional<int64_t> otherwise) {
  const json* value = Find(name);
  if (!value) {
    if (!otherwise) Refuse(name, "is missing");
    return otherwise.value_or(lo);
  }
  return InRange(name, *value, lo, hi) ? value->get<int64_t>() : lo;
}

double JsonFields::Number(std::string_view name, double lo, double hi,
                          std::optional<double> otherwise) {
  const json* value = Find(name);
  if (!value) {
    if (!otherwise) Refuse(name, "is missing");
    return otherwise.value_or(lo);
  }
  if (value->is_number()) {
    double number = value->get<double>();
    if (std::isfinite(number) && number >= lo && number <= hi) return number;
  }
  Refuse(name, "is " + Shown(*value) + "; expected a number from " + Shown(json(lo)) + " to " +
                   Shown(json(hi)));
  return lo;
}

bool JsonFields::Bool(std::string_view name, bool otherwise) {
  const json* value = Find(name);
  if (!value) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  Refuse(name, "is " + Shown(*value) + "; expected true or false");
  return otherwise;
}

std::string JsonFields::Text(std::string_view name, std::string_view otherwise) {
  const json* value = Find(name);
  if (!value) return std::string(otherwise);
  if (value->is_string()) return value->get<std::string>();
  Refuse(name, "is " + Shown(*value) + "; expected a string");
  return std::string(otherwise);
}

std::vector<int64_t> JsonFields::Ints(std::string_view name, int64_t lo, int64_t hi) {
  std::vector<int64_t> result;
  const json* value = Find(name);
  if (!value) return result;
  if (!value->is_array()) {
    if (InRange(name, *value, lo, hi)) result.push_back(value->get<int64_t>());
    return result;
  }
  for (const json& item : *value) {
    if (!InRange(name, item, lo, hi)) break;
    result.push_back(item.get<int64_t>());
  }
  return result;
}

}  // namespace bottega
