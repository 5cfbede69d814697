#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bottega/internal/v1/membership.pb.h"

namespace bottega {

// `bottega trace REQUEST_ID`: the way of one request through the cluster, from the flight recorders
// of its processes. Recorders are rings: an old request is forgotten, and a worker that died took
// what it knew along.
int RunTrace(int argc, const char* const* argv);

// One event of a recorder, as its JSON has it.
struct TraceEvent {
  std::string process;
  int64_t unix_us = 0;
  std::string event;
  uint32_t peer = 0;
  uint32_t layer = 0;
  uint64_t key = 0;
  std::map<std::string, uint64_t> fields;
  uint64_t Get(const std::string& name) const;
};

// The events of a reply of /flight; InvalidArgument if it is none.
absl::StatusOr<std::vector<TraceEvent>> ParseFlight(const std::string& json);
// What a person reads. `names`: of members by id. No events: empty.
std::string TraceText(std::vector<TraceEvent> events, const std::map<uint32_t, std::string>& names);

}  // namespace bottega
