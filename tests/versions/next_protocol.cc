// Linked before core/cluster's own: the version after this build's.
#include "core/cluster/protocol.h"

namespace bottega {

const uint32_t kProtocol = 2;

}  // namespace bottega
