#include "router/lease.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "core/base/reason.h"
#include "router/etcd_lease.h"
#include "router/file_lease.h"

namespace bottega {
namespace {

class Sole final : public Lease {
 public:
  explicit Sole(uint64_t term) : first_(term) {}
  Task<absl::StatusOr<std::optional<uint64_t>>> TryAcquire(uint64_t above) override {
    if (first_ == 0) {
      last_ = NextTerm(last_, above);
    } else {
      last_ = std::max({first_, last_ + 1, above + 1});
    }
    co_return std::optional<uint64_t>(last_);
  }
  Task<absl::Status> Renew() override { co_return absl::OkStatus(); }
  Task<void> Release() override { co_return; }

 private:
  const uint64_t first_;
  uint64_t last_ = 0;
};

}  // namespace

uint64_t NextTerm(uint64_t stored, uint64_t above) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  return std::max({static_cast<uint64_t>(ms), stored + 1, above + 1});
}

std::unique_ptr<Lease> SoleLease(uint64_t term) { return std::make_unique<Sole>(term); }

absl::StatusOr<std::unique_ptr<Lease>> OpenLease(Loop& loop, std::string_view what, Duration ttl,
                                                 std::string_view name) {
  if (what == "none") return SoleLease();
  if (what.substr(0, 5) == "file:") return OpenFileLease(loop, what.substr(5), ttl);
  if (what.substr(0, 5) == "etcd:") return OpenEtcdLease(loop, what.substr(5), ttl, name);
  return MakeError(
      Reason::kInvalidValue,
      fmt::format("--lease {}: use none, file:PATH or etcd:http://HOST:PORT/KEY", what));
}

}  // namespace bottega
