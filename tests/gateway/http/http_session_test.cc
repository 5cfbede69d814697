#include <gtest/gtest.h>

#include <thread>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "gateway/error_body.h"
#include "gateway/http/http_server.h"
#include "tests/gateway/http_client.h"

namespace bottega::gateway {
namespace {

using namespace std::chrono_literals;

// A server whose one route says what it was sent.
class HttpSessionTest : public testing::Test {
 protected:
  void Start() {
    config_.port = 0;
    handlers_.check = [](const std::string& method, const std::string& path, const std::string&,
                         const std::string&) {
      RouteCheck check;
      if (path == "/missing") check.refusal = MakeError(Reason::kRouteNotFound, "no such route");
      check.takes_body = method == "POST";
      return check;
    };
    handlers_.serve = [](HttpRequest request, std::shared_ptr<Reply> reply) {
      if (request.path == "/events") {
        reply->StartEvents({{"Content-Type", "text/event-stream"}});
        reply->Write("data: 1\n\n");
        reply->Write("data: 2\n\n");
        reply->Finish(false);
        return;
      }
      ReplyJson(*reply, 200, {{"path", request.path}, {"bytes", request.body.size()}},
                request.request_id);
    };
    absl::StatusOr<std::unique_ptr<HttpServer>> server = HttpServer::Start(config_, handlers_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  HttpClient::Response Raw(const std::string& bytes) {
    HttpClient client(server_->port());
    client.SendRaw(bytes);
    return client.Read();
  }

  GatewayConfig config_;
  HttpHandlers handlers_;
  std::unique_ptr<HttpServer> server_;
};

const std::string kGet = "GET /x HTTP/1.1\r\nHost: a\r\n";
const std::string kPost = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";

// 0: nobody listens.
int StatusOf(int port) {
  try {
    HttpClient client(port);
    client.Send("GET", "/x");
    return client.Read().status;
  } catch (const boost::system::system_error&) {
    return 0;
  }
}

// A restarted gateway: the new one listens, the old one ends, and nobody is refused.
TEST_F(HttpSessionTest, TheNextServerListensBeforeTheLastOneEnds) {
  config_.share_port = true;
  Start();
  std::unique_ptr<HttpServer> first = std::move(server_);
  EXPECT_EQ(StatusOf(first->port()), 0) << "it is not ready yet";
  first->Listen();
  while (StatusOf(first->port()) != 200) std::this_thread::yield();
  config_.port = first->port();
  absl::StatusOr<std::unique_ptr<HttpServer>> second = HttpServer::Start(config_, handlers_);
  ASSERT_TRUE(second.ok()) << second.status();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(StatusOf(config_.port), 200) << "only the first hears";
  (*second)->Listen();
  first->Drain();
  for (int i = 0; i < 200; ++i) EXPECT_EQ(StatusOf(config_.port), 200) << i;
  first.reset();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(StatusOf(config_.port), 200) << i;
}

TEST_F(HttpSessionTest, AConnectionServesManyRequests) {
  Start();
  HttpClient client(server_->port());
  for (int i = 0; i < 3; ++i) {
    client.Send("POST", "/y?q=1", "{\"a\":1}");
    HttpClient::Response response = client.Read();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.json()["path"], "/y");
    EXPECT_EQ(response.json()["bytes"], 7);
    client.Send("GET", "/events");
    EXPECT_EQ(client.Read().body, "data: 1\n\ndata: 2\n\n");
  }
}

TEST_F(HttpSessionTest, Refusals) {
  Start();
  std::string many = kGet;
  for (size_t i = 0; i < limits::kHeaderCountMax; ++i) many += "h" + std::to_string(i) + ": 1\r\n";
  const std::string too_long = std::to_string(limits::kBodyBytesMax + 1);
  struct Case {
    std::string bytes;
    int status;
  };
  const Case cases[] = {
      {kGet + "\r\n", 200},
      {"GET /missing HTTP/1.1\r\nHost: a\r\n\r\n", 404},
      {"nonsense\r\n\r\n", 400},
      {"GET /x HTTP/1.1\r\n\r\n", 400},                     // no Host
      {kGet + "Host: b\r\n\r\n", 400},                      // two
      {"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 400},  // absolute
      {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", 400},
      {kPost + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400},
      {kPost + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", 400},
      {kPost + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
      {kPost + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400},
      {kPost + "Content-Length: -1\r\n\r\n{}", 400},
      {kPost + "Content-Length: 2x\r\n\r\n{}", 400},
      {kPost + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
      {kPost + "Transfer-Encoding: gzip\r\n\r\n", 400},
      {kPost + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400},
      {kPost + "Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", 400},
      {kPost + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200},
      {kGet + "\r\n" + kGet + "\r\n", 400},  // pipelined
      {kPost + "\r\n{}", 411},
      {kPost + "Content-Length: " + too_long + "\r\n\r\n", 413},
      {kPost + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415},
      {"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 415},
      {"POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
       415},
      {"POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=utf-8\r\n"
       "Content-Length: 2\r\n\r\n{}",
       200},
      {many + "\r\n", 431},
      {kGet + "h: " + std::string(limits::kHeaderBytesMax, 'a') + "\r\n\r\n", 431},
      {kGet + "h: " + std::string(1 << 20, 'a') + "\r\n\r\n", 431},
      {"GET /" + std::string(limits::kRequestLineBytesMax, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n",
       431},
      {kGet + "x-request-timeout-ms: soon\r\n\r\n", 400},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.bytes.substr(0, 120));
    HttpClient::Response response = Raw(c.bytes);
    EXPECT_EQ(response.status, c.status) << response.body;
    if (c.status != 200) {
      EXPECT_EQ(response.Header("Connection"), "close");
      EXPECT_TRUE(response.json()["error"].contains("message"));
      EXPECT_FALSE(response.Header("x-request-id").empty());
    }
  }
}

TEST_F(HttpSessionTest, ABodyPastTheLimitInChunksIsRefused) {
  Start();
  HttpClient client(server_->port());
  client.SendRaw(kPost + "Transfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "100000\r\n" + std::string(1 << 20, ' ') + "\r\n";
  for (size_t i = 0; i <= limits::kBodyBytesMax >> 20; ++i) client.SendRaw(chunk);
  EXPECT_EQ(client.Read().status, 413);
}

TEST_F(HttpSessionTest, RequestIdsAreEchoedOrMade) {
  Start();
  EXPECT_EQ(Raw(kGet + "x-request-id: my.id-1\r\n\r\n").Header("x-request-id"), "my.id-1");
  const std::string made = Raw(kGet + "x-request-id: bad id\r\n\r\n").Header("x-request-id");
  EXPECT_EQ(made.size(), 32u);
  EXPECT_NE(Raw(kGet + "\r\n").Header("x-request-id"), Raw(kGet + "\r\n").Header("x-request-id"));
}

TEST_F(HttpSessionTest, HalfARequestTimesOut) {
  config_.header_timeout = 20ms;
  config_.body_timeout = 20ms;
  config_.idle_timeout = 20ms;
  Start();
  EXPECT_EQ(Raw("GET /x HT").status, 408);
  EXPECT_EQ(Raw(kPost + "Content-Length: 100\r\n\r\n{").status, 408);
  HttpClient idle(server_->port());
  EXPECT_TRUE(idle.WaitForClose());
}

TEST_F(HttpSessionTest, OneByteAtATimeIsARequest) {
  Start();
  HttpClient client(server_->port());
  for (char c : kPost + "Content-Length: 2\r\n\r\n{}") client.SendRaw(std::string(1, c));
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HttpSessionTest, ExpectContinueIsContinued) {
  Start();
  HttpClient client(server_->port());
  client.SendRaw(kPost + "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.Read().status, 100);
  client.SendRaw("{}");
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HttpSessionTest, OldClientsAreAnsweredAndClosed) {
  Start();
  HttpClient client(server_->port());
  client.SendRaw("GET /events HTTP/1.0\r\n\r\n");
  HttpClient::Response response = client.Read();
  EXPECT_EQ(response.body, "data: 1\n\ndata: 2\n\n");
  EXPECT_EQ(response.Header("Connection"), "close");
}

TEST_F(HttpSessionTest, ConnectionsAreCappedAndAcceptingResumes) {
  config_.connections_max = 2;
  Start();
  auto first = std::make_unique<HttpClient>(server_->port());
  HttpClient second(server_->port());
  first->Send("GET", "/x");
  EXPECT_EQ(first->Read().status, 200);
  second.Send("GET", "/x");
  EXPECT_EQ(second.Read().status, 200);
  HttpClient third(server_->port());  // waits in the kernel's queue
  third.Send("GET", "/x");
  EXPECT_EQ(server_->connections(), 2u);
  first->Close();
  EXPECT_EQ(third.Read().status, 200);
}

TEST_F(HttpSessionTest, ABusyPortIsSaid) {
  Start();
  GatewayConfig other;
  other.port = server_->port();
  absl::StatusOr<std::unique_ptr<HttpServer>> busy = HttpServer::Start(other, {});
  ASSERT_FALSE(busy.ok());
  EXPECT_NE(std::string(busy.status().message()).find(std::to_string(other.port)),
            std::string::npos);
}

}  // namespace
}  // namespace bottega::gateway
