#include "gateway/answer_format.h"

#include <cmath>

namespace bottega::gateway {

Json UsageJson(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}}};
}

Json HeadJson(const AnswerHead& head, const char* object) {
  return {{"id", head.id},
          {"object", object},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", head.system_fingerprint}};
}

Json StopReasonJson(const ChoiceEnd& end) {
  if (const std::string* text = std::get_if<std::string>(&end.stop)) return *text;
  if (const int32_t* id = std::get_if<int32_t>(&end.stop)) return *id;
  return nullptr;
}

Json LogprobJson(float logprob) {
  return std::isfinite(logprob) ? static_cast<double>(logprob) : -9999.0;
}

}  // namespace bottega::gateway
