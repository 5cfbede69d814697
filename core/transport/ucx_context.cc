#include "core/transport/ucx_context.h"

#include <fmt/format.h>
#include <ucp/api/ucp.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string_view>

#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "core/transport/ucx_check.h"

namespace bottega {
namespace {

struct Setting {
  const char* key;          // as UCX 1.13 wants it
  const char* environment;  // as a site sets it
  const char* value;
};
// Every worker has a FIFO of its own in /dev/shm, and there are two workers for each pair: with
// these 0.58 MB each, by default 4.2. A segment holds a frame of 46 KB whole (in pieces it takes
// 2.5 times as long); UCX keeps lengths in 16 bits and crashes on larger ones. The FIFO holds a
// part of limits::kPartBytesMax; a receiver needs one buffer more than the FIFO has slots.
constexpr Setting kSharedMemory[] = {
    // Without it UCX refuses or takes TCP in silence, because peer failure handling is asked for.
    {"MM_ERROR_HANDLING", "UCX_POSIX_ERROR_HANDLING", "y"},
    {"MM_FIFO_SIZE", "UCX_POSIX_FIFO_SIZE", "8"},
    {"MM_SEG_SIZE", "UCX_POSIX_SEG_SIZE", "65280"},
    {"MM_RX_BUFS_GROW", "UCX_POSIX_RX_BUFS_GROW", "9"},
};
constexpr Setting kTcp[] = {
    {"TX_SEG_SIZE", "UCX_TCP_TX_SEG_SIZE", "64k"},  // 46 KB in one piece: a third of the time
};

// Unless the site's environment has its own.
absl::Status Set(ucp_config_t* config, const Setting& setting) {
  if (std::getenv(setting.environment) != nullptr) return absl::OkStatus();
  RETURN_IF_UCX_ERROR(ucp_config_modify(config, setting.key, setting.value),
                      fmt::format("{}={}", setting.environment, setting.value));
  return absl::OkStatus();
}

absl::Status SetAll(ucp_config_t* config, const std::string& kind, const std::string& tls,
                    const std::string& devices) {
  RETURN_IF_ERROR(Set(config, {"TLS", "UCX_TLS", tls.c_str()}));
  if (kind == "shm") {
    for (const Setting& setting : kSharedMemory) RETURN_IF_ERROR(Set(config, setting));
    return absl::OkStatus();
  }
  if (!devices.empty()) {
    RETURN_IF_ERROR(Set(config, {"NET_DEVICES", "UCX_NET_DEVICES", devices.c_str()}));
  }
  if (kind != "tcp") return absl::OkStatus();  // UCX warns of settings that nobody uses
  for (const Setting& setting : kTcp) RETURN_IF_ERROR(Set(config, setting));
  return absl::OkStatus();
}

}  // namespace

std::string KindOfTls(const std::string& tls) {
  constexpr std::string_view kShared[] = {"posix", "sysv", "shm", "sm", "cma", "self"};
  constexpr std::string_view kNetwork[] = {"tcp", "self"};
  const auto only = [&](auto& names) {
    for (absl::string_view part : absl::StrSplit(tls, ',')) {
      const std::string_view name(part.data(), part.size());
      if (std::find(std::begin(names), std::end(names), name) == std::end(names)) return false;
    }
    return true;
  };
  if (only(kNetwork)) return "tcp";
  return only(kShared) ? "shm" : "ucx";
}

absl::StatusOr<std::unique_ptr<UcxContext>> UcxContext::Create(const std::string& tls,
                                                               const std::string& devices) {
  const std::string kind = KindOfTls(tls);
  ucp_config_t* config = nullptr;
  RETURN_IF_UCX_ERROR(ucp_config_read(nullptr, nullptr, &config), "reading its configuration");
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  const absl::Status set = SetAll(config, kind, tls, devices);
  const ucs_status_t opened = set.ok() ? ucp_init(&params, config, &context) : UCS_OK;
  ucp_config_release(config);
  RETURN_IF_ERROR(set);
  RETURN_IF_UCX_ERROR(opened, fmt::format("ucp_init with TLS={} NET_DEVICES={}", tls, devices));
  return std::unique_ptr<UcxContext>(new UcxContext(kind, context));
}

UcxContext::~UcxContext() { ucp_cleanup(context_); }

}  // namespace bottega
