// The exchange's data plane against its floor: round trips of frames between two processes, through
// our transport and through a bare TCP socket, both with blocking waits, interleaved in one run.
//
//   exchange_bench [--tls tcp] [--rounds 2000] [--repeats 7]
//
// Prints the median one-way time (half a round trip) of the medians of `repeats` interleaved runs,
// in microseconds, and transport / socket.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/base/loop.h"
#include "core/transport/ucx_transport.h"

namespace bottega {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kSizes[] = {64, 5'760, 46'080, 368'640};
constexpr int kSizeCount = 4;

double Microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

double Median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + v.size() / 2, v.end());
  return v[v.size() / 2];
}

void WriteAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = write(fd, data, size);
    CHECK(n > 0);
    data += n;
    size -= static_cast<size_t>(n);
  }
}

bool ReadAll(int fd, char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = read(fd, data, size);
    if (n <= 0) return false;
    data += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

void WriteString(int fd, const std::string& s) {
  const uint32_t size = static_cast<uint32_t>(s.size());
  WriteAll(fd, reinterpret_cast<const char*>(&size), sizeof size);
  WriteAll(fd, s.data(), s.size());
}

std::string ReadString(int fd) {
  uint32_t size = 0;
  CHECK(ReadAll(fd, reinterpret_cast<char*>(&size), sizeof size));
  std::string s(size, '\0');
  CHECK(ReadAll(fd, s.data(), size));
  return s;
}

// A child process that echoes, and the socket to it; the child ends when the socket closes.
class EchoProcess {
 public:
  explicit EchoProcess(void (*echo)(int fd, const std::string& tls), const std::string& tls) {
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    child_ = fork();
    CHECK(child_ >= 0);
    if (child_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(fds[0]);
      echo(fds[1], tls);
      _exit(0);
    }
    close(fds[1]);
    fd_ = fds[0];
  }
  ~EchoProcess() {
    close(fd_);
    waitpid(child_, nullptr, 0);
  }
  int fd() const { return fd_; }

 private:
  pid_t child_ = -1;
  int fd_ = -1;
};

// One end of the data plane: our transport on a loop of its own.
struct Side {
  Side(int control, const std::string& tls) : loop(Loop::Real()) {
    auto opened = UcxTransport::Create(*loop, {.exchange = tls});
    CHECK(opened.ok());
    transport = *std::move(opened);
    transport->SetEvents({.on_frame = [this](FrameBuffer frame) { on_frame(std::move(frame)); },
                          .on_down = [this](EndpointId, absl::Status) { loop->Stop(); }});
    auto endpoint = transport->Open(transport->offer().kinds.front());
    CHECK(endpoint.ok());
    peer = *endpoint;
    WriteString(control, transport->address(peer));
    CHECK(transport->Connect(peer, ReadString(control)).ok());
  }

  void Send(size_t size) {
    auto frame = transport->Lease(size);
    CHECK(frame.ok());
    frame->Truncate(size);
    CHECK(transport->Post(peer, *std::move(frame)).ok());
  }

  std::unique_ptr<Loop> loop;
  std::unique_ptr<Transport> transport;
  EndpointId peer;
  std::function<void(FrameBuffer)> on_frame = [](FrameBuffer) {};
};

void EchoFrames(int control, const std::string& tls) {
  Side side(control, tls);
  side.on_frame = [&side](FrameBuffer frame) {
    // As a worker does: the reply is written into memory of its own.
    auto reply = side.transport->Lease(frame.size());
    CHECK(reply.ok());
    reply->Truncate(frame.size());
    std::memcpy(reply->data(), frame.data(), frame.size());
    CHECK(side.transport->Post(side.peer, *std::move(reply)).ok());
  };
  side.loop->WatchFd(control, [&side] { side.loop->Stop(); });
  side.loop->Run();
  side.loop->UnwatchFd(control);
}

// Round trips of `size` bytes: median in microseconds.
double TransportRounds(Side& side, size_t size, int rounds) {
  std::vector<double> times;
  times.reserve(static_cast<size_t>(rounds));
  Clock::time_point sent;
  side.on_frame = [&](FrameBuffer) {
    times.push_back(Microseconds(Clock::now() - sent));
    if (times.size() == static_cast<size_t>(rounds)) return side.loop->Stop();
    sent = Clock::now();
    side.Send(size);
  };
  sent = Clock::now();
  side.Send(size);
  side.loop->Run();
  CHECK(times.size() == static_cast<size_t>(rounds));
  return Median(std::move(times));
}

void EchoBytes(int control, const std::string&) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK(listen(listener, 1) == 0);
  socklen_t length = sizeof address;
  CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  WriteString(control, std::string(reinterpret_cast<char*>(&address), sizeof address));
  const int fd = accept(listener, nullptr, nullptr);
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  std::vector<char> bytes(kSizes[kSizeCount - 1]);
  uint32_t size = 0;
  while (ReadAll(fd, reinterpret_cast<char*>(&size), sizeof size) &&
         ReadAll(fd, bytes.data(), size)) {
    WriteAll(fd, bytes.data(), size);
  }
}

int ConnectBytes(int control) {
  sockaddr_in address;
  const std::string told = ReadString(control);
  std::memcpy(&address, told.data(), sizeof address);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

double SocketRounds(int fd, size_t size, int rounds) {
  std::vector<char> bytes(sizeof(uint32_t) + size);
  const uint32_t told = static_cast<uint32_t>(size);
  std::memcpy(bytes.data(), &told, sizeof told);
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) {
    const Clock::time_point sent = Clock::now();
    WriteAll(fd, bytes.data(), bytes.size());
    CHECK(ReadAll(fd, bytes.data() + sizeof told, size));
    times.push_back(Microseconds(Clock::now() - sent));
  }
  return Median(std::move(times));
}

int Main(int argc, char** argv) {
  std::string tls = "tcp";
  int rounds = 2000, repeats = 7;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--tls") tls = argv[i + 1];
    if (flag == "--rounds") rounds = std::max(1, std::atoi(argv[i + 1]));
    if (flag == "--repeats") repeats = std::max(1, std::atoi(argv[i + 1]));
  }
  EchoProcess bytes_process(EchoBytes, tls);
  EchoProcess frames_process(EchoFrames, tls);
  const int fd = ConnectBytes(bytes_process.fd());
  Side side(frames_process.fd(), tls);
  std::vector<double> ours[kSizeCount], floor[kSizeCount];
  for (int repeat = -1; repeat < repeats; ++repeat) {  // the first one warms up
    for (int i = 0; i < kSizeCount; ++i) {
      const double f = SocketRounds(fd, kSizes[i], rounds);
      const double o = TransportRounds(side, kSizes[i], rounds);
      if (repeat < 0) continue;
      floor[i].push_back(f);
      ours[i].push_back(o);
    }
  }
  close(fd);
  std::printf("one way, us       ucx %-8s bare TCP   ratio\n", tls.c_str());
  for (int i = 0; i < kSizeCount; ++i) {
    const double o = Median(ours[i]) / 2, f = Median(floor[i]) / 2;
    std::printf("%8zu bytes    %9.1f %13.1f %7.2f\n", kSizes[i], o, f, o / f);
  }
  return 0;
}

}  // namespace
}  // namespace bottega

int main(int argc, char** argv) { return bottega::Main(argc, argv); }
