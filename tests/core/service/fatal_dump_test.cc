#include "core/service/fatal_dump.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/base/check.h"
#include "core/base/sanitized.h"

namespace bottega {
namespace {

using testing::HasSubstr;

struct FatalDumpTest : testing::Test {
  FatalDumpTest() {
    if (kSanitized) return;
    dir = std::filesystem::temp_directory_path() / ("fatal_dump_" + std::to_string(getpid()));
    std::filesystem::create_directory(dir);
  }
  ~FatalDumpTest() override { std::filesystem::remove_all(dir); }

  // Runs `die` in a child with a recorder that noted something; returns how the child ended.
  template <class Die>
  int Child(const std::string& to, Die die) {
    const pid_t pid = fork();
    if (pid == 0) {
      FlightRecorder recorder(16, 16);
      recorder.Record({.kind = FlightKind::kTable, .a = 4711});
      FatalDump dump(recorder, "worker", to);
      die();
      _exit(0);
    }
    file = dir / ("worker-" + std::to_string(pid) + ".flight");
    int status = 0;
    waitpid(pid, &status, 0);
    return status;
  }
  std::string Left() const {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path dir, file;
};

TEST_F(FatalDumpTest, AFailedCheckLeavesTheLastEvents) {
  if (kSanitized) GTEST_SKIP();
  const int status = Child(dir, [] { CHECK(1 == 2); });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) << status;
  EXPECT_THAT(Left(), HasSubstr("epoch=4711"));
}

TEST_F(FatalDumpTest, SoDoesAWildPointer) {
  if (kSanitized) GTEST_SKIP();
  const int status = Child(dir, [] { raise(SIGSEGV); });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
  EXPECT_THAT(Left(), HasSubstr("epoch=4711"));
}

int Deeper(volatile int* depth) {
  volatile int here = *depth + 1;
  return here < 0 ? 0 : Deeper(&here) + here;  // runs out of stack long before it overflows
}

TEST_F(FatalDumpTest, SoDoesAStackThatRanOver) {
  if (kSanitized) GTEST_SKIP();
  const int status = Child(dir, [] {
    volatile int depth = 0;
    Deeper(&depth);
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
  EXPECT_THAT(Left(), HasSubstr("epoch=4711"));
}

TEST_F(FatalDumpTest, WithoutADirectoryItGoesToStderr) {
  if (kSanitized) GTEST_SKIP();
  const std::string captured = dir / "stderr";
  Child("", [&] {
    CHECK(std::freopen(captured.c_str(), "w", stderr) != nullptr);
    std::abort();
  });
  std::ifstream in(captured);
  EXPECT_THAT(std::string(std::istreambuf_iterator<char>(in), {}), HasSubstr("epoch=4711"));
}

TEST_F(FatalDumpTest, ACalmEndLeavesNothing) {
  if (kSanitized) GTEST_SKIP();
  EXPECT_EQ(Child(dir, [] {}), 0);
  EXPECT_FALSE(std::filesystem::exists(file));
}

}  // namespace
}  // namespace bottega
