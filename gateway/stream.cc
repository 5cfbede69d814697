#include "gateway/stream.h"

#include "gateway/live_request.h"

namespace bottega::gateway {

// THE data path of the gateway:
//   admit → render → tokenize → route → log → detokenize → parse → stream
Task<void> ServeStream(GatewayService& gateway, Api api, HttpRequest http,
                       std::shared_ptr<Reply> reply) {
  LiveRequest request(gateway, api, std::move(http), std::move(reply));

  // admit: the cluster's one queue, or a refusal at once
  absl::Status status = request.Admit();

  // render, tokenize: on the text pool
  if (status.ok()) {
    absl::StatusOr<PreparedRequest> prepared = co_await request.RenderAndTokenize();
    status = prepared.ok() ? request.Begin(*std::move(prepared)) : prepared.status();
  }

  // route: each choice asks for a place at an attention worker and is submitted there
  if (status.ok()) request.RouteAll();

  // log → detokenize → parse → stream: one event at a time, until every choice has ended
  while (status.ok() && request.unfinished()) {
    absl::StatusOr<RequestEvent> event = co_await request.NextEvent();
    status = event.ok() ? request.Handle(*event) : request.HandleSilence(event.status());
  }

  if (status.ok()) {
    request.Finish();
  } else {
    request.Fail(status);
  }
}

}  // namespace bottega::gateway
