#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/kernels/cpu/cpu.h"
#include "core/model/packed_model.h"
#include "core/service/context.h"
#include "core/service/router_session.h"
#include "core/service/scrape_hooks.h"
#include "core/transport/transport.h"
#include "expert-worker/background/expert_loader.h"
#include "expert-worker/background/retest.h"
#include "expert-worker/config.h"
#include "expert-worker/engine.h"
#include "expert-worker/expert_compute.h"
#include "expert-worker/metrics.h"

namespace bottega {

// What an expert worker must know of the model: how much of it there is, and whose it is.
struct ExpertModel {
  std::string digest;
  std::string numerics_id;
  ExchangeShape shape;
  uint64_t expert_bytes = 0;       // of one expert
  std::vector<bool> dense_layers;  // [layers]
};
ExpertModel DescribeExperts(const PackedModel& model, DType row_type);

// One expert worker: serves attention workers' pair streams, computes, holds what the router
// assigns. Start in this order, stop in reverse. Loop thread only; everything given outlives it.
class ExpertServer {
 public:
  ExpertServer(ServiceContext& context, ExpertConfig config, ExpertModel model,
               std::unique_ptr<ExpertCompute> compute, Transport& transport);
  // With the experts of a packed model.
  ExpertServer(ServiceContext& context, ExpertConfig config,
               std::shared_ptr<const PackedModel> model, Cpu cpu, Transport& transport);
  ~ExpertServer();

  // Fails hard and early with a reason: port busy.
  absl::Status Start();
  // Registers at the router and follows its assignments; on_refused ends the process.
  void Join(const RouterSessionOptions& router, std::function<void(absl::Status)> on_refused);
  // Without a router (tests, tools): as if it had assigned these.
  void Assign(std::vector<ExpertRef> experts);
  // Asks the router to move the experts away, waits until nothing points here and nothing is
  // queued.
  Task<absl::Status> Drain(Time deadline);
  void Stop();

  const std::string& address() const { return address_; }  // of the gRPC server
  // In the table, with all that was assigned loaded.
  bool ready() const;
  // For the log: what was done in the `span` since the last call; "" if nothing.
  std::string BusyLine(Duration span);
  MemberSelf Self() const;
  ExpertEngine& engine() { return engine_; }
  const ExpertLoader& loader() const { return loader_; }

 private:
  void OnTable(TableSnapshot table);
  Task<void> MeasureLoad();
  // Rows a second of each of `held` since the last call.
  std::vector<float> ExpertLoad(const std::vector<ExpertRef>& held);

  ServiceContext& context_;
  const ExpertConfig config_;
  const ExpertModel model_;
  const std::unique_ptr<ExpertCompute> compute_;
  ExpertEngine engine_;
  ExpertLoader loader_;
  Retest retest_;
  ExpertMetrics metrics_;
  std::unique_ptr<RouterSession> session_;
  ScrapeHooks::Hook scrape_;
  uint64_t told_work_ = 0;  // rows, at the last BusyLine
  Duration told_busy_{};
  TableSnapshot table_;
  std::string address_;
  double rows_per_second_ = 0;  // over about a second
  // Of the last ExpertLoad.
  std::vector<uint64_t> told_rows_;  // [layers * experts]
  Time told_at_{};
};

}  // namespace bottega
