#include "expert-worker/ops/connect.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>
#include <vector>

#include "bottega/internal/v1/expert.pb.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
using internal::v1::PairFromAttention;
using internal::v1::PairFromExpert;
using Stream = MessageStream<PairFromExpert, PairFromAttention>;
constexpr Duration kHelloTimeout = 2s;
constexpr Duration kCostInterval = 200ms;
constexpr double kQueueNewsUs = 5000;

absl::Status CheckTerms(const internal::v1::PairHello& hello, const PairTerms& terms) {
  auto differs = [](const char* what, const std::string& theirs, const std::string& ours) {
    return absl::FailedPreconditionError(
        fmt::format("{}: attention worker has '{}', expert worker '{}'", what, theirs, ours));
  };
  if (hello.protocol() != terms.protocol) {
    return differs("protocol", std::to_string(hello.protocol()), std::to_string(terms.protocol));
  }
  if (hello.model_digest() != terms.model_digest) {
    return differs("model digest", hello.model_digest(), terms.model_digest);
  }
  if (hello.numerics_id() != terms.numerics_id) {
    return differs("numerics id", hello.numerics_id(), terms.numerics_id);
  }
  return absl::OkStatus();
}

// The kinds of transport to try for this pair, best first.
absl::StatusOr<std::vector<std::string>> ChooseKinds(const TransportOffer& ours,
                                                     const internal::v1::TransportOffer& hello) {
  const TransportOffer theirs{.kinds = {hello.kinds().begin(), hello.kinds().end()},
                              .host = hello.host()};
  std::vector<std::string> kinds = CommonKinds(ours, theirs);
  if (kinds.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("transport: attention worker has '{}', expert worker '{}', on {}",
                    fmt::join(theirs.kinds, ","), fmt::join(ours.kinds, ","),
                    ours.host == theirs.host ? "one host" : "different hosts or namespaces"));
  }
  return kinds;
}

void Fill(const PeerCost& cost, internal::v1::CostModel* out) {
  out->set_base_us(cost.base_us);
  out->set_row_us(cost.row_us);
  out->set_queued_rows(cost.queued_rows);
}

// The other end learns at once that its endpoint to here is worth nothing any more.
class EndsStream {
 public:
  EndsStream(std::shared_ptr<Pair> pair, Stream& stream) : pair_(std::move(pair)) {
    pair_->on_gone = [&stream] { stream.Close(absl::UnavailableError("the pair has ended")); };
  }
  ~EndsStream() { pair_->on_gone = nullptr; }
  EndsStream(const EndsStream&) = delete;
  EndsStream& operator=(const EndsStream&) = delete;

 private:
  std::shared_ptr<Pair> pair_;
};

// Who sends work here learns what is queued from every answer; this is for who sends none because
// much was queued when it last heard.
bool Changed(const PeerCost& now, const PeerCost& told) {
  const auto queued_us = [](const PeerCost& cost) {
    return cost.row_us * static_cast<double>(cost.queued_rows);
  };
  return std::abs(now.row_us - told.row_us) > 0.25 * told.row_us ||
         std::abs(queued_us(now) - queued_us(told)) > kQueueNewsUs;
}

PairFromExpert Welcome(ExpertEngine& engine, const Pair& pair, const PeerCost& cost) {
  PairFromExpert message;
  internal::v1::PairWelcome& welcome = *message.mutable_welcome();
  welcome.set_incarnation(engine.context().incarnation.value);
  welcome.set_session_key(pair.session_key);
  welcome.set_credits(pair.credits);
  welcome.mutable_transport()->set_kind(pair.transport);
  welcome.mutable_transport()->set_address(engine.transport().address(pair.endpoint));
  Fill(cost, welcome.mutable_cost());
  return message;
}

absl::StatusOr<std::shared_ptr<Pair>> Agree(ExpertEngine& engine, const PairTerms& terms,
                                            const internal::v1::PairHello& hello) {
  absl::Status agreed = CheckTerms(hello, terms);
  absl::StatusOr<std::vector<std::string>> kinds =
      ChooseKinds(engine.transport().offer(), hello.offer());
  if (agreed.ok()) agreed = kinds.status();
  if (!agreed.ok()) {
    engine.context().log.Warning(
        fmt::format("refused attention worker {}: {}", hello.name(), agreed.ToString()));
    return agreed;
  }
  return engine.AddPair(Incarnation{hello.incarnation()}, hello.name(), *kinds);
}

// After the welcome: the other end's address, once; then only the cost model goes out.
absl::Status OnMessage(ExpertEngine& engine, const Pair& pair, const PairFromAttention& message,
                       bool* connected) {
  if (!message.has_ready() || std::exchange(*connected, true)) {
    return absl::InvalidArgumentError("only a hello and one ready are expected");
  }
  return engine.ConnectPair(pair, message.ready().transport().address());
}

}  // namespace

Task<void> Connect(ExpertEngine* engine, PairTerms terms, std::unique_ptr<ByteStream> bytes) {
  Loop& loop = engine->context().loop;
  Stream stream(std::move(bytes));
  absl::StatusOr<PairFromAttention> first = co_await stream.Receive(loop.Now() + kHelloTimeout);
  if (!first.ok() || !first->has_hello()) {
    stream.Close(absl::InvalidArgumentError("no hello"));
    co_return;
  }
  absl::StatusOr<std::shared_ptr<Pair>> pair = Agree(*engine, terms, first->hello());
  if (!pair.ok()) {
    stream.Close(pair.status());
    co_return;
  }

  const EndsStream ends_stream(*pair, stream);
  PeerCost told = engine->CostFor(**pair);
  const PairFromExpert welcome = Welcome(*engine, **pair, told);
  absl::Status ended = stream.Send(welcome);
  bool connected = false;
  const Time ready_by = loop.Now() + kHelloTimeout;

  while (ended.ok() && !(*pair)->gone) {
    absl::StatusOr<PairFromAttention> message = co_await stream.Receive(loop.Now() + kCostInterval);
    if (absl::IsDeadlineExceeded(message.status())) {
      if (!connected && loop.Now() >= ready_by) {
        stream.Close(absl::DeadlineExceededError("no ready"));
        break;
      }
      if (const PeerCost now = engine->CostFor(**pair); Changed(now, told)) {
        PairFromExpert update;
        Fill(now, update.mutable_cost());
        told = now;
        ended = stream.Send(update);
      }
      continue;
    }
    ended = message.ok() ? OnMessage(*engine, **pair, *message, &connected) : message.status();
  }
  engine->RemovePair(*pair);
}

}  // namespace bottega
