//! The text crate: tokenizers and chat templates behind a C ABI (bottega_text.h).
//!
//! Every entry runs inside `guard`: a panic becomes `Status::Panic` with its message, never an unwind
//! into C++. Inputs are borrowed spans; outputs are owned boxes that `bottega_text_free_*` takes back.

mod budget;
mod filters;
mod methods;
mod operators;
mod python;
mod rewrite;
mod template;
mod tokenizer;

use std::cell::RefCell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use template::{Limits, Template};
use tokenizer::{Tokenizer, Vocabulary};

#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok = 0,
    Refused = 1, // the file is not understood or damaged
    Invalid = 2, // the call's input is wrong: text, ids, messages
    Limit = 3,   // a named limit was reached
    Panic = 4,   // a bug in this crate or below
}

/// Why an entry failed; `message` is shown to the user.
pub struct Failure {
    pub status: Status,
    pub message: String,
}

impl Failure {
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Failure { status, message: message.into() }
    }
}

pub type Outcome<T> = Result<T, Failure>;

/// Borrowed bytes of the caller.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Span {
    data: *const u8,
    size: usize,
}

impl Span {
    /// Sound while the caller keeps the bytes, which the header asks for the length of the call.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.size == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.data, self.size)
    }

    unsafe fn text<'a>(self, what: &str) -> Outcome<&'a str> {
        std::str::from_utf8(self.bytes()).map_err(|e| {
            let at = e.valid_up_to();
            Failure::new(Status::Invalid, format!("{what} is not UTF-8 (byte {at})"))
        })
    }
}

/// A failure that is the file's fault and not the call's.
fn refusing<T>(outcome: Outcome<T>) -> Outcome<T> {
    outcome.map_err(|failure| Failure::new(Status::Refused, failure.message))
}

/// Owned by the caller until given to `bottega_text_free_bytes`.
#[repr(C)]
pub struct Bytes {
    data: *mut u8,
    size: usize,
}

/// Owned by the caller until given to `bottega_text_free_ids`.
#[repr(C)]
pub struct Ids {
    data: *mut i32,
    size: usize,
}

fn leak<T>(values: Vec<T>) -> (*mut T, usize) {
    let size = values.len();
    (Box::into_raw(values.into_boxed_slice()) as *mut T, size)
}

unsafe fn reclaim<T>(data: *mut T, size: usize) {
    if !data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(data, size)));
    }
}

unsafe fn put_text(out: *mut Bytes, text: String) {
    let (data, size) = leak(text.into_bytes());
    *out = Bytes { data, size };
}

thread_local! {
    /// Where this thread's last panic was, left by the hook for `guard`.
    static PANIC_PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A hostile model file may cause any number of panics: the status reports each, standard error none.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line()));
            PANIC_PLACE.set(place.unwrap_or_default());
        }));
    });
}

fn panic_text(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => payload.downcast_ref::<&str>().copied().unwrap_or("unknown").to_string(),
    }
}

/// Runs one entry: a failure or a panic leaves its message in `message`.
fn guard(message: *mut Bytes, entry: impl FnOnce() -> Outcome<()>) -> Status {
    quiet_panics();
    let outcome = catch_unwind(AssertUnwindSafe(entry)).unwrap_or_else(|payload| {
        Err(Failure::new(
            Status::Panic,
            format!("text library: {}{}", panic_text(payload), PANIC_PLACE.take()),
        ))
    });
    match outcome {
        Ok(()) => Status::Ok,
        Err(failure) => {
            unsafe { put_text(message, failure.message) };
            failure.status
        }
    }
}

/// # Safety
/// `data`, `size` came from a `Bytes` of this library and are not used again.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_free_bytes(bytes: Bytes) {
    reclaim(bytes.data, bytes.size);
}

/// # Safety
/// As `bottega_text_free_bytes`.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_free_ids(ids: Ids) {
    reclaim(ids.data, ids.size);
}

/// # Safety
/// As every entry: spans are readable for the call, out-pointers writable.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_tokenizer_load(
    json: Span,
    out: *mut *mut Tokenizer,
    message: *mut Bytes,
) -> Status {
    guard(message, || {
        let loaded = Tokenizer::load(json.bytes())?;
        *out = Box::into_raw(Box::new(loaded));
        Ok(())
    })
}

/// # Safety
/// `tokenizer` came from `bottega_text_tokenizer_load` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_tokenizer_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

/// # Safety
/// As every entry. The views in `out` live as long as the tokenizer.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_tokenizer_vocabulary(
    tokenizer: *const Tokenizer,
    out: *mut Vocabulary,
) {
    *out = (*tokenizer).vocabulary();
}

/// # Safety
/// As every entry.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_tokenizer_id_of(
    tokenizer: *const Tokenizer,
    token: Span,
    out: *mut i32,
    message: *mut Bytes,
) -> Status {
    guard(message, || {
        *out = (*tokenizer).id_of(token.text("token")?).unwrap_or(-1);
        Ok(())
    })
}

/// # Safety
/// As every entry.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: Span,
    add_special: bool,
    parse_special: bool,
    out: *mut Ids,
    message: *mut Bytes,
) -> Status {
    guard(message, || {
        let ids = (*tokenizer).encode(text.text("text")?, add_special, parse_special)?;
        let (data, size) = leak(ids);
        *out = Ids { data, size };
        Ok(())
    })
}

/// # Safety
/// As every entry; `ids` has `count` entries.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_tokenizer_decode(
    tokenizer: *const Tokenizer,
    ids: *const i32,
    count: usize,
    skip_special: bool,
    out: *mut Bytes,
    message: *mut Bytes,
) -> Status {
    guard(message, || {
        let ids = if count == 0 { &[] } else { std::slice::from_raw_parts(ids, count) };
        put_text(out, (*tokenizer).decode(ids, skip_special)?);
        Ok(())
    })
}

/// # Safety
/// As every entry.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_template_compile(
    source: Span,
    defaults_json: Span,
    limits: Limits,
    out: *mut *mut Template,
    message: *mut Bytes,
) -> Status {
    guard(message, || {
        let compiled = Template::compile(
            refusing(source.text("chat template: the source"))?,
            defaults_json.bytes(),
            limits,
        )?;
        *out = Box::into_raw(Box::new(compiled));
        Ok(())
    })
}

/// # Safety
/// `template` came from `bottega_text_template_compile` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_template_free(template: *mut Template) {
    if !template.is_null() {
        drop(Box::from_raw(template));
    }
}

/// # Safety
/// As every entry. `now_s` is what `strftime_now` shows, in seconds since 1970.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_template_render(
    template: *const Template,
    context_json: Span,
    now_s: i64,
    out: *mut Bytes,
    message: *mut Bytes,
) -> Status {
    guard(message, || {
        put_text(out, (*template).render(context_json.bytes(), now_s)?);
        Ok(())
    })
}

/// The names that the template reads and nothing in it sets, one per line.
/// # Safety
/// As every entry.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_template_variables(
    template: *const Template,
    out: *mut Bytes,
    message: *mut Bytes,
) -> Status {
    guard(message, || {
        put_text(out, (*template).variables().join("\n"));
        Ok(())
    })
}

/// For the test that a panic stays on this side of the ABI.
/// # Safety
/// As every entry.
#[no_mangle]
pub unsafe extern "C" fn bottega_text_panic_for_test(message: *mut Bytes) -> Status {
    guard(message, || panic!("a panic asked for by a test"))
}
