#pragma once

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <string>
#include <vector>

#include "gateway/json.h"

namespace bottega::gateway {

// A blocking HTTP client of raw bytes on loopback.
class HttpClient {
 public:
  explicit HttpClient(int port, int receive_buffer = 0) : socket_(io_) {
    socket_.open(boost::asio::ip::tcp::v4());
    if (receive_buffer > 0) {
      socket_.set_option(boost::asio::socket_base::receive_buffer_size(receive_buffer));
    }
    socket_.connect({boost::asio::ip::address_v4::loopback(), static_cast<uint16_t>(port)});
  }

  struct Response {
    int status = 0;  // 0: the connection ended without one
    std::string body;
    boost::beast::http::fields headers;
    bool complete = false;

    std::string Header(const std::string& name) const {
      return std::string(headers[name].data(), headers[name].size());
    }
    Json json() const { return Json::parse(body, nullptr, false); }
    // The data of the events, in order.
    std::vector<std::string> Events() const {
      std::vector<std::string> events;
      size_t at = 0;
      for (size_t end; (end = body.find("\n\n", at)) != std::string::npos; at = end + 2) {
        const std::string frame = body.substr(at, end - at);
        events.push_back(frame.starts_with("data: ") ? frame.substr(6) : frame);
      }
      return events;
    }
  };

  void SendRaw(const std::string& bytes) {
    boost::system::error_code ignored;
    boost::asio::write(socket_, boost::asio::buffer(bytes), ignored);
  }
  void Send(const std::string& method, const std::string& path, const std::string& body = "",
            const std::string& headers = "") {
    std::string head = method + " " + path + " HTTP/1.1\r\nHost: test\r\n" + headers;
    if (method == "POST") {
      head += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n";
    }
    SendRaw(head + "\r\n" + body);
  }

  // One whole response, or what came before the connection ended. `to_head`: it answers a HEAD.
  Response Read(bool to_head = false) {
    Begin();
    parser_->skip(to_head);
    while (ReadMore()) {
    }
    return Take();
  }

  // Step by step: the body so far grows with each ReadMore.
  void Begin() {
    parser_.emplace();
    parser_->body_limit(boost::none);
  }
  bool ReadMore() {
    boost::system::error_code error;
    boost::beast::http::read_some(socket_, buffer_, *parser_, error);
    return !error && !parser_->is_done();
  }
  const std::string& body() { return parser_->get().body(); }
  // Reads until the body holds `text`; false: it ended without.
  bool ReadUntil(const std::string& text) {
    while (body().find(text) == std::string::npos) {
      if (!ReadMore()) return body().find(text) != std::string::npos;
    }
    return true;
  }
  Response Take() {
    Response response;
    if (parser_->is_header_done()) {
      response.status = static_cast<int>(parser_->get().result_int());
      response.headers = parser_->get().base();
      response.complete = parser_->is_done();
    }
    response.body = parser_->get().body();
    return response;
  }
  // True once the peer has closed (waits for it).
  bool WaitForClose() {
    char byte;
    boost::system::error_code error;
    while (!error) socket_.read_some(boost::asio::buffer(&byte, 1), error);
    return true;
  }
  void Close() { socket_.close(); }

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::response_parser<boost::beast::http::string_body>> parser_;
};

}  // namespace bottega::gateway
