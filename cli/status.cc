#include "cli/status.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/limits_report.h"
#include "core/base/status.h"
#include "core/service/grpc_network.h"
#include "core/service/options.h"
#include "core/service/process.h"
#include "core/service/service_process.h"
#include "core/service/status_client.h"
#include "core/service/table_codec.h"

namespace bottega {
namespace {

namespace wire = internal::v1;
constexpr NodeId kSelf{1};
constexpr uint32_t kMapColumns = 64;

const wire::MemberStatus* FindStatus(const wire::StatusReply& reply, uint32_t id) {
  for (const wire::MemberStatus& status : reply.members()) {
    if (status.id() == id) return &status;
  }
  return nullptr;
}

bool IsDense(const wire::ClusterTable& table, uint32_t layer) {
  return std::find(table.dense_layers().begin(), table.dense_layers().end(), layer) !=
         table.dense_layers().end();
}

// [expert] in how many layers it is served by `id`; id 0: in how many nobody serves it.
std::vector<uint32_t> LayersServed(const wire::ClusterTable& table, uint32_t id) {
  std::vector<uint32_t> layers(table.experts());
  for (int key = 0; key < table.replicas_size(); ++key) {
    if (IsDense(table, key / table.experts())) continue;
    const auto& ids = table.replicas(key).member_ids();
    const bool counts = id == 0 ? ids.empty() : std::find(ids.begin(), ids.end(), id) != ids.end();
    layers[key % table.experts()] += counts;
  }
  return layers;
}

// '.' in no layer, '1' to '9' in about so many tenths of them, '#' in all.
char Cell(uint32_t layers, uint32_t of) {
  if (layers == 0) return '.';
  if (layers >= of) return '#';
  return static_cast<char>('0' + std::clamp<uint32_t>(layers * 10 / of, 1, 9));
}

// "shm 4" or "shm 3, tcp 1"; what nobody uses is not shown.
std::string EndpointsText(const wire::MemberStatus& status) {
  const std::map<std::string, uint32_t> kinds(status.endpoints().begin(), status.endpoints().end());
  std::string text;
  for (const auto& [kind, up] : kinds) {
    if (up > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", kind, up);
  }
  return text;
}

std::string MembersText(const wire::StatusReply& reply) {
  std::string text = fmt::format("{:<16} {:<10} {:<9} {:>9} {:>7} {:>11} {:>9}  {:<14} {:<22} {}\n",
                                 "MEMBER", "ROLE", "STATE", "HEARTBEAT", "EPOCH", "EXPERTS", "LOAD",
                                 "EXCHANGE", "CONTROL", "ADMIN");
  for (const wire::Member& member : reply.table().members()) {
    const wire::MemberStatus* status = FindStatus(reply, member.id());
    if (status == nullptr) continue;
    const bool expert = member.role() == wire::ROLE_EXPERT;
    text += fmt::format("{:<16} {:<10} {:<9} {:>6} ms {:>7} {:>11} {:>9.1f}  {:<14} {:<22} {}\n",
                        member.name(), RoleName(member.role()), StateName(member.state()),
                        status->heartbeat_age_ms(), status->acked_epoch(),
                        expert ? fmt::format("{}/{}", status->held(), status->assigned()) : "",
                        status->load(), EndpointsText(*status), member.control_address(),
                        member.admin_address());
  }
  return text;
}

std::string MapText(const wire::ClusterTable& table) {
  const uint32_t moe_layers = table.layers() - table.dense_layers_size();
  std::string text = fmt::format(
      "\nexperts x workers, over {} layers ('.' none, 1-9 tenths of the layers, '#' all)\n",
      moe_layers);
  std::vector<std::pair<std::string, std::vector<uint32_t>>> rows;
  for (const wire::Member& member : table.members()) {
    if (member.role() == wire::ROLE_EXPERT) {
      rows.emplace_back(member.name(), LayersServed(table, member.id()));
    }
  }
  std::vector<uint32_t> nobody = LayersServed(table, 0);
  if (std::any_of(nobody.begin(), nobody.end(), [](uint32_t n) { return n > 0; })) {
    rows.emplace_back("NOBODY", std::move(nobody));
  }
  for (uint32_t begin = 0; begin < table.experts(); begin += kMapColumns) {
    const uint32_t end = std::min(begin + kMapColumns, table.experts());
    std::string ruler;
    for (uint32_t expert = begin; expert < end;) {
      const std::string mark = expert % 8 == 0 ? std::to_string(expert) : "";
      ruler += mark.empty() ? " " : mark;
      expert += std::max<uint32_t>(1, mark.size());
    }
    text += fmt::format("{:<16} {}\n", "", ruler);
    for (const auto& [name, layers] : rows) {
      text += fmt::format("{:<16} ", name);
      for (uint32_t expert = begin; expert < end; ++expert)
        text += Cell(layers[expert], moe_layers);
      text += '\n';
    }
  }
  return text;
}

struct Options {
  std::string router = "127.0.0.1:50061";
  bool json = false;
  bool watch = false;
  bool limits = false;
  Duration interval = std::chrono::seconds(1);
  Duration timeout = std::chrono::seconds(2);
};

using OnReply = std::function<absl::Status(const wire::StatusReply&)>;

absl::Status Print(const Options& options, const wire::StatusReply& reply) {
  std::string text = options.json ? StatusJson(reply) : StatusText(reply);
  if (options.watch && !options.json && isatty(STDOUT_FILENO) != 0) text = "\033[H\033[J" + text;
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
  return absl::OkStatus();
}

// Until the answer is not taken, or nobody answers; once without --watch.
Task<void> AskAndStop(Loop* loop, Network* network, const Options* options, const OnReply* on_reply,
                      absl::Status* out) {
  StatusClient client(*loop, *network, kSelf, options->router);
  bool again = true;
  while (again) {
    absl::StatusOr<wire::StatusReply> reply = co_await client.Ask(options->timeout);
    *out = reply.ok() ? (*on_reply)(*reply) : reply.status();
    again = out->ok() && options->watch;
    if (again) co_await loop->Sleep(options->interval);
  }
  loop->Stop();
}

absl::Status AskAll(const Options& options, const OnReply& on_reply) {
  std::unique_ptr<Loop> loop = Loop::Real();
  absl::Status end;
  {
    GrpcNetwork network(*loop);
    loop->Spawn(kSelf, AskAndStop(loop.get(), &network, &options, &on_reply, &end));
    loop->Run();
  }
  return end;
}

}  // namespace

std::string StatusText(const wire::StatusReply& reply) {
  const wire::ClusterTable& table = reply.table();
  std::string text =
      fmt::format("{}  term {}  epoch {}", reply.router_name(), table.term(), table.epoch());
  if (table.layers() > 0) {
    text += fmt::format("  model {}  {} layers of {} experts", table.model_digest().substr(0, 16),
                        table.layers() - table.dense_layers_size(), table.experts());
  }
  text += "\n\n";
  if (table.members().empty()) return text + "no members yet\n";
  text += MembersText(reply);
  const bool any_expert =
      std::any_of(table.members().begin(), table.members().end(),
                  [](const wire::Member& m) { return m.role() == wire::ROLE_EXPERT; });
  if (any_expert && table.replicas_size() > 0) text += MapText(table);
  return text;
}

std::string StatusJson(const wire::StatusReply& reply) {
  using Json = nlohmann::ordered_json;
  const wire::ClusterTable& table = reply.table();
  Json json;
  json["router"] = {{"name", reply.router_name()}, {"incarnation", reply.router_incarnation()}};
  json["term"] = table.term();
  json["epoch"] = table.epoch();
  json["model_digest"] = table.model_digest();
  json["layers"] = table.layers();
  json["experts"] = table.experts();
  json["dense_layers"] =
      std::vector<uint32_t>(table.dense_layers().begin(), table.dense_layers().end());
  json["members"] = Json::array();
  for (const wire::Member& member : table.members()) {
    Json entry = {{"id", member.id()},
                  {"name", member.name()},
                  {"role", RoleName(member.role())},
                  {"state", StateName(member.state())},
                  {"incarnation", member.incarnation()},
                  {"control_address", member.control_address()},
                  {"admin_address", member.admin_address()},
                  {"device", member.device()},
                  {"numerics_id", member.numerics_id()}};
    if (const wire::MemberStatus* status = FindStatus(reply, member.id())) {
      entry["heartbeat_age_ms"] = status->heartbeat_age_ms();
      entry["acked_epoch"] = status->acked_epoch();
      entry["experts_held"] = status->held();
      entry["experts_assigned"] = status->assigned();
      entry["experts_capacity"] = status->capacity();
      entry["load"] = status->load();
      entry["endpoints"] =
          std::map<std::string, uint32_t>(status->endpoints().begin(), status->endpoints().end());
    }
    json["members"].push_back(std::move(entry));
  }
  // [layer][expert] → member ids
  json["replicas"] = Json::array();
  for (uint32_t layer = 0; layer < table.layers(); ++layer) {
    Json row = Json::array();
    for (uint32_t expert = 0; expert < table.experts(); ++expert) {
      const auto& ids = table.replicas(layer * table.experts() + expert).member_ids();
      row.push_back(std::vector<uint32_t>(ids.begin(), ids.end()));
    }
    json["replicas"].push_back(std::move(row));
  }
  // [layer][expert] → rows a second; none while nobody has said
  json["rows"] = Json::array();
  const bool measured = reply.expert_rows_size() == table.replicas_size();
  for (uint32_t layer = 0; layer < table.layers() && measured; ++layer) {
    const auto first = reply.expert_rows().begin() + layer * table.experts();
    json["rows"].push_back(std::vector<float>(first, first + table.experts()));
  }
  return json.dump() + "\n";
}

int RunStatus(int argc, const char* const* argv) {
  Options options;
  OptionTable table("bottega status",
                    "Shows the members of a cluster and who serves which experts.");
  table.Add("router", &options.router, "host:port of the router, or of several by commas")
      .Add("json", &options.json, "print one JSON object")
      .Add("watch", &options.watch, "go on until interrupted")
      .Add("limits", &options.limits, "print the limits of a cluster and what happens past them")
      .Add("interval", &options.interval, "how often --watch asks")
      .Add("timeout", &options.timeout, "how long to wait for an answer");
  if (std::optional<int> code = ParseOrExit(table, argc, argv, nullptr)) return *code;
  if (options.limits) {
    std::fputs(LimitsText().c_str(), stdout);
    return 0;
  }
  return ExitCode(AskAll(
      options, [&options](const wire::StatusReply& reply) { return Print(options, reply); }));
}

absl::StatusOr<wire::StatusReply> AskRouter(const std::string& router, Duration timeout) {
  wire::StatusReply answer;
  const Options options{.router = router, .timeout = timeout};
  RETURN_IF_ERROR(AskAll(options, [&answer](const wire::StatusReply& reply) {
    answer = reply;
    return absl::OkStatus();
  }));
  return answer;
}

}  // namespace bottega
