#include "core/kernels/cpu/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "core/kernels/cpu/cpu.h"

namespace bottega {
namespace {

TEST(ThreadPool, RunsEveryItemOnce) {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t items : {0, 1, 2, 3, 100}) {
      for (int repeat = 0; repeat < 200; ++repeat) {
        std::vector<std::atomic<int>> runs(items);
        pool.ParallelFor(items, [&](int64_t item, int thread) {
          for (int i = 0; i < item % 4; ++i) std::this_thread::yield();
          ++runs[item];
          if (thread < 0 || thread >= threads) ++runs[item];
        });
        for (const auto& count : runs) ASSERT_EQ(count, 1);
      }
    }
  }
}

// Item 0 waits until another thread has run item 1: it ends only if two threads really take part.
TEST(ThreadPool, WakesSleepingWorkers) {
  ThreadPool pool(2);
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::atomic<int> arrived{0};
    pool.ParallelFor(2, [&](int64_t, int) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived, 2);
  }
}

// Two callers: each call's items run under its own mark. An item that runs in the other's job,
// twice or never shows in the count of its call.
TEST(ThreadPool, CallersTakeTurns) {
  ThreadPool pool(3);
  const auto call = [&] {
    for (int repeat = 0; repeat < 300; ++repeat) {
      std::atomic<int> ran{0};
      pool.ParallelFor(8, [&](int64_t, int) {
        std::this_thread::yield();
        ++ran;
      });
      if (ran != 8) return false;
    }
    return true;
  };
  bool other_ok = false;
  std::thread other([&] { other_ok = call(); });
  EXPECT_TRUE(call());
  other.join();
  EXPECT_TRUE(other_ok);
}

TEST(Isa, NamesAreParsedAndCheckedAgainstTheMachine) {
  EXPECT_EQ(*ParseIsa("scalar"), Isa::kScalar);
  EXPECT_EQ(*ParseIsa(Name(BestIsa())), BestIsa());
  EXPECT_FALSE(ParseIsa("sse9").ok());
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) EXPECT_EQ(ParseIsa(Name(isa)).ok(), HasIsa(isa));
}

}  // namespace
}  // namespace bottega
