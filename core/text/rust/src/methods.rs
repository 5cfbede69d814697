//! The methods of Python's str, dict, list and tuple that Jinja2's sandbox lets a template call.

use minijinja::formatting::{format, FormatStyle};
use minijinja::value::{Kwargs, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use crate::budget::{charge, charge_deep, charge_product, charge_shallow, error};
use crate::filters::{check_format, check_percent_format};
use crate::python::is_space;

const STR: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];
const DICT: &[&str] = &["copy", "get", "items", "keys", "values"];
const LIST: &[&str] = &["copy", "count", "index"];

/// Whether `name` is a method of values of this kind, so that `value.name` is not an item.
pub fn is_method(kind: ValueKind, name: &str) -> bool {
    match kind {
        ValueKind::String => STR.contains(&name),
        ValueKind::Map => DICT.contains(&name),
        ValueKind::Seq => LIST.contains(&name),
        _ => false,
    }
}

pub fn is_any_method(name: &str) -> bool {
    STR.contains(&name) || DICT.contains(&name) || LIST.contains(&name)
}

/// Positional and keyword arguments by the names of the parameters; None where absent.
pub fn bind<const N: usize>(args: &[Value], names: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let mut bound: [Option<Value>; N] = [const { None }; N];
    let (positional, kwargs) = match args.last() {
        Some(last) if last.is_kwargs() => (&args[..args.len() - 1], Kwargs::try_from(last.clone())?),
        _ => (args, Kwargs::from_iter(Vec::<(String, Value)>::new())),
    };
    if positional.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    for (slot, value) in bound.iter_mut().zip(positional) {
        *slot = Some(value.clone());
    }
    for key in kwargs.args() {
        match names.iter().position(|n| *n == key) {
            Some(i) => bound[i] = Some(kwargs.peek(key)?),
            None => return Err(error(format!("unexpected keyword argument '{key}'"))),
        }
    }
    Ok(bound)
}

fn text_arg(value: &Option<Value>, what: &str) -> Result<String, Error> {
    match value.as_ref().and_then(Value::as_str) {
        Some(text) => Ok(text.to_string()),
        None => Err(error(format!("{what} must be str"))),
    }
}

fn int_arg(value: &Option<Value>, absent: i64) -> Result<i64, Error> {
    match value {
        None => Ok(absent),
        Some(v) if v.is_none() => Ok(absent),
        Some(v) => i64::try_from(v.clone()),
    }
}

