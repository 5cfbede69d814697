#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/base/fault_point.h"
#include "core/base/reason.h"
#include "gateway/live_request.h"

// What happens to a live request while it runs, event by event.
namespace bottega::gateway {
namespace {

using internal::v1::Ended;
using internal::v1::GeneratedToken;

// A worker names its reason as core/base/reason.h does.
Reason ReasonNamed(const std::string& name) {
  for (const ReasonRow& row : ReasonTable()) {
    if (row.name == name) return row.reason;
  }
  return Reason::kInternalError;
}

absl::Status ClientGone() { return MakeError(Reason::kCancelled, "the client left"); }

}  // namespace

Task<absl::StatusOr<RequestEvent>> LiveRequest::NextEvent() {
  Time wake = deadline_;
  if (prepared_.request.stream) {
    wake = std::min(wake, last_shown_ + gateway_.config().keep_alive);
  }
  absl::StatusOr<RequestEvent> event = co_await events_.Receive(wake);
  co_return event;
}

absl::Status LiveRequest::HandleSilence(const absl::Status& why) {
  if (!absl::IsDeadlineExceeded(why)) return why;
  const Time now = gateway_.context().loop.Now();
  if (now >= deadline_) {
    return MakeError(Reason::kDeadlineExceeded, "the request's deadline passed");
  }
  writer_->KeepAlive();
  Shown();
  return writer_->broken() ? ClientGone() : absl::OkStatus();
}

absl::Status LiveRequest::Handle(const RequestEvent& event) {
  if (gateway_.context().loop.Now() >= deadline_) {
    return MakeError(Reason::kDeadlineExceeded, "the request's deadline passed");
  }
  switch (event.kind) {
    case RequestEvent::Kind::kToken:
      return OnToken(event.sequence, event);
    case RequestEvent::Kind::kEnded:
      return OnEnded(event.sequence, event);
    case RequestEvent::Kind::kLost:
      return OnLost(event.sequence, event);
    case RequestEvent::Kind::kFate:
      return OnFate(event.sequence, event.died);
    case RequestEvent::Kind::kTrial:
      OnTrial(event.sequence, event);
      return absl::OkStatus();
    case RequestEvent::Kind::kRefused:
      return event.status;
    case RequestEvent::Kind::kGone:
      break;
  }
  return ClientGone();
}

absl::Status LiveRequest::OnToken(int index, const RequestEvent& event) {
  Sequence& sequence = sequences_[index];
  const GeneratedToken& token = event.token;
  const TokenLog& log = sequence.choice->log();
  if (sequence.choice->ended() || token.owner_epoch() != log.owner_epoch()) {
    return absl::OkStatus();
  }
  if (token.finish() == internal::v1::FINISH_REASON_ERROR ||
      token.finish() == internal::v1::FINISH_REASON_BUSY || token.index() > log.size() ||
      token.id() < 0 || token.id() >= gateway_.model().vocab_size) {
    // Its cancel there comes into force after the step: at once it would refuse the key.
    gateway_.workers().Rest(event.worker);
    return Migrate(index, absl::InternalError("the worker broke the order of tokens"));
  }
  const Time begin = gateway_.context().loop.Now();
  std::optional<ChoiceDelta> delta = sequence.choice->Accept(token);
  gateway_.metrics().detokenize_seconds.Observe(Seconds(gateway_.context().loop.Now() - begin));
  if (!delta) return absl::OkStatus();  // a token that is logged already
  if (token.index() == 0) {
    const size_t prompt = prepared_.prompts[sequence.prompt].size();
    sequence.cached = static_cast<uint32_t>(std::min<size_t>(token.cached_tokens(), prompt));
  }
  ObserveToken(sequence);
  sequence.waiting_since = kNever;
  sequence.suspect = false;
  sequence.on_trial.reset();
  if (delta->end) {
    const bool by_worker = token.finish() != internal::v1::FINISH_REASON_UNSPECIFIED;
    if (!by_worker) gateway_.workers().Forget(sequence.key, true);
    sequence.running = false;
  }
  if (absl::Status fault = FAULT_POINT(gateway_.context().faults, "gw.before_flush"); !fault.ok()) {
    return fault;
  }
  Deliver(*delta);
  return writer_->broken() ? ClientGone() : absl::OkStatus();
}

void LiveRequest::ObserveToken(Sequence& sequence) {
  GatewayMetrics& metrics = gateway_.metrics();
  const Time now = gateway_.context().loop.Now();
  if (!any_token_) {
    any_token_ = true;
    metrics.time_to_first_token.Observe(Seconds(now - arrived_));
  }
  if (!sequence.last_token) {
    Record(FlightKind::kFirstToken, static_cast<uint64_t>(&sequence - sequences_.data()), 0);
  } else {
    metrics.inter_token_latency.Observe(Seconds(now - *sequence.last_token));
  }
  if (sequence.lost_at) {
    metrics.failover_stall.Observe(Seconds(now - *sequence.lost_at));
    metrics.Failover("resumed");
    sequence.lost_at.reset();
  }
  sequence.last_token = now;
  metrics.generation_tokens.Increment();
  metrics.token_log_bytes.Increment(sizeof(int32_t));
}

void LiveRequest::Deliver(const ChoiceDelta& delta) {
  writer_->Delta(delta, UsageSoFar());
  Shown();
  if (!delta.end) return;
  --unfinished_;
  gateway_.metrics().Finished(delta.end->reason);
  const int broken_calls = sequences_[delta.choice].choice->tool_parse_errors();
  gateway_.metrics().tool_parse_errors.Increment(broken_calls);
}

void LiveRequest::Shown() {
  last_shown_ = gateway_.context().loop.Now();
  if (counted_stream_ || !writer_->begun()) return;
  counted_stream_ = true;
  gateway_.metrics().open_streams.Increment();
}

absl::Status LiveRequest::OnEnded(int index, const RequestEvent& event) {
  Sequence& sequence = sequences_[index];
  const Ended& ended = event.ended;
  if (sequence.choice->ended()) return absl::OkStatus();
  switch (ended.finish()) {
    case internal::v1::FINISH_REASON_BUSY:
      // Granted twice: another gateway was faster. It keeps its turn.
      gateway_.workers().Rest(event.worker);
      sequence.choice->log().NewOwner();
      Route(index, true);
      return absl::OkStatus();
    case internal::v1::FINISH_REASON_STOP:
    case internal::v1::FINISH_REASON_LENGTH:
      sequence.running = false;
      Deliver(sequence.choice->EndWithout(ended.finish()));
      return absl::OkStatus();
    default:
      break;
  }
  const Reason reason = ReasonNamed(ended.reason());
  if (reason == Reason::kRequestQuarantined) return QuarantineThis();
  // A worker that empties itself: its sequences go on elsewhere.
  if (reason == Reason::kDraining) return GoOn(index, absl::UnavailableError(ended.message()));
  // Logits that are no numbers, say. Memory or a processor may have erred: once more, elsewhere if
  // there is an elsewhere. A request that brings it about by itself meets it again.
  if (reason == Reason::kInternalError && !std::exchange(sequence.replayed, true)) {
    gateway_.workers().Rest(event.worker);
    return Migrate(index, absl::InternalError(ended.message()));
  }
  return MakeError(reason, ended.message().empty() ? RowOf(reason).name : ended.message());
}

// Whoever was with a worker when it was lost may be the cause, so all of them go on as suspects.
// One that was on trial there is the cause, if the worker died.
absl::Status LiveRequest::OnLost(int index, const RequestEvent& event) {
  Sequence& sequence = sequences_[index];
  if (sequence.choice->ended()) return absl::OkStatus();
  if (event.drained) return GoOn(index, event.status);
  sequence.suspect = true;
  if (!sequence.on_trial) return Migrate(index, event.status);
  sequence.running = false;
  if (!sequence.lost_at) sequence.lost_at = gateway_.context().loop.Now();
  const Incarnation where = *sequence.on_trial;
  gateway_.workers().AskFate(event.worker, where, sequence.key, &events_, index);
  return absl::OkStatus();
}

absl::Status LiveRequest::OnFate(int index, bool died) {
  const Sequence& sequence = sequences_[index];
  if (sequence.choice->ended() || sequence.running) return absl::OkStatus();
  if (died) return QuarantineThis();
  return Migrate(index, absl::UnavailableError("its stream broke"));
}

void LiveRequest::OnTrial(int index, const RequestEvent& event) {
  Sequence& sequence = sequences_[index];
  if (!sequence.running || !sequence.suspect) return;
  // Without its message no trial begins, and the loss of the worker that follows is no verdict.
  if (!gateway_.workers().StartTrial(sequence.key)) return;
  sequence.on_trial = gateway_.workers().IncarnationOf(event.worker);
}

absl::Status LiveRequest::QuarantineThis() {
  gateway_.quarantine().Add(HashOf(prepared_), gateway_.context().loop.Now());
  gateway_.metrics().quarantined.Increment();
  gateway_.context().log.Error("ALARM: workers died of this request: it is quarantined",
                               http_.request_id);
  return Quarantined();
}

// A worker was lost or went wrong under it.
absl::Status LiveRequest::Migrate(int index, const absl::Status& why) {
  Sequence& sequence = sequences_[index];
  if (sequence.choice->ended()) return absl::OkStatus();
  if (++sequence.migrations > limits::kMigrationsMax) {
    gateway_.metrics().Failover("gave_up");
    return MakeError(
        Reason::kNoWorker,
        fmt::format("this request lost its attention worker {} times", sequence.migrations));
  }
  return GoOn(index, why);
}

// The request goes on at another worker from the token log; the client sees one stream.
absl::Status LiveRequest::GoOn(int index, const absl::Status& why) {
  Sequence& sequence = sequences_[index];
  if (sequence.running) gateway_.workers().Forget(sequence.key, true);
  gateway_.context().log.Warning(
      fmt::format("attention worker lost at token {}: {}", sequence.choice->log().size(),
                  std::string(why.message())),
      http_.request_id);
  Record(FlightKind::kLost, static_cast<uint64_t>(index), sequence.choice->log().size());
  if (!sequence.lost_at) sequence.lost_at = gateway_.context().loop.Now();
  sequence.on_trial.reset();
  sequence.waiting_since = kNever;
  sequence.choice->log().NewOwner();
  Route(index, true);
  return absl::OkStatus();
}

}  // namespace bottega::gateway
