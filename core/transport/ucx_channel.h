#pragma once

#include <ucp/api/ucp.h>

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/time.h"
#include "core/transport/buffer_pool.h"
#include "core/transport/transport.h"
#include "core/transport/ucx_context.h"

namespace bottega {

// One peer: a ucp_worker of its own and the endpoint to it. With a shared worker a peer that dies
// or stops between claiming a slot of our FIFO and filling it silences all the others, with no
// error. For ucx_transport.cc only, which polls it; no callback leaves it.
class UcxChannel {
 public:
  enum class State : uint8_t { kOpen, kConnecting, kUp, kDown };
  enum class Armed : uint8_t { kYes, kBusy, kStalled };

  // `context` and `pool` outlive it.
  static absl::StatusOr<std::unique_ptr<UcxChannel>> Open(UcxContext& context, BufferPool& pool);
  // Sends not done are dropped; waits at most a bounded number of rounds for UCX to say so.
  ~UcxChannel();
  UcxChannel(const UcxChannel&) = delete;
  UcxChannel& operator=(const UcxChannel&) = delete;

  const std::string& kind() const { return context_.kind(); }
  const std::string& address() const { return address_; }
  int fd() const { return fd_; }  // readable when an armed channel has something to do
  State state() const { return state_; }
  const absl::Status& why_down() const { return why_down_; }
  uint64_t bytes_sent() const { return bytes_sent_; }
  uint64_t bytes_received() const { return bytes_received_; }

  // It must be up by `deadline`, or it goes down.
  absl::Status Connect(const std::string& peer_address, Time deadline);
  absl::Status Post(FrameBuffer frame);

  // Polls, bounded; true if anything happened. What came is in TakeArrived.
  bool Progress(Time now);
  std::vector<FrameBuffer> TakeArrived() { return std::exchange(arrived_, {}); }
  // Prepares for sleep on fd(); kBusy: poll again first. kStalled: fd() tells nothing, poll again
  // at next_look().
  Armed Arm(Time now);
  // The fd told.
  void Disarm() { armed_ = false; }
  // When it wants to be polled though its fd is silent; kNever if it does not.
  Time next_look() const;

 private:
  // A frame while UCX reads it; the coroutine that posted it may be gone.
  struct Send {
    UcxChannel* channel = nullptr;
    FrameBuffer frame;
    std::list<Send>::iterator self;
  };
  enum class Greeting : uint8_t { kHello = 1, kWelcome = 2 };

  UcxChannel(UcxContext& context, BufferPool& pool) : context_(context), pool_(pool) {}
  absl::Status Init();
  absl::Status SendMessage(unsigned message, const void* data, size_t bytes, FrameBuffer frame);
  void Greet(Greeting greeting);
  void AnswerGreetings(Time now);
  void GoDown(absl::Status why);
  void Stall(Time now);

  // UCX' callbacks, inside its progress: they note what happened, no more.
  static void OnError(void* arg, ucp_ep_h ep, ucs_status_t status);
  static void OnSent(void* request, ucs_status_t status, void* arg);
  static ucs_status_t OnFrame(void* arg, const void* header, size_t header_bytes, void* data,
                              size_t bytes, const ucp_am_recv_param_t* param);
  static ucs_status_t OnGreeting(void* arg, const void* header, size_t header_bytes, void* data,
                                 size_t bytes, const ucp_am_recv_param_t* param);

  UcxContext& context_;
  BufferPool& pool_;
  ucp_worker_h worker_ = nullptr;
  ucp_ep_h ep_ = nullptr;
  int fd_ = -1;
  std::string address_;
  State state_ = State::kOpen;
  absl::Status why_down_;
  Time deadline_ = kNever;

  std::list<Send> pending_;  // UCX has them
  std::list<Send> spare_;
  std::vector<FrameBuffer> arrived_;
  uint64_t bytes_sent_ = 0;
  uint64_t bytes_received_ = 0;
  bool greeted_ = false;   // the peer's hello is here and not answered
  bool welcomed_ = false;  // the peer has heard our hello

  uint64_t events_ = 0;  // what happened so far: what progress is measured by
  uint64_t seen_ = 0;    // of events_, those that Progress has told
  int busy_ = 0;         // fruitless attempts to arm
  bool armed_ = false;
  Time stalled_since_{};
  Time stalled_until_{};
};

}  // namespace bottega
