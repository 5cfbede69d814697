#pragma once

#include <gtest/gtest.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <memory>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "core/service/local_network.h"
#include "gateway/gateway_server.h"
#include "tests/gateway/fake_attention_worker.h"
#include "tests/gateway/fake_text.h"
#include "tests/gateway/http_client.h"

namespace bottega::gateway {

// A real gateway on loopback port 0, its loop on a thread of its own, and fake attention workers on
// an in-process network. The test's thread is the client.
class GatewayHarness {
 public:
  GatewayHarness() {
    config.port = 0;
    config.text_threads = 2;
    CaptureLog(&log_lines_);
  }
  ~GatewayHarness() {
    if (thread_.joinable()) {
      OnLoop([this] { server_->Stop(); });
      loop->Stop();
      thread_.join();
    }
    workers.clear();
    server_.reset();
    CaptureLog(nullptr);
  }

  // Before Start.
  GatewayConfig config;
  ModelText model = FakeModel();

  FakeAttentionWorker& AddWorker(FakeAttentionWorker::Script script,
                                 FakeAttentionWorker::Options options = {}) {
    const auto index = static_cast<uint32_t>(workers.size());
    options.id = MemberId{1 + index};
    options.node = NodeId{101 + index};
    options.address = "attention-" + std::to_string(1 + index);
    workers.push_back(
        std::make_unique<FakeAttentionWorker>(*loop, network, options, std::move(script)));
    return *workers.back();
  }

  // With every worker added so far in the table; returns when the gateway is ready, if it can be.
  void Start() {
    server_ = std::make_unique<GatewayServer>(context, config, model);
    absl::StatusOr<int> started = server_->Start();
    ASSERT_TRUE(started.ok()) << started.status();
    port = *started;
    server_->UpdateTable(Table());
    thread_ = std::thread([this] { loop->Run(); });
    if (!workers.empty()) WaitFor([this] { return server_->status() == "ready"; });
  }

  TableSnapshot Table() const {
    auto table = std::make_shared<ClusterTable>();
    table->layers = table->experts = 1;
    table->replicas = {{MemberId{1000}}};  // somewhere
    for (const auto& worker : workers) table->members.push_back(worker->AsMember());
    return table;
  }

  void OnLoop(std::function<void()> f) {
    absl::Notification done;
    loop->Post([&] {
      f();
      done.Notify();
    });
    done.WaitForNotification();
  }
  // Looks on the loop's thread until `condition` holds. The loop's own pace bounds it, no clock.
  void WaitFor(std::function<bool()> condition) {
    bool holds = false;
    while (!holds) {
      OnLoop([&] { holds = condition(); });
      std::this_thread::yield();
    }
  }

  HttpClient::Response Call(const std::string& method, const std::string& path,
                            const std::string& body = "", const std::string& headers = "") {
    HttpClient client(port);
    client.Send(method, path, body, headers);
    return client.Read();
  }
  HttpClient::Response Chat(const Json& fields, const std::string& headers = "") {
    Json body = {{"messages", {{{"role", "user"}, {"content", "hi"}}}}};
    for (const auto& [name, value] : fields.items()) body[name] = value;
    return Call("POST", "/v1/chat/completions", DumpJson(body), headers);
  }

  std::string Metrics() { return Call("GET", "/metrics").body; }
  GatewayServer& server() { return *server_; }

  std::unique_ptr<Loop> loop = Loop::Real();
  LocalNetwork network{*loop};
  prometheus::Registry registry;
  FaultPoints faults;
  ServiceContext context{.loop = *loop,
                         .node = NodeId{1},
                         .network = network,
                         .metrics = registry,
                         .faults = faults,
                         .role = Role::kGateway,
                         .incarnation = Incarnation{1},
                         .name = "gateway",
                         .log = Logger("gateway", "gateway")};
  std::vector<std::unique_ptr<FakeAttentionWorker>> workers;
  int port = 0;

 private:
  std::string log_lines_;
  std::unique_ptr<GatewayServer> server_;
  std::thread thread_;
};

// Writes these tokens, then the eos.
inline FakeAttentionWorker::Script Saying(std::vector<int32_t> ids) {
  return [ids = std::move(ids)](const internal::v1::Submit&, uint32_t index) {
    if (index >= ids.size()) return FakeAttentionWorker::Next{FakeText::kEnd, true};
    return FakeAttentionWorker::Next{ids[index], false};
  };
}
inline FakeAttentionWorker::Script Saying(const std::string& text) {
  return Saying(*FakeText().Encode(text, {}));
}

}  // namespace bottega::gateway
