#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "attention-worker/expert_links.h"
#include "core/base/fault_point.h"
#include "core/base/loop.h"
#include "core/exchange/dispatch.h"
#include "core/service/context.h"
#include "core/service/local_network.h"
#include "core/transport/loopback_transport.h"
#include "expert-worker/expert_server.h"
#include "observability/metrics.h"

namespace bottega::fabric {

// What goes wrong in a history. In the gentle kinds no dispatch may miss an expert; in kWild it
// may, but nothing may be changed, mixed or forgotten, and all must be well once the faults stop.
enum class Weather {
  kFrames,  // frames delayed, dropped, doubled, changed; endpoints break; never a third attempt's
  kDeaths,  // processes of both sides killed and restarted, one at a time; frames late
  kWild,    // all of it at once
};

// The actors of the exchange, whole: attention-side drivers (dispatcher and expert links as in an
// attention worker) and expert servers with pure functions for experts, on one simulated loop, over
// a network and a transport that fail by the seed. The world plays the router: it publishes tables.
class ExchangeWorld {
 public:
  ExchangeWorld(uint64_t seed, Weather weather);
  ~ExchangeWorld();

  // The whole history: faults, then calm. What was wrong, empty if nothing.
  std::vector<std::string> Run();
  uint64_t trace_hash() const { return loop_->trace_hash(); }

  struct Totals {
    uint64_t dispatches = 0, missing = 0, resends = 0, hedges = 0, dropped = 0, kills = 0,
             moves = 0, rows = 0;
  };
  Totals totals;

 private:
  struct Expert;
  struct Driver;

  // The world's own tasks.
  Task<void> Chaos();
  Task<void> Drive(Driver* driver);
  Task<void> RunJob(Driver* driver, bool calm);
  Task<void> PublishLater(Duration delay);
  Task<void> DeliverTable(uint32_t driver, uint64_t life, TableSnapshot table, Duration delay);

  FrameFate FateOf(const std::string& from, const std::string& to,
                   absl::Span<const std::byte> frame);
  void StartExpert(uint32_t index);
  void StopExpert(uint32_t index);
  void StartDriver(uint32_t index);
  void StopDriver(uint32_t index);
  void Move();
  void Publish();
  std::vector<ExpertRef> AssignmentOf(uint32_t expert_worker) const;
  void Complain(const std::string& what);
  void CheckAtRest();

  bool Chance(double p) { return static_cast<double>(loop_->SimRandom() >> 11) * 0x1p-53 < p; }
  uint64_t Below(uint64_t n) { return loop_->SimRandom() % n; }
  Duration Between(Duration a, Duration b) { return a + Duration(Below((b - a).count() + 1)); }

  const uint64_t seed_;
  const Weather weather_;
  std::unique_ptr<Loop> loop_;
  std::unique_ptr<LocalNetwork> network_;
  std::unique_ptr<LoopbackHub> hub_;
  ExchangeShape shape_;

  bool faults_ = true;
  bool reborn_ = false;
  Time last_down_{};
  double drop_ = 0, copy_ = 0, corrupt_ = 0, down_ = 0, slow_ = 0;  // per frame
  std::vector<std::unique_ptr<Expert>> experts_;
  std::vector<std::unique_ptr<Driver>> drivers_;
  std::vector<std::set<uint32_t>> placement_;  // [layer * experts + expert] → expert workers
  uint64_t epoch_ = 0;
  uint64_t lives_ = 0;
  uint32_t jobs_left_ = 0;
  std::vector<std::string> complaints_;
};

}  // namespace bottega::fabric
