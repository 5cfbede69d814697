#include "core/service/fatal_dump.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

#include "core/base/check.h"
#include "core/base/sanitized.h"

namespace bottega {
namespace {

constexpr int kFatalSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
constexpr size_t kOnStderr = 100;  // events of each ring: a person reads them between log lines
std::atomic<const FatalDump*> the_dump = nullptr;

// Installed to act once: the signal comes again when the handler has returned, and ends the
// process.
void OnFatalSignal(int signal) {
  if (const FatalDump* dump = the_dump.exchange(nullptr)) dump->Now();
  raise(signal);
}

// A stack that ran over cannot carry the handler.
void UseAlternateStack() {
  static char stack[64 << 10];
  const stack_t alternate{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
  CHECK(sigaltstack(&alternate, nullptr) == 0);
}

}  // namespace

FatalDump::FatalDump(const FlightRecorder& recorder, const std::string& name,
                     const std::string& dir)
    : recorder_(recorder),
      path_(dir.empty() ? "" : fmt::format("{}/{}-{}.flight", dir, name, getpid())) {
  CHECK(the_dump.exchange(this) == nullptr);
  if (kSanitized) return;
  UseAlternateStack();
  struct sigaction action {};
  action.sa_handler = OnFatalSignal;
  action.sa_flags = SA_RESETHAND | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (int signal : kFatalSignals) sigaction(signal, &action, nullptr);
}

FatalDump::~FatalDump() {
  the_dump = nullptr;
  if (kSanitized) return;
  for (int signal : kFatalSignals) ::signal(signal, SIG_DFL);
}

void FatalDump::Now() const {
  if (path_.empty()) return recorder_.Dump(STDERR_FILENO, kOnStderr);
  const int fd = open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  if (fd < 0) return recorder_.Dump(STDERR_FILENO, kOnStderr);
  recorder_.Dump(fd, SIZE_MAX);
  close(fd);
}

}  // namespace bottega
