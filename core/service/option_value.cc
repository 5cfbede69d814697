#include "core/service/option_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace bottega {
namespace {

struct Unit {
  std::string_view suffix;
  uint64_t scale;
};
constexpr Unit kByteUnits[] = {{"TiB", 1ull << 40},
                               {"GiB", 1ull << 30},
                               {"MiB", 1ull << 20},
                               {"KiB", 1ull << 10},
                               {"TB", 1'000'000'000'000},
                               {"GB", 1'000'000'000},
                               {"MB", 1'000'000},
                               {"kB", 1000},
                               {"KB", 1000},
                               {"B", 1},
                               {"", 1}};
constexpr Unit kTimeUnits[] = {{"ns", 1},
                               {"us", 1000},
                               {"ms", 1'000'000},
                               {"s", 1'000'000'000},
                               {"m", 60'000'000'000},
                               {"h", 3'600'000'000'000}};
absl::Status Invalid(std::string message) { return absl::InvalidArgumentError(message); }

template <class T>
bool ParseWhole(std::string_view text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

// A decimal number and what follows it.
bool SplitNumber(std::string_view text, double* number, std::string_view* rest) {
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), *number, std::chars_format::fixed);
  if (error != std::errc() || end == text.data() || !(*number >= 0)) return false;
  *rest = text.substr(end - text.data());
  while (rest->starts_with(' ')) rest->remove_prefix(1);
  return true;
}

// "300ms" by `units`; past 63 bits is an error.
bool ParseWithUnit(std::string_view text, const Unit* begin, const Unit* end, uint64_t* value) {
  double number = 0;
  std::string_view suffix;
  if (!SplitNumber(text, &number, &suffix)) return false;
  for (const Unit* unit = begin; unit != end; ++unit) {
    if (unit->suffix != suffix) continue;
    const double scaled = number * static_cast<double>(unit->scale);
    if (!(scaled < 9.2e18)) return false;
    *value = static_cast<uint64_t>(std::llround(scaled));
    return true;
  }
  return false;
}

std::string FormatDuration(Duration d) {
  const Unit* best = &kTimeUnits[0];
  for (const Unit& unit : kTimeUnits) {
    if (d.count() % static_cast<int64_t>(unit.scale) == 0) best = &unit;
  }
  return fmt::format("{}{}", d.count() / static_cast<int64_t>(best->scale), best->suffix);
}

std::string FormatBytes(ByteCount bytes) {
  for (const Unit& unit : kByteUnits) {
    if (unit.scale >= 1024 && (unit.scale & (unit.scale - 1)) == 0 && bytes.value > 0 &&
        bytes.value % unit.scale == 0) {
      return fmt::format("{}{}", bytes.value / unit.scale, unit.suffix);
    }
  }
  return std::to_string(bytes.value);
}

std::string QuoteYaml(const std::string& text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '.' || c == '/' || c == '-';
  }) && text[0] != '-';
  if (plain) return text;
  std::string quoted = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += static_cast<char>(c);
    } else if (c < 0x20) {
      quoted += fmt::format("\\x{:02x}", c);
    } else {
      quoted += static_cast<char>(c);
    }
  }
  return quoted + "\"";
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

absl::StatusOr<ByteCount> ParseByteCount(std::string_view text) {
  ByteCount bytes;
  if (!ParseWithUnit(text, std::begin(kByteUnits), std::end(kByteUnits), &bytes.value)) {
    return Invalid(fmt::format("\"{}\" is no size (as 24GiB, 512MB)", text));
  }
  return bytes;
}

absl::StatusOr<Duration> ParseDuration(std::string_view text) {
  uint64_t ns = 0;
  if (!ParseWithUnit(text, std::begin(kTimeUnits), std::end(kTimeUnits), &ns)) {
    return Invalid(fmt::format("\"{}\" is no time (as 300ms, 10s, 2m)", text));
  }
  return Duration(ns);
}

absl::StatusOr<int64_t> ParseCount(std::string_view text) {
  int64_t scale = 1;
  std::string_view digits = text;
  if (digits.ends_with('K') || digits.ends_with('k')) scale = 1024;
  if (digits.ends_with('M')) scale = 1024 * 1024;
  if (scale > 1) digits.remove_suffix(1);
  int64_t value = 0;
  if (!ParseWhole(digits, &value) || value > std::numeric_limits<int64_t>::max() / scale ||
      value < std::numeric_limits<int64_t>::min() / scale) {
    return Invalid(fmt::format("\"{}\" is no whole number (as 32768 or 32K)", text));
  }
  return value * scale;
}

std::string FormatTarget(const OptionTarget& target) {
  return std::visit(Overloaded{[](bool* v) -> std::string { return *v ? "true" : "false"; },
                               [](int64_t* v) { return std::to_string(*v); },
                               [](double* v) { return fmt::format("{}", *v); },
                               [](std::string* v) { return QuoteYaml(*v); },
                               [](std::vector<std::string>* v) {
                                 std::string list;
                                 for (const std::string& item : *v) {
                                   list += (list.empty() ? "" : ", ") + QuoteYaml(item);
                                 }
                                 return "[" + list + "]";
                               },
                               [](Duration* v) { return FormatDuration(*v); },
                               [](ByteCount* v) { return FormatBytes(*v); }},
                    target);
}

std::string_view TargetPlaceholder(const OptionTarget& target) {
  return std::visit(
      Overloaded{[](bool*) { return ""; }, [](int64_t*) { return " N"; },
                 [](double*) { return " X"; }, [](std::string*) { return " TEXT"; },
                 [](std::vector<std::string>*) { return " TEXT ..."; },
                 [](Duration*) { return " TIME"; }, [](ByteCount*) { return " BYTES"; }},
      target);
}

std::string SetTarget(const OptionTarget& target, const std::string& text) {
  return std::visit(
      Overloaded{[&](bool* v) -> std::string {
                   if (text == "true" || text == "1" || text == "yes" || text == "on") {
                     *v = true;
                   } else if (text == "false" || text == "0" || text == "no" || text == "off") {
                     *v = false;
                   } else {
                     return "is neither true nor false";
                   }
                   return "";
                 },
                 [&](int64_t* v) -> std::string {
                   absl::StatusOr<int64_t> count = ParseCount(text);
                   if (!count.ok()) return "is no whole number (as 32768 or 32K)";
                   *v = *count;
                   return "";
                 },
                 [&](double* v) -> std::string {
                   double number = 0;
                   if (!ParseWhole(std::string_view(text), &number) || !std::isfinite(number)) {
                     return "is no number";
                   }
                   *v = number;
                   return "";
                 },
                 [&](std::string* v) -> std::string {
                   *v = text;
                   return "";
                 },
                 [&](std::vector<std::string>* v) -> std::string {
                   v->push_back(text);
                   return "";
                 },
                 [&](Duration* v) -> std::string {
                   absl::StatusOr<Duration> duration = ParseDuration(text);
                   if (!duration.ok()) return "is no time (as 300ms, 10s, 2m)";
                   *v = *duration;
                   return "";
                 },
                 [&](ByteCount* v) -> std::string {
                   absl::StatusOr<ByteCount> bytes = ParseByteCount(text);
                   if (!bytes.ok()) return "is no size (as 24GiB, 512MB)";
                   *v = *bytes;
                   return "";
                 }},
      target);
}

}  // namespace bottega
