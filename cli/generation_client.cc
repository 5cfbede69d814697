#include "cli/generation_client.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "core/base/status.h"

namespace bottega {
namespace {

using internal::v1::AttentionMessage;
using internal::v1::GatewayMessage;

constexpr Duration kConnectTimeout = std::chrono::seconds(5);

}  // namespace

Task<absl::StatusOr<std::unique_ptr<GenerationClient>>> GenerationClient::Connect(
    const ServiceContext* self, std::string address) {
  std::string method = "/bottega.internal.v1.Attention/Serve";
  const Time deadline = self->loop.Now() + kConnectTimeout;
  absl::StatusOr<std::unique_ptr<ByteStream>> bytes =
      co_await self->network.Connect(self->node, address, method, deadline);
  if (!bytes.ok()) co_return bytes.status();
  std::unique_ptr<GenerationClient> client(new GenerationClient(self->loop, *std::move(bytes)));
  GatewayMessage hello;
  hello.mutable_hello()->set_incarnation(self->incarnation.value);
  hello.mutable_hello()->set_name(self->name);
  CO_RETURN_IF_ERROR(client->stream_.Send(hello));
  absl::StatusOr<AttentionMessage> answer = co_await client->stream_.Receive(deadline);
  if (!answer.ok()) co_return answer.status();
  client->slots_ = client->free_slots_ = answer->hello().grants().free_slots();
  co_return client;
}

absl::Status GenerationClient::Submit(uint64_t key, const GenerationRequest& request) {
  GatewayMessage message;
  internal::v1::Submit& submit = *message.mutable_submit();
  submit.set_request_key(key);
  submit.mutable_prompt_ids()->Assign(request.prompt.begin(), request.prompt.end());
  submit.mutable_sampling()->set_temperature(request.temperature);
  submit.mutable_sampling()->set_top_p(1);
  submit.mutable_sampling()->set_seed(static_cast<int64_t>(key));
  submit.set_max_tokens(static_cast<uint32_t>(request.tokens));
  submit.set_ignore_eos(true);
  submit.set_top_logprobs(-1);
  generations_[key].submitted = loop_.Now();
  ++live_;
  return stream_.Send(message);
}

Task<absl::StatusOr<int64_t>> GenerationClient::Receive(Time deadline) {
  absl::StatusOr<AttentionMessage> message = co_await stream_.Receive(deadline);
  if (!message.ok()) co_return message.status();
  for (const internal::v1::Ended& ended : message->step().ended()) {
    co_return absl::InternalError(fmt::format("the attention worker ended a sequence: {} ({})",
                                              ended.message(), ended.reason()));
  }
  const Time now = loop_.Now();
  for (const internal::v1::GeneratedToken& token : message->step().tokens()) {
    const auto found = generations_.find(token.request_key());
    if (found == generations_.end()) continue;
    found->second.tokens.push_back(now);
    if (token.finish() == internal::v1::FINISH_REASON_UNSPECIFIED) continue;
    found->second.done = true;
    --live_;
  }
  free_slots_ = message->step().grants().free_slots();
  co_return message->step().tokens_size();
}

Task<absl::Status> GenerationClient::Reset() {
  for (const auto& [key, generation] : generations_) {
    if (generation.done) continue;
    GatewayMessage message;
    message.mutable_cancel()->set_request_key(key);
    CO_RETURN_IF_ERROR(stream_.Send(message));
  }
  while (free_slots_ < slots_) {
    absl::StatusOr<int64_t> tokens = co_await Receive(kNever);
    if (!tokens.ok()) co_return tokens.status();
  }
  generations_.clear();
  live_ = 0;
  co_return absl::OkStatus();
}

}  // namespace bottega
