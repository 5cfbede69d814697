#include "core/transport/loopback_transport.h"

#include <cstring>
#include <deque>

#include "absl/strings/numbers.h"
#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/base/status.h"
#include "fmt/format.h"

namespace bottega {

struct LoopbackHub::State : std::enable_shared_from_this<State> {
  struct Event {
    uint64_t target = 0;  // transport
    FrameBuffer frame;    // unless the event is `up` or `down`
    bool up = false;
    absl::Status down;
    uint64_t source = 0;  // whose endpoint it went through (a frame), or which is down (target's)
    EndpointId endpoint;
    std::string by_address;  // overrides target
  };

  State(Loop& l, NodeId n) : loop(l), node(n) {}

  Loop& loop;
  const NodeId node;
  Duration down_delay{};
  bool poison = false;
  LoopbackFaults faults;
  uint64_t next_id = 1;
  std::map<std::string, uint64_t> by_address;
  std::map<uint64_t, LoopbackTransport*> live;
  std::deque<Event> ready;
  bool scheduled = false;
  std::map<uint64_t, Event> delayed;

  void Send(Event event, Duration delay);
  void DeliverReady();
  void Deliver(Event event);
  // Frames that went through `endpoint` and have not arrived are lost.
  void Forget(uint64_t source, EndpointId endpoint);
  static Task<void> DeliverLater(Loop& loop, std::weak_ptr<State> state, uint64_t id, Time at);
};

void LoopbackHub::State::Send(Event event, Duration delay) {
  if (delay > Duration::zero()) {
    const uint64_t id = next_id++;
    delayed.emplace(id, std::move(event));
    loop.Spawn(node, DeliverLater(loop, weak_from_this(), id, loop.Now() + delay));
    return;
  }
  ready.push_back(std::move(event));
  if (std::exchange(scheduled, true)) return;
  loop.Post([weak = weak_from_this()] {
    if (std::shared_ptr<State> state = weak.lock()) state->DeliverReady();
  });
}

Task<void> LoopbackHub::State::DeliverLater(Loop& loop, std::weak_ptr<State> weak, uint64_t id,
                                            Time at) {
  co_await loop.SleepUntil(at);
  std::shared_ptr<State> state = weak.lock();
  if (state == nullptr) co_return;
  auto it = state->delayed.find(id);
  if (it == state->delayed.end()) co_return;  // its endpoint was closed
  Event event = std::move(it->second);
  state->delayed.erase(it);
  state->Deliver(std::move(event));
}

void LoopbackHub::State::DeliverReady() {
  scheduled = false;
  // What the callbacks post goes out in the next turn.
  for (size_t n = ready.size(); n > 0 && !ready.empty(); --n) {
    Event event = std::move(ready.front());
    ready.pop_front();
    Deliver(std::move(event));
  }
}

void LoopbackHub::State::Deliver(Event event) {
  if (!event.by_address.empty()) {
    auto who = by_address.find(event.by_address);
    event.target = who == by_address.end() ? 0 : who->second;
  }
  auto target = live.find(event.target);
  if (target == live.end()) return;
  LoopbackTransport& transport = *target->second;
  if (event.down.ok() && !event.up) {
    transport.bytes_received_ += event.frame.size();
    if (transport.events_.on_frame) transport.events_.on_frame(std::move(event.frame));
    return;
  }
  auto endpoint = transport.endpoints_.find(event.endpoint);
  if (endpoint == transport.endpoints_.end()) return;  // closed meanwhile
  if (event.up) {
    endpoint->second.up = true;
    if (transport.events_.on_up) transport.events_.on_up(event.endpoint);
    return;
  }
  transport.endpoints_.erase(endpoint);
  Forget(event.target, event.endpoint);
  if (transport.events_.on_down) transport.events_.on_down(event.endpoint, std::move(event.down));
}

void LoopbackHub::State::Forget(uint64_t source, EndpointId endpoint) {
  auto through = [&](const Event& event) {
    return event.down.ok() && !event.up && event.by_address.empty() && event.source == source &&
           event.endpoint == endpoint;
  };
  std::erase_if(ready, through);
  std::erase_if(delayed, [&](const auto& entry) { return through(entry.second); });
}

LoopbackHub::LoopbackHub(Loop& loop, NodeId node) : state_(std::make_shared<State>(loop, node)) {}

LoopbackHub::~LoopbackHub() {
  CHECK(state_->live.empty());
  state_->loop.Kill(state_->node);
}

void LoopbackHub::SetFaults(LoopbackFaults faults) { state_->faults = std::move(faults); }
void LoopbackHub::set_down_delay(Duration delay) { state_->down_delay = delay; }
void LoopbackHub::set_poison(bool poison) { state_->poison = poison; }

std::unique_ptr<LoopbackTransport> LoopbackHub::Open(const std::string& address,
                                                     size_t pool_bytes) {
  const uint64_t id = state_->next_id++;
  CHECK(state_->by_address.emplace(address, id).second);
  std::unique_ptr<LoopbackTransport> transport(
      new LoopbackTransport(state_, id, address, pool_bytes));
  transport->pool_.set_poison(state_->poison);
  state_->live[id] = transport.get();
  return transport;
}

LoopbackTransport::LoopbackTransport(std::shared_ptr<LoopbackHub::State> hub, uint64_t id,
                                     std::string address, size_t pool_bytes)
    : hub_(std::move(hub)), id_(id), address_(std::move(address)), pool_(pool_bytes) {}

LoopbackTransport::~LoopbackTransport() {
  hub_->live.erase(id_);
  hub_->by_address.erase(address_);
  for (auto& [id, other] : hub_->live) other->PeerDied(id_);
}

void LoopbackTransport::PeerDied(uint64_t peer) {
  for (auto& [id, endpoint] : endpoints_) {
    if (endpoint.peer != peer) continue;
    LoopbackHub::State::Event event;
    event.target = id_;
    event.endpoint = id;
    event.down = absl::UnavailableError(fmt::format("{} is gone", endpoint.address));
    hub_->Send(std::move(event), hub_->down_delay);
  }
}

absl::StatusOr<EndpointId> LoopbackTransport::Open(const std::string& kind) {
  if (kind != "loopback") {
    return absl::InvalidArgumentError(fmt::format("no endpoint of kind '{}': loopback only", kind));
  }
  const EndpointId id{next_endpoint_++};
  endpoints_[id];
  return id;
}

std::string LoopbackTransport::address(EndpointId id) const {
  CHECK(endpoints_.contains(id));
  return fmt::format("{}/{}", address_, id.value);
}

absl::Status LoopbackTransport::Connect(EndpointId id, const std::string& peer_address) {
  auto it = endpoints_.find(id);
  if (it == endpoints_.end()) return absl::UnavailableError("the endpoint is closed");
  const size_t slash = peer_address.rfind('/');
  uint32_t number = 0;
  if (slash == std::string::npos || !absl::SimpleAtoi(peer_address.substr(slash + 1), &number)) {
    return absl::InvalidArgumentError("not the address of a loopback endpoint");
  }
  auto peer = hub_->by_address.find(peer_address.substr(0, slash));
  if (peer == hub_->by_address.end()) {
    return absl::UnavailableError(fmt::format("nobody at {}", peer_address));
  }
  it->second.address = peer->first;
  it->second.peer = peer->second;
  it->second.peer_endpoint = EndpointId{number};
  MeetPeer(id);
  return absl::OkStatus();
}

void LoopbackTransport::MeetPeer(EndpointId id) {
  const Endpoint& ours = endpoints_.at(id);
  LoopbackTransport& peer = *hub_->live.at(ours.peer);
  auto theirs = peer.endpoints_.find(ours.peer_endpoint);
  if (theirs == peer.endpoints_.end() || theirs->second.peer != id_ ||
      theirs->second.peer_endpoint != id) {
    return;
  }
  for (const auto& [target, endpoint] : {std::pair(id_, id), std::pair(peer.id_, theirs->first)}) {
    LoopbackHub::State::Event event;
    event.target = target;
    event.endpoint = endpoint;
    event.up = true;
    hub_->Send(std::move(event), Duration::zero());
  }
}

std::vector<TransportKindStats> LoopbackTransport::stats() const {
  TransportKindStats stats{.kind = "loopback"};
  for (const auto& [id, endpoint] : endpoints_) ++(endpoint.up ? stats.up : stats.connecting);
  stats.bytes_sent = bytes_sent_;
  stats.bytes_received = bytes_received_;
  return {stats};
}

void LoopbackTransport::TakeDown(EndpointId id, absl::Status why) {
  Endpoint& endpoint = endpoints_.at(id);
  if (std::exchange(endpoint.down, true)) return;
  LoopbackHub::State::Event event;
  event.target = id_;
  event.endpoint = id;
  event.down = std::move(why);
  hub_->Forget(id_, id);
  hub_->Send(std::move(event), Duration::zero());
}

absl::Status LoopbackTransport::Post(EndpointId id, FrameBuffer frame) {
  auto it = endpoints_.find(id);
  if (it == endpoints_.end() || it->second.peer == 0 || it->second.down) {
    return absl::UnavailableError("the endpoint is not connected");
  }
  if (frame.size() > limits::kFrameBytesMax) {
    return absl::InvalidArgumentError("frame past kFrameBytesMax");
  }
  bytes_sent_ += frame.size();
  FrameFate fate;
  if (hub_->faults) fate = hub_->faults(address_, it->second.address, frame.bytes());
  if (fate.take_down) {
    TakeDown(id, absl::UnavailableError("the endpoint broke"));
    return absl::OkStatus();
  }
  if (fate.drop) return absl::OkStatus();

  const uint64_t peer = it->second.peer;
  const std::string by_address = fate.by_address ? it->second.address : "";
  auto send = [&](FrameBuffer copy, Duration delay) {
    LoopbackHub::State::Event event;
    event.target = peer;
    event.frame = std::move(copy);
    event.source = id_;
    event.endpoint = id;
    event.by_address = by_address;
    hub_->Send(std::move(event), delay);
  };
  for (int copy = 1; copy < fate.copies; ++copy) {
    ASSIGN_OR_RETURN(FrameBuffer twin, Lease(frame.size()));
    if (frame.size() > 0) std::memcpy(twin.data(), frame.data(), frame.size());
    send(std::move(twin), fate.delay * (copy + 1));
  }
  if (fate.corrupt >= 0 && frame.size() > 0) {
    frame.data()[static_cast<size_t>(fate.corrupt) % frame.size()] ^= std::byte{0x40};
  }
  send(std::move(frame), fate.delay);
  return absl::OkStatus();
}

void LoopbackTransport::Close(EndpointId id) {
  if (endpoints_.erase(id) > 0) hub_->Forget(id_, id);
}

}  // namespace bottega
