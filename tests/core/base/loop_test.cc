#include "core/base/loop.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "core/base/gate.h"
#include "core/base/inbox.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr NodeId kNode{1};
constexpr NodeId kOther{2};

// One body for both kinds of loop.
class LoopTest : public testing::TestWithParam<bool> {
 protected:
  LoopTest() : loop_(GetParam() ? Loop::Simulated(7) : Loop::Real()) {}
  Loop& loop() { return *loop_; }
  std::unique_ptr<Loop> loop_;
};
INSTANTIATE_TEST_SUITE_P(RealAndSimulated, LoopTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Simulated" : "Real"; });

Task<int> AddLater(Loop& loop, int a, int b) {
  co_await loop.Yield();
  co_return a + b;
}

Task<void> SumTo(Loop& loop, int n, int* out) {
  for (int i = 1; i <= n; ++i) *out = co_await AddLater(loop, *out, i);
  loop.Stop();
}

TEST_P(LoopTest, TasksAwaitTasks) {
  int sum = 0;
  loop().Spawn(kNode, SumTo(loop(), 100, &sum));
  loop().Run();
  EXPECT_EQ(sum, 5050);
  EXPECT_EQ(loop().tasks(kNode), 0u);
}

Task<int> Immediate(int x) { co_return x; }

Task<void> ManyImmediate(Loop& loop, int64_t* out) {
  for (int i = 0; i < 300'000; ++i) *out += co_await Immediate(1);
  loop.Stop();
}

// Without the trampoline this overflows the stack where the compiler does not do tail calls.
TEST_P(LoopTest, AwaitingFinishedTasksInALoopKeepsTheStackFlat) {
  int64_t sum = 0;
  loop().Spawn(kNode, ManyImmediate(loop(), &sum));
  loop().Run();
  EXPECT_EQ(sum, 300'000);
}

Task<void> SleepAndAppend(Loop& loop, Duration d, std::string* log, char c) {
  co_await loop.Sleep(d);
  log->push_back(c);
  if (log->size() == 3) loop.Stop();
}

TEST_P(LoopTest, TimersFireInOrder) {
  std::string log;
  loop().Spawn(kNode, SleepAndAppend(loop(), 20ms, &log, 'c'));
  loop().Spawn(kNode, SleepAndAppend(loop(), 1ms, &log, 'a'));
  loop().Spawn(kNode, SleepAndAppend(loop(), 10ms, &log, 'b'));
  const Time start = loop().Now();
  loop().Run();
  EXPECT_EQ(log, "abc");
  EXPECT_GE(loop().Now() - start, 20ms);
}

Task<void> WaitSlot(Loop& loop, Slot& slot, Time deadline, absl::Status* out) {
  *out = co_await slot.Wait(deadline);
  loop.Stop();
}

TEST_P(LoopTest, SlotTimesOut) {
  Slot slot(loop());
  absl::Status status;
  loop().Spawn(kNode, WaitSlot(loop(), slot, loop().Now() + 1ms, &status));
  loop().Run();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
}

TEST_P(LoopTest, AWakeBeforeTheWaitCounts) {
  Slot slot(loop());
  slot.Wake();
  absl::Status status = absl::UnknownError("");
  loop().Spawn(kNode, WaitSlot(loop(), slot, kNever, &status));
  loop().Run();
  EXPECT_TRUE(status.ok());
}

Task<void> Produce(Loop& loop, Inbox<std::string>& inbox, int n) {
  for (int i = 0; i < n; ++i) {
    inbox.Push(std::to_string(i));
    if (i % 3 == 0) co_await loop.Yield();
  }
  inbox.Close(absl::OutOfRangeError("end"));
}

Task<void> Consume(Loop& loop, Inbox<std::string>& inbox, std::string* out, absl::Status* end) {
  while (true) {
    absl::StatusOr<std::string> item = co_await inbox.Receive();
    if (!item.ok()) {
      *end = item.status();
      break;
    }
    *out += *item;
  }
  loop.Stop();
}

TEST_P(LoopTest, InboxKeepsOrderAndDrainsBeforeItsEnd) {
  Inbox<std::string> inbox(loop(), 100);
  std::string out;
  absl::Status end;
  loop().Spawn(kNode, Consume(loop(), inbox, &out, &end));
  loop().Spawn(kOther, Produce(loop(), inbox, 12));
  loop().Run();
  EXPECT_EQ(out, "01234567891011");
  EXPECT_TRUE(absl::IsOutOfRange(end));
}

TEST_P(LoopTest, InboxRefusesPastItsLimit) {
  Inbox<int> inbox(loop(), 2);
  EXPECT_TRUE(inbox.Push(1));
  EXPECT_TRUE(inbox.Push(2));
  EXPECT_FALSE(inbox.Push(3));
}

// An end with the code of a receiver's own time would be taken for that for ever.
TEST_P(LoopTest, InboxNeverEndsAsADeadline) {
  Inbox<std::string> inbox(loop(), 2);
  std::string out;
  absl::Status end;
  inbox.Close(absl::DeadlineExceededError("says the peer"));
  loop().Spawn(kNode, Consume(loop(), inbox, &out, &end));
  loop().Run();
  EXPECT_EQ(end, absl::UnavailableError("says the peer"));
}

struct Flag {
  bool* dead;
  ~Flag() { *dead = true; }
};

Task<void> HoldDeep(Loop& loop, bool* dead, int depth) {
  if (depth > 0) {
    co_await HoldDeep(loop, dead, depth - 1);
    co_return;
  }
  Flag flag{dead};
  co_await loop.Sleep(1h);
}

Task<void> KillThen(Loop& loop, NodeId victim) {
  co_await loop.Yield();
  co_await loop.Yield();
  loop.Kill(victim);
  loop.Stop();
}

TEST_P(LoopTest, KillDestroysEveryFrameOfANode) {
  bool dead = false;
  loop().Spawn(kNode, HoldDeep(loop(), &dead, 5));
  loop().Spawn(kOther, KillThen(loop(), kNode));
  loop().Run();
  EXPECT_TRUE(dead);
  EXPECT_EQ(loop().tasks(kNode), 0u);
}

TEST_P(LoopTest, ANodeMayKillItself) {
  bool dead = false;
  loop().Spawn(kNode, HoldDeep(loop(), &dead, 2));
  loop().Spawn(kNode, KillThen(loop(), kNode));
  loop().Run();
  EXPECT_TRUE(dead);
}

Task<void> HoldGate(Loop& loop, Gate& gate) {
  auto pass = gate.Enter();
  co_await loop.Sleep(5ms);
}

Task<void> CloseGate(Loop& loop, Gate& gate, absl::Status* early, absl::Status* late) {
  co_await loop.Yield();
  *early = co_await gate.Close(loop.Now() + 1ms);
  *late = co_await gate.Close(kNever);
  loop.Stop();
}

TEST_P(LoopTest, GateWaitsForWhatIsInside) {
  Gate gate(loop());
  absl::Status early, late = absl::UnknownError("");
  loop().Spawn(kNode, HoldGate(loop(), gate));
  loop().Spawn(kOther, CloseGate(loop(), gate, &early, &late));
  loop().Run();
  EXPECT_TRUE(absl::IsDeadlineExceeded(early));
  EXPECT_TRUE(late.ok());
  EXPECT_FALSE(gate.Enter().has_value());
}

Task<void> LongWork(Loop& loop, std::string* log) {
  co_await loop.Yield();  // into the ready list
  for (char piece = 'a'; piece < 'f'; ++piece) {
    loop.Post([log] { log->push_back('.'); });
    log->push_back(piece);
    co_await loop.Yield();
  }
  loop.Stop();
}

// Heartbeats and frames do not wait for the end of work whose pieces take tens of milliseconds.
TEST_P(LoopTest, OthersHaveTheirTurnBetweenThePiecesOfLongWork) {
  std::string log;
  loop().Spawn(kNode, LongWork(loop(), &log));
  loop().Run();
  EXPECT_EQ(log, "a.b.c.d.e.");
}

TEST(RealLoop, PostsFromOtherThreadsRunInOrderOnTheLoop) {
  auto loop = Loop::Real();
  std::string log;
  const auto loop_thread = std::this_thread::get_id();
  std::thread other([&] {
    for (char c = 'a'; c <= 'z'; ++c) {
      loop->Post([&log, c, loop_thread] {
        EXPECT_EQ(std::this_thread::get_id(), loop_thread);
        log.push_back(c);
      });
    }
    loop->Stop();
  });
  loop->Run();
  other.join();
  EXPECT_EQ(log, "abcdefghijklmnopqrstuvwxyz");
}

TEST(RealLoop, WatchesAFileDescriptor) {
  auto loop = Loop::Real();
  const int fd = eventfd(0, EFD_NONBLOCK);
  uint64_t value = 0;
  loop->WatchFd(fd, [&] {
    ASSERT_EQ(read(fd, &value, sizeof value), 8);
    loop->Stop();
  });
  const uint64_t sent = 42;
  ASSERT_EQ(write(fd, &sent, sizeof sent), 8);
  loop->Run();
  EXPECT_EQ(value, 42u);
  loop->UnwatchFd(fd);
  close(fd);
}

Task<void> RandomWalk(Loop& loop, std::string* log, char name) {
  for (int i = 0; i < 20; ++i) {
    if (loop.SimRandom() % 2 == 0) {
      co_await loop.Yield();
    } else {
      co_await loop.Sleep(Duration(loop.SimRandom() % 1000));
    }
    log->push_back(name);
  }
}

std::pair<std::string, uint64_t> History(uint64_t seed) {
  auto loop = Loop::Simulated(seed);
  std::string log;
  for (char name = 'a'; name < 'f'; ++name) loop->Spawn(kNode, RandomWalk(*loop, &log, name));
  loop->Run();
  return {log, loop->trace_hash()};
}

TEST(SimulatedLoop, ASeedIsAHistory) {
  EXPECT_EQ(History(1), History(1));
  EXPECT_NE(History(1).first, History(2).first);
  EXPECT_NE(History(1).second, History(2).second);
}

TEST(SimulatedLoop, RunUntilStopsTheClockThere) {
  auto loop = Loop::Simulated(1);
  std::string log;
  loop->Spawn(kNode, SleepAndAppend(*loop, 10s, &log, 'x'));
  loop->RunUntil(Time(9s));
  EXPECT_EQ(log, "");
  EXPECT_EQ(loop->Now(), Time(9s));
  loop->RunUntil(Time(11s));
  EXPECT_EQ(log, "x");
}

}  // namespace
}  // namespace bottega
