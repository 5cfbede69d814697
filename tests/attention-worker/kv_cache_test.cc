#include "attention-worker/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bottega {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(KvCache, APoolThatMemoryCannotHoldIsRefused) {
  EXPECT_TRUE(KvCache::CheckMemory(8 * kGiB, 8 * kGiB).ok());
  EXPECT_TRUE(KvCache::CheckMemory(8 * kGiB, 0).ok());
  const absl::Status refused = KvCache::CheckMemory(9 * kGiB, 8 * kGiB);
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("9216 MiB"), HasSubstr("8192 MiB"), HasSubstr("--kv-cache")));
}

}  // namespace
}  // namespace bottega
