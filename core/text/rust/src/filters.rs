//! The filters, tests and functions that a chat template sees: transformers' own (tojson,
//! raise_exception, strftime_now), and those of Jinja2 where minijinja's differ or are unbounded.

use std::ffi::{CStr, CString};

use minijinja::formatting::{format, FormatStyle};
use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error};

use crate::budget::{charge, charge_deep, charge_product, charge_shallow, error, fail, now_s};
use crate::methods::{bind, capitalize, is_any_method, replace_text};
use crate::python::{as_float, json_of, text_of, JsonStyle};
use crate::Status;

/// Filters of Jinja2 that behave here as there. Any other name is refused when the template is compiled.
pub const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "wordcount",
];
/// Filters that see only the outside of a list or map; the cost of all others grows with what is inside.
pub const SHALLOW_FILTERS: &[&str] = &[
    "abs", "attr", "batch", "count", "d", "default", "first", "float", "int", "items", "last", "length",
    "list", "reverse", "round", "safe", "slice",
];
pub const TESTS: &[&str] = &[
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

pub fn install(env: &mut Environment) {
    env.add_filter("tojson", tojson);
    env.add_filter("string", |v: Value| text_of(&v));
    env.add_filter("join", join);
    env.add_filter("replace", replace);
    env.add_filter("indent", indent);
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("first", first);
    env.add_filter("last", last);
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("round", round);
    env.add_filter("format", format_filter);
    env.add_filter("center", center);
    env.add_filter("capitalize", |v: Value| Ok::<_, Error>(capitalize(&text_of(&v)?)));
    env.add_filter("escape", |v: Value| escape(&v));
    env.add_filter("e", |v: Value| escape(&v));
    env.add_filter("forceescape", |v: Value| escape(&v));
    env.add_filter("wordcount", wordcount);
    env.add_filter("batch", batch);
    env.add_filter("slice", slice);

    env.add_test("sequence", is_sequence);
    env.add_test("iterable", is_iterable);
    env.add_test("number", |v: &Value| matches!(v.kind(), ValueKind::Number | ValueKind::Bool));
    env.add_test("callable", |v: &Value| v.kind() == ValueKind::Plain);

    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.remove_global("debug");
}

/// The arguments after the first, keywords included, for `bind`.
fn values(args: Rest<ValueOrKwargs>) -> Vec<Value> {
    args.0.into_iter().map(ValueOrKwargs::into_value).collect()
}

fn raise_exception(message: Value) -> Result<Value, Error> {
    Err(fail(Status::Invalid, text_of(&message)?))
}

/// datetime.now().strftime(format), in local time.
fn strftime_now(format: &str) -> Result<String, Error> {
    let bad = |_| error("strftime_now: the format holds a NUL");
    let format = CString::new(format).map_err(bad)?;
    charge_product(format.as_bytes().len(), 64)?;
    let mut out = vec![0u8; format.as_bytes().len() * 64 + 1];
    let now = now_s() as libc::time_t;
    // strftime writes 0 for a result that is empty or too long.
    unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut local);
        libc::strftime(out.as_mut_ptr().cast(), out.len(), format.as_ptr(), &local);
        Ok(CStr::from_ptr(out.as_ptr().cast()).to_string_lossy().into_owned())
    }
}

fn tojson(value: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [ascii, indent, separators, sort] =
        bind(&values(args), ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let truth = |v: Option<Value>| v.is_some_and(|v| v.is_true());
    let indent = match indent.filter(|v| !v.is_none()) {
        None => None,
        Some(v) => Some(match v.as_str() {
            Some(text) => text.to_string(),
            None => {
                let width = i64::try_from(v)?.max(0) as usize;
                charge(width)?;
                " ".repeat(width)
            }
        }),
    };
    let mut style = JsonStyle {
        ensure_ascii: truth(ascii),
        item_separator: if indent.is_some() { "," } else { ", " }.to_string(),
        key_separator: ": ".to_string(),
        sort_keys: truth(sort),
        indent,
    };
    if let Some(pair) = separators.filter(|v| !v.is_none()) {
        let pair: Vec<Value> = pair.try_iter()?.collect();
        let [item, key] = pair.as_slice() else {
            return Err(error("tojson: separators must be a pair"));
        };
        (style.item_separator, style.key_separator) = (text_of(item)?, text_of(key)?);
    }
    json_of(&value, &style).map(Value::from)
}

fn join(items: Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [separator, attribute] = bind(&values(args), ["d", "attribute"])?;
    let separator = separator.map_or(Ok(String::new()), |v| text_of(&v))?;
    let mut out = String::new();
    for (i, item) in items.try_iter()?.enumerate() {
        let item = match &attribute {
            None => item,
            Some(path) => match path.as_str() {
                Some(path) => path.split('.').try_fold(item, |v, name| v.get_attr(name))?,
                None => item.get_item(path)?,
            },
        };
        let text = text_of(&item)?;
        charge(separator.len() + text.len())?;
        if i > 0 {
            out.push_str(&separator);
        }
        out.push_str(&text);
    }
    Ok(out)
}

fn replace(text: Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [old, new, count] = bind(&values(args), ["old", "new", "count"])?;
    let (Some(old), Some(new)) = (old, new) else {
        return Err(error("replace needs old and new"));
    };
    let most = count.filter(|v| !v.is_none()).map_or(Ok(-1), i64::try_from)?;
    replace_text(&text_of(&text)?, &text_of(&old)?, &text_of(&new)?, most)
}

fn indent(text: Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [width, first, blank] = bind(&values(args), ["width", "first", "blank"])?;
    let truth = |v: Option<Value>| v.is_some_and(|v| v.is_true());
    let (first, blank) = (truth(first), truth(blank));
    let width = width.unwrap_or(Value::from(4));
    let unit = match width.as_str() {
        Some(unit) => unit.to_string(),
        None => {
            let width = i64::try_from(width)?.max(0) as usize;
            charge(width)?;
            " ".repeat(width)
        }
    };
    let text = text_of(&text)?;
    let lines: Vec<&str> = text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l)).collect();
    charge_product(lines.len(), unit.len())?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let wanted = if i == 0 { first } else { blank || !line.is_empty() };
        if wanted {
            out.push_str(&unit);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn length(value: &Value) -> Result<usize, Error> {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => Ok(text.chars().count()),
        (ValueKind::Undefined, _) => Ok(0),
        _ => value.len().ok_or_else(|| error(format!("object of type {} has no len()", value.kind()))),
    }
}

