//! What operators and lookups of a template turn into (rewrite.rs): Python's meaning, paid for.

use std::cmp::Ordering;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, State};

use crate::budget::{charge, charge_deep, charge_inner, charge_product, charge_shallow, error, is_namespace};
use crate::filters::iterate;
use crate::methods::{is_method, percent};
use crate::python::{as_float, print};

pub fn install(env: &mut Environment) {
    env.add_function("@shallow", |v: Value| charge_shallow(&v).map(|_| v));
    env.add_function("@deep", |v: Value| charge_deep(&v, true).map(|_| v));
    env.add_function("@stored", |v: Value| charge_deep(&v, false).map(|_| v));
    env.add_function("@inner", |v: Value| charge_inner(&v).map(|_| v));
    env.add_function("@add", add);
    env.add_function("@concat", concat);
    env.add_function("@mul", mul);
    env.add_function("@mod", modulo);
    env.add_function("@get", get);
    env.add_function("@iter", |v: Value| iterate(&v).and_then(|_| charge_shallow(&v)).map(|_| v));
    env.add_function("@slice", slice);
    env.add_function("@in", contains);
    env.add_function("@lt", |a: Value, b: Value| order(&a, &b, |o| o == Ordering::Less));
    env.add_function("@le", |a: Value, b: Value| order(&a, &b, |o| o != Ordering::Greater));
    env.add_function("@gt", |a: Value, b: Value| order(&a, &b, |o| o == Ordering::Greater));
    env.add_function("@ge", |a: Value, b: Value| order(&a, &b, |o| o != Ordering::Less));
}

fn concat(left: Value, right: Value) -> Result<String, Error> {
    let mut text = String::new();
    print(&mut text, &left, false)?;
    print(&mut text, &right, false)?;
    Ok(text)
}

enum Number {
    Int(i128),
    Float(f64),
}

fn number(value: &Value) -> Option<Number> {
    match value.kind() {
        ValueKind::Bool => Some(Number::Int(i128::from(value.is_true()))),
        ValueKind::Number => match as_float(value) {
            Some(x) => Some(Number::Float(x)),
            None => i128::try_from(value.clone()).ok().map(Number::Int),
        },
        _ => None,
    }
}

fn float_of(number: Number) -> f64 {
    match number {
        Number::Int(i) => i as f64,
        Number::Float(x) => x,
    }
}

fn int_value(value: Option<i128>) -> Result<Value, Error> {
    let value = value.ok_or_else(|| error("an integer is too large"))?;
    Ok(i64::try_from(value).map_or_else(|_| Value::from(value), Value::from))
}

fn add(left: Value, right: Value) -> Result<Value, Error> {
    match (number(&left), number(&right)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => return int_value(a.checked_add(b)),
        (Some(a), Some(b)) => return Ok(Value::from(float_of(a) + float_of(b))),
        _ => {}
    }
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        charge(a.len() + b.len())?;
        return Ok(Value::from([a, b].concat()));
    }
    let listy = |v: &Value| matches!(v.kind(), ValueKind::Seq | ValueKind::Iterable);
    if !listy(&left) || !listy(&right) || left.is_tuple() != right.is_tuple() {
        let (a, b) = (left.kind(), right.kind());
        return Err(error(format!("unsupported operand types for +: {a} and {b}")));
    }
    let count = left.len().unwrap_or(0).saturating_add(right.len().unwrap_or(0));
    charge_product(count, 24)?;
    let items: Vec<Value> = left.try_iter()?.chain(right.try_iter()?).collect();
    Ok(if left.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
}

fn mul(left: Value, right: Value) -> Result<Value, Error> {
    let (a, b) = match (number(&left), number(&right)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => return int_value(a.checked_mul(b)),
        (Some(a), Some(b)) => (a, b),
        (Some(Number::Int(n)), None) => return repeat(&right, n),
        (None, Some(Number::Int(n))) => return repeat(&left, n),
        _ => return Err(error("* needs numbers, or a string or list and an integer")),
    };
    Ok(Value::from(float_of(a) * float_of(b)))
}

fn repeat(value: &Value, times: i128) -> Result<Value, Error> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = value.as_str() {
        charge_product(text.len(), times)?;
        return Ok(Value::from(text.repeat(if text.is_empty() { 0 } else { times })));
    }
    if value.kind() != ValueKind::Seq {
        return Err(error(format!("* cannot repeat a value of type {}", value.kind())));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    charge_product(items.len() * 24, times)?;
    let total = items.len().saturating_mul(times);
    let items: Vec<Value> = items.iter().cycle().take(total).cloned().collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
}

