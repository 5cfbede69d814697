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

Task<absl::StatusOr<StatusReply>> StatusClient::AskOne(Time by) {
  const std::string& router = addresses_[at_];
  if (stream_ == nullptr) {
    absl::StatusOr<std::unique_ptr<ByteStream>> bytes =
        co_await network_.Connect(self_, router, "/bottega.internal.v1.Cluster/Status", by);
    if (!bytes.ok()) {
      co_return absl::UnavailableError(
          fmt::format("no router at {} ({})", router, std::string(bytes.status().message())));
    }
    stream_ = std::make_unique<Stream>(*std::move(bytes));
  }
  CO_RETURN_IF_ERROR(stream_->Send(internal::v1::StatusRequest()));
  absl::StatusOr<StatusReply> reply = co_await stream_->Receive(by);
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
    const bool kept = stream_ != nullptr;
    const Time by = loop_.Now() + timeout;
    reply = co_await AskOne(by);
    if (reply.ok()) break;
    stream_.reset();                        // what it still says is no answer to the next question
    if (kept) reply = co_await AskOne(by);  // it may have been started anew since
    if (reply.ok()) break;
    stream_.reset();
    at_ = (at_ + 1) % addresses_.size();
  }
  co_return reply;
}

}  // namespace bottega
