//! The filters, tests and functions that a chat template sees: transformers' own (tojson,
//! raise_exception, strftime_now), and those of Jinja2 where minijinja's differ or are unbounded.

use std::ffi::{CStr, CString};

use minijinja::formatting::{format, FormatStyle};
use minijinja::value::{Rest, Tuple, Value, ValueIter, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error};

use crate::budget::{charge, charge_deep, charge_product, charge_shallow, error, fail, is_namespace, now_s};
use crate::methods::{bind, capitalize, is_method, replace_text};
use crate::operators::get;
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
    env.add_filter("list", list);
    env.add_filter("reverse", reverse);
    env.add_filter("items", items);
    env.add_filter("dictsort", dictsort);
    env.add_filter("attr", attr);
    env.add_filter("batch", batch);
    env.add_filter("slice", slice);

    env.add_test("sequence", is_sequence);
    env.add_test("iterable", is_iterable);
    env.add_test("number", |v: &Value| matches!(v.kind(), ValueKind::Number | ValueKind::Bool));
    env.add_test("callable", |v: &Value| v.kind() == ValueKind::Plain);

    env.add_function("dict", dict);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.remove_global("debug");
}

/// The arguments after the first, keywords included, for `bind`.
fn values(args: Rest<ValueOrKwargs>) -> Vec<Value> {
    args.0.into_iter().map(ValueOrKwargs::into_value).collect()
}

/// Iteration as in Python: None has none, though minijinja takes it for empty.
pub fn iterate(value: &Value) -> Result<ValueIter, Error> {
    if value.is_none() {
        return Err(error("'NoneType' object is not iterable"));
    }
    value.try_iter()
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
    for (i, item) in iterate(&items)?.enumerate() {
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
    Ok(iterate(value)?.next().unwrap_or(Value::UNDEFINED))
}

fn last(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().next_back().map_or(Value::UNDEFINED, |c| Value::from(c.to_string())));
    }
    charge(value.len().unwrap_or(0))?;
    Ok(iterate(value)?.last().unwrap_or(Value::UNDEFINED))
}

/// Python's int(text) or float(text) in as far as white space and underscores go.
fn number_text(text: &str) -> String {
    text.trim().replace('_', "")
}

/// Python's int(text, base): an optional prefix of the base, or any prefix for base 0.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = number_text(text).to_lowercase();
    let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)].iter().find_map(|(prefix, its)| {
        digits.strip_prefix(prefix).filter(|_| base == 0 || base == *its).map(|rest| (rest, *its))
    });
    let (digits, base) = prefixed.unwrap_or((digits, if base == 0 { 10 } else { base }));
    i128::from_str_radix(&[sign, digits].concat(), base).ok()
}

fn int(value: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default, base] = bind(&values(args), ["default", "base"])?;
    let base = base.map_or(Ok(10), u32::try_from)?;
    if base != 0 && !(2..=36).contains(&base) {
        return Err(error("int: the base must be 0 or from 2 to 36"));
    }
    let whole = |x: f64| Some(x).filter(|x| x.is_finite()).map(|x| x.trunc() as i128);
    let parsed = match value.kind() {
        ValueKind::Undefined => return Err(error("int of an undefined value")),
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number => match as_float(&value) {
            None => return Ok(value),
            Some(x) => whole(x),
        },
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            parse_int(text, base).or_else(|| number_text(text).parse().ok().and_then(whole))
        }
        _ => None,
    };
    let small = |i: i128| i64::try_from(i).map_or_else(|_| Value::from(i), Value::from);
    Ok(parsed.map(small).or(default).unwrap_or(Value::from(0)))
}

fn float(value: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default] = bind(&values(args), ["default"])?;
    let parsed = match value.kind() {
        ValueKind::Undefined => return Err(error("float of an undefined value")),
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

fn list(value: Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        charge_product(text.len(), 24)?;
        return Ok(text.chars().map(|c| Value::from(c.to_string())).collect());
    }
    charge_product(value.len().unwrap_or(0), 24)?;
    Ok(Value::from(iterate(&value)?.collect::<Vec<_>>()))
}

