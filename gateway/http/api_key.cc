#include "gateway/http/api_key.h"

#include <string_view>

#include "absl/strings/match.h"
#include "core/base/reason.h"

namespace bottega::gateway {
namespace {

// Time depends on the length of what was sent only.
bool SameInConstantTime(std::string_view key, std::string_view sent) {
  unsigned difference = key.size() != sent.size();
  for (size_t i = 0; i < sent.size(); ++i) {
    const char expected = key.empty() ? 0 : key[i % key.size()];
    difference |= static_cast<unsigned char>(expected) ^ static_cast<unsigned char>(sent[i]);
  }
  return difference == 0;
}

}  // namespace

absl::Status CheckApiKey(const std::vector<std::string>& keys, const std::string& authorization,
                         const std::string& api_key) {
  if (keys.empty()) return absl::OkStatus();
  constexpr std::string_view kBearer = "Bearer ";
  std::string_view sent = api_key;
  if (absl::StartsWithIgnoreCase(authorization, "bearer ")) {
    sent = std::string_view(authorization).substr(kBearer.size());
  }
  bool any = false;
  for (const std::string& key : keys) any |= !key.empty() && SameInConstantTime(key, sent);
  if (any) return absl::OkStatus();
  return MakeError(Reason::kInvalidApiKey, "a valid API key is needed");
}

}  // namespace bottega::gateway
