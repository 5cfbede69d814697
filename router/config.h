#pragma once

#include <cstdint>
#include <string>

#include "core/base/time.h"
#include "core/cluster/liveness.h"

namespace bottega {

struct RouterConfig {
  std::string listen = "127.0.0.1:0";
  uint32_t replication = 1;
  LivenessOptions liveness;
  // How long a writer's hold lasts without being renewed, and so how long a writer that stands
  // still keeps the others waiting.
  Duration lease_ttl = std::chrono::seconds(2);
  // New expert workers are placed on once no other has come for so long: workers that start (or
  // come back to a new router) together are seen together.
  Duration settle = std::chrono::milliseconds(200);
  // A new router over workers that had one before places nothing until all had time to come back
  // (RouterSessionOptions::backoff_max and a connect): what they hold is served meanwhile.
  Duration return_window = std::chrono::milliseconds(1500);
  Duration rebalance_interval = std::chrono::seconds(30);
  // Measured load moves experts only when the busiest worker of a layer is this factor over fair.
  double rebalance_threshold = 1.25;
  bool replicate_hot = true;  // hot experts get extra replicas where there is room
  // An expert worker whose answers were wrong is out for so long, twice as long each time, and
  // until it has passed a self-test.
  Duration quarantine_min = std::chrono::seconds(5);
  Duration quarantine_max = std::chrono::minutes(10);
  Duration register_timeout = std::chrono::seconds(5);
};

}  // namespace bottega
