// The exchange's data plane against gRPC carrying the same bytes between two processes of this
// host, interleaved in one run: throughput one way with 16 messages in flight, and round trips.
//
//   exchange_bench [--exchange shm|tcp] [--cores any|apart] [--rounds 2000] [--repeats 7]
//
// Where the kernel puts the two ends decides more than what is between them: on one core a wake-up
// is a switch, on two it is an interrupt to a halted core. `any` leaves it to the kernel, as the
// workers do; `apart` gives each end, gRPC's threads included, a core of its own.
//
// Throughput and ratio are medians of the repeats, percentiles are over the round trips of all of
// them. Beside them the floors: copying a message in and out in one thread, the round trip of a
// bare TCP socket, and that of a byte that only wakes the other end.

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "bench/forked_process.h"
#include "bench/frame_link.h"
#include "bench/grpc_link.h"
#include "bench/socket_floor.h"
#include "bench/ucx_link.h"
#include "core/base/check.h"

namespace bottega {
namespace {

constexpr size_t kStreamBytes = 128 << 20;  // of a repeat, each size and link

struct Options {
  std::string exchange = "shm";  // as the workers' flag
  bool apart = false;
  int rounds = 2000;
  int repeats = 7;
};

// Of one size, a value a repeat; round trips of all of them.
struct Results {
  std::vector<double> ours_rate, grpc_rate, ratio, copy_rate;  // GB/s
  std::vector<double> ours_trips, grpc_trips, socket_trips;    // us
};

// The nth of `cores` alone; empty if there are fewer.
cpu_set_t OneCore(const cpu_set_t& cores, int nth) {
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &cores) || nth-- > 0) continue;
    CPU_SET(cpu, &one);
    break;
  }
  return one;
}

double Percentile(std::vector<double> v, double p) {
  const auto at = v.begin() + static_cast<ptrdiff_t>(p * static_cast<double>(v.size() - 1));
  std::nth_element(v.begin(), at, v.end());
  return *at;
}
double Median(const std::vector<double>& v) { return Percentile(v, 0.5); }

