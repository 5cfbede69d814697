#include "cli/local_ports.h"

#include <fstream>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bottega {
namespace {

using ::testing::HasSubstr;

// What the kernel hands out is not taken: between Release() and the start of the process that a
// port is for, another process listens at port 0 or connects.
TEST(LocalPortsTest, OfThoseTheKernelDoesNotGiveAway) {
  int least = 0, most = 0;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> least >> most;
  if (least <= 11'000) GTEST_SKIP() << "connections may have all ports from " << least;
  LocalPorts ports;
  std::set<int> taken;
  for (int i = 0; i < 200; ++i) {
    const absl::StatusOr<int> port = ports.Take();
    ASSERT_TRUE(port.ok()) << port.status();
    EXPECT_TRUE(*port < least || *port > most) << *port;
    EXPECT_TRUE(taken.insert(*port).second) << *port << " twice";
  }
}

TEST(LocalPortsTest, HeldUntilReleased) {
  LocalPorts ports;
  const absl::StatusOr<int> port = ports.Take();
  ASSERT_TRUE(port.ok()) << port.status();
  EXPECT_THAT(std::string(CheckFree("127.0.0.1", *port).message()), HasSubstr("in use"));
  ports.Release();
  EXPECT_TRUE(CheckFree("127.0.0.1", *port).ok());
}

}  // namespace
}  // namespace bottega
