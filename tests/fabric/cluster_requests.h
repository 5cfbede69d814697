#pragma once

#include <string>
#include <vector>

#include "gateway/request.h"

namespace bottega::fabric {

class Answer;

// A request and all of its answer that may not depend on how it went: text, token ids, logprobs
// (doubles that are exactly the floats), ends, usage.
struct KnownRequest {
  gateway::Api api;
  std::string body;
  std::string answer;
};

// Requests of every kind: chat and completions, greedy and seeded, whole and streamed, several
// choices. Their answers come from a cluster of one of each without faults, a prefix cache
// and speculation, once a process.
const std::vector<KnownRequest>& KnownRequests();

// The part of an answer that is compared; the whole body where it is none.
std::string Comparable(const Answer& answer);

}  // namespace bottega::fabric