fn first(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().next().map_or(Value::UNDEFINED, |c| Value::from(c.to_string())));
    }
    Ok(value.try_iter()?.next().unwrap_or(Value::UNDEFINED))
}

fn last(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().next_back().map_or(Value::UNDEFINED, |c| Value::from(c.to_string())));
    }
    charge(value.len().unwrap_or(0))?;
    Ok(value.try_iter()?.last().unwrap_or(Value::UNDEFINED))
}

/// Python's int(text) or float(text) in as far as white space and underscores go.
fn number_text(text: &str) -> String {
    text.trim().replace('_', "")
}

fn int(value: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default, base] = bind(&values(args), ["default", "base"])?;
    let base = base.map_or(Ok(10), u32::try_from)?;
    if !(2..=36).contains(&base) {
        return Err(error("int: the base must be from 2 to 36"));
    }
    let parsed = match value.kind() {
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number => match as_float(&value) {
            None => Some(value.clone()),
            Some(x) if x.is_finite() => Some(Value::from(x.trunc() as i128)),
            Some(_) => None,
        },
        ValueKind::String => {
            let text = number_text(value.as_str().unwrap_or_default());
            let float = || text.parse::<f64>().ok().filter(|x| x.is_finite()).map(|x| x.trunc() as i128);
            i128::from_str_radix(&text, base).ok().or_else(float).map(Value::from)
        }
        _ => None,
    };
    Ok(parsed.or(default).unwrap_or(Value::from(0)))
}

fn float(value: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default] = bind(&values(args), ["default"])?;
    let parsed = match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::String => number_text(value.as_str().unwrap_or_default()).parse().ok(),
        _ => None,
    };
    Ok(parsed.map(Value::from).or(default).unwrap_or(Value::from(0.0)))
}

fn round(value: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [precision, method] = bind(&values(args), ["precision", "method"])?;
    let precision = precision.map_or(Ok(0), i32::try_from)?.clamp(-400, 400);
    let scale = 10f64.powi(precision);
    let x = match value.kind() {
        ValueKind::Number => f64::try_from(value.clone())?,
        kind => return Err(error(format!("round: {kind} is not a number"))),
    };
    match method.as_ref().and_then(Value::as_str).unwrap_or("common") {
        "common" if value.is_integer() && precision >= 0 => Ok(value),
        "common" if precision >= 0 => {
            // Correctly rounded from the exact binary value, half to even, as Python's round().
            let text = format!("{x:.*}", precision as usize);
            Ok(Value::from(text.parse::<f64>().unwrap_or(x)))
        }
        "common" => Ok(Value::from((x * scale).round_ties_even() / scale)),
        "ceil" => Ok(Value::from((x * scale).ceil() / scale)),
        "floor" => Ok(Value::from((x * scale).floor() / scale)),
        _ => Err(error("round: method must be common, ceil or floor")),
    }
}

/// Pays for a formatting: every field may repeat every argument, and widths are numbers in the format.
fn charge_format(text: &str, fields: usize, args: &[Value]) -> Result<(), Error> {
    if text.contains('*') && text.contains('%') {
        return Err(error("format: a width given by an argument is not supported"));
    }
    for digits in text.split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty()) {
        charge(digits.parse().unwrap_or(usize::MAX))?;
    }
    let mut sizes = 0usize;
    for arg in args {
        charge_deep(arg, true)?;
        sizes +=
            if arg.as_object().is_some() { text_of(arg)?.len() } else { arg.as_str().map_or(32, str::len) };
    }
    charge_product(fields + 1, sizes + text.len())
}

