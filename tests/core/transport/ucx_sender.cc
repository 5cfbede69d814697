// A process that sends frames back to back, as many as its window allows, until it is killed:
// ucx_sender CONTROL_FD EXCHANGE NAME. It is executed, not only forked: UCX does not survive a
// fork.

#include <sys/prctl.h>

#include <csignal>
#include <cstdlib>

#include "core/base/loop.h"
#include "core/transport/ucx_transport.h"
#include "tests/core/transport/ucx_sender.h"

namespace bottega {
namespace {

int Main(int control, const std::string& exchange, uint64_t name) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto loop = Loop::Real();
  auto transport = UcxTransport::Create(*loop, {.exchange = exchange});
  CHECK(transport.ok());
  const auto endpoint = (*transport)->Open((*transport)->offer().kinds.front());
  CHECK(endpoint.ok());
  uint64_t sent = 0;
  const auto send = [&] {
    CHECK(PostHeader(**transport, *endpoint, {name, ++sent}, kSenderFrameBytes).ok());
  };
  (*transport)
      ->SetEvents({.on_frame = [&](FrameBuffer) { send(); },
                   .on_up =
                       [&](EndpointId) {
                         for (int i = 0; i < kSenderWindow; ++i) send();
                       },
                   .on_down = [&](EndpointId, absl::Status) { _exit(1); }});
  SendString(control, (*transport)->address(*endpoint));
  CHECK((*transport)->Connect(*endpoint, ReceiveString(control)).ok());
  loop->Run();
  return 0;
}

}  // namespace
}  // namespace bottega

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  return bottega::Main(std::atoi(argv[1]), argv[2], std::strtoull(argv[3], nullptr, 10));
}
