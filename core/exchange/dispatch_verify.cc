// Double execution: the rows of a dispatch are computed once more by other replicas and compared
// byte for byte. It is the only thing that sees a bit which flipped in a worker's arithmetic or
// memory: such a row is finite and its frame's CRC is good.
#include <algorithm>
#include <cstring>

#include "core/exchange/dispatch_impl.h"

namespace bottega {

using namespace std::chrono_literals;
using Why = ActiveDispatch::Why;

namespace {

// Whoever is to say which of two rows is right may take so long.
constexpr Duration kVerifyMax = 500ms;

bool Same(const Opinion& a, const Opinion& b, uint32_t entry, size_t row_bytes) {
  return std::memcmp(a.rows.data() + entry * row_bytes, b.rows.data() + entry * row_bytes,
                     row_bytes) == 0;
}

}  // namespace

bool Dispatcher::Impl::AnotherReplica(const ActiveDispatch& active, uint32_t entry) const {
  const ExpertId expert{active.request.experts[entry]};
  for (MemberId member : table->ReplicasOf(active.request.layer, expert)) {
    const auto peer = peers.all().find(member);
    if (peer == peers.all().end() || !peer->second.up) continue;
    if (peer->second.down || peer->second.quarantined) continue;
    const bool refused = std::any_of(
        active.refused.begin(), active.refused.end(),
        [&](const RouteRefusal& r) { return r.member == member && r.expert == expert; });
    if (!refused) return true;
  }
  return false;
}

Task<Opinion> Dispatcher::Impl::Ask(const DispatchRequest* request, const std::vector<bool>* wanted,
                                    const Opinion* not_by, const Opinion* rather_not_by,
                                    bool hasty) {
  const size_t entries = wanted->size();
  Opinion opinion;
  opinion.rows.resize(entries * options_.shape.row_bytes());
  ActiveDispatch* active = Begin(*request, opinion.rows.data());
  ActiveGuard guard(*this, active);
  active->verifies = true;
  active->hasty = hasty;
  active->end = std::min(active->end, loop_.Now() + kVerifyMax);
  for (uint32_t e = 0; e < entries; ++e) {
    if ((*wanted)[e]) {
      Refuse(*active, not_by->by[e], ExpertId{request->experts[e]}, Why::kVerified);
    }
  }
  for (uint32_t e = 0; e < entries; ++e) {
    if (active->state[e] == EntryState::kDone) continue;
    if ((*wanted)[e] && AnotherReplica(*active, e)) continue;
    active->state[e] = EntryState::kDone;
    --active->waiting;
    --active->open;
  }
  for (uint32_t e = 0; e < entries && rather_not_by != nullptr; ++e) {
    if (active->state[e] == EntryState::kDone) continue;
    Refuse(*active, rather_not_by->by[e], ExpertId{request->experts[e]}, Why::kElsewhere);
  }
  co_await Fill(active);
  opinion.by = active->by;
  co_return opinion;
}

Task<void> Dispatcher::Impl::Verify(DispatchRequest request, std::byte* rows,
                                    std::vector<MemberId> by, DispatchResult* result) {
  ++stats.verified;
  const size_t row_bytes = options_.shape.row_bytes();
  Opinion first{.rows = {rows, rows + by.size() * row_bytes}, .by = std::move(by)};

  // 1. Once more, by others. A comparison that cannot be had at once is not worth a stream's stall.
  std::vector<bool> wanted(first.by.size(), true);
  const Opinion second = co_await Ask(&request, &wanted, &first, nullptr, /*hasty=*/true);
  for (uint32_t e = 0; e < wanted.size(); ++e) {
    wanted[e] = second.Has(e) && !Same(first, second, e, row_bytes);
    stats.verified_mismatches += wanted[e];
  }
  if (std::find(wanted.begin(), wanted.end(), true) == wanted.end()) co_return;

  // 2. Who is right? A third replica says. Where there is none the first is asked again: if it now
  // says what the second said, it was wrong before.
  const Opinion third = co_await Ask(&request, &wanted, &second, &first, /*hasty=*/false);
  std::vector<bool> open(wanted.size(), false);
  for (uint32_t e = 0; e < wanted.size(); ++e) {
    if (!wanted[e]) continue;
    if (third.Has(e) && Same(third, second, e, row_bytes)) {
      std::memcpy(rows + e * row_bytes, second.rows.data() + e * row_bytes, row_bytes);
      Quarantine(first.by[e], WorkerFault::kMismatch);
    } else if (third.Has(e) && third.by[e] != first.by[e] && Same(third, first, e, row_bytes)) {
      Quarantine(second.by[e], WorkerFault::kMismatch);
    } else {
      open[e] = true;
    }
  }
  if (std::find(open.begin(), open.end(), true) == open.end()) co_return;

  // 3. The first stays with what it said. If the second does not, it was the one.
  const Opinion fourth = co_await Ask(&request, &open, &first, nullptr, /*hasty=*/false);
  for (uint32_t e = 0; e < open.size(); ++e) {
    if (!open[e]) continue;
    if (third.Has(e) && Same(third, first, e, row_bytes) && fourth.Has(e) &&
        Same(fourth, first, e, row_bytes)) {
      Quarantine(second.by[e], WorkerFault::kMismatch);
    } else {
      Unresolved(request, e, result);
    }
  }
}

// Nobody can say which row is right: the request fails rather than go on with one of them.
void Dispatcher::Impl::Unresolved(const DispatchRequest& request, uint32_t entry,
                                  DispatchResult* result) {
  ++stats.verified_unresolved;
  const ExpertId expert{request.experts[entry]};
  const auto at = std::lower_bound(result->missing.begin(), result->missing.end(), expert);
  if (at == result->missing.end() || *at != expert) result->missing.insert(at, expert);
  const auto token = static_cast<int32_t>(entry / options_.shape.top_k);
  if (result->failed_tokens.empty() || result->failed_tokens.back() != token) {
    result->failed_tokens.push_back(token);
  }
}

}  // namespace bottega
