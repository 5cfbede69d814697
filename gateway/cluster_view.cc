#include "gateway/cluster_view.h"

#include <algorithm>
#include <utility>

#include "core/service/table_codec.h"

namespace bottega::gateway {
namespace {

constexpr Duration kFresh = std::chrono::milliseconds(500);
constexpr Duration kRouterTimeout = std::chrono::seconds(1);

constexpr float kRowsMax = 1e12;  // a second: more than any hardware does

bool IsSound(const internal::v1::StatusReply& reply) {
  const auto& rows = reply.expert_rows();
  if (!DecodeTable(reply.table()).ok()) return false;
  if (!rows.empty() && rows.size() != reply.table().replicas_size()) return false;
  return std::all_of(rows.begin(), rows.end(), [](float r) { return r >= 0 && r <= kRowsMax; });
}

}  // namespace

ClusterView::ClusterView(const ServiceContext& context) : context_(context) {}

void ClusterView::KnowRouters(const std::string& routers) {
  client_ = std::make_unique<StatusClient>(context_.loop, context_.network, context_.node, routers);
}

void ClusterView::Ask(std::function<void(Status)> answer) {
  if (last_ != nullptr && context_.loop.Now() - last_at_ < kFresh) return answer(last_);
  waiting_.push_back(std::move(answer));
  if (std::exchange(asking_, true)) return;
  context_.loop.Spawn(context_.node, AskRouter(this));
}

ClusterView::Status ClusterView::Newest(absl::StatusOr<internal::v1::StatusReply> reply) const {
  if (reply.ok() && IsSound(*reply)) {
    return std::make_shared<const internal::v1::StatusReply>(*std::move(reply));
  }
  if (table_ == nullptr) return nullptr;
  internal::v1::StatusReply own;
  *own.mutable_table() = EncodeTable(*table_);
  return std::make_shared<const internal::v1::StatusReply>(std::move(own));
}

Task<void> ClusterView::AskRouter(ClusterView* self) {
  absl::StatusOr<internal::v1::StatusReply> reply = absl::UnavailableError("no router is known");
  if (self->client_ != nullptr) reply = co_await self->client_->Ask(kRouterTimeout);
  self->last_ = self->Newest(std::move(reply));
  self->last_at_ = self->context_.loop.Now();
  self->asking_ = false;
  for (const auto& answer : std::exchange(self->waiting_, {})) answer(self->last_);
}

}  // namespace bottega::gateway
