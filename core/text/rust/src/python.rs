//! Python's str(), repr() and json.dumps() of template values, as Jinja2 and transformers show them.

use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};
use minijinja::Error;

use crate::budget::{charge_deep, error, Paid};

/// repr(float): the shortest digits that read back, an exponent below 1e-4 and from 1e16 on.
pub fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{x}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

pub fn as_float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Number if !value.is_integer() => f64::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// repr(str): single quotes unless the text has only those; what is not printable is escaped.
fn write_str_repr(out: &mut dyn Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if (c as u32) < 0x20 || (0x7F..0xA1).contains(&(c as u32)) || c == '\u{AD}' => {
                write!(out, "\\x{:02x}", c as u32)?
            }
            '\u{2028}' | '\u{2029}' | '\u{FEFF}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202F}' => {
                write!(out, "\\u{:04x}", c as u32)?
            }
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}

fn write_items(out: &mut dyn Write, value: &Value) -> fmt::Result {
    for (i, item) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        write_repr(out, &item)?;
    }
    Ok(())
}

fn write_repr(out: &mut dyn Write, value: &Value) -> fmt::Result {
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::String => write_str_repr(out, value.as_str().unwrap_or_default()),
        ValueKind::Number => match as_float(value) {
            Some(x) => out.write_str(&float_repr(x)),
            None => write!(out, "{value}"),
        },
        ValueKind::Map => {
            let pairs = value.as_object().and_then(|o| o.try_iter_pairs());
            out.write_char('{')?;
            for (i, (key, item)) in pairs.into_iter().flatten().enumerate() {
                if i > 0 {
                    out.write_str(", ")?;
                }
                write_repr(out, &key)?;
                out.write_str(": ")?;
                write_repr(out, &item)?;
            }
            out.write_char('}')
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.write_char(if tuple { '(' } else { '[' })?;
            write_items(out, value)?;
            if tuple && value.len() == Some(1) {
                out.write_char(',')?;
            }
            out.write_char(if tuple { ')' } else { ']' })
        }
        _ => write!(out, "{value}"), // True, False, None, functions
    }
}

fn write_text(out: &mut dyn Write, value: &Value) -> fmt::Result {
    match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::String => out.write_str(value.as_str().unwrap_or_default()),
        _ => write_repr(out, value),
    }
}

/// Writes str(value), paying for it; `emit` if it goes to the output.
pub fn print<W: Write>(sink: &mut W, value: &Value, emit: bool) -> Result<(), Error> {
    if value.as_object().is_some() {
        charge_deep(value, false)?;
    }
    write_text(&mut Paid { sink, emit }, value).map_err(|_| error("cannot print a value"))
}

pub fn text_of(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    print(&mut text, value, false)?;
    Ok(text)
}

/// The options of json.dumps that transformers' tojson passes on.
pub struct JsonStyle {
    pub ensure_ascii: bool,
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

struct JsonWriter<'a, 'b> {
    out: &'a mut Paid<'b, String>,
    style: &'a JsonStyle,
}

impl JsonWriter<'_, '_> {
    fn put(&mut self, text: &str) -> Result<(), Error> {
        self.out.write_str(text).map_err(|_| error("tojson: too much"))
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        let mut escaped = String::with_capacity(text.len() + 2);
        escaped.push('"');
        for c in text.chars() {
            match c {
                '"' => escaped.push_str("\\\""),
                '\\' => escaped.push_str("\\\\"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                '\u{8}' => escaped.push_str("\\b"),
                '\u{c}' => escaped.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.style.ensure_ascii && (c as u32) > 0x7E) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(escaped, "\\u{unit:04x}");
                    }
                }
                c => escaped.push(c),
            }
        }
        escaped.push('"');
        self.put(&escaped)
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.style.indent {
            let indent = indent.clone();
            self.put("\n")?;
            for _ in 0..depth {
                self.put(&indent)?;
            }
        }
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::Number | ValueKind::Bool | ValueKind::None => {
                self.put("\"")?;
                self.value(key, 0)?;
                self.put("\"")
            }
            kind => Err(error(format!("tojson: keys must be str, int, float, bool or None, not {kind}"))),
        }
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.put("null"),
            ValueKind::Bool => self.put(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Number => match as_float(value) {
                Some(x) if x.is_nan() => self.put("NaN"),
                Some(x) if x.is_infinite() => self.put(if x > 0.0 { "Infinity" } else { "-Infinity" }),
                Some(x) => self.put(&float_repr(x)),
                None => self.put(&value.to_string()),
            },
            ValueKind::Map => {
                let object = value.as_object().and_then(|o| o.try_iter_pairs());
                let mut pairs: Vec<_> = object.into_iter().flatten().collect();
                if self.style.sort_keys {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                let items = pairs.into_iter().map(|(key, item)| (Some(key), item)).collect();
                self.container('{', items, '}', depth)
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item)).collect();
                self.container('[', items, ']', depth)
            }
            kind => Err(error(format!("tojson: a value of type {kind} is not JSON serializable"))),
        }
    }

    fn container(
        &mut self,
        open: char,
        items: Vec<(Option<Value>, Value)>,
        close: char,
        depth: usize,
    ) -> Result<(), Error> {
        self.put(open.encode_utf8(&mut [0; 4]))?;
        let style = self.style;
        for (i, (key, item)) in items.iter().enumerate() {
            if i > 0 {
                self.put(&style.item_separator)?;
            }
            self.line(depth + 1)?;
            if let Some(key) = key {
                self.key(key)?;
                self.put(&style.key_separator)?;
            }
            self.value(item, depth + 1)?;
        }
        if !items.is_empty() {
            self.line(depth)?;
        }
        self.put(close.encode_utf8(&mut [0; 4]))
    }
}

pub fn json_of(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    charge_deep(value, true)?;
    let mut text = String::new();
    let mut out = Paid { sink: &mut text, emit: false };
    JsonWriter { out: &mut out, style }.value(value, 0)?;
    Ok(text)
}

/// str.isspace() of one character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
