#include "gateway/http/http_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/status.hpp>
#include <random>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "gateway/error_body.h"
#include "gateway/http/http_reply.h"
#include "gateway/http/request_head.h"
#include "gateway/shaped_fields.h"

namespace bottega::gateway {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

constexpr size_t kReadBytes = 64u << 10;
constexpr size_t kWriteBytes = 64u << 10;  // must leave within one write_timeout

// For who has connected before a drain and asks then.
constexpr Duration kFirstRequestTimeout = std::chrono::seconds(1);

std::string Text(boost::beast::string_view s) { return std::string(s.data(), s.size()); }

absl::Status Malformed(std::string_view what) {
  return MakeError(Reason::kInvalidValue, fmt::format("malformed request: {}", what));
}

std::string MakeRequestId() {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", random(), random());
}

}  // namespace

HttpSession::HttpSession(std::shared_ptr<boost::asio::io_context> io, Socket socket,
                         const GatewayConfig& config, const HttpHandlers& handlers,
                         std::function<void()> on_closed)
    : io_(std::move(io)),
      socket_(std::move(socket)),
      config_(config),
      handlers_(handlers),
      on_closed_(std::move(on_closed)),
      read_timer_(socket_.get_executor()),
      write_timer_(socket_.get_executor()),
      buffer_(kReadBytes) {}

HttpSession::~HttpSession() = default;

void HttpSession::Start() {
  error_code ignored;
  socket_.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  if (config_.send_buffer_bytes > 0) {
    socket_.set_option(boost::asio::socket_base::send_buffer_size(config_.send_buffer_bytes),
                       ignored);
  }
  NextRequest();
}

void HttpSession::Close() {
  if (closed_) return;
  closed_ = true;
  broken_ = true;
  read_timer_.cancel();
  write_timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
  out_.clear();
  unsent_bytes_ = 0;
  if (state_ == State::kBusy && !answer_ended_) TellGone();
  std::exchange(on_closed_, [] {})();
}

void HttpSession::Drain() {
  draining_ = true;
  keep_alive_ = false;
  if (state_ != State::kIdle) return;
  if (asked_) {
    Close();
  } else {
    ArmRead(kFirstRequestTimeout);  // it has just connected
  }
}

void HttpSession::TellGone() {
  if (gone_) std::exchange(gone_, nullptr)();
}

// ---- Reading: one read is always pending, also while a request is served, to see its client
// leave.

void HttpSession::Read() {
  if (reading_ || closed_) return;
  if (buffer_.size() == kReadBytes) {  // a line that never ends
    Refuse(Malformed("a line is too long"));
    return;
  }
  reading_ = true;
  socket_.async_read_some(
      buffer_.prepare(kReadBytes - buffer_.size()),
      [self = shared_from_this()](error_code error, size_t bytes) { self->OnRead(error, bytes); });
}

void HttpSession::OnRead(error_code error, size_t bytes) {
  reading_ = false;
  if (closed_) return;
  if (error) {
    // The last answer may still be on its way out after the client has closed its side.
    const bool still_writing = state_ == State::kClosing && !out_.empty();
    if (!still_writing) Close();
    return;
  }
  buffer_.commit(bytes);
  Consume();
}

void HttpSession::Consume() {
  switch (state_) {
    case State::kIdle:
      if (buffer_.size() == 0) break;
      state_ = State::kHead;
      head_only_ = false;
      parser_.emplace();
      parser_->header_limit(limits::kHeaderBytesMax);
      parser_->body_limit(limits::kBodyBytesMax);
      ArmRead(config_.header_timeout);
      [[fallthrough]];
    case State::kHead:
      ConsumeHead();
      return;
    case State::kBody:
      ConsumeBody();
      return;
    case State::kBusy:
      // A second request before the first is answered. The first answer goes out, then 400.
      keep_alive_ = false;
      return;  // no more is read: the buffer stays as small as it is
    case State::kClosing:
      buffer_.consume(buffer_.size());
      break;
  }
  Read();
}

