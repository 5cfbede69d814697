#pragma once

#include <memory>

#include "router/lease.h"
#include "router/state.h"

namespace bottega::router {

// One router's turns at writing. While it holds the lease there is a RouterState, made new for each
// term; without it this router is a standby: it answers nobody but `status`, and its members look
// further. Shared with the tasks of the server; loop thread only.
struct Leadership {
  Leadership(ServiceContext& context, RouterConfig config, std::unique_ptr<Lease> lease);

  ServiceContext& context;
  const RouterConfig config;
  const std::unique_ptr<Lease> lease;
  Metrics metrics;
  std::shared_ptr<RouterState> state;  // nullptr: standby
  bool lease_answers = false;          // it could be asked at least once
  bool stopping = false;
  bool released = false;  // stopped, and another may hold the lease
  Slot wake;
};

// Acquires the lease, writes while it is held, steps down when it is lost, when a member brings a
// table of a later term, or when this process stood still so long that its members may have given
// it up; then from the beginning. Ends once `stopping` and the lease is released.
Task<void> RunLeadership(std::shared_ptr<Leadership> self);

}  // namespace bottega::router