/// At once, not when iterated: a chain of views would be as deep as the template makes it.
fn reverse(value: Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    charge_product(value.len().unwrap_or(0), 24)?;
    let mut items: Vec<Value> = iterate(&value)?.collect();
    items.reverse();
    Ok(Value::from(items))
}

fn items(value: Value) -> Result<Value, Error> {
    let Some(object) = value.as_object().filter(|_| value.kind() == ValueKind::Map) else {
        let empty = value.is_undefined().then(|| Value::from(Vec::<Value>::new()));
        return empty.ok_or_else(|| error("cannot get item pairs of a non-mapping"));
    };
    let pairs = object.try_iter_pairs().into_iter().flatten();
    Ok(pairs.map(|(k, v)| Value::from(Tuple::from([k, v]))).collect())
}

fn dictsort(value: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [case_sensitive, by, reverse] = bind(&values(args), ["case_sensitive", "by", "reverse"])?;
    let truth = |v: Option<Value>| v.is_some_and(|v| v.is_true());
    let (case_sensitive, reverse) = (truth(case_sensitive), truth(reverse));
    let by_value = match by.as_ref().and_then(Value::as_str) {
        None | Some("key") => false,
        Some("value") => true,
        Some(_) => return Err(error("dictsort: by must be 'key' or 'value'")),
    };
    let Some(object) = value.as_object().filter(|_| value.kind() == ValueKind::Map) else {
        return Err(error("dictsort needs a dict"));
    };
    let key = |(k, v): &(Value, Value)| {
        let key = if by_value { v } else { k };
        match key.as_str().filter(|_| !case_sensitive) {
            Some(text) => Value::from(text.to_lowercase()),
            None => key.clone(),
        }
    };
    let mut pairs: Vec<(Value, Value)> = object.try_iter_pairs().into_iter().flatten().collect();
    pairs.sort_by_cached_key(key);
    if reverse {
        pairs.reverse();
    }
    Ok(pairs.into_iter().map(|(k, v)| Value::from(Tuple::from([k, v]))).collect())
}

/// getattr: never an item of a dict.
fn attr(value: Value, name: &str) -> Result<Value, Error> {
    if is_method(value.kind(), name) || is_namespace(&value) || value.kind() != ValueKind::Map {
        return get(value, name);
    }
    Ok(Value::UNDEFINED)
}

fn dict(args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let mut args = values(args);
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    let named = args.pop_if(|last| last.is_kwargs());
    for source in args.iter().chain(&named) {
        charge_shallow(source)?;
        match source.as_object().filter(|_| source.kind() == ValueKind::Map) {
            Some(object) => pairs.extend(object.try_iter_pairs().into_iter().flatten()),
            None => {
                for pair in iterate(source)? {
                    let pair: Vec<Value> = iterate(&pair)?.collect();
                    let [key, value] = pair.as_slice() else {
                        return Err(error("dict needs pairs"));
                    };
                    pairs.push((key.clone(), value.clone()));
                }
            }
        }
    }
    Ok(Value::from_pairs(pairs))
}

fn batch(items: Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [size, fill] = bind(&values(args), ["linecount", "fill_with"])?;
    let size = size.map_or(Ok(0), i64::try_from)?;
    if size <= 0 {
        return Err(error("batch: the size must be positive"));
    }
    let items: Vec<Value> = iterate(&items)?.collect();
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
    let items: Vec<Value> = iterate(&items)?.collect();
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
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined)
        || (value.kind() == ValueKind::Iterable && value.len().is_some())
}

fn is_iterable(value: &Value) -> bool {
    use ValueKind::*;
    matches!(value.kind(), String | Seq | Map | Iterable | Undefined)
}
