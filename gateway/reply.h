#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace bottega::gateway {

using Headers = std::vector<std::pair<std::string, std::string>>;

// Where the answer of one HTTP request goes: a connection, or a test. Either Whole once, or
// StartEvents, Write any number of times, then Finish or Cut. Any thread, one at a time; nothing
// here waits. Dropping the last reference without an end cuts the connection.
class Reply {
 public:
  virtual ~Reply() = default;

  virtual void Whole(int status, Headers headers, std::string body) = 0;

  // 200 and the headers of a stream of events.
  virtual void StartEvents(Headers headers) = 0;
  // False: the client has left more than the stream's buffer unread, or is gone; nothing was taken.
  virtual bool Write(std::string bytes) = 0;
  // The stream is complete; `close`: the connection goes after it.
  virtual void Finish(bool close) = 0;
  // The connection goes at once.
  virtual void Cut() = 0;

  // `gone` is called once, on any thread, if the client leaves before the answer's end.
  virtual void OnGone(std::function<void()> gone) = 0;
};

// A request as the routes see it: framed and authorised, the body not looked at.
struct HttpRequest {
  std::string method;
  std::string path;  // without query
  std::string body;
  std::string request_id;     // x-request-id, or made
  int64_t timeout_ms = 0;     // x-request-timeout-ms; 0: none
  std::string if_none_match;  // the ETags that the client has
};

}  // namespace bottega::gateway
