#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace bottega {

// What can be noted. `key` is a request's TraceKey or, of an attention worker's step, the step's
// number; names of a and b: the table in flight_recorder.cc.
enum class FlightKind : uint8_t {
  // Life of a request, in its gateway.
  kArrived,
  kPrepared,
  kPlaced,
  kFirstToken,
  kLost,
  kFinished,
  // Life of a sequence, in an attention worker.
  kTaken,
  kStarted,
  kPrefilled,
  kEnded,
  kCancelled,
  // What fault tolerance did, in an attention worker; key: the step.
  kResent,
  kHedged,
  kMissing,
  kPeerDown,
  kQuarantined,
  // The cluster, in the router; and the process itself.
  kTable,
  kMember,
  kReady,
  kDraining,
  // The data path: many a second, in a ring of their own.
  kVerified,
  kInStep,
  kStep,
  kSent,
  kReply,
  kComputed,
};
inline constexpr int kFlightKinds = static_cast<int>(FlightKind::kComputed) + 1;

struct FlightNote {
  FlightKind kind{};
  uint64_t key = 0;
  uint32_t peer = 0;  // MemberId of the other end
  uint16_t layer = 0;
  uint64_t a = 0;
  uint64_t b = 0;
};

struct FlightEvent {
  int64_t monotonic_ns = 0;
  FlightNote note;
};

// Of a request's id as clients know it, with or without "chatcmpl-" or "cmpl-": what stands for the
// id in the recorders. No id is kept.
uint64_t TraceKey(std::string_view request_id);

// What is asked of a recorder: "request=HEX" (everything about it, and about the steps it was in),
// "last=N" (that many of the newest; 2000 if not said).
struct FlightQuery {
  std::optional<uint64_t> request;
  size_t last = 2000;
};
FlightQuery ParseFlightQuery(std::string_view query);

// The last events of a process: two rings of fixed size, written by any thread without a lock (one
// atomic addition, a clock read and six stores), read while they are written. Numbers only: no
// prompts, answers, ids or keys of clients.
class FlightRecorder {
 public:
  // Events, powers of two, 48 bytes each. A step of a 24-layer model makes about 150 of the data
  // path, so these are its last 200 steps: some seconds at least.
  explicit FlightRecorder(size_t requests = 1 << 14, size_t steps = 1 << 15);

  void Record(const FlightNote& note);

  // Oldest first.
  std::vector<FlightEvent> Read(const FlightQuery& query) const;
  // {"process":NAME,"events":[{"us":unix time,"event":"sent","key":"hex",...},...]}
  std::string Json(std::string_view process, const FlightQuery& query) const;
  // The newest `most` of each ring as text, a line an event. Async-signal-safe: for a process that
  // is dying.
  void Dump(int fd, size_t most) const;

 private:
  // A slot is whole if its version is even and the same before and after it was read. Plain words,
  // accessed by atomic_ref, so that a ring is memory that the kernel zeroes as it is reached.
  struct Slot {
    uint64_t version;
    uint64_t words[5];
  };
  struct Free {
    void operator()(Slot* slots) const { std::free(slots); }
  };
  struct Ring {
    explicit Ring(size_t capacity);
    void Write(int64_t ns, const FlightNote& note);
    bool Read(uint64_t at, FlightEvent* event) const;
    uint64_t first() const;
    const size_t mask;
    const std::unique_ptr<Slot[], Free> slots;
    std::atomic<uint64_t> next{0};
  };

  Ring requests_;
  Ring steps_;
};

// Nothing where nobody records.
inline void Note(FlightRecorder* recorder, const FlightNote& note) {
  if (recorder != nullptr) recorder->Record(note);
}

}  // namespace bottega