fn modulo(left: Value, right: Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        return percent(text, &right);
    }
    match (number(&left), number(&right)) {
        (Some(Number::Int(_)), Some(Number::Int(0))) => Err(error("integer modulo by zero")),
        (Some(Number::Int(a)), Some(Number::Int(b))) => {
            let r = a.wrapping_rem(b);
            int_value(Some(if r != 0 && (r < 0) != (b < 0) { r + b } else { r }))
        }
        (Some(a), Some(b)) => {
            let (a, b) = (float_of(a), float_of(b));
            let r = a % b;
            Ok(Value::from(if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }))
        }
        _ => Err(error("% needs numbers, or a string and values")),
    }
}

/// `value.items` without a call is Python's bound method, even where an item has that name.
#[derive(Debug)]
pub struct BoundMethod {
    pub value: Value,
    name: String,
}

impl Object for BoundMethod {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State, args: &[Value]) -> Result<Value, Error> {
        crate::methods::call(state, &self.value, &self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<built-in method {}>", self.name)
    }
}

pub fn get(value: Value, name: &str) -> Result<Value, Error> {
    if is_method(value.kind(), name) && !is_namespace(&value) {
        return Ok(Value::from_object(BoundMethod { value, name: name.to_string() }));
    }
    value.get_attr(name)
}

fn contains(needle: Value, container: Value) -> Result<bool, Error> {
    charge_deep(&needle, true)?;
    if let Some(text) = container.as_str() {
        charge(text.len())?;
        return match needle.as_str() {
            Some(part) => Ok(text.contains(part)),
            None => Err(error("'in <string>' requires string as left operand")),
        };
    }
    if let (ValueKind::Map, Some(object)) = (container.kind(), container.as_object()) {
        return Ok(object.get_value(&needle).is_some());
    }
    charge_deep(&container, true)?;
    Ok(iterate(&container)?.any(|item| item == needle))
}

/// Order is between numbers, between strings, and between lists or tuples of such.
fn order(a: &Value, b: &Value, wanted: fn(Ordering) -> bool) -> Result<bool, Error> {
    charge_deep(a, true)?;
    charge_deep(b, true)?;
    let class = |v: &Value| match v.kind() {
        ValueKind::Bool | ValueKind::Number => 1,
        ValueKind::String => 2,
        ValueKind::Seq if v.is_tuple() => 3,
        ValueKind::Seq => 4,
        _ => 0,
    };
    if class(a) == 0 || class(a) != class(b) {
        return Err(error(format!("no order between {} and {}", a.kind(), b.kind())));
    }
    let floats = as_float(a).is_some() || as_float(b).is_some();
    match (number(a), number(b)) {
        (Some(x), Some(y)) if floats => Ok(float_of(x).partial_cmp(&float_of(y)).is_some_and(wanted)),
        (Some(Number::Int(x)), Some(Number::Int(y))) => Ok(wanted(x.cmp(&y))),
        _ => Ok(wanted(a.cmp(b))),
    }
}

/// The indices of value[start:stop:step], as Python's slice.indices() and range().
fn indices(length: usize, start: &Value, stop: &Value, step: &Value) -> Result<Vec<usize>, Error> {
    let int = |v: &Value| if v.is_none() { Ok(None) } else { i64::try_from(v.clone()).map(Some) };
    let (length, step) = (length as i64, int(step)?.unwrap_or(1));
    if step == 0 {
        return Err(error("slice step cannot be zero"));
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |i: i64| if i < 0 { i.saturating_add(length).max(low) } else { i.min(high) };
    let mut at = int(start)?.map_or(if step > 0 { low } else { high }, clamp);
    let end = int(stop)?.map_or(if step > 0 { high } else { low }, clamp);
    let mut out = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        out.push(at as usize);
        at = at.saturating_add(step);
    }
    Ok(out)
}

fn slice(value: Value, start: Value, stop: Value, step: Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        charge_product(text.len(), 4)?;
        let chars: Vec<char> = text.chars().collect();
        let picked = indices(chars.len(), &start, &stop, &step)?;
        return Ok(Value::from(picked.into_iter().map(|i| chars[i]).collect::<String>()));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(error(format!("a value of type {} cannot be sliced", value.kind())));
    }
    charge_product(value.len().unwrap_or(0), 24)?;
    let items: Vec<Value> = value.try_iter()?.collect();
    let picked = indices(items.len(), &start, &stop, &step)?;
    let picked: Vec<Value> = picked.into_iter().map(|i| items[i].clone()).collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(picked)) } else { Value::from(picked) })
}
