#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct ucp_context;

namespace bottega {

// The kind of a UCX_TLS list: "shm" or "tcp" if it names nothing else, "ucx" for all others.
std::string KindOfTls(const std::string& tls);

// One ucp_context: the transports and settings that all its workers share. For ucx_*.cc only.
class UcxContext {
 public:
  // `tls` and `devices` are UCX_TLS and UCX_NET_DEVICES; devices "" leaves UCX' own choice.
  // Whatever the site's environment sets as UCX_* wins over our settings.
  static absl::StatusOr<std::unique_ptr<UcxContext>> Create(const std::string& tls,
                                                            const std::string& devices);
  ~UcxContext();
  UcxContext(const UcxContext&) = delete;
  UcxContext& operator=(const UcxContext&) = delete;

  const std::string& kind() const { return kind_; }
  ucp_context* get() const { return context_; }

 private:
  UcxContext(std::string kind, ucp_context* context) : kind_(std::move(kind)), context_(context) {}

  const std::string kind_;
  ucp_context* const context_;
};

}  // namespace bottega
