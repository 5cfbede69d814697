#include "cli/plan_report.h"

#include <fmt/format.h>

#include "cli/bench_report.h"
#include "core/model/footprint.h"

namespace bottega {
namespace {

using nlohmann::ordered_json;

constexpr double kMiB = 1u << 20, kGiB = 1u << 30;

std::string Size(double bytes) {
  return bytes < kGiB / 10 ? fmt::format("{:.1f} MiB", bytes / kMiB)
                           : fmt::format("{:.2f} GiB", bytes / kGiB);
}

std::string KvLine(const PlanQuestion& q) {
  const double of_token = static_cast<double>(KvBytesPerToken(q.config, q.row_type));
  return fmt::format("kv cache  {:.0f} bytes a token ({} rows), {} for a context of {}\n", of_token,
                     Name(q.row_type), Size(of_token * static_cast<double>(q.config.max_positions)),
                     q.config.max_positions);
}

// Two rows of headings: what the columns are of, then each of them.
std::string HeaderLines(const PlanQuestion& q, const FormatPlan& plan) {
  std::string contexts, batches;
  for (const ContextRoom& room : plan.contexts) contexts += fmt::format("{:>8}", room.context);
  for (int64_t batch : kPlannedBatches) batches += fmt::format("{:>7}", batch);
  const size_t width = contexts.size();
  return fmt::format("\n{:<6} {:>11} {:>11} {:>{}} {:>{}} {:>9}\n", "", "", "",
                     "sequences at context", width, fmt::format("decode at {}", q.context),
                     batches.size(), "prefill") +
         fmt::format("{:<6} {:>11} {:>11} {} {} {:>9}\n", "", "weights", "left", contexts, batches,
                     kPlannedPrompt);
}

std::string FormatLine(const FormatPlan& plan) {
  const std::string name(Name(plan.weights));
  if (!plan.impossible.empty())
    return fmt::format("{:<6} not possible: {}\n", name, plan.impossible);
  const double bytes = static_cast<double>(plan.weight_bytes);
  const double room = static_cast<double>(plan.room_bytes);
  std::string line = fmt::format("{:<6} {:>11} ", name, Size(bytes));
  if (!plan.fits()) return line + fmt::format("does not fit: {} too much\n", Size(-room));
  line += fmt::format("{:>11} ", Size(room));
  for (const ContextRoom& c : plan.contexts) line += fmt::format("{:>8}", c.sequences);
  line += " ";
  for (double rate : plan.decode) line += fmt::format("{:>7.1f}", rate);
  return line + fmt::format(" {:>9.1f}\n", plan.prefill);
}

std::string SharesLine(const FormatPlan& plan) {
  const FloorShares& s = plan.shares;
  std::string decode;
  for (double share : s.decode) decode += fmt::format(" {:.0f} %", 100 * share);
  return fmt::format("{:<6} {}: decode{}, prefill {:.0f} % of the floor\n", Name(plan.weights),
                     s.source, decode, 100 * s.prefill);
}

std::string Reason(const PlanQuestion& q, WeightFormat weights) {
  if (q.packed_as) return "the model is packed so";
  switch (weights) {
    case WeightFormat::kInt8:
      return "close to bf16, and half of it to read";
    case WeightFormat::kInt4:
      return "int8 does not fit; int4 loses more accuracy (docs/accuracy.md)";
    default:
      return "the model's widths cannot be quantised";
  }
}

std::string RecommendationText(const PlanReport& report) {
  if (!report.plan.recommendation) {
    return "choose    nothing: no format leaves room for one conversation\n";
  }
  const Recommendation& r = *report.plan.recommendation;
  std::string text =
      fmt::format("choose    {}: {}; a context of {} for {} sequence{}, {} of KV cache\n",
                  Name(r.weights), Reason(report.question, r.weights), r.context, r.sequences,
                  r.sequences == 1 ? "" : "s", Size(static_cast<double>(r.kv_bytes)));
  if (report.servable) {
    text +=
        fmt::format("          bottega serve {} --weights {} --kv-cache {}MiB --max-model-len {}\n",
                    report.model, Name(r.weights), (r.kv_bytes + (1u << 20) - 1) >> 20, r.context);
  }
  return text;
}

ordered_json FormatJson(const FormatPlan& plan) {
  ordered_json json = {{"weights", Name(plan.weights)}, {"fits", plan.fits()}};
  if (!plan.impossible.empty()) {
    json["impossible"] = plan.impossible;
    return json;
  }
  json.update({{"weight_bytes", plan.weight_bytes}, {"room_bytes", plan.room_bytes}});
  for (const ContextRoom& room : plan.contexts) {
    json["contexts"].push_back({{"context", room.context}, {"sequences", room.sequences}});
  }
  for (size_t i = 0; i < kPlannedBatches.size(); ++i) {
    const std::string name = fmt::format("decode {}", kPlannedBatches[i]);
    json["tokens_per_s"][name] = plan.decode[i];
    json["floor_share"][name] = plan.shares.decode[i];
  }
  const std::string prefill = fmt::format("prefill {}", kPlannedPrompt);
  json["tokens_per_s"][prefill] = plan.prefill;
  json["floor_share"][prefill] = plan.shares.prefill;
  json["floor_share_source"] = plan.shares.source;
  return json;
}

}  // namespace

std::string PlanReport::Text() const {
  const ModelConfig& c = question.config;
  std::string text =
      fmt::format("model     {}: {}, {} layers, {} experts a layer, {} per token\n", model,
                  c.model_type, c.num_layers, c.num_experts, c.experts_per_token);
  text += fmt::format("memory    {} ({}), {} of it for code and buffers\n",
                      Size(static_cast<double>(question.memory_bytes)), memory_source,
                      Size(static_cast<double>(kWorkingBytes)));
  text += fmt::format("machine   {} ({})\n", RatesText(question.rates), rates_source);
  text += KvLine(question);
  text += HeaderLines(question, plan.formats.front());  // bf16: always possible
  for (const FormatPlan& format : plan.formats) text += FormatLine(format);
  text += "tokens a second are foretold by the share of the floor that the engine reaches:\n";
  for (const FormatPlan& format : plan.formats) {
    if (format.fits()) text += SharesLine(format);
  }
  return text + "\n" + RecommendationText(*this);
}

ordered_json PlanReport::Json() const {
  ordered_json json = {{"model", model},
                       {"memory_bytes", question.memory_bytes},
                       {"working_bytes", kWorkingBytes},
                       {"kv_bytes_per_token", KvBytesPerToken(question.config, question.row_type)},
                       {"decode_context", question.context},
                       {"rates", RatesJson(question.rates)},
                       {"rates_source", rates_source},
                       {"formats", ordered_json::array()},
                       {"recommendation", nullptr}};
  for (const FormatPlan& format : plan.formats) json["formats"].push_back(FormatJson(format));
  if (plan.recommendation) {
    json["recommendation"] = {{"weights", Name(plan.recommendation->weights)},
                              {"context", plan.recommendation->context},
                              {"sequences", plan.recommendation->sequences},
                              {"kv_bytes", plan.recommendation->kv_bytes}};
  }
  return json;
}

}  // namespace bottega
