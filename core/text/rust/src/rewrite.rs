//! Rebuilds a parsed template so that every operation whose cost or meaning depends on its operands goes
//! through a function of ours (names with '@', which no template can write), and refuses, by name, what
//! would not behave as in Jinja2. Everything else keeps its shape.

use minijinja::machinery::ast::{self, BinOpKind, CallArg, Expr, Spanned, Stmt};
use minijinja::machinery::Span;
use minijinja::value::Value;

use crate::filters::{FILTERS, SHALLOW_FILTERS, TESTS};
use crate::methods::is_any_method;

/// Globals of Jinja2 and variables of its macros that minijinja does not have.
const UNSUPPORTED_NAMES: &[&str] = &["varargs", "kwargs", "cycler", "joiner", "lipsum"];
/// Methods of Python's str that methods.rs does not have.
const UNSUPPORTED_METHODS: &[&str] =
    &["encode", "format_map", "isidentifier", "isprintable", "istitle", "maketrans", "translate"];

type Refusal = String;
type Made<T> = Result<T, Refusal>;

pub fn template<'a>(root: &Stmt<'a>) -> Made<Stmt<'a>> {
    stmt(root)
}

fn refuse<T>(span: Span, what: impl std::fmt::Display) -> Made<T> {
    Err(format!("line {}: {what}", span.start_line))
}

fn call<'a>(name: &'a str, args: Vec<Expr<'a>>, span: Span) -> Expr<'a> {
    let function = Expr::Var(Spanned::new(ast::Var { id: name }, span));
    let args = args.into_iter().map(CallArg::Pos).collect();
    Expr::Call(Spanned::new(ast::Call { expr: function, args }, span))
}

fn constant<'a>(value: Value, span: Span) -> Expr<'a> {
    Expr::Const(Spanned::new(ast::Const { value }, span))
}

/// Pays for `expr`, unless it is a constant: those cost nothing that the source has not paid.
fn paid<'a>(name: &'static str, expr: Expr<'a>) -> Expr<'a> {
    if matches!(expr, Expr::Const(_)) {
        return expr;
    }
    let span = expr.span();
    call(name, vec![expr], span)
}

fn body<'a>(stmts: &[Stmt<'a>]) -> Made<Vec<Stmt<'a>>> {
    stmts.iter().map(stmt).collect()
}

fn exprs<'a>(list: &[Expr<'a>]) -> Made<Vec<Expr<'a>>> {
    list.iter().map(expr).collect()
}

fn optional<'a>(e: &Option<Expr<'a>>) -> Made<Option<Expr<'a>>> {
    e.as_ref().map(expr).transpose()
}

/// The left side of an assignment, unchanged.
fn target<'a>(e: &Expr<'a>) -> Made<Expr<'a>> {
    Ok(match e {
        Expr::Var(s) => Expr::Var(Spanned::new(ast::Var { id: s.id }, s.span())),
        Expr::GetAttr(s) => {
            if s.name.starts_with('_') {
                return refuse(s.span(), format!("a namespace attribute may not start with '_': {}", s.name));
            }
            Expr::GetAttr(Spanned::new(ast::GetAttr { expr: target(&s.expr)?, name: s.name }, s.span()))
        }
        Expr::List(s) => {
            let items = s.items.iter().map(target).collect::<Made<_>>()?;
            Expr::List(Spanned::new(ast::List { items }, s.span()))
        }
        Expr::Tuple(s) => {
            let items = s.items.iter().map(target).collect::<Made<_>>()?;
            Expr::List(Spanned::new(ast::List { items }, s.span()))
        }
        other => return refuse(other.span(), format!("cannot assign to a {}", other.description())),
    })
}

