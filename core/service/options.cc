#include "core/service/options.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/base/status.h"

namespace bottega {
namespace {

constexpr std::string_view kRoleSections[] = {"gateway", "router", "attention", "expert"};

absl::Status Invalid(std::string message) { return absl::InvalidArgumentError(message); }

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
    }
  }
  return row.back();
}

std::vector<std::string> SplitCommas(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string EnvironmentName(std::string_view name) {
  std::string result = "BOTTEGA_";
  for (char c : name) result += c == '-' ? '_' : static_cast<char>(std::toupper(c));
  return result;
}

}  // namespace

OptionTable::OptionTable(std::string program, std::string summary, std::string version)
    : program_(std::move(program)), summary_(std::move(summary)), version_(std::move(version)) {
  Add("config", &config_path_, "YAML file with the options below");
}

OptionTable& OptionTable::Add(std::string name, Target target, std::string help) {
  CHECK(Find(name) == nullptr);
  Option option;
  option.name = std::move(name);
  option.target = target;
  option.help = std::move(help);
  option.default_text = FormatTarget(target);
  options_.push_back(std::move(option));
  return *this;
}

OptionTable& OptionTable::OneOf(std::vector<std::string> choices) {
  options_.back().choices = std::move(choices);
  return *this;
}

OptionTable& OptionTable::Range(double least, double most) {
  options_.back().ranged = true;
  options_.back().least = least;
  options_.back().most = most;
  return *this;
}

OptionTable& OptionTable::Positional(std::string usage, size_t least, size_t most) {
  positional_usage_ = std::move(usage);
  positional_least_ = least;
  positional_most_ = most;
  return *this;
}

OptionTable::Option* OptionTable::Find(std::string_view name) {
  for (Option& option : options_) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

std::string OptionTable::Unknown(std::string_view what, std::string_view name) const {
  const Option* nearest = nullptr;
  size_t least = std::max<size_t>(3, name.size() / 2);  // farther is no help
  for (const Option& option : options_) {
    const size_t distance = EditDistance(name, option.name);
    if (distance < least) {
      least = distance;
      nearest = &option;
    }
  }
  std::string message = fmt::format("unknown {} \"{}\"", what, name);
  if (nearest != nullptr) message += fmt::format("; did you mean \"{}\"?", nearest->name);
  return message;
}

absl::Status OptionTable::Set(Option& option, const std::vector<std::string>& values, From from,
                              std::string_view where) {
  auto* list = std::get_if<std::vector<std::string>*>(&option.target);
  if (list != nullptr) {
    (*list)->clear();
  } else if (values.size() != 1) {
    return Invalid(fmt::format("{}: takes one value", where));
  }
  for (const std::string& value : values) {
    if (std::string wrong = SetTarget(option.target, value); !wrong.empty()) {
      return Invalid(fmt::format("{}: \"{}\" {}", where, value, wrong));
    }
    if (!option.choices.empty() &&
        std::find(option.choices.begin(), option.choices.end(), value) == option.choices.end()) {
      std::vector<std::string> names = option.choices;
      std::erase(names, "");  // what an absent option stands for
      return Invalid(fmt::format("{}: \"{}\" is none of {}", where, value, fmt::join(names, ", ")));
    }
  }
  if (option.ranged) {
    const auto* whole = std::get_if<int64_t*>(&option.target);
    const auto* real = std::get_if<double*>(&option.target);
    CHECK(whole != nullptr || real != nullptr);
    const double value = whole != nullptr ? static_cast<double>(**whole) : **real;
    if (!(value >= option.least && value <= option.most)) {
      return Invalid(
          fmt::format("{}: {} is not in {} .. {}", where, values[0], option.least, option.most));
    }
  }
  option.from = from;
  return absl::OkStatus();
}

absl::Status OptionTable::ReadFlags(const std::vector<std::string>& arguments,
                                    std::vector<Given>* given, Outcome* outcome) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      outcome->positional.insert(outcome->positional.end(), arguments.begin() + i + 1,
                                 arguments.end());
      break;
    }
    if (argument == "-h" || argument == "--help") {
      outcome->print_and_exit = Help();
      return absl::OkStatus();
    }
    if (argument == "--version" && !version_.empty()) {
      outcome->print_and_exit = version_ + "\n";
      return absl::OkStatus();
    }
    if (argument == "--print-config") {
      given->push_back({"print-config", "true"});
      continue;
    }
    if (!argument.starts_with("-") || argument == "-") {
      outcome->positional.push_back(argument);
      continue;
    }
    if (!argument.starts_with("--")) return Invalid(Unknown("option", argument));
    const size_t equals = argument.find('=');
    std::string name = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    std::replace(name.begin(), name.end(), '_', '-');
    Option* option = Find(name);
    if (option == nullptr && name.starts_with("no-")) {
      Option* positive = Find(std::string_view(name).substr(3));
      if (positive != nullptr && std::holds_alternative<bool*>(positive->target) &&
          equals == std::string::npos) {
        given->push_back({positive->name, "false"});
        continue;
      }
    }
    if (option == nullptr) return Invalid(Unknown("option", name));
    if (equals != std::string::npos) {
      given->push_back({name, argument.substr(equals + 1)});
    } else if (std::holds_alternative<bool*>(option->target)) {
      given->push_back({name, "true"});
    } else if (i + 1 < arguments.size()) {
      given->push_back({name, arguments[++i]});
    } else {
      return Invalid(fmt::format("--{}: needs a value", name));
    }
  }
  return absl::OkStatus();
}

