#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bottega/internal/v1/membership.pb.h"
#include "core/cluster/liveness.h"
#include "core/cluster/table.h"
#include "core/service/context.h"
#include "router/config.h"
#include "router/metrics.h"

namespace bottega::router {

using SessionStream = MessageStream<internal::v1::RouterMessage, internal::v1::MemberMessage>;

// layer * experts + expert: the unit of placement as an index.
using ExpertKey = uint32_t;

// An expert worker whose answers attention workers found wrong.
struct QuarantineRecord {
  Time until{};               // not before, however it tests
  uint64_t tests_before = 0;  // self-tests passed when it began
};

// One member, from its registration until it left or died.
struct MemberRecord {
  Member member;
  std::shared_ptr<SessionStream> stream;  // nullptr while its session is broken
  LifeSigns signs;
  uint64_t acked_epoch = 0;    // of our term; 0: it reads an older table or none
  bool brought_table = false;  // it came with a table of an earlier router
  bool table_due = false;      // it was not sent `table` while the return window is open
  double load = 0;
  std::map<std::string, uint32_t> endpoints;  // of the data plane, up, by kind
  bool drain_wanted = false;
  uint64_t draining_since = 0;  // first epoch that shows it as draining; 0: not yet
  bool leave_sent = false;

  // Expert workers only.
  uint64_t capacity = 0;              // experts that fit
  std::vector<bool> held;             // [key] ready to serve, as it says
  std::vector<bool> assigned;         // [key] what it was last told to hold
  bool tell_again = false;            // it may not have heard `assigned`
  std::vector<ExpertKey> held_order;  // as it last reported them, for expert_load
  std::vector<float> expert_load;     // [key] rows a second; empty: never reported
  std::optional<QuarantineRecord> quarantine;
  int quarantines = 0;                // so far
  uint64_t self_tests_passed = 0;     // as it says
  uint64_t readmitted_epoch = 0;      // reports by readers of older tables are old news
  std::optional<Time> loading_since;  // an assignment has brought work that is not done
};

// All that a router knows while it writes, for one term. Soft: rebuilt from what the members say.
// One owner (Leadership), shared with the tasks of its sessions; loop thread only.
struct RouterState {
  RouterState(ServiceContext& context, RouterConfig config, Metrics& metrics, uint64_t term);

  ServiceContext& context;
  const RouterConfig config;
  Metrics& metrics;

  std::map<MemberId, MemberRecord> members;
  std::map<std::string, MemberId> known_names;  // also of members that are gone: ids are stable
  // Ids of one term begin far from those of another: a worker that is new to a new router must not
  // be given the id of a member that has yet to come back.
  uint32_t next_id;

  // The model of this cluster, as the first worker said; members that differ are refused.
  std::string model_digest;
  std::string numerics_id;
  uint32_t layers = 0;
  uint32_t experts = 0;
  std::vector<bool> dense_layers;

  const uint64_t term;
  uint64_t epoch = 0;                         // of `table`
  TableSnapshot table;                        // nullptr before the first worker
  std::vector<std::vector<MemberId>> wanted;  // [key] holders, as last placed
  std::vector<double> load;                   // [key] rows a second, smoothed; empty: none yet
  std::vector<MoveReason> why_wanted;         // [key] reason of the last change of `wanted`
  std::optional<Time> place_at;               // when to place anew; empty: no reason to
  MoveReason place_why = MoveReason::kReturn;
  Time place_not_before{};  // the return window of a new router
  Time place_asked{};       // since when, for a place_at that is put off
  // A replica that left the table, and the first epoch without it: its worker keeps it until every
  // attention worker reads that epoch or a later one.
  std::map<std::pair<ExpertKey, MemberId>, uint64_t> retiring;

  const Time started;
  Slot changed;  // wakes the table writer
  Slot judge;    // wakes the liveness checker: a sign that needs no clock
  Slot ended;    // wakes who holds the lease
  bool stopping = false;
  uint64_t superseded_by = 0;  // term of a later writer's table that a member brought
  // Until when it may write: the lease's end, and when members begin to give up a router that
  // stands still. A process that was stopped finds both passed before it does anything else.
  Time lease_until = kNever;
  Time awake_until = kNever;

  bool MayWrite() const {
    const Time now = context.loop.Now();
    return !stopping && now < lease_until && now < awake_until;
  }
  MemberRecord* Find(MemberId id) {
    auto it = members.find(id);
    return it == members.end() ? nullptr : &it->second;
  }
  size_t keys() const { return size_t{layers} * experts; }
  bool IsDense(uint32_t layer) const { return layer < dense_layers.size() && dense_layers[layer]; }
  // Something changed that the table or an assignment may follow from.
  void Touch() { changed.Wake(); }
  // Others of the time before this router may still come back.
  bool ReturnWindowOpen() const { return context.loop.Now() < place_not_before; }
  // At once for a zero `delay`; else so much after the last such call. Never before
  // place_not_before.
  void PlaceWithin(Duration delay, MoveReason why);
};

// The member is gone: out of the table at once, its experts are placed elsewhere.
void RemoveMember(RouterState& state, MemberId id, const char* change);

// This router writes no more in this term: every session is ended, and its member goes to whoever
// writes now. Nothing after the first call.
void EndTerm(RouterState& state, std::string_view why);

}  // namespace bottega::router
