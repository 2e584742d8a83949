//! The rule: a file with `unsafe` in it says at its top why, in a line that starts `//! Unsafe:`.
//!
//! The compiler refuses `unsafe` unless a file allows it; this makes the allowance give its reason where
//! the reader begins. Strings and comments don't count.

use proc_macro2::{TokenStream, TokenTree};

use super::{Finding, Scene, syntax};

/// What the line at the top starts with.
const REASON: &str = "//! Unsafe:";

pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    for source in &scene.sources {
        let Some(line) = source.text.parse().ok().and_then(first_unsafe) else { continue };
        if !syntax::head(&source.text).any(|head| head.starts_with(REASON) && head.len() > REASON.len()) {
            findings.push(Finding {
                rule: "unsafe",
                file: source.file.clone(),
                line,
                what: "unsafe code in a file whose head does not say why".into(),
                remedy: format!("do without, or add a line `{REASON} …` at the top: why it is sound"),
            });
        }
    }
}

fn first_unsafe(tokens: TokenStream) -> Option<usize> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "unsafe" => Some(ident.span().start().line),
        TokenTree::Group(group) => first_unsafe(group.stream()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn tree(text: &str) -> Vec<String> {
        Fixture::new().member("terms/a", "").file("terms/a/src/b.rs", text).findings(check)
    }

    #[test]
    fn unsafe_without_a_reason_is_refused() {
        for text in [
            "//! About.\nfn f() { unsafe { g() } }\n",
            "//! About.\nunsafe impl Send for X {}\n",
            "//! About.\nfn f() { vec![unsafe { g() }]; }\n",
            "//! Unsafe:\nunsafe fn f() {}\n",
            "//! About.\nunsafe fn f() {}\nmod m {\n//! Unsafe: too late\n}\n",
        ] {
            assert_eq!(
                tree(text),
                ["terms/a/src/b.rs:2: unsafe code in a file whose head does not say why"],
                "{text}"
            );
        }
    }

    #[test]
    fn unsafe_with_a_reason_and_the_word_alone_are_allowed() {
        for text in [
            "//! About.\n//!\n//! Unsafe: the pointer comes from C.\n#![allow(unsafe_code)]\nunsafe fn f() {}\n",
            "//! Not unsafe at all.\nfn f() -> &'static str { \"unsafe\" } // unsafe\n",
        ] {
            assert_eq!(tree(text), Vec::<String>::new(), "{text}");
        }
    }
}
