#include "router/router_service.h"

#include <fmt/format.h>

#include "core/base/reason.h"
#include "router/ops/drain.h"
#include "router/ops/heartbeat.h"
#include "router/ops/register.h"
#include "router/ops/status.h"

namespace bottega::router {
namespace {

namespace wire = internal::v1;

absl::Status Dispatch(RouterState& state, MemberId id, const wire::MemberMessage& message) {
  switch (message.kind_case()) {
    case wire::MemberMessage::kHeartbeat:
      return TakeHeartbeat(state, id, message.heartbeat());
    case wire::MemberMessage::kDrain:
      return StartDrain(state, id, message.drain());
    case wire::MemberMessage::kRegister:
      return MakeError(Reason::kInvalidValue, "registered already");
    case wire::MemberMessage::KIND_NOT_SET:
      return absl::OkStatus();  // of a newer member
  }
  return absl::OkStatus();
}

// One member, as long as its stream lives.
Task<void> ServeSession(std::shared_ptr<Leadership> leadership, std::unique_ptr<ByteStream> bytes) {
  auto stream = std::make_shared<SessionStream>(std::move(bytes));
  const Time deadline = leadership->context.loop.Now() + leadership->config.register_timeout;
  absl::StatusOr<wire::MemberMessage> first = co_await stream->Receive(deadline);
  if (!first.ok() || !first->has_register_()) {
    stream->Close(MakeError(Reason::kInvalidValue, "the first message must be Register"));
    co_return;
  }
  std::shared_ptr<RouterState> state = leadership->state;
  if (state == nullptr) {
    stream->Close(absl::UnavailableError("a standby: another router writes"));
    co_return;
  }
  absl::StatusOr<MemberId> id = Register(*state, first->register_(), stream);
  if (!id.ok()) {
    state->context.log.Warning(
        fmt::format("refused {}: {}", stream->peer(), std::string(id.status().message())));
    stream->Close(id.status());
    co_return;
  }
  absl::Status end;
  while (end.ok()) {
    absl::StatusOr<wire::MemberMessage> message = co_await stream->Receive();
    if (!state->MayWrite()) co_return;
    end = message.ok() ? Dispatch(*state, *id, *message) : message.status();
    if (message.ok() && !end.ok()) stream->Close(end);
  }
  SessionEnded(*state, *id, stream.get(), end);
}

Task<void> ServeStatus(std::shared_ptr<Leadership> leadership, std::unique_ptr<ByteStream> bytes) {
  MessageStream<wire::StatusReply, wire::StatusRequest> stream(std::move(bytes));
  while (true) {
    absl::StatusOr<wire::StatusRequest> request = co_await stream.Receive();
    if (!request.ok()) co_return;
    if (!stream.Send(Status(*leadership)).ok()) co_return;
  }
}

}  // namespace

std::vector<std::pair<std::string, Network::Handler>> Methods(
    std::shared_ptr<Leadership> leadership) {
  std::vector<std::pair<std::string, Network::Handler>> methods;
  methods.emplace_back("/bottega.internal.v1.Router/Session",
                       [leadership](std::unique_ptr<ByteStream> bytes) {
                         return ServeSession(leadership, std::move(bytes));
                       });
  methods.emplace_back("/bottega.internal.v1.Cluster/Status",
                       [leadership](std::unique_ptr<ByteStream> bytes) {
                         return ServeStatus(leadership, std::move(bytes));
                       });
  return methods;
}

}  // namespace bottega::router
