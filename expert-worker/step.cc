// The data path of the expert worker: poll, check, merge per layer, grouped gate_up, swiglu, down,
// reply. Work-conserving: it computes what is there and never waits for a silent peer.
#include <algorithm>
#include <cstring>
#include <utility>

#include "expert-worker/engine.h"

namespace bottega {

using namespace std::chrono_literals;

namespace {
// For the parts of a chunk of prefill.
constexpr Duration kPartsWaitMax = 2ms;
// Until an offered trial is given up for the next one.
constexpr Duration kTrialOfferMax = 500ms;
}  // namespace

Task<void> ExpertEngine::Run() {
  while (true) {
    UnloadRetired();
    if (arrivals_.empty()) {
      absl::Status woken = co_await arrivals_.slot().Wait();
    }
    if (arrivals_.waiting(FramePhase::kDecode)) {
      co_await RunWork(FramePhase::kDecode);
    } else if (arrivals_.waiting(FramePhase::kPrefill)) {
      co_await AwaitParts();
      co_await RunWork(FramePhase::kPrefill);
    }
    co_await context_.loop.Yield();
  }
}

// The parts of a chunk of prefill come one after the other, and the first alone would read nearly
// all experts for a few rows each. Waits while more arrives with each turn of the loop, at most
// kPartsWaitMax: never for a peer that is silent, nor while decode waits.
Task<void> ExpertEngine::AwaitParts() {
  const Time begun = context_.loop.Now();
  size_t before = 0;
  while (arrivals_.rows() > before && !arrivals_.waiting(FramePhase::kDecode) &&
         context_.loop.Now() - begun < kPartsWaitMax) {
    before = arrivals_.rows();
    co_await context_.loop.Yield();
  }
}

// poll: the transport calls this between two items.
void ExpertEngine::OnFrame(FrameBuffer frame) {
  std::shared_ptr<Pair> pair;
  const absl::StatusOr<FrameView> view =
      CheckFrame(frame.bytes(), options_.shape, context_.incarnation,
                 [&](Incarnation sender, uint64_t session_key) {
                   auto it = pairs_.find(sender);
                   if (it == pairs_.end() || it->second->session_key != session_key) return false;
                   pair = it->second;
                   return true;
                 });
  if (view.ok() && pair != nullptr) return Admit(std::move(frame), *view, pair);
  if (absl::IsFailedPrecondition(view.status())) {
    ++stats_.dropped_incarnation;
    return;
  }
  if (pair == nullptr) {
    ++stats_.dropped_stranger;
    return;
  }
  switch (view.status().code()) {
    case absl::StatusCode::kDataLoss:
      ++stats_.dropped_corrupt;
      ++stats_.nacks_corrupt;
      // Of the header nothing is sure but the pair; a wrong sequence is dropped over there.
      Nack(UncheckedHeader(frame.bytes()), *pair, FrameReason::kCorrupt);
      break;
    default:
      ++stats_.dropped_malformed;
  }
}

// check: credits, and that every expert is here.
void ExpertEngine::Admit(FrameBuffer frame, const FrameView& view,
                         const std::shared_ptr<Pair>& pair) {
  const FrameHeader& header = view.header;
  if (view.kind() == FrameKind::kProbe) return OnProbe(header, *pair);
  if (view.kind() != FrameKind::kForward) {
    ++stats_.dropped_malformed;
    return;
  }
  if (arrivals_.Holds(Incarnation{header.sender}, header.sequence)) {
    ++stats_.dropped_duplicate;
    return;
  }
  if (pair->rows > 0 && pair->rows + header.entries > pair->credits) {
    ++stats_.nacks_busy;
    return Nack(header, *pair, FrameReason::kBusy);
  }
  for (uint16_t expert : view.experts) {
    if (held_.Holds(LayerId{header.layer}, ExpertId{expert})) continue;
    ++stats_.nacks_not_held;
    return Nack(header, *pair, FrameReason::kNotHeld);
  }
  if (absl::Status fault = FAULT_POINT(context_.faults, "ew.mid_recv"); !fault.ok()) return;
  Arrival arrival;
  arrival.frame = std::move(frame);
  arrival.view = view;
  arrival.pair = pair;
  arrival.arrived = context_.loop.Now();
  if (header.remaining_us > 0) {
    arrival.expires = arrival.arrived + std::chrono::microseconds(header.remaining_us);
  }
  arrivals_.Push(std::move(arrival));
  OfferTrial();
}

void ExpertEngine::OnProbe(const FrameHeader& header, const Pair& pair) {
  const Incarnation sender{header.sender};
  if (header.reason == static_cast<uint8_t>(FrameReason::kTrial)) {
    arrivals_.Grant(sender, header.sequence);
    return;
  }
  const bool here = arrivals_.Holds(sender, header.sequence);
  Answer(AnswerTo(header, FrameKind::kAlive, here ? FrameReason::kQueued : FrameReason::kNotQueued),
         pair);
  OfferTrial();
}

// Rows under which workers died are computed when their asker knows it: if this process dies now,
// it was they. Whoever does not answer the offer makes room for the next.
void ExpertEngine::OfferTrial() {
  while (Arrival* next = arrivals_.next_trial()) {
    const Time now = context_.loop.Now();
    if (next->offered == kNever) next->offered = now;
    if (StillWanted(*next) && now - next->offered < kTrialOfferMax) {
      return Answer(AnswerTo(next->view.header, FrameKind::kAlive, FrameReason::kTrial),
                    *next->pair);
    }
    arrivals_.DropTrial();
  }
}

// merge → compute, in items of at most item_time → reply. Decode goes between the items of prefill.
Task<void> ExpertEngine::RunWork(FramePhase phase) {
  Work& work = work_[static_cast<size_t>(phase)];
  if (absl::Status fault = FAULT_POINT(context_.faults, "ew.step"); !fault.ok()) {
    co_await context_.loop.Sleep(1ms);  // as if there were no memory
    co_return;
  }
  const Time begun = context_.loop.Now();
  if (!Gather(&work)) {
    co_await context_.loop.Sleep(1ms);  // no memory for replies: some are on their way out
    co_return;
  }
  Measure(work, begun);
  size_t done = 0;
  while (done < work.rows.size()) {
    const Time start = context_.loop.Now();
    const size_t rows = RunSlice(work, done);
    done += rows;
    const Duration pretended = compute_.VirtualTime(rows);
    Learn(phase, rows, context_.loop.Now() - start + pretended);
    // A turn of the loop, even of length zero, polls the network. The last item's reply goes first.
    const bool last = done == work.rows.size();
    if (!last || pretended > Duration::zero()) co_await context_.loop.Sleep(pretended);
    while (phase == FramePhase::kPrefill && arrivals_.waiting(FramePhase::kDecode)) {
      co_await RunWork(FramePhase::kDecode);
      co_await context_.loop.Yield();
    }
  }
  Reply(work);
  work.Clear();
  OfferTrial();
}

// Merges what waits for one layer, by expert. False if there is no memory for any reply.
bool ExpertEngine::Gather(Work* work) {
  const size_t row_bytes = options_.shape.row_bytes();
  arrivals_.Take(work->phase, limits::kMergedRowsMax, &work->arrivals);
  bool starved = false;
  auto stays = work->arrivals.begin();
  for (Arrival& arrival : work->arrivals) {
    if (!StillWanted(arrival)) {
      arrivals_.Done(arrival);
      continue;
    }
    const FrameView& view = arrival.view;
    absl::StatusOr<FrameBuffer> reply =
        transport_.Lease(ReplyBytes(view.header.entries, row_bytes));
    if (!reply.ok()) {
      starved = true;
      ++stats_.nacks_busy;
      Nack(view.header, *arrival.pair, FrameReason::kBusy);
      arrivals_.Done(arrival);
      continue;
    }
    AddRows(view, reply->data() + sizeof(FrameHeader), work);
    CrashIf(view);
    work->layer = LayerId{view.header.layer};
    work->replies.push_back(*std::move(reply));
    if (&*stays != &arrival) *stays = std::move(arrival);
    ++stays;
  }
  work->arrivals.erase(stays, work->arrivals.end());
  // Not stable_sort, which allocates.
  std::sort(work->rows.begin(), work->rows.end(), [](const Row& a, const Row& b) {
    return std::pair(a.expert, a.arrived) < std::pair(b.expert, b.arrived);
  });
  return !(starved && work->arrivals.empty());
}

// `out`: where the first entry's row goes.
void ExpertEngine::AddRows(const FrameView& view, std::byte* out, Work* work) {
  const size_t row_bytes = options_.shape.row_bytes();
  for (uint32_t token = 0; token < view.header.tokens; ++token) {
    for (uint32_t i = view.offsets[token]; i < view.offsets[token + 1]; ++i) {
      work->rows.push_back({.expert = view.experts[i],
                            .arrived = static_cast<uint32_t>(work->rows.size()),
                            .in = view.rows + token * row_bytes,
                            .out = out});
      out += row_bytes;
    }
  }
}

// ew.crash_if=crash:N dies of a row whose first four bytes are N.
void ExpertEngine::CrashIf(const FrameView& view) {
  for (uint32_t token = 0; token < view.header.tokens; ++token) {
    int32_t value;
    std::memcpy(&value, view.rows + token * options_.shape.row_bytes(), sizeof value);
    (void)FAULT_POINT_IF(context_.faults, "ew.crash_if", value);
  }
}

// What came together, and how long it had waited.
void ExpertEngine::Measure(const Work& work, Time begun) {
  if (work.rows.empty()) return;
  for (const Arrival& arrival : work.arrivals) {
    stats_.queue.Observe(Seconds(begun - arrival.arrived));
  }
  size_t experts = 0, most = 0;
  for (size_t i = 0, end = 0; i < work.rows.size(); i = end, ++experts) {
    while (end < work.rows.size() && work.rows[end].expert == work.rows[i].expert) ++end;
    most = std::max(most, end - i);
  }
  const double rows = static_cast<double>(work.rows.size());
  stats_.experts_read += experts;
  stats_.rows.Observe(rows);
  stats_.imbalance.Observe(static_cast<double>(most * experts) / rows);
}

// Queued work may have outlived its asker, its deadline or its expert.
bool ExpertEngine::StillWanted(const Arrival& arrival) {
  const FrameHeader& header = arrival.view.header;
  if (arrival.pair->gone) {
    ++stats_.dropped_unpaired;
    return false;
  }
  if (context_.loop.Now() >= arrival.expires) {
    ++stats_.nacks_expired;
    Nack(header, *arrival.pair, FrameReason::kExpired);
    return false;
  }
  for (uint16_t expert : arrival.view.experts) {
    if (held_.Holds(LayerId{header.layer}, ExpertId{expert})) continue;
    ++stats_.nacks_not_held;
    Nack(header, *arrival.pair, FrameReason::kNotHeld);
    return false;
  }
  return true;
}

// One item: whole experts while they fit the time, at least some rows of one. Returns how many
// rows.
size_t ExpertEngine::RunSlice(const Work& work, size_t first) {
  const double item_us = Microseconds(options_.item_time);
  const size_t rows_max = static_cast<size_t>(std::clamp(
      item_us / std::max(phase_row_us(work.phase), 1e-3), 1.0, double{limits::kItemRowsMax}));
  size_t count = std::min(rows_max, work.rows.size() - first);
  // An expert that is cut in two is read twice.
  if (first + count < work.rows.size()) {
    size_t cut = first + count;
    const uint16_t expert = work.rows[cut].expert;
    while (cut > first && work.rows[cut - 1].expert == expert) --cut;
    if (cut > first) count = cut - first;
  }
  in_.clear();
  out_.clear();
  groups_.clear();
  for (size_t i = first; i < first + count; ++i) {
    in_.push_back(work.rows[i].in);
    out_.push_back(work.rows[i].out);
  }
  for (size_t i = 0; i < count;) {
    size_t end = i;
    const uint16_t expert = work.rows[first + i].expert;
    while (end < count && work.rows[first + end].expert == expert) ++end;
    expert_rows_[size_t{work.layer.value} * options_.shape.experts + expert] += end - i;
    groups_.push_back({ExpertId{expert}, absl::MakeConstSpan(in_).subspan(i, end - i),
                       absl::MakeSpan(out_).subspan(i, end - i)});
    i = end;
  }
  compute_.Run(work.layer, groups_);
  const ExpertCompute::Times times = compute_.LastTimes();
  stats_.gather.Observe(Seconds(times.gather));
  stats_.gate_up.Observe(Seconds(times.gate_up));
  stats_.down.Observe(Seconds(times.down));
  return count;
}

void ExpertEngine::Reply(Work& work) {
  const Time begin = context_.loop.Now();
  ++stats_.steps;
  stats_.step_rows = work.rows.size();
  for (size_t i = 0; i < work.arrivals.size(); ++i) {
    Arrival& arrival = work.arrivals[i];
    FrameBuffer& frame = work.replies[i];
    const FrameHeader& forward = arrival.view.header;
    const bool decode = forward.phase == static_cast<uint8_t>(FramePhase::kDecode);
    (decode ? stats_.rows_decode : stats_.rows_prefill) += forward.entries;
    arrivals_.Done(arrival);
    if (arrival.pair->gone) {
      ++stats_.dropped_unpaired;
      continue;
    }
    FrameHeader header = AnswerTo(forward, FrameKind::kReply, FrameReason::kNone);
    header.credits = arrival.pair->credits;
    const PeerCost cost = CostFor(*arrival.pair);
    header.remaining_us =
        static_cast<uint32_t>(std::min(1e9, cost.row_us * static_cast<double>(cost.queued_rows)));
    FAULT_CORRUPT(context_.faults, "ew.compute",
                  absl::MakeSpan(frame.data() + sizeof header, frame.size() - sizeof header));
    FAULT_CORRUPT(context_.faults, "ew.header",
                  absl::MakeSpan(reinterpret_cast<std::byte*>(&header), sizeof header));
    SealFrame(header, {frame.data(), frame.size()});
    FAULT_CORRUPT(context_.faults, "ew.reply", absl::MakeSpan(frame.data(), frame.size()));
    if (absl::Status fault = FAULT_POINT(context_.faults, "ew.before_reply"); !fault.ok()) continue;
    const Duration here = context_.loop.Now() - arrival.arrived;
    Note(context_.flight, {.kind = FlightKind::kComputed,
                           .key = forward.request_key,
                           .layer = forward.layer,
                           .a = forward.entries,
                           .b = static_cast<uint64_t>(here / 1us)});
    // A failure is the endpoint's, and the endpoint tells.
    absl::Status posted = transport_.Post(arrival.pair->endpoint, std::move(frame));
    if (absl::Status fault = FAULT_POINT(context_.faults, "ew.mid_send"); !fault.ok()) continue;
  }
  stats_.reply.Observe(Seconds(context_.loop.Now() - begin));
}

void ExpertEngine::Nack(const FrameHeader& forward, const Pair& pair, FrameReason reason) {
  FrameHeader header = AnswerTo(forward, FrameKind::kNack, reason);
  header.epoch = epoch_;
  header.sender = context_.incarnation.value;
  header.receiver = pair.attention.value;
  header.session_key = pair.session_key;
  Answer(header, pair);
}

void ExpertEngine::Answer(const FrameHeader& header, const Pair& pair) {
  absl::StatusOr<FrameBuffer> frame = transport_.Lease(sizeof header);
  if (!frame.ok()) return;  // silence: the other end asks again
  SealFrame(header, {frame->data(), frame->size()});
  absl::Status posted = transport_.Post(pair.endpoint, *std::move(frame));
}

}  // namespace bottega
