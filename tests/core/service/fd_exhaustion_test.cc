// N12: a process that runs out of file descriptors goes on, and accepts again once there are some.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/service/admin_http.h"
#include "core/service/grpc_network.h"
#include "tests/core/base/connect_to.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr NodeId kClient{1};
constexpr NodeId kServer{2};
constexpr char kMethod[] = "/test/Echo";

// While it lives: every fd of a process that may have 64 is in use, by connections to `port` that
// say nothing.
class AllFdsTaken {
 public:
  explicit AllFdsTaken(int port) {
    CHECK(getrlimit(RLIMIT_NOFILE, &before_) == 0);
    const rlimit few{.rlim_cur = 64, .rlim_max = before_.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    for (int fd; (fd = ConnectTo(port)) >= 0;) fds_.push_back(fd);
    CHECK(errno == EMFILE);
  }
  ~AllFdsTaken() {
    for (int fd : fds_) close(fd);
    setrlimit(RLIMIT_NOFILE, &before_);
  }

 private:
  rlimit before_{};
  std::vector<int> fds_;
};

Task<void> Echo(std::unique_ptr<ByteStream> stream) {
  while (true) {
    absl::StatusOr<std::string> message = co_await stream->Receive(kNever);
    if (!message.ok()) co_return;
    (void)stream->Send(*message);
  }
}

// Asks until it is answered: a try may still meet a full queue of the kernel.
Task<void> Ask(Loop* loop, Network* network, std::string address, std::string* answer) {
  while (answer->empty()) {
    const Time deadline = loop->Now() + 5s;
    absl::StatusOr<std::unique_ptr<ByteStream>> stream =
        co_await network->Connect(kClient, address, kMethod, deadline);
    if (!stream.ok() || !(*stream)->Send("hello").ok()) continue;
    absl::StatusOr<std::string> message = co_await (*stream)->Receive(deadline);
    if (message.ok()) *answer = *message;
  }
  loop->Stop();
}

TEST(FdExhaustion, GrpcAcceptsAgain) {
  const auto loop = Loop::Real();
  GrpcNetwork network(*loop);
  const absl::StatusOr<std::string> address =
      network.Serve(kServer, "127.0.0.1:0", {{kMethod, Echo}});
  ASSERT_TRUE(address.ok()) << address.status();
  for (int round = 0; round < 3; ++round) {
    { AllFdsTaken taken(std::stoi(address->substr(address->rfind(':') + 1))); }
    std::string answer;
    loop->Spawn(kClient, Ask(loop.get(), &network, *address, &answer));
    loop->Run();
    EXPECT_EQ(answer, "hello");
  }
  loop->Kill(kClient);
  loop->Kill(kServer);
}

TEST(FdExhaustion, AnOpenStreamGoesOn) {
  const auto loop = Loop::Real();
  GrpcNetwork network(*loop);
  const absl::StatusOr<std::string> address =
      network.Serve(kServer, "127.0.0.1:0", {{kMethod, Echo}});
  ASSERT_TRUE(address.ok()) << address.status();
  std::string answer;
  loop->Spawn(
      kClient,
      [](Loop* loop, Network* network, std::string address, std::string* answer) -> Task<void> {
        const Time deadline = loop->Now() + 30s;
        absl::StatusOr<std::unique_ptr<ByteStream>> stream =
            co_await network->Connect(kClient, address, kMethod, deadline);
        CHECK(stream.ok());
        AllFdsTaken taken(std::stoi(address.substr(address.rfind(':') + 1)));
        CHECK((*stream)->Send("still here").ok());
        absl::StatusOr<std::string> message = co_await (*stream)->Receive(deadline);
        if (message.ok()) *answer = *message;
        loop->Stop();
      }(loop.get(), &network, *address, &answer));
  loop->Run();
  EXPECT_EQ(answer, "still here");
  loop->Kill(kClient);
  loop->Kill(kServer);
}

TEST(FdExhaustion, TheAdminPortAnswersAgain) {
  prometheus::Registry registry;
  Health health;
  auto admin = AdminHttp::Start({.port = 0}, health, {&registry});
  ASSERT_TRUE(admin.ok()) << admin.status();
  { AllFdsTaken taken((*admin)->port()); }
  std::string answer;
  while (answer.empty()) {
    const int fd = ConnectTo((*admin)->port());
    ASSERT_GE(fd, 0);
    const std::string request = "GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    ASSERT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
    char bytes[512];
    for (ssize_t n; (n = recv(fd, bytes, sizeof bytes, 0)) > 0;) answer.append(bytes, n);
    close(fd);
  }
  EXPECT_NE(answer.find("\"live\""), std::string::npos) << answer;
}

}  // namespace
}  // namespace bottega