// False: refused.
bool HttpSession::ParseSome() {
  while (buffer_.size() > 0 && !parser_->is_done()) {
    error_code error;
    const size_t used = parser_->put(buffer_.data(), error);
    buffer_.consume(used);
    if (state_ == State::kBody) body_progress_ += used;
    if (error == http::error::need_more) return true;
    if (error) {
      RefuseParse(error);
      return false;
    }
    if (state_ == State::kHead && parser_->is_header_done()) return true;
    if (used == 0) return true;
  }
  return true;
}

void HttpSession::ConsumeHead() {
  parser_->eager(false);
  if (!ParseSome()) return;
  if (!parser_->is_header_done()) {
    if (buffer_.size() >= limits::kHeaderBytesMax) {
      Refuse(MakeError(Reason::kHeadersTooLarge,
                       fmt::format("the head is over {} bytes", limits::kHeaderBytesMax)));
      return;
    }
    Read();
    return;
  }
  absl::Status checked = TakeHead();
  if (!checked.ok()) {
    Refuse(checked);
    return;
  }
  state_ = State::kBody;
  body_progress_ = 0;
  ArmRead(config_.body_timeout);
  parser_->eager(true);
  if (parser_->get()[http::field::expect] == "100-continue") {
    Send("HTTP/1.1 100 Continue\r\n\r\n");
  }
  ConsumeBody();
}

void HttpSession::ConsumeBody() {
  if (!ParseSome()) return;
  if (parser_->is_done()) {
    Dispatch();
    return;
  }
  if (body_progress_ >= kBodyProgressBytes) {
    body_progress_ = 0;
    ArmRead(config_.body_timeout);
  }
  Read();
}

absl::Status HttpSession::TakeHead() {
  const auto& head = parser_->get();
  http_1_0_ = head.version() == 10;
  head_only_ = head.method() == http::verb::head;
  keep_alive_ = head.keep_alive() && !draining_;
  asked_ = true;
  request_ = HttpRequest{};
  const std::string given = Text(head["x-request-id"]);
  request_.request_id = IsRequestId(given) ? given : MakeRequestId();
  return ReadHead(*parser_, handlers_, request_);
}

void HttpSession::Dispatch() {
  read_timer_.cancel();
  if (buffer_.size() > 0) {
    Refuse(Malformed("a second request before the first was answered"));
    return;
  }
  state_ = State::kBusy;
  answer_ended_ = false;
  request_.body = std::move(parser_->get().body());
  parser_.reset();
  Read();
  handlers_.serve(std::move(request_), std::make_shared<HttpReply>(shared_from_this()));
}

void HttpSession::RefuseParse(error_code error) {
  if (error == http::error::header_limit) {
    Refuse(MakeError(Reason::kHeadersTooLarge,
                     fmt::format("the head is over {} bytes", limits::kHeaderBytesMax)));
  } else if (error == http::error::body_limit) {
    Refuse(MakeError(Reason::kBodyTooLarge,
                     fmt::format("the body is over {} bytes", limits::kBodyBytesMax)));
  } else {
    Refuse(Malformed(error.message()));
  }
}

void HttpSession::Refuse(const absl::Status& error) {
  read_timer_.cancel();
  if (request_.request_id.empty()) request_.request_id = MakeRequestId();
  // Same thread, but through a reply, so that refusals look like all others.
  state_ = State::kBusy;
  answer_ended_ = false;
  keep_alive_ = false;
  HttpReply reply(shared_from_this());
  ReplyError(reply, error, request_.request_id);
}

void HttpSession::ArmRead(Duration timeout) {
  read_timer_.expires_after(timeout);
  read_timer_.async_wait([weak = weak_from_this()](error_code error) {
    std::shared_ptr<HttpSession> self = weak.lock();
    if (!error && self != nullptr) self->OnReadTimeout();
  });
}

