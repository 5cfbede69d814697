#include "core/service/grpc_network.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <map>
#include <vector>

#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/service/grpc_listener.h"
#include "core/service/grpc_stream.h"

namespace bottega {

using grpc_internal::ClientStream;
using grpc_internal::GrpcByteStream;
using grpc_internal::GrpcListener;
using grpc_internal::LoopDoor;
using grpc_internal::ServerStream;
using grpc_internal::StreamCore;

namespace {

constexpr int kConnectTimeoutMs = 2000;
constexpr int kKeepaliveMs = 1000;
constexpr int kKeepaliveTimeoutMs = 500;
constexpr int kPingIntervalLeastMs = 100;  // else GOAWAY too_many_pings after ~4 s
// A connection that says nothing, or opens no stream, gives its fd back.
constexpr int kHandshakeTimeoutMs = 5000;
constexpr int kConnectionIdleMs = 30000;
// A fixed window instead of gRPC's probes, which answer each heartbeat with a ping of their own.
constexpr int kWindowBytes = 1 << 20;
// What was said at Close gets this long to leave before the network is torn down.
constexpr absl::Duration kFlushTimeout = absl::Milliseconds(250);
constexpr absl::Duration kEndTimeout = absl::Seconds(2);

grpc::ChannelArguments ClientArguments() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A channel that is gone leaves its connect under way: this bounds it, 20 s by default.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection per stream
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(limits::kControlMessageBytesMax));
  arguments.SetMaxSendMessageSize(-1);
  return arguments;
}

void SetServerArguments(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kPingIntervalLeastMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kConnectionIdleMs);
  builder.SetMaxReceiveMessageSize(static_cast<int>(limits::kControlMessageBytesMax));
}

class RefusingReactor : public grpc::ServerGenericBidiReactor {
 public:
  explicit RefusingReactor(const absl::Status& why) { Finish(grpc_internal::ToGrpc(why)); }
  void OnDone() override { delete this; }
};

}  // namespace

struct GrpcNetwork::State : std::enable_shared_from_this<GrpcNetwork::State> {
  explicit State(Loop& loop) : loop(loop), door(std::make_shared<LoopDoor>(loop)) {}

  class Service;
  struct Server {
    std::unique_ptr<Service> service;
    std::unique_ptr<grpc::Server> server;
    std::unique_ptr<GrpcListener> listener;  // goes first

    void Stop() {
      listener.reset();
      server->Shutdown(std::chrono::system_clock::now());
    }
  };

  void Add(const std::shared_ptr<StreamCore>& stream) {
    std::erase_if(streams, [](const auto& weak) { return weak.expired(); });
    streams.push_back(stream);
  }
  // Cancels the streams that `mine` picks, after a moment for those that are saying goodbye.
  template <class Mine>
  void EndStreams(Mine mine);

  Loop& loop;
  std::shared_ptr<LoopDoor> door;
  std::multimap<NodeId, Server> servers;
  std::vector<std::weak_ptr<StreamCore>> streams;  // may be over already
};

// gRPC's threads: looks up the method and lets the loop start the handler.
class GrpcNetwork::State::Service : public grpc::CallbackGenericService {
 public:
  Service(State& state, NodeId node, std::vector<std::pair<std::string, Network::Handler>> methods)
      : state_(state.shared_from_this()), loop_(state.loop), door_(state.door), node_(node) {
    for (auto& [method, handler] : methods) {
      methods_[std::move(method)] = std::make_shared<const Network::Handler>(std::move(handler));
    }
  }

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    auto method = methods_.find(context->method());
    if (method == methods_.end()) {
      return new RefusingReactor(absl::UnimplementedError("no method " + context->method()));
    }
    if (door_->open() >= limits::kControlStreamsMax) {
      return new RefusingReactor(absl::ResourceExhaustedError("kControlStreamsMax is reached"));
    }
    auto stream = std::make_shared<ServerStream>(door_, loop_, node_, context);
    stream->Start();
    door_->Post([state = state_, stream, node = node_, handler = method->second] {
      auto face = std::make_unique<GrpcByteStream>(stream);
      std::shared_ptr<State> alive = state.lock();
      if (alive == nullptr || !alive->servers.contains(node)) return;
      alive->Add(stream);
      alive->loop.Spawn(node, (*handler)(std::move(face)));
    });
    return stream.get();
  }

 private:
  const std::weak_ptr<State> state_;
  Loop& loop_;
  const std::shared_ptr<LoopDoor> door_;
  const NodeId node_;
  std::map<std::string, std::shared_ptr<const Network::Handler>> methods_;
};

