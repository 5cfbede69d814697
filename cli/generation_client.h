#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bottega/internal/v1/attention.pb.h"
#include "core/service/context.h"
#include "core/service/network.h"

namespace bottega {

struct GenerationRequest {
  std::vector<int32_t> prompt;
  int64_t tokens = 1;      // to generate; none of them is the end
  double temperature = 0;  // 0: greedy
};

// What has come of one sequence so far.
struct Generation {
  Time submitted{};
  std::vector<Time> tokens;  // when each was received
  bool done = false;
};

// Speaks with an attention worker as a gateway does, over its stream, and keeps the times. Loop
// thread only; one coroutine uses it.
class GenerationClient {
 public:
  // `self`: a context of role gateway, which outlives the client.
  static Task<absl::StatusOr<std::unique_ptr<GenerationClient>>> Connect(const ServiceContext* self,
                                                                         std::string address);

  // Keys are never used twice.
  absl::Status Submit(uint64_t key, const GenerationRequest& request);
  // Takes in the worker's next message and says how many tokens it brought; DeadlineExceeded if
  // none came. Any sequence that fails is the client's failure.
  Task<absl::StatusOr<int64_t>> Receive(Time deadline);
  // Stops what still runs, waits until the worker has forgotten it, and forgets it too.
  Task<absl::Status> Reset();

  const Generation& at(uint64_t key) const { return generations_.at(key); }
  // Sequences that the worker has and has not finished.
  int64_t live() const { return live_; }
  int64_t slots() const { return slots_; }  // that it can have

 private:
  using Stream = MessageStream<internal::v1::GatewayMessage, internal::v1::AttentionMessage>;
  GenerationClient(Loop& loop, std::unique_ptr<ByteStream> bytes)
      : loop_(loop), stream_(std::move(bytes)) {}

  Loop& loop_;
  Stream stream_;
  std::map<uint64_t, Generation> generations_;
  int64_t live_ = 0;
  int64_t slots_ = 0;
  int64_t free_slots_ = 0;  // as the worker's last message has it
};

}  // namespace bottega
