#include "router/ops/quarantine.h"

#include <fmt/format.h>

#include <algorithm>

#include "router/ops/watch.h"

namespace bottega::router {
namespace {

bool Trusted(const MemberRecord& record) {
  return record.member.role == Role::kExpert && !record.quarantine;
}

void Quarantine(RouterState& state, MemberRecord& record, const std::string& reporter,
                const std::string& fault) {
  const RouterConfig& config = state.config;
  const int doublings = std::min(record.quarantines++, 20);
  const Duration time = std::min(config.quarantine_max, config.quarantine_min * (1 << doublings));
  record.quarantine = {.until = state.context.loop.Now() + time,
                       .tests_before = record.self_tests_passed};
  state.context.log.Error(fmt::format("ALARM: expert worker {} is quarantined: {} says {}",
                                      record.member.name, reporter, fault.substr(0, 32)));
  state.metrics.MemberChanged(Role::kExpert, "quarantined");
  TellQuarantine(record);
  state.PlaceWithin(Duration::zero(), MoveReason::kQuarantine);
}

}  // namespace

void TakeReports(RouterState& state, MemberId from, const internal::v1::Heartbeat& heartbeat) {
  const MemberRecord* reporter = state.Find(from);
  if (reporter->member.role != Role::kAttention) return;
  for (const internal::v1::BadWorker& bad : heartbeat.bad_workers()) {
    for (auto& [id, record] : state.members) {
      if (record.member.incarnation.value != bad.incarnation() || !Trusted(record)) continue;
      if (reporter->acked_epoch < record.readmitted_epoch) continue;
      Quarantine(state, record, reporter->member.name, bad.fault());
    }
  }
}

void ReviewQuarantine(RouterState& state, MemberRecord& record,
                      const internal::v1::Heartbeat& heartbeat) {
  record.self_tests_passed = heartbeat.self_tests_passed();
  if (!record.quarantine || state.context.loop.Now() < record.quarantine->until ||
      record.self_tests_passed <= record.quarantine->tests_before) {
    return;
  }
  record.quarantine.reset();
  record.readmitted_epoch = state.epoch + 1;  // the next table shows it
  state.context.log.Warning(
      fmt::format("expert worker {} passed its self-test and is used again", record.member.name));
  state.metrics.MemberChanged(Role::kExpert, "readmitted");
  state.PlaceWithin(Duration::zero(), MoveReason::kReturn);
}

void TellQuarantine(MemberRecord& record) {
  internal::v1::RouterMessage message;
  message.mutable_quarantine();
  SendOrEnd(record, message);
}

}  // namespace bottega::router
