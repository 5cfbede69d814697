// UCX listens on a port of its own and parses what anybody sends there. A stranger's bytes must not
// end the process, and frames of a real peer must go on arriving.

#include <arpa/inet.h>
#include <dirent.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/base/loop.h"
#include "core/transport/ucx_transport.h"
#include "tests/core/base/connect_to.h"
#include "tests/core/transport/join.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr NodeId kNode{1};

// Ports of 127.0.0.1 or any address on which this process listens.
std::vector<int> ListeningPorts() {
  std::set<std::string> inodes;
  DIR* dir = opendir("/proc/self/fd");
  while (dirent* entry = readdir(dir)) {
    char target[64] = {};
    const std::string path = std::string("/proc/self/fd/") + entry->d_name;
    if (readlink(path.c_str(), target, sizeof target - 1) <= 0) continue;
    const std::string link(target);
    if (link.rfind("socket:[", 0) == 0) inodes.insert(link.substr(8, link.size() - 9));
  }
  closedir(dir);
  std::vector<int> ports;
  std::ifstream table("/proc/self/net/tcp");
  std::string line;
  std::getline(table, line);
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string number, local, remote, state, skip, inode;
    fields >> number >> local >> remote >> state >> skip >> skip >> skip >> skip >> skip >> inode;
    if (state == "0A" && inodes.contains(inode)) {
      ports.push_back(std::stoi(local.substr(local.find(':') + 1), nullptr, 16));
    }
  }
  return ports;
}

struct World {
  std::unique_ptr<Loop> loop = Loop::Real();
  std::unique_ptr<Transport> a, b;
  EndpointId to_b;
  int arrived = 0;
  int sent = 0;
};

// Frames go on while strangers knock.
Task<void> Talk(World* world, int frames) {
  for (int i = 0; i < frames; ++i) {
    auto frame = world->a->Lease(1000);
    if (!frame.ok()) break;
    std::memset(frame->data(), i, 1000);
    if (!world->a->Post(world->to_b, *std::move(frame)).ok()) break;
    ++world->sent;
    co_await world->loop->Sleep(1ms);
  }
  const Time give_up = world->loop->Now() + 10s;
  while (world->arrived < world->sent && world->loop->Now() < give_up) {
    co_await world->loop->Sleep(1ms);
  }
  world->loop->Stop();
}

Task<void> Knock(World* world, std::vector<int> ports) {
  std::mt19937 random(5);
  const std::string http = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  for (int round = 0; round < 12; ++round) {
    std::string noise(1 + random() % 3000, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    for (int port : ports) {
      for (const std::string& bytes : {http, http2, noise, std::string()}) {
        const int fd = ConnectTo(port);
        if (fd < 0) continue;
        // Refused or taken: both are fine.
        (void)!send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        close(fd);
      }
    }
    co_await world->loop->Sleep(5ms);
  }
}

TEST(UcxStranger, BytesOfStrangersChangeNothingForPeers) {
  World world;
  for (auto* end : {&world.a, &world.b}) {
    auto opened = UcxTransport::Create(*world.loop, {.exchange = "tcp"});
    ASSERT_TRUE(opened.ok()) << opened.status();
    *end = *std::move(opened);
  }
  world.a->SetEvents({.on_frame = [](FrameBuffer) {}, .on_down = [](EndpointId, absl::Status) {}});
  world.b->SetEvents({.on_frame = [&](FrameBuffer) { ++world.arrived; },
                      .on_down = [](EndpointId, absl::Status) {}});
  auto joined = Join(*world.a, *world.b);
  ASSERT_TRUE(joined.ok()) << joined.status();
  world.to_b = joined->first;
  const std::vector<int> ports = ListeningPorts();
  ASSERT_FALSE(ports.empty());
  world.loop->Spawn(kNode, Talk(&world, 100));
  world.loop->Spawn(kNode, Knock(&world, ports));
  world.loop->Run();
  world.loop->Kill(kNode);
  EXPECT_EQ(world.sent, 100);
  EXPECT_EQ(world.arrived, 100);
}

}  // namespace
}  // namespace bottega
