#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>

#include "absl/status/status.h"
#include "core/base/time.h"
#include "gateway/prompt.h"

namespace bottega::gateway {

// Requests that killed the workers that ran them, by what they ask for: refused for ten minutes, so
// that a client that tries again takes no more workers with it. The oldest makes room past
// kMax. Loop thread only.
class Quarantine {
 public:
  static constexpr Duration kTime = std::chrono::minutes(10);
  static constexpr size_t kMax = 10'000;

  void Add(uint64_t request, Time now);
  bool Holds(uint64_t request, Time now) const;
  size_t size() const { return until_.size(); }

 private:
  std::unordered_map<uint64_t, Time> until_;  // by hash of the request
  std::deque<uint64_t> order_;                // of `until_`, the oldest first
};

// The refusal.
absl::Status Quarantined();

// What decides how a worker computes a request: its tokens and its sampling. Differs from process
// to process, so that nobody can make up a request with another's hash.
uint64_t HashOf(const PreparedRequest& prepared);

}  // namespace bottega::gateway
