// The dispatcher without fault tolerance, for bench/fault_tolerance.py: built in the place of
// core/exchange's by -DBOTTEGA_DIRECT_SENDS=ON. A row is sent once, to the first replica that the
// table names, and waited for. Nothing is timed, hedged, asked for again, compared or held against
// anybody; a refusal ends the process.
#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "core/exchange/dispatch.h"
#include "core/exchange/peer_set.h"
#include "core/exchange/share.h"

namespace bottega {

class Dispatcher::Impl {
 public:
  Impl(Loop& loop, Transport& transport, Incarnation self, DispatcherOptions options)
      : loop_(loop),
        transport_(transport),
        self_(self),
        shape_(options.shape),
        share_limits_(ShareLimitsFor(shape_)) {
    Transport::Events events;
    events.on_frame = [this](FrameBuffer frame) { OnFrame(std::move(frame)); };
    events.on_up = [this](EndpointId endpoint) { peers_.FindEndpoint(endpoint)->up = true; };
    events.on_down = [](EndpointId, const absl::Status&) {};
    transport_.SetEvents(std::move(events));
  }
  ~Impl() { transport_.SetEvents({}); }

  void AddPeer(MemberId member, const PeerInfo& info) {
    RemovePeer(member);
    peers_.Add(member, info, stats_.kinds[info.transport]);
  }
  void RemovePeer(MemberId member) {
    const Peer* peer = peers_.Find(member);
    if (peer == nullptr) return;
    transport_.Close(peer->info.endpoint);
    peers_.Remove(member);
  }

  Task<absl::StatusOr<DispatchResult>> Dispatch(DispatchRequest request, std::byte* reply_rows) {
    Active active{.request = request, .reply_rows = reply_rows, .slot = Slot(loop_)};
    active.open = static_cast<uint32_t>(request.tokens) * shape_.top_k;
    for (uint32_t e = 0; e < active.open; ++e) {
      active.waiting[ReplicaOf(request.layer, ExpertId{request.experts[e]})].push_back(e);
    }
    active_.push_back(&active);
    ++stats_.dispatches;
    PostWaiting(active);
    while (active.open > 0) (void)co_await active.slot.Wait(kNever);
    std::erase(active_, &active);
    co_return DispatchResult{};
  }

  DispatcherStats stats_;
  PeerSet peers_;
  TableSnapshot table_;

 private:
  struct Active {
    DispatchRequest request;
    std::byte* reply_rows;
    std::map<MemberId, std::vector<uint32_t>> waiting;  // entries, ascending
    uint32_t open = 0;
    uint16_t parts = 0;
    Slot slot;
  };
  struct Flight {
    Active* active;
    MemberId member;
    std::vector<uint32_t> entries;
    Time posted;
  };

  MemberId ReplicaOf(LayerId layer, ExpertId expert) {
    for (MemberId member : table_->ReplicasOf(layer, expert)) {
      const Peer* peer = peers_.Find(member);
      if (peer != nullptr && peer->up) return member;
    }
    CHECK(false && "direct sends need every expert");
    return {};
  }

  void PostWaiting(Active& active) {
    const EntryOf of{active.request, shape_.top_k};
    for (auto& [member, entries] : active.waiting) {
      Peer& peer = *peers_.Find(member);
      absl::Span<const uint32_t> rest = entries;
      while (!rest.empty()) {
        const Credits& credits = peer.credits;
        const Cut cut = CutShare(of, rest, share_limits_, credits.free(), credits.in_use() == 0);
        if (cut.entries == 0) break;
        Post(active, peer, rest.first(cut.entries), cut);
        rest.remove_prefix(cut.entries);
      }
      entries.erase(entries.begin(), entries.end() - static_cast<ptrdiff_t>(rest.size()));
    }
  }

