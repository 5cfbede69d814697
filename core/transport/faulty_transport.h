#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "core/base/fault_point.h"
#include "core/base/loop.h"
#include "core/transport/transport.h"

namespace bottega {

// Another transport whose frames fail as fault points say; only where they are compiled in. Armed
// with the action `error`:
//   frame.drop       the frame is never sent
//   frame.duplicate  it is sent twice
//   frame.old        it is sent once more 200 ms later, when its buffers have long had another use
//   frame.reorder    it is sent after the next one (or after 5 ms)
// frame.corrupt (action `corrupt`) changes one bit of it.
class FaultyTransport final : public Transport {
 public:
  // `node` carries the tasks that wait for delayed frames; they end (Loop::Kill) before this does.
  FaultyTransport(Loop& loop, NodeId node, FaultPoints& faults, std::unique_ptr<Transport> inner)
      : loop_(loop), node_(node), faults_(faults), inner_(std::move(inner)) {}

  void SetEvents(Events events) override { inner_->SetEvents(std::move(events)); }
  TransportOffer offer() const override { return inner_->offer(); }
  absl::StatusOr<EndpointId> Open(const std::string& kind) override { return inner_->Open(kind); }
  std::string address(EndpointId endpoint) const override { return inner_->address(endpoint); }
  absl::Status Connect(EndpointId endpoint, const std::string& peer_address) override {
    return inner_->Connect(endpoint, peer_address);
  }
  absl::StatusOr<FrameBuffer> Lease(size_t bytes) override { return inner_->Lease(bytes); }
  absl::Status Post(EndpointId endpoint, FrameBuffer frame) override;
  void Close(EndpointId endpoint) override;
  std::vector<TransportKindStats> stats() const override { return inner_->stats(); }

 private:
  // Nothing if there is no memory for it: then the fault does not happen.
  std::optional<FrameBuffer> Copy(const FrameBuffer& frame);
  Task<void> PostLater(EndpointId endpoint, std::shared_ptr<FrameBuffer> frame);
  Task<void> ReleaseLater();
  absl::Status ReleaseHeld();

  Loop& loop_;
  const NodeId node_;
  FaultPoints& faults_;
  const std::unique_ptr<Transport> inner_;
  std::optional<std::pair<EndpointId, FrameBuffer>> held_;  // goes after the next frame
};

}  // namespace bottega