absl::Status OptionTable::ReadYaml(const std::string& path) {
  struct stat file {};
  if (stat(path.c_str(), &file) != 0 || !S_ISREG(file.st_mode)) {
    return Invalid(fmt::format("--config: cannot read {}", path));
  }
  if (static_cast<size_t>(file.st_size) > limits::kConfigBytesMax) {
    return Invalid(fmt::format("--config: {} is larger than kConfigBytesMax", path));
  }
  // Keys at the top first, then this program's own section, which beats them.
  const auto apply = [&](const YAML::Node& map, bool section) -> absl::Status {
    for (const auto& entry : map) {
      const std::string key = entry.first.as<std::string>();
      const YAML::Node& value = entry.second;
      const bool is_section = !section && value.IsMap() &&
                              std::find(std::begin(kRoleSections), std::end(kRoleSections), key) !=
                                  std::end(kRoleSections);
      if (is_section) continue;
      Option* option = Find(key);
      if (option == nullptr || key == "config") {
        return Invalid(
            fmt::format("{} line {}: {}", path, entry.first.Mark().line + 1, Unknown("key", key)));
      }
      std::vector<std::string> values;
      if (value.IsSequence()) {
        for (const auto& item : value) values.push_back(item.as<std::string>());
      } else if (value.IsScalar()) {
        values.push_back(value.as<std::string>());
      } else if (value.IsNull()) {
        values.push_back("");
      } else {
        return Invalid(fmt::format("{}: {} is no value", path, key));
      }
      RETURN_IF_ERROR(Set(*option, values, From::kYaml, fmt::format("{} in {}", key, path)));
    }
    return absl::OkStatus();
  };
  try {
    const YAML::Node root = YAML::LoadFile(path);
    if (root.IsNull()) return absl::OkStatus();
    if (!root.IsMap()) return Invalid(fmt::format("--config: {} is no map", path));
    RETURN_IF_ERROR(apply(root, false));
    for (std::string_view role : kRoleSections) {
      if (program_ != "bottega-" + std::string(role)) continue;
      const YAML::Node section = root[std::string(role)];
      if (section && section.IsMap()) RETURN_IF_ERROR(apply(section, true));
    }
  } catch (const YAML::Exception& error) {
    return Invalid(fmt::format("--config: {}: {}", path, error.what()));
  }
  return absl::OkStatus();
}

absl::Status OptionTable::ReadEnvironment(const std::vector<std::string>& environment) {
  for (Option& option : options_) {
    const std::string name = EnvironmentName(option.name);
    for (const std::string& entry : environment) {
      if (!entry.starts_with(name) || entry.size() <= name.size() || entry[name.size()] != '=') {
        continue;
      }
      const std::string value = entry.substr(name.size() + 1);
      const bool list = std::holds_alternative<std::vector<std::string>*>(option.target);
      RETURN_IF_ERROR(Set(option, list ? SplitCommas(value) : std::vector<std::string>{value},
                          From::kEnvironment, name));
    }
  }
  return absl::OkStatus();
}

