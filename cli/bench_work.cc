#include "cli/bench_work.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
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

BenchRunner::BenchRunner(Loop& loop, GenerationClient& client, const StepCosts& costs, Cpu cpu,
                         Options options)
    : loop_(loop),
      client_(client),
      costs_(costs),
      cpu_(cpu),
      options_(options),
      random_(options.seed) {}

std::vector<int32_t> BenchRunner::RandomPrompt(int64_t tokens) {
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(UniformFraction(random_) * static_cast<double>(options_.vocab_size));
  }
  return ids;
}

Task<absl::StatusOr<Sample>> BenchRunner::Run(Work work) {
  Sample sample{.rates = MeasureMachineRates(cpu_)};
  absl::Status measured;
  if (work.kind == Work::Kind::kPrefill) {
    measured = co_await Prefill(work, &sample);
  } else {
    measured = co_await Decode(work, &sample);
  }
  if (!measured.ok()) co_return measured;
  absl::Status reset = co_await client_.Reset();
  if (!reset.ok()) co_return reset;
  co_return sample;
}

Task<absl::Status> BenchRunner::Prefill(Work work, Sample* sample) {
  const uint64_t key = next_key_++;
  const std::vector<int32_t> prompt = RandomPrompt(work.prompt);
  CO_RETURN_IF_ERROR(client_.Submit(key, prompt, 1));
  const Generation& generation = client_.at(key);
  while (!generation.done) {
    absl::StatusOr<int64_t> tokens = co_await client_.Receive(kNever);
    if (!tokens.ok()) co_return tokens.status();
  }
  sample->tokens = static_cast<double>(work.prompt);
  sample->seconds = Seconds(generation.tokens[0] - generation.submitted);
  sample->cost = costs_.Prefill(sample->tokens);
  sample->floor_s = FloorSeconds(sample->cost, sample->rates);
  co_return absl::OkStatus();
}

// Timed from the step after which every sequence has a token: from there all are in every step.
Task<absl::Status> BenchRunner::Decode(Work work, Sample* sample) {
  const uint64_t first = next_key_;
  const uint64_t end = first + static_cast<uint64_t>(work.sequences);
  next_key_ = end;
  const int64_t length = work.TokensOfASequence(options_.prefill_chunk) - work.prompt;
  for (uint64_t key = first; key < end; ++key) {
    const std::vector<int32_t> prompt = RandomPrompt(work.prompt);
    CO_RETURN_IF_ERROR(client_.Submit(key, prompt, length));
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
  sample->cost = costs_.Decode(sequences, context);
  sample->floor_s = FloorSeconds(sample->cost, sample->rates) * sample->tokens / sequences;
  co_return absl::OkStatus();
}

namespace {

Duration DueAfter(const RequestArrival& arrival) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(arrival.at_s));
}

}  // namespace

Task<absl::StatusOr<MixedSample>> BenchRunner::RunMixed(MixedLoad load) {
  MixedSample sample{.rates = MeasureMachineRates(cpu_)};
  const std::vector<RequestArrival> arrivals = PoissonArrivals(load);
  const Offer offer = {.arrivals = &arrivals, .first_key = next_key_, .start = loop_.Now()};
  next_key_ += arrivals.size();
  absl::Status served = co_await Serve(offer, &sample);
  if (!served.ok()) co_return served;
  Summarise(offer, &sample);
  absl::Status reset = co_await client_.Reset();
  if (!reset.ok()) co_return reset;
  co_return sample;
}

// A request that finds no free slot waits here, as it would in a gateway.
Task<absl::Status> BenchRunner::Serve(Offer offer, MixedSample* sample) {
  const std::vector<RequestArrival>& arrivals = *offer.arrivals;
  size_t next = 0;
  double steps = 0;
  while (next < arrivals.size() || client_.live() > 0) {
    Time due = kNever;  // of the next one that there is room for
    while (next < arrivals.size() && client_.live() < client_.slots()) {
      due = offer.start + DueAfter(arrivals[next]);
      if (due > loop_.Now()) break;
      const std::vector<int32_t> prompt = RandomPrompt(arrivals[next].prompt);
      CO_RETURN_IF_ERROR(client_.Submit(offer.first_key + next, prompt, arrivals[next].answer));
      ++next;
      due = kNever;
    }
    absl::StatusOr<int64_t> tokens = co_await client_.Receive(due);
    if (absl::IsDeadlineExceeded(tokens.status())) continue;
    if (!tokens.ok()) co_return tokens.status();
    sample->tokens += static_cast<double>(*tokens);
    steps += *tokens > 0 ? 1 : 0;
    sample->seconds = Seconds(loop_.Now() - offer.start);
  }
  sample->mean_sequences = steps > 0 ? sample->tokens / steps : 0;
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
  sample->between_tokens_floor_s = FloorSeconds(
      costs_.Decode(sample->mean_sequences, positions / sample->tokens), sample->rates);
}

}  // namespace bottega
