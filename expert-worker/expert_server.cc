#include "expert-worker/expert_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/base/status.h"
#include "core/cluster/protocol.h"
#include "core/service/transport_metrics.h"
#include "expert-worker/ops/connect.h"
#include "expert-worker/packed_experts.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr Duration kLoadInterval = 500ms;

}  // namespace

ExpertModel DescribeExperts(const PackedModel& model, DType row_type) {
  const ModelConfig& config = model.config();
  ExpertModel described;
  described.digest = model.digest();
  described.numerics_id = fmt::format("{}-{}", model.numerics_base(), std::string(Name(row_type)));
  described.shape = {.layers = static_cast<uint32_t>(config.num_layers),
                     .experts = static_cast<uint32_t>(config.num_experts),
                     .top_k = static_cast<uint32_t>(config.experts_per_token),
                     .hidden = static_cast<uint32_t>(config.hidden_size),
                     .row_type = row_type};
  described.expert_bytes = model.ExpertBytes();
  for (uint8_t moe : config.is_moe_layer) described.dense_layers.push_back(moe == 0);
  return described;
}

ExpertServer::ExpertServer(ServiceContext& context, ExpertConfig config, ExpertModel model,
                           std::unique_ptr<ExpertCompute> compute, Transport& transport)
    : context_(context),
      config_(std::move(config)),
      model_(std::move(model)),
      compute_(std::move(compute)),
      engine_(context, transport, *compute_,
              {.shape = model_.shape, .credits = config_.credits, .item_time = config_.item_time}),
      loader_(engine_,
              {.expert_bytes = model_.expert_bytes, .expected_bytes = config_.expected_bytes},
              [this](std::vector<ExpertRef> held) {
                if (session_ != nullptr) session_->SetHeld(std::move(held));
              }),
      retest_(engine_),
      metrics_(context.metrics, model_.shape, config_.detailed_metrics) {}

ExpertServer::ExpertServer(ServiceContext& context, ExpertConfig config,
                           std::shared_ptr<const PackedModel> model, Cpu cpu, Transport& transport)
    : ExpertServer(context, config, DescribeExperts(*model, config.row_type),
                   std::make_unique<PackedExperts>(model, cpu, config.row_type, &context.faults),
                   transport) {}

// Its tasks use its members: they end first. Nothing is sent by that.
ExpertServer::~ExpertServer() { context_.loop.Kill(context_.node); }

absl::Status ExpertServer::Start() {
  if (config_.detailed_metrics) RETURN_IF_ERROR(ExpertMetrics::CheckDetailed(model_.shape));
  context_.loop.Spawn(context_.node, engine_.Run());
  context_.loop.Spawn(context_.node, loader_.Run());
  context_.loop.Spawn(context_.node, retest_.Run());
  context_.loop.Spawn(context_.node, MeasureLoad());
  if (context_.scrape != nullptr) {
    scrape_ = context_.scrape->Add([this] {
      metrics_.Update(engine_, loader_.missing());
      CopyTransportBytes(engine_.transport(), context_.metrics);
      CopyTransportEndpoints(engine_.transport(), context_.metrics);
    });
  }
  const PairTerms terms{kProtocol, model_.digest, model_.numerics_id};
  std::vector<std::pair<std::string, Network::Handler>> methods;
  methods.emplace_back("/bottega.internal.v1.Expert/Pair",
                       [this, terms](std::unique_ptr<ByteStream> stream) {
                         return Connect(&engine_, terms, std::move(stream));
                       });
  ASSIGN_OR_RETURN(address_,
                   context_.network.Serve(context_.node, config_.listen, std::move(methods)));
  context_.log.Info(fmt::format("{} serves experts at {}: {}, {} rows of credit", context_.name,
                                address_, model_.numerics_id, config_.credits));
  return absl::OkStatus();
}

