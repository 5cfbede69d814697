// One contract for every Network: in process (real and simulated loop) and gRPC.
#include "core/service/network.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <thread>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/service/grpc_network.h"
#include "core/service/local_network.h"
#include "tests/core/base/connect_to.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr NodeId kClient{1};
constexpr NodeId kServer{2};
constexpr Duration kLong = 30s;  // a hang limit, not a measurement

enum class Kind { kLocalReal, kLocalSimulated, kLocalFaults, kGrpc };

class NetworkTest : public testing::TestWithParam<Kind> {
 public:
  NetworkTest() : loop_(Simulated() ? Loop::Simulated(11) : Loop::Real()), server_done_(*loop_) {
    if (GetParam() == Kind::kGrpc) {
      network_ = std::make_unique<GrpcNetwork>(*loop_);
    } else if (GetParam() == Kind::kLocalFaults) {
      network_ = std::make_unique<LocalNetwork>(*loop_, SeededFaults(*loop_, {}));
    } else {
      network_ = std::make_unique<LocalNetwork>(*loop_);
    }
  }
  ~NetworkTest() override {
    loop_->Kill(kClient);
    loop_->Kill(kServer);
    network_.reset();
  }

  // Runs `client` to its end against a server whose method "/test/Method" is `handler`.
  using Client = Task<void> (*)(NetworkTest& test, std::string address);
  void Run(Network::Handler handler, Client client) {
    absl::StatusOr<std::string> address =
        network_->Serve(kServer, "127.0.0.1:0", {{"/test/Method", std::move(handler)}});
    ASSERT_TRUE(address.ok()) << address.status();
    loop_->Spawn(kClient, RunAndStop(*this, client, *address));
    loop_->Run();
    EXPECT_TRUE(finished_);
  }
  static Task<void> RunAndStop(NetworkTest& test, Client client, std::string address) {
    co_await client(test, address);
    test.finished_ = true;
    test.loop_->Stop();
  }

  Task<std::unique_ptr<ByteStream>> Open(std::string address) {
    const Time deadline = loop_->Now() + kLong;
    absl::StatusOr<std::unique_ptr<ByteStream>> stream =
        co_await network_->Connect(kClient, address, "/test/Method", deadline);
    EXPECT_TRUE(stream.ok()) << stream.status();
    CHECK(stream.ok());
    co_return *std::move(stream);
  }
  Time Soon() { return loop_->Now() + kLong; }

  std::unique_ptr<Loop> loop_;
  std::unique_ptr<Network> network_;
  bool finished_ = false;
  // What the server saw, for handlers that take the fixture.
  absl::Status seen_by_server_;
  std::vector<std::string> got_by_server_;
  Slot server_done_;

