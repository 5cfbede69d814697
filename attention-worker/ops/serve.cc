#include "attention-worker/ops/serve.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>

#include "attention-worker/attention_server.h"
#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega {
namespace {

using internal::v1::AttentionMessage;
using internal::v1::GatewayMessage;
constexpr Duration kHelloTimeout = std::chrono::seconds(5);

absl::Status Invalid(std::string message) { return MakeError(Reason::kInvalidValue, message); }

absl::Status CheckIds(const google::protobuf::RepeatedField<int32_t>& ids, int32_t vocab_size,
                      const char* field) {
  for (int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return Invalid(fmt::format("{}: token id {} is not in 0..{}", field, id, vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

internal::v1::FinishReason ToProto(Finish finish) {
  switch (finish) {
    case Finish::kNone:
      return internal::v1::FINISH_REASON_UNSPECIFIED;
    case Finish::kStop:
      return internal::v1::FINISH_REASON_STOP;
    case Finish::kLength:
      return internal::v1::FINISH_REASON_LENGTH;
    case Finish::kError:
      return internal::v1::FINISH_REASON_ERROR;
    case Finish::kBusy:
      return internal::v1::FINISH_REASON_BUSY;
  }
  return internal::v1::FINISH_REASON_UNSPECIFIED;
}

bool Ascends(const google::protobuf::RepeatedField<int32_t>& ids) {
  return std::adjacent_find(ids.begin(), ids.end(), std::greater_equal<>()) == ids.end();
}

std::vector<int32_t> ToVector(const google::protobuf::RepeatedField<int32_t>& ids) {
  return {ids.begin(), ids.end()};
}

absl::Status ReadLogitBias(const internal::v1::Sampling& sampling, int32_t vocab_size,
                           std::vector<LogitBias>& all) {
  if (sampling.logit_bias_size() > static_cast<int>(limits::kLogitBiasMax)) {
    return Invalid(fmt::format("at most {} entries of logit_bias", limits::kLogitBiasMax));
  }
  for (const internal::v1::LogitBias& entry : sampling.logit_bias()) {
    const int32_t least = all.empty() ? 0 : all.back().token + 1;
    if (entry.id() < least || entry.id() >= vocab_size) {
      return Invalid(fmt::format("logit_bias: token id {} is not in {}..{}, ascending", entry.id(),
                                 least, vocab_size - 1));
    }
    if (!(std::abs(entry.bias()) <= limits::kLogitBiasMost)) {  // NaN too
      return Invalid(fmt::format("logit_bias is not in -{0}..{0}", limits::kLogitBiasMost));
    }
    all.push_back({.token = entry.id(), .bias = static_cast<float>(entry.bias())});
  }
  return absl::OkStatus();
}

absl::Status ReadBadWords(const internal::v1::Sampling& sampling, int32_t vocab_size,
                          std::vector<std::vector<int32_t>>& words) {
  if (sampling.bad_words_size() > static_cast<int>(2 * limits::kBadWordsMax)) {
    return Invalid(fmt::format("at most {} bad_words", 2 * limits::kBadWordsMax));
  }
  for (const internal::v1::BadWord& word : sampling.bad_words()) {
    if (word.ids().empty() || word.ids_size() > static_cast<int>(limits::kBadWordTokensMax)) {
      return Invalid(fmt::format("bad_words are of 1 to {} tokens", limits::kBadWordTokensMax));
    }
    RETURN_IF_ERROR(CheckIds(word.ids(), vocab_size, "bad_words"));
    words.push_back(ToVector(word.ids()));
  }
  return absl::OkStatus();
}

absl::StatusOr<ThinkingBudget> BudgetOf(const internal::v1::ThinkingBudget& sent,
                                        int32_t vocab_size) {
  const auto known = [&](int32_t id) { return id >= 0 && id < vocab_size; };
  if (!known(sent.close_id()) || !known(sent.open_id())) {
    return Invalid(fmt::format("thinking: token ids are not in 0..{}", vocab_size - 1));
  }
  ThinkingBudget budget{.tokens = sent.tokens(), .close_id = sent.close_id()};
  if (!sent.begun()) budget.open_id = sent.open_id();
  return budget;
}

absl::StatusOr<LogitRules> RulesOf(const internal::v1::Sampling& sampling, int32_t vocab_size) {
  const double repetition = sampling.repetition_penalty() == 0 ? 1 : sampling.repetition_penalty();
  const bool in_range = repetition > 0 && repetition <= 10 &&
                        std::abs(sampling.frequency_penalty()) <= 2 &&
                        std::abs(sampling.presence_penalty()) <= 2;
  if (!in_range) return Invalid("penalties are out of range");
  RETURN_IF_ERROR(CheckIds(sampling.allowed_token_ids(), vocab_size, "allowed_token_ids"));
  if (!Ascends(sampling.allowed_token_ids())) return Invalid("allowed_token_ids must ascend");
  LogitRules rules{
      // As f32 it may be none: below its least, what it divides is past its range anyway.
      .repetition_penalty =
          std::max(static_cast<float>(repetition), std::numeric_limits<float>::min()),
      .frequency_penalty = static_cast<float>(sampling.frequency_penalty()),
      .presence_penalty = static_cast<float>(sampling.presence_penalty()),
      .bias = {},
      .allowed_ids = ToVector(sampling.allowed_token_ids()),
      .bad_words = {},
      .thinking = {}};
  RETURN_IF_ERROR(ReadLogitBias(sampling, vocab_size, rules.bias));
  RETURN_IF_ERROR(ReadBadWords(sampling, vocab_size, rules.bad_words));
  if (sampling.has_thinking()) {
    ASSIGN_OR_RETURN(rules.thinking, BudgetOf(sampling.thinking(), vocab_size));
  }
  return rules;
}

}  // namespace

absl::StatusOr<SequenceSpec> SpecOf(const internal::v1::Submit& submit, OwnerId owner,
                                    int32_t vocab_size, Time now) {
  RETURN_IF_ERROR(CheckIds(submit.prompt_ids(), vocab_size, "prompt_ids"));
  RETURN_IF_ERROR(CheckIds(submit.resume_tokens(), vocab_size, "resume_tokens"));
  RETURN_IF_ERROR(CheckIds(submit.stop_token_ids(), vocab_size, "stop_token_ids"));
  if (submit.stop_token_ids_size() > static_cast<int>(limits::kStopIdsMax)) {
    return Invalid(fmt::format("at most {} stop_token_ids", limits::kStopIdsMax));
  }
  if (submit.top_logprobs() < -1 || submit.top_logprobs() > limits::kTopLogprobsMax) {
    return Invalid(fmt::format("top_logprobs is not in -1..{}", limits::kTopLogprobsMax));
  }
  if (submit.cache_salt().size() > limits::kCacheSaltCharsMax) {
    return Invalid(fmt::format("cache_salt has more than {} bytes", limits::kCacheSaltCharsMax));
  }
  const internal::v1::Sampling& s = submit.sampling();
  const bool in_range = s.temperature() >= 0 && s.temperature() <= 2 && s.top_p() > 0 &&
                        s.top_p() <= 1 && s.min_p() >= 0 && s.min_p() <= 1;
  if (!in_range) return Invalid("sampling values are out of range");
  ASSIGN_OR_RETURN(LogitRules rules, RulesOf(s, vocab_size));
  return SequenceSpec{.key = {.owner = owner, .request_key = submit.request_key()},
                      .owner_epoch = submit.owner_epoch(),
                      .prompt_ids = ToVector(submit.prompt_ids()),
                      .resume_tokens = ToVector(submit.resume_tokens()),
                      .sampling = {.temperature = static_cast<float>(s.temperature()),
                                   .top_k = s.top_k(),
                                   .top_p = static_cast<float>(s.top_p()),
                                   .min_p = static_cast<float>(s.min_p()),
                                   .seed = static_cast<uint64_t>(s.seed()),
                                   .choice = s.choice()},
                      .rules = std::move(rules),
                      .max_tokens = submit.max_tokens(),
                      .min_tokens = submit.min_tokens(),
                      .stop_token_ids = ToVector(submit.stop_token_ids()),
                      .ignore_eos = submit.ignore_eos(),
                      .top_logprobs = submit.top_logprobs(),
                      .trace_key = submit.trace_key(),
                      .choices = std::max(1u, submit.choices()),
                      .deadline = submit.remaining_us() == 0
                                      ? kNever
                                      : now + std::chrono::microseconds(submit.remaining_us()),
                      .priority = submit.priority(),
                      .salt = SaltOf(submit.cache_salt()),
                      .suspect = submit.suspect()};
}

internal::v1::GeneratedToken ToProto(const TokenEvent& event) {
  internal::v1::GeneratedToken token;
  token.set_request_key(event.key.request_key);
  token.set_owner_epoch(event.owner_epoch);
  token.set_index(event.index);
  token.set_id(event.id);
  token.set_logprob(event.logprob);
  for (const TokenLogprob& top : event.top) {
    internal::v1::TopLogprob* entry = token.add_top();
    entry->set_id(top.token);
    entry->set_logprob(top.logprob);
  }
  token.set_finish(ToProto(event.finish));
  if (event.index == 0) token.set_cached_tokens(event.cached);
  return token;
}

internal::v1::Ended ToProto(const EndEvent& event) {
  internal::v1::Ended ended;
  ended.set_request_key(event.key.request_key);
  ended.set_owner_epoch(event.owner_epoch);
  ended.set_finish(ToProto(event.finish));
  ended.set_reason(std::string(RowOf(ReasonOf(event.why)).name));
  ended.set_message(std::string(event.why.message()));
  return ended;
}

namespace {

// Over-granting is normal with several gateways (BUSY: queue it again); all else is the request's
// end.
AttentionMessage Refusal(const internal::v1::Submit& submit, const absl::Status& why,
                         const internal::v1::Grants& grants) {
  const bool busy = ReasonOf(why) == Reason::kQueueFull;
  const EndEvent event{.key = {.owner = 0, .request_key = submit.request_key()},
                       .owner_epoch = submit.owner_epoch(),
                       .finish = busy ? Finish::kBusy : Finish::kError,
                       .why = why};
  AttentionMessage message;
  *message.mutable_step()->add_ended() = ToProto(event);
  *message.mutable_step()->mutable_grants() = grants;
  return message;
}

}  // namespace

Task<void> ServeGateway(AttentionServer* server, std::unique_ptr<ByteStream> bytes) {
  AttentionServer::GatewayStream stream(std::move(bytes));
  Loop& loop = server->context_.loop;
  const Time hello_deadline = loop.Now() + kHelloTimeout;
  absl::StatusOr<GatewayMessage> first = co_await stream.Receive(hello_deadline);
  if (!first.ok() || !first->has_hello()) {
    stream.Close(absl::InvalidArgumentError("the first message must be a hello"));
    co_return;
  }
  AttentionMessage hello;
  hello.mutable_hello()->set_incarnation(server->context_.incarnation.value);
  hello.mutable_hello()->set_name(server->context_.name);
  hello.mutable_hello()->set_model_digest(server->model_->digest());
  hello.mutable_hello()->set_numerics_id(server->numerics_id());
  hello.mutable_hello()->set_max_model_len(static_cast<uint32_t>(server->max_model_len()));
  hello.mutable_hello()->set_edits_logits(true);
  hello.mutable_hello()->set_limits_thinking(true);
  const AttentionServer::Gateway gateway{&stream};
  *hello.mutable_hello()->mutable_grants() = server->GrantsNow(gateway);
  if (!stream.Send(hello).ok()) co_return;

  const OwnerId owner = server->next_owner_++;
  server->gateways_[owner] = gateway;
  // Also when the frame is destroyed by a kill: nobody may keep a pointer to the stream.
  struct Leave {
    AttentionServer* server;
    OwnerId owner;
    ~Leave() { server->gateways_.erase(owner); }
  } leave{server, owner};
  while (true) {
    absl::StatusOr<GatewayMessage> message = co_await stream.Receive();
    if (!message.ok()) break;
    if (message->has_submit()) {
      const internal::v1::Submit& submit = message->submit();
      ++server->gateways_.at(owner).submits_seen;
      absl::StatusOr<SequenceSpec> spec =
          SpecOf(submit, owner, server->model_->config().vocab_size, loop.Now());
      const absl::Status taken =
          spec.ok() ? server->engine_->Submit(*std::move(spec)) : spec.status();
      if (taken.ok()) continue;
      const auto grants = server->GrantsNow(server->gateways_.at(owner));
      if (!stream.Send(Refusal(submit, taken, grants)).ok()) break;
    } else if (message->has_start_trial()) {
      server->engine_->StartTrial(
          {.owner = owner, .request_key = message->start_trial().request_key()});
    } else if (message->has_cancel()) {
      server->engine_->Cancel({.owner = owner, .request_key = message->cancel().request_key()});
    }
  }
  server->engine_->CancelOwner(owner);
}

}  // namespace bottega
