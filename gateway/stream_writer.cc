#include "core/base/reason.h"
#include "gateway/answer_writer.h"
#include "gateway/error_body.h"

namespace bottega::gateway {
namespace {

// Server-sent events. The headers leave with the first token or keep-alive, so that a refusal keeps
// its status; a late error is an event of its own and no [DONE] follows.
class StreamWriter : public AnswerWriter {
 public:
  explicit StreamWriter(WriterOptions options)
      : options_(std::move(options)), opened_(options_.choices) {}

  void Delta(const ChoiceDelta& delta, const Usage& usage_so_far) override {
    if (!opened_[delta.choice]) {
      opened_[delta.choice] = true;
      SendChunk(options_.format->Opening(head, delta.choice), usage_so_far);
    }
    if (!delta.end) {
      SendText(delta, usage_so_far);
      return;
    }
    // The end has a chunk of its own.
    ChoiceDelta text = delta;
    text.end.reset();
    ChoiceDelta end{.choice = delta.choice};
    end.end = delta.end;
    SendText(text, usage_so_far);
    SendChunk(options_.format->Chunk(head, end), usage_so_far);
  }

  void End(const Usage& usage) override {
    if (options_.include_usage) {
      Json chunk = options_.format->UsageChunk(head);
      chunk["usage"] = UsageJson(usage);
      SendEvent(DumpJson(chunk));
    }
    SendEvent("[DONE]");
    if (!broken_) options_.reply->Finish(false);
  }

  void Fail(const absl::Status& error) override {
    if (!begun_) {
      ReplyError(*options_.reply, error, options_.request_id, options_.overload_status);
      return;
    }
    SendEvent(DumpJson(ErrorJson(error)));
    if (!broken_) options_.reply->Finish(true);
  }

  void KeepAlive() override { Send(": keep-alive\n\n"); }
  bool broken() const override { return broken_; }
  bool begun() const override { return begun_; }

 private:
  // Each kind of text has a chunk of its own, each part of a tool call too; tokens go with the
  // first.
  void SendText(const ChoiceDelta& delta, const Usage& usage) {
    ChoiceDelta part{.choice = delta.choice};
    part.logprobs = delta.logprobs;
    part.token_ids = delta.token_ids;
    bool sent = false;
    const auto send = [&] {
      SendChunk(options_.format->Chunk(head, part), usage);
      part = ChoiceDelta{.choice = delta.choice};
      sent = true;
    };
    if (!delta.reasoning.empty()) {
      part.reasoning = delta.reasoning;
      send();
    }
    if (!delta.content.empty()) {
      part.content = delta.content;
      send();
    }
    for (const ToolCallDelta& call : delta.tool_calls) {
      part.tool_calls = {call};
      send();
    }
    if (!sent) send();
  }

  void SendChunk(Json chunk, const Usage& usage) {
    if (chunk.is_null()) return;
    if (options_.continuous_usage) {
      chunk["usage"] = UsageJson(usage);
    } else if (options_.include_usage) {
      chunk["usage"] = nullptr;
    }
    SendEvent(DumpJson(chunk));
  }

  void SendEvent(const std::string& data) { Send("data: " + data + "\n\n"); }

  void Send(std::string frame) {
    if (broken_) return;
    if (!begun_) {
      begun_ = true;
      options_.reply->StartEvents({{"Content-Type", "text/event-stream"},
                                   {"Cache-Control", "no-cache"},
                                   {"X-Accel-Buffering", "no"},
                                   {"x-request-id", options_.request_id}});
    }
    if (options_.reply->Write(std::move(frame))) return;
    broken_ = true;
    options_.reply->Cut();
  }

  WriterOptions options_;
  std::vector<bool> opened_;  // by choice
  bool begun_ = false;
  bool broken_ = false;
};

}  // namespace

std::unique_ptr<AnswerWriter> MakeStreamWriter(WriterOptions options) {
  return std::make_unique<StreamWriter>(std::move(options));
}

}  // namespace bottega::gateway
