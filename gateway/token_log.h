#pragma once

#include <cstdint>
#include <vector>

namespace bottega::gateway {

// The truth about one sequence: token i exists once it is appended, whichever worker made it. Text,
// stops and events derive from it; a replay on another worker starts from it.
class TokenLog {
 public:
  enum class Verdict {
    kAppended,
    kOldOwner,  // of a worker that no longer owns the sequence: dropped
    kNotNext,   // index is not the next one: dropped
  };

  // Only index = next of the current owner passes.
  Verdict Append(uint32_t owner_epoch, uint32_t index, int32_t id) {
    if (owner_epoch != owner_epoch_) return Verdict::kOldOwner;
    if (index != tokens_.size()) return Verdict::kNotNext;
    tokens_.push_back(id);
    return Verdict::kAppended;
  }

  // The sequence moves to another worker: tokens of the old one are refused from here on.
  void NewOwner() { ++owner_epoch_; }

  uint32_t owner_epoch() const { return owner_epoch_; }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  size_t size() const { return tokens_.size(); }

 private:
  uint32_t owner_epoch_ = 1;
  std::vector<int32_t> tokens_;
};

}  // namespace bottega::gateway