 private:
  static bool Simulated() {
    return GetParam() == Kind::kLocalSimulated || GetParam() == Kind::kLocalFaults;
  }
};
std::string KindName(const testing::TestParamInfo<Kind>& info) {
  constexpr const char* kNames[] = {"LocalReal", "LocalSimulated", "LocalFaults", "Grpc"};
  return kNames[static_cast<int>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(All, NetworkTest,
                         testing::Values(Kind::kLocalReal, Kind::kLocalSimulated,
                                         Kind::kLocalFaults, Kind::kGrpc),
                         KindName);

constexpr char kMethod[] = "/test/Method";

Task<void> Echo(std::unique_ptr<ByteStream> stream) {
  while (true) {
    absl::StatusOr<std::string> message = co_await stream->Receive(kNever);
    if (!message.ok()) co_return;
    if (!stream->Send("echo " + *message).ok()) co_return;
  }
}

// Collects until the stream ends.
Task<void> Collect(NetworkTest* test, std::unique_ptr<ByteStream> stream) {
  while (true) {
    absl::StatusOr<std::string> message = co_await stream->Receive(kNever);
    if (!message.ok()) {
      test->seen_by_server_ = message.status();
      test->server_done_.Wake();
      co_return;
    }
    test->got_by_server_.push_back(*std::move(message));
  }
}

Network::Handler CollectInto(NetworkTest* test) {
  return [test](std::unique_ptr<ByteStream> stream) { return Collect(test, std::move(stream)); };
}

Task<void> SendAndReceiveMany(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  for (int i = 0; i < 500; ++i) EXPECT_TRUE(stream->Send(std::to_string(i)).ok());
  for (int i = 0; i < 500; ++i) {
    absl::StatusOr<std::string> reply = co_await stream->Receive(test.Soon());
    EXPECT_EQ(reply.value_or("?"), "echo " + std::to_string(i));
  }
}

TEST_P(NetworkTest, MessagesArriveInOrder) { Run(Echo, SendAndReceiveMany); }

Task<void> SendStrange(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  const std::vector<std::string> messages = {"",
                                             std::string(1, '\0'),
                                             std::string(2, '\0'),
                                             std::string("\0\1x", 3),
                                             std::string("\n\0", 2),
                                             std::string(7'000'000, 'b') + "end"};
  for (const std::string& message : messages) EXPECT_TRUE(stream->Send(message).ok());
  for (const std::string& message : messages) {
    absl::StatusOr<std::string> reply = co_await stream->Receive(test.Soon());
    EXPECT_TRUE(reply.ok() && *reply == "echo " + message) << reply.status() << message.size();
  }
  const std::string too_large(limits::kControlMessageBytesMax + 1, 'x');
  EXPECT_TRUE(absl::IsInvalidArgument(stream->Send(too_large)));
}

TEST_P(NetworkTest, CarriesAnyBytesUpToTheLimit) { Run(Echo, SendStrange); }

Task<void> SendAndClose(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(stream->Send(std::to_string(i)).ok());
  stream->Close(absl::OkStatus());
  EXPECT_FALSE(stream->Send("late").ok());
  stream.reset();
  absl::Status woken = co_await test.server_done_.Wait(test.Soon());
  EXPECT_TRUE(woken.ok());
}

TEST_P(NetworkTest, WhatWasSentBeforeACloseArrives) {
  Run(CollectInto(this), SendAndClose);
  EXPECT_EQ(got_by_server_.size(), 20u);
  EXPECT_TRUE(absl::IsCancelled(seen_by_server_)) << seen_by_server_;
  EXPECT_EQ(seen_by_server_.message(), "closed");
}

Task<void> CloseWithReason(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  stream->Close(MakeError(Reason::kModelRefused, "wrong digest", "digest"));
  absl::Status woken = co_await test.server_done_.Wait(test.Soon());
  EXPECT_TRUE(woken.ok());
}

TEST_P(NetworkTest, TheServerLearnsWhyTheClientClosed) {
  Run(CollectInto(this), CloseWithReason);
  EXPECT_EQ(ReasonOf(seen_by_server_), Reason::kModelRefused) << seen_by_server_;
  EXPECT_EQ(ParamOf(seen_by_server_), "digest");
  EXPECT_EQ(seen_by_server_.message(), "wrong digest");
}

Task<void> SendThenRefuse(std::unique_ptr<ByteStream> stream) {
  EXPECT_TRUE(stream->Send("one").ok());
  EXPECT_TRUE(stream->Send("two").ok());
  stream->Close(MakeError(Reason::kDraining, "goes away", "x"));
  co_return;
}

Task<void> ReceiveUntilRefused(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  absl::StatusOr<std::string> one = co_await stream->Receive(test.Soon());
  EXPECT_EQ(one.value_or("?"), "one");
  absl::StatusOr<std::string> two = co_await stream->Receive(test.Soon());
  EXPECT_EQ(two.value_or("?"), "two");
  absl::StatusOr<std::string> end = co_await stream->Receive(test.Soon());
  EXPECT_EQ(ReasonOf(end.status()), Reason::kDraining) << end.status();
  EXPECT_EQ(ParamOf(end.status()), "x");
  EXPECT_EQ(stream->Send("x").code(), end.status().code());
}

TEST_P(NetworkTest, TheClientLearnsWhyTheServerClosed) { Run(SendThenRefuse, ReceiveUntilRefused); }

Task<void> CloseInOrder(std::unique_ptr<ByteStream> stream) {
  absl::StatusOr<std::string> message = co_await stream->Receive(kNever);
  stream->Send("last " + *message).IgnoreError();
  stream->Close(absl::OkStatus());
}

Task<void> ReceiveOrderlyEnd(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  EXPECT_TRUE(stream->Send("x").ok());
  absl::StatusOr<std::string> last = co_await stream->Receive(test.Soon());
  EXPECT_EQ(last.value_or("?"), "last x");
  absl::StatusOr<std::string> end = co_await stream->Receive(test.Soon());
  EXPECT_TRUE(absl::IsCancelled(end.status())) << end.status();
  EXPECT_EQ(end.status().message(), "closed");
}

TEST_P(NetworkTest, AnOrderlyEndIsCancelledClosed) { Run(CloseInOrder, ReceiveOrderlyEnd); }

Task<void> DropAtOnce(NetworkTest& test, std::string address) {
  {
    std::unique_ptr<ByteStream> stream = co_await test.Open(address);
    EXPECT_TRUE(stream->Send("x").ok());
  }
  absl::Status woken = co_await test.server_done_.Wait(test.Soon());
  EXPECT_TRUE(woken.ok());
}

TEST_P(NetworkTest, TheServerSeesADroppedStream) {
  Run(CollectInto(this), DropAtOnce);
  EXPECT_TRUE(absl::IsUnavailable(seen_by_server_)) << seen_by_server_;
}

Task<void> DropServed(std::unique_ptr<ByteStream>) { co_return; }

Task<void> ReceiveFromDropped(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  absl::StatusOr<std::string> end = co_await stream->Receive(test.Soon());
  EXPECT_TRUE(absl::IsUnavailable(end.status())) << end.status();
}

TEST_P(NetworkTest, TheClientSeesADroppedStream) { Run(DropServed, ReceiveFromDropped); }

Task<void> KillTheServer(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  EXPECT_TRUE(stream->Send("x").ok());
  (void)co_await stream->Receive(test.Soon());
  test.loop_->Kill(kServer);
  absl::StatusOr<std::string> end = co_await stream->Receive(test.Soon());
  EXPECT_TRUE(absl::IsUnavailable(end.status())) << end.status();
}

TEST_P(NetworkTest, AKilledNodeEndsItsStreams) { Run(Echo, KillTheServer); }

Task<void> NeverRead(Loop* loop, std::unique_ptr<ByteStream>) { co_await loop->Sleep(1h); }

Task<void> SendUntilRefused(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  const std::string message(1'000'000, 'x');
  absl::Status status;
  int sent = 0;
  for (; status.ok() && sent < 1000; ++sent) {
    status = stream->Send(message);
    co_await test.loop_->Yield();
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_LT(sent, 400);
}

TEST_P(NetworkTest, APeerThatDoesNotReadIsRefusedMore) {
  Loop* loop = loop_.get();
  Run([loop](std::unique_ptr<ByteStream> stream) { return NeverRead(loop, std::move(stream)); },
      SendUntilRefused);
}

Task<void> ReceiveWithDeadline(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  absl::StatusOr<std::string> nothing = co_await stream->Receive(test.loop_->Now() + 5ms);
  EXPECT_TRUE(absl::IsDeadlineExceeded(nothing.status())) << nothing.status();
  EXPECT_TRUE(stream->Send("still open").ok());
  absl::StatusOr<std::string> reply = co_await stream->Receive(test.Soon());
  EXPECT_EQ(reply.value_or("?"), "echo still open");
}

TEST_P(NetworkTest, ADeadlineDoesNotEndTheStream) { Run(Echo, ReceiveWithDeadline); }

Task<void> ConnectWrongly(NetworkTest& test, std::string address) {
  const Time deadline = test.Soon();
  absl::StatusOr<std::unique_ptr<ByteStream>> method =
      co_await test.network_->Connect(kClient, address, "/test/Other", deadline);
  EXPECT_TRUE(absl::IsUnimplemented(method.status())) << method.status();
  test.network_->Shutdown(kServer);
  absl::StatusOr<std::unique_ptr<ByteStream>> nobody =
      co_await test.network_->Connect(kClient, address, kMethod, deadline);
  EXPECT_TRUE(absl::IsUnavailable(nobody.status())) << nobody.status();
}

TEST_P(NetworkTest, NobodyAndNoSuchMethodAreErrors) { Run(Echo, ConnectWrongly); }

Task<void> ShutdownUnderAStream(NetworkTest& test, std::string address) {
  std::unique_ptr<ByteStream> stream = co_await test.Open(address);
  EXPECT_TRUE(stream->Send("x").ok());
  (void)co_await stream->Receive(test.Soon());
  test.network_->Shutdown(kServer);
  absl::StatusOr<std::string> end = co_await stream->Receive(test.Soon());
  EXPECT_FALSE(end.ok());
  EXPECT_FALSE(absl::IsDeadlineExceeded(end.status())) << end.status();
}

TEST_P(NetworkTest, ShutdownEndsOpenStreams) { Run(Echo, ShutdownUnderAStream); }

Task<void> OpenMany(NetworkTest& test, std::string address) {
  std::vector<std::unique_ptr<ByteStream>> streams;
  for (int i = 0; i < 20; ++i) {
    std::unique_ptr<ByteStream> stream = co_await test.Open(address);
    streams.push_back(std::move(stream));
  }
  // Ended in every state: unread replies, unsent data, closed, dropped.
  for (int i = 0; i < 20; ++i) {
    for (int n = 0; n < i; ++n) EXPECT_TRUE(streams[i]->Send(std::string(10'000, 'x')).ok());
    if (i % 3 == 0) streams[i]->Close(absl::OkStatus());
    if (i % 2 == 0) streams[i].reset();
    co_await test.loop_->Yield();
  }
}

TEST_P(NetworkTest, TheNetworkEndsWithStreamsInAnyState) {
  Run(Echo, OpenMany);
  network_.reset();  // before the frames that hold streams
}

TEST_P(NetworkTest, ABusyAddressIsAnError) {
  absl::StatusOr<std::string> first = network_->Serve(kServer, "127.0.0.1:0", {{kMethod, Echo}});
  ASSERT_TRUE(first.ok());
  absl::StatusOr<std::string> second = network_->Serve(kClient, *first, {{kMethod, Echo}});
  EXPECT_TRUE(absl::IsUnavailable(second.status())) << second.status();
}

// ---- what only real processes can show

// Runs this test program again as an echo server; ends with its object.
class ChildServer {
 public:
  ChildServer() {
    int fds[2];
    CHECK(pipe(fds) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, fds[0]);
    std::string filter = "--gtest_filter=ChildServer.DISABLED_Run";
    std::string disabled = "--gtest_also_run_disabled_tests";
    char self[] = "/proc/self/exe";
    char* const arguments[] = {self, filter.data(), disabled.data(), nullptr};
    CHECK(posix_spawn(&pid_, self, &actions, nullptr, arguments, environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
    FILE* out = fdopen(fds[0], "r");
    char line[256];
    while (fgets(line, sizeof line, out) != nullptr) {
      std::string_view text(line);
      if (!text.starts_with("ADDRESS ")) continue;
      address_ = std::string(text.substr(8, text.size() - 9));
      break;
    }
    fclose(out);
    CHECK(!address_.empty());
  }
  ~ChildServer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  const std::string& address() const { return address_; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  std::string address_;
};

TEST(ChildServer, DISABLED_Run) {
  auto loop = Loop::Real();
  GrpcNetwork network(*loop);
  absl::StatusOr<std::string> address = network.Serve(kServer, "127.0.0.1:0", {{kMethod, Echo}});
  ASSERT_TRUE(address.ok());
  printf("ADDRESS %s\n", address->c_str());
  fflush(stdout);
  loop->Run();
}

struct GrpcTest : testing::Test {
  std::unique_ptr<Loop> loop = Loop::Real();
  GrpcNetwork network{*loop};
};

Task<void> SignalAndWait(GrpcTest* test, ChildServer* child, int signal, absl::Status* end) {
  const Time deadline = test->loop->Now() + kLong;
  absl::StatusOr<std::unique_ptr<ByteStream>> stream =
      co_await test->network.Connect(kClient, child->address(), kMethod, deadline);
  CHECK(stream.ok());
  EXPECT_TRUE((*stream)->Send("x").ok());
  absl::StatusOr<std::string> reply = co_await (*stream)->Receive(deadline);
  EXPECT_EQ(reply.value_or("?"), "echo x");
  kill(child->pid(), signal);
  absl::StatusOr<std::string> dead = co_await (*stream)->Receive(deadline);
  *end = dead.status();
  test->loop->Stop();
}

TEST_F(GrpcTest, AKilledPeerEndsTheStream) {
  ChildServer child;
  absl::Status end;
  loop->Spawn(kClient, SignalAndWait(this, &child, SIGKILL, &end));
  loop->Run();
  EXPECT_TRUE(absl::IsUnavailable(end)) << end;
}

TEST_F(GrpcTest, AStoppedPeerEndsTheStream) {
  ChildServer child;
  absl::Status end;
  loop->Spawn(kClient, SignalAndWait(this, &child, SIGSTOP, &end));
  loop->Run();
  EXPECT_TRUE(absl::IsUnavailable(end)) << end;
}

Task<void> ConnectOnly(GrpcTest* test, std::string address, Duration patience, absl::Status* out) {
  const Time deadline = test->loop->Now() + patience;
  absl::StatusOr<std::unique_ptr<ByteStream>> stream =
      co_await test->network.Connect(kClient, address, kMethod, deadline);
  *out = stream.status();
  test->loop->Stop();
}

TEST_F(GrpcTest, AStoppedServerIsNoAnswer) {
  ChildServer child;
  kill(child.pid(), SIGSTOP);
  ASSERT_EQ(waitpid(child.pid(), nullptr, WUNTRACED), child.pid());  // its threads may run on a bit
  absl::Status status;
  loop->Spawn(kClient, ConnectOnly(this, child.address(), 200ms, &status));
  loop->Run();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

size_t OpenFds() {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

// Ends the loop once as few fds are open as before, or never came to be.
Task<void> WaitForFds(GrpcTest* test, size_t at_most, size_t* open) {
  const Time deadline = test->loop->Now() + kLong;
  while ((*open = OpenFds()) > at_most && test->loop->Now() < deadline) {
    co_await test->loop->Sleep(20ms);
  }
  test->loop->Stop();
}

// gRPC 1.51 by itself keeps the fd of each connect that was given up and answered afterwards.
TEST_F(GrpcTest, AServerThatStoodStillCostsNoFds) {
  ChildServer child;
  absl::Status status;
  loop->Spawn(kClient, ConnectOnly(this, child.address(), kLong, &status));  // opens gRPC's own
  loop->Run();
  const size_t before = OpenFds();
  kill(child.pid(), SIGSTOP);
  ASSERT_EQ(waitpid(child.pid(), nullptr, WUNTRACED), child.pid());
  for (int i = 0; i < 5; ++i) {
    loop->Spawn(kClient, ConnectOnly(this, child.address(), 100ms, &status));
    loop->Run();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  }
  kill(child.pid(), SIGCONT);
  size_t open = 0;
  loop->Spawn(kClient, WaitForFds(this, before, &open));
  loop->Run();
  EXPECT_LE(open, before);
}

TEST_F(GrpcTest, ABadNameIsAnError) {
  absl::Status status;
  loop->Spawn(kClient, ConnectOnly(this, "no.such.host.invalid:1", 5s, &status));
  loop->Run();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

uint64_t NextRandom(uint64_t* state) {
  *state = *state * 6364136223846793005ull + 1442695040888963407ull;
  return *state >> 33;
}

// One end of a stream that does anything a program may do, in any order.
Task<void> Misbehave(Loop* loop, std::unique_ptr<ByteStream> stream, uint64_t seed) {
  for (int step = 0; step < 12; ++step) {
    switch (NextRandom(&seed) % 8) {
      case 0:
      case 1:
      case 2:
        (void)stream->Send(std::string(NextRandom(&seed) % 200'000, 'x'));
        break;
      case 3:
      case 4: {
        const Time deadline = loop->Now() + Duration(NextRandom(&seed) % 3'000'000);
        absl::StatusOr<std::string> message = co_await stream->Receive(deadline);
        break;
      }
      case 5:
        co_await loop->Yield();
        break;
      case 6:
        if (NextRandom(&seed) % 3 == 0) stream->Close(absl::OkStatus());
        break;
      case 7:
        if (NextRandom(&seed) % 3 == 0) co_return;
        break;
    }
  }
}

Task<void> OpenAndMisbehave(GrpcTest* test, std::string address, uint64_t seed, int* left) {
  const Time deadline = test->loop->Now() + kLong;
  absl::StatusOr<std::unique_ptr<ByteStream>> stream =
      co_await test->network.Connect(kClient, address, kMethod, deadline);
  if (stream.ok()) co_await Misbehave(test->loop.get(), *std::move(stream), seed);
  if (--*left == 0) test->loop->Stop();
}

TEST_F(GrpcTest, EndsMayDoAnythingInAnyOrder) {
  uint64_t server_seed = 1;
  Network::Handler handler = [&](std::unique_ptr<ByteStream> stream) {
    return Misbehave(loop.get(), std::move(stream), ++server_seed * 977);
  };
  absl::StatusOr<std::string> address = network.Serve(kServer, "127.0.0.1:0", {{kMethod, handler}});
  ASSERT_TRUE(address.ok());
  constexpr int kStreams = 100;
  int left = kStreams;
  for (uint64_t seed = 0; seed < kStreams; ++seed) {
    loop->Spawn(kClient, OpenAndMisbehave(this, *address, seed * 31 + 7, &left));
  }
  loop->Run();
  EXPECT_EQ(left, 0);
  // The network is destroyed now, with some of the handlers still at it.
}

int PortOf(const std::string& address) { return std::stoi(address.substr(address.rfind(':') + 1)); }

TEST_F(GrpcTest, S2_AStrangersBytesHarmNobody) {
  absl::StatusOr<std::string> address = network.Serve(kServer, "127.0.0.1:0", {{kMethod, Echo}});
  ASSERT_TRUE(address.ok());
  std::vector<int> strangers;
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), std::string(100'000, '\xff'),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string(1000, '\x7f'),
        std::string()}) {
    const int fd = ConnectTo(PortOf(*address));
    (void)send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    strangers.push_back(fd);
  }
  absl::Status status = absl::UnknownError("");
  loop->Spawn(kClient, ConnectOnly(this, *address, kLong, &status));
  loop->Run();
  EXPECT_TRUE(status.ok()) << status;
  for (int fd : strangers) close(fd);
}

size_t OpenDescriptors(pid_t pid) {
  size_t count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    count += entry.path().has_filename();
  }
  return count;
}

// gRPC's own listener never accepts again after this.
TEST_F(GrpcTest, OutOfDescriptorsItAcceptsAgainLater) {
  ChildServer child;
  const size_t before = OpenDescriptors(child.pid());
  rlimit old{};
  ASSERT_EQ(prlimit(child.pid(), RLIMIT_NOFILE, nullptr, &old), 0);
  const rlimit tight{.rlim_cur = before + 1, .rlim_max = old.rlim_max};  // numbers are dense
  ASSERT_EQ(prlimit(child.pid(), RLIMIT_NOFILE, &tight, nullptr), 0);
  std::vector<int> crowd;
  for (int i = 0; i < 4; ++i) crowd.push_back(ConnectTo(PortOf(child.address())));
  while (OpenDescriptors(child.pid()) < before + 1) std::this_thread::yield();
  ASSERT_EQ(prlimit(child.pid(), RLIMIT_NOFILE, &old, nullptr), 0);
  absl::Status status = absl::UnknownError("");
  loop->Spawn(kClient, ConnectOnly(this, child.address(), kLong, &status));
  loop->Run();
  EXPECT_TRUE(status.ok()) << status;
  for (int fd : crowd) close(fd);
}

// ---- faults of the in-process network

struct FaultTest : testing::Test {
  std::unique_ptr<Loop> loop = Loop::Simulated(5);
  LocalNetwork network{*loop, SeededFaults(*loop, {})};
  std::vector<std::pair<std::string, Time>> got;
  absl::Status end;
};

Task<void> CollectWithTimes(FaultTest* test, std::unique_ptr<ByteStream> stream) {
  while (true) {
    absl::StatusOr<std::string> message = co_await stream->Receive(kNever);
    if (!message.ok()) {
      test->end = message.status();
      co_return;
    }
    test->got.emplace_back(*message, test->loop->Now());
  }
}

Task<void> SendEachMillisecond(FaultTest* test, int count, absl::Status* end) {
  absl::StatusOr<std::unique_ptr<ByteStream>> stream =
      co_await test->network.Connect(kClient, "server", kMethod, kNever);
  CHECK(stream.ok());
  for (int i = 0; i < count; ++i) {
    *end = (*stream)->Send(std::to_string(i));
    if (!end->ok()) co_return;
    co_await test->loop->Sleep(1ms);
  }
  absl::StatusOr<std::string> message = co_await (*stream)->Receive(kNever);
  *end = message.status();
}

TEST_F(FaultTest, ACutHoldsMessagesAndHealingBringsThemInOrder) {
  Network::Handler handler = [this](std::unique_ptr<ByteStream> stream) {
    return CollectWithTimes(this, std::move(stream));
  };
  ASSERT_TRUE(network.Serve(kServer, "server", {{kMethod, handler}}).ok());
  absl::Status client_end;
  loop->Spawn(kClient, SendEachMillisecond(this, 1000, &client_end));
  loop->RunUntil(Time(100ms));
  network.Cut(kClient, kServer);
  loop->RunUntil(Time(110ms));  // what was under way
  const size_t before = got.size();
  loop->RunUntil(Time(600ms));
  EXPECT_EQ(got.size(), before);
  network.Heal(kClient, kServer);
  loop->RunUntil(Time(1500ms));
  ASSERT_EQ(got.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(got[i].first, std::to_string(i));
}

TEST_F(FaultTest, ALongCutEndsTheStreamAtBothEnds) {
  Network::Handler handler = [this](std::unique_ptr<ByteStream> stream) {
    return CollectWithTimes(this, std::move(stream));
  };
  ASSERT_TRUE(network.Serve(kServer, "server", {{kMethod, handler}}).ok());
  absl::Status client_end;
  loop->Spawn(kClient, SendEachMillisecond(this, 10, &client_end));
  loop->RunUntil(Time(100ms));
  network.Cut(kServer, kClient);
  loop->RunUntil(Time(100ms) + LocalNetwork::kCutTimeout - 1ms);
  EXPECT_TRUE(end.ok());
  loop->RunUntil(Time(100ms) + LocalNetwork::kCutTimeout + 1ms);
  EXPECT_TRUE(absl::IsUnavailable(end)) << end;
  EXPECT_TRUE(absl::IsUnavailable(client_end)) << client_end;
}

TEST_F(FaultTest, AKillIsSeenByThePeerAfterADelay) {
  Network::Handler handler = [this](std::unique_ptr<ByteStream> stream) {
    return CollectWithTimes(this, std::move(stream));
  };
  ASSERT_TRUE(network.Serve(kServer, "server", {{kMethod, handler}}).ok());
  absl::Status client_end;
  loop->Spawn(kClient, SendEachMillisecond(this, 50, &client_end));
  loop->RunUntil(Time(20ms));
  network.Kill(kClient);
  EXPECT_EQ(loop->tasks(kClient), 0u);
  loop->RunUntil(Time(40ms));
  EXPECT_TRUE(absl::IsUnavailable(end)) << end;
  EXPECT_LE(got.size(), 21u);
}

TEST(LocalNetworkFaults, ASeedIsAHistory) {
  auto run = [](uint64_t seed) {
    auto loop = Loop::Simulated(seed);
    SeededFaultsOptions options;
    options.reset_probability = 0.002;
    LocalNetwork network(*loop, SeededFaults(*loop, options));
    CHECK(network.Serve(kServer, "server", {{kMethod, Echo}}).ok());
    std::string log;
    loop->Spawn(kClient, [](Loop* loop, LocalNetwork* network, std::string* log) -> Task<void> {
      for (int round = 0; round < 5; ++round) {
        absl::StatusOr<std::unique_ptr<ByteStream>> stream =
            co_await network->Connect(kClient, "server", kMethod, kNever);
        CHECK(stream.ok());
        for (int i = 0; i < 200; ++i) {
          if (!(*stream)->Send("x").ok()) break;
          absl::StatusOr<std::string> reply = co_await (*stream)->Receive(kNever);
          *log += std::to_string(loop->Now().time_since_epoch().count()) + (reply.ok() ? "." : "x");
          if (!reply.ok()) break;
        }
      }
    }(loop.get(), &network, &log));
    loop->Run();
    return log;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

}  // namespace
}  // namespace bottega
