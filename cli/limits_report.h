#pragma once

#include <string>
#include <vector>

namespace bottega {

// One limit of a default cluster, as an operator reads it. Made from the constants and the
// defaults that the programs use; docs/operations.md shows the same rows (checked by a test).
struct LimitRow {
  std::string name;
  std::string value;
  std::string past_it;  // what happens
};
std::vector<LimitRow> LimitRows();

// `bottega status --limits`.
std::string LimitsText();

}  // namespace bottega
