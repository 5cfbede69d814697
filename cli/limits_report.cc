#include "cli/limits_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "attention-worker/config.h"
#include "core/base/limits.h"
#include "core/base/time.h"
#include "gateway/config.h"

namespace bottega {
namespace {

std::string Bytes(size_t bytes) {
  if (bytes % (1u << 20) == 0) return fmt::format("{} MiB", bytes >> 20);
  return bytes % (1u << 10) == 0 ? fmt::format("{} KiB", bytes >> 10)
                                 : fmt::format("{} bytes", bytes);
}

std::string Time(Duration d) {
  return fmt::format("{} s", std::chrono::duration_cast<std::chrono::seconds>(d).count());
}

void AddGatewayRows(std::vector<LimitRow>& rows) {
  const GatewayConfig config;
  rows.push_back({"queue: requests", std::to_string(config.queued_requests_max),
                  "429 queue_full, Retry-After from the queue's own rate"});
  rows.push_back({"queue: age", Time(config.queue_age_max), "429 queue_full"});
  rows.push_back({"request deadline", Time(config.request_deadline), "504, cancelled"});
  rows.push_back({"wait for an attention worker", Time(config.no_worker_wait), "503 no_worker"});
  rows.push_back({"connections",
                  fmt::format("min({}, nofile - min(256, nofile / 2))", config.connections_max),
                  "accepting pauses"});
  rows.push_back({"request line", Bytes(limits::kRequestLineBytesMax), "431"});
  rows.push_back({"header bytes", Bytes(limits::kHeaderBytesMax), "431"});
  rows.push_back({"headers", std::to_string(limits::kHeaderCountMax), "431"});
  rows.push_back({"body", Bytes(limits::kBodyBytesMax), "413"});
  rows.push_back({"header timeout", Time(config.header_timeout), "408, closed"});
  rows.push_back({"body-idle timeout", Time(config.body_timeout), "408, closed"});
  rows.push_back({"write-stall timeout", Time(config.write_timeout), "closed"});
  rows.push_back({"idle timeout", Time(config.idle_timeout), "closed"});
  rows.push_back({"stream buffer", Bytes(limits::kStreamBufferBytesMax), "cut, cancelled"});
}

void AddRequestRows(std::vector<LimitRow>& rows) {
  const auto add = [&rows](const char* name, auto value, const char* past_it = "400") {
    rows.push_back({name, fmt::format("{}", value), past_it});
  };
  add("context", "min(the model's, what the KV pool holds)");
  add("JSON depth", limits::kJsonDepthMax);
  add("JSON values", limits::kJsonValuesMax);
  add("messages", limits::kMessagesMax);
  add("parts of a message", limits::kPartsPerMessageMax);
  add("tools", limits::kToolsMax);
  add("tool name", fmt::format("{} characters", limits::kToolNameCharsMax));
  add("stop strings",
      fmt::format("{} of {} bytes", limits::kStopStringsMax, limits::kStopStringBytesMax));
  add("stop ids", limits::kStopIdsMax);
  add("n", limits::kChoicesMax);
  add("top_logprobs", limits::kTopLogprobsMax);
  add("prompts of one body", limits::kPromptsMax);
  add("sequences of one body", limits::kSequencesPerRequestMax);
  add("template fuel", limits::kTemplateFuel);
  add("template recursion", limits::kTemplateRecursionMax);
  add("template output", Bytes(limits::kTemplateOutputBytesMax));
}

void AddClusterRows(std::vector<LimitRow>& rows) {
  const AttentionConfig attention;
  rows.push_back({"sequences of an attention worker", std::to_string(attention.max_num_seqs),
                  "they wait in the gateway"});
  rows.push_back({"prompt tokens of a step", std::to_string(attention.prefill_tokens),
                  "the rest in later steps"});
  rows.push_back(
      {"drafted tokens of a step", std::to_string(limits::kDraftTokensMax), "fewer are drafted"});
  rows.push_back({"migrations of a sequence", std::to_string(limits::kMigrationsMax),
                  "503 no_worker, or an error in the stream"});
  rows.push_back({"exchange frame", Bytes(limits::kFrameBytesMax), "refused"});
  rows.push_back({"tokens of a frame", std::to_string(limits::kFrameTokensMax), "refused"});
  rows.push_back({"bytes of a part", Bytes(limits::kPartBytesMax), "another part"});
  rows.push_back({"credits of a pair", fmt::format("{} rows", limits::kCreditRows), "NACK(BUSY)"});
  rows.push_back({"attempts of a share", std::to_string(limits::kAttemptsMax),
                  "those requests fail: experts_unavailable"});
  rows.push_back({"damaged or lost frames of a share", std::to_string(limits::kDamagesMax),
                  "those requests fail: experts_unavailable"});
  rows.push_back({"control message", Bytes(limits::kControlMessageBytesMax), "refused"});
  rows.push_back({"unread messages of a stream", std::to_string(limits::kStreamMessagesMax),
                  "the stream is closed"});
  rows.push_back(
      {"control streams of a process", std::to_string(limits::kControlStreamsMax), "refused"});
  rows.push_back({"admin connections", std::to_string(limits::kAdminConnectionsMax), "closed"});
}

}  // namespace

std::vector<LimitRow> LimitRows() {
  std::vector<LimitRow> rows;
  AddGatewayRows(rows);
  AddRequestRows(rows);
  AddClusterRows(rows);
  return rows;
}

std::string LimitsText() {
  std::string text = fmt::format("{:<34} {:<42} {}\n", "LIMIT", "DEFAULT", "PAST IT");
  for (const LimitRow& row : LimitRows()) {
    text += fmt::format("{:<34} {:<42} {}\n", row.name, row.value, row.past_it);
  }
  return text;
}

}  // namespace bottega