pub fn call(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    charge_shallow(value)?;
    for arg in args {
        charge_shallow(arg)?;
    }
    match value.kind() {
        ValueKind::String => str_method(state, value.as_str().unwrap_or_default(), name, args),
        ValueKind::Map => dict_method(value, name, args),
        ValueKind::Seq => list_method(value, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn dict_method(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(object) = value.as_object() else {
        return Err(Error::from(ErrorKind::UnknownMethod));
    };
    let pairs = || object.try_iter_pairs().into_iter().flatten();
    match name {
        "keys" => Ok(Value::from(pairs().map(|(k, _)| k).collect::<Vec<_>>())),
        "values" => Ok(Value::from(pairs().map(|(_, v)| v).collect::<Vec<_>>())),
        "items" => Ok(pairs().map(|(k, v)| Value::from(Tuple::from([k, v]))).collect()),
        "copy" => Ok(value.clone()),
        "get" => {
            let [key, default] = bind(args, ["key", "default"])?;
            let key = key.ok_or_else(|| error("get expected at least 1 argument"))?;
            Ok(object.get_value(&key).or(default).unwrap_or(Value::from(())))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn list_method(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "copy" => Ok(value.clone()),
        "count" | "index" => {
            let [what] = bind(args, ["value"])?;
            let what = what.ok_or_else(|| error(format!("{name} needs a value")))?;
            charge_deep(value, true)?;
            let mut found = value.try_iter()?.enumerate().filter(|(_, item)| *item == what).map(|(i, _)| i);
            if name == "count" {
                return Ok(Value::from(found.count()));
            }
            found.next().map(Value::from).ok_or_else(|| error("value is not in list"))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// s[start:end] by characters, and how many characters come before it.
fn part<'a>(s: &'a str, start: &Option<Value>, end: &Option<Value>) -> Result<(&'a str, usize), Error> {
    if start.is_none() && end.is_none() {
        return Ok((s, 0));
    }
    let count = s.chars().count() as i64;
    let clamp = |i: i64| (if i < 0 { (i + count).max(0) } else { i.min(count) }) as usize;
    let (from, to) = (clamp(int_arg(start, 0)?), clamp(int_arg(end, count)?));
    let byte = |chars: usize| s.char_indices().nth(chars).map_or(s.len(), |(i, _)| i);
    Ok((if from < to { &s[byte(from)..byte(to)] } else { "" }, from))
}

fn strip(s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let [chars] = bind(args, ["chars"])?;
    let chars = match chars {
        Some(v) if !v.is_none() => Some(text_arg(&Some(v), "strip argument")?),
        _ => None,
    };
    let drop = |c: char| chars.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
    Ok(Value::from(match name {
        "lstrip" => s.trim_start_matches(drop),
        "rstrip" => s.trim_end_matches(drop),
        _ => s.trim_matches(drop),
    }))
}

/// str.split and str.rsplit. Without a separator: runs of white space, none at the ends.
fn split(s: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let [separator, most] = bind(args, ["sep", "maxsplit"])?;
    let most = int_arg(&most, -1)?;
    let most = if most < 0 { usize::MAX - 1 } else { most as usize };
    let separator = separator.filter(|v| !v.is_none());
    let mut parts: Vec<&str> = match &separator {
        Some(_) => {
            let separator = text_arg(&separator, "separator")?;
            if separator.is_empty() {
                return Err(error("empty separator"));
            }
            if from_right {
                s.rsplitn(most + 1, separator.as_str()).collect()
            } else {
                s.splitn(most + 1, separator.as_str()).collect()
            }
        }
        None => split_space(s, from_right, most),
    };
    if from_right {
        parts.reverse();
    }
    charge_product(parts.len(), 24)?;
    Ok(parts.into_iter().map(Value::from).collect())
}

fn split_space(s: &str, from_right: bool, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = s.trim_matches(is_space);
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = cut.filter(|_| parts.len() < most) else {
            parts.push(rest);
            break;
        };
        let after = at + rest[at..].chars().next().map_or(1, char::len_utf8);
        if from_right {
            parts.push(&rest[after..]);
            rest = rest[..at].trim_end_matches(is_space);
        } else {
            parts.push(&rest[..at]);
            rest = rest[after..].trim_start_matches(is_space);
        }
    }
    // At the limit the remainder keeps its outer white space on the side that was not cut.
    if most < usize::MAX - 1 && parts.len() == most + 1 {
        let last = parts.len() - 1;
        parts[last] = if from_right {
            let end = parts[last].as_ptr() as usize + parts[last].len() - s.as_ptr() as usize;
            &s[..end]
        } else {
            &s[parts[last].as_ptr() as usize - s.as_ptr() as usize..]
        };
    }
    parts
}

fn splitlines(s: &str, args: &[Value]) -> Result<Value, Error> {
    let [keep] = bind(args, ["keepends"])?;
    let keep = keep.is_some_and(|v| v.is_true());
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = s.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        if !matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        ) {
            continue;
        }
        let mut end = i + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, c)| *c == '\n').is_some() {
            end += 1;
        }
        lines.push(Value::from(&s[start..if keep { end } else { i }]));
        start = end;
    }
    if start < s.len() {
        lines.push(Value::from(&s[start..]));
    }
    charge_product(lines.len(), 24)?;
    Ok(Value::from(lines))
}

fn pad(s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let [width, fill] = bind(args, ["width", "fillchar"])?;
    let fill = if fill.is_some() { text_arg(&fill, "fill character")? } else { " ".into() };
    if fill.chars().count() != 1 {
        return Err(error("the fill character must be exactly one character long"));
    }
    let width = int_arg(&width, 0)?.max(0) as usize;
    let length = s.chars().count();
    let missing = width.saturating_sub(length);
    charge_product(missing, fill.len())?;
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & width & 1), // where Python's str.center puts the odd one
    };
    Ok(Value::from(
        [fill.repeat(left).as_str(), s, fill.repeat(missing - left).as_str()].concat(),
    ))
}

