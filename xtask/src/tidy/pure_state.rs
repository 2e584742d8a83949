//! The rule: a `state.rs` decides, and nothing else.
//!
//! Time and chance come in as parameters; what is to be done goes out as a value. So `state.rs` (and every
//! file under a folder `state/`) has no ambient clock, chance, sleep, spawn or I/O, in no path, macro or
//! import. `Instant` as a *type* is data and allowed; asking for the time is not. Code under `cfg(test)` is
//! free. Read as syntax: a comment may say `Instant::now` as often as it likes.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use super::syntax::{self, Mention, Source};
use super::{Finding, Scene};

/// Paths that start like this, and what is wrong with them.
const AMBIENT: [(&[&str], &str); 15] = [
    (&["std", "thread"], "threads and sleep"),
    (&["std", "fs"], "files"),
    (&["std", "net"], "the network"),
    (&["std", "io"], "input and output"),
    (&["std", "os"], "the operating system"),
    (&["std", "env"], "the environment"),
    (&["std", "process"], "processes"),
    (&["std", "hash", "RandomState"], "ambient chance"),
    (&["std", "collections", "hash_map", "RandomState"], "ambient chance"),
    (&["tokio"], "the runtime"),
    (&["async_std"], "the runtime"),
    (&["futures_timer"], "a timer"),
    (&["rand"], "ambient chance"),
    (&["getrandom"], "ambient chance"),
    (&["fastrand"], "ambient chance"),
];

/// Macros that print.
const PRINTING: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// Constructors of identifiers that read a clock or draw chance by themselves.
const AMBIENT_IDS: [&str; 5] = ["now_v1", "now_v6", "now_v7", "new_v4", "from_entropy"];

pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    for source in &scene.sources {
        if !is_state(&source.file) {
            continue;
        }
        for (line, what) in offences(source) {
            findings.push(Finding {
                rule: "pure-state",
                file: source.file.clone(),
                line,
                what,
                remedy: "take it as a parameter (`now`, a drawn number), or do it in layer.rs".into(),
            });
        }
    }
}

fn is_state(file: &str) -> bool {
    file.ends_with("/state.rs") || file.contains("/state/")
}

fn offences(source: &Source) -> Vec<(usize, String)> {
    let Some(syntax) = &source.syntax else { return Vec::new() };
    let mut names = Names::default();
    names.visit_file(syntax);
    let mut search = Search { names: names.0, found: Vec::new() };
    search.visit_file(syntax);
    search.found.sort();
    search.found.dedup();
    search.found
}

/// What each imported name stands for, wherever in the file it is imported.
#[derive(Default)]
struct Names(BTreeMap<String, Vec<String>>);

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for import in syntax::imports(item) {
            if let Some(name) = import.name {
                self.0.insert(name, import.path);
            }
        }
    }
}

struct Search {
    names: BTreeMap<String, Vec<String>>,
    found: Vec<(usize, String)>,
}

impl Search {
    /// A lone word is a variable, or a name whose import was judged already.
    fn judge_mention(&mut self, mention: Mention) {
        if mention.0.len() > 1 {
            self.judge(mention);
        }
    }

    fn judge(&mut self, (path, line): Mention) {
        if let Some(why) = objection(&self.full(&path)) {
            self.found.push((line, format!("{} reaches for {why}", path.join("::"))));
        }
    }

    /// The path with its first word replaced by what it was imported as.
    fn full(&self, path: &[String]) -> Vec<String> {
        let mut full = path.to_vec();
        // Bounded: `use a as b; use b as a;` does not compile, but it may stand here.
        for _ in 0..8 {
            let Some(expanded) = full.first().and_then(|first| self.names.get(first)) else { break };
            if expanded.first() == full.first() {
                full.splice(..1, expanded.iter().cloned());
                break;
            }
            full.splice(..1, expanded.iter().cloned());
        }
        if matches!(full.first().map(String::as_str), Some("core" | "alloc")) {
            full[0] = "std".into();
        }
        full
    }
}

fn objection(path: &[String]) -> Option<&'static str> {
    let starts_with =
        |prefix: &[&str]| prefix.len() <= path.len() && prefix.iter().zip(path).all(|(a, b)| a == b);
    if let Some((_, why)) = AMBIENT.iter().find(|(prefix, _)| starts_with(prefix)) {
        return Some(why);
    }
    let last = path.last()?.as_str();
    // Whatever its type is called: who asks it for now has a clock of his own.
    if path.len() > 1 && last == "now" {
        return Some("the clock");
    }
    (path.len() > 1 && AMBIENT_IDS.contains(&last)).then_some("the clock or chance")
}

