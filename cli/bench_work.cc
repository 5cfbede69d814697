#include "cli/bench_work.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "cli/machine_rates.h"
#include "core/base/status.h"

namespace bottega {

std::string Work::Name() const {
  if (kind == Kind::kPrefill) return fmt::format("prefill {}", prompt);
  const std::string name = fmt::format("decode {}", sequences);
  return prompt == kDecodePrompt ? name : fmt::format("{} at {}", name, prompt);
}

// Prompts and decode take turns, so the first sequence gets a token for every step that the other
// prompts still need, before the timed ones.
int64_t Work::TokensOfASequence(int64_t chunk) const {
  if (kind == Kind::kPrefill) return prompt + 1;
  return prompt + sequences * (prompt / chunk + 1) + steps + 1;
}

Task<MachineRates> MeasureBesideLoop(Loop* loop, Cpu cpu) {
  MachineRates rates;
  Slot done(*loop);
  std::jthread measuring([&rates, &done, loop, cpu] {
    rates = MeasureMachineRates(cpu);
    loop->Post([&done] { done.Wake(); });
  });
  absl::Status woken = co_await done.Wait();
  co_return rates;
}

BenchRunner::BenchRunner(Loop& loop, GenerationClient& client, const StepCosts& costs,
                         const ExpertStats& experts, Cpu cpu, Options options)
    : loop_(loop),
      client_(client),
      costs_(costs),
      experts_(experts),
      cpu_(cpu),
      options_(options),
      random_(options.seed) {}

GenerationRequest BenchRunner::RandomRequest(int64_t prompt, int64_t tokens) {
  GenerationRequest request{.tokens = tokens, .temperature = options_.temperature};
  for (int64_t i = 0; i < prompt; ++i) {
    const double id = UniformFraction(random_) * static_cast<double>(options_.vocab_size);
    request.prompt.push_back(static_cast<int32_t>(id));
  }
  return request;
}

Task<absl::StatusOr<Sample>> BenchRunner::Run(Work work) {
  Sample sample;
  co_await BeginRates();
  absl::Status measured;
  if (work.kind == Work::Kind::kPrefill) {
    measured = co_await Prefill(work, &sample);
  } else {
    measured = co_await Decode(work, &sample);
  }
  if (!measured.ok()) co_return measured;
  absl::Status reset = co_await client_.Reset();
  if (!reset.ok()) co_return reset;
  sample.rates = co_await EndRates();
  sample.floor_s = FloorSeconds(sample.cost, sample.rates) * sample.steps;
  co_return sample;
}

// What one work ends with the next one begins with.
Task<void> BenchRunner::BeginRates() {
  if (!rates_) rates_ = co_await MeasureBesideLoop(&loop_, cpu_);
}

Task<MachineRates> BenchRunner::EndRates() {
  const MachineRates before = *rates_;
  const MachineRates after = co_await MeasureBesideLoop(&loop_, cpu_);
  rates_ = after;
  co_return MachineRates{
      .read_bytes_per_s = std::max(before.read_bytes_per_s, after.read_bytes_per_s),
      .f32_ops_per_s = std::max(before.f32_ops_per_s, after.f32_ops_per_s),
      .int8_ops_per_s = std::max(before.int8_ops_per_s, after.int8_ops_per_s)};
}

Task<absl::Status> BenchRunner::Prefill(Work work, Sample* sample) {
  const uint64_t key = next_key_++;
  CO_RETURN_IF_ERROR(client_.Submit(key, RandomRequest(work.prompt, 1)));
  const Generation& generation = client_.at(key);
  while (!generation.done) {
    absl::StatusOr<int64_t> tokens = co_await client_.Receive(kNever);
    if (!tokens.ok()) co_return tokens.status();
  }
  sample->tokens = static_cast<double>(work.prompt);
  sample->seconds = Seconds(generation.tokens[0] - generation.submitted);
  sample->cost = costs_.Prefill(sample->tokens);
  co_return absl::OkStatus();
}

// Timed from the step after which every sequence has a token: from there all are in every step.
Task<absl::Status> BenchRunner::Decode(Work work, Sample* sample) {
  const uint64_t first = next_key_;
  const uint64_t end = first + static_cast<uint64_t>(work.sequences);
  next_key_ = end;
  const int64_t length = work.TokensOfASequence(options_.prefill_chunk) - work.prompt;
  for (uint64_t key = first; key < end; ++key) {
    CO_RETURN_IF_ERROR(client_.Submit(key, RandomRequest(work.prompt, length)));
  }
  for (uint64_t key = first; key < end; ++key) {
    while (client_.at(key).tokens.empty()) {
      absl::StatusOr<int64_t> tokens = co_await client_.Receive(kNever);
      if (!tokens.ok()) co_return tokens.status();
    }
  }
  double positions = 0;  // that the sequences see in the first timed step
  for (uint64_t key = first; key < end; ++key) {
    positions +=
        static_cast<double>(work.prompt) + static_cast<double>(client_.at(key).tokens.size());
  }
  const uint64_t read = experts_.experts_read;
  const Time start = loop_.Now();
  Time last = start;
  const int64_t wanted = work.sequences * work.steps;
  int64_t done = 0;
  while (done < wanted) {
    absl::StatusOr<int64_t> tokens = co_await client_.Receive(kNever);
    if (!tokens.ok()) co_return tokens.status();
    if (*tokens == 0) continue;  // a sign of life
    done += *tokens;
    const Time now = loop_.Now();
    sample->between_tokens_s.push_back(Seconds(now - last));
    last = now;
  }
  const double sequences = static_cast<double>(work.sequences);
  const double context = positions / sequences + static_cast<double>(work.steps - 1) / 2;
  sample->tokens = static_cast<double>(done);
  sample->seconds = Seconds(last - start);
  // The step that comes next has not begun.
  sample->experts = options_.moe_layers == 0
                        ? 0
                        : static_cast<double>(experts_.experts_read - read) /
                              static_cast<double>(options_.moe_layers * work.steps);
  sample->cost = costs_.Decode(sequences, context, sample->experts);
  sample->steps = sample->tokens / sequences;
  co_return absl::OkStatus();
}

namespace {

Duration DueAfter(const RequestArrival& arrival) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(arrival.at_s));
}

}  // namespace

