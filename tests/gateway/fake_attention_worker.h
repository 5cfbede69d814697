#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bottega/internal/v1/attention.pb.h"
#include "core/base/check.h"
#include "core/base/loop.h"
#include "core/cluster/table.h"
#include "core/service/network.h"

namespace bottega::gateway {

// An attention worker that writes what its script says, one token of every live sequence a step.
// Loop thread only.
class FakeAttentionWorker {
 public:
  // The token at `index`, of a sequence with this submit; also says how it ends.
  struct Next {
    int32_t id = 0;
    bool last = false;
  };
  using Script = std::function<Next(const internal::v1::Submit&, uint32_t index)>;

  struct Options {
    MemberId id{1};
    NodeId node{101};
    std::string address = "attention-1";
    uint32_t slots = 8;
    uint32_t blocks = 1000;
    uint32_t context = 4096;
    std::string digest = "0123456789abcdef0123";
    std::string numerics_id = "1-bf16-bf16";
    bool knows_new_fields = true;  // false: of a version without edits of the logits or budgets
  };

  FakeAttentionWorker(Loop& loop, Network& network, Options options, Script script)
      : loop_(loop), network_(network), options_(std::move(options)), script_(std::move(script)) {
    absl::StatusOr<std::string> address = network_.Serve(
        options_.node, options_.address,
        {{"/bottega.internal.v1.Attention/Serve",
          [this](std::unique_ptr<ByteStream> bytes) { return Serve(this, std::move(bytes)); }}});
    CHECK(address.ok());
  }

  Member AsMember() const {
    return Member{.id = options_.id,
                  .incarnation = incarnation(),
                  .role = Role::kAttention,
                  .name = options_.address,
                  .control_address = options_.address,
                  .admin_address = "",
                  .device = "",
                  .state = MemberState::kActive,
                  .numerics_id = options_.numerics_id};
  }

  // No sequence gets past this many tokens until it is raised.
  uint32_t hold_at = UINT32_MAX;
  // The next submits are refused as over-granted.
  int busy = 0;
  // Ends every live sequence with this reason at the next step.
  std::string fail_with;
  Duration step_time{};
  // What it says that it had of each prompt.
  uint32_t cached_tokens = 0;

  std::vector<internal::v1::Submit> submits;
  std::vector<uint64_t> cancels;
  uint64_t tokens = 0;
  uint64_t trials = 0;
  uint64_t refused = 0;  // submits for which there was no room
  size_t live() const { return live_.size(); }
  // Called after each change of the above.
  std::function<void()> on_change = [] {};

  Incarnation incarnation() const { return Incarnation{1000 * (deaths + 1) + options_.id.value}; }
  // Dies of a sequence that gets here, and is at once started anew; tell the gateway of the table
  // then.
  std::function<bool(const internal::v1::Submit&)> dies_of;
  std::function<void()> on_death = [] {};
  uint64_t deaths = 0;
  // Says nothing, as a process that is stopped.
  bool stopped = false;

  // The stream breaks, as when a process dies; a new connection is accepted.
  void Break() {
    if (stream_ != nullptr) stream_->Close(absl::UnavailableError("killed"));
    live_.clear();
  }

 private:
  using Stream = MessageStream<internal::v1::AttentionMessage, internal::v1::GatewayMessage>;

  static Task<void> Serve(FakeAttentionWorker* self, std::unique_ptr<ByteStream> bytes) {
    auto stream = std::make_shared<Stream>(std::move(bytes));
    self->stream_ = stream;
    self->live_.clear();
    self->waiting_.clear();
    self->trial_.reset();
    self->seen_ = 0;
    internal::v1::AttentionMessage message;
    auto* hello = message.mutable_hello();
    hello->set_incarnation(self->incarnation().value);
    hello->set_model_digest(self->options_.digest);
    hello->set_numerics_id(self->options_.numerics_id);
    hello->set_max_model_len(self->options_.context);
    hello->set_edits_logits(self->options_.knows_new_fields);
    hello->set_limits_thinking(self->options_.knows_new_fields);
    self->PutGrants(*hello->mutable_grants());
    (void)stream->Send(message);
    self->loop_.Spawn(self->options_.node, Steps(self, stream));
    while (true) {
      absl::StatusOr<internal::v1::GatewayMessage> received = co_await stream->Receive();
      if (!received.ok()) break;
      if (received->has_submit()) self->OnSubmit(*stream, received->submit());
      if (received->has_start_trial()) self->StartTrial(received->start_trial().request_key());
      if (received->has_cancel()) {
        self->waiting_.erase(received->cancel().request_key());
        if (self->trial_ == received->cancel().request_key()) self->trial_.reset();
        self->cancels.push_back(received->cancel().request_key());
        self->live_.erase(received->cancel().request_key());
      }
      self->on_change();
    }
    if (self->stream_ == stream) self->stream_ = nullptr;
  }

