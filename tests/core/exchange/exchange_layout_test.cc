#include "core/exchange/exchange_layout.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>

#include "core/tensor/aligned_buffer.h"

namespace bottega {
namespace {

constexpr Incarnation kAttention{0xa77e}, kExpert{0xe4be};
constexpr uint64_t kKey = 0x5ec2e7;
constexpr ExchangeShape kShape{
    .layers = 24, .experts = 64, .top_k = 8, .hidden = 48, .row_type = DType::kBF16};

bool OurPair(Incarnation sender, uint64_t key) { return sender == kAttention && key == kKey; }

struct Frame {
  explicit Frame(size_t bytes) : memory(bytes) {}
  absl::Span<std::byte> bytes() { return {memory.data(), memory.size()}; }
  AlignedBuffer memory;
};

FrameHeader Header(FrameKind kind, uint32_t tokens, uint32_t entries) {
  FrameHeader header{};
  header.kind = static_cast<uint8_t>(kind);
  header.row_type = static_cast<uint8_t>(kShape.row_type);
  header.sender = kAttention.value;
  header.receiver = kExpert.value;
  header.session_key = kKey;
  header.request_key = 11;
  header.sequence = 12;
  header.epoch = 13;
  header.layer = 3;
  header.part = 1;
  header.parts = 4;
  header.attempt = 1;
  header.tokens = tokens;
  header.entries = entries;
  header.hidden = kShape.hidden;
  header.remaining_us = 1000;
  header.credits = entries;
  return header;
}

// Tokens 0, 1, 2 want experts {1, 5}, {5}, {0, 62, 63}.
Frame Forward(const std::function<void(FrameHeader&)>& edit = {}) {
  Frame frame(ForwardBytes(3, 6, kShape.row_bytes()));
  const uint32_t offsets[] = {0, 2, 3, 6};
  const uint16_t experts[] = {1, 5, 5, 0, 62, 63};
  std::memcpy(frame.memory.data() + sizeof(FrameHeader), offsets, sizeof offsets);
  std::memcpy(frame.memory.data() + sizeof(FrameHeader) + sizeof offsets, experts, sizeof experts);
  for (size_t i = ForwardRowsOffset(3, 6); i < frame.memory.size(); ++i) {
    frame.memory.data()[i] = std::byte(i);
  }
  FrameHeader header = Header(FrameKind::kForward, 3, 6);
  if (edit) edit(header);
  SealFrame(header, frame.bytes());
  return frame;
}

absl::StatusCode CodeOf(Frame& frame) {
  return CheckFrame(frame.bytes(), kShape, kExpert, OurPair).status().code();
}

TEST(ExchangeLayoutTest, AForwardComesBackAsItWasWritten) {
  Frame frame = Forward();
  const auto view = CheckFrame(frame.bytes(), kShape, kExpert, OurPair);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(view->kind(), FrameKind::kForward);
  EXPECT_EQ(view->header.request_key, 11u);
  EXPECT_EQ(std::vector<uint32_t>(view->offsets.begin(), view->offsets.end()),
            (std::vector<uint32_t>{0, 2, 3, 6}));
  EXPECT_EQ(std::vector<uint16_t>(view->experts.begin(), view->experts.end()),
            (std::vector<uint16_t>{1, 5, 5, 0, 62, 63}));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view->rows) % kFrameAlignment, 0u);
  EXPECT_EQ(view->rows + 3 * kShape.row_bytes(), frame.memory.data() + frame.memory.size());
}

TEST(ExchangeLayoutTest, AnswersKeepIdentityAndSwapEnds) {
  const FrameHeader forward = Header(FrameKind::kForward, 3, 6);
  const FrameHeader nack = AnswerTo(forward, FrameKind::kNack, FrameReason::kBusy);
  EXPECT_EQ(nack.sender, forward.receiver);
  EXPECT_EQ(nack.receiver, forward.sender);
  EXPECT_EQ(nack.sequence, forward.sequence);
  Frame frame(sizeof(FrameHeader));
  SealFrame(nack, frame.bytes());
  const auto view = CheckFrame(frame.bytes(), kShape, kAttention,
                               [](Incarnation sender, uint64_t) { return sender == kExpert; });
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(view->reason(), FrameReason::kBusy);

  Frame reply(ReplyBytes(6, kShape.row_bytes()));
  SealFrame(AnswerTo(forward, FrameKind::kReply, FrameReason::kNone), reply.bytes());
  EXPECT_TRUE(CheckFrame(reply.bytes(), kShape, kAttention, [](Incarnation, uint64_t) {
                return true;
              }).ok());
}

TEST(ExchangeLayoutTest, EveryByteChangedIsRefused) {
  const Frame good = Forward();
  for (size_t i = 0; i < good.memory.size(); ++i) {
    Frame bad(good.memory.size());
    std::memcpy(bad.memory.data(), good.memory.data(), good.memory.size());
    bad.memory.data()[i] ^= std::byte{1} << (i % 8);
    EXPECT_NE(CodeOf(bad), absl::StatusCode::kOk) << i;
  }
}

TEST(ExchangeLayoutTest, EveryCutIsRefused) {
  const Frame good = Forward();
  for (size_t size = 0; size < good.memory.size(); ++size) {
    const absl::Span<const std::byte> cut(good.memory.data(), size);
    EXPECT_FALSE(CheckFrame(cut, kShape, kExpert, OurPair).ok()) << size;
  }
  EXPECT_FALSE(
      CheckFrame({good.memory.data() + 8, good.memory.size() - 8}, kShape, kExpert, OurPair).ok());
}

