#include "expert-worker/expert_program.h"

#include <optional>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/service/worker_process.h"
#include "expert-worker/expert_server.h"

namespace bottega {
namespace {

struct Options {
  WorkerOptions worker;
  ByteCount capacity;
};

OptionTable Table(Options* o) {
  OptionTable table("bottega-expert", "An expert worker: turns rows into rows.");
  AddWorkerOptions(table, &o->worker);
  table.Add("capacity", &o->capacity, "memory for experts; 0: all of the model's");
  return table;
}

absl::Status Serve(Options options) {
  ASSIGN_OR_RETURN(auto process, WorkerProcess::Start(Role::kExpert, options.worker));
  ExpertConfig config;
  config.listen = process->listen();
  config.admin_address = process->admin_address();
  config.row_type = process->row_type();
  config.capacity_bytes = options.capacity.value;
  config.detailed_metrics = process->detailed_metrics();
  ExpertServer server(process->context(), config, process->model(), process->cpu(),
                      process->transport());
  return RunWorker(*process, server);
}

}  // namespace

int RunExpertProgram(int argc, const char* const* argv) {
  Options options;
  OptionTable table = Table(&options);
  std::vector<std::string> positional;
  if (std::optional<int> code = ParseOrExit(table, argc, argv, &positional)) return *code;
  if (!positional.empty()) options.worker.model.dir = positional.front();
  return ExitCode(Serve(std::move(options)));
}

}  // namespace bottega
