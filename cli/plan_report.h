#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "cli/capacity_plan.h"

namespace bottega {

// A plan and where its numbers come from, as `bottega plan` tells it.
struct PlanReport {
  std::string model;          // the directory, or the name of a shape
  bool servable = false;      // it is a directory, so a command can be offered
  std::string memory_source;  // "this machine", "the limit of this control group", "--memory"
  std::string rates_source;   // "measured now: avx512, 2 threads"
  PlanQuestion question;
  CapacityPlan plan;

  std::string Text() const;
  nlohmann::ordered_json Json() const;
};

}  // namespace bottega
