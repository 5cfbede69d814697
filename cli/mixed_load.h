#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace bottega {

// Whole numbers from `least` to `most`, log-uniform: as many between 16 and 32 as between 128 and
// 256, since of real requests most are short and some are long.
struct LengthRange {
  int64_t least = 1;
  int64_t most = 1;

  double Mean() const;  // of the continuous distribution
};

// Requests that come whether or not the earlier ones are done, as users do.
struct MixedLoad {
  double requests_per_s = 0;
  double seconds = 0;
  LengthRange prompt{16, 256};
  LengthRange answer{8, 64};
  uint64_t seed = 1;
};

struct RequestArrival {
  double at_s = 0;
  int64_t prompt = 0;  // tokens
  int64_t answer = 0;
};

// In order of time: exponential gaps (a Poisson process). Equal loads give equal arrivals on every
// machine.
std::vector<RequestArrival> PoissonArrivals(const MixedLoad& load);

// In [0, 1), the same on every machine (std::uniform_real_distribution is not).
double UniformFraction(std::mt19937_64& random);

}  // namespace bottega
