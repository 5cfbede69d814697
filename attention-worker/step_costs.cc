#include "attention-worker/step_costs.h"

#include <algorithm>

namespace bottega {
namespace {

constexpr int kSmoothedOver = 16;    // steps
constexpr double kOutlierTimes = 3;  // a step that waited for something else says no more than this

}  // namespace

void StepCosts::Observe(int64_t tokens, Duration took) {
  Cost& cost = costs_[std::clamp<int64_t>(tokens, 0, static_cast<int64_t>(costs_.size()) - 1)];
  double seconds = Seconds(took);
  if (cost.observed > 0) seconds = std::min(seconds, kOutlierTimes * cost.seconds);
  cost.observed = std::min(cost.observed + 1, kSmoothedOver);
  cost.seconds += (seconds - cost.seconds) / cost.observed;
}

double StepCosts::At(int64_t tokens) const {
  const auto last = static_cast<int64_t>(costs_.size()) - 1;
  tokens = std::clamp<int64_t>(tokens, 0, last);
  int64_t below = tokens, above = tokens;
  while (below >= 0 && costs_[below].observed == 0) --below;
  while (above <= last && costs_[above].observed == 0) ++above;
  if (below < 0 && above > last) return 0;
  if (below < 0) return costs_[above].seconds;
  if (above > last || above == below) return costs_[below].seconds;
  const double part = static_cast<double>(tokens - below) / static_cast<double>(above - below);
  return costs_[below].seconds + part * (costs_[above].seconds - costs_[below].seconds);
}

}  // namespace bottega
