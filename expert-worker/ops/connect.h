#pragma once

#include <memory>
#include <string>

#include "core/service/network.h"
#include "expert-worker/engine.h"

namespace bottega {

// What both ends of a pair must share.
struct PairTerms {
  uint32_t protocol = 1;
  std::string model_digest;
  std::string numerics_id;
};

// One Expert.Pair stream, from an attention worker's hello to its end: checks the terms, chooses
// the transport and opens this end, welcomes with its address, a session key and the cost model,
// connects to the other end when it is told, tells the cost model as it changes. The end of the
// stream is the end of the pair.
Task<void> Connect(ExpertEngine* engine, PairTerms terms, std::unique_ptr<ByteStream> bytes);

}  // namespace bottega
