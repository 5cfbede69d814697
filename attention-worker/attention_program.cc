#include "attention-worker/attention_program.h"

#include <optional>
#include <string>
#include <vector>

#include "attention-worker/attention_server.h"
#include "core/base/status.h"
#include "core/service/worker_process.h"

namespace bottega {
namespace {

struct Options {
  WorkerOptions worker;
  ByteCount kv_cache;
  AttentionConfig config;
};

OptionTable Table(Options* o) {
  OptionTable table("bottega-attention", "An attention worker: keeps the KV cache and the layers.");
  AddWorkerOptions(table, &o->worker);
  AddAttentionOptions(table, &o->config, &o->kv_cache);
  return table;
}

absl::Status Serve(Options options) {
  ASSIGN_OR_RETURN(auto process, WorkerProcess::Start(Role::kAttention, options.worker));
  AttentionConfig config = options.config;
  config.listen = process->listen();
  config.admin_address = process->admin_address();
  config.row_type = process->row_type();
  config.kv_bytes = options.kv_cache.value;
  config.detailed_metrics = process->detailed_metrics();
  AttentionServer server(process->context(), config, process->model(), process->cpu(),
                         process->transport());
  return RunWorker(*process, server);
}

}  // namespace

void AddAttentionOptions(OptionTable& table, AttentionConfig* config, ByteCount* kv_cache) {
  table.Add("kv-cache", kv_cache, "size of the KV pool; 0: 1 GiB")
      .Add("max-model-len", &config->max_model_len, "context; 0: what model and pool allow")
      .Range(0, 1 << 20)
      .Add("max-num-seqs", &config->max_num_seqs, "sequences at once")
      .Range(1, limits::kRunningRequestsMax)
      .Add("max-num-batched-tokens", &config->prefill_tokens, "prompt tokens in one step")
      .Range(1, limits::kPrefillChunkTokens)
      .Add("step-budget", &config->step_budget,
           "how long prefill may keep running streams waiting; 0: 2/3 of one of their steps")
      .Add("prefix-cache", &config->prefix_cache,
           "keep the KV of finished sequences for those that begin with the same tokens")
      .Add("num-speculative-tokens", &config->draft_tokens,
           "tokens of a sequence that a step may guess ahead and verify; 0: none")
      .Range(0, limits::kSequenceDraftTokensMax)
      .Add("hash-trace", &config->hash_trace, "file for a hash per (position, layer, stage)");
}

int RunAttentionProgram(int argc, const char* const* argv) {
  Options options;
  OptionTable table = Table(&options);
  std::vector<std::string> positional;
  if (std::optional<int> code = ParseOrExit(table, argc, argv, &positional)) return *code;
  if (!positional.empty()) options.worker.model.dir = positional.front();
  return ExitCode(Serve(std::move(options)));
}

}  // namespace bottega
