#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/trace.h"

namespace bottega {
namespace {

using Names = std::map<uint32_t, std::string>;

std::string NameOf(const Names& names, uint32_t id) {
  const auto found = names.find(id);
  return found != names.end() ? found->second : fmt::format("member {}", id);
}

// Why a share was sent again: Loss in core/exchange/dispatch_impl.h.
std::string LossName(uint64_t loss) {
  constexpr const char* kNames[] = {"its endpoint was lost",
                                    "it left the table",
                                    "it refused",
                                    "it was busy",
                                    "the frame was damaged",
                                    "the frame was lost",
                                    "it answered something else",
                                    "it is quarantined",
                                    "it has not all of the experts"};
  return loss < std::size(kNames) ? kNames[loss] : "?";
}

std::string Milliseconds(uint64_t us) { return fmt::format("{:.1f} ms", us / 1000.0); }

// A line of the timeline, or nothing for what only counts in the tables below it.
std::string Describe(const TraceEvent& e, const Names& names) {
  const auto get = [&e](const char* name) { return e.Get(name); };
  const std::string peer = NameOf(names, e.peer);
  if (e.event == "arrived") return "the request arrived";
  if (e.event == "prepared") {
    return fmt::format(
        "rendered and tokenized: {} prompt tokens, {} to generate", get("prompt_tokens"),
        get("choices") == 1 ? "1 choice" : fmt::format("{} choices", get("choices")));
  }
  if (e.event == "placed") {
    return fmt::format(
        "choice {} has a place at {}{}", get("choice"), peer,
        get("owner_epoch") > 1 ? fmt::format(" (its owner number {})", get("owner_epoch")) : "");
  }
  if (e.event == "first_token") return fmt::format("choice {}: first token", get("choice"));
  if (e.event == "lost") {
    return fmt::format("choice {} LOST its worker at token {}: failover", get("choice"),
                       get("tokens"));
  }
  if (e.event == "finished") {
    return fmt::format("answered: status {}, {} tokens", get("status"), get("tokens"));
  }
  if (e.event == "taken") {
    const uint64_t resumed = get("resumed_tokens");
    return fmt::format("taken: {} prompt tokens{}", get("prompt_tokens"),
                       resumed > 0 ? fmt::format(" and {} generated before", resumed) : "");
  }
  if (e.event == "started") {
    return fmt::format("first step, number {}, after {} in the queue", get("step"),
                       Milliseconds(get("queue_us")));
  }
  if (e.event == "prefilled") {
    return fmt::format("prompt done at step {}, {} after the first", get("step"),
                       Milliseconds(get("prefill_us")));
  }
  if (e.event == "ended") {
    return fmt::format("last step, number {}: {} tokens in all", get("step"), get("tokens"));
  }
  if (e.event == "cancelled") {
    return fmt::format("ended early after step {}, with {} tokens", get("step"), get("tokens"));
  }
  if (e.event == "resent") {
    return fmt::format("step {} layer {}: {} rows RESENT, away from {}: {}", e.key, e.layer,
                       get("rows"), peer, LossName(get("why")));
  }
  if (e.event == "hedged") {
    return fmt::format("step {} layer {}: {} is late with {} rows, they are {}", e.key, e.layer,
                       peer, get("rows"),
                       get("why") == 0 ? "HEDGED" : "taken from it: it is suspect");
  }
  if (e.event == "missing") {
    return fmt::format("step {} layer {}: NOBODY serves {} of its experts", e.key, e.layer,
                       get("experts"));
  }
  return "";
}

struct Steps {
  std::set<uint64_t> own;              // those that this request was in
  uint64_t drafted = 0, accepted = 0;  // its tokens that speculation guessed
  uint64_t own_tokens = 0, tokens = 0, us = 0, us_max = 0, timed = 0;
};
struct Frames {
  uint64_t count = 0, rows = 0, us = 0, us_max = 0;
};

std::string StepsText(const std::map<std::string, Steps>& workers) {
  if (workers.empty()) return "";
  std::string text =
      fmt::format("\nsteps that are still remembered\n{:<16} {:>7} {:>7} {:>12} {:>9} {:>9}\n",
                  "WORKER", "STEPS", "TOKENS", "BATCH TOKENS", "MEAN ms", "MAX ms");
  for (const auto& [name, s] : workers) {
    const double timed = static_cast<double>(std::max<uint64_t>(1, s.timed));
    text += fmt::format("{:<16} {:>7} {:>7} {:>12.1f} {:>9.2f} {:>9.2f}\n", name, s.own.size(),
                        s.own_tokens, static_cast<double>(s.tokens) / timed,
                        static_cast<double>(s.us) / timed / 1000, s.us_max / 1000.0);
  }
  for (const auto& [name, s] : workers) {
    if (s.drafted == 0) continue;
    text += fmt::format("{}: of the tokens, {} were guessed ahead and {} of these right\n", name,
                        s.drafted, s.accepted);
  }
  return text;
}

std::string FramesText(const std::map<std::pair<std::string, std::string>, Frames>& pairs) {
  if (pairs.empty()) return "";
  std::string text = fmt::format(
      "\nreplies of expert workers in these steps\n{:<16} {:<16} {:>7} {:>9} {:>9} {:>9}\n", "FROM",
      "WORKER", "FRAMES", "ROWS", "MEAN ms", "MAX ms");
  for (const auto& [pair, f] : pairs) {
    text +=
        fmt::format("{:<16} {:<16} {:>7} {:>9} {:>9.2f} {:>9.2f}\n", pair.first, pair.second,
                    f.count, f.rows, static_cast<double>(f.us) / f.count / 1000, f.us_max / 1000.0);
  }
  return text;
}

}  // namespace

uint64_t TraceEvent::Get(const std::string& name) const {
  const auto found = fields.find(name);
  return found == fields.end() ? 0 : found->second;
}

absl::StatusOr<std::vector<TraceEvent>> ParseFlight(const std::string& json) {
  const auto document = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("process") || !document["process"].is_string() ||
      !document.contains("events") || !document["events"].is_array()) {
    return absl::InvalidArgumentError("the answer is no flight record");
  }
  std::vector<TraceEvent> events;
  for (const auto& entry : document["events"]) {
    if (!entry.is_object()) return absl::InvalidArgumentError("an event is no object");
    TraceEvent event{.process = document["process"].get<std::string>()};
    for (const auto& [name, value] : entry.items()) {
      if (name == "event" && value.is_string()) {
        event.event = value.get<std::string>();
      } else if (name == "key" && value.is_string()) {
        event.key = std::strtoull(value.get_ref<const std::string&>().c_str(), nullptr, 16);
      } else if (!value.is_number_integer()) {
        return absl::InvalidArgumentError("a field of an event is no number");
      } else if (name == "us") {
        event.unix_us = value.get<int64_t>();
      } else {
        event.fields[name] = value.get<uint64_t>();
      }
    }
    event.peer = static_cast<uint32_t>(event.Get("peer"));
    event.layer = static_cast<uint32_t>(event.Get("layer"));
    events.push_back(std::move(event));
  }
  return events;
}