fn stmt<'a>(s: &Stmt<'a>) -> Made<Stmt<'a>> {
    Ok(match s {
        Stmt::Template(t) => {
            Stmt::Template(Spanned::new(ast::Template { children: body(&t.children)? }, t.span()))
        }
        Stmt::EmitExpr(t) => Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr: expr(&t.expr)? }, t.span())),
        // As an expression, so that the formatter counts it.
        Stmt::EmitRaw(t) => {
            let raw = constant(Value::from(t.raw), t.span());
            Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr: raw }, t.span()))
        }
        Stmt::ForLoop(t) => Stmt::ForLoop(Spanned::new(
            ast::ForLoop {
                target: target(&t.target)?,
                iter: call("@iter", vec![expr(&t.iter)?], t.span()),
                filter_expr: optional(&t.filter_expr)?,
                recursive: t.recursive,
                body: body(&t.body)?,
                else_body: body(&t.else_body)?,
            },
            t.span(),
        )),
        Stmt::IfCond(t) => Stmt::IfCond(Spanned::new(
            ast::IfCond {
                expr: expr(&t.expr)?,
                true_body: body(&t.true_body)?,
                false_body: body(&t.false_body)?,
            },
            t.span(),
        )),
        Stmt::WithBlock(t) => {
            // One assignment of all, so that no value sees another's name.
            let targets = t.assignments.iter().map(|(to, _)| target(to)).collect::<Made<_>>()?;
            let values = t.assignments.iter().map(|(to, from)| stored(to, from)).collect::<Made<_>>()?;
            let targets = Expr::List(Spanned::new(ast::List { items: targets }, t.span()));
            let values = Expr::Tuple(Spanned::new(ast::Tuple { items: values }, t.span()));
            let assignments = if t.assignments.is_empty() { vec![] } else { vec![(targets, values)] };
            let with = ast::WithBlock { assignments, body: body(&t.body)? };
            Stmt::WithBlock(Spanned::new(with, t.span()))
        }
        Stmt::Set(t) => {
            let set = ast::Set { target: target(&t.target)?, expr: stored(&t.target, &t.expr)? };
            Stmt::Set(Spanned::new(set, t.span()))
        }
        Stmt::SetBlock(t) => Stmt::SetBlock(Spanned::new(
            ast::SetBlock { target: target(&t.target)?, filter: optional(&t.filter)?, body: body(&t.body)? },
            t.span(),
        )),
        Stmt::FilterBlock(t) => Stmt::FilterBlock(Spanned::new(
            ast::FilterBlock { filter: expr(&t.filter)?, body: body(&t.body)? },
            t.span(),
        )),
        Stmt::Block(t) => Stmt::Block(Spanned::new(
            ast::Block { name: t.name, required: t.required, body: body(&t.body)? },
            t.span(),
        )),
        Stmt::Macro(t) => Stmt::Macro(declaration(t)?),
        Stmt::CallBlock(t) => Stmt::CallBlock(Spanned::new(
            ast::CallBlock { call: call_expr(&t.call)?, macro_decl: declaration(&t.macro_decl)? },
            t.span(),
        )),
        Stmt::Continue(t) => Stmt::Continue(Spanned::new(ast::Continue, t.span())),
        Stmt::Break(t) => Stmt::Break(Spanned::new(ast::Break, t.span())),
        Stmt::AutoEscape(t) => return refuse(t.span(), "the tag 'autoescape' is not supported"),
        Stmt::Import(t) => return refuse(t.span(), "the tag 'import' is not supported"),
        Stmt::FromImport(t) => return refuse(t.span(), "the tag 'from' is not supported"),
        Stmt::Extends(t) => return refuse(t.span(), "the tag 'extends' is not supported"),
        Stmt::Include(t) => return refuse(t.span(), "the tag 'include' is not supported"),
        Stmt::Do(t) => return refuse(t.span(), "the tag 'do' is not supported"),
    })
}

/// Values may only come to hold each other by being stored, so that is where their depth is checked.
fn stored<'a>(to: &Expr<'a>, from: &Expr<'a>) -> Made<Expr<'a>> {
    let name = if matches!(to, Expr::GetAttr(_)) { "@inner" } else { "@stored" };
    Ok(paid(name, expr(from)?))
}

fn declaration<'a>(m: &Spanned<ast::Macro<'a>>) -> Made<Spanned<ast::Macro<'a>>> {
    let args = m.args.iter().map(target).collect::<Made<_>>()?;
    let made = ast::Macro { name: m.name, args, defaults: exprs(&m.defaults)?, body: body(&m.body)? };
    Ok(Spanned::new(made, m.span()))
}