absl::Status OptionTable::ApplyFlags(const std::vector<Given>& given) {
  for (Option& option : options_) {
    std::vector<std::string> values;
    for (const Given& flag : given) {
      if (flag.name == option.name) values.push_back(flag.value);
    }
    if (values.empty()) continue;
    // Of a repeated flag the last counts, as in every shell.
    if (!std::holds_alternative<std::vector<std::string>*>(option.target)) {
      values.erase(values.begin(), values.end() - 1);
    }
    RETURN_IF_ERROR(Set(option, values, From::kFlag, "--" + option.name));
  }
  return absl::OkStatus();
}

absl::Status OptionTable::CheckPositional(const Outcome& outcome) const {
  const size_t count = outcome.positional.size();
  if (count > positional_most_) {
    return Invalid(fmt::format("unexpected argument \"{}\"", outcome.positional[positional_most_]));
  }
  if (count < positional_least_) {
    return Invalid(fmt::format("missing argument: {} {}", program_, positional_usage_));
  }
  return absl::OkStatus();
}

absl::StatusOr<OptionTable::Outcome> OptionTable::Parse(int argc, const char* const* argv) {
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  return Parse(arguments, environment);
}

absl::StatusOr<OptionTable::Outcome> OptionTable::Parse(
    const std::vector<std::string>& arguments, const std::vector<std::string>& environment) {
  Outcome outcome;
  std::vector<Given> given;
  RETURN_IF_ERROR(ReadFlags(arguments, &given, &outcome));
  if (!outcome.print_and_exit.empty()) return outcome;

  // --config itself may come from the environment or a flag, so it is settled first.
  const std::string config_variable = EnvironmentName("config") + "=";
  for (const std::string& entry : environment) {
    if (entry.starts_with(config_variable)) config_path_ = entry.substr(config_variable.size());
  }
  bool print_config = false;
  for (const Given& flag : given) {
    if (flag.name == "config") config_path_ = flag.value;
    if (flag.name == "print-config") print_config = true;
  }
  if (!config_path_.empty()) RETURN_IF_ERROR(ReadYaml(config_path_));
  RETURN_IF_ERROR(ReadEnvironment(environment));
  RETURN_IF_ERROR(ApplyFlags(given));
  if (print_config) {
    outcome.print_and_exit = PrintConfig();
    return outcome;
  }
  RETURN_IF_ERROR(CheckPositional(outcome));
  return outcome;
}

std::string OptionTable::Help() const {
  std::string text = fmt::format("{}: {}\n\nusage: {} [options]{}{}\n\n", program_, summary_,
                                 program_, positional_usage_.empty() ? "" : " ", positional_usage_);
  size_t width = 0;
  for (const Option& option : options_) {
    width = std::max(width, option.name.size() + TargetPlaceholder(option.target).size());
  }
  const auto line = [&](std::string_view name, std::string_view value, std::string_view help) {
    text += fmt::format("  --{:<{}}  {}\n", fmt::format("{}{}", name, value), width, help);
  };
  for (const Option& option : options_) {
    std::string help = option.help;
    std::vector<std::string> choices = option.choices;
    std::erase(choices, "");  // means "not set"
    const std::string list = fmt::format("{}", fmt::join(choices, ", "));
    if (!list.empty() && help.find(list) == std::string::npos) help += ": " + list;
    const bool silent =
        option.default_text == "\"\"" || option.default_text == "[]" ||
        (std::holds_alternative<bool*>(option.target) && option.default_text == "false");
    if (!silent) help += fmt::format(" (default {})", option.default_text);
    line(option.name, TargetPlaceholder(option.target), help);
  }
  line("print-config", "", "print all options as YAML, and where each value came from");
  if (!version_.empty()) line("version", "", "print the version");
  line("help", "", "print this");
  text +=
      "\nEach option is also an environment variable (--max-model-len is BOTTEGA_MAX_MODEL_LEN) "
      "and "
      "a key of the\nYAML file. A flag beats the environment, which beats the file.\n";
  return text;
}

std::string OptionTable::PrintConfig() const {
  std::string text;
  for (const Option& option : options_) {
    if (option.name == "config") continue;
    text += fmt::format("{}: {}  # {}\n", option.name, FormatTarget(option.target),
                        Source(option.name));
  }
  return text;
}

std::string OptionTable::Source(std::string_view name) const {
  for (const Option& option : options_) {
    if (option.name != name) continue;
    switch (option.from) {
      case From::kDefault:
        return "default";
      case From::kYaml:
        return "yaml";
      case From::kEnvironment:
        return "environment";
      case From::kFlag:
        return "flag";
    }
  }
  return "";
}

}  // namespace bottega
