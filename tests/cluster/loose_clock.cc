// Preloaded into the processes of a scenario with `clock=loose`: the wall clock is off by the
// number of seconds in the file LOOSE_CLOCK names, which the runner changes while they run. Waits
// until a moment of the wall clock, as Abseil makes them, are for the kernel's clock and are put
// back.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdlib>
#include <ctime>

namespace {

const volatile int64_t* Mapped() {
  static int64_t none = 0;
  const char* path = getenv("LOOSE_CLOCK");
  const int fd = path == nullptr ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return &none;
  void* memory = mmap(nullptr, sizeof none, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  return memory == MAP_FAILED ? &none : static_cast<const int64_t*>(memory);
}

int64_t OffBy() {
  static const volatile int64_t* seconds = Mapped();
  return *seconds;
}

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static auto* const next = Next<int(clockid_t, timespec*)>("clock_gettime");
  const int result = next(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    time->tv_sec += OffBy();
  }
  return result;
}

int gettimeofday(timeval* time, void* zone) noexcept {
  static auto* const next = Next<int(timeval*, void*)>("gettimeofday");
  const int result = next(time, zone);
  if (result == 0) time->tv_sec += OffBy();
  return result;
}

time_t time(time_t* out) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* until) {
  static auto* const next =
      Next<int(pthread_cond_t*, pthread_mutex_t*, const timespec*)>("pthread_cond_timedwait");
  timespec real = *until;
  real.tv_sec -= OffBy();
  return next(condition, mutex, &real);
}

long syscall(long number, ...) noexcept {
  static auto* const next = Next<long(long, ...)>("syscall");
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& one : a) one = va_arg(list, long);
  va_end(list);
  timespec real;
  if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) != 0 && a[3] != 0) {
    real = *reinterpret_cast<const timespec*>(a[3]);
    real.tv_sec -= OffBy();
    a[3] = reinterpret_cast<long>(&real);
  }
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
}
