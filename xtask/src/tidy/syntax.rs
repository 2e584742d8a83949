//! Rust files as syntax, and the small questions several checks ask of it.
//!
//! Checks look at syntax and not at text, so that a comment or a string never counts as code.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;

use super::{Finding, Scene};
use crate::tree::Tree;

/// A Rust file of the tree.
pub(super) struct Source {
    /// Relative to the root.
    pub(super) file: String,
    pub(super) text: String,
    /// None when it does not parse; [`check`] reports that.
    pub(super) syntax: Option<syn::File>,
}

/// Reads every Rust file git lists.
pub(super) fn read(tree: &Tree) -> Vec<Source> {
    tree.files()
        .filter(|file| file.ends_with(".rs"))
        .filter_map(|file| {
            let text = tree.text(file)?;
            Some(Source { file: file.to_owned(), syntax: syn::parse_file(&text).ok(), text })
        })
        .collect()
}

/// The rule: every Rust file parses, or the other checks would pass over it in silence.
pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    for source in scene.sources.iter().filter(|source| source.syntax.is_none()) {
        findings.push(Finding {
            rule: "syntax",
            file: source.file.clone(),
            line: 0,
            what: "this file does not parse, so no other check has looked at it".into(),
            remedy: "mend it; a file that is meant not to compile is not named .rs".into(),
        });
    }
}

/// The comment lines at the top of a file, before the first line of code.
pub(super) fn head(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .take_while(|line| line.is_empty() || line.starts_with("//") || line.starts_with("#!["))
}

/// Whether an item with these attributes is compiled for tests only.
pub(super) fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        if path.segments.last().is_some_and(|segment| segment.ident == "test") {
            return true;
        }
        let syn::Meta::List(list) = &attribute.meta else { return false };
        path.is_ident("cfg") && names_test(list.tokens.clone())
    })
}

/// Whether a `cfg` predicate holds in tests only: `test`, `all(test, …)`; not `any(test, …)` or `not(test)`.
fn names_test(tokens: TokenStream) -> bool {
    let mut operator = None;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "test" => return true,
            TokenTree::Ident(ident) => operator = Some(ident.to_string()),
            TokenTree::Group(group) if operator.as_deref() == Some("all") && names_test(group.stream()) => {
                return true;
            }
            _ => {}
        }
    }
    false
}

/// The attributes of an item, whatever its kind.
pub(super) fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item;
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// A path mentioned somewhere, as words, and its line.
pub(super) type Mention = (Vec<String>, usize);

/// What a syntax path says, without generic arguments.
pub(super) fn mention(path: &syn::Path) -> Mention {
    let words = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    (words, path.span().start().line)
}

/// The paths in the arguments of a macro, which have no syntax: every `a::b::c`, and every lone word.
pub(super) fn mentions(tokens: TokenStream, found: &mut Vec<Mention>) {
    let mut path: Vec<String> = Vec::new();
    let mut line = 0;
    // How many colons stand after the last word; two of them make the next word part of the same path.
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                if colons != 2 && !path.is_empty() {
                    found.push((std::mem::take(&mut path), line));
                }
                if path.is_empty() {
                    line = ident.span().start().line;
                }
                path.push(ident.to_string());
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
            other => {
                if !path.is_empty() {
                    found.push((std::mem::take(&mut path), line));
                }
                colons = 0;
                if let TokenTree::Group(group) = other {
                    mentions(group.stream(), found);
                }
            }
        }
    }
    if !path.is_empty() {
        found.push((path, line));
    }
}

/// One name that a `use` brings into scope, or a glob.
pub(super) struct Import {
    /// The whole path, without the alias.
    pub(super) path: Vec<String>,
    /// The name in scope; None for a glob.
    pub(super) name: Option<String>,
    pub(super) line: usize,
}

/// Unfolds the braces of a `use`.
pub(super) fn imports(item: &syn::ItemUse) -> Vec<Import> {
    fn unfold(tree: &syn::UseTree, prefix: &mut Vec<String>, found: &mut Vec<Import>) {
        let line = tree.span().start().line;
        let mut add = |path: Vec<String>, name| found.push(Import { path, name, line });
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                unfold(&path.tree, prefix, found);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    unfold(tree, prefix, found);
                }
            }
            syn::UseTree::Glob(_) => add(prefix.clone(), None),
            syn::UseTree::Name(name) if name.ident == "self" => add(prefix.clone(), prefix.last().cloned()),
            syn::UseTree::Name(name) => {
                let path = [prefix.as_slice(), &[name.ident.to_string()]].concat();
                add(path, Some(name.ident.to_string()));
            }
            syn::UseTree::Rename(rename) if rename.ident == "self" => {
                add(prefix.clone(), Some(rename.rename.to_string()));
            }
            syn::UseTree::Rename(rename) => {
                let path = [prefix.as_slice(), &[rename.ident.to_string()]].concat();
                add(path, Some(rename.rename.to_string()));
            }
        }
    }
    let mut found = Vec::new();
    unfold(&item.tree, &mut Vec::new(), &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn a_file_that_does_not_parse_is_reported() {
        let found = Fixture::new().member("terms/a", "").file("terms/a/src/b.rs", "fn (").findings(check);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("terms/a/src/b.rs:0: this file does not parse"), "{found:?}");
        assert!(Fixture::new().member("terms/a", "").findings(check).is_empty());
    }

    #[test]
    fn test_only_code_is_told_from_shipped_code() {
        for (attribute, expected) in [
            ("#[test]", true),
            ("#[tokio::test]", true),
            ("#[cfg(test)]", true),
            ("#[cfg(all(unix, test))]", true),
            ("#[cfg(any(test, feature = \"sim\"))]", false),
            ("#[cfg(not(test))]", false),
            ("#[cfg(feature = \"test\")]", false),
            ("#[must_use]", false),
        ] {
            let item: syn::ItemFn = syn::parse_str(&format!("{attribute} fn f() {{}}")).unwrap();
            assert_eq!(is_test_only(&item.attrs), expected, "{attribute}");
        }
    }

    #[test]
    fn paths_in_macro_arguments_are_seen() {
        let tokens: TokenStream = "a::b(c, [d::e::f]) x: y".parse().unwrap();
        let mut found = Vec::new();
        mentions(tokens, &mut found);
        let paths: Vec<String> = found.iter().map(|(path, _)| path.join("::")).collect();
        assert_eq!(paths, ["a::b", "c", "d::e::f", "x", "y"]);
    }

    #[test]
    fn a_use_is_unfolded() {
        let item: syn::ItemUse = syn::parse_str("use a::{self, b::C, d::*, e as f};").unwrap();
        let found: Vec<_> = imports(&item).into_iter().map(|i| (i.path.join("::"), i.name)).collect();
        let name = |name: &str| Some(name.to_owned());
        let expected = [("a", name("a")), ("a::b::C", name("C")), ("a::d", None), ("a::e", name("f"))];
        assert_eq!(found, expected.map(|(path, name)| (path.to_owned(), name)));
    }
}
