#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/base/loop.h"
#include "core/transport/transport.h"

namespace bottega {

// One kind of transport on one kind of loop, as the contract test needs it. A new transport adds
// its world to the list in transport_test.cc.
class TransportWorld {
 public:
  virtual ~TransportWorld() = default;
  virtual Loop& loop() = 0;
  // A fresh end with `pool_bytes` of frame memory. Destroying it is the death of its process.
  virtual std::unique_ptr<Transport> Open(size_t pool_bytes) = 0;
};

struct TransportKind {
  std::string name;
  std::function<std::unique_ptr<TransportWorld>()> make;
  bool tells_death = true;  // over shared memory nobody does, but the pair's stream
};

}  // namespace bottega