Task<absl::StatusOr<MixedSample>> BenchRunner::RunMixed(MixedLoad load) {
  MixedSample sample;
  co_await BeginRates();
  const std::vector<RequestArrival> arrivals = PoissonArrivals(load);
  const Offer offer = {.arrivals = &arrivals, .first_key = next_key_, .start = loop_.Now()};
  next_key_ += arrivals.size();
  absl::Status served = co_await Serve(offer, &sample);
  if (!served.ok()) co_return served;
  sample.rates = co_await EndRates();
  Summarise(offer, &sample);
  absl::Status reset = co_await client_.Reset();
  if (!reset.ok()) co_return reset;
  co_return sample;
}

// A request that finds no free slot waits here, as it would in a gateway.
Task<absl::Status> BenchRunner::Serve(Offer offer, MixedSample* sample) {
  const std::vector<RequestArrival>& arrivals = *offer.arrivals;
  size_t next = 0;
  std::vector<double> together;  // of each token: how many came in its step
  while (next < arrivals.size() || client_.live() > 0) {
    Time due = kNever;  // of the next one that there is room for
    while (next < arrivals.size() && client_.live() < client_.slots()) {
      due = offer.start + DueAfter(arrivals[next]);
      if (due > loop_.Now()) break;
      const GenerationRequest request = RandomRequest(arrivals[next].prompt, arrivals[next].answer);
      CO_RETURN_IF_ERROR(client_.Submit(offer.first_key + next, request));
      ++next;
      due = kNever;
    }
    absl::StatusOr<int64_t> tokens = co_await client_.Receive(due);
    if (absl::IsDeadlineExceeded(tokens.status())) continue;
    if (!tokens.ok()) co_return tokens.status();
    sample->tokens += static_cast<double>(*tokens);
    together.insert(together.end(), static_cast<size_t>(*tokens), static_cast<double>(*tokens));
    sample->seconds = Seconds(loop_.Now() - offer.start);
  }
  sample->sequences = Median(std::move(together));
  co_return absl::OkStatus();
}

void BenchRunner::Summarise(const Offer& offer, MixedSample* sample) const {
  std::vector<double> first_tokens, gaps, prompts;
  double positions = 0;  // seen by all tokens together
  for (size_t i = 0; i < offer.arrivals->size(); ++i) {
    const RequestArrival& arrival = (*offer.arrivals)[i];
    const std::vector<Time>& times = client_.at(offer.first_key + i).tokens;
    first_tokens.push_back(Seconds(times[0] - offer.start - DueAfter(arrival)));
    for (size_t t = 1; t < times.size(); ++t) gaps.push_back(Seconds(times[t] - times[t - 1]));
    prompts.push_back(static_cast<double>(arrival.prompt));
    const double answer = static_cast<double>(arrival.answer);
    positions += answer * (prompts.back() + answer / 2);
  }
  sample->requests = offer.arrivals->size();
  sample->first_token_s = DistributionOf(std::move(first_tokens));
  sample->between_tokens_s = DistributionOf(std::move(gaps));
  if (sample->requests == 0) return;
  sample->first_token_floor_s =
      FloorSeconds(costs_.Prefill(Median(std::move(prompts))), sample->rates);
  sample->between_tokens_floor_s =
      FloorSeconds(costs_.Decode(sample->sequences, positions / sample->tokens), sample->rates);
}

}  // namespace bottega
