#include "core/service/admin_http.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "core/base/fault_point.h"
#include "core/service/scrape_hooks.h"
#include "observability/metrics.h"
#include "tests/core/base/connect_to.h"

namespace bottega {
namespace {

using testing::HasSubstr;

// Sends `bytes` and reads until the server closes.
std::string Talk(int port, const std::string& bytes) {
  const int fd = ConnectTo(port);
  EXPECT_GE(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), 0);
  std::string answer;
  char buffer[4096];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) answer.append(buffer, n);
  close(fd);
  return answer;
}

struct AdminHttpTest : testing::Test {
  AdminHttpTest() {
    AdminHttpOptions options;
    options.port = 0;
    options.version_json = R"({"version":"1.2.3"})";
    auto started = AdminHttp::Start(options, health, {&registry, &other, &process});
    EXPECT_TRUE(started.ok());
    server = *std::move(started);
  }
  std::string Get(const std::string& path) {
    return Talk(server->port(),
                "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }
  Health health;
  prometheus::Registry registry, other;
  metrics::ProcessCollector process;
  std::unique_ptr<AdminHttp> server;
};

#ifdef BOTTEGA_FAULT_POINTS
TEST(AdminHttpFaultsTest, ArmsALiveProcess) {
  Health health;
  FaultPoints faults;
  auto server = AdminHttp::Start({.port = 0, .faults = &faults}, health, {});
  ASSERT_TRUE(server.ok());
  const auto ask = [&](const std::string& what) {
    return Talk((*server)->port(), what + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  };
  EXPECT_THAT(ask("POST /faults?a.b=error:x@2+"), HasSubstr("200 OK"));
  EXPECT_TRUE(faults.Hit("a.b").ok());
  EXPECT_FALSE(faults.Hit("a.b").ok());
  EXPECT_THAT(ask("GET /faults"), HasSubstr("a.b 2\n"));
  EXPECT_THAT(ask("POST /faults?a.b=burn"), HasSubstr("unknown action"));
  EXPECT_THAT(ask("DELETE /faults?a.b"), HasSubstr("200 OK"));
  EXPECT_TRUE(faults.Hit("a.b").ok());
}

TEST_F(AdminHttpTest, NoFaultsUnlessGiven) { EXPECT_THAT(Get("/faults"), HasSubstr("404")); }
#endif

TEST_F(AdminHttpTest, ReadinessFollowsHealth) {
  EXPECT_THAT(Get("/live"), HasSubstr("200 OK"));
  health.SetNotReady("loading");
  EXPECT_THAT(Get("/ready"), HasSubstr(R"({"status":"loading","progress":0.00})"));
  health.load().Expect(1'000'000);
  health.load().Add(429'999);  // a share is not rounded up: 1.00 means all
  for (const char* path : {"/ready", "/health", "/ping"}) {
    const std::string answer = Get(path);
    EXPECT_THAT(answer, HasSubstr("503"));
    EXPECT_THAT(answer, HasSubstr(R"({"status":"loading","progress":0.42})"));
  }
  health.SetReady();
  EXPECT_THAT(Get("/ready"), HasSubstr("200 OK"));
  health.SetNotReady("draining");
  EXPECT_THAT(Get("/ready?x=1"), HasSubstr(R"("status":"draining")"));
  health.SetLive(false);
  EXPECT_THAT(Get("/live"), HasSubstr("503"));
}

TEST_F(AdminHttpTest, MetricsOfAllRegistriesAreOneText) {
  metrics::Common gateway(registry, {.version = "1", .role = "gateway"});
  metrics::Common router(other, {.version = "1", .role = "router"});
  gateway.ready.Set(1);
  const std::string text = Get("/metrics");
  EXPECT_THAT(text, HasSubstr("process_resident_memory_bytes"));
  EXPECT_THAT(text, HasSubstr("role=\"gateway\""));
  EXPECT_THAT(text, HasSubstr("role=\"router\""));
  const size_t first = text.find("# TYPE bottega_build_info");
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(text.find("# TYPE bottega_build_info", first + 1), std::string::npos);
}

TEST_F(AdminHttpTest, OtherPathsMethodsAndBytesAreRefused) {
  EXPECT_THAT(Get("/version"), HasSubstr("1.2.3"));
  EXPECT_THAT(Get("/nothing"), HasSubstr("404"));
  EXPECT_THAT(
      Talk(server->port(), "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
      HasSubstr("405"));
  EXPECT_EQ(Talk(server->port(), "\x16\x03\x01 no http\r\n\r\n"), "");
  EXPECT_EQ(Talk(server->port(), "GET / HTTP/1.1\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n"),
            "");
  EXPECT_THAT(Get("/live"), HasSubstr("200 OK"));
}

TEST_F(AdminHttpTest, ABusyPortIsAnError) {
  AdminHttpOptions options;
  options.port = server->port();
  auto second = AdminHttp::Start(options, health, {});
  EXPECT_TRUE(absl::IsUnavailable(second.status()));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(std::to_string(server->port())));
}

TEST_F(AdminHttpTest, StopsUnderOpenConnections) {
  const int idle = ConnectTo(server->port());
  EXPECT_THAT(Get("/live"), HasSubstr("200"));
  server.reset();
  close(idle);
}

// What the loop counts is copied when it is asked for, on the loop's thread.
TEST(ScrapeHooksTest, AScrapeShowsThePresent) {
  const std::unique_ptr<Loop> loop = Loop::Real();
  ScrapeHooks hooks(*loop);
  prometheus::Registry registry;
  prometheus::Gauge& gauge = metrics::AddGauge(registry, "bottega_test_rows", "Rows");
  Health health;
  auto server = AdminHttp::Start({.port = 0}, health, {&hooks, &registry});
  ASSERT_TRUE(server.ok());
  const int port = (*server)->port();
  int rows = 7;  // of the loop's thread
  ScrapeHooks::Hook kept = hooks.Add([&] { gauge.Set(rows++); });
  {
    const ScrapeHooks::Hook ended = hooks.Add([] { FAIL() << "its registration ended"; });
  }
  std::thread client([&] {
    const std::string get = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    EXPECT_THAT(Talk(port, get), HasSubstr("bottega_test_rows 7"));
    EXPECT_THAT(Talk(port, get), HasSubstr("bottega_test_rows 8"));
    loop->Stop();
  });
  loop->Run();
  client.join();
  // A loop that does not run is not waited for longer than the patience: the last seen value.
  EXPECT_THAT(Talk(port, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
              HasSubstr("bottega_test_rows 8"));
}

}  // namespace
}  // namespace bottega
