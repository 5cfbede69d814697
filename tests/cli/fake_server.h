#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace bottega {

// An HTTP server that says what a test wrote down, on a port of its own, one connection after the
// other. GET /ready is 200 and counts for nothing, unless a reply to it is next. Its thread ends
// with the last reply; the destructor waits for it.
class FakeServer {
 public:
  struct Reply {
    std::vector<std::string> pieces;  // written as they are, one after the other
    bool hold = false;                // then waits for the client to hang up, instead of doing so
    bool to_ready = false;            // to GET /ready
  };

  explicit FakeServer(std::vector<Reply> replies);
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;

  std::string url() const;
  // What came, head and body, one a reply. Waits for the thread: call it when all was asked.
  const std::vector<std::string>& Requests();

 private:
  void Run(const std::vector<Reply>& replies);
  // The connection on which `reply` is due; -1 at the end.
  int AcceptFor(const Reply& reply);

  int listener_;
  int port_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

// What the next GET /ready gets.
FakeServer::Reply ReadyReply(int status, const std::string& json);
// A reply with a body.
FakeServer::Reply WholeReply(int status, const std::string& json);
// Server-sent events, chunked, as a gateway sends them: a chunk an event.
FakeServer::Reply EventReply(const std::vector<std::string>& events, bool ended = true);
// One chunk of a streamed answer: {"reasoning": text} or {"content": text}.
std::string DeltaEvent(const std::string& field, const std::string& text);
std::string FinishEvent(const std::string& reason);
std::string UsageEvent(int completion_tokens);
inline constexpr char kDone[] = "data: [DONE]\n\n";

// Connections to it are refused: nobody listens there, and nobody else can while this lives.
class RefusingPort {
 public:
  RefusingPort();
  ~RefusingPort();
  RefusingPort(const RefusingPort&) = delete;
  RefusingPort& operator=(const RefusingPort&) = delete;
  int port() const { return port_; }

 private:
  int port_ = 0;
  int fd_;
};

}  // namespace bottega
