#include "cli/trace.h"

#include <fmt/format.h>

#include <cstdio>
#include <optional>
#include <set>

#include "cli/http_client.h"
#include "cli/status.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/service/options.h"
#include "core/service/process.h"
#include "core/service/service_process.h"
#include "observability/flight_recorder.h"

namespace bottega {
namespace {

struct Options {
  std::string router = "127.0.0.1:50061";
  std::string admin;
  Duration timeout = std::chrono::seconds(2);
};

// What one process remembers of the request.
absl::StatusOr<std::vector<TraceEvent>> AskProcess(const std::string& admin, uint64_t key,
                                                   Duration timeout) {
  ASSIGN_OR_RETURN(Url url, ParseUrl("http://" + admin));
  const HttpClient client(std::move(url), "", -1);
  ASSIGN_OR_RETURN(const HttpReply reply,
                   client.Get(fmt::format("/flight?request={:016x}&last=6000", key), timeout));
  if (reply.status != 200) {
    return absl::UnavailableError(fmt::format("its /flight answers {}", reply.status));
  }
  return ParseFlight(reply.body);
}

absl::Status Trace(const std::string& request_id, const Options& options) {
  std::map<uint32_t, std::string> names;
  std::set<std::string> admins;
  if (!options.admin.empty()) {
    admins.insert(options.admin);
  } else {
    ASSIGN_OR_RETURN(const internal::v1::StatusReply status,
                     AskRouter(options.router, options.timeout));
    for (const internal::v1::Member& member : status.table().members()) {
      names[member.id()] = member.name();
      const bool has_part = member.role() == internal::v1::ROLE_GATEWAY ||
                            member.role() == internal::v1::ROLE_ATTENTION;
      if (has_part && !member.admin_address().empty()) admins.insert(member.admin_address());
    }
  }
  std::vector<TraceEvent> events;
  for (const std::string& admin : admins) {
    absl::StatusOr<std::vector<TraceEvent>> found =
        AskProcess(admin, TraceKey(request_id), options.timeout);
    if (!found.ok()) {
      std::fprintf(stderr, "%s is left out: %s\n", admin.c_str(),
                   std::string(found.status().message()).c_str());
      continue;
    }
    events.insert(events.end(), found->begin(), found->end());
  }
  const std::string text = TraceText(std::move(events), names);
  if (text.empty()) {
    return absl::NotFoundError(
        fmt::format("no process remembers a request {}: the id is the answer's `id` or its "
                    "x-request-id header, "
                    "and each process keeps its last events only ({} asked)",
                    request_id, admins.size()));
  }
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

int RunTrace(int argc, const char* const* argv) {
  Options options;
  OptionTable table("bottega trace",
                    "The way of one request through a cluster: queue, steps, resends, failovers.");
  table.Positional("REQUEST_ID", 1, 1)
      .Add("router", &options.router, "address of the router")
      .Add("admin", &options.admin, "admin address of `bottega serve`, which has no router to ask")
      .Add("timeout", &options.timeout, "how long to wait for a process");
  std::vector<std::string> positional;
  if (std::optional<int> code = ParseOrExit(table, argc, argv, &positional)) return *code;
  return ExitCode(Trace(positional.front(), options));
}

}  // namespace bottega
