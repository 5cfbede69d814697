#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/service/option_value.h"

namespace bottega {

// One table of options per service; it makes the flags, the environment names, the YAML keys,
// --help and --print-config. `max-model-len` is --max-model-len 32K, BOTTEGA_MAX_MODEL_LEN=32K and
// `max-model-len: 32K` in the file of --config. Flag beats environment beats YAML beats default.
// One file may configure a whole cluster: what stands under `gateway:`, `router:`, `attention:` or
// `expert:` is for that program only and beats the same key at the top.
//
//   struct Config { std::string host = "127.0.0.1"; int64_t port = 8000; };
//   Config config;
//   OptionTable table("bottega-gateway", "The door of a cluster.");
//   table.Add("host", &config.host, "address to listen on");
//   table.Add("port", &config.port, "port; 0 picks one");
//   absl::StatusOr<OptionTable::Outcome> outcome = table.Parse(argc, argv);
class OptionTable {
 public:
  using Target = OptionTarget;

  // `program` as users call it: "bottega-gateway", "bottega serve".
  OptionTable(std::string program, std::string summary, std::string version = "");

  // The target's value at this moment is the default. `name` in kebab-case.
  OptionTable& Add(std::string name, Target target, std::string help);
  // Only these values are accepted; for the option added last.
  OptionTable& OneOf(std::vector<std::string> choices);
  // Accepted range of a number; for the option added last.
  OptionTable& Range(double least, double most);
  // Words that are no options: `usage` as shown in --help ("DIR"), between `least` and `most`.
  OptionTable& Positional(std::string usage, size_t least, size_t most);

  struct Outcome {
    std::vector<std::string> positional;
    // Set by --help, --print-config, --version: print this to stdout and exit 0.
    std::string print_and_exit;
  };
  // Sets the targets. Errors (exit code 2) are InvalidArgument, name the option and where its value
  // came from; an unknown flag or YAML key names the nearest. BOTTEGA_ variables of other programs
  // are not errors: one environment serves all.
  absl::StatusOr<Outcome> Parse(int argc, const char* const* argv);
  // The same with an environment of the caller's, as NAME=value.
  absl::StatusOr<Outcome> Parse(const std::vector<std::string>& arguments,
                                const std::vector<std::string>& environment);

  std::string Help() const;
  // YAML that --config reads back to the same values; each line says where its value came from.
  std::string PrintConfig() const;
  // Where the value of `name` came from: "default", "yaml", "environment", "flag".
  std::string Source(std::string_view name) const;

 private:
  enum class From { kDefault, kYaml, kEnvironment, kFlag };
  struct Option {
    std::string name;
    Target target;
    std::string help;
    std::string default_text;
    std::vector<std::string> choices;
    double least = 0, most = 0;
    bool ranged = false;
    From from = From::kDefault;
  };
  struct Given {  // a flag as written
    std::string name;
    std::string value;
  };
  Option* Find(std::string_view name);
  std::string Unknown(std::string_view what, std::string_view name) const;
  // Sets the target to `values` (several: a vector); `where` is for the error.
  absl::Status Set(Option& option, const std::vector<std::string>& values, From from,
                   std::string_view where);
  absl::Status ReadFlags(const std::vector<std::string>& arguments, std::vector<Given>* given,
                         Outcome* outcome);
  absl::Status ReadYaml(const std::string& path);
  absl::Status ReadEnvironment(const std::vector<std::string>& environment);
  absl::Status ApplyFlags(const std::vector<Given>& given);
  absl::Status CheckPositional(const Outcome& outcome) const;

  std::string program_;
  std::string summary_;
  std::string version_;
  std::string config_path_;
  std::string positional_usage_;
  size_t positional_least_ = 0;
  size_t positional_most_ = 0;
  std::vector<Option> options_;
};

}  // namespace bottega
