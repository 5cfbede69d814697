#include "cli/chat_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/service/options.h"

namespace bottega {
namespace {

absl::Status Wrong(std::string_view name, std::string_view value, std::string_view why) {
  return MakeError(Reason::kInvalidValue, fmt::format("{}: \"{}\" {}", name, value, why));
}

// Each gets the value as written; empty: to be unset.
struct Setting {
  std::string_view name;
  absl::Status (*set)(ChatSettings&, std::string_view name, std::string_view value);
  std::string (*show)(const ChatSettings&);
};

template <std::string ChatSettings::*field>
absl::Status SetText(ChatSettings& settings, std::string_view, std::string_view value) {
  settings.*field = value;
  return absl::OkStatus();
}

absl::Status SetTemperature(ChatSettings& settings, std::string_view name, std::string_view value) {
  if (value.empty()) {
    settings.temperature.reset();
    return absl::OkStatus();
  }
  double number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || !(number >= 0 && number <= 2)) {
    return Wrong(name, value, "is no number in 0 .. 2");
  }
  settings.temperature = number;
  return absl::OkStatus();
}

template <std::optional<int64_t> ChatSettings::*field>
absl::Status SetCount(ChatSettings& settings, std::string_view name, std::string_view value) {
  if (value.empty()) {
    (settings.*field).reset();
    return absl::OkStatus();
  }
  const absl::StatusOr<int64_t> count = ParseCount(value);
  if (!count.ok()) return Wrong(name, value, "is no whole number");
  if (field == &ChatSettings::max_tokens && *count < 1) return Wrong(name, value, "is less than 1");
  settings.*field = *count;
  return absl::OkStatus();
}

absl::Status SetThink(ChatSettings& settings, std::string_view name, std::string_view value) {
  if (!value.empty() && value != "on" && value != "off" && value != "turbo") {
    return Wrong(name, value, "is none of on, off, turbo");
  }
  settings.think = value;
  return absl::OkStatus();
}

absl::Status SetLang(ChatSettings& settings, std::string_view name, std::string_view value) {
  if (!value.empty() && value != "en" && value != "ita") {
    return Wrong(name, value, "is none of en, ita");
  }
  settings.lang = value;
  return absl::OkStatus();
}

template <bool ChatSettings::*field>
absl::Status SetSwitch(ChatSettings& settings, std::string_view name, std::string_view value) {
  if (!value.empty() && value != "on" && value != "off") {
    return Wrong(name, value, "is none of on, off");
  }
  settings.*field = value == "on";
  return absl::OkStatus();
}

template <typename T>
std::string OrEmpty(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "";
}

using C = ChatSettings;
constexpr Setting kSettings[] = {
    {"model", SetText<&C::model>, [](const C& c) { return c.model; }},
    {"think", SetThink, [](const C& c) { return c.think; }},
    {"lang", SetLang, [](const C& c) { return c.lang; }},
    {"temperature", SetTemperature, [](const C& c) { return OrEmpty(c.temperature); }},
    {"max-tokens", SetCount<&C::max_tokens>, [](const C& c) { return OrEmpty(c.max_tokens); }},
    {"seed", SetCount<&C::seed>, [](const C& c) { return OrEmpty(c.seed); }},
    {"system", SetText<&C::system>, [](const C& c) { return c.system; }},
    {"stats", SetSwitch<&C::stats>, [](const C& c) { return std::string(c.stats ? "on" : "off"); }},
    {"hide-reasoning", SetSwitch<&C::hide_reasoning>,
     [](const C& c) { return std::string(c.hide_reasoning ? "on" : "off"); }},
};

}  // namespace

absl::Status SetChatSetting(ChatSettings& settings, std::string_view name, std::string_view value) {
  std::string kebab(name);
  std::replace(kebab.begin(), kebab.end(), '_', '-');
  std::string names;
  for (const Setting& setting : kSettings) {
    if (setting.name == kebab) {
      return setting.set(settings, kebab, value == "default" ? "" : value);
    }
    names += fmt::format("{}{}", names.empty() ? "" : ", ", setting.name);
  }
  return MakeError(Reason::kInvalidValue,
                   fmt::format("no setting \"{}\"; there are {}", name, names));
}

std::string DescribeChatSettings(const ChatSettings& settings) {
  std::string text;
  for (const Setting& setting : kSettings) {
    const std::string value = setting.show(settings);
    text += fmt::format("{:<15} {}\n", setting.name, value.empty() ? "default" : value);
  }
  return text;
}

}  // namespace bottega
