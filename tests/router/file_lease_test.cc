#include "router/file_lease.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr Duration kTtl = 2s;

class FileLeaseTest : public testing::Test {
 protected:
  ~FileLeaseTest() override { std::filesystem::remove(path_); }

  std::unique_ptr<Lease> Open() {
    auto lease = OpenFileLease(*loop_, path_, kTtl);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *std::move(lease) : nullptr;
  }
  static Task<void> Ask(Lease* lease, uint64_t above, std::optional<uint64_t>* out) {
    auto term = co_await lease->TryAcquire(above);
    if (term.ok()) *out = *term;
  }
  std::optional<uint64_t> Acquire(Lease& lease, uint64_t above = 0) {
    std::optional<uint64_t> term;
    loop_->Spawn(NodeId{1}, Ask(&lease, above, &term));
    Run(0s);
    return term;
  }
  static Task<void> AskRenew(Lease* lease, absl::Status* out) { *out = co_await lease->Renew(); }
  absl::Status Renew(Lease& lease) {
    absl::Status status = absl::UnknownError("");
    loop_->Spawn(NodeId{1}, AskRenew(&lease, &status));
    Run(0s);
    return status;
  }
  static Task<void> AskRelease(Lease* lease) { co_await lease->Release(); }
  void Release(Lease& lease) {
    loop_->Spawn(NodeId{1}, AskRelease(&lease));
    Run(0s);
  }
  void Run(Duration d) { loop_->RunUntil(loop_->Now() + d); }

  const std::string path_ =
      (std::filesystem::temp_directory_path() / ("bottega_lease_" + std::to_string(getpid())))
          .string();
  std::unique_ptr<Loop> loop_ = Loop::Simulated(1);
};

TEST_F(FileLeaseTest, OneHoldsItWhileItRenews) {
  auto first = Open(), second = Open();
  const auto term = Acquire(*first);
  ASSERT_TRUE(term.has_value());
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(Acquire(*second).has_value());
    EXPECT_TRUE(Renew(*first).ok());
    Run(kTtl / 3);
  }
}

TEST_F(FileLeaseTest, ADeadHolderIsFollowedAtOnce) {
  auto first = Open(), second = Open();
  const auto term = Acquire(*first);
  EXPECT_FALSE(Acquire(*second).has_value());
  first.reset();  // the kernel closes what a killed process had open
  const auto next = Acquire(*second);
  ASSERT_TRUE(next.has_value());
  EXPECT_GT(*next, *term);
}

TEST_F(FileLeaseTest, AHolderThatStandsStillIsFollowedAfterTheTtlAndFenced) {
  auto first = Open(), second = Open(), third = Open();
  const auto term = Acquire(*first);
  EXPECT_FALSE(Acquire(*second).has_value());
  Run(kTtl - 1ms);
  EXPECT_FALSE(Acquire(*second).has_value());
  Run(1ms);
  const auto next = Acquire(*second);
  ASSERT_TRUE(next.has_value());
  EXPECT_GT(*next, *term);
  EXPECT_TRUE(absl::IsAborted(Renew(*first))) << "the old one learns of it";
  // The old one's lock is free now and the new one's not taken yet: that is no death.
  EXPECT_FALSE(Acquire(*third).has_value());
  EXPECT_TRUE(Renew(*second).ok());
  second.reset();
  EXPECT_TRUE(Acquire(*third).has_value());
}

TEST_F(FileLeaseTest, AReleasedOneIsFreeAtOnceAlsoForItsHolder) {
  auto first = Open(), second = Open();
  const auto term = Acquire(*first);
  Release(*first);
  const auto next = Acquire(*second);
  ASSERT_TRUE(next.has_value());
  EXPECT_GT(*next, *term);
  EXPECT_FALSE(Acquire(*first).has_value());
  Release(*second);
  const auto third = Acquire(*first);
  ASSERT_TRUE(third.has_value());
  EXPECT_GT(*third, *next);
}

TEST_F(FileLeaseTest, TermsGrowOverProcessesAndAboveWhatMembersHave) {
  const auto term = Acquire(*Open());
  const auto above = *term + 1'000'000'000;
  const auto next = Acquire(*Open(), above);
  ASSERT_TRUE(next.has_value());
  EXPECT_GT(*next, above);
  const auto last = Acquire(*Open());
  ASSERT_TRUE(last.has_value());
  EXPECT_GT(*last, *next);
}

TEST_F(FileLeaseTest, AnotherFileIsRefused) {
  std::ofstream(path_) << std::string(40, 'x');
  EXPECT_FALSE(OpenFileLease(*loop_, path_, kTtl).ok());
  std::ofstream(path_) << "text";
  EXPECT_FALSE(OpenFileLease(*loop_, path_, kTtl).ok());
  EXPECT_FALSE(OpenFileLease(*loop_, "/nonexistent/lease", kTtl).ok());
  EXPECT_FALSE(OpenLease(*loop_, "consul:x", kTtl, "router").ok());
  EXPECT_FALSE(OpenLease(*loop_, "etcd:localhost:2379", kTtl, "router").ok());
}

}  // namespace
}  // namespace bottega