template <class Mine>
void GrpcNetwork::State::EndStreams(Mine mine) {
  std::vector<std::shared_ptr<StreamCore>> all;
  for (auto& weak : streams) {
    std::shared_ptr<StreamCore> stream = weak.lock();
    if (stream != nullptr && mine(*stream)) all.push_back(std::move(stream));
  }
  bool goodbyes = false;
  for (auto& stream : all) {
    if (stream->closing()) {
      goodbyes = true;
    } else {
      stream->Abort(absl::CancelledError("the network was shut down"));
    }
  }
  if (!goodbyes) return;
  door->WaitForNone(kFlushTimeout);
  for (auto& stream : all) stream->Abort(absl::CancelledError("the network was shut down"));
}

GrpcNetwork::GrpcNetwork(Loop& loop) : state_(std::make_shared<State>(loop)) {
  // What goes wrong comes back as a status; gRPC's and protobuf's own lines on stderr would be a
  // second copy, as many as a stranger likes.
  gpr_set_log_function([](gpr_log_func_args*) {});
  google::protobuf::SetLogHandler(nullptr);
}

GrpcNetwork::~GrpcNetwork() {
  state_->EndStreams([](const StreamCore&) { return true; });
  auto servers = std::move(state_->servers);
  state_->servers.clear();
  for (auto& [node, server] : servers) server.Stop();
  servers.clear();
  state_->door->WaitForNone(kEndTimeout);
  state_->door->Close();
}

Task<absl::StatusOr<std::unique_ptr<ByteStream>>> GrpcNetwork::Connect(NodeId self,
                                                                       std::string address,
                                                                       std::string method,
                                                                       Time deadline) {
  std::shared_ptr<State> state = state_;
  auto channel =
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), ClientArguments());
  auto stream = std::make_shared<ClientStream>(state->door, state->loop, self, address, channel);
  state->Add(stream);
  stream->Start(method);
  auto face = std::make_unique<GrpcByteStream>(stream);
  absl::Status answered = co_await stream->WaitForAnswer(deadline);
  if (!answered.ok()) co_return answered;
  std::unique_ptr<ByteStream> result = std::move(face);
  co_return result;
}

absl::StatusOr<std::string> GrpcNetwork::Serve(
    NodeId self, const std::string& address, std::vector<std::pair<std::string, Handler>> methods) {
  State::Server server;
  ASSIGN_OR_RETURN(server.listener, GrpcListener::Listen(address));
  server.service = std::make_unique<State::Service>(*state_, self, std::move(methods));
  grpc::ServerBuilder builder;
  SetServerArguments(builder);
  auto connections = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  builder.RegisterCallbackGenericService(server.service.get());
  server.server = builder.BuildAndStart();
  if (server.server == nullptr) return absl::InternalError("gRPC does not start");
  server.listener->Start(std::move(connections));
  const std::string host = address.substr(0, address.rfind(':'));
  const std::string bound = host + ":" + std::to_string(server.listener->port());
  state_->servers.emplace(self, std::move(server));
  return bound;
}

void GrpcNetwork::Shutdown(NodeId self) {
  std::vector<State::Server> mine;
  for (auto [it, end] = state_->servers.equal_range(self); it != end;
       it = state_->servers.erase(it)) {
    mine.push_back(std::move(it->second));
  }
  state_->EndStreams([&](const StreamCore& stream) { return stream.node() == self; });
  for (State::Server& server : mine) server.Stop();
}

}  // namespace bottega