void HttpSession::OnReadTimeout() {
  // Set again in the meantime: this is the old expiry.
  if (closed_ || read_timer_.expiry() > std::chrono::steady_clock::now()) return;
  if (state_ == State::kHead || state_ == State::kBody) {
    Refuse(MakeError(Reason::kRequestTimeout, "the request did not arrive in time"));
  } else if (state_ != State::kBusy) {
    Close();
  }
}

// ---- Writing

void HttpSession::SendHead(int status, const Headers& headers,
                           std::optional<size_t> content_length) {
  if (closed_) return;
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  std::string head = fmt::format("HTTP/1.1 {} {}\r\n", status, Text(reason));
  for (const auto& [name, value] : headers) head += fmt::format("{}: {}\r\n", name, value);
  const bool bodiless = status == 304;  // its length would be that of the 200
  chunked_answer_ = !content_length && !http_1_0_;
  if (bodiless) {
    chunked_answer_ = false;
  } else if (content_length) {
    head += fmt::format("Content-Length: {}\r\n", *content_length);
  } else if (chunked_answer_) {
    head += "Transfer-Encoding: chunked\r\n";
  } else {
    keep_alive_ = false;  // the end of the connection is the end of the answer
  }
  head += keep_alive_ ? (http_1_0_ ? "Connection: keep-alive\r\n\r\n" : "\r\n")
                      : "Connection: close\r\n\r\n";
  const bool chunked = std::exchange(chunked_answer_, false);
  Send(std::move(head));
  chunked_answer_ = chunked;
}

void HttpSession::Send(std::string bytes) {
  if (closed_ || bytes.empty()) return;
  if (chunked_answer_) bytes = fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
  unsent_bytes_ += bytes.size();
  out_.push_back(std::move(bytes));
  Write();
}

void HttpSession::Write() {
  if (writing_ || closed_ || out_.empty()) return;
  writing_ = true;
  write_timer_.expires_after(config_.write_timeout);
  write_timer_.async_wait([weak = weak_from_this()](error_code error) {
    std::shared_ptr<HttpSession> self = weak.lock();
    if (error || self == nullptr) return;
    if (self->write_timer_.expiry() <= std::chrono::steady_clock::now()) self->Close();
  });
  const std::string& front = out_.front();
  const size_t bytes = std::min(kWriteBytes, front.size() - out_offset_);
  boost::asio::async_write(socket_, boost::asio::buffer(front.data() + out_offset_, bytes),
                           [self = shared_from_this()](error_code error, size_t written) {
                             self->OnWritten(error, written);
                           });
}

void HttpSession::OnWritten(error_code error, size_t bytes) {
  writing_ = false;
  write_timer_.cancel();
  if (closed_) return;
  if (error) {
    Close();
    return;
  }
  unsent_bytes_ -= bytes;
  out_offset_ += bytes;
  if (out_offset_ == out_.front().size()) {
    out_.pop_front();
    out_offset_ = 0;
  }
  if (!out_.empty()) {
    Write();
  } else if (answer_ended_) {
    NextRequest();
  }
}

void HttpSession::EndAnswer(bool close) {
  if (closed_) return;
  if (std::exchange(chunked_answer_, false)) Send("0\r\n\r\n");
  if (close) keep_alive_ = false;
  answer_ended_ = true;
  gone_ = nullptr;
  if (!keep_alive_) state_ = State::kClosing;
  if (!writing_ && out_.empty()) NextRequest();
}

// The answer is with the kernel: the connection is free for another request, or ends.
void HttpSession::NextRequest() {
  if (state_ == State::kClosing) {
    error_code ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
    // What the client still sends is read away for a moment: closing on unread bytes would reset
    // the connection and take the answer with it.
    ArmRead(std::chrono::seconds(2));
    buffer_.consume(buffer_.size());
    Read();
    return;
  }
  state_ = State::kIdle;
  answer_ended_ = false;
  ArmRead(config_.idle_timeout);
  Consume();
}

}  // namespace bottega::gateway
