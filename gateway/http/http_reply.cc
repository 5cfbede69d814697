#include "gateway/http/http_reply.h"

#include <boost/asio/post.hpp>

#include "core/base/limits.h"

namespace bottega::gateway {

template <class F>
void HttpReply::Post(F f) {
  if (session_->io_->stopped()) return;  // the server is gone, and so is the connection
  boost::asio::post(session_->socket_.get_executor(),
                    [session = session_, f = std::move(f)]() mutable { f(*session); });
}

HttpReply::~HttpReply() {
  if (!ended_) Cut();
}

void HttpReply::Whole(int status, Headers headers, std::string body) {
  ended_ = true;
  Post([status, headers = std::move(headers), body = std::move(body)](HttpSession& s) mutable {
    s.SendHead(status, headers, body.size());
    if (!s.head_only_) s.Send(std::move(body));
    s.EndAnswer(false);
  });
}

void HttpReply::StartEvents(Headers headers) {
  Post([headers = std::move(headers)](HttpSession& s) { s.SendHead(200, headers, std::nullopt); });
}

bool HttpReply::Write(std::string bytes) {
  if (session_->broken_.load(std::memory_order_relaxed)) return false;
  const size_t size = bytes.size();
  const size_t unsent = session_->unsent_bytes_.fetch_add(size, std::memory_order_relaxed);
  if (unsent + size > limits::kStreamBufferBytesMax) {
    session_->unsent_bytes_.fetch_sub(size, std::memory_order_relaxed);
    return false;
  }
  Post([bytes = std::move(bytes), size](HttpSession& s) mutable {
    s.unsent_bytes_.fetch_sub(size, std::memory_order_relaxed);  // Send counts its frame
    s.Send(std::move(bytes));
  });
  return true;
}

void HttpReply::Finish(bool close) {
  ended_ = true;
  Post([close](HttpSession& s) { s.EndAnswer(close); });
}

void HttpReply::Cut() {
  ended_ = true;
  Post([](HttpSession& s) { s.Close(); });
}

void HttpReply::OnGone(std::function<void()> gone) {
  Post([gone = std::move(gone)](HttpSession& s) mutable {
    s.gone_ = std::move(gone);
    if (s.closed_) s.TellGone();
  });
}

}  // namespace bottega::gateway
