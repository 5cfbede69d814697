#include "attention-worker/step_costs.h"

#include <algorithm>

namespace bottega {
namespace {

constexpr int kSmoothedOver = 16;  // steps
constexpr int64_t kKnownFor = 512;
constexpr double kOutlierTimes = 3;  // a step that waited for something else says no more than this

}  // namespace

void StepCosts::Observe(int64_t tokens, Duration took) {
  tokens = std::clamp<int64_t>(tokens, 0, Last());
  Cost& cost = costs_[tokens];
  if (!Known(tokens)) cost.observed = 0;
  double seconds = Seconds(took);
  if (cost.observed > 0) seconds = std::min(seconds, kOutlierTimes * cost.seconds);
  cost.observed = std::min(cost.observed + 1, kSmoothedOver);
  cost.seconds += (seconds - cost.seconds) / cost.observed;
  cost.last = ++observations_;
}

double StepCosts::At(int64_t tokens) const {
  tokens = std::clamp<int64_t>(tokens, 0, Last());
  int64_t below = tokens, above = tokens;
  while (below >= 0 && !Known(below)) --below;
  while (above <= Last() && !Known(above)) ++above;
  if (above == below) return costs_[below].seconds;
  if (below < 0) return above > Last() ? 0 : costs_[above].seconds;
  if (above > Last()) {
    above = below;
    below = 0;
    while (!Known(below)) ++below;
    if (above == below) return costs_[below].seconds;
  }
  const double slope =
      (costs_[above].seconds - costs_[below].seconds) / static_cast<double>(above - below);
  return costs_[below].seconds + slope * static_cast<double>(tokens - below);
}

int64_t StepCosts::KnownTo() const {
  int64_t known = Last();
  while (known > 0 && !Known(known)) --known;
  return known;
}

bool StepCosts::Known(int64_t tokens) const {
  const Cost& cost = costs_[tokens];
  return cost.observed > 0 && observations_ - cost.last < kKnownFor;
}

}  // namespace bottega
