#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/limits.h"
#include "core/base/sanitized.h"
#include "core/base/time.h"
#include "gateway/answer_format.h"

namespace bottega {

struct GatewayConfig {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0 picks one
  // Other gateways listen there too (SO_REUSEPORT); this one only once it is ready, because the
  // kernel spreads connections over all that listen.
  bool share_port = false;
  std::vector<std::string> api_keys;  // empty: no key asked for
  gateway::ReasoningField reasoning_field = gateway::ReasoningField::kBoth;
  gateway::Json default_template_kwargs = gateway::Json::object();
  bool web = true;            // the chat page at /
  int overload_status = 429;  // or 503: what a full queue answers

  int text_threads = 2;  // 0: on the caller's thread (a simulated loop)
  size_t queued_requests_max = limits::kQueuedRequestsMax;
  size_t connections_max = limits::kConnectionsMax;

  Duration queue_age_max = std::chrono::seconds(30);
  Duration request_deadline = std::chrono::seconds(3600);
  // How long requests wait for a first or lost attention worker before they are refused.
  Duration no_worker_wait = std::chrono::seconds(5);
  // An attention worker that has requests of ours and says nothing for so long is given up.
  Duration worker_silence_max = kSanitized ? std::chrono::seconds(5) : std::chrono::seconds(1);
  Duration keep_alive = std::chrono::seconds(15);  // silence of a stream before a comment line

  Duration header_timeout = std::chrono::seconds(10);
  // A body that brings less than kBodyProgressBytes in this time is given up.
  Duration body_timeout = std::chrono::seconds(30);
  Duration write_timeout = std::chrono::seconds(30);
  Duration idle_timeout = std::chrono::seconds(60);
  int send_buffer_bytes = 0;  // SO_SNDBUF of connections; 0: the system's
};

}  // namespace bottega