impl<'ast> Visit<'ast> for Search {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !syntax::is_test_only(syntax::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !syntax::is_test_only(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for import in syntax::imports(item) {
            // A glob of std::time brings in no more than the types; its `now` is caught where it is called.
            self.judge((import.path, import.line));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.judge_mention(syntax::mention(path));
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        // `Instant::elapsed` and `SystemTime::elapsed` take nothing and read the clock.
        if call.method == "elapsed" && call.args.is_empty() {
            let line = call.method.span().start().line;
            self.found.push((line, "elapsed() reaches for the clock".into()));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let (path, line) = syntax::mention(&call.path);
        if path.last().is_some_and(|last| PRINTING.contains(&last.as_str())) {
            self.found.push((line, format!("{}! prints", path.join("::"))));
        }
        let mut found = Vec::new();
        syntax::mentions(call.tokens.clone(), &mut found);
        for mention in found {
            self.judge_mention(mention);
        }
        visit::visit_macro(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn tree(text: &str) -> Vec<String> {
        Fixture::new()
            .member("rules/resilience", "")
            .file("rules/resilience/src/retry/state.rs", text)
            .findings(check)
    }

    #[test]
    fn every_ambient_thing_is_found() {
        for (text, what) in [
            ("fn f() { std::time::Instant::now(); }", "std::time::Instant::now reaches for the clock"),
            ("use std::time::Instant;\nfn f() { Instant::now(); }", "Instant::now reaches for the clock"),
            ("use std::time::{SystemTime as T};\nfn f() { T::now(); }", "T::now reaches for the clock"),
            ("use std::time::*;\nfn f() { let now = Instant::now; }", "Instant::now reaches for the clock"),
            ("type C = std::time::Instant;\nfn f() { C::now(); }", "C::now reaches for the clock"),
            ("fn f(t: std::time::Instant) { t.elapsed(); }", "elapsed() reaches for the clock"),
            ("fn f() { assert!(Instant::now() > t); }", "Instant::now reaches for the clock"),
            ("use std::thread;\nfn f() { thread::sleep(d); }", "std::thread reaches for threads and sleep"),
            ("use std::{fs, fmt};", "std::fs reaches for files"),
            ("fn f() -> std::io::Result<()> { Ok(()) }", "std::io::Result reaches for input and output"),
            ("fn f() { ::std::net::lookup(); }", "std::net::lookup reaches for the network"),
            ("fn f() { std::env::var(\"X\"); }", "std::env::var reaches for the environment"),
            ("async fn f() { tokio::time::sleep(d).await; }", "tokio::time::sleep reaches for the runtime"),
            ("use tokio::spawn;", "tokio::spawn reaches for the runtime"),
            ("fn f() -> u8 { rand::random() }", "rand::random reaches for ambient chance"),
            ("use uuid::Uuid;\nfn f() { Uuid::now_v7(); }", "Uuid::now_v7 reaches for the clock or chance"),
            ("fn f() { println!(\"x\"); }", "println! prints"),
            ("fn f() { std::dbg!(1); }", "std::dbg! prints"),
            ("fn f() { vec![fastrand::u8(..)]; }", "fastrand::u8 reaches for ambient chance"),
        ] {
            let found = tree(text);
            let line = if text.contains('\n') && !what.starts_with("std::thread") { 2 } else { 1 };
            let expected = format!("rules/resilience/src/retry/state.rs:{line}: {what}");
            assert!(found.contains(&expected), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_only_looks_ambient_is_allowed() {
        let text = r##"
            //! Never calls Instant::now() or rand::random().
            use std::time::{Duration, Instant};
            /// tokio::spawn would be wrong here.
            pub fn next(now: Instant, rand: u64, io: u8) -> Duration {
                let text = "std::fs::read, println!";
                let _ = (text, rand, vec![rand, io.into()]);
                now.saturating_duration_since(now)
            }
            struct Watch { tokio: u8, rand: u8 }
            #[cfg(test)]
            mod tests {
                #[test]
                fn f() { std::thread::sleep(std::time::Duration::ZERO); println!("x"); }
            }
        "##;
        assert_eq!(tree(text), Vec::<String>::new());
    }

    #[test]
    fn only_states_are_bound_by_it() {
        let clock = "pub fn f() { std::time::Instant::now(); }\n";
        let found = Fixture::new()
            .member("rules/resilience", "")
            .file("rules/resilience/src/retry/layer.rs", clock)
            .file("rules/resilience/src/retry/state/window.rs", clock)
            .findings(check);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("rules/resilience/src/retry/state/window.rs:1: "), "{found:?}");
    }
}
