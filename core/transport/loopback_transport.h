#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/base/loop.h"
#include "core/transport/buffer_pool.h"
#include "core/transport/transport.h"

namespace bottega {

class LoopbackTransport;

// What a simulated network does to one frame. The default delivers it at the next turn.
struct FrameFate {
  Duration delay{};        // past the delays of others: a frame may overtake
  bool drop = false;       // with no event: the worst network
  int copies = 1;          // > 1: duplicates, each `delay` later than the one before
  int64_t corrupt = -1;    // >= 0: this byte of the (first) copy changes
  bool take_down = false;  // the endpoint breaks: the frame and all undelivered ones are lost
  // Goes to whoever has the address when it arrives, as on a network without connections: a later
  // life of the peer may get what was meant for an earlier one. Closing the endpoint leaves it
  // alone.
  bool by_address = false;
};

// Decides the fate of a frame on its way from one address to another. Simulated loops only.
using LoopbackFaults = std::function<FrameFate(const std::string& from, const std::string& to,
                                               absl::Span<const std::byte> frame)>;

// The wire between the loopback transports of one process, all on one loop. Frames are handed over,
// not copied. Outlives its transports.
class LoopbackHub {
 public:
  // `node` carries the tasks that wait for delayed frames; it belongs to the hub alone.
  LoopbackHub(Loop& loop, NodeId node);
  ~LoopbackHub();
  LoopbackHub(const LoopbackHub&) = delete;
  LoopbackHub& operator=(const LoopbackHub&) = delete;

  // A transport at `address`, which must be free. Destroying it is how its process dies: its frames
  // already posted still arrive, those posted to it do not, and every endpoint connected to it goes
  // down after `down_delay`.
  std::unique_ptr<LoopbackTransport> Open(const std::string& address,
                                          size_t pool_bytes = size_t{64} << 20);

  void SetFaults(LoopbackFaults faults);
  void set_down_delay(Duration delay);
  void set_poison(bool poison);  // of the pools of transports opened from now on

 private:
  friend class LoopbackTransport;
  struct State;
  std::shared_ptr<State> state_;
};

// Same process, zero copy: `serve`, and the fabric with its faults. As the worst network would, it
// hands over frames to an end that has been closed meanwhile.
class LoopbackTransport final : public Transport {
 public:
  ~LoopbackTransport() override;

  void SetEvents(Events events) override { events_ = std::move(events); }
  TransportOffer offer() const override { return {.kinds = {"loopback"}, .host = ""}; }
  absl::StatusOr<EndpointId> Open(const std::string& kind) override;
  std::string address(EndpointId endpoint) const override;
  absl::Status Connect(EndpointId endpoint, const std::string& peer_address) override;
  absl::StatusOr<FrameBuffer> Lease(size_t bytes) override { return pool_.Lease(bytes); }
  absl::Status Post(EndpointId endpoint, FrameBuffer frame) override;
  void Close(EndpointId endpoint) override;
  std::vector<TransportKindStats> stats() const override;

  size_t leased() const { return pool_.leased(); }

 private:
  friend class LoopbackHub;
  struct Endpoint {
    std::string address;       // of the peer's transport; "" until connected
    uint64_t peer = 0;         // that transport, not a later one at the same address
    EndpointId peer_endpoint;  // the end of it that is ours
    bool up = false;
    bool down = false;
  };

  LoopbackTransport(std::shared_ptr<LoopbackHub::State> hub, uint64_t id, std::string address,
                    size_t pool_bytes);
  // Marks the endpoint lost and schedules its event.
  void TakeDown(EndpointId id, absl::Status why);
  void PeerDied(uint64_t peer);
  // Schedules the events of both ends if both are connected to each other.
  void MeetPeer(EndpointId id);

  std::shared_ptr<LoopbackHub::State> hub_;
  const uint64_t id_;
  const std::string address_;
  BufferPool pool_;
  Events events_;
  uint32_t next_endpoint_ = 1;
  uint64_t bytes_sent_ = 0;
  uint64_t bytes_received_ = 0;
  std::map<EndpointId, Endpoint> endpoints_;
};

}  // namespace bottega
