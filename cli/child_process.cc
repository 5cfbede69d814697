#include "cli/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/check.h"
#include "core/base/reason.h"

extern char** environ;

namespace bottega {
namespace {

constexpr size_t kLineBytesMax = 64 << 10;  // a longer line is cut

absl::Status Spawn(const std::vector<std::string>& arguments, int output, pid_t* pid) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, output, 1);
  posix_spawn_file_actions_adddup2(&files, output, 2);
  // A group of its own: Ctrl-C at the terminal reaches the parent only, which ends its children in
  // order. No signal stays blocked: the parent reads its own from a descriptor.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setpgroup(&attributes, 0);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  sigset_t usual;  // not ignored either, whatever this process was started with
  sigemptyset(&usual);
  for (int signal : {SIGINT, SIGTERM, SIGPIPE}) sigaddset(&usual, signal);
  posix_spawnattr_setsigdefault(&attributes, &usual);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const int error = posix_spawn(pid, argv[0], &files, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (error == 0) return absl::OkStatus();
  return MakeError(Reason::kInternalError,
                   fmt::format("cannot start {}: {}", arguments[0], std::strerror(error)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    Loop& loop, const std::vector<std::string>& arguments, Events events) {
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  pid_t pid = 0;
  const absl::Status spawned = Spawn(arguments, ends[1], &pid);
  close(ends[1]);
  if (!spawned.ok()) {
    close(ends[0]);
    return spawned;
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  CHECK(pidfd >= 0);
  return std::unique_ptr<ChildProcess>(
      new ChildProcess(loop, pid, pidfd, ends[0], std::move(events)));
}

ChildProcess::ChildProcess(Loop& loop, pid_t pid, int pidfd, int output, Events events)
    : loop_(loop), pid_(pid), pidfd_(pidfd), output_(output), events_(std::move(events)) {
  loop_.WatchFd(output_, [this] { ReadOutput(); });
  loop_.WatchFd(pidfd_, [this] { Reap(); });
}

ChildProcess::~ChildProcess() {
  if (pidfd_ >= 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    loop_.UnwatchFd(pidfd_);
    close(pidfd_);
  }
  if (output_ >= 0) {
    loop_.UnwatchFd(output_);
    close(output_);
  }
}

void ChildProcess::Signal(int signal) const {
  if (pidfd_ >= 0) kill(pid_, signal);
}

void ChildProcess::ReadOutput() {
  char buffer[8192];
  while (output_ >= 0) {
    const ssize_t n = read(output_, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      loop_.UnwatchFd(output_);
      close(output_);
      output_ = -1;
      return;
    }
    partial_.append(buffer, static_cast<size_t>(n));
    size_t begin = 0;
    for (size_t end; (end = partial_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      events_.on_line(std::string_view(partial_).substr(begin, end - begin));
    }
    partial_.erase(0, begin);
    if (partial_.size() > kLineBytesMax) partial_.resize(kLineBytesMax);
  }
}

void ChildProcess::Reap() {
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return;
  loop_.UnwatchFd(pidfd_);
  close(pidfd_);
  pidfd_ = -1;
  ReadOutput();
  if (!partial_.empty()) events_.on_line(partial_);
  events_.on_exit(status);  // may destroy this
}

std::string DescribeExit(int wait_status) {
  if (WIFSIGNALED(wait_status)) return fmt::format("killed by signal {}", WTERMSIG(wait_status));
  return fmt::format("exit code {}", WEXITSTATUS(wait_status));
}

}  // namespace bottega