// GB/s of a message that is copied into memory between the ends and out of it.
double CopyRate(size_t bytes) {
  std::vector<std::byte> in(bytes), between(bytes), out(bytes);
  const size_t count = kStreamBytes / bytes;
  const auto begin = std::chrono::steady_clock::now();
  for (size_t i = 0; i < count; ++i) {
    in[0] = static_cast<std::byte>(i);
    std::memcpy(between.data(), in.data(), bytes);
    asm volatile("" : : "r"(between.data()) : "memory");  // both copies are made
    std::memcpy(out.data(), between.data(), bytes);
    asm volatile("" : : "r"(out.data()) : "memory");
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  return static_cast<double>(count * bytes) / took.count() * 1e-9;
}

void Measure(size_t bytes, int rounds, FrameLink& ours, FrameLink& grpc, int socket, Results* r) {
  const size_t messages = kStreamBytes / bytes;
  r->copy_rate.push_back(CopyRate(bytes));
  r->ours_rate.push_back(StreamRate(ours, bytes, messages));
  r->grpc_rate.push_back(StreamRate(grpc, bytes, messages));
  r->ratio.push_back(r->ours_rate.back() / r->grpc_rate.back());
  RoundTrips(ours, bytes, rounds, &r->ours_trips);
  RoundTrips(grpc, bytes, rounds, &r->grpc_trips);
  SocketRoundTrips(socket, bytes, rounds, &r->socket_trips);
}

void Print(size_t bytes, const Results& r) {
  const auto [least, most] = std::minmax_element(r.ratio.begin(), r.ratio.end());
  const double ours = Percentile(r.ours_trips, 0.99), grpc = Percentile(r.grpc_trips, 0.99);
  std::printf(
      "%7zu %6.1f %6.2f %6.2f %6.2f (%.2f-%.2f)\t| %6.1f %6.1f %7.1f %6.1f %+5.0f %% %7.1f %6.1f\n",
      bytes, Median(r.copy_rate), Median(r.ours_rate), Median(r.grpc_rate), Median(r.ratio), *least,
      *most, Median(r.ours_trips), ours, Median(r.grpc_trips), grpc, (ours / grpc - 1) * 100,
      Median(r.socket_trips), Percentile(r.socket_trips, 0.99));
}

int Usage(const std::string& wrong) {
  std::fprintf(stderr,
               "exchange_bench: %s\n"
               "usage: exchange_bench [--exchange shm|tcp] [--cores any|apart] [--rounds N]"
               " [--repeats N]\n",
               wrong.c_str());
  return 2;
}

int Run(const Options& options) {
  cpu_set_t cores;
  CHECK(sched_getaffinity(0, sizeof cores, &cores) == 0);
  const cpu_set_t near = OneCore(cores, 0), far = OneCore(cores, 1);
  if (options.apart && CPU_COUNT(&far) == 0) return Usage("--cores apart needs two cores");
  if (options.apart) CHECK(sched_setaffinity(0, sizeof far, &far) == 0);
  // All children before gRPC and UCX start threads here.
  const ForkedProcess wake_child(ServeWakeUps);
  const ForkedProcess socket_child(ServeSocket);
  const ForkedProcess grpc_child(ServeGrpc);
  const ForkedProcess ours_child(
      [&](int control) { UcxLink(control, options.exchange).Serve(control); });
  if (options.apart) CHECK(sched_setaffinity(0, sizeof near, &near) == 0);
  const int socket = ConnectSocket(socket_child.fd());
  {
    const std::unique_ptr<FrameLink> grpc = ConnectGrpc(grpc_child.fd());
    UcxLink ours(ours_child.fd(), options.exchange);
    Results results[std::size(kMessageSizes)];
    std::vector<double> wake_ups;
    for (int repeat = -1; repeat < options.repeats; ++repeat) {
      for (size_t i = 0; i < std::size(kMessageSizes); ++i) {
        Results warm_up;
        Measure(kMessageSizes[i], options.rounds, ours, *grpc, socket,
                repeat < 0 ? &warm_up : &results[i]);
      }
      if (repeat >= 0) WakeUpRoundTrips(wake_child.fd(), options.rounds, &wake_ups);
    }
    std::printf(
        "        one way, GB/s                            \t| round trip, us\n"
        "                                                 \t|  ours            gRPC          "
        "ours/gRPC  bare TCP\n"
        "  bytes   copy   ours   gRPC  ratio (min-max)    \t|    p50    p99     p50    p99     p99"
        "      p50    p99\n");
    for (size_t i = 0; i < std::size(kMessageSizes); ++i) Print(kMessageSizes[i], results[i]);
    std::printf("two wake-ups and nothing else: p50 %.1f, p99 %.1f us\n", Median(wake_ups),
                Percentile(wake_ups, 0.99));
  }
  close(socket);
  return 0;
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag != "--exchange" && flag != "--cores" && flag != "--rounds" && flag != "--repeats") {
      return Usage("no such flag: " + flag);
    }
    if (i + 1 == argc) return Usage(flag + " needs a value");
    const std::string value = argv[i + 1];
    if (flag == "--exchange") {
      if (value != "shm" && value != "tcp") return Usage("no such exchange: " + value);
      options.exchange = value;
    } else if (flag == "--cores") {
      if (value != "any" && value != "apart") return Usage("no such choice of cores: " + value);
      options.apart = value == "apart";
    } else if (int number = 0; absl::SimpleAtoi(value, &number) && number > 0) {
      (flag == "--rounds" ? options.rounds : options.repeats) = number;
    } else {
      return Usage(flag + " must be a number above 0, not " + value);
    }
  }
  return Run(options);
}

}  // namespace
}  // namespace bottega

int main(int argc, char** argv) { return bottega::Main(argc, argv); }