MemberSelf ExpertServer::Self() const {
  MemberSelf self;
  self.member.incarnation = context_.incarnation;
  self.member.role = Role::kExpert;
  self.member.name = context_.name;
  self.member.control_address = address_;
  self.member.admin_address = config_.admin_address;
  self.member.device = "cpu";
  self.member.protocol_min = self.member.protocol_max = kProtocol;
  self.member.numerics_id = model_.numerics_id;
  self.model_digest = model_.digest;
  self.layers = model_.shape.layers;
  self.experts = model_.shape.experts;
  self.expert_bytes = model_.expert_bytes;
  self.capacity_bytes = config_.capacity_bytes > 0
                            ? config_.capacity_bytes
                            : model_.expert_bytes * self.layers * self.experts;
  self.dense_layers = model_.dense_layers;
  return self;
}

void ExpertServer::Join(const RouterSessionOptions& router,
                        std::function<void(absl::Status)> on_refused) {
  session_ = std::make_unique<RouterSession>(
      context_, Self(), router,
      RouterSession::Callbacks{
          .on_table = [this](TableSnapshot table) { OnTable(std::move(table)); },
          .on_assignment = [this](std::vector<ExpertRef> experts) { Assign(std::move(experts)); },
          .load = [this] { return rows_per_second_; },
          .expert_load = [this](const std::vector<ExpertRef>& held) { return ExpertLoad(held); },
          .on_quarantine = [this] { retest_.Ask(); },
          .self_tests_passed = [this] { return retest_.passed(); },
          .endpoints = [this] { return EndpointsUp(engine_.transport()); },
          .on_refused = std::move(on_refused)});
  session_->Start();
}

void ExpertServer::Assign(std::vector<ExpertRef> experts) {
  loader_.SetAssignment(std::move(experts));
}

void ExpertServer::OnTable(TableSnapshot table) {
  table_ = std::move(table);
  loader_.SetTable(table_, session_ == nullptr ? std::nullopt : session_->id());
}

std::vector<float> ExpertServer::ExpertLoad(const std::vector<ExpertRef>& held) {
  const std::vector<uint64_t>& rows = engine_.expert_rows();
  const Time now = context_.loop.Now();
  const double seconds = std::max(1e-3, Seconds(now - told_at_));
  told_at_ = now;
  told_rows_.resize(rows.size());
  std::vector<float> load;
  for (const ExpertRef& ref : held) {
    const size_t at = size_t{ref.layer.value} * model_.shape.experts + ref.expert.value;
    load.push_back(static_cast<float>(static_cast<double>(rows[at] - told_rows_[at]) / seconds));
  }
  told_rows_ = rows;
  return load;
}

std::string ExpertServer::BusyLine(Duration span) {
  const ExpertStats& stats = engine_.stats();
  const uint64_t all = stats.rows_decode + stats.rows_prefill;
  const uint64_t rows = all - std::exchange(told_work_, all);
  const Duration busy = stats.busy - std::exchange(told_busy_, stats.busy);
  if (rows == 0) return "";
  return fmt::format("{:.0f} rows/s, busy {:.0f} %; {} rows waiting, {} experts held",
                     static_cast<double>(rows) / Seconds(span), 100 * Seconds(busy) / Seconds(span),
                     engine_.queued_rows(), engine_.held().size());
}

bool ExpertServer::ready() const {
  if (table_ == nullptr || !loader_.assigned() || loader_.missing() > 0) return false;
  return std::any_of(table_->members.begin(), table_->members.end(), [this](const Member& member) {
    return member.incarnation == context_.incarnation && member.state == MemberState::kActive;
  });
}

Task<absl::Status> ExpertServer::Drain(Time deadline) {
  absl::Status left;
  if (session_ != nullptr) left = co_await session_->Drain(deadline);
  while (!engine_.idle() && context_.loop.Now() < deadline) {
    co_await context_.loop.Sleep(5ms);
  }
  co_return engine_.idle() ? left : absl::DeadlineExceededError("rows are queued");
}

void ExpertServer::Stop() {
  if (session_ != nullptr) session_->Stop();
  context_.network.Shutdown(context_.node);
}

Task<void> ExpertServer::MeasureLoad() {
  uint64_t before = 0;
  while (true) {
    const uint64_t rows = engine_.stats().rows_decode + engine_.stats().rows_prefill;
    const double rate = static_cast<double>(rows - before) / Seconds(kLoadInterval);
    before = rows;
    rows_per_second_ += 0.5 * (rate - rows_per_second_);
    co_await context_.loop.Sleep(kLoadInterval);
  }
}

}  // namespace bottega
