#include "core/transport/ucx_channel.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/transport/ucx_check.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;

constexpr unsigned kFrameMessage = 1, kGreetingMessage = 2;  // ids of our active messages
constexpr char kAddressPrefix[] = "bottega-ucx:";            // tells our addresses from other bytes
constexpr size_t kPrefixBytes = sizeof kAddressPrefix - 1;
// ucp_worker_progress may never return 0 while a peer does not read: bound each round.
constexpr int kProgressRounds = 64;
// Closing waits for UCX to give outstanding buffers back; it does so within a few rounds.
constexpr int kCloseRounds = 10'000;
// Over shared memory a full FIFO is only seen by polling. A peer that computes empties it soon; one
// that is stopped must not cost a core.
constexpr Duration kStallMin = 20us, kStallMax = 10ms;
constexpr int kBusyMax = 8;  // refusals to arm, with nothing happening, that count as a stall

}  // namespace

absl::StatusOr<std::unique_ptr<UcxChannel>> UcxChannel::Open(UcxContext& context,
                                                             BufferPool& pool) {
  std::unique_ptr<UcxChannel> channel(new UcxChannel(context, pool));
  RETURN_IF_ERROR(channel->Init());
  return channel;
}

absl::Status UcxChannel::Init() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  RETURN_IF_UCX_ERROR(ucp_worker_create(context_.get(), &params, &worker_), "ucp_worker_create");
  RETURN_IF_UCX_ERROR(ucp_worker_get_efd(worker_, &fd_), "ucp_worker_get_efd");

  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                       UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS;
  handler.arg = this;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.id = kFrameMessage;
  handler.cb = OnFrame;
  RETURN_IF_UCX_ERROR(ucp_worker_set_am_recv_handler(worker_, &handler), "the frame handler");
  handler.id = kGreetingMessage;
  handler.cb = OnGreeting;
  RETURN_IF_UCX_ERROR(ucp_worker_set_am_recv_handler(worker_, &handler), "the greeting handler");

  ucp_worker_attr_t attributes{};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS;
  RETURN_IF_UCX_ERROR(ucp_worker_query(worker_, &attributes), "ucp_worker_query");
  address_ = kAddressPrefix + std::string(reinterpret_cast<const char*>(attributes.address),
                                          attributes.address_length);
  ucp_worker_release_address(worker_, attributes.address);
  return absl::OkStatus();
}

UcxChannel::~UcxChannel() {
  if (worker_ == nullptr) return;
  ucs_status_ptr_t closing = nullptr;
  if (ep_ != nullptr) {
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_EP_CLOSE_FLAG_FORCE;
    closing = ucp_ep_close_nbx(ep_, &param);
    if (UCS_PTR_IS_ERR(closing)) closing = nullptr;
  }
  for (int i = 0; i < kCloseRounds; ++i) {
    if (closing != nullptr && ucp_request_check_status(closing) != UCS_INPROGRESS) {
      ucp_request_free(std::exchange(closing, nullptr));
    }
    if (closing == nullptr && pending_.empty()) break;
    ucp_worker_progress(worker_);
  }
  ucp_worker_destroy(worker_);
}

absl::Status UcxChannel::Connect(const std::string& peer_address, Time deadline) {
  if (state_ != State::kOpen) return absl::FailedPreconditionError("connected twice");
  if (peer_address.compare(0, kPrefixBytes, kAddressPrefix) != 0 ||
      peer_address.size() < kPrefixBytes + 16) {
    return absl::InvalidArgumentError("not the address of a UCX transport");
  }
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(peer_address.data() + kPrefixBytes);
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;  // lost peers are reported, sends to them end
  params.err_handler.cb = OnError;
  params.err_handler.arg = this;
  RETURN_IF_UCX_ERROR(ucp_ep_create(worker_, &params, &ep_), "ucp_ep_create");
  state_ = State::kConnecting;
  deadline_ = deadline;
  Greet(Greeting::kHello);
  return absl::OkStatus();
}

absl::Status UcxChannel::Post(FrameBuffer frame) {
  if (state_ != State::kConnecting && state_ != State::kUp) {
    return absl::UnavailableError("the endpoint is not connected");
  }
  const void* data = frame.data();
  const size_t bytes = frame.size();
  RETURN_IF_ERROR(SendMessage(kFrameMessage, data, bytes, std::move(frame)));
  bytes_sent_ += bytes;
  return absl::OkStatus();
}

absl::Status UcxChannel::SendMessage(unsigned message, const void* data, size_t bytes,
                                     FrameBuffer frame) {
  if (spare_.empty()) spare_.emplace_back();
  const auto send = spare_.begin();
  send->channel = this;
  send->frame = std::move(frame);
  send->self = send;
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_AM_SEND_FLAG_EAGER;  // rendezvous costs five traversals of the network
  param.cb.send = OnSent;
  param.user_data = &*send;
  armed_ = false;
  ucs_status_ptr_t request = ucp_am_send_nbx(ep_, message, nullptr, 0, data, bytes, &param);
  if (UCS_PTR_IS_PTR(request)) {
    pending_.splice(pending_.end(), spare_, send);
    return absl::OkStatus();
  }
  send->frame = FrameBuffer();  // sent, or never will be: the memory is ours again
  RETURN_IF_UCX_ERROR(UCS_PTR_STATUS(request), "sending");
  return absl::OkStatus();
}

