#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/cluster/liveness.h"
#include "core/cluster/table.h"
#include "core/service/context.h"

namespace bottega {

// What a member tells the router about itself when it registers.
struct MemberSelf {
  Member member;             // id and state are the router's to give
  std::string model_digest;  // empty: gateway
  uint32_t layers = 0;
  uint32_t experts = 0;            // per layer
  uint64_t expert_bytes = 0;       // of one expert
  uint64_t capacity_bytes = 0;     // expert workers: for experts
  std::vector<bool> dense_layers;  // [layer]; empty: every layer has experts
};

// The routers of a comma-separated list; at least one.
std::vector<std::string> RouterAddresses(const std::string& list);

struct RouterSessionOptions {
  std::string router_address;                        // host:port; of several routers all, by commas
  Duration heartbeat_interval = kHeartbeatInterval;  // while its load is 1 or more
  Duration idle_interval = kIdleHeartbeatInterval;
  Duration connect_timeout = std::chrono::seconds(1);
  Duration backoff_min = std::chrono::milliseconds(50);
  Duration backoff_max = std::chrono::seconds(1);
  // A router tells each 400 ms that it turns; one that is silent for so long is given up. By then
  // its lease (RouterConfig::lease_ttl) has run out too.
  Duration silence_max = std::chrono::seconds(2);
  Duration drain_alone = std::chrono::seconds(3);
};

// The member's side of `Router.Session`: keeps one stream to the router for as long as the process
// lives; of several routers to the one that writes, which it finds by asking round. Takes nothing
// from a router of an earlier term than its table's. Registers, sends a heartbeat each interval if
// the progress counter moved (and says in it when to expect the next), reconnects with backoff and
// jitter, publishes each newer table and acknowledges it, hands over assignments. While the router
// is away the last table stays in use. Loop thread only.
class RouterSession {
 public:
  struct Callbacks {
    // A newer table; (term, epoch) only grows. In use once this has returned, and acknowledged. May
    // be empty: table() has it too.
    std::function<void(TableSnapshot)> on_table;
    // All that this expert worker should hold, ascending.
    std::function<void(std::vector<ExpertRef>)> on_assignment;
    // Rows a second (expert), running requests (attention); may be empty.
    std::function<double()> load;
    // Rows a second of each of `held`, in that order; may be empty. Asked every 2 s.
    std::function<std::vector<float>(const std::vector<ExpertRef>& held)> expert_load;
    // Expert workers that this attention worker gives no more work, and why; may be empty.
    std::function<std::vector<std::pair<Incarnation, std::string>>()> bad_workers;
    // The router takes this expert worker's answers for wrong: it tests itself and counts in
    // self_tests_passed when that went well. Both may be empty.
    std::function<void()> on_quarantine;
    std::function<uint64_t()> self_tests_passed;
    // Endpoints of the data plane that are up, by kind of transport; may be empty.
    std::function<std::map<std::string, uint32_t>()> endpoints;
    // Moves while the process gets work done; empty: the loop's turns.
    std::function<uint64_t()> progress;
    // The router refuses this member for good (digest, protocol): the process ends with `why`.
    std::function<void(absl::Status why)> on_refused;
  };

  RouterSession(ServiceContext& context, MemberSelf self, RouterSessionOptions options,
                Callbacks callbacks);
  ~RouterSession();

  // Spawns its tasks under the context's node.
  void Start();
  // Ends the stream in order and the tasks at their next turn. A session that is destroyed without
  // it is for killed nodes.
  void Stop();

  // Ready to serve; told to the router with the next heartbeat.
  void SetHeld(std::vector<ExpertRef> held);
  // Something of the callbacks' has changed that the router should know before the next beat.
  void Tell();

  // Asks to leave; Ok when nothing points here any more. Unavailable if it has not let this member
  // go at the deadline, or is away for drain_alone: then nobody will, and a cluster that is shut
  // down at once need not wait.
  Task<absl::Status> Drain(Time deadline);
  // Until a table of epoch > 0 is here, or DeadlineExceeded.
  Task<absl::Status> WaitForTable(Time deadline);

  TableSnapshot table() const;  // nullptr before the first
  std::optional<MemberId> id() const;
  bool connected() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace bottega
