#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/child_process.h"
#include "core/base/loop.h"
#include "core/cluster/table.h"

namespace bottega {

// A process of the local cluster.
struct ProcessPlan {
  Role role;
  std::string name;                    // "expert-2"
  std::vector<std::string> arguments;  // program first
  std::string admin_address;           // host:port
};

// Keeps the processes of a plan running: starts them in order, restarts what dies (with backoff),
// passes their output on line by line, ends them in order. Loop thread only.
class Supervisor {
 public:
  using Id = uint64_t;  // of one place in the cluster: a process and those that follow it there

  struct Events {
    std::function<void(const ProcessPlan&, pid_t)> on_start;
    std::function<void(const ProcessPlan&, std::string_view line)> on_line;
    std::function<void(const ProcessPlan&, const std::string& how)> on_death;
    // It was told to end, and did.
    std::function<void(const ProcessPlan&, const std::string& how)> on_end;
    // A process refuses to run (usage, model) or keeps dying young. It is tried again now and then;
    // this is said once, until it has lived.
    std::function<void(const ProcessPlan&, int exit_code)> on_refusal;
  };

  Supervisor(Loop& loop, NodeId node, std::vector<ProcessPlan> plans, Events events);
  ~Supervisor();

  void Start();

  std::vector<std::pair<Id, ProcessPlan>> processes() const;
  // One more process. It is restarted like the others once `Keep` was called.
  Id Add(ProcessPlan plan);
  void Keep(Id id);
  bool Runs(Id id) const;
  // Ends the process and waits for it: SIGTERM, so that it drains; again after `patience`, which
  // ends it at once; at last SIGKILL. Afterwards the place stays empty until Restart.
  Task<void> End(Id id, Duration patience);
  void Restart(Id id);
  void Remove(Id id);  // of an empty place

  // Interrupts `first` (names beginning so; SIGINT) and waits for it, then ends all others at once.
  // Whatever is left at the deadline is killed.
  Task<void> Stop(std::string first, Duration patience);
  void KillAll();

 private:
  struct Entry {
    Id id;
    ProcessPlan plan;
    std::unique_ptr<ChildProcess> child;  // while it runs
    bool kept = true;                     // what dies is restarted
    bool ending = false;                  // it was told to end
    Time started{};
    Duration backoff{};
    int young_deaths = 0;  // in a row
    bool refuses = false;
  };

  void Launch(Entry& entry);
  void OnExit(Entry& entry, int wait_status);
  void OnRefusal(Entry& entry, int code);
  Task<void> Relaunch(std::shared_ptr<Entry> entry);
  std::shared_ptr<Entry> Find(Id id) const;
  Task<void> WaitFor(std::string prefix, Time deadline);

  Loop& loop_;
  const NodeId node_;
  Events events_;
  std::vector<std::shared_ptr<Entry>> entries_;
  Id last_id_ = 0;
  Slot exited_;
  bool stopping_ = false;
};

}  // namespace bottega
