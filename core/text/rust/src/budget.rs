//! What one rendering may still spend. A template is foreign code: fuel bounds its instructions, this
//! bounds what a single instruction may touch or make. Rendering is synchronous on one thread, so the
//! account is the thread's.

use std::cell::RefCell;
use std::fmt;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::operators::BoundMethod;
use crate::{Failure, Status};

/// One node of a value walked costs as much as this many bytes copied.
const NODE_COST: usize = 16;
/// Lists and maps inside each other; drops and comparisons recurse once per level.
const NESTING_MAX: usize = 200;

/// Of a message that a template makes.
const MESSAGE_BYTES_MAX: usize = 4096;

#[derive(Default)]
struct Account {
    work_left: usize,
    work_max: usize,
    emit_left: usize,
    emit_max: usize,
    now_s: i64,
    /// The first failure that has a status of its own; it wins over the error that minijinja reports.
    failure: Option<Failure>,
}

thread_local! {
    static ACCOUNT: RefCell<Account> = RefCell::new(Account::default());
}

pub fn open(work_max: usize, emit_max: usize, now_s: i64) {
    ACCOUNT.set(Account {
        work_left: work_max,
        work_max,
        emit_left: emit_max,
        emit_max,
        now_s,
        failure: None,
    });
}

pub fn take_failure() -> Option<Failure> {
    ACCOUNT.with_borrow_mut(|a| a.failure.take())
}

pub fn now_s() -> i64 {
    ACCOUNT.with_borrow(|a| a.now_s)
}

pub fn error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Ends the rendering with this status and message.
pub fn fail(status: Status, message: impl Into<String>) -> Error {
    let mut message: String = message.into();
    if message.len() > MESSAGE_BYTES_MAX {
        let cut = (0..=MESSAGE_BYTES_MAX).rev().find(|i| message.is_char_boundary(*i));
        message.truncate(cut.unwrap_or(0));
    }
    ACCOUNT.with_borrow_mut(|a| {
        a.failure.get_or_insert_with(|| Failure::new(status, message.clone()));
    });
    error(message)
}

/// Pays for `bytes` about to be read or made; call it before allocating.
pub fn charge(bytes: usize) -> Result<(), Error> {
    let max = ACCOUNT.with_borrow_mut(|a| match a.work_left.checked_sub(bytes) {
        Some(left) => {
            a.work_left = left;
            None
        }
        None => {
            a.work_left = 0;
            Some(a.work_max)
        }
    });
    match max {
        None => Ok(()),
        Some(max) => Err(fail(Status::Limit, format!("the chat template works on more than {max} bytes"))),
    }
}

pub fn charge_product(a: usize, b: usize) -> Result<(), Error> {
    charge(a.saturating_mul(b))
}

/// Pays for text that goes to the output or into a capture.
fn charge_emit(bytes: usize) -> Result<(), Error> {
    let max = ACCOUNT.with_borrow_mut(|a| match a.emit_left.checked_sub(bytes) {
        Some(left) => {
            a.emit_left = left;
            None
        }
        None => {
            a.emit_left = 0;
            Some(a.emit_max)
        }
    });
    match max {
        None => Ok(()),
        Some(max) => Err(fail(Status::Limit, format!("the chat template writes more than {max} bytes"))),
    }
}

/// Pays for what an operation sees of a value without opening it: a string's bytes, a list's length.
pub fn charge_shallow(value: &Value) -> Result<(), Error> {
    charge(match value.as_str() {
        Some(text) => text.len() + 1,
        None => value.len().unwrap_or(0).saturating_add(1),
    })
}

fn is_a(value: &Value, suffix: &str) -> bool {
    value.as_object().is_some_and(|o| o.type_name().ends_with(suffix))
}

pub fn is_namespace(value: &Value) -> bool {
    is_a(value, "::Namespace")
}

/// Namespaces and loops change: inside another value they could come to hold themselves.
fn check_immutable(value: &Value) -> Result<(), Error> {
    if is_namespace(value) || is_a(value, "::Loop") {
        return Err(fail(Status::Invalid, "the chat template stores a namespace or a loop in a value"));
    }
    Ok(())
}

/// Walks a value as printing or comparing would, shared parts once per occurrence, and pays for it.
/// Refuses nesting that would exhaust the stack.
pub fn charge_deep(value: &Value, bytes_too: bool) -> Result<(), Error> {
    walk(value, bytes_too, 0)
}

/// The same for a value on its way into another one.
pub fn charge_inner(value: &Value) -> Result<(), Error> {
    walk(value, false, 1)
}

fn walk(value: &Value, bytes_too: bool, depth: usize) -> Result<(), Error> {
    if depth > NESTING_MAX {
        let message = format!("the chat template nests values more than {NESTING_MAX} deep");
        return Err(fail(Status::Limit, message));
    }
    charge(NODE_COST)?;
    if depth > 0 {
        check_immutable(value)?;
    } else if is_a(value, "::Loop") {
        return Ok(());
    }
    if let Some(method) = value.downcast_object_ref::<BoundMethod>() {
        return walk(&method.value, bytes_too, depth + 1);
    }
    match value.kind() {
        ValueKind::String if bytes_too => charge(value.as_str().map_or(0, str::len)),
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => {
            let is_map = value.kind() == ValueKind::Map;
            if let (true, Some(object)) = (is_map, value.as_object()) {
                for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                    walk(&key, bytes_too, depth + 1)?;
                    walk(&item, bytes_too, depth + 1)?;
                }
                return Ok(());
            }
            charge(value.len().unwrap_or(0))?;
            for item in value.try_iter()? {
                walk(&item, bytes_too, depth + 1)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A sink that pays for every byte it takes.
pub struct Paid<'a, W: fmt::Write> {
    pub sink: &'a mut W,
    pub emit: bool,
}

impl<W: fmt::Write> fmt::Write for Paid<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let paid = if self.emit { charge_emit(text.len()) } else { charge(text.len()) };
        paid.map_err(|_| fmt::Error)?;
        self.sink.write_str(text)
    }
}
