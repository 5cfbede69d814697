#include "core/transport/ucx_transport.h"

#include <fmt/format.h>
#include <ucp/api/ucp.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/transport/buffer_pool.h"
#include "core/transport/ucx_check.h"

namespace bottega {
namespace {

constexpr unsigned kFrameMessage = 1;              // the id of our active message
constexpr char kAddressPrefix[] = "bottega-ucx:";  // tells our addresses from other bytes
// ucp_worker_progress may never return 0 while a peer does not read: bound each round.
constexpr int kProgressRounds = 64;
// Closing waits for UCX to give outstanding buffers back; it does so within a few rounds.
constexpr int kCloseRounds = 10'000;

class UcxTransport final : public Transport, public Poller {
 public:
  UcxTransport(Loop& loop, size_t pool_bytes) : loop_(loop), pool_(pool_bytes) {}
  ~UcxTransport() override;
  absl::Status Open(const UcxOptions& options);

  void SetEvents(Events events) override { events_ = std::move(events); }
  std::string name() const override { return name_; }
  std::string address() const override { return address_; }
  absl::StatusOr<EndpointId> Connect(const std::string& address) override;
  absl::StatusOr<FrameBuffer> Lease(size_t bytes) override { return pool_.Lease(bytes); }
  absl::Status Post(EndpointId endpoint, FrameBuffer frame) override;
  void Close(EndpointId endpoint) override;

  bool Progress() override;
  bool Arm() override { return ucp_worker_arm(worker_) == UCS_OK; }
  int fd() const override { return fd_; }

 private:
  struct Endpoint {
    UcxTransport* transport;
    EndpointId id;
    ucp_ep_h ep = nullptr;
    bool down = false;
  };
  // Owns a frame while UCX reads it; the coroutine that posted it may be gone.
  struct PendingSend {
    UcxTransport* transport;
    EndpointId endpoint;
    FrameBuffer frame;
  };

  static void OnError(void* arg, ucp_ep_h ep, ucs_status_t status);
  static void OnSent(void* request, ucs_status_t status, void* arg);
  static ucs_status_t OnMessage(void* arg, const void* header, size_t header_bytes, void* data,
                                size_t bytes, const ucp_am_recv_param_t* param);
  void TakeDown(EndpointId id, ucs_status_t status);
  void ReapCloses();