fn arguments<'a>(args: &[CallArg<'a>]) -> Made<Vec<CallArg<'a>>> {
    args.iter()
        .map(|arg| {
            Ok(match arg {
                CallArg::Pos(e) => CallArg::Pos(expr(e)?),
                CallArg::Kwarg(name, e) => CallArg::Kwarg(name, expr(e)?),
                CallArg::PosSplat(e) => CallArg::PosSplat(paid("@shallow", expr(e)?)),
                CallArg::KwargSplat(e) => CallArg::KwargSplat(paid("@shallow", expr(e)?)),
            })
        })
        .collect()
}

fn call_expr<'a>(c: &Spanned<ast::Call<'a>>) -> Made<Spanned<ast::Call<'a>>> {
    let mut keeps = false;
    let function = match &c.expr {
        Expr::Var(_) => expr(&c.expr)?,
        // A method call; `self.block()` is one in form only.
        Expr::GetAttr(attr) => {
            check_name(attr.name, attr.span())?;
            if UNSUPPORTED_METHODS.contains(&attr.name) {
                return refuse(attr.span(), format!("the method '{}' is not supported", attr.name));
            }
            let object = expr(&attr.expr)?;
            // A loop keeps what `changed` is given.
            keeps = attr.name == "changed";
            Expr::GetAttr(Spanned::new(ast::GetAttr { expr: object, name: attr.name }, attr.span()))
        }
        other => expr(other)?,
    };
    let mut args = arguments(&c.args)?;
    if keeps {
        for arg in &mut args {
            if let CallArg::Pos(e) = arg {
                let made = std::mem::replace(e, constant(Value::from(()), c.span()));
                *e = call("@inner", vec![made], c.span());
            }
        }
    }
    Ok(Spanned::new(ast::Call { expr: function, args }, c.span()))
}

/// The sandbox that transformers uses hides these.
fn check_name(name: &str, span: Span) -> Made<()> {
    if name.starts_with('_') {
        return refuse(span, format!("access to attribute '{name}' is unsafe"));
    }
    Ok(())
}

fn binary<'a>(s: &Spanned<ast::BinOp<'a>>) -> Made<Expr<'a>> {
    let (left, right) = (expr(&s.left)?, expr(&s.right)?);
    let span = s.span();
    let charged = match s.op {
        BinOpKind::Concat => return Ok(call("@concat", vec![left, right], span)),
        BinOpKind::Add => return Ok(call("@add", vec![left, right], span)),
        BinOpKind::Mul => return Ok(call("@mul", vec![left, right], span)),
        BinOpKind::Rem => return Ok(call("@mod", vec![left, right], span)),
        BinOpKind::In => return Ok(call("@in", vec![left, right], span)),
        BinOpKind::Lt => return Ok(call("@lt", vec![left, right], span)),
        BinOpKind::Lte => return Ok(call("@le", vec![left, right], span)),
        BinOpKind::Gt => return Ok(call("@gt", vec![left, right], span)),
        BinOpKind::Gte => return Ok(call("@ge", vec![left, right], span)),
        BinOpKind::Eq | BinOpKind::Ne => true,
        _ => false, // and, or, and arithmetic of numbers
    };
    let (left, right) = if charged { (paid("@deep", left), paid("@deep", right)) } else { (left, right) };
    Ok(Expr::BinOp(Spanned::new(ast::BinOp { op: s.op, left, right }, span)))
}

/// A chain of comparisons; a single one is a binary operator to the parser. In a chain, operands of one
/// type are taken for granted.
fn compare<'a>(s: &Spanned<ast::Compare<'a>>) -> Made<Expr<'a>> {
    let ops = s.ops.iter().map(|o| Ok(ast::CompareOp { op: o.op, expr: paid("@deep", expr(&o.expr)?) }));
    let made = ast::Compare { expr: paid("@deep", expr(&s.expr)?), ops: ops.collect::<Made<_>>()? };
    Ok(Expr::Compare(Spanned::new(made, s.span())))
}

