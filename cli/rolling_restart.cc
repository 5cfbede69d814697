#include "cli/rolling_restart.h"

#include <fmt/format.h>

#include "cli/cluster_plan.h"
#include "cli/local_ports.h"
#include "core/base/status.h"

namespace bottega {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
constexpr Duration kLook = milliseconds(30);
constexpr Duration kReadyLimit = seconds(120);  // a large model is mapped and checked

// The drain limit of each kind of process, and a moment to end in.
Duration Patience(Role role) {
  switch (role) {
    case Role::kRouter:
      return seconds(5 + 2);
    case Role::kExpert:
      return seconds(120 + 5);
    case Role::kAttention:
      return seconds(30 + 5);
    case Role::kGateway:
      return seconds(300 + 5);
  }
  return seconds(30);
}

Task<absl::Status> WaitReady(Loop* loop, Supervisor* supervisor, Supervisor::Id id,
                             ProcessPlan plan, const bool* stopping) {
  const Time limit = loop->Now() + kReadyLimit;
  while (!AskReady(plan.admin_address).ready) {
    if (*stopping) co_return absl::CancelledError("the cluster ends");
    // In its own place it is restarted as ever; a gateway beside the old one is given up.
    if (plan.role == Role::kGateway && !supervisor->Runs(id)) {
      co_return absl::UnavailableError(fmt::format("{} does not run", plan.name));
    }
    if (loop->Now() > limit) {
      co_return absl::DeadlineExceededError(fmt::format("{} does not become ready", plan.name));
    }
    co_await loop->Sleep(kLook);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> RestartInPlace(Loop* loop, Supervisor* supervisor, Supervisor::Id id,
                                  ProcessPlan plan, const bool* stopping) {
  const Duration patience = Patience(plan.role);
  co_await supervisor->End(id, patience);
  if (*stopping) co_return absl::CancelledError("the cluster ends");
  supervisor->Restart(id);
  absl::Status ready = co_await WaitReady(loop, supervisor, id, plan, stopping);
  co_return ready;
}

Task<absl::Status> Replace(Loop* loop, Supervisor* supervisor, Supervisor::Id id, ProcessPlan plan,
                           const bool* stopping) {
  LocalPorts ports;
  absl::StatusOr<int> admin_port = ports.Take();
  if (!admin_port.ok()) co_return admin_port.status();
  ports.Release();
  const ProcessPlan next = Successor(plan, *admin_port);
  const Supervisor::Id successor = supervisor->Add(next);
  absl::Status ready = co_await WaitReady(loop, supervisor, successor, next, stopping);
  // Whichever of the two is not to stay.
  const Supervisor::Id leaves = ready.ok() ? id : successor;
  if (ready.ok()) supervisor->Keep(successor);
  const Duration patience = Patience(Role::kGateway);
  co_await supervisor->End(leaves, patience);
  if (!*stopping) supervisor->Remove(leaves);
  co_return ready;
}

}  // namespace

Task<absl::Status> RollCluster(Loop* loop, Supervisor* supervisor, const bool* stopping) {
  const std::vector<std::pair<Supervisor::Id, ProcessPlan>> all = supervisor->processes();
  for (Role role : {Role::kRouter, Role::kExpert, Role::kAttention, Role::kGateway}) {
    for (const auto& [id, plan] : all) {
      if (plan.role != role) continue;
      if (*stopping) co_return absl::CancelledError("the cluster ends");
      absl::Status done;
      if (role == Role::kGateway) {
        done = co_await Replace(loop, supervisor, id, plan, stopping);
      } else {
        done = co_await RestartInPlace(loop, supervisor, id, plan, stopping);
      }
      if (!done.ok()) co_return done;
    }
  }
  co_return absl::OkStatus();
}

}  // namespace bottega
