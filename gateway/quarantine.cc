#include "gateway/quarantine.h"

#include <vector>

#include "absl/hash/hash.h"
#include "core/base/reason.h"

namespace bottega::gateway {

void Quarantine::Add(uint64_t request, Time now) {
  const auto [at, added] = until_.insert_or_assign(request, now + kTime);
  if (!added) return;
  order_.push_back(request);
  if (order_.size() <= kMax) return;
  until_.erase(order_.front());
  order_.pop_front();
}

bool Quarantine::Holds(uint64_t request, Time now) const {
  const auto found = until_.find(request);
  return found != until_.end() && now < found->second;
}

absl::Status Quarantined() {
  return MakeError(Reason::kRequestQuarantined,
                   "workers that ran this request died: it is refused for ten minutes");
}

uint64_t HashOf(const PreparedRequest& prepared) {
  const GenerateRequest& r = prepared.request;
  const std::vector<double> numbers = {
      r.temperature.value_or(-1),        r.top_p.value_or(-1), r.min_p.value_or(-1),
      r.repetition_penalty.value_or(-1), r.frequency_penalty,  r.presence_penalty};
  const std::vector<int64_t> counts = {r.top_k.value_or(-1),
                                       r.seed.value_or(-1),
                                       r.max_tokens.value_or(-1),
                                       r.max_completion_tokens.value_or(-1),
                                       r.min_tokens,
                                       r.thinking_budget.value_or(-1),
                                       r.n,
                                       r.ignore_eos,
                                       r.logprobs ? r.top_logprobs : -1};
  return absl::HashOf(prepared.prompts, r.stop_token_ids, numbers, counts, r.logit_bias,
                      r.allowed_token_ids, prepared.bad_words);
}

}  // namespace bottega::gateway
