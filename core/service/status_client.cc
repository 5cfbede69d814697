#include "core/service/status_client.h"

#include <fmt/format.h>

#include "core/base/status.h"
#include "core/service/router_session.h"

namespace bottega {

using internal::v1::StatusReply;

StatusClient::StatusClient(Loop& loop, Network& network, NodeId self, const std::string& routers)
    : loop_(loop), network_(network), self_(self), addresses_(RouterAddresses(routers)) {}

StatusClient::~StatusClient() {
  if (stream_ != nullptr) stream_->Close(absl::OkStatus());
}

Task<absl::StatusOr<StatusReply>> StatusClient::AskOne(Duration timeout) {
  const std::string& router = addresses_[at_];
  if (stream_ == nullptr) {
    const Time connected_by = loop_.Now() + timeout;
    absl::StatusOr<std::unique_ptr<ByteStream>> bytes = co_await network_.Connect(
        self_, router, "/bottega.internal.v1.Cluster/Status", connected_by);
    if (!bytes.ok()) {
      co_return absl::UnavailableError(
          fmt::format("no router at {} ({})", router, std::string(bytes.status().message())));
    }
    stream_ = std::make_unique<Stream>(*std::move(bytes));
  }
  CO_RETURN_IF_ERROR(stream_->Send(internal::v1::StatusRequest()));
  const Time reply_by = loop_.Now() + timeout;
  absl::StatusOr<StatusReply> reply = co_await stream_->Receive(reply_by);
  if (absl::IsDeadlineExceeded(reply.status())) {
    co_return absl::UnavailableError(fmt::format("the router at {} is silent", router));
  }
  if (reply.ok() && reply->standby()) {
    co_return absl::UnavailableError(fmt::format("the router at {} stands by", router));
  }
  co_return reply;
}

Task<absl::StatusOr<StatusReply>> StatusClient::Ask(Duration timeout) {
  absl::StatusOr<StatusReply> reply = absl::UnavailableError("");
  for (size_t asked = 0; asked < addresses_.size() && !reply.ok(); ++asked) {
    reply = co_await AskOne(timeout);
    if (reply.ok()) break;
    stream_.reset();  // what it still says is no answer to the next question
    at_ = (at_ + 1) % addresses_.size();
  }
  co_return reply;
}

}  // namespace bottega