  void Post(Active& active, Peer& peer, absl::Span<const uint32_t> entries, const Cut& cut) {
    absl::StatusOr<FrameBuffer> frame =
        transport_.Lease(ForwardBytes(cut.tokens, cut.entries, shape_.row_bytes()));
    CHECK(frame.ok());
    active.parts = std::min<uint16_t>(active.parts + 1, limits::kPartsMax);
    FrameHeader header = ForwardHeader(active.request, shape_, self_, peer.info, cut);
    header.sequence = next_sequence_++;
    header.epoch = table_->epoch;
    header.part = active.parts - 1;
    header.parts = active.parts;
    header.attempt = 1;
    header.credits = peer.credits.in_use() + cut.entries;
    WriteForward({active.request, shape_.top_k}, entries, shape_, header,
                 {frame->data(), frame->size()});
    CHECK(transport_.Post(peer.info.endpoint, *std::move(frame)).ok());
    stats_.rows_sent += cut.entries;
    peer.kind.rows_sent += cut.entries;
    peer.credits.Take(cut.entries);
    flights_[header.sequence] = {
        &active, peer.member, {entries.begin(), entries.end()}, loop_.Now()};
  }

  void OnFrame(FrameBuffer frame) {
    const absl::StatusOr<FrameView> view =
        CheckFrame(frame.bytes(), shape_, self_,
                   [this](Incarnation sender, uint64_t key) { return peers_.Knows(sender, key); });
    CHECK(view.ok() && view->kind() == FrameKind::kReply);
    const auto found = flights_.find(view->header.sequence);
    CHECK(found != flights_.end());
    const Flight flight = std::move(found->second);
    flights_.erase(found);
    Active& active = *flight.active;
    Peer& peer = *peers_.Find(flight.member);
    const size_t row_bytes = shape_.row_bytes();
    for (size_t i = 0; i < flight.entries.size(); ++i) {
      std::memcpy(active.reply_rows + flight.entries[i] * row_bytes, view->rows + i * row_bytes,
                  row_bytes);
    }
    const uint32_t rows = static_cast<uint32_t>(flight.entries.size());
    const double seconds = Seconds(loop_.Now() - flight.posted);
    stats_.rows_received += rows;
    peer.kind.rows_received += rows;
    peer.kind.round_trip.Observe(seconds);
    peer.round_trip.Observe(seconds);
    peer.credits.Give(rows);
    active.open -= rows;
    if (active.open == 0) {
      ++peer.kind.dispatches;
      active.slot.Wake();
    }
    for (Active* other : active_) PostWaiting(*other);
  }

  Loop& loop_;
  Transport& transport_;
  const Incarnation self_;
  const ExchangeShape shape_;
  const ShareLimits share_limits_;
  std::vector<Active*> active_;
  std::map<uint64_t, Flight> flights_;
  uint64_t next_sequence_ = 1;
};

Dispatcher::Dispatcher(Loop& loop, Transport& transport, Incarnation self,
                       DispatcherOptions options)
    : impl_(std::make_unique<Impl>(loop, transport, self, std::move(options))) {}
Dispatcher::~Dispatcher() = default;

void Dispatcher::UpdateTable(TableSnapshot table) { impl_->table_ = std::move(table); }
void Dispatcher::AddPeer(MemberId member, const PeerInfo& info) { impl_->AddPeer(member, info); }
void Dispatcher::RemovePeer(MemberId member, absl::Status) { impl_->RemovePeer(member); }
void Dispatcher::UpdateCost(MemberId, const PeerCost&) {}
Task<absl::StatusOr<DispatchResult>> Dispatcher::Dispatch(DispatchRequest request,
                                                          std::byte* reply_rows) {
  return impl_->Dispatch(request, reply_rows);
}
const DispatcherStats& Dispatcher::stats() const { return impl_->stats_; }
uint64_t Dispatcher::table_epoch() const {
  return impl_->table_ == nullptr ? 0 : impl_->table_->epoch;
}
size_t Dispatcher::credits_in_use() const { return 0; }
size_t Dispatcher::peers() const { return impl_->peers_.size(); }
std::vector<PeerView> Dispatcher::PeerViews() const { return {}; }
std::vector<BadWorker> Dispatcher::bad_workers() const { return {}; }
bool Dispatcher::IsSuspect(MemberId) const { return false; }
bool Dispatcher::Reached(MemberId member) const {
  const Peer* peer = impl_->peers_.Find(member);
  return peer != nullptr && peer->up;
}
std::string_view Name(WorkerFault) { return ""; }

}  // namespace bottega
