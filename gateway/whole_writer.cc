#include <iterator>

#include "gateway/answer_writer.h"
#include "gateway/error_body.h"

namespace bottega::gateway {
namespace {

// The unstreamed answer is the fold of the streamed one.
class WholeWriter : public AnswerWriter {
 public:
  explicit WholeWriter(WriterOptions options)
      : options_(std::move(options)), folded_(options_.choices) {
    for (int i = 0; i < options_.choices; ++i) folded_[i].choice = i;
  }

  void Delta(const ChoiceDelta& delta, const Usage&) override {
    ChoiceDelta& whole = folded_[delta.choice];
    whole.reasoning += delta.reasoning;
    whole.content += delta.content;
    for (const ToolCallDelta& call : delta.tool_calls) {
      if (!call.id.empty()) {
        whole.tool_calls.push_back(call);
      } else {
        whole.tool_calls[call.index].arguments += call.arguments;
      }
    }
    whole.in_content |= delta.in_content;
    whole.saw_reasoning |= delta.saw_reasoning;
    whole.logprobs.insert(whole.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
    whole.token_ids.insert(whole.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
    if (delta.end) whole.end = delta.end;
  }

  void End(const Usage& usage) override {
    Json whole = options_.format->Whole(head, folded_);
    whole["usage"] = UsageJson(usage);
    ReplyJson(*options_.reply, 200, whole, options_.request_id);
  }

  void Fail(const absl::Status& error) override {
    ReplyError(*options_.reply, error, options_.request_id, options_.overload_status);
  }

  void KeepAlive() override {}
  bool broken() const override { return false; }
  bool begun() const override { return false; }

 private:
  WriterOptions options_;
  std::vector<ChoiceDelta> folded_;  // by choice
};

}  // namespace

std::unique_ptr<AnswerWriter> MakeWholeWriter(WriterOptions options) {
  return std::make_unique<WholeWriter>(std::move(options));
}

}  // namespace bottega::gateway
