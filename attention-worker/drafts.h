#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "attention-worker/ngram_drafter.h"

namespace bottega {

// How often a drafted token was right, given that all before it were. Counts that fade.
struct Acceptance {
  double tried = 0, accepted = 0;

  void Add(int32_t more_tried, int32_t more_accepted, double keep) {
    const double fade = std::pow(keep, more_tried);
    tried = fade * tried + more_tried;
    accepted = fade * accepted + more_accepted;
  }
};
// By the length of the n-gram that was found: a longer one promises more.
using AcceptanceByLength = std::array<Acceptance, NgramDrafter::kLengths>;

// What speculation keeps of a sequence.
struct Drafts {
  NgramDrafter drafter;
  AcceptanceByLength acceptance;
  // Of the step under way: guesses of what follows the sequence's last token, and the length of
  // the n-gram that they come from.
  std::vector<int32_t> tokens;
  int matched = 0;
  bool stopped = false;  // a drafted token could not be computed: no more of them
};

}  // namespace bottega
