#include "core/transport/transport.h"

#include <algorithm>

namespace bottega {

std::vector<std::string> CommonKinds(const TransportOffer& ours, const TransportOffer& theirs) {
  std::vector<std::string> common;
  for (const std::string& kind : ours.kinds) {
    const bool spoken =
        std::find(theirs.kinds.begin(), theirs.kinds.end(), kind) != theirs.kinds.end();
    const bool in_reach = kind != "shm" || (ours.host == theirs.host && !ours.host.empty());
    if (spoken && in_reach) common.push_back(kind);
  }
  return common;
}

}  // namespace bottega
