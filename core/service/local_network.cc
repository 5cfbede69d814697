#include "core/service/local_network.h"

#include <array>
#include <map>
#include <set>
#include <utility>

#include "core/base/inbox.h"
#include "core/base/limits.h"

namespace bottega {
namespace {

// One end of a stream: what has arrived for it, and how the stream ended for it.
struct End {
  End(Loop& loop, NodeId node, std::string name)
      : node(node), name(std::move(name)), inbox(loop, limits::kStreamMessagesMax) {}
  NodeId node;
  std::string name;
  Inbox<std::string> inbox;
  size_t messages = 0;  // sent to this end and not yet received, on the way or in the inbox
  size_t bytes = 0;
  Time last_arrival{};    // nothing arrives here before it: keeps the order
  size_t on_the_way = 0;  // events not yet applied
  absl::Status ended;     // not ok: Send refuses
  bool dropped = false;   // the ByteStream is gone
};

struct Parcel {
  std::string message;
  absl::Status end;  // not ok: this is the end of the stream, not a message
};

struct Link {
  Link(Loop& loop, NodeId client, NodeId server, const std::string& address)
      : ends{End(loop, client, address),
             End(loop, server, "node " + std::to_string(client.value))} {}
  std::array<End, 2> ends;
  std::array<std::deque<Parcel>, 2> held;  // by receiving end, behind a cut
  bool broken = false;
};

struct Arrival {
  std::shared_ptr<Link> link;
  int to;
  Parcel parcel;
};
struct CutCheck {
  NodeId from, to;
  uint64_t cut;  // which cut
};

}  // namespace

struct LocalNetwork::State {
  State(Loop& loop, std::unique_ptr<Faults> faults)
      : loop(loop), faults(std::move(faults)), wake(loop) {}

  struct Server {
    NodeId node;
    std::map<std::string, Handler> methods;
  };
  struct Event {
    std::shared_ptr<Link> link;  // an arrival, or
    int to = 0;
    Parcel parcel;
    CutCheck check{};  // with link == nullptr
  };

  Loop& loop;
  std::unique_ptr<Faults> faults;
  bool open = true;
  uint64_t next_name = 1;
  uint64_t next_event = 0;
  uint64_t next_cut = 0;
  uint64_t next_link = 0;
  size_t links_after_prune = 0;
  std::map<std::string, Server> servers;
  std::map<uint64_t, std::weak_ptr<Link>> links;  // oldest first: a seed repeats its history
  std::map<std::pair<NodeId, NodeId>, uint64_t> cuts;
  std::map<std::pair<Time, uint64_t>, Event> events;
  std::optional<NodeId> killing;
  Slot wake;
  bool pumping = false;

  bool IsCut(NodeId from, NodeId to) const { return cuts.contains({from, to}); }
  void Forward(const std::shared_ptr<Link>& link, int to, Parcel parcel);
  void Schedule(Time at, Event event);
  void Deliver(Link& link, int to, Parcel parcel);
  void Break(Link& link, const absl::Status& why);
  void EndFrom(const std::shared_ptr<Link>& link, int side, const absl::Status& why);
  void EndAllOf(NodeId node, const absl::Status& why);
  void Apply(Event event);
  static Task<void> Pump(std::shared_ptr<State> state);
  void StartPump();
  std::shared_ptr<State> self() { return weak_self.lock(); }
  std::weak_ptr<State> weak_self;

  static Task<absl::StatusOr<std::unique_ptr<ByteStream>>> Open(std::shared_ptr<State> state,
                                                                NodeId self, std::string address,
                                                                std::string method, Time deadline);
  class Stream;
};

class LocalNetwork::State::Stream : public ByteStream {
 public:
  Stream(std::shared_ptr<State> state, std::shared_ptr<Link> link, int side)
      : state_(std::move(state)), link_(std::move(link)), side_(side) {}
  ~Stream() override {
    end().dropped = true;
    // A kill destroys frames in no certain order; it ends the streams itself, oldest first.
    if (state_->killing == end().node) return;
    if (end().ended.ok()) state_->EndFrom(link_, side_, absl::UnavailableError("peer went away"));
  }

  absl::Status Send(std::string message) override {
    if (!end().ended.ok()) return end().ended;
    if (message.size() > limits::kControlMessageBytesMax) {
      return absl::InvalidArgumentError("message larger than kControlMessageBytesMax");
    }
    End& peer = link_->ends[1 - side_];
    if (peer.messages >= limits::kStreamMessagesMax ||
        peer.bytes + message.size() > limits::kStreamQueueBytesMax) {
      return absl::ResourceExhaustedError("the peer does not read");
    }
    if (state_->faults != nullptr && state_->faults->Reset(end().node, peer.node)) {
      state_->Break(*link_, absl::UnavailableError("stream reset"));
      return end().ended;
    }
    ++peer.messages;
    peer.bytes += message.size();
    state_->Forward(link_, 1 - side_, Parcel{std::move(message), absl::OkStatus()});
    return absl::OkStatus();
  }

