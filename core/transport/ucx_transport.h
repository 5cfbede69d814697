#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/loop.h"
#include "core/transport/buffer_pool.h"
#include "core/transport/transport.h"

namespace bottega {

class UcxChannel;
class UcxContext;

struct UcxOptions {
  // "auto": shared memory with peers of this host, TCP with others; "shm" or "tcp": only that; else
  // a UCX_TLS list. UCX_TLS in the environment wins over all of them.
  std::string exchange = "auto";
  std::string devices = "lo";  // UCX_NET_DEVICES, unless the environment sets it; "all" for all
  size_t pool_bytes = size_t{64} << 20;
  Duration connect_timeout = std::chrono::seconds(3);  // from Connect to up
};

// Frames as UCX active messages (UCX 1.13), always eager, one ucp_worker a peer (ucx_channel.h).
// UCX alone never sees a stopped peer, nor over shared memory a killed one: whoever uses this keeps
// a death signal and deadlines of its own. Sleeps by arm and epoll, never busy-polls.
//
// Over TCP each worker listens on a port of its own and parses what strangers send before any check
// of ours: bind it to a private interface (`devices`).
//
// Real loops only. The loop outlives it.
class UcxTransport final : public Transport, private Poller {
 public:
  static absl::StatusOr<std::unique_ptr<UcxTransport>> Create(Loop& loop,
                                                              const UcxOptions& options);
  ~UcxTransport() override;

  void SetEvents(Events events) override { events_ = std::move(events); }
  TransportOffer offer() const override { return offer_; }
  absl::StatusOr<EndpointId> Open(const std::string& kind) override;
  std::string address(EndpointId endpoint) const override;
  absl::Status Connect(EndpointId endpoint, const std::string& peer_address) override;
  absl::StatusOr<FrameBuffer> Lease(size_t bytes) override { return pool_.Lease(bytes); }
  absl::Status Post(EndpointId endpoint, FrameBuffer frame) override;
  void Close(EndpointId endpoint) override;
  std::vector<TransportKindStats> stats() const override;

  size_t leased() const { return pool_.leased(); }

 private:
  struct Endpoint {
    std::unique_ptr<UcxChannel> channel;
    bool told_up = false;
    bool watched = false;  // its fd, by the loop; not while it is stalled
  };

  UcxTransport(Loop& loop, const UcxOptions& options);
  absl::Status Init(const UcxOptions& options);
  // Poller.
  bool Progress() override;
  bool Arm() override;
  int fd() const override { return timer_fd_; }

  bool ProgressOne(EndpointId id, Time now);
  void Watch(Endpoint& endpoint, bool watch);
  void SetTimer(Time at);

  Loop& loop_;
  const Duration connect_timeout_;
  BufferPool pool_;
  Events events_;
  TransportOffer offer_;
  std::vector<std::unique_ptr<UcxContext>> contexts_;  // one a kind, in the order of the offer
  std::map<EndpointId, Endpoint> endpoints_;
  std::vector<EndpointId> polled_;          // scratch of Progress
  std::vector<TransportKindStats> closed_;  // bytes of endpoints that are no more
  uint32_t next_endpoint_ = 1;
  int timer_fd_ = -1;
  Time timer_ = kNever;
};

}  // namespace bottega
