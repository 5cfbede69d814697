#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/tensor/aligned_buffer.h"
#include "core/tensor/dtype.h"

namespace bottega {
namespace {

TEST(AlignedBuffer, IsAlignedZeroedAndMovable) {
  AlignedBuffer buffer(1001);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % AlignedBuffer::kAlignment, 0u);
  EXPECT_EQ(buffer.As<float>().size(), 250u);
  EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + buffer.size(),
                          [](std::byte b) { return b == std::byte{0}; }));
  const std::byte* data = buffer.data();
  AlignedBuffer moved = std::move(buffer);
  EXPECT_EQ(moved.data(), data);
}

TEST(AlignedBuffer, MayBeEmpty) {
  EXPECT_EQ(AlignedBuffer(0).size(), 0u);
  EXPECT_TRUE(AlignedBuffer().As<float>().empty());
}

TEST(Arena, PiecesAreAlignedAndDisjoint) {
  Arena arena(Arena::Cost<float>(3) + Arena::Cost<uint16_t>(40));
  const auto a = arena.Take<float>(3);
  const auto b = arena.Take<uint16_t>(40);
  EXPECT_EQ(arena.used(), arena.capacity());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) - reinterpret_cast<uintptr_t>(a.data()), 64u);
  arena.Reset();
  EXPECT_EQ(arena.Take<float>(1).data(), a.data());
}

TEST(ArenaDeathTest, RunningOutIsAProgrammersError) {
  Arena arena(64);
  EXPECT_DEATH(arena.Take<float>(17), "CHECK failed");
}

TEST(DType, NamesRoundTrip) {
  for (DType dtype : {DType::kF32, DType::kBF16}) EXPECT_EQ(*ParseDType(Name(dtype)), dtype);
  EXPECT_FALSE(ParseDType("f16").ok());
  EXPECT_EQ(SizeOf(DType::kF32), 4u);
  EXPECT_EQ(SizeOf(DType::kBF16), 2u);
}

}  // namespace
}  // namespace bottega
