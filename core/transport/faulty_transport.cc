#include "core/transport/faulty_transport.h"

#include <chrono>
#include <cstring>

#include "core/base/status.h"

namespace bottega {

using namespace std::chrono_literals;

namespace {
constexpr Duration kOldAge = 200ms;
constexpr Duration kHeldMax = 5ms;
}  // namespace

std::optional<FrameBuffer> FaultyTransport::Copy(const FrameBuffer& frame) {
  absl::StatusOr<FrameBuffer> copy = inner_->Lease(frame.size());
  if (!copy.ok()) return std::nullopt;
  std::memcpy(copy->data(), frame.data(), frame.size());
  return *std::move(copy);
}

absl::Status FaultyTransport::Post(EndpointId endpoint, FrameBuffer frame) {
  FAULT_CORRUPT(faults_, "frame.corrupt", absl::MakeSpan(frame.data(), frame.size()));
  if (absl::Status drop = FAULT_POINT(faults_, "frame.drop"); !drop.ok()) return absl::OkStatus();
  if (absl::Status twice = FAULT_POINT(faults_, "frame.duplicate"); !twice.ok()) {
    std::optional<FrameBuffer> copy = Copy(frame);
    if (copy) RETURN_IF_ERROR(inner_->Post(endpoint, *std::move(copy)));
  }
  if (absl::Status old = FAULT_POINT(faults_, "frame.old"); !old.ok()) {
    if (std::optional<FrameBuffer> copy = Copy(frame)) {
      auto kept = std::make_shared<FrameBuffer>(*std::move(copy));
      loop_.Spawn(node_, PostLater(endpoint, std::move(kept)));
    }
  }
  if (absl::Status swap = FAULT_POINT(faults_, "frame.reorder"); !swap.ok() && !held_) {
    held_.emplace(endpoint, std::move(frame));
    loop_.Spawn(node_, ReleaseLater());
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(inner_->Post(endpoint, std::move(frame)));
  return ReleaseHeld();
}

void FaultyTransport::Close(EndpointId endpoint) {
  if (held_ && held_->first == endpoint) held_.reset();
  inner_->Close(endpoint);
}

absl::Status FaultyTransport::ReleaseHeld() {
  if (!held_) return absl::OkStatus();
  auto [endpoint, frame] = *std::exchange(held_, std::nullopt);
  return inner_->Post(endpoint, std::move(frame));
}

Task<void> FaultyTransport::PostLater(EndpointId endpoint, std::shared_ptr<FrameBuffer> frame) {
  co_await loop_.Sleep(kOldAge);
  // The endpoint may be gone by now; that is an old frame's fate.
  absl::Status posted = inner_->Post(endpoint, std::move(*frame));
}

Task<void> FaultyTransport::ReleaseLater() {
  co_await loop_.Sleep(kHeldMax);
  absl::Status posted = ReleaseHeld();
}

}  // namespace bottega
