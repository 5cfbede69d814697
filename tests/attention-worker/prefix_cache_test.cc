#include "attention-worker/prefix_cache.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <numeric>
#include <random>
#include <set>

namespace bottega {
namespace {

constexpr int32_t kTokens = PrefixCache::kBlockTokens;
using Ids = std::vector<int32_t>;

Ids Tokens(size_t count, int32_t first = 0) {
  Ids ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// A pool, and what a sequence does with it.
class PrefixCacheTest : public testing::Test {
 protected:
  void Make(int32_t blocks, PrefixCacheOptions options = {}) {
    cache = std::make_unique<PrefixCache>(blocks, options,
                                          [this](int32_t block) { lost.push_back(block); });
  }
  // The blocks of a sequence of these tokens, all computed and right; -1 for each that is lacking.
  Ids Compute(const Ids& tokens, const CacheSalt& salt = {}) {
    Ids blocks = Found(tokens, salt);
    const auto published = static_cast<int32_t>(blocks.size());
    while (blocks.size() * kTokens < tokens.size()) {
      blocks.push_back(cache->Take().value_or(-1));
    }
    cache->Publish(salt, tokens, published, blocks);
    return blocks;
  }
  Ids Found(const Ids& tokens, const CacheSalt& salt = {}) {
    Ids blocks;
    cache->Match(salt, tokens, blocks);
    return blocks;
  }
  // How many blocks of it would be found, holding none.
  size_t Finds(const Ids& tokens, const CacheSalt& salt = {}) {
    const Ids blocks = Found(tokens, salt);
    cache->Release(blocks);
    return blocks.size();
  }

  std::unique_ptr<PrefixCache> cache;
  Ids lost;
};

TEST_F(PrefixCacheTest, FullBlocksAreFoundAndHeldByAll) {
  Make(8);
  const Ids first = Compute(Tokens(40));
  EXPECT_EQ(Found(Tokens(40)), Ids(first.begin(), first.begin() + 2));
  EXPECT_EQ(Found(Tokens(31)), Ids(first.begin(), first.begin() + 1));
  EXPECT_EQ(Found(Tokens(15)), Ids());
  Ids other = Tokens(40);
  other[20] = 999;
  EXPECT_EQ(Found(other), Ids(first.begin(), first.begin() + 1));
  EXPECT_EQ(cache->free(), 5);
  cache->Release(first);
  EXPECT_EQ(cache->free(), 6);  // the third was never full
  EXPECT_EQ(lost, Ids({first[2]}));
  cache->Release({first.data(), 1});
  cache->Release({first.data(), 1});
  EXPECT_EQ(cache->cached(), 0);
  cache->Release({first.data(), 2});
  EXPECT_EQ(cache->cached(), 2);
  EXPECT_EQ(cache->free(), 8);
  EXPECT_EQ(Finds(Tokens(40)), 2u);
}

// The same tokens elsewhere are another block: what stands before counts.
TEST_F(PrefixCacheTest, ABlockIsFoundBehindItsOwnPrefixOnly) {
  Make(8);
  Ids twice = Tokens(16), other = Tokens(16, 100);
  twice.insert(twice.end(), twice.begin(), twice.begin() + 16);
  other.insert(other.end(), twice.begin(), twice.begin() + 16);
  const Ids blocks = Compute(twice);
  EXPECT_NE(blocks[0], blocks[1]);
  EXPECT_EQ(Finds(other), 0u);
  EXPECT_EQ(Finds(twice), 2u);
}

TEST_F(PrefixCacheTest, D7_AForcedCollisionIsAMiss) {
  Make(8, {.hash_mask = 0});  // all hashes are equal
  const Ids first = Compute(Tokens(16)), second = Compute(Tokens(16, 500));
  EXPECT_EQ(Finds(Tokens(16)), 1u);
  EXPECT_EQ(Finds(Tokens(16, 500)), 0u);
  EXPECT_EQ(Finds(Tokens(32)), 1u);  // the second block has the first's hash, and is not it
  cache->Release(second);
  EXPECT_EQ(lost, second);
  cache->Release(first);
  EXPECT_EQ(cache->cached(), 1);
}

TEST_F(PrefixCacheTest, S7_ASaltSeparatesTenants) {
  Make(8);
  const CacheSalt mine = SaltOf("mine"), yours = SaltOf("yours");
  EXPECT_NE(mine, yours);
  EXPECT_EQ(mine, SaltOf("mine"));
  const Ids first = Compute(Tokens(32), mine);
  EXPECT_EQ(Finds(Tokens(32), yours), 0u);
  EXPECT_EQ(Finds(Tokens(32)), 0u);
  EXPECT_EQ(Finds(Tokens(32), mine), 2u);
  EXPECT_NE(Compute(Tokens(32), yours), first);
}

// Two sequences that computed the same at the same time end with one copy.
TEST_F(PrefixCacheTest, TheSameIsKeptOnce) {
  Make(8);
  const Ids first = Compute(Tokens(32));
  Ids second = {*cache->Take(), *cache->Take(), *cache->Take()};
  const Ids own = second;
  EXPECT_EQ(cache->Publish({}, Tokens(40), 0, second), 2);
  EXPECT_EQ(second, Ids({first[0], first[1], own[2]}));
  EXPECT_EQ(lost, Ids({own[0], own[1]}));
  cache->Release(first);
  EXPECT_EQ(cache->cached(), 0);
  cache->Release(second);
  EXPECT_EQ(cache->cached(), 2);
  EXPECT_EQ(cache->free(), 8);
}

TEST_F(PrefixCacheTest, TheOneUnusedForLongestIsEvictedItsLastBlockFirst) {
  Make(6);
  const Ids a = Compute(Tokens(32, 1000)), b = Compute(Tokens(32, 2000)),
            c = Compute(Tokens(32, 3000));
  EXPECT_EQ(cache->Take(), std::nullopt);  // all are held
  cache->Release(b);
  cache->Release(a);
  cache->Release(c);
  EXPECT_EQ(Finds(Tokens(32, 2000)), 2u);  // b is used again
  Ids taken;
  for (int i = 0; i < 6; ++i) taken.push_back(cache->Take().value_or(-1));
  EXPECT_EQ(taken, Ids({a[1], a[0], c[1], c[0], b[1], b[0]}));
  EXPECT_EQ(lost, taken);
  EXPECT_EQ(cache->Take(), std::nullopt);
  EXPECT_EQ(Finds(Tokens(32, 2000)), 0u);
}

// D4: what may be wrong is found no more, nor what was computed from it, even once a good block
// stands in its place.
TEST_F(PrefixCacheTest, D4_WhatIsWithdrawnIsFoundNoMore) {
  Make(12);
  Ids bad = Compute(Tokens(32));
  const Ids child = Compute(Tokens(48));  // shares bad's two
  ASSERT_EQ(child[1], bad[1]);
  cache->Withdraw(bad);
  EXPECT_EQ(Finds(Tokens(48)), 0u);
  cache->Release(bad);
  EXPECT_TRUE(lost.empty());  // the child's sequence reads them
  Ids grown = {child[0], child[1], *cache->Take()}, tokens = Tokens(48);
  tokens[40] = 999;
  EXPECT_EQ(cache->Publish({}, tokens, 2, grown), 2);  // nothing follows what was withdrawn
  cache->Release({&grown[2], 1});
  EXPECT_EQ(lost, Ids({grown[2]}));

  const Ids good = Compute(Tokens(32));
  EXPECT_EQ(Finds(Tokens(48)), 2u);
  cache->Release(child);
  cache->Release(good);
  EXPECT_EQ(Finds(Tokens(48)), 2u);
  EXPECT_EQ(cache->free(), 12);
}

TEST_F(PrefixCacheTest, SwitchedOffNothingIsFound) {
  Make(4, {.enabled = false});
  const Ids blocks = Compute(Tokens(32));
  EXPECT_EQ(Finds(Tokens(32)), 0u);
  cache->Release(blocks);
  EXPECT_EQ(cache->cached(), 0);
  EXPECT_EQ(cache->free(), 4);
}

// Whatever happens, a block that is found holds what was asked for, and no block is lost. Half the
// runs have hashes of three bits.
TEST_F(PrefixCacheTest, WhatIsFoundIsAlwaysRight) {
  struct Live {
    CacheSalt salt;
    Ids tokens, blocks;
    int32_t published;
  };
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    std::mt19937 random(seed);
    constexpr int32_t kBlocks = 24;
    std::map<int32_t, std::pair<CacheSalt, Ids>> content;  // all tokens up to its end
    cache = std::make_unique<PrefixCache>(
        kBlocks, PrefixCacheOptions{.seed = seed, .hash_mask = seed % 2 == 0 ? 7 : ~uint64_t{0}},
        [&](int32_t block) { content.erase(block); });
    const CacheSalt salts[] = {{}, SaltOf("a")};
    std::vector<Live> live;
    uint64_t hits = 0;
    for (int step = 0; step < 3000; ++step) {
      if (live.empty() || random() % 3 == 0) {  // begins
        Live one{.salt = salts[random() % 2], .tokens = {}, .blocks = {}, .published = 0};
        const size_t length = 1 + random() % 100;
        int32_t token = random() % 2;  // few different prefixes
        for (size_t i = 0; i < length; ++i)
          one.tokens.push_back(i % 16 == 0 ? token = random() % 2 : token);
        cache->Match(one.salt, one.tokens, one.blocks);
        hits += one.blocks.size();
        for (size_t i = 0; i < one.blocks.size(); ++i) {
          const Ids prefix(one.tokens.begin(), one.tokens.begin() + (i + 1) * kTokens);
          ASSERT_EQ(content.at(one.blocks[i]), std::pair(one.salt, prefix)) << "seed " << seed;
        }
        one.published = static_cast<int32_t>(one.blocks.size());
        live.push_back(std::move(one));
        continue;
      }
      const size_t which = random() % live.size();
      Live& one = live[which];
      const bool whole = one.blocks.size() * kTokens >= one.tokens.size();
      if (whole || random() % 8 == 0) {  // ends, well or not
        if (random() % 8 == 0) cache->Withdraw(one.blocks);
        cache->Release(one.blocks);
        live.erase(live.begin() + static_cast<ptrdiff_t>(which));
      } else if (const std::optional<int32_t> block = cache->Take()) {  // computes a block
        ASSERT_FALSE(content.contains(*block));
        one.blocks.push_back(*block);
        const size_t end = std::min(one.tokens.size(), one.blocks.size() * kTokens);
        const Ids prefix(one.tokens.begin(), one.tokens.begin() + static_cast<ptrdiff_t>(end));
        content[*block] = {one.salt, prefix};
        one.published = cache->Publish(one.salt, prefix, one.published, one.blocks);
      } else {
        cache->Release(one.blocks);
        live.erase(live.begin() + static_cast<ptrdiff_t>(which));
      }
      std::set<int32_t> held;
      for (const Live& l : live) held.insert(l.blocks.begin(), l.blocks.end());
      ASSERT_EQ(static_cast<int32_t>(held.size()) + cache->free(), kBlocks) << "seed " << seed;
    }
    EXPECT_GT(hits, 100u);
    for (const Live& l : live) cache->Release(l.blocks);
    EXPECT_EQ(cache->free(), kBlocks);
  }
}

// A pool of a million blocks, all published: finding and evicting look at no other block. A scan
// would take hours.
TEST_F(PrefixCacheTest, NothingIsScanned) {
  constexpr int32_t kBlocks = 1 << 20;
  cache = std::make_unique<PrefixCache>(kBlocks, PrefixCacheOptions{}, nullptr);
  const auto begin = std::chrono::steady_clock::now();
  for (int32_t i = 0; i < 2 * kBlocks; ++i) cache->Release(Compute(Tokens(16, i * 16)));
  EXPECT_EQ(cache->cached(), kBlocks);
  EXPECT_EQ(Finds(Tokens(16, 0)), 0u);
  EXPECT_EQ(Finds(Tokens(16, (2 * kBlocks - 1) * 16)), 1u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::minutes(1));
}

}  // namespace
}  // namespace bottega
