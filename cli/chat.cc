#include "cli/chat.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "cli/answer_printer.h"
#include "cli/chat_client.h"
#include "cli/chat_input.h"
#include "cli/chat_settings.h"
#include "cli/interrupt.h"
#include "cli/line_reader.h"
#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/service/progress_bar.h"
#include "core/service/service_process.h"

namespace bottega {
namespace {

constexpr int kStopped = 130;  // as a shell tells of a program that Ctrl-C ended

struct Options {
  std::string url = "http://127.0.0.1:8000";
  std::vector<std::string> api_keys;
  bool quick = false;
  // As written; SetChatSetting reads them, as it does for /set.
  std::string model, temperature, max_tokens, seed, think, lang, system;
  bool stats = false, hide_reasoning = false;
};

OptionTable Table(Options* o) {
  OptionTable table("bottega chat",
                    "Talks with a running server. A PROMPT, or text piped in, gets one answer.");
  table.Positional("[PROMPT...]", 0, 1 << 20);
  table.Add("url", &o->url, "where the server is")
      .Add("api-key", &o->api_keys, "key to show the server (the first)")
      .Add("model", &o->model, "name of the model (default: what the server has)")
      .Add("temperature", &o->temperature, "0 (always the likeliest token) to 2")
      .Add("max-tokens", &o->max_tokens, "longest answer, reasoning included")
      .Add("seed", &o->seed, "the same seed and question give the same answer")
      .Add("quick", &o->quick, "short reasoning: the same as --think turbo")
      .Add("stats", &o->stats, "time to the first token, tokens, tokens/s after each answer")
      .Add("think", &o->think, "reasoning: on, off, turbo (default: the model's own)")
      .Add("lang", &o->lang, "language of the reasoning: en, ita")
      .Add("system", &o->system, "system message")
      .Add("hide-reasoning", &o->hide_reasoning, "show answers only");
  return table;
}

absl::StatusOr<ChatSettings> MakeSettings(const OptionTable& table, const Options& o) {
  ChatSettings settings{.stats = o.stats, .hide_reasoning = o.hide_reasoning};
  // Elsewhere `model` is a directory; one environment and one file serve all programs.
  if (table.Source("model") == "flag") settings.model = o.model;
  settings.system = o.system;
  const std::pair<const char*, const std::string*> texts[] = {{"temperature", &o.temperature},
                                                              {"max-tokens", &o.max_tokens},
                                                              {"seed", &o.seed},
                                                              {"think", &o.think},
                                                              {"lang", &o.lang}};
  for (const auto& [name, value] : texts) {
    if (absl::Status set = SetChatSetting(settings, name, *value); !set.ok()) {
      return MakeError(Reason::kInvalidValue, "--" + std::string(set.message()));
    }
  }
  if (o.quick) settings.think = "turbo";
  return settings;
}

std::string StatsLine(const ChatAnswer& answer, std::chrono::steady_clock::time_point asked) {
  using Seconds = std::chrono::duration<double>;
  const Seconds to_first = *answer.first - asked, to_last = *answer.last - asked;
  std::string line =
      fmt::format("first token after {:.2f} s, {} tokens", to_first.count(), answer.tokens);
  // Chunks of a short answer may come all at once, and their spacing says nothing: then the rate is
  // that of the whole request.
  const Seconds rest = to_last - to_first;
  const bool spaced = rest > std::chrono::milliseconds(50);
  const double counted = static_cast<double>(answer.tokens - (spaced ? 1 : 0));
  if (answer.tokens > 1) {
    line += fmt::format(", {:.1f} tokens/s", counted / (spaced ? rest : to_last).count());
  }
  return line;
}

// The parts of a chat that both ways of using it need.
struct Chat {
  ChatClient client;
  ChatSettings settings;
  ChatScreen screen;
};

// Prints one answer as it comes. Errors are not printed.
absl::Status Answer(const Chat& chat, const std::vector<ChatMessage>& messages,
                    ChatAnswer* answer) {
  AnswerPrinter printer(chat.screen, chat.settings.hide_reasoning);
  AnswerEvents events{
      .on_reasoning = [&printer](std::string_view text) { printer.Reasoning(text); },
      .on_content = [&printer](std::string_view text) { printer.Content(text); }};
  const auto asked = std::chrono::steady_clock::now();
  const absl::Status end = chat.client.Ask(chat.settings, messages, std::move(events), answer);
  printer.Finish();
  if (end.ok() && answer->finish_reason == "length") {
    PrintNote(chat.screen, "(cut off: the limit of tokens is reached)");
  }
  if (chat.settings.stats && answer->first) PrintNote(chat.screen, StatsLine(*answer, asked));
  return end;
}

void PrintError(const absl::Status& error) {
  fmt::print(stderr, "error: {}\n", Printable(std::string(error.message())));
}

// Until the server has loaded its model, with a bar.
absl::Status AwaitServer(const Chat& chat) {
  std::optional<ProgressBar> bar;
  const absl::Status loaded = chat.client.WaitLoaded([&bar](double progress) {
    if (!bar) bar.emplace("the server is loading");
    bar->Update(progress);
  });
  if (bar && loaded.ok()) bar->Update(1.0);
  return loaded;
}

int OneShot(const Chat& chat, std::string prompt) {
  ChatAnswer answer;
  absl::Status end = AwaitServer(chat);
  if (end.ok()) end = Answer(chat, {{"user", std::move(prompt)}}, &answer);
  if (absl::IsCancelled(end)) return kStopped;
  if (end.ok()) return 0;
  PrintError(end);
  return 1;
}

// All of stdin.
absl::StatusOr<std::string> ReadPipe(Interrupt& interrupt) {
  std::string text;
  char bytes[64 << 10];
  for (;;) {
    pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                    {.fd = interrupt.fd(), .events = POLLIN}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) break;
    if (fds[1].revents != 0 && interrupt.Take()) return absl::CancelledError("stopped");
    if (fds[0].revents == 0) continue;
    const ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    if (n <= 0) break;
    text.append(bytes, static_cast<size_t>(n));
    if (text.size() > limits::kClientPromptBytesMax) {
      return MakeError(Reason::kInvalidValue, fmt::format("the prompt is longer than {} bytes",
                                                          limits::kClientPromptBytesMax));
    }
  }
  while (text.ends_with('\n')) text.pop_back();
  if (text.empty()) return MakeError(Reason::kInvalidValue, "no prompt: stdin is empty");
  return text;
}

// The conversation at a terminal.
class Repl {
 public:
  Repl(Chat& chat, Interrupt& interrupt)
      : chat_(chat),
        interrupt_(interrupt),
        input_(chat.settings),
        reader_(stdin, chat.screen.answers_terminal ? stdout : stderr, interrupt) {}

