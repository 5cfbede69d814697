#include "tests/cli/fake_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "core/base/check.h"

namespace bottega {
namespace {

int Bind(int* port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  *port = ntohs(address.sin_port);
  return fd;
}

bool ReadMore(int fd, std::string& text) {
  char bytes[4096];
  const ssize_t n = read(fd, bytes, sizeof bytes);
  if (n > 0) text.append(bytes, static_cast<size_t>(n));
  return n > 0;
}

std::string ReadRequest(int fd) {
  std::string text;
  size_t head = std::string::npos;
  while ((head = text.find("\r\n\r\n")) == std::string::npos) {
    if (!ReadMore(fd, text)) return text;
  }
  size_t body = 0;
  constexpr std::string_view kLength = "Content-Length: ";
  if (const size_t at = text.find(kLength); at < head) {
    std::from_chars(text.data() + at + kLength.size(), text.data() + head, body);
  }
  while (text.size() < head + 4 + body && ReadMore(fd, text)) {
  }
  return text;
}

std::string Event(const nlohmann::json& json) { return "data: " + json.dump() + "\n\n"; }

}  // namespace

FakeServer::FakeServer(std::vector<Reply> replies) : listener_(Bind(&port_)) {
  CHECK(listen(listener_, 16) == 0);
  thread_ = std::thread([this, replies = std::move(replies)] { Run(replies); });
}

FakeServer::~FakeServer() {
  shutdown(listener_, SHUT_RDWR);  // ends an accept that nobody will answer
  Requests();
  close(listener_);
}

std::string FakeServer::url() const { return fmt::format("http://127.0.0.1:{}", port_); }

const std::vector<std::string>& FakeServer::Requests() {
  if (thread_.joinable()) thread_.join();
  return requests_;
}

int FakeServer::AcceptFor(const Reply& reply) {
  while (true) {
    const int fd = accept(listener_, nullptr, nullptr);
    if (fd < 0) return fd;
    std::string request = ReadRequest(fd);
    if (reply.to_ready || !request.starts_with("GET /ready ")) {
      requests_.push_back(std::move(request));
      return fd;
    }
    const std::string ready = WholeReply(200, R"({"status": "ready"})").pieces[0];
    send(fd, ready.data(), ready.size(), MSG_NOSIGNAL);
    close(fd);
  }
}

void FakeServer::Run(const std::vector<Reply>& replies) {
  for (const Reply& reply : replies) {
    const int fd = AcceptFor(reply);
    if (fd < 0) return;
    for (const std::string& piece : reply.pieces) {
      if (send(fd, piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;
    }
    std::string rest;
    while (reply.hold && ReadMore(fd, rest)) {
    }
    close(fd);
  }
}

FakeServer::Reply ReadyReply(int status, const std::string& json) {
  FakeServer::Reply reply = WholeReply(status, json);
  reply.to_ready = true;
  return reply;
}

FakeServer::Reply WholeReply(int status, const std::string& json) {
  return {
      {fmt::format("HTTP/1.1 {} Status\r\nContent-Type: application/json\r\n"
                   "Content-Length: {}\r\n\r\n{}",
                   status, json.size(), json)}};
}

FakeServer::Reply EventReply(const std::vector<std::string>& events, bool ended) {
  FakeServer::Reply reply;
  reply.pieces.push_back(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (const std::string& event : events) {
    reply.pieces.push_back(fmt::format("{:x}\r\n{}\r\n", event.size(), event));
  }
  if (ended) reply.pieces.push_back("0\r\n\r\n");
  return reply;
}

std::string DeltaEvent(const std::string& field, const std::string& text) {
  nlohmann::json delta = {{field, text}};
  if (field == "reasoning") delta["reasoning_content"] = text;
  return Event({{"choices", {{{"index", 0}, {"delta", delta}, {"finish_reason", nullptr}}}},
                {"usage", nullptr}});
}

std::string FinishEvent(const std::string& reason) {
  return Event(
      {{"choices",
        {{{"index", 0}, {"delta", nlohmann::json::object()}, {"finish_reason", reason}}}}});
}

std::string UsageEvent(int completion_tokens) {
  return Event({{"choices", nlohmann::json::array()},
                {"usage", {{"completion_tokens", completion_tokens}}}});
}

RefusingPort::RefusingPort() : fd_(Bind(&port_)) {}
RefusingPort::~RefusingPort() { close(fd_); }

}  // namespace bottega
