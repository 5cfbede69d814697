#include <fmt/format.h>

#include <map>

#include "core/base/reason.h"
#include "core/service/table_codec.h"
#include "gateway/error_body.h"
#include "gateway/http/routes.h"

namespace bottega::gateway {
namespace {

namespace wire = internal::v1;

// No addresses: clients have no business there.
Json MembersJson(const wire::StatusReply& reply) {
  std::map<uint32_t, const wire::MemberStatus*> statuses;
  for (const wire::MemberStatus& status : reply.members()) statuses[status.id()] = &status;
  Json members = Json::array();
  for (const wire::Member& member : reply.table().members()) {
    Json entry = {{"id", member.id()},
                  {"name", member.name()},
                  {"role", RoleName(member.role())},
                  {"state", StateName(member.state())},
                  {"incarnation", fmt::format("{:016x}", member.incarnation())}};
    if (auto found = statuses.find(member.id()); found != statuses.end()) {
      const wire::MemberStatus& status = *found->second;
      entry["heartbeat_age_ms"] = status.heartbeat_age_ms();
      entry["load"] = status.load();
      if (member.role() == wire::ROLE_EXPERT) {
        entry["experts_held"] = status.held();
        entry["experts_assigned"] = status.assigned();
      }
    }
    members.push_back(std::move(entry));
  }
  return members;
}

// [layer][expert] of a flat list, each made by `one`.
template <class List, class One>
Json LayersJson(const wire::ClusterTable& table, const List& flat, One one) {
  Json layers = Json::array();
  for (uint32_t layer = 0; layer < table.layers(); ++layer) {
    Json row = Json::array();
    for (uint32_t expert = 0; expert < table.experts(); ++expert) {
      row.push_back(one(flat[static_cast<int>(layer * table.experts() + expert)]));
    }
    layers.push_back(std::move(row));
  }
  return layers;
}

Json ClusterJson(const wire::StatusReply& reply) {
  const wire::ClusterTable& table = reply.table();
  Json json = {{"object", "cluster"},
               {"router", nullptr},
               {"term", table.term()},
               {"epoch", table.epoch()},
               {"layers", table.layers()},
               {"experts", table.experts()},
               {"dense_layers", Json(table.dense_layers())},
               {"members", MembersJson(reply)},
               {"rows", nullptr}};
  if (!reply.router_name().empty()) json["router"] = reply.router_name();
  json["replicas"] = LayersJson(table, table.replicas(), [](const wire::Replicas& replicas) {
    return Json(replicas.member_ids());
  });
  if (!reply.expert_rows().empty()) {
    json["rows"] = LayersJson(table, reply.expert_rows(),
                              [](float rows) { return Json(static_cast<int64_t>(rows + 0.5F)); });
  }
  return json;
}

void AnswerWith(GatewayService& gateway, ClusterView::Status status, const std::string& id,
                const std::shared_ptr<Reply>& reply) {
  if (status == nullptr) {
    ReplyError(*reply, MakeError(Reason::kLoading, "no router has sent a table yet"), id);
    return;
  }
  // A thousand and more experts: not on the loop.
  const bool taken = gateway.pool().Submit(
      [status, id, reply] { ReplyJson(*reply, 200, ClusterJson(*status), id); });
  if (!taken) ReplyError(*reply, MakeError(Reason::kQueueFull, "too many ask at once"), id);
}

}  // namespace

// GET /v1/cluster: who is there, who holds which expert, and how many rows a second go where.
void ServeCluster(const RouteContext& context, HttpRequest request, std::shared_ptr<Reply> reply) {
  context.loop->Post([weak = context.service, id = request.request_id, reply = std::move(reply)] {
    std::shared_ptr<GatewayService> gateway = weak.lock();
    if (gateway == nullptr) return;  // the dropped reply cuts the connection
    gateway->cluster().Ask([gateway = gateway.get(), id, reply](ClusterView::Status status) {
      AnswerWith(*gateway, std::move(status), id, reply);
    });
  });
}

}  // namespace bottega::gateway
