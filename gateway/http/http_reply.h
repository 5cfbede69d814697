#pragma once

#include <memory>

#include "gateway/http/http_session.h"

namespace bottega::gateway {

// The answer to one request of a session, for other threads: every call is handed to the session's
// thread in order.
class HttpReply : public Reply {
 public:
  explicit HttpReply(std::shared_ptr<HttpSession> session) : session_(std::move(session)) {}
  ~HttpReply() override;

  void Whole(int status, Headers headers, std::string body) override;
  void StartEvents(Headers headers) override;
  bool Write(std::string bytes) override;
  void Finish(bool close) override;
  void Cut() override;
  void OnGone(std::function<void()> gone) override;

 private:
  template <class F>
  void Post(F f);

  const std::shared_ptr<HttpSession> session_;
  bool ended_ = false;
};

}  // namespace bottega::gateway
