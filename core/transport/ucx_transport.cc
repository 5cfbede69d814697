#include "core/transport/ucx_transport.h"

#include <fmt/format.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_join.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "core/transport/host_identity.h"
#include "core/transport/ucx_channel.h"
#include "core/transport/ucx_context.h"

namespace bottega {
namespace {

// The UCX_TLS lists of an --exchange, best first.
std::vector<std::string> ListsOf(const std::string& exchange) {
  if (const char* site = std::getenv("UCX_TLS"); site != nullptr) return {site};
  if (exchange == "auto") return {"posix", "tcp"};
  if (exchange == "shm") return {"posix"};
  return {exchange};
}

}  // namespace

absl::StatusOr<std::unique_ptr<UcxTransport>> UcxTransport::Create(Loop& loop,
                                                                   const UcxOptions& options) {
  std::unique_ptr<UcxTransport> transport(new UcxTransport(loop, options));
  RETURN_IF_ERROR(transport->Init(options));
  return transport;
}

UcxTransport::UcxTransport(Loop& loop, const UcxOptions& options)
    : loop_(loop), connect_timeout_(options.connect_timeout), pool_(options.pool_bytes) {}

absl::Status UcxTransport::Init(const UcxOptions& options) {
  for (const std::string& tls : ListsOf(options.exchange)) {
    ASSIGN_OR_RETURN(auto context, UcxContext::Create(tls, options.devices));
    offer_.kinds.push_back(context->kind());
    closed_.push_back({.kind = context->kind()});
    contexts_.push_back(std::move(context));
  }
  offer_.host = HostIdentity();
  timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (timer_fd_ < 0) return absl::ResourceExhaustedError("timerfd_create failed");
  loop_.AddPoller(this);
  return absl::OkStatus();
}

UcxTransport::~UcxTransport() {
  if (timer_fd_ >= 0) {
    loop_.RemovePoller(this);
    close(timer_fd_);
  }
  while (!endpoints_.empty()) Close(endpoints_.begin()->first);
}

absl::StatusOr<EndpointId> UcxTransport::Open(const std::string& kind) {
  const auto kinds = std::find(offer_.kinds.begin(), offer_.kinds.end(), kind);
  if (kinds == offer_.kinds.end()) {
    return absl::InvalidArgumentError(fmt::format("no endpoint of kind '{}': this end has {}", kind,
                                                  absl::StrJoin(offer_.kinds, ", ")));
  }
  UcxContext& context = *contexts_[static_cast<size_t>(kinds - offer_.kinds.begin())];
  ASSIGN_OR_RETURN(auto channel, UcxChannel::Open(context, pool_));
  const EndpointId id{next_endpoint_++};
  endpoints_[id].channel = std::move(channel);
  return id;
}

void UcxTransport::Watch(Endpoint& endpoint, bool watch) {
  if (endpoint.watched == watch) return;
  endpoint.watched = watch;
  UcxChannel* channel = endpoint.channel.get();
  if (watch) {
    loop_.WatchFd(channel->fd(), [channel] { channel->Disarm(); });
  } else {
    loop_.UnwatchFd(channel->fd());
  }
}

std::string UcxTransport::address(EndpointId endpoint) const {
  const auto it = endpoints_.find(endpoint);
  CHECK(it != endpoints_.end());
  return it->second.channel->address();
}

absl::Status UcxTransport::Connect(EndpointId endpoint, const std::string& peer_address) {
  const auto it = endpoints_.find(endpoint);
  if (it == endpoints_.end()) return absl::UnavailableError("the endpoint is closed");
  return it->second.channel->Connect(peer_address, loop_.Now() + connect_timeout_);
}

absl::Status UcxTransport::Post(EndpointId endpoint, FrameBuffer frame) {
  const auto it = endpoints_.find(endpoint);
  if (it == endpoints_.end()) return absl::UnavailableError("the endpoint is closed");
  return it->second.channel->Post(std::move(frame));
}

void UcxTransport::Close(EndpointId endpoint) {
  const auto it = endpoints_.find(endpoint);
  if (it == endpoints_.end()) return;
  Watch(it->second, false);
  const std::unique_ptr<UcxChannel> channel = std::move(it->second.channel);
  endpoints_.erase(it);
  for (TransportKindStats& kind : closed_) {
    if (kind.kind != channel->kind()) continue;
    kind.bytes_sent += channel->bytes_sent();
    kind.bytes_received += channel->bytes_received();
  }
}

std::vector<TransportKindStats> UcxTransport::stats() const {
  std::vector<TransportKindStats> stats = closed_;
  for (const auto& [id, endpoint] : endpoints_) {
    const UcxChannel& channel = *endpoint.channel;
    for (TransportKindStats& kind : stats) {
      if (kind.kind != channel.kind()) continue;
      ++(channel.state() == UcxChannel::State::kUp ? kind.up : kind.connecting);
      kind.bytes_sent += channel.bytes_sent();
      kind.bytes_received += channel.bytes_received();
    }
  }
  return stats;
}

bool UcxTransport::Progress() {
  const Time now = loop_.Now();
  polled_.clear();
  for (const auto& [id, endpoint] : endpoints_) polled_.push_back(id);
  bool any = false;
  for (EndpointId id : polled_) any |= ProgressOne(id, now);
  return any;
}

// Events are told outside of UCX' own stack, so that a receiver may post, connect and close.
bool UcxTransport::ProgressOne(EndpointId id, Time now) {
  auto it = endpoints_.find(id);
  if (it == endpoints_.end()) return false;  // closed by an event of this round
  if (!it->second.channel->Progress(now)) return false;
  std::vector<FrameBuffer> arrived = it->second.channel->TakeArrived();
  if (it->second.channel->state() == UcxChannel::State::kUp &&
      !std::exchange(it->second.told_up, true) && events_.on_up) {
    events_.on_up(id);
  }
  for (FrameBuffer& frame : arrived) {
    if (events_.on_frame) events_.on_frame(std::move(frame));
  }
  it = endpoints_.find(id);
  if (it == endpoints_.end() || it->second.channel->state() != UcxChannel::State::kDown)
    return true;
  const absl::Status why = it->second.channel->why_down();
  Close(id);
  if (events_.on_down) events_.on_down(id, why);
  return true;
}

bool UcxTransport::Arm() {
  const Time now = loop_.Now();
  Time next = kNever;
  for (auto& [id, endpoint] : endpoints_) {
    const UcxChannel::Armed armed = endpoint.channel->Arm(now);
    if (armed == UcxChannel::Armed::kBusy) return false;
    Watch(endpoint, armed == UcxChannel::Armed::kYes);
    next = std::min(next, endpoint.channel->next_look());
  }
  SetTimer(next);
  return next > now;
}

void UcxTransport::SetTimer(Time at) {
  if (at == timer_) return;
  timer_ = at;
  itimerspec spec{};
  if (at != kNever) {
    const auto since = at.time_since_epoch();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
    spec.it_value.tv_sec = seconds.count();
    spec.it_value.tv_nsec = std::chrono::nanoseconds(since - seconds).count();
  }
  CHECK(timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &spec, nullptr) == 0);
}

}  // namespace bottega
