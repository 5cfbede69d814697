#include "attention-worker/ngram_drafter.h"

#include <algorithm>
#include <bit>

namespace bottega {
namespace {

constexpr size_t kSlotsMin = 256;

uint64_t Mix(uint64_t hash, int32_t token) {
  hash = (hash ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15;
  return hash ^ (hash >> 29);
}

}  // namespace

void NgramDrafter::Extend(absl::Span<const int32_t> tokens) {
  const size_t wanted = std::clamp(std::bit_ceil(tokens.size()), kSlotsMin, kSlotsMax);
  if (wanted > slots_) {  // doubles: each token is taken in twice at most, on average
    slots_ = wanted;
    last_.assign(kLengths * slots_, 0);
    taken_ = 0;
  }
  // The n-gram at the very end has no token after it yet; so it is not found as its own past.
  const int32_t end = static_cast<int32_t>(tokens.size()) - 1;
  for (; taken_ < end; ++taken_) {
    uint64_t hash = 0;
    for (int length = 1; length <= kLongest && length <= taken_ + 1; ++length) {
      hash = Mix(hash, tokens[taken_ + 1 - length]);
      if (length >= kShortest) Slot(length, hash) = taken_ + 1;
    }
  }
}

std::optional<NgramDrafter::Match> NgramDrafter::Find(absl::Span<const int32_t> tokens) const {
  std::optional<Match> found;
  const auto size = static_cast<int32_t>(tokens.size());
  uint64_t hash = 0;
  for (int length = 1; length <= kLongest && length <= size && slots_ > 0; ++length) {
    hash = Mix(hash, tokens[size - length]);
    if (length < kShortest) continue;
    const int32_t next = last_[At(length, hash)];
    const bool same = next >= length && std::equal(tokens.end() - length, tokens.end(),
                                                   tokens.begin() + next - length);
    if (same) found = Match{.next = next, .length = length};
  }
  return found;
}

void NgramDrafter::Copy(absl::Span<const int32_t> tokens, int32_t next, int32_t count,
                        std::vector<int32_t>& draft) {
  const auto size = static_cast<int32_t>(tokens.size());
  const size_t begin = draft.size();
  for (int32_t i = next; i < next + count; ++i) {
    draft.push_back(i < size ? tokens[i] : draft[begin + static_cast<size_t>(i - size)]);
  }
}

}  // namespace bottega
