#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/fabric/cluster_requests.h"
#include "tests/fabric/cluster_world.h"

namespace bottega::fabric {

// One history of a whole cluster: requests at random times while the weather is bad, then calm.
//
// Bad weather keeps within what the cluster promises to survive: frames fail at their first attempt
// only; what costs a dispatch an attempt (a death, a broken pair or endpoint, a pause) comes one at
// a time; a replica of every expert lives, and so does an attention worker that the gateway knows;
// a request loses its attention worker at most three times. So every answer must come, and be the
// one without faults.
class ClusterHistory {
 public:
  explicit ClusterHistory(uint64_t seed);
  ~ClusterHistory();

  // What was wrong, empty if nothing.
  std::vector<std::string> Run();
  uint64_t trace_hash() { return world_.loop().trace_hash(); }

  struct Totals {
    uint64_t answers = 0, expert_deaths = 0, attention_deaths = 0, router_deaths = 0, pauses = 0,
             attention_pauses = 0, wrong_answers = 0, cuts = 0, broken_streams = 0,
             broken_endpoints = 0, cached_tokens = 0, frames_lost = 0, frames_copied = 0,
             frames_changed = 0;
    uint64_t faults() const {
      return expert_deaths + attention_deaths + router_deaths + pauses + attention_pauses +
             wrong_answers + cuts + broken_streams + broken_endpoints + frames_lost +
             frames_copied + frames_changed;
    }
    Duration longest_calm{};  // until all was at rest again
    void Add(const Totals& other);
  };
  Totals totals;

 private:
  struct Asked {
    const KnownRequest* request;
    std::shared_ptr<Answer> answer;
    Time at{};
    int losses;  // of its attention worker that it may have met
  };

  Task<void> Client();
  Task<void> Chaos();
  Task<void> RestartRouter(Duration after);
  Task<void> RestartAttention(uint32_t index, Duration after);
  Task<void> RestartExpert(uint32_t index, Duration after);
  Task<void> HealLater(std::vector<std::pair<NodeId, NodeId>> cuts, Duration after);
  // The worker dies at the next hit of a fault point, if one comes soon.
  Task<void> DisarmLater(Role role, uint32_t index, std::string point, Duration after);
  Duration Blow();
  Duration Absence();
  Duration KillExpert();
  Duration KillAttention();
  Duration KillRouter();
  Duration PauseAttention();
  Duration CrashExpert();
  Duration CrashAttention();
  Duration AnswerWrongly();
  Duration BreakStream();
  Duration Cut();
  Task<void> EndHazard(Duration after);
  // Whether every request can bear the loss of an attention worker now; if so they are taken to
  // meet it, and those that come within `time`.
  bool MayLoseAttention(Duration time);
  void SetFate(FrameFate* fate, absl::Span<const std::byte> frame);
  void Calm();
  void CheckAnswers();
  std::string NotAtRest();
  void Complain(const std::string& what);

  bool Chance(double p) { return world_.Chance(p); }
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>(world_.Below(n)); }
  Duration Between(Duration a, Duration b) { return world_.Between(a, b); }

  ClusterWorld world_;
  bool faults_ = true;
  bool asking_ = true;
  bool break_endpoint_ = false;
  bool wrong_ = false;  // an expert worker answers wrongly, or is not trusted again yet
  int hazards_ = 0;     // under way: new requests may meet them too
  Duration frame_delay_{};
  double drop_ = 0, copy_ = 0, corrupt_ = 0, slow_ = 0;  // per frame
  uint32_t blocks_ = 0;                                  // of an attention worker
  std::vector<Asked> asked_;
  std::vector<std::string> complaints_;
};

}  // namespace bottega::fabric