  int Run() {
    absl::StatusOr<std::string> model;
    if (absl::Status loaded = AwaitServer(chat_); loaded.ok()) {
      model = chat_.client.FirstModel();
    } else {
      model = loaded;
    }
    if (!model.ok()) {
      PrintError(model.status());
      return absl::IsCancelled(model.status()) ? kStopped : 1;
    }
    if (chat_.settings.model.empty()) chat_.settings.model = *model;
    PrintNote(chat_.screen, fmt::format("{} at {}. /? for help, Ctrl-D leaves.",
                                        Printable(chat_.settings.model), chat_.client.url().text));
    while (Step()) {
    }
    return 0;
  }

 private:
  // False: the user leaves.
  bool Step() {
    interrupt_.Take();  // one pressed while an answer ended is not meant for the prompt
    std::string line;
    switch (reader_.Read(input_.in_block() ? "... " : ">>> ", &line)) {
      case LineReader::Got::kEnd:
        std::fputs("\n", stdout);
        return false;
      case LineReader::Got::kInterrupted:
        return Interrupted(line);
      case LineReader::Got::kLine:
        warned_ = false;
        return Turn(input_.Line(line));
    }
    return false;
  }

  // Drops what was typed; where there was nothing, the second one leaves.
  bool Interrupted(const std::string& typed) {
    std::fputs("\n", stdout);
    const bool empty = typed.empty() && !input_.in_block();
    input_.DropBlock();
    if (empty && warned_) return false;
    warned_ = empty;
    if (empty) PrintNote(chat_.screen, "Ctrl-C once more, Ctrl-D or /bye leaves.");
    return true;
  }

  bool Turn(const ChatTurn& turn) {
    switch (turn.kind) {
      case ChatTurn::Kind::kNothing:
        break;
      case ChatTurn::Kind::kAsk:
        Ask(turn.text);
        break;
      case ChatTurn::Kind::kPrint:
        std::fputs(turn.text.c_str(), stdout);
        break;
      case ChatTurn::Kind::kError:
        PrintError(absl::InvalidArgumentError(turn.text));
        break;
      case ChatTurn::Kind::kClear:
        messages_.clear();
        break;
      case ChatTurn::Kind::kLeave:
        return false;
    }
    return true;
  }

  // A turn without an answer is not part of the conversation; one that was stopped is, as far as
  // it came.
  void Ask(const std::string& text) {
    messages_.push_back({"user", text});
    ChatAnswer answer;
    const absl::Status end = Answer(chat_, messages_, &answer);
    const bool stopped = absl::IsCancelled(end);
    if (!end.ok() && !stopped) PrintError(end);
    if ((end.ok() || stopped) && !answer.content.empty()) {
      messages_.push_back({"assistant", answer.content});
    } else {
      messages_.pop_back();
    }
    std::fputs("\n", stdout);
  }

  Chat& chat_;
  Interrupt& interrupt_;
  ChatInput input_;
  LineReader reader_;
  std::vector<ChatMessage> messages_;
  bool warned_ = false;  // the last thing typed was Ctrl-C on an empty line
};

}  // namespace

int RunChat(int argc, const char* const* argv) {
  Options options;
  OptionTable table = Table(&options);
  std::vector<std::string> words;
  if (const std::optional<int> code = ParseOrExit(table, argc, argv, &words)) return *code;
  absl::StatusOr<Url> url = ParseUrl(options.url);
  absl::StatusOr<ChatSettings> settings = MakeSettings(table, options);
  for (const absl::Status& status : {url.status(), settings.status()}) {
    if (status.ok()) continue;
    PrintError(status);
    return 2;
  }
  Interrupt interrupt;
  const std::string key = options.api_keys.empty() ? "" : options.api_keys.front();
  Chat chat{.client = ChatClient(HttpClient(*std::move(url), key, interrupt.fd())),
            .settings = *std::move(settings),
            .screen = ChatScreen::OfThisProcess()};
  if (!words.empty()) return OneShot(chat, fmt::format("{}", fmt::join(words, " ")));
  if (isatty(STDIN_FILENO) == 1) return Repl(chat, interrupt).Run();
  absl::StatusOr<std::string> prompt = ReadPipe(interrupt);
  if (prompt.ok()) return OneShot(chat, *std::move(prompt));
  if (absl::IsCancelled(prompt.status())) return kStopped;
  PrintError(prompt.status());
  return 2;
}

}  // namespace bottega
