#include "cli/bench_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "absl/strings/str_split.h"
#include "attention-worker/attention_program.h"
#include "cli/json_file.h"
#include "core/base/status.h"
#include "core/model/footprint.h"

namespace bottega {
namespace {

constexpr int64_t kLengthMax = 1 << 20;

absl::Status CheckMixed(const BenchOptions& o, const std::vector<Work>& works) {
  if (o.mixed < Duration::zero()) return absl::InvalidArgumentError("--mixed: less than no time");
  if (o.mixed == Duration::zero() && works.empty()) {
    return absl::InvalidArgumentError("nothing to measure: --prefill and --decode are none");
  }
  const auto any = [&](Work::Kind kind) {
    return std::ranges::any_of(works, [kind](const Work& work) { return work.kind == kind; });
  };
  if (o.mixed > Duration::zero() && o.mixed_rate == 0 &&
      (!any(Work::Kind::kPrefill) || !any(Work::Kind::kDecode))) {
    return absl::InvalidArgumentError(
        "--mixed: without prefill and decode nobody knows how much this machine can take; give "
        "--mixed-rate, or --mixed 0s");
  }
  if (Seconds(o.mixed) * o.mixed_rate > kMixedRequestsMax) {
    return absl::InvalidArgumentError(
        fmt::format("--mixed-rate {} for {} s is more than {} requests", o.mixed_rate,
                    Seconds(o.mixed), kMixedRequestsMax));
  }
  return absl::OkStatus();
}

}  // namespace

void AddBenchOptions(OptionTable& table, BenchOptions* o) {
  table.Positional("DIR", 0, 1);
  AddModelOptions(table, &o->model);
  AddComputeOptions(table, &o->compute);
  table.Add("prefill", &o->prefill, "lengths of prompts, by commas; none: no prefill")
      .Add("decode", &o->decode, "sequences at once, by commas; none: no decode")
      .Add("context", &o->context, "tokens before a decode, by commas")
      .Add("steps", &o->steps, "steps of a decode that are timed")
      .Range(1, 65536)
      .Add("rounds", &o->rounds, "measurements of each; the median is told")
      .Range(1, 1000)
      .Add("mixed", &o->mixed, "how long requests come at random; 0s: no mixed load")
      .Add("mixed-rate", &o->mixed_rate, "requests a second; 0: 0.7 of the measured capacity")
      .Range(0, 1e5)
      .Add(
          "temperature", &o->temperature,
          "of sampling; 0: greedy, where random weights soon repeat themselves and hit few experts")
      .Range(0, 2)
      .Add("seed", &o->seed, "equal seeds make equal prompts and arrivals")
      .Add("json", &o->json, "file for everything, every sample too");
  AddAttentionOptions(table, &o->attention, &o->kv_cache);
}

absl::StatusOr<std::vector<Work>> WorksOf(const BenchOptions& o) {
  const int64_t slots = o.attention.max_num_seqs;
  ASSIGN_OR_RETURN(const auto prompts, ParseCounts("--prefill", o.prefill, 1, kLengthMax));
  ASSIGN_OR_RETURN(const auto batches, ParseCounts("--decode", o.decode, 1, slots));
  ASSIGN_OR_RETURN(const auto contexts, ParseCounts("--context", o.context, 1, kLengthMax));
  RETURN_IF_ERROR(CheckJsonFile("--json", o.json));
  std::vector<Work> works;
  for (int64_t prompt : prompts) works.push_back({.kind = Work::Kind::kPrefill, .prompt = prompt});
  for (int64_t context : contexts) {
    for (int64_t batch : batches) {
      works.push_back({Work::Kind::kDecode, batch, context, o.steps});
    }
  }
  RETURN_IF_ERROR(CheckMixed(o, works));
  return works;
}

absl::Status CheckBenchMemory(uint64_t kv_bytes, uint64_t weight_bytes, uint64_t memory_bytes) {
  const uint64_t needed = kv_bytes + weight_bytes + kWorkingBytes;
  if (memory_bytes == 0 || needed <= memory_bytes) return absl::OkStatus();
  const auto gib = [](uint64_t bytes) { return static_cast<double>(bytes) / (1u << 30); };
  return absl::InvalidArgumentError(fmt::format(
      "these works need {:.2f} GiB: {:.2f} of KV cache, {:.2f} of weights and {:.2f} for "
      "code and buffers; this process may use {:.2f}. Ask for fewer sequences (--decode) "
      "or less --context",
      gib(needed), gib(kv_bytes), gib(weight_bytes), gib(kWorkingBytes), gib(memory_bytes)));
}

MixedLoad LoadOf(const BenchOptions& o, int64_t context) {
  MixedLoad load{.requests_per_s = o.mixed_rate,
                 .seconds = Seconds(o.mixed),
                 .seed = static_cast<uint64_t>(o.seed)};
  for (LengthRange* range : {&load.prompt, &load.answer}) {
    range->most = std::min(range->most, std::max<int64_t>(1, context / 2));
    range->least = std::min(range->least, range->most);
  }
  return load;
}

absl::StatusOr<std::vector<int64_t>> ParseCounts(std::string_view option, std::string_view text,
                                                 int64_t least, int64_t most) {
  std::vector<int64_t> counts;
  if (text == "none") return counts;
  for (absl::string_view part : absl::StrSplit(absl::string_view(text.data(), text.size()), ',')) {
    const absl::StatusOr<int64_t> count = ParseCount(std::string_view(part.data(), part.size()));
    if (!count.ok() || *count < least || *count > most) {
      return absl::InvalidArgumentError(
          fmt::format("{}: \"{}\" is no list of numbers from {} to {}, like 1,2,4, nor \"none\"",
                      option, text, least, most));
    }
    if (std::ranges::find(counts, *count) != counts.end()) {
      return absl::InvalidArgumentError(fmt::format("{}: {} comes twice", option, *count));
    }
    counts.push_back(*count);
  }
  return counts;
}

}  // namespace bottega