fn zfill(s: &str, args: &[Value]) -> Result<Value, Error> {
    let [width] = bind(args, ["width"])?;
    let missing = (int_arg(&width, 0)?.max(0) as usize).saturating_sub(s.chars().count());
    charge(missing)?;
    let (sign, digits) = s.split_at(usize::from(s.starts_with(['+', '-'])));
    Ok(Value::from([sign, "0".repeat(missing).as_str(), digits].concat()))
}

fn expandtabs(s: &str, args: &[Value]) -> Result<Value, Error> {
    let [width] = bind(args, ["tabsize"])?;
    let width = int_arg(&width, 8)?.max(0) as usize;
    charge_product(s.matches('\t').count(), width)?;
    let (mut out, mut column) = (String::new(), 0);
    for c in s.chars() {
        if c == '\t' {
            let fill = if width == 0 { 0 } else { width - column % width };
            out.push_str(&" ".repeat(fill));
            column += fill;
        } else {
            out.push(c);
            column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
        }
    }
    Ok(Value::from(out))
}

fn replace(s: &str, args: &[Value]) -> Result<Value, Error> {
    let [old, new, count] = bind(args, ["old", "new", "count"])?;
    let (old, new) = (text_arg(&old, "old")?, text_arg(&new, "new")?);
    let most = int_arg(&count, -1)?;
    Ok(Value::from(replace_text(s, &old, &new, most)?))
}

pub fn replace_text(s: &str, old: &str, new: &str, most: i64) -> Result<String, Error> {
    let most = if most < 0 { usize::MAX } else { most as usize };
    charge_product(s.matches(old).take(most).count(), new.len())?;
    Ok(s.replacen(old, new, most))
}

fn join(separator: &str, args: &[Value]) -> Result<Value, Error> {
    let [items] = bind(args, ["iterable"])?;
    let items = items.ok_or_else(|| error("join needs a list"))?;
    let mut parts = Vec::new();
    for (i, item) in items.try_iter()?.enumerate() {
        let Some(text) = item.to_str().filter(|_| item.kind() == ValueKind::String) else {
            return Err(error(format!("sequence item {i}: expected str instance, {} found", item.kind())));
        };
        charge(text.len() + separator.len() + 24)?;
        parts.push(text);
    }
    let parts: Vec<&str> = parts.iter().map(|p| p.as_ref()).collect();
    Ok(Value::from(parts.join(separator)))
}

fn affix(s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let [what, start, end] =
        bind(args, [if name == "startswith" { "prefix" } else { "suffix" }, "start", "end"])?;
    let (s, _) = part(s, &start, &end)?;
    let what = what.ok_or_else(|| error(format!("{name} needs an argument")))?;
    let has = |text: &str| if name == "startswith" { s.starts_with(text) } else { s.ends_with(text) };
    match what.as_str() {
        Some(text) => Ok(Value::from(has(text))),
        None if what.is_tuple() => Ok(Value::from(what.try_iter()?.any(|v| v.as_str().is_some_and(&has)))),
        None => Err(error(format!("{name} first arg must be str or a tuple of str, not {}", what.kind()))),
    }
}