  Task<absl::StatusOr<std::string>> Receive(Time deadline) override {
    absl::StatusOr<std::string> message = co_await end().inbox.Receive(deadline);
    if (message.ok()) {
      --end().messages;
      end().bytes -= message->size();
    }
    co_return message;
  }

  void Close(absl::Status why) override {
    if (!end().ended.ok()) return;
    if (why.ok()) why = absl::CancelledError("closed");
    state_->EndFrom(link_, side_, why);
  }

  std::string peer() const override { return link_->ends[side_].name; }

 private:
  End& end() { return link_->ends[side_]; }
  std::shared_ptr<State> state_;
  std::shared_ptr<Link> link_;
  const int side_;
};

void LocalNetwork::State::Schedule(Time at, Event event) {
  events.emplace(std::pair(at, ++next_event), std::move(event));
  StartPump();
  wake.Wake();
}

// Sends `parcel` on its way to end `to`: behind a cut it waits; without delay it is there at once.
void LocalNetwork::State::Forward(const std::shared_ptr<Link>& link, int to, Parcel parcel) {
  End& receiver = link->ends[to];
  const End& sender = link->ends[1 - to];
  if (IsCut(sender.node, receiver.node) || !link->held[to].empty()) {
    link->held[to].push_back(std::move(parcel));
    return;
  }
  Duration delay{};
  if (faults != nullptr) {
    delay = killing == sender.node ? faults->DeathDelay(sender.node, receiver.node)
                                   : faults->Delay(sender.node, receiver.node);
  }
  if (delay == Duration::zero() && receiver.on_the_way == 0) {
    Deliver(*link, to, std::move(parcel));
    return;
  }
  receiver.last_arrival = std::max(receiver.last_arrival, loop.Now() + delay);
  ++receiver.on_the_way;
  Schedule(receiver.last_arrival, Event{link, to, std::move(parcel)});
}

void LocalNetwork::State::Deliver(Link& link, int to, Parcel parcel) {
  End& end = link.ends[to];
  if (!end.ended.ok()) return;
  if (!parcel.end.ok()) {
    end.ended = parcel.end;
    end.inbox.Close(std::move(parcel.end));
  } else {
    CHECK(end.inbox.Push(std::move(parcel.message)));  // Send bounds the queue
  }
}

void LocalNetwork::State::Break(Link& link, const absl::Status& why) {
  link.broken = true;
  for (int side : {0, 1}) {
    link.held[side].clear();
    if (link.ends[side].ended.ok()) {
      link.ends[side].ended = why;
      link.ends[side].inbox.Close(why);
    }
  }
}

// `side` says that it is over; the other end learns it behind what is on its way.
void LocalNetwork::State::EndFrom(const std::shared_ptr<Link>& link, int side,
                                  const absl::Status& why) {
  End& end = link->ends[side];
  if (!end.ended.ok()) return;
  end.ended = why;
  end.inbox.Close(why);
  if (open && link->ends[1 - side].ended.ok()) Forward(link, 1 - side, Parcel{{}, why});
}

void LocalNetwork::State::EndAllOf(NodeId node, const absl::Status& why) {
  std::erase_if(links, [](const auto& entry) { return entry.second.expired(); });
  std::vector<std::shared_ptr<Link>> all;
  for (auto& [key, weak] : links) all.push_back(weak.lock());
  for (const std::shared_ptr<Link>& link : all) {
    for (int side : {0, 1}) {
      if (link->ends[side].node == node) EndFrom(link, side, why);
    }
  }
}

void LocalNetwork::State::Apply(Event event) {
  if (event.link != nullptr) {
    --event.link->ends[event.to].on_the_way;
    if (!event.link->broken) Deliver(*event.link, event.to, std::move(event.parcel));
    return;
  }
  auto cut = cuts.find({event.check.from, event.check.to});
  if (cut == cuts.end() || cut->second != event.check.cut) return;  // healed meanwhile
  for (auto& [key, weak] : links) {
    std::shared_ptr<Link> link = weak.lock();
    if (link == nullptr) continue;
    const NodeId a = link->ends[0].node, b = link->ends[1].node;
    if (std::pair(a, b) == cut->first || std::pair(b, a) == cut->first) {
      Break(*link, absl::UnavailableError("keepalive timed out"));
    }
  }
}

Task<void> LocalNetwork::State::Pump(std::shared_ptr<State> state) {
  while (true) {
    const Time next = state->events.empty() ? kNever : state->events.begin()->first.first;
    if (next > state->loop.Now()) {
      (void)co_await state->wake.Wait(next);
      continue;
    }
    Event event = std::move(state->events.begin()->second);
    state->events.erase(state->events.begin());
    state->Apply(std::move(event));
  }
}

void LocalNetwork::State::StartPump() {
  if (std::exchange(pumping, true)) return;
  loop.Spawn(kNetworkNode, Pump(self()));
}

Task<absl::StatusOr<std::unique_ptr<ByteStream>>> LocalNetwork::State::Open(
    std::shared_ptr<State> state, NodeId self, std::string address, std::string method,
    Time deadline) {
  Loop& loop = state->loop;
  auto server = state->servers.find(address);
  if (state->faults != nullptr && server != state->servers.end()) {
    const NodeId to = server->second.node;
    const Time arrival =
        state->IsCut(self, to) || state->IsCut(to, self)
            ? loop.Now() + kCutTimeout
            : loop.Now() + state->faults->Delay(self, to) + state->faults->Delay(to, self);
    co_await loop.SleepUntil(std::min(arrival, deadline));
    if (arrival > deadline || state->IsCut(self, to) || state->IsCut(to, self)) {
      co_return absl::UnavailableError("no answer from " + address);
    }
    server = state->servers.find(address);
  }
  if (!state->open || server == state->servers.end()) {
    co_return absl::UnavailableError("nobody serves " + address);
  }
  auto handler = server->second.methods.find(method);
  if (handler == server->second.methods.end()) {
    co_return absl::UnimplementedError(address + " has no " + method);
  }
  auto link = std::make_shared<Link>(loop, self, server->second.node, address);
  if (state->links.size() >= 2 * state->links_after_prune + 16) {
    std::erase_if(state->links, [](const auto& entry) { return entry.second.expired(); });
    state->links_after_prune = state->links.size();
  }
  state->links[++state->next_link] = link;
  auto served = std::make_unique<Stream>(state, link, 1);
  loop.Spawn(server->second.node, handler->second(std::move(served)));
  std::unique_ptr<ByteStream> stream = std::make_unique<Stream>(state, link, 0);
  co_return stream;
}

LocalNetwork::LocalNetwork(Loop& loop, std::unique_ptr<Faults> faults)
    : state_(std::make_shared<State>(loop, std::move(faults))) {
  state_->weak_self = state_;
}

LocalNetwork::~LocalNetwork() {
  state_->open = false;
  state_->servers.clear();
  for (auto& [key, weak] : state_->links) {
    if (std::shared_ptr<Link> link = weak.lock()) {
      state_->Break(*link, absl::CancelledError("the network was shut down"));
    }
  }
  state_->events.clear();
  state_->loop.Kill(kNetworkNode);
}

Task<absl::StatusOr<std::unique_ptr<ByteStream>>> LocalNetwork::Connect(NodeId self,
                                                                        std::string address,
                                                                        std::string method,
                                                                        Time deadline) {
  return State::Open(state_, self, std::move(address), std::move(method), deadline);
}

absl::StatusOr<std::string> LocalNetwork::Serve(
    NodeId self, const std::string& address, std::vector<std::pair<std::string, Handler>> methods) {
  const std::string name =
      address.ends_with(":0") ? "local:" + std::to_string(state_->next_name++) : address;
  auto [server, added] = state_->servers.try_emplace(name);
  if (!added) return absl::UnavailableError("address in use: " + name);
  server->second.node = self;
  for (auto& [method, handler] : methods) {
    server->second.methods[std::move(method)] = std::move(handler);
  }
  return name;
}

void LocalNetwork::Shutdown(NodeId self) {
  std::erase_if(state_->servers, [&](const auto& entry) { return entry.second.node == self; });
  state_->EndAllOf(self, absl::UnavailableError("peer shut down"));
}

void LocalNetwork::Kill(NodeId node) {
  std::erase_if(state_->servers, [&](const auto& entry) { return entry.second.node == node; });
  state_->killing = node;
  state_->loop.Kill(node);
  state_->EndAllOf(node, absl::UnavailableError("peer went away"));
  state_->killing.reset();
}

void LocalNetwork::Cut(NodeId from, NodeId to) {
  const uint64_t cut = ++state_->next_cut;
  state_->cuts[{from, to}] = cut;
  State::Event check;
  check.check = CutCheck{from, to, cut};
  state_->Schedule(state_->loop.Now() + kCutTimeout, std::move(check));
}

void LocalNetwork::Heal(NodeId from, NodeId to) {
  state_->cuts.erase({from, to});
  for (auto& [key, weak] : state_->links) {
    std::shared_ptr<Link> link = weak.lock();
    if (link == nullptr) continue;
    for (int to_side : {0, 1}) {
      if (link->ends[to_side].node != to || link->ends[1 - to_side].node != from) continue;
      for (Parcel& parcel : std::exchange(link->held[to_side], {})) {
        state_->Forward(link, to_side, std::move(parcel));
      }
    }
  }
}

}  // namespace bottega