  Loop& loop_;
  BufferPool pool_;
  Events events_;
  std::string name_;
  std::string address_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int fd_ = -1;
  uint32_t next_endpoint_ = 1;
  std::map<EndpointId, std::unique_ptr<Endpoint>> endpoints_;
  // Requests of ucp_ep_close_nbx; until they complete UCX may still name the endpoint in a
  // callback.
  std::map<void*, std::unique_ptr<Endpoint>> closing_;
  std::vector<FrameBuffer> arrived_;  // copied out of UCX, not yet told
  size_t pending_sends_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
};

// A setting unless the site's environment has its own.
absl::Status Set(ucp_config_t* config, const char* key, const std::string& value) {
  if (std::getenv(fmt::format("UCX_{}", key).c_str()) != nullptr) return absl::OkStatus();
  RETURN_IF_UCX_ERROR(ucp_config_modify(config, key, value.c_str()),
                      fmt::format("{}={}", key, value));
  return absl::OkStatus();
}

absl::Status UcxTransport::Open(const UcxOptions& options) {
  ucp_config_t* config = nullptr;
  RETURN_IF_UCX_ERROR(ucp_config_read(nullptr, nullptr, &config), "reading its configuration");
  absl::Status set = Set(config, "TLS", options.tls);
  if (set.ok()) set = Set(config, "NET_DEVICES", options.devices);
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  const ucs_status_t opened = set.ok() ? ucp_init(&params, config, &context_) : UCS_OK;
  ucp_config_release(config);
  RETURN_IF_ERROR(set);
  RETURN_IF_UCX_ERROR(
      opened, fmt::format("ucp_init with TLS={} NET_DEVICES={}", options.tls, options.devices));
  ucp_worker_params_t worker{};
  worker.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker.thread_mode = UCS_THREAD_MODE_SINGLE;
  RETURN_IF_UCX_ERROR(ucp_worker_create(context_, &worker, &worker_), "ucp_worker_create");
  RETURN_IF_UCX_ERROR(ucp_worker_get_efd(worker_, &fd_), "ucp_worker_get_efd");

  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                       UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS;
  handler.id = kFrameMessage;
  handler.cb = OnMessage;
  handler.arg = this;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  RETURN_IF_UCX_ERROR(ucp_worker_set_am_recv_handler(worker_, &handler), "the message handler");

  ucp_worker_attr_t attributes{};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS;
  RETURN_IF_UCX_ERROR(ucp_worker_query(worker_, &attributes), "ucp_worker_query");
  address_ = kAddressPrefix + std::string(reinterpret_cast<const char*>(attributes.address),
                                          attributes.address_length);
  ucp_worker_release_address(worker_, attributes.address);
  const char* tls = std::getenv("UCX_TLS");
  name_ = tls != nullptr ? tls : options.tls;
  loop_.AddPoller(this);
  return absl::OkStatus();
}

UcxTransport::~UcxTransport() {
  *alive_ = false;
  if (worker_ != nullptr) {
    if (fd_ >= 0 && !address_.empty()) loop_.RemovePoller(this);
    while (!endpoints_.empty()) Close(endpoints_.begin()->first);
    for (int i = 0; i < kCloseRounds && (pending_sends_ > 0 || !closing_.empty()); ++i) {
      ucp_worker_progress(worker_);
      ReapCloses();
    }
    ucp_worker_destroy(worker_);
  }
  if (context_ != nullptr) ucp_cleanup(context_);
}

absl::StatusOr<EndpointId> UcxTransport::Connect(const std::string& address) {
  const size_t prefix = sizeof kAddressPrefix - 1;
  if (address.compare(0, prefix, kAddressPrefix) != 0 || address.size() < prefix + 16) {
    return absl::InvalidArgumentError("not the address of a UCX transport");
  }
  auto endpoint = std::make_unique<Endpoint>();
  endpoint->transport = this;
  endpoint->id = EndpointId{next_endpoint_++};
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data() + prefix);
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;  // lost peers are reported, sends to them end
  params.err_handler.cb = OnError;
  params.err_handler.arg = endpoint.get();
  RETURN_IF_UCX_ERROR(ucp_ep_create(worker_, &params, &endpoint->ep), "ucp_ep_create");
  const EndpointId id = endpoint->id;
  endpoints_.emplace(id, std::move(endpoint));
  return id;
}

absl::Status UcxTransport::Post(EndpointId id, FrameBuffer frame) {
  auto it = endpoints_.find(id);
  if (it == endpoints_.end() || it->second->down) {
    return absl::UnavailableError("the endpoint is closed");
  }
  auto send = std::make_unique<PendingSend>(PendingSend{this, id, std::move(frame)});
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
  param.cb.send = OnSent;
  param.user_data = send.get();
  ucs_status_ptr_t request = ucp_am_send_nbx(it->second->ep, kFrameMessage, nullptr, 0,
                                             send->frame.data(), send->frame.size(), &param);
  if (request == nullptr) return absl::OkStatus();  // sent; the frame is ours again
  if (UCS_PTR_IS_ERR(request)) {
    return absl::UnavailableError(
        fmt::format("UCX: sending: {}", ucs_status_string(UCS_PTR_STATUS(request))));
  }
  ++pending_sends_;
  send.release();  // OnSent takes it
  return absl::OkStatus();
}

void UcxTransport::OnSent(void* request, ucs_status_t status, void* arg) {
  std::unique_ptr<PendingSend> send(static_cast<PendingSend*>(arg));
  --send->transport->pending_sends_;
  if (status != UCS_OK) send->transport->TakeDown(send->endpoint, status);
  ucp_request_free(request);
}

void UcxTransport::OnError(void* arg, ucp_ep_h /*ep*/, ucs_status_t status) {
  auto* endpoint = static_cast<Endpoint*>(arg);
  endpoint->transport->TakeDown(endpoint->id, status);
}

// Runs inside progress (or inside a send): the event is told from the loop.
void UcxTransport::TakeDown(EndpointId id, ucs_status_t status) {
  auto it = endpoints_.find(id);
  if (it == endpoints_.end() || it->second->down) return;
  it->second->down = true;
  loop_.Post([this, id, status, alive = alive_] {
    if (!*alive || !endpoints_.contains(id)) return;
    Close(id);
    events_.on_down(
        id, absl::UnavailableError(fmt::format("UCX: peer lost: {}", ucs_status_string(status))));
  });
}

void UcxTransport::Close(EndpointId id) {
  auto it = endpoints_.find(id);
  if (it == endpoints_.end()) return;
  std::unique_ptr<Endpoint> endpoint = std::move(it->second);
  endpoints_.erase(it);
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  ucs_status_ptr_t request = ucp_ep_close_nbx(endpoint->ep, &param);
  if (request != nullptr && !UCS_PTR_IS_ERR(request)) closing_[request] = std::move(endpoint);
}

ucs_status_t UcxTransport::OnMessage(void* arg, const void*, size_t, void* data, size_t bytes,
                                     const ucp_am_recv_param_t* param) {
  auto* self = static_cast<UcxTransport*>(arg);
  // Nobody of ours sends rendezvous; returning OK releases it unread.
  if (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) return UCS_OK;
  absl::StatusOr<FrameBuffer> frame = self->pool_.Lease(bytes);
  // Too long, or no memory: lost, as on any network; its sender times out.
  if (!frame.ok()) return UCS_OK;
  if (bytes > 0) std::memcpy(frame->data(), data, bytes);
  self->arrived_.push_back(*std::move(frame));
  return UCS_OK;
}

void UcxTransport::ReapCloses() {
  std::erase_if(closing_, [](const auto& closing) {
    if (ucp_request_check_status(closing.first) == UCS_INPROGRESS) return false;
    ucp_request_free(closing.first);
    return true;
  });
}

bool UcxTransport::Progress() {
  ReapCloses();
  bool any = false;
  for (int i = 0; i < kProgressRounds && ucp_worker_progress(worker_) != 0; ++i) any = true;
  // Outside of UCX' own stack, so that a receiver may post, connect and close.
  for (FrameBuffer& frame : std::exchange(arrived_, {})) events_.on_frame(std::move(frame));
  return any;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> OpenUcxTransport(Loop& loop, const UcxOptions& options) {
  auto transport = std::make_unique<UcxTransport>(loop, options.pool_bytes);
  RETURN_IF_ERROR(transport->Open(options));
  return absl::StatusOr<std::unique_ptr<Transport>>(std::move(transport));
}

}  // namespace bottega