  void OnSubmit(Stream& stream, const internal::v1::Submit& submit) {
    submits.push_back(submit);
    ++seen_;
    if (busy == 0 && live_.size() < options_.slots) {
      if (submit.suspect()) {
        waiting_[submit.request_key()] = submit;
        return Offer(stream);
      }
      live_[submit.request_key()] = submit;
      return;
    }
    ++refused;
    if (busy > 0) --busy;
    internal::v1::AttentionMessage message;
    auto* ended = message.mutable_step()->add_ended();
    ended->set_request_key(submit.request_key());
    ended->set_owner_epoch(submit.owner_epoch());
    ended->set_finish(internal::v1::FINISH_REASON_BUSY);
    PutGrants(*message.mutable_step()->mutable_grants());
    (void)stream.Send(message);
  }

  // One suspect at a time, until it has got on.
  void Offer(Stream& stream) {
    if (trial_ || waiting_.empty()) return;
    const internal::v1::Submit& submit = waiting_.begin()->second;
    trial_ = submit.request_key();
    internal::v1::AttentionMessage message;
    message.mutable_trial()->set_request_key(submit.request_key());
    message.mutable_trial()->set_owner_epoch(submit.owner_epoch());
    (void)stream.Send(message);
  }
  void StartTrial(uint64_t key) {
    auto found = waiting_.find(key);
    if (found == waiting_.end()) return;
    live_[key] = found->second;
    waiting_.erase(found);
    ++trials;
  }

  static Task<void> Steps(FakeAttentionWorker* self, std::shared_ptr<Stream> stream) {
    for (uint64_t turn = 0; self->stream_ == stream; ++turn) {
      if (!self->stopped) self->Step(*stream, turn % 50 == 0);
      co_await self->loop_.Sleep(
          std::max<Duration>(self->step_time, std::chrono::microseconds(200)));
    }
  }

  // True: it is dead.
  bool Dies() {
    if (!dies_of || std::none_of(live_.begin(), live_.end(),
                                 [this](const auto& entry) { return dies_of(entry.second); })) {
      return false;
    }
    ++deaths;
    waiting_.clear();
    Break();
    stream_ = nullptr;
    on_death();
    return true;
  }

  void Step(Stream& stream, bool alive) {
    if (Dies()) return;
    Offer(stream);
    internal::v1::AttentionMessage message;
    auto* step = message.mutable_step();
    for (auto it = live_.begin(); it != live_.end();) {
      internal::v1::Submit& submit = it->second;
      if (!fail_with.empty()) {
        auto* ended = step->add_ended();
        ended->set_request_key(submit.request_key());
        ended->set_owner_epoch(submit.owner_epoch());
        ended->set_finish(internal::v1::FINISH_REASON_ERROR);
        ended->set_reason(fail_with);
        ended->set_message("the worker says so");
        it = live_.erase(it);
        continue;
      }
      const auto index = static_cast<uint32_t>(submit.resume_tokens_size());
      if (index >= hold_at) {
        ++it;
        continue;
      }
      it = AddToken(*step, it, index) ? live_.erase(it) : std::next(it);
    }
    const bool any = step->tokens_size() > 0 || step->ended_size() > 0;
    if (!any && !(alive && live() > 0)) return;
    PutGrants(*step->mutable_grants());
    (void)stream.Send(message);
    if (any) on_change();
  }

  // True: it was the last one.
  bool AddToken(internal::v1::StepOutput& step,
                std::map<uint64_t, internal::v1::Submit>::iterator it, uint32_t index) {
    internal::v1::Submit& submit = it->second;
    const Next next = script_(submit, index);
    auto* token = step.add_tokens();
    token->set_request_key(submit.request_key());
    token->set_owner_epoch(submit.owner_epoch());
    token->set_index(index);
    token->set_id(next.id);
    if (index == 0) token->set_cached_tokens(cached_tokens);
    token->set_logprob(-0.1f * static_cast<float>(index + 1));
    for (int i = 0; i < submit.top_logprobs(); ++i) {
      auto* top = token->add_top();
      top->set_id(next.id + i);
      top->set_logprob(-0.1f * static_cast<float>(index + 1) - static_cast<float>(i));
    }
    submit.add_resume_tokens(next.id);
    if (trial_ == submit.request_key()) trial_.reset();
    ++tokens;
    if (next.last) {
      token->set_finish(internal::v1::FINISH_REASON_STOP);
    } else if (index + 1 == submit.max_tokens()) {
      token->set_finish(internal::v1::FINISH_REASON_LENGTH);
    }
    return token->finish() != internal::v1::FINISH_REASON_UNSPECIFIED;
  }

  void PutGrants(internal::v1::Grants& grants) const {
    grants.set_free_slots(options_.slots - static_cast<uint32_t>(live_.size()));
    grants.set_free_kv_blocks(options_.blocks);
    grants.set_kv_block_tokens(16);
    grants.set_submits_seen(seen_);
  }

  Loop& loop_;
  Network& network_;
  const Options options_;
  const Script script_;
  std::shared_ptr<Stream> stream_;  // the newest
  std::map<uint64_t, internal::v1::Submit> live_;
  std::map<uint64_t, internal::v1::Submit> waiting_;  // suspects whose trial has not begun
  std::optional<uint64_t> trial_;
  uint64_t seen_ = 0;  // submits of this stream
};

}  // namespace bottega::gateway
