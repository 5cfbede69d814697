#pragma once

#include <cstdint>

namespace bottega {

// Version of what the processes of one cluster say to each other: messages, frames, the table. Who
// speaks another one is refused where it joins (router) and where it pairs (expert worker), before
// anything else of it is read. Raised by every change that an older build would misunderstand.
// Defined in a file of its own, so that tests can link the programs of the next version.
extern const uint32_t kProtocol;

}  // namespace bottega
