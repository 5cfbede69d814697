#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gateway/answer_writer.h"
#include "gateway/choice.h"
#include "gateway/gateway_service.h"
#include "gateway/prompt.h"
#include "gateway/request_event.h"

namespace bottega::gateway {

// The state of one request and what can be done with it; stream.cc says in which order. Loop thread
// only. Destroying it takes it out of every queue and list, and sends nothing.
class LiveRequest {
 public:
  LiveRequest(GatewayService& gateway, Api api, HttpRequest http, std::shared_ptr<Reply> reply);
  ~LiveRequest();

  absl::Status Admit();
  Task<absl::StatusOr<PreparedRequest>> RenderAndTokenize();
  absl::Status Begin(PreparedRequest prepared);
  void RouteAll();
  bool unfinished() const { return unfinished_ > 0; }

  // The next thing that happens: an event, or DeadlineExceeded when a keep-alive is due.
  Task<absl::StatusOr<RequestEvent>> NextEvent();
  // Not ok: the request fails with it.
  absl::Status Handle(const RequestEvent& event);
  absl::Status HandleSilence(const absl::Status& why);

  void Finish();
  // Stops what runs at workers and tells the client, if it is there.
  void Fail(const absl::Status& why);

 private:
  // One choice and where it runs.
  struct Sequence {
    uint64_t key = 0;
    size_t prompt = 0;  // index
    uint32_t choice_of_prompt = 0;
    std::unique_ptr<Choice> choice;
    Admission::Place place;
    Time waiting_since = kNever;  // for a place, refusals of workers included; kNever: it runs
    uint32_t cached = 0;          // prompt tokens that its first worker had in its prefix cache
    int migrations = 0;
    bool replayed = false;  // after an internal error of a worker
    bool running = false;
    bool suspect = false;                 // a worker was lost under it, and no token came since
    std::optional<Incarnation> on_trial;  // where it runs alone among suspects
    std::optional<Time> last_token;
    std::optional<Time> lost_at;
  };
  // Shared with what tells that the client left.
  struct Alive {
    LiveRequest* request;
  };

  void MakeChoices();
  ToolCallParser::Options ToolOptions(size_t prompt, int choice) const;
  void MakeWriter();
  void Route(int sequence, bool at_head);
  void Submit(int sequence, MemberId worker);
  internal::v1::Submit SubmitOf(const Sequence& sequence) const;
  void PutLogitEdits(internal::v1::Sampling& sampling) const;
  absl::Status OnToken(int sequence, const RequestEvent& event);
  absl::Status OnEnded(int sequence, const RequestEvent& event);
  absl::Status OnLost(int sequence, const RequestEvent& event);
  absl::Status OnFate(int sequence, bool died);
  void OnTrial(int sequence, const RequestEvent& event);
  absl::Status Migrate(int sequence, const absl::Status& why);
  absl::Status GoOn(int sequence, const absl::Status& why);
  absl::Status QuarantineThis();
  void Deliver(const ChoiceDelta& delta);
  void ObserveToken(Sequence& sequence);
  void Shown();  // something went to the client
  void CountRunning();
  void Record(FlightKind kind, uint64_t a, uint64_t b, MemberId worker = {}) const;
  void Pin(MemberId worker);
  Usage UsageSoFar() const;
  void Log(int code, const absl::Status& why);

  GatewayService& gateway_;
  const Api api_;
  HttpRequest http_;
  const std::shared_ptr<Reply> reply_;
  const Time arrived_;
  uint64_t trace_key_;  // of the id that the client knows
  Time deadline_;
  std::shared_ptr<Alive> alive_;
  RequestEvents events_;

  std::optional<Gate::Pass> pass_;
  std::optional<Admission::Entry> waiting_;  // until every sequence had a place once
  PreparedRequest prepared_;
  std::string id_;
  bool owns_id_ = false;  // in the gateway's list of live ids
  int64_t seed_ = 0;
  std::optional<AnswerIdentity> pinned_;
  std::vector<Sequence> sequences_;
  std::unique_ptr<AnswerWriter> writer_;
  Time last_shown_;
  size_t unfinished_ = 0;
  bool any_token_ = false;
  bool counted_running_ = false;
  bool counted_stream_ = false;
};

}  // namespace bottega::gateway
