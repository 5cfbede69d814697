#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/base/load_progress.h"

namespace prometheus {
class Collectable;
}

namespace bottega {

class FaultPoints;

// What /live and /ready answer. Any thread sets, the admin thread reads.
class Health {
 public:
  // "ready", or why not: "loading", "draining", "no_worker", "experts_unavailable".
  void SetReady() ABSL_LOCKS_EXCLUDED(mutex_) { Set("ready"); }
  void SetNotReady(std::string status) ABSL_LOCKS_EXCLUDED(mutex_) { Set(std::move(status)); }
  // Not live: the supervisor should end this process.
  void SetLive(bool live) ABSL_LOCKS_EXCLUDED(mutex_);
  // Who loads weights tells it here.
  LoadProgress& load() { return load_; }
  const LoadProgress& load() const { return load_; }

  struct Snapshot {
    bool live = true;  // no load stands still for kLoadStallMax either
    std::string status = "loading";
    double progress = 0;  // of the load; where there is none: 1 when ready
    bool ready() const { return status == "ready"; }
  };
  Snapshot Read() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Set(std::string status) ABSL_LOCKS_EXCLUDED(mutex_);
  LoadProgress load_;
  mutable absl::Mutex mutex_;
  Snapshot now_ ABSL_GUARDED_BY(mutex_);
};

struct AdminHttpOptions {
  std::string host = "127.0.0.1";
  int port = 9090;           // 0 picks one
  std::string version_json;  // answer of /version
  // Armed by POST /faults where fault points are compiled in; null: no such route.
  FaultPoints* faults = nullptr;
  // Answer of /flight?QUERY, the process' last events; null: there is no such page. Admin thread.
  std::function<std::string(std::string_view query)> flight;
};

// GET /live /ready /health /ping /version /metrics /flight on a thread of its own, so that it
// answers while the loop computes or loads. Internal: no key. Bodies: {"status":"ready"}, or 503
// with
// {"status":"loading","progress":0.42}.
class AdminHttp {
 public:
  // A busy port is Unavailable with the port in the message. `metrics` (registries and collectors;
  // several in `bottega serve`) are scraped in order, and families of one name are merged; they
  // and `health` outlive the server.
  static absl::StatusOr<std::unique_ptr<AdminHttp>> Start(
      const AdminHttpOptions& options, const Health& health,
      std::vector<prometheus::Collectable*> metrics);
  ~AdminHttp();  // stops the thread; connections in progress are cut

  int port() const;
  std::string address() const;  // host:port

 private:
  struct Server;
  explicit AdminHttp(std::unique_ptr<Server> server);
  std::unique_ptr<Server> server_;
};

}  // namespace bottega
