// Signals of a whole process, seen from its parent.
#include "core/service/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/reason.h"

namespace bottega {
namespace {

// Forks before anything else has threads. The child says 'r' when its handler is in place.
template <class Body>
pid_t Fork(int* said, Body body) {
  int fds[2];
  CHECK(pipe(fds) == 0);
  const pid_t pid = fork();
  if (pid == 0) {
    close(fds[0]);
    _exit(body(fds[1]));
  }
  close(fds[1]);
  *said = fds[0];
  return pid;
}

char Read(int fd) {
  char c = 0;
  return read(fd, &c, 1) == 1 ? c : '\0';
}

void Say(int fd, char c) { CHECK(write(fd, &c, 1) == 1); }

TEST(ProcessSignals, O10_TheFirstDrainsTheSecondKills) {
  int said = -1;
  const pid_t pid = Fork(&said, [](int fd) {
    auto loop = Loop::Real();
    ProcessSignals signals(*loop, [&](int signal) { Say(fd, signal == SIGTERM ? 't' : '?'); });
    loop->Post([&] { Say(fd, 'r'); });
    loop->Run();
    return 0;
  });
  EXPECT_EQ(Read(said), 'r');
  kill(pid, SIGTERM);
  EXPECT_EQ(Read(said), 't');
  kill(pid, SIGINT);
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
  close(said);
}

TEST(ProcessSignals, TheSecondKillsEvenAStuckLoop) {
  int said = -1;
  const pid_t pid = Fork(&said, [](int fd) {
    auto loop = Loop::Real();
    ProcessSignals signals(*loop, [&](int) {
      Say(fd, 'd');
      while (true) pause();
    });
    loop->Post([&] { Say(fd, 'r'); });
    loop->Run();
    return 0;
  });
  EXPECT_EQ(Read(said), 'r');
  kill(pid, SIGINT);
  EXPECT_EQ(Read(said), 'd');
  kill(pid, SIGTERM);
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
  close(said);
}

TEST(DieWithParent, AChildOfADeadParentEnds) {
  int said = -1;
  const pid_t parent = Fork(&said, [](int fd) {
    if (fork() == 0) {
      if (!DieWithParent()) return 1;
      Say(fd, 'r');
      while (true) pause();
    }
    while (true) pause();
    return 0;
  });
  EXPECT_EQ(Read(said), 'r');
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_EQ(Read(said), '\0');  // the grandchild's end of the pipe closed too
  close(said);
}

TEST(ExitCode, IsThatOfTheConventions) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCode(absl::UnavailableError("busy")), 1);
  EXPECT_EQ(ExitCode(absl::InvalidArgumentError("wrong")), 2);
  EXPECT_EQ(ExitCode(MakeError(Reason::kModelRefused, "damaged")), 3);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "error: busy\nerror: wrong\nerror: damaged\n");
}

}  // namespace
}  // namespace bottega