fn find(s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let [what, start, end] = bind(args, ["sub", "start", "end"])?;
    let (within, before) = part(s, &start, &end)?;
    let what = text_arg(&what, "argument")?;
    let at = if name.starts_with('r') { within.rfind(&what) } else { within.find(&what) };
    match at {
        Some(i) => Ok(Value::from(before + within[..i].chars().count())),
        None if name.ends_with("index") => Err(error("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

fn partition(s: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let [separator] = bind(args, ["sep"])?;
    let separator = text_arg(&separator, "separator")?;
    if separator.is_empty() {
        return Err(error("empty separator"));
    }
    let cut = if from_right { s.rsplit_once(&separator) } else { s.split_once(&separator) };
    let parts = match cut {
        Some((a, b)) => [a, separator.as_str(), b],
        None if from_right => ["", "", s],
        None => [s, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

pub fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut inside = false;
    for c in s.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

pub fn capitalize(s: &str) -> String {
    let mut chars = s.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect(),
        None => String::new(),
    }
}

fn swapcase(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
    }
    out
}

fn is_all(s: &str, name: &str) -> bool {
    let cased = || s.chars().filter(|c| c.is_lowercase() || c.is_uppercase());
    match name {
        "islower" => cased().next().is_some() && cased().all(char::is_lowercase),
        "isupper" => cased().next().is_some() && cased().all(char::is_uppercase),
        "isascii" => s.is_ascii(),
        _ if s.is_empty() => false,
        "isspace" => s.chars().all(is_space),
        "isalpha" => s.chars().all(char::is_alphabetic),
        "isalnum" => s.chars().all(char::is_alphanumeric),
        _ => s.chars().all(char::is_numeric), // isdigit, isdecimal, isnumeric
    }
}

fn str_method(_state: &mut State, s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "strip" | "lstrip" | "rstrip" => return strip(s, name, args),
        "split" => return split(s, false, args),
        "rsplit" => return split(s, true, args),
        "splitlines" => return splitlines(s, args),
        "center" | "ljust" | "rjust" => return pad(s, name, args),
        "zfill" => return zfill(s, args),
        "expandtabs" => return expandtabs(s, args),
        "replace" => return replace(s, args),
        "join" => return join(s, args),
        "startswith" | "endswith" => return affix(s, name, args),
        "find" | "rfind" | "index" | "rindex" => return find(s, name, args),
        "partition" => return partition(s, false, args),
        "rpartition" => return partition(s, true, args),
        "format" => {
            check_format(s, args)?;
            return format(FormatStyle::StrFormat, s, args).map(Value::from);
        }
        "count" => {
            let [what, start, end] = bind(args, ["sub", "start", "end"])?;
            let (within, _) = part(s, &start, &end)?;
            return Ok(Value::from(within.matches(text_arg(&what, "argument")?.as_str()).count()));
        }
        "removeprefix" | "removesuffix" => {
            let [what] = bind(args, ["prefix"])?;
            let what = text_arg(&what, "argument")?;
            let cut = if name == "removeprefix" { s.strip_prefix(&what) } else { s.strip_suffix(&what) };
            return Ok(Value::from(cut.unwrap_or(s)));
        }
        _ => {}
    }
    let [] = bind(args, [])?;
    match name {
        "upper" => Ok(Value::from(s.to_uppercase())),
        "lower" | "casefold" => Ok(Value::from(s.to_lowercase())),
        "title" => Ok(Value::from(title(s))),
        "capitalize" => Ok(Value::from(capitalize(s))),
        "swapcase" => Ok(Value::from(swapcase(s))),
        _ if name.starts_with("is") && STR.contains(&name) => Ok(Value::from(is_all(s, name))),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// `'…' % values`.
pub fn percent(format_text: &str, values: &Value) -> Result<Value, Error> {
    let args: Vec<Value> =
        if values.is_tuple() { values.try_iter()?.collect() } else { vec![values.clone()] };
    check_percent_format(format_text, &args)?;
    format(FormatStyle::Printf, format_text, &args).map(Value::from)
}
