#include "attention-worker/prefix_cache.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <string>

#include "core/base/check.h"
#include "core/model/sha256.h"

namespace bottega {
namespace {

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15;
  return hash ^ (hash >> 29);
}

}  // namespace

CacheSalt SaltOf(std::string_view text) {
  if (text.empty()) return {};
  const std::string hex = Sha256Hex(text);
  CacheSalt salt;
  std::from_chars(hex.data(), hex.data() + 16, salt.high, 16);
  std::from_chars(hex.data() + 16, hex.data() + 32, salt.low, 16);
  return salt;
}

PrefixCache::PrefixCache(int32_t blocks, PrefixCacheOptions options,
                         std::function<void(int32_t)> on_lost)
    : options_(options),
      on_lost_(std::move(on_lost)),
      free_(blocks),
      blocks_(blocks),
      buckets_(std::bit_ceil(2 * static_cast<size_t>(std::max(1, blocks))), kNone) {}

std::optional<int32_t> PrefixCache::Take() {
  std::optional<int32_t> block = free_.Take();
  if (!block) {
    if (oldest_ == kNone) return std::nullopt;
    block = oldest_;
    Unlink(*block);
    Erase(*block);
    if (on_lost_) on_lost_(*block);
  }
  blocks_[*block].holders = 1;
  return block;
}

void PrefixCache::Match(const CacheSalt& salt, absl::Span<const int32_t> tokens,
                        std::vector<int32_t>& blocks) {
  if (!options_.enabled) return;
  const Block* before = nullptr;
  for (size_t end = kBlockTokens; end <= tokens.size(); end += kBlockTokens) {
    const Key key = KeyOf(salt, before, tokens.data() + end - kBlockTokens);
    const int32_t found = Find(key.hash);
    if (found == kNone || !Is(blocks_[found], key)) return;
    Hold(found);
    blocks.push_back(found);
    before = &blocks_[found];
  }
}

int32_t PrefixCache::Publish(const CacheSalt& salt, absl::Span<const int32_t> tokens,
                             int32_t published, std::vector<int32_t>& blocks) {
  if (!options_.enabled) return 0;
  const auto full = static_cast<int32_t>(tokens.size()) / kBlockTokens;
  for (; published < full; ++published) {
    const Block* before = published == 0 ? nullptr : &blocks_[blocks[published - 1]];
    if (before != nullptr && before->publication == 0) break;  // withdrawn: nothing follows it
    const Key key = KeyOf(salt, before, tokens.data() + published * kBlockTokens);
    const int32_t found = Find(key.hash);
    if (found == kNone) {
      Insert(blocks[published], key);
    } else if (Is(blocks_[found], key)) {
      Hold(found);
      Let(std::exchange(blocks[published], found));
    } else {
      break;  // a collision: who came first stays
    }
  }
  return published;
}

void PrefixCache::Withdraw(absl::Span<const int32_t> blocks) {
  for (int32_t block : blocks) {
    CHECK_GT(blocks_[block].holders, 0);
    if (blocks_[block].publication != 0) Erase(block);
  }
}

void PrefixCache::WithdrawAll() {
  while (oldest_ != kNone) {
    const int32_t block = oldest_;
    Unlink(block);
    Erase(block);
    free_.Return(block);
    if (on_lost_) on_lost_(block);
  }
  for (size_t block = 0; block < blocks_.size(); ++block) {
    if (blocks_[block].publication != 0) Erase(static_cast<int32_t>(block));
  }
}

void PrefixCache::Release(absl::Span<const int32_t> blocks) {
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) Let(*block);
}

PrefixCache::Key PrefixCache::KeyOf(const CacheSalt& salt, const Block* before,
                                    const int32_t* tokens) const {
  Key key{.before = {salt.high, salt.low | 1}, .hash = 0, .tokens = tokens};
  uint64_t hash = Mix(Mix(options_.seed, salt.high), salt.low);
  if (before != nullptr) {
    key.before = {before->publication, 0};
    hash = Mix(options_.seed, before->hash);
  }
  for (int32_t i = 0; i < kBlockTokens; i += 2) {
    hash = Mix(hash, uint64_t{static_cast<uint32_t>(tokens[i])} << 32 |
                         static_cast<uint32_t>(tokens[i + 1]));
  }
  key.hash = Mix(hash, 0) & options_.hash_mask;
  return key;
}

int32_t PrefixCache::Find(uint64_t hash) const {
  int32_t block = buckets_[hash & (buckets_.size() - 1)];
  while (block != kNone && blocks_[block].hash != hash) block = blocks_[block].next;
  return block;
}

bool PrefixCache::Is(const Block& block, const Key& key) const {
  return block.before == key.before &&
         std::equal(block.tokens.begin(), block.tokens.end(), key.tokens);
}

void PrefixCache::Hold(int32_t block) {
  if (blocks_[block].holders++ == 0) Unlink(block);
}

void PrefixCache::Let(int32_t block) {
  CHECK_GT(blocks_[block].holders, 0);
  if (--blocks_[block].holders > 0) return;
  if (blocks_[block].publication != 0) return Append(block);
  free_.Return(block);
  if (on_lost_) on_lost_(block);
}

void PrefixCache::Insert(int32_t block, const Key& key) {
  Block& b = blocks_[block];
  CHECK_EQ(b.publication, 0);
  std::copy_n(key.tokens, kBlockTokens, b.tokens.begin());
  b.before = key.before;
  b.hash = key.hash;
  b.publication = ++publications_;
  int32_t& first = BucketOf(b.hash);
  b.previous = kNone;
  b.next = first;
  if (first != kNone) blocks_[first].previous = block;
  first = block;
}

void PrefixCache::Erase(int32_t block) {
  Block& b = blocks_[block];
  (b.previous == kNone ? BucketOf(b.hash) : blocks_[b.previous].next) = b.next;
  if (b.next != kNone) blocks_[b.next].previous = b.previous;
  b.publication = 0;
}

void PrefixCache::Append(int32_t block) {
  Block& b = blocks_[block];
  b.older = newest_;
  b.newer = kNone;
  (newest_ == kNone ? oldest_ : blocks_[newest_].newer) = block;
  newest_ = block;
  ++cached_;
}

void PrefixCache::Unlink(int32_t block) {
  Block& b = blocks_[block];
  (b.older == kNone ? oldest_ : blocks_[b.older].newer) = b.newer;
  (b.newer == kNone ? newest_ : blocks_[b.newer].older) = b.older;
  --cached_;
}

}  // namespace bottega
