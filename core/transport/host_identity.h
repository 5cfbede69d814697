#pragma once

#include <string>

namespace bottega {

// Equal in two processes that can share memory through UCX, different else: the boot of the kernel,
// the namespaces through which UCX reaches a peer (network: its wake-up is an abstract socket; PID:
// its memory is opened as /proc/PID/fd; IPC: it compares), and the user, who must be allowed to
// open that. Empty if this machine does not say.
std::string HostIdentity();

}  // namespace bottega
