#include "core/cluster/protocol.h"

namespace bottega {

const uint32_t kProtocol = 1;

}  // namespace bottega
