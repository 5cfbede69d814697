#include "core/base/fault_point.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace bottega {
namespace {

constexpr std::string_view kOnes = "ones";
constexpr size_t kOnesBytes = 8;

absl::Status Bad(std::string_view part, std::string_view why) {
  return absl::InvalidArgumentError("fault plan \"" + std::string(part) +
                                    "\": " + std::string(why));
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

template <class T>
bool ParseNumber(std::string_view text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

// "250ms", "2s"; -1 if neither. (core/service has the full parser; this layer is below it.)
int64_t ParseMilliseconds(std::string_view text) {
  int64_t scale = 1;
  if (text.ends_with("ms")) {
    text.remove_suffix(2);
  } else if (text.ends_with("s")) {
    text.remove_suffix(1);
    scale = 1000;
  } else {
    return -1;
  }
  int64_t value = 0;
  if (!ParseNumber(text, &value) || value < 0 || value > 3'600'000) return -1;
  return value * scale;
}

// splitmix64 (Steele, Lea, Flood 2014)
uint64_t NextRandom(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

void SleepMilliseconds(int64_t ms) {
  timespec left{.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1'000'000};
  while (nanosleep(&left, &left) != 0) {
  }
}

}  // namespace

absl::Status FaultPoints::ParseOne(std::string_view text, std::string* name, Point* point) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) return Bad(text, "expected name=action");
  *name = std::string(text.substr(0, equals));
  std::string_view rest = text.substr(equals + 1);
  std::string_view condition;
  if (const size_t at = rest.rfind('@'); at != std::string_view::npos) {
    condition = rest.substr(at + 1);
    rest = rest.substr(0, at);
    if (condition.empty()) return Bad(text, "empty condition");
  }
  const size_t colon = rest.find(':');
  const std::string_view action = rest.substr(0, colon);
  if (colon != std::string_view::npos) point->value = std::string(rest.substr(colon + 1));

  int exit_code = 1;
  if (action == "crash") {
    point->action = Action::kCrash;
  } else if (action == "abort") {
    point->action = Action::kAbort;
  } else if (action == "exit") {
    point->action = Action::kExit;
    if (!point->value.empty() && !ParseNumber<int>(point->value, &exit_code)) {
      return Bad(text, "exit code is no number");
    }
  } else if (action == "sleep") {
    point->action = Action::kSleep;
    if (ParseMilliseconds(point->value) < 0) return Bad(text, "sleep needs a time, as 250ms");
  } else if (action == "error") {
    point->action = Action::kError;
  } else if (action == "corrupt") {
    point->action = Action::kCorrupt;
    if (!point->value.empty() && point->value != kOnes) return Bad(text, "corrupt or corrupt:ones");
  } else {
    return Bad(text, "unknown action (crash, abort, exit, sleep, error, corrupt)");
  }

  if (condition.empty()) return absl::OkStatus();
  if (condition.front() == 'p') {
    const size_t slash = condition.find('/');
    if (!ParseNumber(condition.substr(1, slash == std::string_view::npos ? slash : slash - 1),
                     &point->probability) ||
        !(point->probability >= 0 && point->probability <= 1)) {
      return Bad(text, "probability must be p0 to p1");
    }
    if (slash != std::string_view::npos &&
        !ParseNumber(condition.substr(slash + 1), &point->random)) {
      return Bad(text, "seed is no number");
    }
    return absl::OkStatus();
  }
  const bool and_after = condition.back() == '+';
  if (and_after) condition.remove_suffix(1);
  if (!ParseNumber(condition, &point->first) || point->first == 0) {
    return Bad(text, "condition must be a hit from 1, a hit and after (2+), or p<probability>");
  }
  point->last = and_after ? UINT64_MAX : point->first;
  return absl::OkStatus();
}

absl::Status FaultPoints::Arm(std::string_view plan) {
  std::vector<std::pair<std::string, Point>> parsed;
  for (std::string_view part : Split(plan, ',')) {
    if (part.empty()) continue;
    auto& [name, point] = parsed.emplace_back();
    if (absl::Status status = ParseOne(part, &name, &point); !status.ok()) return status;
  }
  absl::MutexLock lock(&mutex_);
  for (auto& [name, point] : parsed) points_[name] = point;
  any_ = !points_.empty();
  return absl::OkStatus();
}

void FaultPoints::Disarm(std::string_view name) {
  absl::MutexLock lock(&mutex_);
  if (auto it = points_.find(name); it != points_.end()) points_.erase(it);
  any_ = !points_.empty();
}

bool FaultPoints::Acts(Point& point) {
  ++point.hits;
  if (point.hits < point.first || point.hits > point.last) return false;
  if (point.probability >= 1) return true;
  return static_cast<double>(NextRandom(&point.random) >> 11) * 0x1p-53 < point.probability;
}

absl::Status FaultPoints::Hit(std::string_view name) {
  if (!any_.load(std::memory_order_relaxed)) return absl::OkStatus();
  Point armed;
  {
    absl::MutexLock lock(&mutex_);
    auto it = points_.find(name);
    if (it == points_.end() || it->second.action == Action::kCorrupt || !Acts(it->second)) {
      return absl::OkStatus();
    }
    armed = it->second;
  }
  return Act(name, armed);
}

absl::Status FaultPoints::HitIf(std::string_view name, int64_t value) {
  if (!any_.load(std::memory_order_relaxed)) return absl::OkStatus();
  Point armed;
  {
    absl::MutexLock lock(&mutex_);
    auto it = points_.find(name);
    if (it == points_.end() || it->second.value != std::to_string(value) || !Acts(it->second)) {
      return absl::OkStatus();
    }
    armed = it->second;
  }
  return Act(name, armed);
}

absl::Status FaultPoints::Act(std::string_view name, const Point& armed) const {
  const bool dies = armed.action == Action::kCrash || armed.action == Action::kAbort ||
                    armed.action == Action::kExit;
  if (dies && on_crash_) {
    on_crash_();
    return absl::AbortedError("crashed");
  }
  switch (armed.action) {
    case Action::kCrash:
      kill(getpid(), SIGKILL);
      while (true) pause();
    case Action::kAbort:
      std::abort();
    case Action::kExit: {
      int code = 1;
      ParseNumber(std::string_view(armed.value), &code);
      _exit(code);
    }
    case Action::kSleep:
      SleepMilliseconds(ParseMilliseconds(armed.value));
      return absl::OkStatus();
    case Action::kError:
      return absl::InternalError(armed.value.empty() ? "fault point " + std::string(name)
                                                     : armed.value);
    case Action::kCorrupt:
      break;
  }
  return absl::OkStatus();
}

void FaultPoints::Corrupt(std::string_view name, absl::Span<std::byte> bytes) {
  if (!any_.load(std::memory_order_relaxed)) return;
  absl::MutexLock lock(&mutex_);
  auto it = points_.find(name);
  if (it == points_.end() || it->second.action != Action::kCorrupt || !Acts(it->second)) return;
  if (bytes.empty()) return;
  if (it->second.value == kOnes) {
    std::memset(bytes.data(), 0xff, std::min(bytes.size(), kOnesBytes));
    return;
  }
  const uint64_t bit = NextRandom(&it->second.random) % (bytes.size() * 8);
  bytes[bit / 8] ^= std::byte{1} << (bit % 8);
}

uint64_t FaultPoints::hits(std::string_view name) const {
  absl::MutexLock lock(&mutex_);
  auto it = points_.find(name);
  return it == points_.end() ? 0 : it->second.hits;
}

std::map<std::string, uint64_t> FaultPoints::Hits() const {
  absl::MutexLock lock(&mutex_);
  std::map<std::string, uint64_t> hits;
  for (const auto& [name, point] : points_) hits[name] = point.hits;
  return hits;
}

}  // namespace bottega
