#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace bottega {

// Prompt lookup: guesses how a sequence goes on from how it went on where its last few tokens stood
// before, in the prompt or in what was generated. Copies, edits and repetitions are found so,
// without a model.
//
// For each length of n-gram a table from its hash to the place of its last occurrence: O(1) a
// token, and of bounded size, in which a later n-gram takes the place of an earlier one of the same
// slot. What is found is compared, so a collision is a miss.
class NgramDrafter {
 public:
  static constexpr int kShortest = 2, kLongest = 4;
  static constexpr int kLengths = kLongest - kShortest + 1;
  // 192 KiB a sequence; contexts of up to 16k tokens lose little.
  static constexpr size_t kSlotsMax = size_t{1} << 14;

  struct Match {
    int32_t next;  // tokens[next] came after the earlier occurrence
    int length;    // of the n-gram
  };

  // Takes in what `tokens` have more than the last time.
  void Extend(absl::Span<const int32_t> tokens);
  // The most recent occurrence of the longest n-gram that `tokens`, taken in already, end with.
  std::optional<Match> Find(absl::Span<const int32_t> tokens) const;
  // Appends `count` tokens from `next` on to `draft`. Past the end of `tokens` the draft itself is
  // read on: a repetition goes on repeating.
  static void Copy(absl::Span<const int32_t> tokens, int32_t next, int32_t count,
                   std::vector<int32_t>& draft);

 private:
  int32_t& Slot(int length, uint64_t hash) { return last_[At(length, hash)]; }
  size_t At(int length, uint64_t hash) const {
    return static_cast<size_t>(length - kShortest) * slots_ + (hash & (slots_ - 1));
  }

  size_t slots_ = 0;           // of each length, a power of two
  std::vector<int32_t> last_;  // [kLengths, slots_] Match::next; 0: none
  int32_t taken_ = 0;          // n-grams that end before it are in the tables
};

}  // namespace bottega
