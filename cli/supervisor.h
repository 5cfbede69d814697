#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/child_process.h"
#include "core/base/loop.h"

namespace bottega {

// A process of the local cluster.
struct ProcessPlan {
  std::string name;                    // "expert-2"
  std::vector<std::string> arguments;  // program first
  std::string admin_address;           // host:port
};

// Keeps the processes of a plan running: starts them in order, restarts what dies (with backoff),
// passes their output on line by line, ends them in order. Loop thread only.
class Supervisor {
 public:
  struct Events {
    std::function<void(const ProcessPlan&, pid_t)> on_start;
    std::function<void(const ProcessPlan&, std::string_view line)> on_line;
    std::function<void(const ProcessPlan&, const std::string& how)> on_death;
    // A process refuses to run (usage, model) or keeps dying young: the cluster cannot stand.
    std::function<void(const ProcessPlan&, int exit_code)> on_hopeless;
  };

  Supervisor(Loop& loop, NodeId node, std::vector<ProcessPlan> plans, Events events);
  ~Supervisor();

  void Start();
  // Ends `first` (names beginning so) and waits for it, then all others at once. Whatever is left
  // at the deadline is killed.
  Task<void> Stop(std::string first, Duration patience);
  void KillAll();

 private:
  struct Entry {
    ProcessPlan plan;
    std::unique_ptr<ChildProcess> child;  // while it runs
    Time started{};
    Duration backoff{};
    int young_deaths = 0;  // in a row
  };

  void Launch(Entry& entry);
  void OnExit(Entry& entry, int wait_status);
  Task<void> Relaunch(Entry* entry);
  Task<void> WaitFor(std::string prefix, Time deadline);

  Loop& loop_;
  const NodeId node_;
  Events events_;
  std::vector<std::unique_ptr<Entry>> entries_;
  Slot exited_;
  bool stopping_ = false;
};

}  // namespace bottega
