#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "gateway/config.h"
#include "gateway/http/http_server.h"
#include "gateway/http/request_head.h"
#include "gateway/reply.h"

namespace bottega::gateway {

// One connection. HTTP thread only; HttpReply is what other threads hold.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  using Socket = boost::asio::ip::tcp::socket;

  // `config` and `handlers` are used on the HTTP thread only and live as long as it runs.
  HttpSession(std::shared_ptr<boost::asio::io_context> io, Socket socket,
              const GatewayConfig& config, const HttpHandlers& handlers,
              std::function<void()> on_closed);
  ~HttpSession();

  void Start();
  void Close();
  // Ends with the answer to the request it has; at once if it has served and waits for another.
  void Drain();

 private:
  friend class HttpReply;
  enum class State {
    kIdle,    // between requests
    kHead,    // reading the head
    kBody,    // reading the body
    kBusy,    // the handler has the request
    kClosing  // writing the last answer
  };
  using Parser = RequestParser;

  void Read();
  void OnRead(boost::system::error_code error, size_t bytes);
  void Consume();
  void ConsumeHead();
  void ConsumeBody();
  bool ParseSome();
  absl::Status TakeHead();
  void Dispatch();
  // Answers from here and closes: what follows on this connection cannot be trusted.
  void Refuse(const absl::Status& error);
  void RefuseParse(boost::system::error_code error);

  void ArmRead(Duration timeout);
  void OnReadTimeout();

  // The reply's side, on this thread.
  void SendHead(int status, const Headers& headers, std::optional<size_t> content_length);
  void Send(std::string bytes);
  void EndAnswer(bool close);
  void Write();
  void OnWritten(boost::system::error_code error, size_t bytes);
  void NextRequest();
  void TellGone();

  const std::shared_ptr<boost::asio::io_context> io_;  // a reply may outlive the server
  Socket socket_;
  const GatewayConfig& config_;
  const HttpHandlers& handlers_;
  std::function<void()> on_closed_;
  boost::asio::steady_timer read_timer_;
  boost::asio::steady_timer write_timer_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  State state_ = State::kIdle;
  bool reading_ = false;
  bool closed_ = false;
  bool keep_alive_ = false;
  bool draining_ = false;
  bool asked_ = false;  // a request has been read from it
  bool chunked_answer_ = false;
  bool http_1_0_ = false;
  bool head_only_ = false;    // HEAD: the answer's body stays here
  size_t body_progress_ = 0;  // bytes since the body's timer was set
  HttpRequest request_;

  std::deque<std::string> out_;
  size_t out_offset_ = 0;  // of out_.front(), written
  bool writing_ = false;
  bool answer_ended_ = false;
  std::function<void()> gone_;

  // Shared with the reply's thread: bytes taken and not yet given to the kernel.
  std::atomic<size_t> unsent_bytes_ = 0;
  std::atomic<bool> broken_ = false;
};

// A body must bring this much within each body_timeout.
inline constexpr size_t kBodyProgressBytes = 16u << 10;

}  // namespace bottega::gateway
