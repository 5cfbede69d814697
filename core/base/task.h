#pragma once

#include <coroutine>
#include <cstddef>
#include <optional>
#include <utility>

#include "core/base/check.h"
#include "core/base/frame_pool.h"

namespace bottega {

class Loop;

namespace task_internal {

struct PromiseBase {
  Loop* loop = nullptr;                  // set when the task is started
  std::coroutine_handle<> continuation;  // the awaiting task; empty for a spawned root

  std::suspend_always initial_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { CHECK(!"an exception left a task"); }

  // A step awaits hundreds of tasks: their frames come from a pool.
  static void* operator new(size_t bytes) { return FramePool::Take(bytes); }
  static void operator delete(void* frame, size_t bytes) { FramePool::Give(frame, bytes); }
};

// Defined in loop.h's implementation: hands control to `handle` once the running frame has
// suspended.
void ContinueWith(Loop* loop, std::coroutine_handle<> handle);
void RootFinished(Loop* loop, std::coroutine_handle<> root);

struct FinalAwaiter {
  bool await_ready() noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> self) noexcept {
    PromiseBase& promise = self.promise();
    if (promise.continuation) {
      ContinueWith(promise.loop, promise.continuation);
    } else {
      RootFinished(promise.loop, self);
    }
  }
  void await_resume() noexcept {}
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;
  std::coroutine_handle<Promise> get_return_object() {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  FinalAwaiter final_suspend() noexcept { return {}; }
  template <class U>
  void return_value(U&& v) {
    value.emplace(std::forward<U>(v));
  }
};

template <>
struct Promise<void> : PromiseBase {
  std::coroutine_handle<Promise> get_return_object() {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  FinalAwaiter final_suspend() noexcept { return {}; }
  void return_void() noexcept {}
};

}  // namespace task_internal

// A lazily started coroutine on a Loop: it runs when awaited by another task or given to
// Loop::Spawn, and always on the loop's thread. The Task owns its frame: destroying a root frame
// destroys, through the Task objects inside, every frame below it; this is how Loop::Kill ends a
// simulated process.
//
// Every transfer of control between tasks goes through the loop's trampoline (Loop::Continue), so
// the stack stays flat at every optimisation level. g++ 12 miscompiles some await expressions: one
// co_await per statement, arguments are named objects, coroutine lambdas capture nothing
// (docs/decisions/0001).
template <class T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = task_internal::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  Task(Handle handle) : handle_(handle) {}  // NOLINT: get_return_object converts
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  template <class P>
  void await_suspend(std::coroutine_handle<P> parent) noexcept {
    handle_.promise().loop = parent.promise().loop;
    handle_.promise().continuation = parent;
    task_internal::ContinueWith(handle_.promise().loop, handle_);
  }
  T await_resume() {
    if constexpr (!std::is_void_v<T>) return *std::move(handle_.promise().value);
  }

  Handle Release() { return std::exchange(handle_, {}); }

 private:
  Handle handle_;
};

}  // namespace bottega