fn filter<'a>(s: &Spanned<ast::Filter<'a>>) -> Made<Expr<'a>> {
    if !FILTERS.contains(&s.name) {
        return refuse(s.span(), format!("the filter '{}' is not supported", s.name));
    }
    let charge = if SHALLOW_FILTERS.contains(&s.name) { "@shallow" } else { "@deep" };
    let input = optional(&s.expr)?.map(|e| paid(charge, e));
    let made = ast::Filter { name: s.name, expr: input, args: arguments(&s.args)? };
    Ok(Expr::Filter(Spanned::new(made, s.span())))
}

fn test<'a>(s: &Spanned<ast::Test<'a>>) -> Made<Expr<'a>> {
    if !TESTS.contains(&s.name) {
        return refuse(s.span(), format!("the test '{}' is not supported", s.name));
    }
    let input = expr(&s.expr)?;
    let input = if s.args.is_empty() { input } else { paid("@deep", input) };
    let made = ast::Test { name: s.name, expr: input, args: arguments(&s.args)? };
    Ok(Expr::Test(Spanned::new(made, s.span())))
}

fn unary<'a>(s: &Spanned<ast::UnaryOp<'a>>) -> Made<Expr<'a>> {
    let op = match s.op {
        ast::UnaryOpKind::Not => ast::UnaryOpKind::Not,
        ast::UnaryOpKind::Neg => ast::UnaryOpKind::Neg,
    };
    Ok(Expr::UnaryOp(Spanned::new(ast::UnaryOp { op, expr: expr(&s.expr)? }, s.span())))
}

fn expr<'a>(e: &Expr<'a>) -> Made<Expr<'a>> {
    Ok(match e {
        Expr::Var(s) => {
            if UNSUPPORTED_NAMES.contains(&s.id) {
                return refuse(s.span(), format!("'{}' is not supported", s.id));
            }
            Expr::Var(Spanned::new(ast::Var { id: s.id }, s.span()))
        }
        Expr::Const(s) => constant(s.value.clone(), s.span()),
        Expr::Slice(s) => {
            let none = || constant(Value::from(()), s.span());
            let bound = |e: &Option<Expr<'a>>| Ok::<_, Refusal>(optional(e)?.unwrap_or_else(none));
            let args = vec![expr(&s.expr)?, bound(&s.start)?, bound(&s.stop)?, bound(&s.step)?];
            call("@slice", args, s.span())
        }
        Expr::UnaryOp(s) => unary(s)?,
        Expr::BinOp(s) => binary(s)?,
        Expr::Compare(s) => compare(s)?,
        Expr::IfExpr(s) => Expr::IfExpr(Spanned::new(
            ast::IfExpr {
                test_expr: expr(&s.test_expr)?,
                true_expr: expr(&s.true_expr)?,
                false_expr: optional(&s.false_expr)?,
            },
            s.span(),
        )),
        Expr::Filter(s) => filter(s)?,
        Expr::Test(s) => test(s)?,
        Expr::GetAttr(s) => {
            check_name(s.name, s.span())?;
            let object = expr(&s.expr)?;
            if is_any_method(s.name) {
                let name = constant(Value::from(s.name), s.span());
                return Ok(call("@get", vec![object, name], s.span()));
            }
            Expr::GetAttr(Spanned::new(ast::GetAttr { expr: object, name: s.name }, s.span()))
        }
        Expr::GetItem(s) => Expr::GetItem(Spanned::new(
            ast::GetItem { expr: expr(&s.expr)?, subscript_expr: expr(&s.subscript_expr)? },
            s.span(),
        )),
        Expr::Call(s) => Expr::Call(call_expr(s)?),
        Expr::List(s) => Expr::List(Spanned::new(ast::List { items: exprs(&s.items)? }, s.span())),
        Expr::Tuple(s) => Expr::Tuple(Spanned::new(ast::Tuple { items: exprs(&s.items)? }, s.span())),
        Expr::Map(s) => {
            Expr::Map(Spanned::new(ast::Map { keys: exprs(&s.keys)?, values: exprs(&s.values)? }, s.span()))
        }
    })
}
