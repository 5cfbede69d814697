#include "cli/line_reader.h"

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstring>
#include <cwchar>
#include <string_view>

#include "core/base/check.h"

namespace bottega {
namespace {

constexpr int kHistoryLines = 1000;

// The editor thinks in wchar_t and needs to know that bytes are UTF-8. Of the locale only this.
void UseUtf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

struct LineReader::Editor {
  EditLine* edit = nullptr;
  History* history = nullptr;
  Interrupt* interrupt = nullptr;
  int in = -1;
  std::string prompt;
  bool interrupted = false;

  static Editor& Of(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return *static_cast<Editor*>(self);
  }
  static char* Prompt(EditLine* edit) { return Of(edit).prompt.data(); }
  static int ReadKey(EditLine* edit, wchar_t* key) { return Of(edit).ReadKey(key); }

  // One character; 0: the end, -1: none (interrupted).
  int ReadKey(wchar_t* key) {
    std::mbstate_t state{};
    for (;;) {
      pollfd fds[] = {{.fd = in, .events = POLLIN}, {.fd = interrupt->fd(), .events = POLLIN}};
      if (poll(fds, 2, -1) < 0) {
        if (errno == EINTR) continue;
        return 0;
      }
      if (fds[1].revents != 0 && interrupt->Take()) {
        interrupted = true;
        return -1;
      }
      if (fds[0].revents == 0) continue;
      char byte = 0;
      const ssize_t n = read(in, &byte, 1);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return 0;
      const size_t used = std::mbrtowc(key, &byte, 1, &state);
      if (used == static_cast<size_t>(-1)) {
        state = {};  // no UTF-8: the byte is dropped
      } else if (used != static_cast<size_t>(-2)) {
        return 1;
      }
    }
  }
};

LineReader::LineReader(std::FILE* in, std::FILE* out, Interrupt& interrupt)
    : editor_(std::make_unique<Editor>()) {
  UseUtf8();
  editor_->interrupt = &interrupt;
  editor_->in = fileno(in);
  editor_->edit = el_init("bottega", in, out, stderr);
  CHECK(editor_->edit != nullptr);
  el_set(editor_->edit, EL_CLIENTDATA, editor_.get());
  el_set(editor_->edit, EL_PROMPT, &Editor::Prompt);
  el_set(editor_->edit, EL_EDITOR, "emacs");
  el_set(editor_->edit, EL_SIGNAL, 1);  // Ctrl-Z and a resized window; SIGINT is `interrupt`'s
  el_set(editor_->edit, EL_GETCFN, static_cast<el_rfunc_t>(&Editor::ReadKey));
  editor_->history = history_init();
  HistEvent event;
  history(editor_->history, &event, H_SETSIZE, kHistoryLines);
  history(editor_->history, &event, H_SETUNIQUE, 1);
  el_set(editor_->edit, EL_HIST, history, editor_->history);
}

LineReader::~LineReader() {
  history_end(editor_->history);
  el_end(editor_->edit);
}

LineReader::Got LineReader::Read(const std::string& prompt, std::string* line) {
  editor_->prompt = prompt;
  editor_->interrupted = false;
  int length = 0;
  const char* text = el_gets(editor_->edit, &length);
  if (editor_->interrupted) {
    const LineInfo* typed = el_line(editor_->edit);
    line->assign(typed->buffer, typed->lastchar);
    return Got::kInterrupted;
  }
  if (text == nullptr || length <= 0) return Got::kEnd;
  line->assign(text, static_cast<size_t>(length));
  while (line->ends_with('\n') || line->ends_with('\r')) line->pop_back();
  if (!line->empty()) {
    HistEvent event;
    history(editor_->history, &event, H_ENTER, line->c_str());
  }
  return Got::kLine;
}

}  // namespace bottega
