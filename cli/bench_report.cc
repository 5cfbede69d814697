#include "cli/bench_report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <utility>

namespace bottega {
namespace {

using nlohmann::ordered_json;

constexpr double kGiB = 1u << 30;

std::string Percent(double share) { return fmt::format("{:.0f} %", 100 * share); }

ordered_json MillisecondsJson(const Distribution& of_seconds) {
  return {{"count", of_seconds.count},   {"mean", 1e3 * of_seconds.mean},
          {"min", 1e3 * of_seconds.min}, {"p50", 1e3 * of_seconds.p50},
          {"p90", 1e3 * of_seconds.p90}, {"p99", 1e3 * of_seconds.p99},
          {"max", 1e3 * of_seconds.max}};
}

ordered_json SampleJson(const Sample& sample) {
  ordered_json json = {{"tokens_per_s", sample.tokens_per_s()},
                       {"floor_tokens_per_s", sample.floor_tokens_per_s()},
                       {"tokens", sample.tokens},
                       {"seconds", sample.seconds},
                       {"experts_of_a_layer", sample.experts}};
  json.update(RatesJson(sample.rates));
  return json;
}

ordered_json WorkJson(const MeasuredWork& measured) {
  const Work& work = measured.work;
  const WorkSummary summary = Summarise(measured);
  const StepCost& cost = measured.samples.back().cost;
  const bool decode = work.kind == Work::Kind::kDecode;
  ordered_json json = {{"name", work.Name()}, {"kind", decode ? "decode" : "prefill"}};
  if (decode) {
    json.update({{"sequences", work.sequences}, {"context", work.prompt}, {"steps", work.steps}});
  } else {
    json["tokens"] = work.prompt;
  }
  json.update({{"tokens_per_s", summary.tokens_per_s},
               {"least", summary.least},
               {"most", summary.most},
               {"floor_tokens_per_s", summary.floor_tokens_per_s},
               {"floor_share", summary.floor_share}});
  if (decode) {
    json["between_tokens_ms"] = MillisecondsJson(summary.between_tokens_s);
    json["experts_of_a_layer"] = summary.experts;
  }
  json[decode ? "step_cost" : "prompt_cost"] = {{"weight_bytes", cost.weight_bytes},
                                                {"kv_bytes", cost.kv_bytes},
                                                {"f32_ops", cost.f32_ops},
                                                {"int8_ops", cost.int8_ops}};
  for (const Sample& sample : measured.samples) json["samples"].push_back(SampleJson(sample));
  return json;
}

ordered_json RangeJson(const LengthRange& range) { return {range.least, range.most}; }

ordered_json MixedJson(const MixedLoad& load, const MixedSample& sample) {
  return {{"requests_per_s", load.requests_per_s},
          {"offered_seconds", load.seconds},
          {"prompt_tokens", RangeJson(load.prompt)},
          {"answer_tokens", RangeJson(load.answer)},
          {"seed", load.seed},
          {"requests", sample.requests},
          {"seconds", sample.seconds},
          {"tokens", sample.tokens},
          {"tokens_per_s", sample.seconds > 0 ? sample.tokens / sample.seconds : 0},
          {"sequences", sample.sequences},
          {"first_token_ms", MillisecondsJson(sample.first_token_s)},
          {"first_token_floor_ms", 1e3 * sample.first_token_floor_s},
          {"between_tokens_ms", MillisecondsJson(sample.between_tokens_s)},
          {"between_tokens_floor_ms", 1e3 * sample.between_tokens_floor_s},
          {"rates", RatesJson(sample.rates)}};
}

std::string TimesText(const char* name, const Distribution& times, double floor_s) {
  return fmt::format("{:<20} {:>9} {:>9} {:>9} {:>9} {:>7}\n", name, TimeText(times.p50),
                     TimeText(times.p90), TimeText(times.p99), TimeText(floor_s),
                     times.p50 > 0 ? Percent(floor_s / times.p50) : "");
}

}  // namespace

ordered_json RatesJson(const MachineRates& rates) {
  return {{"read_bytes_per_s", rates.read_bytes_per_s},
          {"f32_ops_per_s", rates.f32_ops_per_s},
          {"int8_ops_per_s", rates.int8_ops_per_s}};
}

std::string TimeText(double seconds) {
  const bool whole = seconds >= 1;
  const double value = whole ? seconds : 1e3 * seconds;
  const int digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return fmt::format("{:.{}f} {}", value, digits, whole ? "s" : "ms");
}

std::string RatesText(const MachineRates& rates) {
  std::string text = fmt::format("read {:.1f} GB/s, f32 {:.0f} GFLOP/s",
                                 rates.read_bytes_per_s * 1e-9, rates.f32_ops_per_s * 1e-9);
  if (rates.int8_ops_per_s > 0) {
    text += fmt::format(", int8 {:.0f} GOP/s", rates.int8_ops_per_s * 1e-9);
  }
  return text;
}

WorkSummary Summarise(const MeasuredWork& measured) {
  std::vector<double> rates, floors, shares, experts, gaps;
  for (const Sample& sample : measured.samples) {
    rates.push_back(sample.tokens_per_s());
    floors.push_back(sample.floor_tokens_per_s());
    shares.push_back(sample.floor_share());
    experts.push_back(sample.experts);
    gaps.insert(gaps.end(), sample.between_tokens_s.begin(), sample.between_tokens_s.end());
  }
  const Distribution rate = DistributionOf(std::move(rates));
  return {.tokens_per_s = rate.p50,
          .least = rate.min,
          .most = rate.max,
          .floor_tokens_per_s = Median(std::move(floors)),
          .floor_share = Median(std::move(shares)),
          .experts = Median(std::move(experts)),
          .between_tokens_s = DistributionOf(std::move(gaps))};
}

std::string HeadText(const BenchReport& r) {
  return fmt::format(
      "model     {}: {}, {} layers, {} weights ({:.2f} GiB), {} rows\n"
      "machine   {}; {}, {} thread{}\n"
      "floors    {}; measured again around every sample\n"
      "ready     {} after the model was opened\n",
      r.directory, r.model_type, r.layers, r.weights, static_cast<double>(r.packed_bytes) / kGiB,
      r.row_type, r.processor, r.isa, r.threads, r.threads == 1 ? "" : "s", RatesText(r.rates),
      TimeText(r.ready_s));
}

std::string WorkHeaderText() {
  return fmt::format("\n{:<20} {:>9} {:>17} {:>9} {:>7} {:>9} {:>9} {:>8}\n", "", "tok/s",
                     "least - most", "floor", "share", "ITL p50", "p99", "experts");
}

std::string WorkText(const MeasuredWork& measured) {
  const WorkSummary s = Summarise(measured);
  std::string text = fmt::format("{:<20} {:>9.1f} {:>17} {:>9.1f} {:>7}", measured.work.Name(),
                                 s.tokens_per_s, fmt::format("{:.1f} - {:.1f}", s.least, s.most),
                                 s.floor_tokens_per_s, Percent(s.floor_share));
  if (s.between_tokens_s.count > 0) {
    text += fmt::format(" {:>9} {:>9} {:>8.1f}", TimeText(s.between_tokens_s.p50),
                        TimeText(s.between_tokens_s.p99), s.experts);
  }
  return text + "\n";
}

std::string MixedText(const MixedLoad& load, const MixedSample& sample) {
  const std::string head = fmt::format(
      "\nmixed load: {:.3g} requests/s for {:.3g} s (Poisson, seed {}), prompts of {} to {} "
      "tokens, "
      "answers of {} to {} (log-uniform)\n",
      load.requests_per_s, load.seconds, load.seed, load.prompt.least, load.prompt.most,
      load.answer.least, load.answer.most);
  if (sample.requests == 0) return head + "no request came\n";
  return head +
         fmt::format("{:<20} {:>9} {:>9} {:>9} {:>9} {:>7}\n", "", "p50", "p90", "p99", "floor",
                     "share") +
         TimesText("time to first token", sample.first_token_s, sample.first_token_floor_s) +
         TimesText("ITL", sample.between_tokens_s, sample.between_tokens_floor_s) +
         fmt::format(
             "{} requests, {:.0f} tokens, {:.1f} tok/s; floors: the median prompt alone, a step "
             "of {:.0f} like the median token's\n",
             sample.requests, sample.tokens, sample.tokens / sample.seconds, sample.sequences);
}

std::string EndText(const BenchReport& report) {
  return fmt::format("\nmemory    {:.2f} GiB (PSS)\n",
                     static_cast<double>(report.pss_bytes) / kGiB);
}

ordered_json BenchJson(const BenchReport& r) {
  ordered_json json = {
      {"date", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))},
      {"machine", {{"processor", r.processor}, {"isa", r.isa}, {"threads", r.threads}}},
      {"model",
       {{"directory", r.directory},
        {"type", r.model_type},
        {"layers", r.layers},
        {"weights", r.weights},
        {"row_type", r.row_type},
        {"numerics_id", r.numerics_id},
        {"digest", r.digest},
        {"packed_bytes", r.packed_bytes}}},
      {"temperature", r.temperature},
      {"rates", RatesJson(r.rates)},
      {"ready_seconds", r.ready_s},
      {"pss_bytes", r.pss_bytes},
      {"tokens_per_s", ordered_json::object()},
      {"works", ordered_json::array()}};
  for (const MeasuredWork& measured : r.works) {
    json["tokens_per_s"][measured.work.Name()] = Summarise(measured).tokens_per_s;
    json["works"].push_back(WorkJson(measured));
  }
  if (r.mixed) json["mixed"] = MixedJson(r.load, *r.mixed);
  return json;
}

}  // namespace bottega
