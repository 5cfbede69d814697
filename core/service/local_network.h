#pragma once

#include <memory>

#include "core/service/network.h"

namespace bottega {

// Decides what goes wrong between nodes. The default is a network without faults or delay.
class Faults {
 public:
  virtual ~Faults() = default;
  // How long one message (or the opening of a stream) travels. Order within a stream is kept.
  virtual Duration Delay(NodeId /*from*/, NodeId /*to*/) { return Duration::zero(); }
  // True: the stream breaks instead of carrying this message; both ends see Unavailable.
  virtual bool Reset(NodeId /*from*/, NodeId /*to*/) { return false; }
  // After what time a peer sees that `dead` was killed.
  virtual Duration DeathDelay(NodeId /*dead*/, NodeId /*peer*/) { return Duration::zero(); }
};

// Faults drawn from the loop's seed: delays uniform in [delay_min, delay_max], now and then ten
// times as much, resets with a small probability.
struct SeededFaultsOptions {
  Duration delay_min = std::chrono::microseconds(20);
  Duration delay_max = std::chrono::microseconds(500);
  double slow_probability = 0.01;
  double reset_probability = 0;
  Duration death_delay_max = std::chrono::milliseconds(5);
};
std::unique_ptr<Faults> SeededFaults(Loop& loop, SeededFaultsOptions options);

// Network inside one process, over one Loop: `bottega serve` (real loop, no faults) and the fabric
// (simulated loop, seeded faults). Addresses are names: whatever is given to Serve, or
// "local:<n>" for an address that ends in ":0".
//
// A message is delivered at once (no faults) or by a task of the network's own node. The object is
// destroyed before its loop; streams may outlive it, and then they are ended.
class LocalNetwork : public Network {
 public:
  // Like a keepalive: how long a stream survives a cut between its ends.
  static constexpr Duration kCutTimeout = std::chrono::milliseconds(1500);
  static constexpr NodeId kNetworkNode{0xfffffff0};

  explicit LocalNetwork(Loop& loop, std::unique_ptr<Faults> faults = nullptr);
  ~LocalNetwork() override;

  Task<absl::StatusOr<std::unique_ptr<ByteStream>>> Connect(NodeId self, std::string address,
                                                            std::string method,
                                                            Time deadline) override;
  absl::StatusOr<std::string> Serve(NodeId self, const std::string& address,
                                    std::vector<std::pair<std::string, Handler>> methods) override;
  void Shutdown(NodeId self) override;

  // Kills `node`: its frames are destroyed without a word (Loop::Kill), its addresses refuse, and
  // its peers see Unavailable after Faults::DeathDelay.
  void Kill(NodeId node);
  // One-way cut: nothing sent by `from` reaches `to`. A stream cut for kCutTimeout ends at both
  // ends with Unavailable; healed before, it goes on with nothing lost.
  void Cut(NodeId from, NodeId to);
  void Heal(NodeId from, NodeId to);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace bottega
