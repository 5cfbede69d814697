#pragma once

#include <memory>

#include "bench/frame_link.h"

namespace bottega {

// The peer that the exchange is measured against: frames as raw messages of one gRPC stream both
// ways, as fast as gRPC 1.51 carries them here.
//   - No protobuf: grpc::ByteBuffer through the generic stub and service, callback API.
//   - A Unix socket: gRPC has no shared memory transport, and this is its fastest on one host.
//   - No retries, which would keep every message; writes wait for the next one while there is one;
//     HTTP/2 frames hold a message, which measured clearly faster. Fixed windows, larger reads and
//     write buffers gave less or nothing.
// A message is copied once into memory of its own, as into ours, which gRPC takes without another
// copy; at the other end it is copied out of gRPC's slices into one piece.
std::unique_ptr<FrameLink> ConnectGrpc(int control);

// The far end: answers until `control` closes.
void ServeGrpc(int control);

}  // namespace bottega
