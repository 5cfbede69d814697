#include <gtest/gtest.h>

#include "gateway/attention_client.h"

namespace bottega::gateway {
namespace {

const AnswerIdentity kThis{"digest", "1-bf16-bf16"};
const AnswerIdentity kOther{"digest", "1-int8-bf16"};

WorkerView Worker(uint32_t id, size_t live, uint32_t blocks = 100) {
  return {.id = MemberId{id},
          .identity = kThis,
          .free_slots = 4,
          .free_blocks = blocks,
          .block_tokens = 16,
          .live = live};
}

uint32_t Chosen(const std::vector<WorkerView>& workers, size_t tokens = 10,
                const std::optional<AnswerIdentity>& pinned = std::nullopt) {
  return ChooseWorker(workers, {.tokens = tokens, .pinned = pinned}).value_or(MemberId{0}).value;
}

TEST(ChooseWorker, FewestLiveThenMostBlocksThenLowestId) {
  EXPECT_EQ(Chosen({}), 0u);
  EXPECT_EQ(Chosen({Worker(1, 2), Worker(2, 1), Worker(3, 1)}), 2u);
  EXPECT_EQ(Chosen({Worker(1, 1, 50), Worker(2, 1, 60)}), 2u);
  EXPECT_EQ(Chosen({Worker(1, 1), Worker(2, 1)}), 1u);
}

TEST(ChooseWorker, RoomIsSlotsAndBlocksForPromptAndOneMore) {
  WorkerView full = Worker(1, 1);
  full.free_slots = 0;
  EXPECT_EQ(Chosen({full}), 0u);
  EXPECT_EQ(Chosen({Worker(1, 1, 2)}, 31), 1u);  // 31 tokens and the next: two blocks of 16
  EXPECT_EQ(Chosen({Worker(1, 1, 2)}, 32), 0u);
}

TEST(ChooseWorker, AWorkerWithNothingOfOursIsWorthATry) {
  WorkerView stale = Worker(1, 0, 0);
  stale.free_slots = 0;
  EXPECT_EQ(Chosen({stale}), 1u);
  stale.resting = true;
  EXPECT_EQ(Chosen({stale}), 0u);
}

TEST(ChooseWorker, DrainingTakesNothingNewAndPinnedStaysWithItsBytes) {
  WorkerView draining = Worker(1, 0);
  draining.draining = true;
  EXPECT_EQ(Chosen({draining, Worker(2, 3)}), 2u);
  EXPECT_EQ(Chosen({Worker(1, 0)}, 10, kOther), 0u);
  WorkerView other = Worker(2, 3);
  other.identity = kOther;
  EXPECT_EQ(Chosen({Worker(1, 0), other}, 10, kOther), 2u);
}

TEST(ChooseWorker, EditsOfLogitsAreForThoseThatKnowThem) {
  WorkerView knows = Worker(2, 3);
  knows.features.edits_logits = true;
  const std::vector<WorkerView> workers = {Worker(1, 0), knows};
  EXPECT_EQ(Chosen(workers), 1u);
  EXPECT_EQ(ChooseWorker(workers, {.tokens = 10, .features = {.edits_logits = true}}), MemberId{2});
  EXPECT_EQ(ChooseWorker({Worker(1, 0)}, {.tokens = 10, .features = {.edits_logits = true}}),
            std::nullopt);
}

}  // namespace
}  // namespace bottega::gateway
