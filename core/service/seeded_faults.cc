#include "core/service/local_network.h"

namespace bottega {
namespace {

class SeededFaultsImpl : public Faults {
 public:
  SeededFaultsImpl(Loop& loop, SeededFaultsOptions options) : loop_(loop), options_(options) {}

  Duration Delay(NodeId, NodeId) override {
    const uint64_t spread =
        static_cast<uint64_t>((options_.delay_max - options_.delay_min).count()) + 1;
    Duration delay = options_.delay_min + Duration(loop_.SimRandom() % spread);
    if (Chance(options_.slow_probability)) delay *= 10;
    return delay;
  }
  bool Reset(NodeId, NodeId) override { return Chance(options_.reset_probability); }
  Duration DeathDelay(NodeId, NodeId) override {
    return Duration(loop_.SimRandom() %
                    (static_cast<uint64_t>(options_.death_delay_max.count()) + 1));
  }

 private:
  bool Chance(double probability) {
    if (probability <= 0) return false;
    return static_cast<double>(loop_.SimRandom() >> 11) * 0x1p-53 < probability;
  }
  Loop& loop_;
  const SeededFaultsOptions options_;
};

}  // namespace

std::unique_ptr<Faults> SeededFaults(Loop& loop, SeededFaultsOptions options) {
  return std::make_unique<SeededFaultsImpl>(loop, options);
}

}  // namespace bottega
