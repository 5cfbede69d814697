// Streams that decode while prompts are computed, in a whole cluster whose expert workers take a
// pretended time: prefill runs in slices, and what is cancelled in the middle of one is gone.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "observability/log.h"
#include "tests/fabric/cluster_world.h"

namespace bottega::fabric {
namespace {

using namespace std::chrono_literals;

constexpr OwnerId kNobody = 1'000'000;  // its tokens go nowhere

class SlicingTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { OpenLogSink({.least = LogLevel::kError}); }

  // An exchange costs 100 us, and 1 us more for each KiB: a layer of a decode step little more than
  // that, a layer of 512 tokens several times as much, a whole step of them many times.
  static void PretendCosts(ClusterWorld& world) {
    world.SetFrameFaults([](FrameFate* fate, absl::Span<const std::byte> frame) {
      fate->delay = 50us + frame.size() * 1us / 1024;
    });
  }

  static SequenceSpec Spec(uint64_t key, size_t prompt, uint32_t max_tokens) {
    SequenceSpec spec{.key = {.owner = kNobody, .request_key = key}};
    for (size_t i = 0; i < prompt; ++i) {
      spec.prompt_ids.push_back(static_cast<int32_t>((key * 977 + i * 31) % 900));
    }
    spec.max_tokens = max_tokens;
    spec.ignore_eos = true;
    return spec;
  }

  static const Sequence* Find(ClusterWorld& world, uint64_t key) {
    for (const auto& [rank, sequence] : world.attention(0).engine().scheduler().sequences()) {
      if (sequence->spec.key.request_key == key) return sequence.get();
    }
    return nullptr;
  }

