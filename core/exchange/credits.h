#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/check.h"

namespace bottega {

// Rows in flight to one peer, against what it granted. Frames that may have been lost keep theirs
// until the peer says so or is gone: what is unknown counts as in flight, so a peer that stopped
// reading never holds more than its grant.
class Credits {
 public:
  explicit Credits(uint32_t granted) : granted_(granted) {}

  uint32_t free() const { return granted_ > in_use_ ? granted_ - in_use_ : 0; }
  uint32_t granted() const { return granted_; }
  uint32_t in_use() const { return in_use_; }

  // A token whose experts alone are past the grant still goes, but on its own.
  bool CanTake(uint32_t rows) const { return rows <= free() || in_use_ == 0; }
  void Take(uint32_t rows) {
    CHECK(CanTake(rows));
    in_use_ += rows;
  }
  void Give(uint32_t rows) {
    CHECK_LE(rows, in_use_);
    in_use_ -= rows;
  }

 private:
  uint32_t granted_;
  uint32_t in_use_ = 0;
};

// Hedges are at most a tenth of dispatches, with bursts of 8: a cluster that is slow because it is
// full must not be given the same work twice.
class HedgeBudget {
 public:
  void OnDispatch() { tokens_ = std::min(kBurst, tokens_ + kShare); }
  bool Take() {
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }

 private:
  static constexpr double kShare = 0.1;
  static constexpr double kBurst = 8;
  double tokens_ = kBurst;
};

}  // namespace bottega
