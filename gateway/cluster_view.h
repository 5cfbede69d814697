#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cluster/table.h"
#include "core/service/context.h"
#include "core/service/status_client.h"

namespace bottega::gateway {

// How the cluster is, for whoever looks at it: the router is asked only then, and twice a second at
// most, however many look. Loop thread only.
class ClusterView {
 public:
  using Status = std::shared_ptr<const internal::v1::StatusReply>;

  explicit ClusterView(const ServiceContext& context);

  void KnowRouters(const std::string& routers);
  void UpdateTable(TableSnapshot table) { table_ = std::move(table); }
  // Calls `answer` once with what the router says. If none answers: with the table that this
  // gateway works with, which names no router; before there is one with null.
  void Ask(std::function<void(Status)> answer);

 private:
  static Task<void> AskRouter(ClusterView* self);
  Status Newest(absl::StatusOr<internal::v1::StatusReply> reply) const;

  const ServiceContext& context_;
  std::unique_ptr<StatusClient> client_;
  TableSnapshot table_;
  std::vector<std::function<void(Status)>> waiting_;
  bool asking_ = false;
  Status last_;
  Time last_at_{};
};

}  // namespace bottega::gateway