  // The longest time between two tokens of the stream `key`, while `going`.
  static Duration LongestGap(ClusterWorld& world, uint64_t key,
                             const std::function<bool()>& going) {
    Duration longest{};
    std::optional<Time> last = Find(world, key)->last_token;
    while (going()) {
      world.RunFor(5us);
      const std::optional<Time> now = Find(world, key)->last_token;
      if (now == last) continue;
      longest = std::max(longest, *now - *last);
      last = now;
    }
    return longest;
  }
};

TEST_F(SlicingTest, O5_AStreamsGapStaysBelowTwiceWhilePromptsAreComputed) {
  ClusterWorld world({.seed = 1, .kv_bytes = uint64_t{64} << 20, .draft_tokens = 0});
  ASSERT_TRUE(world.BecomeReady());
  PretendCosts(world);
  Engine& engine = world.attention(0).engine();
  ASSERT_TRUE(engine.Submit(Spec(1, 10, 490)).ok());
  ASSERT_TRUE(engine.Submit(Spec(2, 10, 490)).ok());
  ASSERT_TRUE(world.RunUntil([&] { return Find(world, 2)->generated() > 20; }, 10s));
  const uint32_t calm_end = Find(world, 1)->generated() + 50;
  const Duration calm =
      LongestGap(world, 1, [&] { return Find(world, 1)->generated() < calm_end; });

  std::vector<uint64_t> prompts;
  for (uint64_t key = 10; key < 18; ++key) prompts.push_back(key);
  for (uint64_t key : prompts) ASSERT_TRUE(engine.Submit(Spec(key, 480, 2)).ok());
  const uint32_t before = Find(world, 1)->generated();
  const Duration disturbed = LongestGap(world, 1, [&] {
    return std::ranges::any_of(prompts, [&](uint64_t key) { return Find(world, key) != nullptr; });
  });
  EXPECT_GT(Find(world, 1)->generated(), before + 20);
  EXPECT_GT(disturbed, calm) << "nothing was to be seen";
  EXPECT_LE(disturbed, 2 * calm);
}

// With nobody decoding there is no slice to end, and no step is cut smaller.
TEST_F(SlicingTest, PrefillAloneIsNotCut) {
  ClusterWorld world({.seed = 1});
  ASSERT_TRUE(world.BecomeReady());
  PretendCosts(world);
  FaultPoints& faults = world.attention_faults(0);
  ASSERT_TRUE(faults.Arm("aw.step=sleep:0ms").ok());
  Engine& engine = world.attention(0).engine();
  ASSERT_TRUE(engine.Submit(Spec(1, 500, 1)).ok());
  ASSERT_TRUE(world.RunUntil([&] { return engine.idle(); }, 10s));
  EXPECT_EQ(faults.hits("aw.step"), 1u);
}

// A cancelled prompt's blocks are free within a layer of its step, not at the step's end; the
// others of that step, and the streams beside it, end as if it had never been there.
TEST_F(SlicingTest, ACancelledPromptLeavesItsStep) {
  const auto crcs = [](bool beside) {
    ClusterWorld world({.seed = 3, .prefix_cache = false, .draft_tokens = 0});
    EXPECT_TRUE(world.BecomeReady());
    PretendCosts(world);
    Engine& engine = world.attention(0).engine();
    EXPECT_TRUE(engine.Submit(Spec(1, 10, 400)).ok());
    EXPECT_TRUE(world.RunUntil([&] { return Find(world, 1)->generated() > 5; }, 10s));
    const int free = engine.free_blocks();
    if (beside) {
      EXPECT_TRUE(engine.Submit(Spec(2, 40, 2)).ok());
    }
    EXPECT_TRUE(engine.Submit(Spec(3, 48, 200)).ok());
    EXPECT_TRUE(world.RunUntil([&] { return Find(world, 3)->blocks.size() > 0; }, 10s, 5us));
    if (beside) {
      world.RunFor(100us);
      EXPECT_LE(engine.free_blocks(), free - 6);
      EXPECT_EQ(Find(world, 2)->computed, 0) << "it is in its step";
      engine.Cancel(Find(world, 2)->spec.key);
      EXPECT_TRUE(world.RunUntil([&] { return engine.free_blocks() > free - 6; }, 1ms, 5us));
      EXPECT_EQ(Find(world, 3)->computed, 0) << "the step goes on";
    }
    EXPECT_TRUE(world.RunUntil([&] { return Find(world, 3)->generated() > 20; }, 10s, 5us));
    auto kv = engine.KvCrcs({.owner = kNobody, .request_key = 3});
    for (auto& layer : kv) layer.resize(68);
    return kv;
  };
  EXPECT_EQ(crcs(true), crcs(false));
}

Task<void> CancelAfter(Loop& loop, int turns, Engine& engine, SequenceKey key) {
  for (int i = 0; i < turns; ++i) co_await loop.Yield();
  engine.Cancel(key);
}

// The products of a layer are cut too, and whoever comes after the one that left moves up.
TEST_F(SlicingTest, APromptMayLeaveBetweenAnyTwoPieces) {
  const auto crcs = [](std::optional<int> turns, bool first) {
    ClusterWorld world({.seed = 3, .prefix_cache = false, .draft_tokens = 0});
    EXPECT_TRUE(world.BecomeReady());
    Engine& engine = world.attention(0).engine();
    const auto leaver = [&] { EXPECT_TRUE(engine.Submit(Spec(2, 190, 2)).ok()); };
    if (turns && first) leaver();
    EXPECT_TRUE(engine.Submit(Spec(3, 210, 40)).ok());
    if (turns && !first) leaver();
    // Nothing of the first layer takes virtual time before its exchange: turns tell its pieces
    // apart.
    if (turns) {
      world.loop().Spawn(*world.attention_node(0),
                         CancelAfter(world.loop(), *turns, engine, Find(world, 2)->spec.key));
    }
    EXPECT_TRUE(world.RunUntil([&] { return Find(world, 3)->generated() > 10; }, 10s));
    auto kv = engine.KvCrcs({.owner = kNobody, .request_key = 3});
    for (auto& layer : kv) layer.resize(220);
    return kv;
  };
  const auto alone = crcs({}, false);
  for (int turns = 0; turns < 80; ++turns) {
    for (const bool first : {true, false}) EXPECT_EQ(crcs(turns, first), alone) << turns;
  }
}

}  // namespace
}  // namespace bottega::fabric
