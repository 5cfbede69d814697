#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bottega::gateway {

// Finds stop strings in text that arrives in pieces. Text that may begin a stop string is held
// back. The stop string that is complete first wins, the longer one of two that end together; so
// the result does not depend on how the text was cut.
class StopStrings {
 public:
  // `stops` are not empty, each of at most limits::kStopStringBytesMax bytes. `include`: the found
  // stop string is part of the text.
  StopStrings(std::vector<std::string> stops, bool include)
      : stops_(std::move(stops)), include_(include) {}

  struct Found {
    std::string text;            // safe to show
    std::optional<size_t> stop;  // index of the stop string that ends the text here
  };
  Found Push(std::string_view text);
  // Shows `text` without looking for stops in it (min_tokens is not reached).
  std::string Pass(std::string_view text);
  // The end of the text: what was held back.
  std::string Finish();

  const std::string& text_of(size_t stop) const { return stops_[stop]; }

 private:
  std::vector<std::string> stops_;
  bool include_;
  std::string held_;
};

// Length of the longest end of `text` that is a start of `word`, but not all of it.
size_t OverlapWithStart(std::string_view text, std::string_view word);

}  // namespace bottega::gateway
