#include "gateway/drain_rate.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <string>

#include "absl/strings/cord.h"

namespace bottega::gateway {
namespace {

using std::chrono::milliseconds;

constexpr absl::string_view kRetryAfterUrl = "bottega/retry_after_ms";

}  // namespace

void DrainRate::Observe(Time now, size_t waiting) {
  const double seconds = Seconds(now - since_);
  since_ = now;
  if (waiting == 0) return;
  const double faded = std::exp(-seconds / Seconds(kMemory));
  busy_seconds_ = busy_seconds_ * faded + seconds;
  left_ *= faded;
}

Duration DrainRate::TimeToDrain(size_t waiting) const {
  const double most = Seconds(kMost);
  // Fewer than one in the whole memory: no rate, but a queue that does not move.
  const bool stands = left_ < 1;
  if (stands && busy_seconds_ < Seconds(kLeast)) return kLeast;
  const double seconds = stands ? most : static_cast<double>(waiting) * busy_seconds_ / left_;
  return std::clamp(
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::min(seconds, most))),
      kLeast, kMost);
}

absl::Status WithRetryAfter(absl::Status refusal, Duration wait) {
  const auto ms = std::chrono::ceil<milliseconds>(wait).count();
  refusal.SetPayload(kRetryAfterUrl, absl::Cord(std::to_string(ms)));
  return refusal;
}

Duration RetryAfterOf(const absl::Status& refusal) {
  const auto payload = refusal.GetPayload(kRetryAfterUrl);
  if (!payload) return DrainRate::kLeast;
  const std::string text(*payload);
  int64_t ms = 0;
  std::from_chars(text.data(), text.data() + text.size(), ms);
  return milliseconds(ms);
}

}  // namespace bottega::gateway