pub fn check_format(text: &str, args: &[Value]) -> Result<(), Error> {
    charge_format(text, text.matches('{').count(), args)
}

pub fn check_percent_format(text: &str, args: &[Value]) -> Result<(), Error> {
    charge_format(text, text.matches('%').count(), args)
}

fn format_filter(text: Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let text = text_of(&text)?;
    let args = values(args);
    check_percent_format(&text, &args)?;
    format(FormatStyle::Printf, &text, &args)
}

fn center(text: Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [width] = bind(&values(args), ["width"])?;
    let width = width.map_or(Ok(80), i64::try_from)?.max(0) as usize;
    let text = text_of(&text)?;
    let missing = width.saturating_sub(text.chars().count());
    charge(missing)?;
    let left = missing / 2 + (missing & width & 1);
    Ok([" ".repeat(left).as_str(), &text, " ".repeat(missing - left).as_str()].concat())
}

/// markupsafe.escape.
fn escape(value: &Value) -> Result<Value, Error> {
    let text = text_of(value)?;
    charge(text.len() * 5)?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    Ok(Value::from(out))
}

fn wordcount(text: Value) -> Result<usize, Error> {
    let text = text_of(&text)?;
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    Ok(words.filter(|w| !w.is_empty()).count())
}

fn batch(items: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [size, fill] = bind(&values(args), ["linecount", "fill_with"])?;
    let size = size.map_or(Ok(0), i64::try_from)?;
    if size <= 0 {
        return Err(error("batch: the size must be positive"));
    }
    let items: Vec<Value> = items.try_iter()?.collect();
    let mut rows: Vec<Vec<Value>> = items.chunks(size as usize).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(row)) = (fill.filter(|v| !v.is_none()), rows.last_mut()) {
        charge_product(size as usize, 24)?;
        row.resize(size as usize, fill);
    }
    Ok(rows.into_iter().map(Value::from).collect())
}

fn slice(items: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [slices, fill] = bind(&values(args), ["slices", "fill_with"])?;
    let slices = slices.map_or(Ok(0), i64::try_from)?;
    if slices <= 0 {
        return Err(error("slice: the number of slices must be positive"));
    }
    let slices = slices as usize;
    charge_product(slices, 24)?;
    let items: Vec<Value> = items.try_iter()?.collect();
    let (each, longer) = (items.len() / slices, items.len() % slices);
    let mut rest = items.as_slice();
    let mut rows = Vec::new();
    for i in 0..slices {
        let (row, after) = rest.split_at(each + usize::from(i < longer));
        rest = after;
        let mut row = row.to_vec();
        if let (Some(fill), true) = (fill.as_ref().filter(|v| !v.is_none()), i >= longer) {
            row.push(fill.clone());
        }
        rows.push(Value::from(row));
    }
    Ok(Value::from(rows))
}

fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
        || (value.kind() == ValueKind::Iterable && value.len().is_some())
}

fn is_iterable(value: &Value) -> bool {
    use ValueKind::*;
    matches!(value.kind(), String | Seq | Map | Iterable | Undefined)
}

/// What operators and lookups turn into: see rewrite.rs.
pub mod operators {
    use super::*;
    use crate::methods::{is_method, percent};
    use crate::python::print;
    use minijinja::value::Object;
    use minijinja::State;
    use std::sync::Arc;

    pub fn install(env: &mut Environment) {
        env.add_function("@shallow", |v: Value| charge_shallow(&v).map(|_| v));
        env.add_function("@deep", |v: Value| charge_deep(&v, true).map(|_| v));
        env.add_function("@stored", |v: Value| charge_deep(&v, false).map(|_| v));
        env.add_function("@attribute", stored_attribute);
        env.add_function("@concat", concat);
        env.add_function("@mul", mul);
        env.add_function("@mod", modulo);
        env.add_function("@get", get);
    }

    /// A value on its way into a namespace: not a namespace itself, or it could come to hold itself.
    fn stored_attribute(value: Value) -> Result<Value, Error> {
        if crate::budget::is_namespace(&value) {
            return Err(fail(Status::Limit, "the chat template stores a namespace in a value"));
        }
        charge_deep(&value, false).map(|_| value)
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
        Ok(if value.is_tuple() {
            Value::from(minijinja::value::Tuple::from(items))
        } else {
            Value::from(items)
        })
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
    struct BoundMethod {
        value: Value,
        name: String,
    }

    impl Object for BoundMethod {
        fn repr(self: &Arc<Self>) -> minijinja::value::ObjectRepr {
            minijinja::value::ObjectRepr::Plain
        }

        fn call(self: &Arc<Self>, state: &mut State, args: &[Value]) -> Result<Value, Error> {
            crate::methods::call(state, &self.value, &self.name, args)
        }

        fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "<built-in method {}>", self.name)
        }
    }

    fn get(value: Value, name: &str) -> Result<Value, Error> {
        debug_assert!(is_any_method(name));
        if is_method(value.kind(), name) && !crate::budget::is_namespace(&value) {
            return Ok(Value::from_object(BoundMethod { value, name: name.to_string() }));
        }
        value.get_attr(name)
    }
}