std::string TraceText(std::vector<TraceEvent> events, const Names& names) {
  if (events.empty()) return "";
  std::ranges::stable_sort(events, {}, &TraceEvent::unix_us);
  std::map<std::string, Steps> workers;
  std::map<std::pair<std::string, std::string>, Frames> pairs;
  std::string text = fmt::format("{:<13} {:>10}  {:<16} {}\n", "TIME (UTC)", "+ms", "PROCESS", "");
  const int64_t begin = events.front().unix_us;
  for (const TraceEvent& e : events) {
    if (e.event == "in_step") {
      workers[e.process].own.insert(e.Get("step"));
      workers[e.process].own_tokens += e.Get("tokens");
    } else if (e.event == "verified") {
      workers[e.process].drafted += e.Get("drafted");
      workers[e.process].accepted += e.Get("accepted");
    } else if (e.event == "step") {
      Steps& steps = workers[e.process];
      ++steps.timed;
      steps.tokens += e.Get("tokens");
      steps.us += e.Get("took_us");
      steps.us_max = std::max(steps.us_max, e.Get("took_us"));
    } else if (e.event == "reply") {
      Frames& frames = pairs[{e.process, NameOf(names, e.peer)}];
      ++frames.count;
      frames.rows += e.Get("rows");
      frames.us += e.Get("took_us");
      frames.us_max = std::max(frames.us_max, e.Get("took_us"));
    }
    const std::string line = Describe(e, names);
    if (line.empty()) continue;
    const std::chrono::sys_time<std::chrono::seconds> at{std::chrono::seconds(e.unix_us / 1000000)};
    text += fmt::format("{:%H:%M:%S}.{:03} {:>10.1f}  {:<16} {}\n", at, e.unix_us / 1000 % 1000,
                        (e.unix_us - begin) / 1000.0, e.process, line);
  }
  return text + StepsText(workers) + FramesText(pairs);
}

}  // namespace bottega
