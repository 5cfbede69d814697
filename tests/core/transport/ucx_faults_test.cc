// Peers that are killed or stopped in the middle of sends, as real processes, over each kind of UCX
// transport. A peer that dies between claiming a slot of our FIFO and filling it must take nobody
// else with it; one that is stopped must cost its peers no memory past what was sent, and no CPU.
// BOTTEGA_KILLS: trials of each kind of death (default 10).

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/base/loop.h"
#include "core/transport/ucx_transport.h"
#include "tests/core/transport/ucx_sender.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr NodeId kNode{1};
constexpr size_t kProofFrames = 200;  // that a survivor must bring after each death
constexpr Duration kHangLimit = 20s;

// A process of ucx_sender.cc and our end of the pair with it.
class Sender {
 public:
  Sender(Transport& transport, const std::string& exchange, uint64_t name) : transport_(transport) {
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    pid_ = fork();
    CHECK(pid_ >= 0);
    if (pid_ == 0) {
      const std::string fd = std::to_string(dup(fds[1])), number = std::to_string(name);
      execl(UCX_SENDER, UCX_SENDER, fd.c_str(), exchange.c_str(), number.c_str(), nullptr);
      _exit(127);
    }
    close(fds[1]);
    const auto opened = transport.Open(transport.offer().kinds.front());
    CHECK(opened.ok());
    endpoint_ = *opened;
    const std::string address = ReceiveString(fds[0]);
    SendString(fds[0], transport.address(endpoint_));
    CHECK(transport.Connect(endpoint_, address).ok());
    close(fds[0]);
  }
  ~Sender() {
    transport_.Close(endpoint_);
    Kill(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;
  void Kill(int signal) { CHECK(kill(pid_, signal) == 0); }
  EndpointId endpoint() const { return endpoint_; }

 private:
  Transport& transport_;
  pid_t pid_ = -1;
  EndpointId endpoint_;
};

std::set<std::string> SharedMemoryFiles() {
  std::set<std::string> names;
  DIR* dir = opendir("/dev/shm");
  while (dirent* entry = readdir(dir)) names.insert(entry->d_name);
  closedir(dir);
  return names;
}

Duration CpuTime() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

int Trials() {
  const char* told = std::getenv("BOTTEGA_KILLS");
  return told == nullptr ? 10 : std::atoi(told);
}

Task<void> Watch(Loop& loop, const std::function<bool()>* done, Time give_up) {
  while (!(*done)() && loop.Now() < give_up) co_await loop.Sleep(200us);
  loop.Stop();
}

class UcxFaultsTest : public testing::TestWithParam<const char*> {
 protected:
  UcxFaultsTest() : loop_(Loop::Real()) {
    auto transport = UcxTransport::Create(*loop_, {.exchange = GetParam()});
    CHECK(transport.ok());
    transport_ = *std::move(transport);
    transport_->SetEvents({.on_frame = [this](FrameBuffer frame) { OnFrame(std::move(frame)); },
                           .on_up = [this](EndpointId id) { up_.insert(id); },
                           .on_down = [this](EndpointId id, absl::Status) { up_.erase(id); }});
  }

  // Each frame is acknowledged; numbers come without a gap.
  void OnFrame(FrameBuffer frame) {
    SenderHeader header;
    ASSERT_EQ(frame.size(), kSenderFrameBytes);
    std::memcpy(&header, frame.data(), sizeof header);
    ASSERT_EQ(frame.data()[kSenderFrameBytes - 1], std::byte(header.number));
    ASSERT_EQ(header.number, ++received_[header.sender]);
    const auto sender = senders_.find(header.sender);
    if (sender == senders_.end() || !up_.contains(sender->second->endpoint())) return;
    // Whoever is gone needs no acknowledgement.
    (void)PostHeader(*transport_, sender->second->endpoint(), header, sizeof header);
  }

  Sender& Start(uint64_t name) {
    received_[name] = 0;
    return *(senders_[name] = std::make_unique<Sender>(*transport_, GetParam(), name));
  }
  // Lets it go as the exchange does when the pair's stream ends.
  void Drop(uint64_t name) {
    const auto sender = senders_.find(name);
    up_.erase(sender->second->endpoint());
    senders_.erase(sender);
  }
  bool RunUntil(std::function<bool()> done) {
    loop_->Spawn(kNode, Watch(*loop_, &done, loop_->Now() + kHangLimit));
    loop_->Run();
    return done();
  }
  bool BringsMore(uint64_t name) {
    const uint64_t before = received_[name];
    return RunUntil([&] { return received_[name] >= before + kProofFrames; });
  }

  std::unique_ptr<Loop> loop_;
  std::unique_ptr<UcxTransport> transport_;
  std::map<uint64_t, std::unique_ptr<Sender>> senders_;
  std::map<uint64_t, uint64_t> received_;
  std::set<EndpointId> up_;
};
INSTANTIATE_TEST_SUITE_P(All, UcxFaultsTest, testing::Values("shm", "tcp"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(UcxFaultsTest, W2_WhoDiesOrStopsInASendSilencesNobodyElse) {
  const std::set<std::string> files = SharedMemoryFiles();
  std::mt19937 random(7);
  Start(1);
  ASSERT_TRUE(BringsMore(1));
  for (int signal : {SIGKILL, SIGSTOP}) {
    for (int trial = 0; trial < Trials(); ++trial) {
      Sender& victim = Start(2);
      const uint64_t frames = 20 + random() % 100;
      ASSERT_TRUE(RunUntil([&] { return received_[2] >= frames; }));
      usleep(random() % 300);  // somewhere inside a send
      victim.Kill(signal);
      ASSERT_TRUE(BringsMore(1)) << "silenced by signal " << signal << ", trial " << trial;
      Drop(2);
    }
  }
  ASSERT_TRUE(BringsMore(1));
  Drop(1);
  // Others' tests may come and go; what is left must not be ours for long.
  ASSERT_TRUE(RunUntil([&] {
    for (const std::string& name : SharedMemoryFiles()) {
      if (!files.contains(name) && name.find("ucx") != std::string::npos) return false;
    }
    return true;
  }));
}

TEST_P(UcxFaultsTest, O14_AStoppedPeerCostsNeitherMemoryNorCpuAndCanBeDropped) {
  Sender& peer = Start(1);
  ASSERT_TRUE(BringsMore(1));
  peer.Kill(SIGSTOP);
  // As many bytes as credits allow: rows of 5.76 KB, in parts.
  constexpr size_t kParts = limits::kCreditRows * 5760 / limits::kPartBytesMax;
  for (size_t i = 0; i < kParts; ++i) {
    auto frame = transport_->Lease(limits::kPartBytesMax);
    ASSERT_TRUE(frame.ok());
    ASSERT_TRUE(transport_->Post(peer.endpoint(), *std::move(frame)).ok());
  }
  const Time begin = loop_->Now();
  RunUntil([&] { return loop_->Now() >= begin + 100ms; });  // what can leave has left
  const Duration cpu = CpuTime();
  const Time start = loop_->Now();
  RunUntil([&] { return loop_->Now() >= start + 1s; });
  // The watcher itself wakes 5,000 times a second.
  EXPECT_LT(CpuTime() - cpu, (loop_->Now() - start) / 2);
  EXPECT_LE(transport_->leased(), kParts + kSenderWindow);  // and acknowledgements
  Drop(1);
  EXPECT_EQ(transport_->leased(), 0u);
  Start(2);  // and the transport is as good as before
  EXPECT_TRUE(BringsMore(2));
}

TEST_P(UcxFaultsTest, APeerThatGoesOnAfterAStopHasLostNothing) {
  Sender& peer = Start(1);
  ASSERT_TRUE(BringsMore(1));
  for (int i = 0; i < 3; ++i) {
    peer.Kill(SIGSTOP);
    const Time start = loop_->Now();
    RunUntil([&] { return loop_->Now() >= start + 30ms; });
    peer.Kill(SIGCONT);
    ASSERT_TRUE(BringsMore(1));
  }
}

TEST_P(UcxFaultsTest, AConnectThatNobodyAnswersEndsByItsOwnDeadline) {
  auto other = UcxTransport::Create(*loop_, {.exchange = GetParam()});
  ASSERT_TRUE(other.ok());
  auto impatient = UcxTransport::Create(*loop_, {.exchange = GetParam(), .connect_timeout = 50ms});
  ASSERT_TRUE(impatient.ok());
  absl::Status why;
  (*impatient)->SetEvents({.on_down = [&](EndpointId, absl::Status status) { why = status; }});
  const auto silent = (*other)->Open((*other)->offer().kinds.front());  // never connects
  const auto endpoint = (*impatient)->Open((*impatient)->offer().kinds.front());
  ASSERT_TRUE(silent.ok() && endpoint.ok());
  ASSERT_TRUE((*impatient)->Connect(*endpoint, (*other)->address(*silent)).ok());
  ASSERT_TRUE(RunUntil([&] { return !why.ok(); }));
  EXPECT_EQ(why.code(), absl::StatusCode::kDeadlineExceeded) << why;
}

}  // namespace
}  // namespace bottega
