#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bottega/internal/v1/attention.pb.h"
#include "core/base/loop.h"
#include "core/cluster/table.h"
#include "core/service/context.h"
#include "core/service/network.h"
#include "gateway/request_event.h"

namespace bottega::gateway {

// What makes two workers give the same bytes; a request is pinned to one.
struct AnswerIdentity {
  std::string model_digest;
  std::string numerics_id;
  friend bool operator==(const AnswerIdentity&, const AnswerIdentity&) = default;
};

// What of Submit is not for every version of a worker (AttentionHello).
struct WorkerFeatures {
  bool edits_logits = false;
  bool limits_thinking = false;

  bool Cover(const WorkerFeatures& need) const {
    return edits_logits >= need.edits_logits && limits_thinking >= need.limits_thinking;
  }
};

// What a sequence needs of its worker.
struct WorkerNeed {
  size_t tokens = 0;                     // prompt and tokens so far
  std::optional<AnswerIdentity> pinned;  // the same bytes as before, if the request has begun
  WorkerFeatures features;
};

// One connected attention worker, as the choice of a worker sees it.
struct WorkerView {
  MemberId id;
  AnswerIdentity identity;
  WorkerFeatures features;
  uint32_t free_slots = 0;
  uint32_t free_blocks = 0;
  uint32_t block_tokens = 16;
  size_t live = 0;        // sequences of this gateway
  bool resting = false;   // said BUSY a moment ago
  bool draining = false;  // finishes what it has, takes nothing new

  // Room or not.
  bool Suits(const WorkerNeed& need) const {
    return (!need.pinned || identity == *need.pinned) && features.Cover(need.features);
  }
};

// A worker that has sequences of ours and says nothing is as good as dead: its sequences are told
// lost, and it is used again once it speaks again.
//
// One stream to each attention worker of the table: connects with backoff, sends submits and
// cancels, hands each token to its request. When a stream ends every live sequence of that worker
// is told (kLost) and forgotten. Loop thread only.
class AttentionClients {
 public:
  // `on_change`: room or workers may have come or gone.
  // `silence_max`: how long a worker that has our sequences may say nothing.
  AttentionClients(const ServiceContext& context, Duration silence_max,
                   std::function<void()> on_change);
  ~AttentionClients();

  void UpdateTable(const TableSnapshot& table);

  std::vector<WorkerView> Workers() const;
  bool any_connected() const { return connected_ > 0; }
  // Since when no worker is connected; kNever while one is.
  Time alone_since() const { return alone_since_; }
  // The smallest context of the connected workers; 0: unknown.
  uint32_t max_model_len() const;
  std::optional<AnswerIdentity> IdentityOf(MemberId worker) const;
  double kv_usage_ratio() const;

  // Sends one sequence; its events go to `events` until Forget. The key is in no other use.
  absl::Status Submit(MemberId worker, const internal::v1::Submit& submit, RequestEvents* events,
                      int sequence);
  // The suspect may run: if its worker dies now, it is the cause.
  bool StartTrial(uint64_t request_key);
  // A kFate event comes once it is known whether the process that `worker` was has died: the router
  // says so or another incarnation answers, against that it speaks again or kFateMax has passed.
  // One for a request; Forget ends it.
  void AskFate(MemberId worker, Incarnation incarnation, uint64_t request_key,
               RequestEvents* events, int sequence);
  std::optional<Incarnation> IncarnationOf(MemberId worker) const;

  // Nothing more is handed over for this key. `cancel`: the worker stops it too.
  void Forget(uint64_t request_key, bool cancel);
  // The worker refused for lack of room: it is left alone for a moment.
  void Rest(MemberId worker);

  // Ends all streams; no reconnects.
  void Close();

 private:
  using Stream = MessageStream<internal::v1::GatewayMessage, internal::v1::AttentionMessage>;
  struct Worker;
  struct Live {
    std::shared_ptr<Worker> worker;
    uint32_t owner_epoch;
    RequestEvents* events;
    int sequence;
  };

  // Somebody waits to hear what became of a process.
  struct Fate {
    MemberId worker;
    Incarnation incarnation;
    RequestEvents* events;
    int sequence;
    Time until;
  };

  static Task<void> Run(AttentionClients* self, std::shared_ptr<Worker> worker);
  static Task<absl::Status> Session(AttentionClients* self, std::shared_ptr<Worker> worker);
  void Deliver(Worker& worker, const internal::v1::StepOutput& step);
  void DeliverTo(const Worker& worker, uint64_t key, uint32_t owner_epoch, RequestEvent event,
                 bool last);
  void Lose(const std::shared_ptr<Worker>& worker, const absl::Status& why);
  void TellFates(Incarnation incarnation, bool died);
  Task<void> ExpireFates();
  // Why a worker that has our sequences is taken for dead; Ok while it is not.
  absl::Status Silence(const Worker& worker) const;
  Time NextLook(const Worker& worker) const;
  void TakeGrants(Worker& worker, const internal::v1::Grants& grants);

  const ServiceContext& context_;
  const std::function<void()> on_change_;
  std::map<MemberId, std::shared_ptr<Worker>> workers_;  // of the table
  std::map<uint64_t, Live> live_;                        // by request key
  std::map<uint64_t, Fate> fates_;                       // likewise
  const Duration silence_max_;
  size_t connected_ = 0;
  Time alone_since_;
  bool closed_ = false;
};

// The worker for a sequence: one that suits and has enough room, then fewest live sequences, most
// free blocks, lowest id. A worker that carries nothing of ours is always worth one try: grants may
// be stale. Pure.
std::optional<MemberId> ChooseWorker(const std::vector<WorkerView>& workers,
                                     const WorkerNeed& need);

}  // namespace bottega::gateway
