//! Chat templates: Jinja2 as transformers sets it up, on minijinja, within limits.

use std::collections::BTreeMap;

use minijinja::machinery::{eval, make_string_output, parse, tokenize, CodeGenerator, Instructions, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind};

use crate::budget;
use crate::{filters, methods, operators, python, rewrite, Failure, Outcome, Status};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Limits {
    fuel: u64,
    recursion: u64,
    output_bytes_max: u64,
    work_bytes_max: u64,
}

pub struct Template {
    // Declared before `_source`, which they point into: fields are dropped in this order.
    instructions: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
    env: Environment<'static>,
    variables: Vec<String>,
    defaults: Context,
    limits: Limits,
    _source: Box<str>,
}

/// The rewriting adds a call to most operations, so that it takes more fuel for the same template.
const FUEL_PER_INSTRUCTION: u64 = 4;
/// minijinja counts four per nested macro call and one per scope open in it, 500 at most.
const RECURSION_UNITS: u64 = 5;
/// Text that goes through macros and `set` blocks is written more than once.
const EMITS_PER_OUTPUT_BYTE: u64 = 4;
/// A tree as deep as a tag has tokens is walked recursively; a few hundred bytes of stack for each.
const TAG_TOKENS_MAX: usize = 4000;
const ELIF_MAX: usize = 1000;

fn syntax() -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(false);
    builder.build().unwrap_or_default()
}

/// Jinja2 reads every kind of line end as '\n', and `{% generation %}` marks a scope and nothing else.
fn normalize(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        let start = tag.len() - tag.trim_start_matches(['-', '+']).trim_start().len();
        let word_end = tag[start..].find(|c: char| !c.is_alphanumeric() && c != '_');
        let word = &tag[start..word_end.map_or(tag.len(), |n| start + n)];
        let tail = tag[start + word.len()..].trim_start().trim_start_matches(['-', '+']);
        let replacement = match word {
            "generation" if tail.starts_with("%}") => "with",
            "endgeneration" if tail.starts_with("%}") => "endwith",
            other => other,
        };
        out.push_str(&tag[..start]);
        out.push_str(replacement);
        rest = &tag[start + word.len()..];
    }
    out.push_str(rest);
    out
}

type Context = BTreeMap<String, Value>;

fn object(json: &[u8]) -> Outcome<Context> {
    serde_json::from_slice(json).map_err(|e| {
        Failure::new(Status::Invalid, format!("the template's context is not a JSON object: {e}"))
    })
}

fn refused(message: impl std::fmt::Display) -> Failure {
    Failure::new(Status::Refused, format!("chat template: {message}"))
}

/// Parsing is recursive only where this bounds it.
fn check_shape(source: &str) -> Outcome<()> {
    let (mut tokens, mut elifs) = (0, 0);
    for token in tokenize(source, false, syntax()) {
        match token.map_err(refused)?.0 {
            Token::VariableStart | Token::BlockStart | Token::TemplateData(_) => tokens = 0,
            Token::Ident("elif") => elifs += 1,
            _ => {}
        }
        tokens += 1;
        if tokens > TAG_TOKENS_MAX {
            return Err(refused(format!("a tag has more than {TAG_TOKENS_MAX} tokens")));
        }
        if elifs > ELIF_MAX {
            return Err(refused(format!("more than {ELIF_MAX} elif")));
        }
    }
    Ok(())
}

fn environment(limits: Limits) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_fuel(Some(limits.fuel.saturating_mul(FUEL_PER_INSTRUCTION)));
    env.set_recursion_limit((limits.recursion * RECURSION_UNITS) as usize);
    env.set_unknown_method_callback(methods::call);
    env.set_formatter(|out, _state, value| python::print(out, value, true));
    filters::install(&mut env);
    operators::install(&mut env);
    env
}

impl Template {
    pub fn compile(source: &str, defaults_json: &[u8], limits: Limits) -> Outcome<Self> {
        let defaults = object(defaults_json)?;
        let source: Box<str> = normalize(source).into();
        check_shape(&source)?;
        // Sound: the box is not moved out of or changed while anything that points into it lives.
        let text: &'static str = unsafe { &*(&*source as *const str) };
        budget::open(limits.work_bytes_max as usize, 0, 0);
        let tree = parse(text, "chat_template", syntax()).map_err(refused)?;
        let tree = rewrite::template(&tree).map_err(refused)?;
        let mut generator = CodeGenerator::new("chat_template", text);
        generator.compile_stmt(&tree);
        let (instructions, blocks) = generator.finish();
        let env = environment(limits);
        let mut variables: Vec<String> = match env.template_from_str(&source) {
            Ok(plain) => plain.undeclared_variables(false).into_iter().collect(),
            Err(e) => return Err(refused(e)),
        };
        variables.retain(|name| !env.globals().any(|(global, _)| global == name));
        variables.sort();
        Ok(Template { instructions, blocks, env, variables, defaults, limits, _source: source })
    }

    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    pub fn render(&self, context_json: &[u8], now_s: i64) -> Outcome<String> {
        let mut context = object(context_json)?;
        for (name, value) in &self.defaults {
            context.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let context = Value::from_pairs(context);
        let output_max = self.limits.output_bytes_max;
        let emit_max = output_max.saturating_mul(EMITS_PER_OUTPUT_BYTE) as usize;
        budget::open(self.limits.work_bytes_max as usize, emit_max, now_s);
        let mut text = String::new();
        let outcome = {
            let mut out = make_string_output(&mut text);
            eval(&self.env, &self.instructions, context, &self.blocks, &mut out, AutoEscape::None).map(|_| ())
        };
        if let Some(failure) = budget::take_failure() {
            return Err(failure);
        }
        outcome.map_err(|e| self.failure(e))?;
        if text.len() as u64 > output_max {
            let message = format!("the chat template writes more than {output_max} bytes");
            return Err(Failure::new(Status::Limit, message));
        }
        Ok(text)
    }

    fn failure(&self, error: minijinja::Error) -> Failure {
        if error.kind() == ErrorKind::OutOfFuel {
            let fuel = self.limits.fuel;
            let message = format!("the chat template takes more than {fuel} steps");
            return Failure::new(Status::Limit, message);
        }
        let line = error.line().map_or(String::new(), |n| format!(", line {n}"));
        let detail = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        Failure::new(Status::Invalid, format!("chat template{line}: {detail}"))
    }
}

// The environment keeps functions only, the instructions are read only.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Template>();
};
