#pragma once

#include <memory>
#include <string>

#include "core/base/fault_point.h"
#include "core/base/loop.h"
#include "core/base/strong_id.h"
#include "core/cluster/table.h"
#include "core/service/network.h"
#include "observability/flight_recorder.h"
#include "observability/log.h"

namespace prometheus {
class Registry;
}

namespace bottega {

class LoadProgress;
class ScrapeHooks;

// What every part of one service is given instead of globals. One per service: a program has one,
// `bottega serve` and the fabric have several on one loop. Everything referred to outlives the
// service.
struct ServiceContext {
  Loop& loop;
  NodeId node;  // its tasks are spawned under this
  Network& network;
  prometheus::Registry& metrics;
  FaultPoints& faults;
  Role role;
  Incarnation incarnation;  // new at every start of the service
  std::string name;         // "expert-2"; unique in a cluster
  Logger log;
  ScrapeHooks* scrape = nullptr;     // null where nobody scrapes
  FlightRecorder* flight = nullptr;  // null where nobody records
  LoadProgress* load = nullptr;      // of the weights; null where nobody counts
};

// Different at every start on any machine: wall clock in µs mixed with random bits. Not for the
// fabric, which takes its incarnations from the loop's seed.
Incarnation NewIncarnation();

}  // namespace bottega
