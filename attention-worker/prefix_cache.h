#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "attention-worker/block_allocator.h"
#include "core/kernels/attention.h"

namespace bottega {

// Sequences of different salts never share a block: one tenant's cannot be found by another's. Of
// a text; the empty text is a salt as any other.
struct CacheSalt {
  uint64_t high = 0, low = 0;
  friend bool operator==(const CacheSalt&, const CacheSalt&) = default;
};
CacheSalt SaltOf(std::string_view text);

struct PrefixCacheOptions {
  bool enabled = true;
  uint64_t seed = 0;                  // of the hashes: who does not know it aims at no bucket
  uint64_t hash_mask = ~uint64_t{0};  // fewer bits, more collisions (tests)
};

// The KV pool's blocks, shared by what is in them. A block whose 16 positions are all computed may
// be published: found again by its tokens and all that stands before them. A sequence that begins
// with the same tokens holds the same block, to read it. A published block that nobody holds stays,
// until the room is needed: then the one unused for longest goes.
//
// A key is the block's tokens and the publication of the block before (of the first block: the
// salt), and both are compared, not only their hash. So a collision is a miss, and the children of
// a block that was withdrawn are never found again, even if a good one takes its place.
//
// Every holder of a block holds the one before it, and lets go of the last block first: a block is
// evicted after its children. Everything is O(1) a block, in tables made at the start; loop thread
// only.
class PrefixCache {
 public:
  static constexpr int32_t kBlockTokens = kKvBlockPositions;

  // `on_lost`: a block's content is worth nothing from here on; may be empty.
  PrefixCache(int32_t blocks, PrefixCacheOptions options, std::function<void(int32_t)> on_lost);

  // A block of no content, held once: a free one, else the published one unused for longest.
  // Nothing: all are held.
  std::optional<int32_t> Take();

  // Holds the published blocks that `tokens` begin with and appends them to `blocks`, which is
  // empty. Only full blocks of `tokens` count.
  void Match(const CacheSalt& salt, absl::Span<const int32_t> tokens, std::vector<int32_t>& blocks);

  // Publishes blocks[published ..] as far as `tokens`, all computed, fill them; returns how many of
  // `blocks` are published then. Where the same block is published already, it takes the place of
  // the one in `blocks`, which is let go: their bytes are equal.
  int32_t Publish(const CacheSalt& salt, absl::Span<const int32_t> tokens, int32_t published,
                  std::vector<int32_t>& blocks);

  // What is in these blocks, all held, may be wrong: they and what follows them are found no more.
  void Withdraw(absl::Span<const int32_t> blocks);

  // The same of all there are. Looks at every block.
  void WithdrawAll();

  // One holder less of each.
  void Release(absl::Span<const int32_t> blocks);

  bool enabled() const { return options_.enabled; }
  int32_t free() const { return free_.free() + cached_; }  // can be taken
  int32_t cached() const { return cached_; }               // published and held by nobody
  int32_t total() const { return free_.total(); }

 private:
  static constexpr int32_t kNone = -1;

  // What stands before a block. `low` of a salt is odd, of a publication 0.
  struct Before {
    uint64_t high = 0, low = 0;
    friend bool operator==(const Before&, const Before&) = default;
  };
  struct Block {
    std::array<int32_t, kBlockTokens> tokens;
    Before before;
    uint64_t hash = 0;         // of tokens and all before them
    uint64_t publication = 0;  // never used again; 0: not published
    int32_t holders = 0;
    int32_t older = kNone, newer = kNone;    // of those published that nobody holds
    int32_t previous = kNone, next = kNone;  // in the bucket of `hash`
  };
  struct Key {
    Before before;
    uint64_t hash;
    const int32_t* tokens;  // [kBlockTokens]
  };

  // Of the block of `tokens` after `before`; nullptr: of the first.
  Key KeyOf(const CacheSalt& salt, const Block* before, const int32_t* tokens) const;
  // Who has this hash, and so its only place; kNone: nobody.
  int32_t Find(uint64_t hash) const;
  bool Is(const Block& block, const Key& key) const;
  void Hold(int32_t block);
  void Let(int32_t block);
  void Insert(int32_t block, const Key& key);
  void Erase(int32_t block);
  void Append(int32_t block);  // as the newest that nobody holds
  void Unlink(int32_t block);
  int32_t& BucketOf(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }

  const PrefixCacheOptions options_;
  const std::function<void(int32_t)> on_lost_;
  BlockAllocator free_;
  std::vector<Block> blocks_;
  std::vector<int32_t> buckets_;  // first block; a power of two of them
  int32_t oldest_ = kNone, newest_ = kNone;
  int32_t cached_ = 0;
  uint64_t publications_ = 0;
};

}  // namespace bottega
