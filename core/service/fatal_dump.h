#pragma once

#include <string>

#include "observability/flight_recorder.h"

namespace bottega {

// A process that dies of a signal (a failed CHECK is one) leaves its last events: all of them in
// DIR/NAME-PID.flight, or the newest on stderr if there is no directory. The signal then ends it as
// it would have. One at a time: a signal handler can only find it through a static pointer. Not
// under sanitizers, whose own handlers say more.
class FatalDump {
 public:
  // `recorder` outlives it.
  FatalDump(const FlightRecorder& recorder, const std::string& name, const std::string& dir);
  ~FatalDump();
  FatalDump(const FatalDump&) = delete;
  FatalDump& operator=(const FatalDump&) = delete;

  // The same for a process that ends with an error by itself. Async-signal-safe.
  void Now() const;

 private:
  const FlightRecorder& recorder_;
  const std::string path_;  // empty: stderr
};

}  // namespace bottega
