#pragma once

#include <memory>
#include <string>

#include "bench/frame_link.h"
#include "core/base/loop.h"
#include "core/transport/ucx_transport.h"

namespace bottega {

// Our transport as the workers use it: frames leased, filled and posted on a loop that sleeps when
// there is nothing to do; messages longer than a part of the exchange go as parts.
class UcxLink final : public FrameLink {
 public:
  // `exchange` as the workers' flag; the addresses are swapped over `control`.
  UcxLink(int control, const std::string& exchange);

  void Send(absl::Span<const std::byte> frame) override;
  size_t frame_bytes_max() const override;
  void Run(std::function<void()> start, OnFrame on_frame) override;
  void Stop() override { loop_->Stop(); }
  // The far end: answers until `control` closes.
  void Serve(int control);

 private:
  const std::unique_ptr<Loop> loop_;
  std::unique_ptr<Transport> transport_;
  EndpointId peer_;
  OnFrame on_frame_;
};

}  // namespace bottega
