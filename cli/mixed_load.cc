#include "cli/mixed_load.h"

#include <cmath>

namespace bottega {
namespace {

int64_t Draw(const LengthRange& range, std::mt19937_64& random) {
  const double ratio = static_cast<double>(range.most) / static_cast<double>(range.least);
  return std::llround(static_cast<double>(range.least) * std::pow(ratio, UniformFraction(random)));
}

}  // namespace

double UniformFraction(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

double LengthRange::Mean() const {
  if (least == most) return static_cast<double>(least);
  const double low = static_cast<double>(least), high = static_cast<double>(most);
  return (high - low) / std::log(high / low);
}

std::vector<RequestArrival> PoissonArrivals(const MixedLoad& load) {
  std::vector<RequestArrival> arrivals;
  std::mt19937_64 random(load.seed);
  double now = 0;
  while (load.requests_per_s > 0) {
    now += -std::log1p(-UniformFraction(random)) / load.requests_per_s;
    if (now >= load.seconds) break;
    const int64_t prompt = Draw(load.prompt, random);
    arrivals.push_back({.at_s = now, .prompt = prompt, .answer = Draw(load.answer, random)});
  }
  return arrivals;
}

}  // namespace bottega
