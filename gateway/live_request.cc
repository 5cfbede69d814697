#include "gateway/live_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/base/reason.h"
#include "gateway/error_body.h"

namespace bottega::gateway {
namespace {

// What SubmitOf puts in the fields that only some workers know.
bool EditsLogits(const GenerateRequest& request, const ModelText& model) {
  return request.repetition_penalty.value_or(model.defaults.repetition_penalty) != 1 ||
         request.frequency_penalty != 0 || request.presence_penalty != 0 ||
         request.min_tokens > 0 || !request.logit_bias.empty() ||
         !request.allowed_token_ids.empty() || !request.bad_words.empty();
}

bool LimitsThinking(const PreparedRequest& prepared) {
  return prepared.request.thinking_budget && prepared.start != ReasoningParser::Start::kContent;
}

std::string Route(Api api) {
  return api == Api::kChat ? "/v1/chat/completions" : "/v1/completions";
}

}  // namespace

LiveRequest::LiveRequest(GatewayService& gateway, Api api, HttpRequest http,
                         std::shared_ptr<Reply> reply)
    : gateway_(gateway),
      api_(api),
      http_(std::move(http)),
      reply_(std::move(reply)),
      arrived_(gateway.context().loop.Now()),
      trace_key_(TraceKey(http_.request_id)),
      alive_(std::make_shared<Alive>(Alive{this})),
      events_(gateway.context().loop, limits::kRequestEventsMax),
      last_shown_(arrived_) {
  gateway_.AddEvents(&events_);
  Duration time = gateway_.config().request_deadline;
  if (http_.timeout_ms > 0) {
    const int64_t most_ms = std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
    time = std::chrono::milliseconds(std::min(http_.timeout_ms, most_ms));
  }
  deadline_ = arrived_ + time;
  Record(FlightKind::kArrived, 0, 0);
  Loop* loop = &gateway_.context().loop;
  reply_->OnGone([loop, weak = std::weak_ptr<Alive>(alive_)] {
    loop->Post([weak] {
      if (std::shared_ptr<Alive> alive = weak.lock()) alive->request->events_.Push({});
    });
  });
}

LiveRequest::~LiveRequest() {
  gateway_.RemoveEvents(&events_);
  for (Sequence& sequence : sequences_) {
    gateway_.workers().Forget(sequence.key, false);
    gateway_.metrics().token_log_bytes.Decrement(
        static_cast<double>(sequence.choice->log().size() * sizeof(int32_t)));
  }
  if (owns_id_) gateway_.ReturnId(id_);
  if (counted_running_) gateway_.metrics().requests_running.Decrement();
  if (counted_stream_) gateway_.metrics().open_streams.Decrement();
}

absl::Status LiveRequest::Admit() {
  std::optional<Gate::Pass> pass = gateway_.gate().Enter();
  if (!pass) return ShuttingDown();
  pass_.emplace(*std::move(pass));
  absl::StatusOr<Admission::Entry> entry = gateway_.admission().Enter();
  if (!entry.ok()) return entry.status();
  waiting_.emplace(*std::move(entry));
  return absl::OkStatus();
}

Task<absl::StatusOr<PreparedRequest>> LiveRequest::RenderAndTokenize() {
  // This request may be gone before the work is done; the gateway is not.
  absl::AnyInvocable<absl::StatusOr<PreparedRequest>()> work =
      [model = &gateway_.model(), config = &gateway_.config(), api = api_,
       body = std::move(http_.body), context = gateway_.context_tokens()] {
        return PrepareRequest(*model, *config, api, body, context);
      };
  absl::StatusOr<PreparedRequest> prepared =
      co_await gateway_.pool().Run(gateway_.context().loop, std::move(work));
  co_return prepared;
}

absl::Status LiveRequest::Begin(PreparedRequest prepared) {
  prepared_ = std::move(prepared);
  const GenerateRequest& request = prepared_.request;
  GatewayMetrics& metrics = gateway_.metrics();
  metrics.Stage("parse").Observe(prepared_.parse_seconds);
  metrics.Stage("render").Observe(prepared_.render_seconds);
  metrics.Stage("tokenize").Observe(prepared_.tokenize_seconds);
  if (!request.ignored_fields.empty()) {
    metrics.ignored_fields.Increment(static_cast<double>(request.ignored_fields.size()));
    for (const std::string& name : request.ignored_fields) {
      gateway_.context().log.Warning(
          fmt::format("request field `{}` is not known and was ignored", name.substr(0, 64)),
          http_.request_id);
    }
  }
  if (gateway_.quarantine().Holds(HashOf(prepared_), gateway_.context().loop.Now())) {
    return Quarantined();
  }
  const std::string name = request.request_id.empty() ? http_.request_id : request.request_id;
  id_ = (api_ == Api::kChat ? "chatcmpl-" : "cmpl-") + name;
  if (!request.request_id.empty()) {
    trace_key_ = TraceKey(name);
    Record(FlightKind::kArrived, 0, 0);
  }
  // Two requests may share the header's id (a client's retry); an id of the body is one request's.
  owns_id_ = gateway_.TakeId(id_);
  if (!owns_id_ && !request.request_id.empty()) {
    return MakeError(Reason::kRequestIdInUse, "a request with this request_id is running",
                     "request_id");
  }
  seed_ = request.seed ? *request.seed : gateway_.DrawSeed();
  MakeChoices();
  MakeWriter();
  Record(FlightKind::kPrepared, static_cast<uint64_t>(UsageSoFar().prompt_tokens),
         sequences_.size());
  return absl::OkStatus();
}

void LiveRequest::MakeChoices() {
  const GenerateRequest& request = prepared_.request;
  sequences_.reserve(prepared_.prompts.size() * request.n);  // places point into it
  for (size_t prompt = 0; prompt < prepared_.prompts.size(); ++prompt) {
    for (int i = 0; i < request.n; ++i) {
      ChoiceOptions options{.index = static_cast<int>(sequences_.size()),
                            .start = prepared_.start,
                            .stop = request.stop,
                            .include_stop = request.include_stop_in_output,
                            .skip_special_tokens = request.skip_special_tokens,
                            .min_tokens = request.min_tokens,
                            .keep_logprobs = request.logprobs,
                            .keep_ids = request.return_token_ids,
                            .eos_ids = gateway_.model().eos_ids,
                            .tools = {}};
      if (prepared_.reads_tool_calls) options.tools = ToolOptions(prompt, options.index);
      Sequence& sequence = sequences_.emplace_back();
      sequence.key = gateway_.NextRequestKey();
      sequence.prompt = prompt;
      sequence.choice_of_prompt = static_cast<uint32_t>(i);
      sequence.choice = std::make_unique<Choice>(*gateway_.model().text, std::move(options));
    }
  }
  unfinished_ = sequences_.size();
}

ToolCallParser::Options LiveRequest::ToolOptions(size_t prompt, int choice) const {
  const GenerateRequest& request = prepared_.request;
  ToolCallParser::Options options{.tools = {},
                                  .id_prefix = CallIdPrefix(id_, prepared_.prompts[prompt], choice),
                                  .parallel = request.parallel_tool_calls};
  for (const Json& tool : request.tools) {
    options.tools.push_back(tool["function"]["name"].get<std::string>());
  }
  return options;
}

void LiveRequest::MakeWriter() {
  const GenerateRequest& request = prepared_.request;
  FormatOptions format{.reasoning_field = gateway_.config().reasoning_field,
                       .show_reasoning = request.include_reasoning,
                       .logprobs = request.logprobs,
                       .top_logprobs = request.top_logprobs,
                       .token_ids = request.return_token_ids,
                       .names = gateway_.model().text.get(),
                       .prompt_ids = {},
                       .choices_per_prompt = request.n,
                       .echoes = prepared_.echoes};
  if (request.return_token_ids) format.prompt_ids = prepared_.prompts;
  WriterOptions options{
      .reply = reply_,
      .format = api_ == Api::kChat ? MakeChatFormat(std::move(format))
                                   : MakeCompletionFormat(std::move(format)),
      .request_id = http_.request_id,
      .choices = static_cast<int>(sequences_.size()),
      .overload_status = gateway_.config().overload_status,
      .include_usage = request.include_usage,
      .continuous_usage = request.continuous_usage,
  };
  writer_ =
      request.stream ? MakeStreamWriter(std::move(options)) : MakeWholeWriter(std::move(options));
  writer_->head.id = id_;
  writer_->head.model = gateway_.model().name;
  writer_->head.created = std::chrono::duration_cast<std::chrono::seconds>(
                              std::chrono::system_clock::now().time_since_epoch())
                              .count();
}

void LiveRequest::RouteAll() {
  for (size_t i = 0; i < sequences_.size(); ++i) Route(static_cast<int>(i), false);
}

void LiveRequest::Route(int index, bool at_head) {
  Sequence& sequence = sequences_[index];
  sequence.running = false;
  Admission::Wish wish;
  wish.need = {.tokens = prepared_.prompts[sequence.prompt].size() + sequence.choice->log().size(),
               .pinned = pinned_,
               .features = {.edits_logits = EditsLogits(prepared_.request, gateway_.model()),
                            .limits_thinking = LimitsThinking(prepared_)}};
  wish.priority = prepared_.request.priority;
  if (sequence.waiting_since == kNever) sequence.waiting_since = gateway_.context().loop.Now();
  wish.since = sequence.waiting_since;
  wish.place = [this, index](MemberId worker) { Submit(index, worker); };
  wish.refuse = [this, index](absl::Status why) {
    RequestEvent event{.kind = RequestEvent::Kind::kRefused};
    event.sequence = index;
    event.status = std::move(why);
    events_.Push(std::move(event));
  };
  sequence.place = gateway_.admission().Ask(std::move(wish), at_head);
}

void LiveRequest::Submit(int index, MemberId worker) {
  // Past its deadline it is not executed, even if its turn comes before its end is noticed.
  if (gateway_.context().loop.Now() >= deadline_) return;
  Sequence& sequence = sequences_[index];
  const std::optional<AnswerIdentity> identity = gateway_.workers().IdentityOf(worker);
  absl::Status sent = absl::UnavailableError("");
  // Another choice of this request may have been pinned since the wish was made.
  if (identity && (!pinned_ || *pinned_ == *identity)) {
    sent = gateway_.workers().Submit(worker, SubmitOf(sequence), &events_, index);
  }
  if (!sent.ok()) {
    gateway_.workers().Rest(worker);
    Route(index, true);
    return;
  }
  sequence.running = true;
  Record(FlightKind::kPlaced, static_cast<uint64_t>(index), sequence.choice->log().owner_epoch(),
         worker);
  if (!pinned_) Pin(worker);
  CountRunning();
}

void LiveRequest::Pin(MemberId worker) {
  pinned_ = gateway_.workers().IdentityOf(worker);
  writer_->head.system_fingerprint =
      fmt::format("bottega-{}-{}", pinned_->model_digest.substr(0, 16), pinned_->numerics_id);
}

void LiveRequest::Record(FlightKind kind, uint64_t a, uint64_t b, MemberId worker) const {
  Note(gateway_.context().flight,
       {.kind = kind, .key = trace_key_, .peer = worker.value, .a = a, .b = b});
}

void LiveRequest::CountRunning() {
  if (!counted_running_) {
    counted_running_ = true;
    gateway_.metrics().requests_running.Increment();
  }
  if (!waiting_) return;
  if (!std::ranges::all_of(sequences_, [](const Sequence& s) { return s.running; })) return;
  waiting_.reset();
  gateway_.metrics().Stage("admit").Observe(Seconds(gateway_.context().loop.Now() - arrived_));
}

internal::v1::Submit LiveRequest::SubmitOf(const Sequence& sequence) const {
  const GenerateRequest& request = prepared_.request;
  const ModelText& model = gateway_.model();
  const std::vector<int32_t>& prompt = prepared_.prompts[sequence.prompt];
  const TokenLog& log = sequence.choice->log();
  internal::v1::Submit submit;
  submit.set_request_key(sequence.key);
  submit.set_owner_epoch(log.owner_epoch());
  submit.set_trace_key(trace_key_);
  submit.mutable_prompt_ids()->Add(prompt.begin(), prompt.end());
  submit.mutable_resume_tokens()->Add(log.tokens().begin(), log.tokens().end());
  internal::v1::Sampling* sampling = submit.mutable_sampling();
  sampling->set_temperature(request.temperature.value_or(model.defaults.temperature));
  sampling->set_top_p(request.top_p.value_or(model.defaults.top_p));
  sampling->set_min_p(request.min_p.value_or(model.defaults.min_p));
  const int64_t top_k = request.top_k.value_or(model.defaults.top_k);
  sampling->set_top_k(static_cast<int32_t>(std::clamp<int64_t>(top_k, 0, model.vocab_size)));
  sampling->set_seed(seed_);
  sampling->set_choice(sequence.choice_of_prompt);
  PutLogitEdits(*sampling);
  submit.set_choices(static_cast<uint32_t>(request.n));
  submit.set_max_tokens(
      static_cast<uint32_t>(OutputTokens(request, gateway_.context_tokens(), prompt.size())));
  submit.mutable_stop_token_ids()->Add(request.stop_token_ids.begin(),
                                       request.stop_token_ids.end());
  submit.set_ignore_eos(request.ignore_eos);
  submit.set_cache_salt(request.cache_salt);
  submit.set_priority(request.priority);
  submit.set_min_tokens(static_cast<uint32_t>(request.min_tokens));
  submit.set_top_logprobs(request.logprobs ? request.top_logprobs : -1);
  const Duration left = deadline_ - gateway_.context().loop.Now();
  submit.set_suspect(sequence.suspect);
  submit.set_remaining_us(
      std::max<int64_t>(1, std::chrono::duration_cast<std::chrono::microseconds>(left).count()));
  return submit;
}

void LiveRequest::PutLogitEdits(internal::v1::Sampling& sampling) const {
  const GenerateRequest& request = prepared_.request;
  sampling.set_repetition_penalty(
      request.repetition_penalty.value_or(gateway_.model().defaults.repetition_penalty));
  sampling.set_frequency_penalty(request.frequency_penalty);
  sampling.set_presence_penalty(request.presence_penalty);
  for (const auto& [id, bias] : request.logit_bias) {
    internal::v1::LogitBias* entry = sampling.add_logit_bias();
    entry->set_id(id);
    entry->set_bias(bias);
  }
  sampling.mutable_allowed_token_ids()->Add(request.allowed_token_ids.begin(),
                                            request.allowed_token_ids.end());
  for (const std::vector<int32_t>& word : prepared_.bad_words) {
    sampling.add_bad_words()->mutable_ids()->Add(word.begin(), word.end());
  }
  if (!LimitsThinking(prepared_)) return;
  const GatewayText& text = *gateway_.model().text;
  internal::v1::ThinkingBudget& thinking = *sampling.mutable_thinking();
  thinking.set_tokens(static_cast<uint32_t>(*request.thinking_budget));
  thinking.set_begun(prepared_.start == ReasoningParser::Start::kReasoning);
  thinking.set_open_id(*text.IdOf(kThinkOpen));
  thinking.set_close_id(*text.IdOf(kThinkClose));
}

Usage LiveRequest::UsageSoFar() const {
  Usage usage;
  for (const std::vector<int32_t>& ids : prepared_.prompts) {
    usage.prompt_tokens += static_cast<int64_t>(ids.size());
  }
  for (const Sequence& sequence : sequences_) {
    if (sequence.choice_of_prompt == 0) usage.cached_tokens += sequence.cached;  // as it is counted
    usage.completion_tokens += static_cast<int64_t>(sequence.choice->log().size());
    usage.reasoning_tokens += sequence.choice->reasoning_tokens();
  }
  return usage;
}

void LiveRequest::Finish() {
  const Usage usage = UsageSoFar();
  writer_->End(usage);
  GatewayMetrics& metrics = gateway_.metrics();
  metrics.prompt_tokens.Increment(static_cast<double>(usage.prompt_tokens));
  metrics.reasoning_tokens.Increment(static_cast<double>(usage.reasoning_tokens));
  metrics.request_prompt_tokens.Observe(static_cast<double>(usage.prompt_tokens));
  metrics.request_generation_tokens.Observe(static_cast<double>(usage.completion_tokens));
  metrics.request_duration.Observe(Seconds(gateway_.context().loop.Now() - arrived_));
  Log(200, absl::OkStatus());
}

void LiveRequest::Fail(const absl::Status& why) {
  for (Sequence& sequence : sequences_) {
    gateway_.workers().Forget(sequence.key, true);
    sequence.running = false;
    sequence.place.Leave();
  }
  const ReasonRow& row = RowOf(ReasonOf(why));
  GatewayMetrics& metrics = gateway_.metrics();
  if (row.reason == Reason::kCancelled) {
    metrics.disconnects.Increment();
  } else if (writer_ != nullptr && writer_->begun()) {
    metrics.StreamError(std::string(row.name));
  } else {
    metrics.Rejected(std::string(row.name));
  }
  if (row.reason == Reason::kCancelled) {
    reply_->Cut();
  } else if (writer_ != nullptr) {
    writer_->Fail(why);
  } else {
    ReplyError(*reply_, why, http_.request_id, gateway_.config().overload_status);
  }
  Log(row.http_status, why);
}

void LiveRequest::Log(int code, const absl::Status& why) {
  gateway_.metrics().Request(bottega::gateway::Route(api_), code);
  const Usage usage = UsageSoFar();
  Record(FlightKind::kFinished, static_cast<uint64_t>(code),
         static_cast<uint64_t>(usage.completion_tokens));
  std::string line = fmt::format("{} {} {} ms, {} + {} tokens", bottega::gateway::Route(api_), code,
                                 std::chrono::duration_cast<std::chrono::milliseconds>(
                                     gateway_.context().loop.Now() - arrived_)
                                     .count(),
                                 usage.prompt_tokens, usage.completion_tokens);
  if (!sequences_.empty() && !prepared_.request.seed) line += fmt::format(", seed {}", seed_);
  // Refusals of a client's own making are told by their name only: messages may quote the request.
  if (!why.ok()) line += fmt::format(", {}", RowOf(ReasonOf(why)).name);
  gateway_.context().log.Info(line, http_.request_id);
}

}  // namespace bottega::gateway
