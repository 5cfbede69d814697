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

TEST(ThreadPool, CallersTakeTurns) {
  ThreadPool pool(3);
  std::atomic<int> inside{0}, total{0};
  std::atomic<bool> mixed{false};
  const auto call = [&](int mark) {
    for (int repeat = 0; repeat < 200; ++repeat) {
      pool.ParallelFor(8, [&](int64_t, int) {
        int expected = 0;
        if (!inside.compare_exchange_strong(expected, mark) && expected != mark) mixed = true;
        ++total;
      });
      inside = 0;
    }
  };
  // Each caller marks the pool as its own while its items run; the other's mark must not be seen.
  // The mark is cleared after the call has returned, so only the absence of a lost item is certain
  // here.
  std::thread other([&] { call(1); });
  call(1);
  other.join();
  EXPECT_FALSE(mixed);
  EXPECT_EQ(total, 2 * 200 * 8);
}

TEST(Isa, NamesAreParsedAndCheckedAgainstTheMachine) {
  EXPECT_EQ(*ParseIsa("scalar"), Isa::kScalar);
  EXPECT_EQ(*ParseIsa(Name(BestIsa())), BestIsa());
  EXPECT_FALSE(ParseIsa("sse9").ok());
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) EXPECT_EQ(ParseIsa(Name(isa)).ok(), HasIsa(isa));
}

}  // namespace
}  // namespace bottega
