#include "core/base/memory_limit.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "gtest/gtest.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kGiB = uint64_t{1} << 30;

using Files = std::map<std::string, std::string>;

// A tree of small files under a directory of its own.
class FakeRoot {
 public:
  explicit FakeRoot(const Files& files) {
    std::string name = testing::TempDir() + "/bottega-XXXXXX";
    path_ = ::mkdtemp(name.data());
    for (const auto& [file, content] : files) {
      fs::path path = path_.string() + file;
      fs::create_directories(path.parent_path());
      std::ofstream(path) << content;
    }
  }
  ~FakeRoot() { fs::remove_all(path_); }
  MemoryLimit Read() const { return ReadMemoryLimit(path_.string()); }

 private:
  fs::path path_;
};

const char kMeminfo[] = "MemTotal:       16777216 kB\nMemFree:        1 kB\n";

TEST(MemoryLimit, NoCgroup) {
  MemoryLimit limit = FakeRoot(Files{{"/proc/meminfo", kMeminfo}}).Read();
  EXPECT_EQ(limit.bytes, 16 * kGiB);
  EXPECT_FALSE(limit.from_cgroup);
}

TEST(MemoryLimit, V2TakesTheSmallestOnTheWayUp) {
  MemoryLimit limit = FakeRoot(Files{{"/proc/meminfo", kMeminfo},
                                     {"/proc/self/cgroup", "0::/a.slice/b.scope\n"},
                                     {"/sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n"},
                                     {"/sys/fs/cgroup/a.slice/memory.max", "4294967296\n"}})
                          .Read();
  EXPECT_EQ(limit.bytes, 4 * kGiB);
  EXPECT_EQ(limit.machine_bytes, 16 * kGiB);
  EXPECT_TRUE(limit.from_cgroup);
}

TEST(MemoryLimit, V2InsideAContainer) {
  MemoryLimit limit = FakeRoot(Files{{"/proc/meminfo", kMeminfo},
                                     {"/proc/self/cgroup", "0::/\n"},
                                     {"/sys/fs/cgroup/memory.max", "2147483648\n"}})
                          .Read();
  EXPECT_EQ(limit.bytes, 2 * kGiB);
}

TEST(MemoryLimit, V1) {
  MemoryLimit limit =
      FakeRoot(Files{{"/proc/meminfo", kMeminfo},
                     {"/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/0123\n"},
                     {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"},
                     {"/sys/fs/cgroup/memory/docker/0123/memory.limit_in_bytes", "3221225472\n"}})
          .Read();
  EXPECT_EQ(limit.bytes, 3 * kGiB);
}

TEST(MemoryLimit, V1WithoutALimit) {
  MemoryLimit limit =
      FakeRoot(Files{{"/proc/meminfo", kMeminfo},
                     {"/proc/self/cgroup", "4:memory:/\n"},
                     {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"}})
          .Read();
  EXPECT_EQ(limit.bytes, 16 * kGiB);
  EXPECT_FALSE(limit.from_cgroup);
}

TEST(MemoryLimit, OddFilesLimitNothing) {
  MemoryLimit limit =
      FakeRoot(Files{{"/proc/meminfo", kMeminfo},
                     {"/proc/self/cgroup", "\n:\nx\n0::\n0:::\n4:memory:relative\n0::/a\n"},
                     {"/sys/fs/cgroup/a/memory.max", "-5 x\n"}})
          .Read();
  EXPECT_GT(limit.bytes, 0u);
  EXPECT_EQ(FakeRoot(Files()).Read().bytes, 0u);
}

TEST(MemoryLimit, ThisMachine) { EXPECT_GT(ReadMemoryLimit().bytes, 64u << 20); }

}  // namespace
}  // namespace bottega