TEST(ExchangeLayoutTest, CodesNameTheReason) {
  auto code = [](const std::function<void(FrameHeader&)>& edit) {
    Frame frame = Forward(edit);
    return CodeOf(frame);
  };
  EXPECT_EQ(code([](FrameHeader& h) { h.receiver ^= 1; }), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code([](FrameHeader& h) { h.sender ^= 1; }), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code([](FrameHeader& h) { h.session_key ^= 1; }), absl::StatusCode::kPermissionDenied);
  Frame corrupt = Forward();
  corrupt.memory.data()[corrupt.memory.size() - 1] ^= std::byte{1};
  EXPECT_EQ(CodeOf(corrupt), absl::StatusCode::kDataLoss);
}

// A peer with the right key and a right CRC may still say nonsense.
TEST(ExchangeLayoutTest, SealedNonsenseIsOutOfRange) {
  const std::function<void(FrameHeader&)> edits[] = {
      [](FrameHeader& h) { h.row_type = 0; },
      [](FrameHeader& h) { h.row_type = 77; },
      [](FrameHeader& h) { h.hidden = 47; },
      [](FrameHeader& h) { h.hidden = 0xffffffff; },
      [](FrameHeader& h) { h.layer = 24; },
      [](FrameHeader& h) { h.sequence = 0; },
      [](FrameHeader& h) { h.part = 4; },
      [](FrameHeader& h) { h.parts = 0; },
      [](FrameHeader& h) { h.parts = limits::kPartsMax + 1; },
      [](FrameHeader& h) { h.attempt = 0; },
      [](FrameHeader& h) { h.attempt = limits::kAttemptsMax + 1; },
      [](FrameHeader& h) { h.tokens = 0; },
      [](FrameHeader& h) { h.tokens = 2; },
      [](FrameHeader& h) { h.tokens = 4; },
      [](FrameHeader& h) { h.tokens = limits::kFrameTokensMax + 1; },
      [](FrameHeader& h) { h.tokens = 0xffffffff; },
      [](FrameHeader& h) { h.entries = 0; },
      [](FrameHeader& h) { h.entries = 5; },
      [](FrameHeader& h) { h.entries = 25; },
      [](FrameHeader& h) { h.entries = 0xffffffff; },
      [](FrameHeader& h) { h.kind = 0; },
      [](FrameHeader& h) { h.kind = 6; },
      [](FrameHeader& h) { h.kind = static_cast<uint8_t>(FrameKind::kReply); },
      [](FrameHeader& h) { h.kind = static_cast<uint8_t>(FrameKind::kNack); },
      [](FrameHeader& h) { h.phase = 2; },
      [](FrameHeader& h) { h.reason = 99; },
      [](FrameHeader& h) { h.zero = 1; },
      [](FrameHeader& h) { h.reserved[3] = 1; },
  };
  for (size_t i = 0; i < std::size(edits); ++i) {
    Frame frame = Forward(edits[i]);
    EXPECT_EQ(CodeOf(frame), absl::StatusCode::kOutOfRange) << i;
  }
}

TEST(ExchangeLayoutTest, ListsAreCheckedBeforeTheyAreUsed) {
  auto code = [](const std::vector<uint32_t>& offsets, const std::vector<uint16_t>& experts) {
    Frame frame = Forward();
    std::memcpy(frame.memory.data() + sizeof(FrameHeader), offsets.data(), offsets.size() * 4);
    std::memcpy(frame.memory.data() + sizeof(FrameHeader) + 16, experts.data(), experts.size() * 2);
    SealFrame(Header(FrameKind::kForward, 3, 6), frame.bytes());
    return CodeOf(frame);
  };
  const std::vector<uint16_t> experts = {1, 5, 5, 0, 62, 63};
  EXPECT_EQ(code({0, 2, 3, 6}, experts), absl::StatusCode::kOk);
  const std::vector<uint32_t> bad_offsets[] = {{1, 2, 3, 6},          {0, 2, 3, 5},
                                               {0, 0, 3, 6},          {0, 3, 2, 6},
                                               {0, 0xffffffff, 3, 6}, {0, 2, 0x80000000, 6}};
  for (const auto& offsets : bad_offsets) {
    EXPECT_EQ(code(offsets, experts), absl::StatusCode::kOutOfRange);
  }
  const std::vector<uint16_t> bad_experts[] = {
      {5, 1, 5, 0, 62, 63}, {5, 5, 5, 0, 62, 63}, {1, 5, 5, 0, 62, 64}, {1, 5, 0xffff, 0, 62, 63}};
  for (const auto& list : bad_experts) {
    EXPECT_EQ(code({0, 2, 3, 6}, list), absl::StatusCode::kOutOfRange);
  }
}

// Random damage, half of it sealed again so that it gets past the CRC.
TEST(ExchangeLayoutTest, RandomDamageNeverReadsOutside) {
  std::mt19937_64 rng(5);
  int accepted = 0;
  for (int round = 0; round < 5000; ++round) {
    Frame frame = Forward();
    for (int n = 1 + static_cast<int>(rng() % 4); n > 0; --n) {
      const size_t at =
          rng() % 2 == 0 ? rng() % (sizeof(FrameHeader) + 28) : rng() % frame.memory.size();
      frame.memory.data()[at] = std::byte(rng());
    }
    if (round % 2 == 0) SealFrame(UncheckedHeader(frame.bytes()), frame.bytes());
    if (const auto view = CheckFrame(frame.bytes(), kShape, kExpert, OurPair); view.ok()) {
      ++accepted;
      for (uint16_t expert : view->experts) ASSERT_LT(expert, kShape.experts);
    }
  }
  EXPECT_GT(accepted, 100);  // the damage is not so coarse that nothing gets through
}

}  // namespace
}  // namespace bottega
