#include "router/ops/register.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/cluster/protocol.h"
#include "core/service/table_codec.h"
#include "router/ops/quarantine.h"
#include "router/ops/watch.h"

namespace bottega::router {
namespace {

bool IsWorker(Role role) { return role == Role::kAttention || role == Role::kExpert; }

absl::Status CheckModel(const RouterState& state, const internal::v1::Register& request,
                        const Member& member) {
  if (!IsWorker(member.role)) return absl::OkStatus();
  if (request.layers() == 0 || request.experts() == 0 || request.model_digest().empty()) {
    return MakeError(Reason::kInvalidValue, "a worker must say which model it serves");
  }
  if (state.model_digest.empty()) return absl::OkStatus();  // the first worker decides
  if (request.model_digest() != state.model_digest || request.layers() != state.layers ||
      request.experts() != state.experts) {
    return MakeError(
        Reason::kModelRefused,
        fmt::format("{} serves model {}, this cluster serves {}", member.name,
                    request.model_digest().substr(0, 16), state.model_digest.substr(0, 16)));
  }
  if (member.numerics_id != state.numerics_id) {
    return MakeError(Reason::kModelRefused,
                     fmt::format("{} computes {}, this cluster computes {}", member.name,
                                 member.numerics_id, state.numerics_id));
  }
  return absl::OkStatus();
}

void AdoptModel(RouterState& state, const internal::v1::Register& request, const Member& member) {
  if (!IsWorker(member.role) || !state.model_digest.empty()) return;
  state.model_digest = request.model_digest();
  state.numerics_id = member.numerics_id;
  state.layers = request.layers();
  state.experts = request.experts();
  state.dense_layers.assign(state.layers, false);
  for (uint32_t layer : request.dense_layers()) {
    if (layer < state.layers) state.dense_layers[layer] = true;
  }
  state.wanted.clear();
  state.retiring.clear();
}

// Stable for a name as long as this router lives; an id from before its start is kept if it is
// free.
MemberId IdFor(RouterState& state, const Member& member) {
  auto known = state.known_names.find(member.name);
  if (known != state.known_names.end()) return known->second;
  MemberId id = member.id;
  const bool taken = std::any_of(state.known_names.begin(), state.known_names.end(),
                                 [&](const auto& entry) { return entry.second == id; });
  if (id.value == 0 || id.value > (1u << 30) || taken) id = MemberId{state.next_id};
  state.next_id = std::max(state.next_id, id.value + 1);
  if (state.known_names.size() >= 4 * limits::kMembersMax) {
    // Names that never come back (a process id in each) must not grow without bound.
    std::erase_if(state.known_names,
                  [&](const auto& entry) { return !state.members.contains(entry.second); });
  }
  state.known_names[member.name] = id;
  return id;
}

// A table of an earlier writer is in use: ours goes on above it, and its other members come back.
void GoOnAbove(RouterState& state, uint64_t term, uint64_t epoch) {
  if (term == 0 || term == state.term) return;
  state.place_not_before = state.started + state.config.return_window;
  if (state.place_at) state.place_at = std::max(*state.place_at, state.place_not_before);
  state.epoch = std::max(state.epoch, epoch);
}

// Terms are milliseconds of the wall clock, epochs count from 1: neither comes near.
constexpr uint64_t kNumberMax = uint64_t{1} << 62;

absl::Status CheckProtocol(const Member& member) {
  if (member.protocol_min <= kProtocol && kProtocol <= member.protocol_max) return absl::OkStatus();
  return MakeError(Reason::kModelRefused,
                   fmt::format("{} speaks protocols {} to {}, this cluster {}", member.name,
                               member.protocol_min, member.protocol_max, kProtocol));
}

// Ends an older session of `id`. The record of the same process, if it only comes back on another
// stream; nothing for a new process, whose predecessor is told that it is over.
absl::StatusOr<std::optional<MemberRecord>> TakeOver(RouterState& state, MemberId id,
                                                     const Member& member) {
  MemberRecord* old = state.Find(id);
  if (old == nullptr) return std::optional<MemberRecord>();
  // Incarnations follow the wall clock, which may have gone back: they decide between two that
  // live.
  if (old->stream != nullptr && old->member.incarnation > member.incarnation) {
    state.metrics.MemberChanged(member.role, "refused");
    return absl::AlreadyExistsError(
        fmt::format("{}: a newer process of this name is a member", member.name));
  }
  const bool back = old->member.incarnation == member.incarnation;
  if (old->stream != nullptr) {
    if (!back) {  // two processes of one name are alive: a restart would have ended the stream
      state.metrics.MemberChanged(member.role, "replaced");
      state.context.log.Warning(fmt::format("{} {}: a newer process takes the name over",
                                            Name(member.role), member.name));
    }
    old->stream->Close(back ? absl::UnavailableError("came back on another stream")
                            : absl::AlreadyExistsError(fmt::format(
                                  "{}: a newer process of this name took over", member.name)));
  }
  return back ? std::optional<MemberRecord>(*old) : std::nullopt;
}

void NoteExperts(const RouterState& state, const internal::v1::Register& request,
                 const std::vector<ExpertRef>& held, MemberRecord* record) {
  record->capacity = request.expert_bytes() == 0
                         ? state.keys()
                         : request.capacity_bytes() / request.expert_bytes();
  record->held.assign(state.keys(), false);
  for (const ExpertRef& expert : held) {
    const ExpertKey key = expert.layer.value * state.experts + expert.expert.value;
    record->held[key] = true;
    record->held_order.push_back(key);
  }
  // What a member brings along stays with it until something else is decided.
  record->assigned = record->held;
}

// It was told to let these go, but the stream may have broken before it heard: it is told again.
void ForgetWhatItLetGo(const MemberRecord& before, MemberRecord* record) {
  for (ExpertKey key = 0; key < std::min(before.assigned.size(), record->assigned.size()); ++key) {
    if (!before.assigned[key]) record->assigned[key] = false;
  }
  record->tell_again = true;
}

void SayWelcome(const RouterState& state, MemberRecord& record) {
  internal::v1::RouterMessage welcome;
  welcome.mutable_welcome()->set_member_id(record.member.id.value);
  welcome.mutable_welcome()->set_term(state.term);
  SendOrEnd(record, welcome);
  if (state.table == nullptr || state.table->term != state.term) return;
  SendTable(state, record);
}

}  // namespace

absl::StatusOr<MemberId> Register(RouterState& state, const internal::v1::Register& request,
                                  std::shared_ptr<SessionStream> stream) {
  const absl::Status no_writer = absl::UnavailableError("this router writes no more");
  if (!state.MayWrite()) return no_writer;
  if (request.acked_term() > kNumberMax || request.acked_epoch() > kNumberMax) {
    return MakeError(Reason::kInvalidValue, "a term or an epoch that no router has given");
  }
  ASSIGN_OR_RETURN(Member member, DecodeMember(request.member()));
  absl::Status fits = CheckProtocol(member);
  if (fits.ok()) fits = CheckModel(state, request, member);
  if (!fits.ok()) {
    state.metrics.MemberChanged(member.role, "refused");
    return fits;
  }
  ASSIGN_OR_RETURN(std::vector<ExpertRef> held,
                   DecodeExperts(request.held(), request.layers(), request.experts()));
  // Of this cluster, as far as can be known: the term that it has seen counts.
  if (request.acked_term() > state.term) {
    state.superseded_by = request.acked_term();
    EndTerm(state, fmt::format("a member has a table of term {}", request.acked_term()));
  }
  if (!state.MayWrite()) return no_writer;
  if (state.members.size() >= limits::kMembersMax) {
    return absl::ResourceExhaustedError("kMembersMax is reached");
  }
  const MemberId id = IdFor(state, member);
  ASSIGN_OR_RETURN(const std::optional<MemberRecord> before, TakeOver(state, id, member));
  AdoptModel(state, request, member);
  GoOnAbove(state, request.acked_term(), request.acked_epoch());

  MemberRecord record;
  record.member = std::move(member);
  record.member.id = id;
  record.member.state = MemberState::kJoining;
  record.stream = std::move(stream);
  record.brought_table = request.acked_term() != 0 && request.acked_term() != state.term;
  record.signs.last_heartbeat = state.context.loop.Now();
  record.drain_wanted = before && before->drain_wanted;
  if (record.member.role == Role::kExpert) {
    NoteExperts(state, request, held, &record);
    if (before) {
      ForgetWhatItLetGo(*before, &record);
      record.quarantine = before->quarantine;
      record.quarantines = before->quarantines;
      record.self_tests_passed = before->self_tests_passed;
      record.readmitted_epoch = before->readmitted_epoch;
    }
    if (!before) state.PlaceWithin(state.config.settle, MoveReason::kJoin);
  }
  if (!before) {
    state.context.log.Info(fmt::format("{} {} joined as {} with {} experts",
                                       Name(record.member.role), record.member.name, id.value,
                                       held.size()));
    state.metrics.MemberChanged(record.member.role, "joined");
  }
  MemberRecord& added = state.members[id] = std::move(record);
  SayWelcome(state, added);
  if (added.quarantine) TellQuarantine(added);
  state.Touch();
  return id;
}

void SessionEnded(RouterState& state, MemberId id, const SessionStream* stream,
                  const absl::Status& why) {
  MemberRecord* record = state.Find(id);
  if (record == nullptr || record->stream.get() != stream) return;
  record->stream.reset();
  if (absl::IsCancelled(why) && why.message() == "closed") {
    RemoveMember(state, id, "left");
    return;
  }
  record->signs.stream_ended = state.context.loop.Now();
  state.judge.Wake();
}

}  // namespace bottega::router