void UcxChannel::Greet(Greeting greeting) {
  static constexpr Greeting kBytes[] = {Greeting::kHello, Greeting::kWelcome};
  const Greeting* byte = &kBytes[greeting == Greeting::kHello ? 0 : 1];
  const absl::Status sent = SendMessage(kGreetingMessage, byte, sizeof *byte, FrameBuffer());
  if (!sent.ok()) GoDown(sent);
}

// A hello that came before we knew the peer's address waits until we do.
void UcxChannel::AnswerGreetings(Time now) {
  if (state_ != State::kConnecting && state_ != State::kUp) return;
  if (std::exchange(greeted_, false)) Greet(Greeting::kWelcome);
  if (state_ != State::kConnecting) return;
  if (welcomed_) {
    state_ = State::kUp;
    deadline_ = kNever;
  } else if (now >= deadline_) {
    GoDown(absl::DeadlineExceededError(fmt::format("no frame came through over {}", kind())));
  }
}

void UcxChannel::GoDown(absl::Status why) {
  if (state_ == State::kDown) return;
  state_ = State::kDown;
  why_down_ = std::move(why);
  ++events_;
}

bool UcxChannel::Progress(Time now) {
  if (now < stalled_until_) return false;
  stalled_until_ = {};
  bool any = false;
  for (int i = 0; i < kProgressRounds && ucp_worker_progress(worker_) != 0; ++i) any = true;
  AnswerGreetings(now);
  if (any) armed_ = false;
  if (std::exchange(seen_, events_) != events_) {
    stalled_since_ = {};
    busy_ = 0;
    return true;
  }
  // With frames pending it may only be trying what the peer has no room for, and would for ever.
  if (any && !pending_.empty()) Stall(now);
  return any && pending_.empty();
}

void UcxChannel::Stall(Time now) {
  if (stalled_since_ == Time{}) stalled_since_ = now;
  stalled_until_ = now + std::clamp((now - stalled_since_) / 8, kStallMin, kStallMax);
}

UcxChannel::Armed UcxChannel::Arm(Time now) {
  if (events_ != seen_) return Armed::kBusy;
  if (armed_) return Armed::kYes;
  if (now < stalled_until_) return Armed::kStalled;
  if (ucp_worker_arm(worker_) == UCS_OK) {
    armed_ = true;
    busy_ = 0;
    return Armed::kYes;
  }
  if (++busy_ < kBusyMax) return Armed::kBusy;
  Stall(now);
  return Armed::kStalled;
}

Time UcxChannel::next_look() const {
  return std::min(deadline_, stalled_until_ > Time{} ? stalled_until_ : kNever);
}

void UcxChannel::OnError(void* arg, ucp_ep_h /*ep*/, ucs_status_t status) {
  static_cast<UcxChannel*>(arg)->GoDown(
      absl::UnavailableError(fmt::format("UCX: peer lost: {}", ucs_status_string(status))));
}

void UcxChannel::OnSent(void* request, ucs_status_t status, void* arg) {
  Send* send = static_cast<Send*>(arg);
  UcxChannel* self = send->channel;
  send->frame = FrameBuffer();
  self->spare_.splice(self->spare_.end(), self->pending_, send->self);
  ++self->events_;
  ucp_request_free(request);
  if (status != UCS_OK) {
    self->GoDown(
        absl::UnavailableError(fmt::format("UCX: sending: {}", ucs_status_string(status))));
  }
}

ucs_status_t UcxChannel::OnFrame(void* arg, const void*, size_t, void* data, size_t bytes,
                                 const ucp_am_recv_param_t* param) {
  auto* self = static_cast<UcxChannel*>(arg);
  ++self->events_;
  // Nobody of ours sends rendezvous; returning OK releases it unread.
  if (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) return UCS_OK;
  absl::StatusOr<FrameBuffer> frame = self->pool_.Lease(bytes);
  // Too long, or no memory: lost, as on any network; its sender times out.
  if (!frame.ok()) return UCS_OK;
  if (bytes > 0) std::memcpy(frame->data(), data, bytes);
  self->bytes_received_ += bytes;
  self->arrived_.push_back(*std::move(frame));
  return UCS_OK;
}

ucs_status_t UcxChannel::OnGreeting(void* arg, const void*, size_t, void* data, size_t bytes,
                                    const ucp_am_recv_param_t* param) {
  auto* self = static_cast<UcxChannel*>(arg);
  ++self->events_;
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0 || bytes != 1) return UCS_OK;
  const Greeting greeting = *static_cast<const Greeting*>(data);
  if (greeting == Greeting::kHello) self->greeted_ = true;
  if (greeting == Greeting::kWelcome) self->welcomed_ = true;
  return UCS_OK;
}

}  // namespace bottega
