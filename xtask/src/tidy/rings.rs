//! The rule: the modules of a crate do not import each other in a ring.
//!
//! What counts. A module uses another when it names something *defined* there: in a `use`, in a path, in a
//! macro's arguments; a name taken from a re-export counts as taken from where it is defined. Every such use
//! is looked at where the two paths part: `a::b::c` using `a::d::e` is an edge from `b` to `d` among the
//! children of `a`. Among the children of every module those edges form no ring.
//!
//! What does not count. A folder and what is in it are one thing to their neighbours: a parent may
//! declare and re-export its children, and a child may use what its parent defines. Code under `cfg(test)`.
//!
//! What it can't see: names that a macro makes up, and modules pulled in by a `cfg` path.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syn::Item;
use syn::visit::{self, Visit};

use super::syntax::{self, Mention, Source};
use super::{Finding, Scene};

pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    let sources: BTreeMap<&str, &Source> =
        scene.sources.iter().map(|source| (source.file.as_str(), source)).collect();
    for member in &scene.members {
        for root in &member.roots {
            let mut modules = Modules { all: Vec::new(), sources: &sources };
            modules.load_root(root);
            for ring in modules.rings() {
                findings.push(ring);
            }
        }
    }
}

type Id = usize;

/// One module of a crate.
#[derive(Default)]
struct Module {
    path: Vec<String>,
    file: String,
    parent: Option<Id>,
    children: BTreeMap<String, Id>,
    /// Names in scope through a `use`, and the path each stands for.
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    defined: BTreeSet<String>,
    mentions: Vec<Mention>,
}

/// Where a path leads.
enum Target {
    Module(Id),
    /// An item defined in that module.
    Item(Id),
}

struct Modules<'a> {
    all: Vec<Module>,
    sources: &'a BTreeMap<&'a str, &'a Source>,
}

impl Modules<'_> {
    /// Reads a crate from the file it starts from.
    fn load_root(&mut self, file: &str) {
        let Some(syntax) = self.sources.get(file).and_then(|source| source.syntax.as_ref()) else { return };
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.load(None, "crate", file, folder, &syntax.items);
    }

    /// Adds a module; the files of its children lie in `folder`.
    fn load(&mut self, parent: Option<Id>, name: &str, file: &str, folder: &str, items: &[Item]) -> Id {
        let id = self.all.len();
        let mut path = parent.map(|parent| self.all[parent].path.clone()).unwrap_or_default();
        path.push(name.to_owned());
        self.all.push(Module { path, file: file.to_owned(), parent, ..Module::default() });
        for item in items.iter().filter(|item| !syntax::is_test_only(syntax::attributes(item))) {
            if let Item::Mod(module) = item {
                self.load_child(id, file, folder, module);
                continue;
            }
            self.all[id].defined.extend(defined_name(item));
            let mut reader = Reader { module: &mut self.all[id] };
            reader.visit_item(item);
        }
        id
    }

    fn load_child(&mut self, parent: Id, file: &str, folder: &str, module: &syn::ItemMod) {
        let name = module.ident.to_string();
        let inner_folder = join(folder, &name);
        let child = if let Some((_, items)) = &module.content {
            self.load(Some(parent), &name, file, &inner_folder, items)
        } else {
            let beside = join(folder, &format!("{name}.rs"));
            let inside = join(&inner_folder, "mod.rs");
            let told = told_path(&module.attrs)
                .map(|path| join(file.rsplit_once('/').map_or("", |(folder, _)| folder), &path));
            let found = [told.as_ref(), Some(&beside), Some(&inside)]
                .into_iter()
                .flatten()
                .find_map(|file| Some((file, self.sources.get(file.as_str())?.syntax.as_ref()?)));
            let Some((file, syntax)) = found else { return };
            self.load(Some(parent), &name, file, &inner_folder, &syntax.items)
        };
        self.all[parent].children.insert(name, child);
    }

    /// Follows a path as written in module `from`. None when it leads out of the crate.
    fn resolve(&self, from: Id, path: &[String], depth: usize) -> Option<Target> {
        if depth == 0 {
            return None;
        }
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (0, &path[1..]),
            "self" => (from, &path[1..]),
            "super" => (self.all[from].parent?, &path[1..]),
            _ => return self.look_up(from, path, depth),
        };
        while let Some((first, after)) = rest.split_first()
            && first == "super"
        {
            (at, rest) = (self.all[at].parent?, after);
        }
        // It starts in this crate, so what can't be found further down was made by a macro.
        Some(self.look_up(at, rest, depth).unwrap_or(Target::Item(at)))
    }

    /// Follows a path in the names that module `at` has in scope.
    fn look_up(&self, at: Id, path: &[String], depth: usize) -> Option<Target> {
        if depth == 0 {
            return None;
        }
        let module = &self.all[at];
        let Some((first, rest)) = path.split_first() else { return Some(Target::Module(at)) };
        if let Some(&child) = module.children.get(first) {
            return Some(self.look_up(child, rest, depth).unwrap_or(Target::Item(child)));
        }
        if module.defined.contains(first) {
            return Some(Target::Item(at));
        }
        if let Some(import) = module.imports.get(first) {
            return match self.resolve(at, import, depth - 1)? {
                Target::Module(there) => {
                    Some(self.look_up(there, rest, depth - 1).unwrap_or(Target::Item(there)))
                }
                item @ Target::Item(_) => Some(item),
            };
        }
        module.globs.iter().find_map(|glob| match self.resolve(at, glob, depth - 1)? {
            Target::Module(there) if there != at => self.look_up(there, path, depth - 1),
            _ => None,
        })
    }

    /// Every ring, once, at the place where its first edge is made.
    fn rings(&self) -> Vec<Finding> {
        // Parent → child → the sibling it uses → (the module it happens in, the line, the words).
        let mut levels: BTreeMap<&[String], BTreeMap<&str, BTreeMap<&str, Witness>>> = BTreeMap::new();
        for (from, module) in self.all.iter().enumerate() {
            for (words, line) in &module.mentions {
                let (Target::Module(to) | Target::Item(to)) = match self.resolve(from, words, 16) {
                    Some(target) => target,
                    None => continue,
                };
                let (here, there) = (&module.path, &self.all[to].path);
                let shared = here.iter().zip(there).take_while(|(a, b)| a == b).count();
                // One is the other, or is inside of it.
                let (Some(user), Some(used)) = (here.get(shared), there.get(shared)) else { continue };
                levels
                    .entry(&here[..shared])
                    .or_default()
                    .entry(user)
                    .or_default()
                    .entry(used)
                    .or_insert(Witness { module: from, line: *line, words });
            }
        }
        levels
            .iter()
            .flat_map(|(parent, edges)| {
                rings_among(edges).into_iter().map(|ring| self.describe(parent, edges, &ring))
            })
            .collect()
    }

    fn describe(
        &self,
        parent: &[String],
        edges: &BTreeMap<&str, BTreeMap<&str, Witness<'_>>>,
        ring: &[&str],
    ) -> Finding {
        let mut steps = Vec::new();
        let mut place = None;
        for (index, user) in ring.iter().enumerate() {
            let used = ring[(index + 1) % ring.len()];
            let Some(witness) = edges.get(user).and_then(|used_by| used_by.get(used)) else { continue };
            let file = &self.all[witness.module].file;
            place.get_or_insert((file.clone(), witness.line));
            steps.push(format!("{user} uses {used} ({file}:{}: {})", witness.line, witness.words.join("::")));
        }
        let (file, line) = place.unwrap_or_default();
        Finding {
            rule: "rings",
            file,
            line,
            what: format!("a ring among the modules of {}: {}", parent.join("::"), steps.join(", ")),
            remedy: "move what both need into the one below, or into a module of its own below both".into(),
        }
    }
}

/// Where an edge was seen first.
struct Witness<'a> {
    module: Id,
    line: usize,
    words: &'a [String],
}

/// The shortest ring through each node, each ring once, starting at its first node by name.
fn rings_among<'a>(edges: &BTreeMap<&'a str, BTreeMap<&'a str, Witness<'_>>>) -> Vec<Vec<&'a str>> {
    let mut seen: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    let mut rings = Vec::new();
    for &start in edges.keys() {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for &next in edges.get(node).into_iter().flat_map(BTreeMap::keys) {
                if !came_from.contains_key(next) {
                    came_from.insert(next, node);
                    queue.push_back(next);
                }
            }
        }
        let Some(&last) = came_from.get(start) else { continue };
        let mut ring = vec![start];
        let mut node = last;
        while node != start {
            ring.push(node);
            match came_from.get(node) {
                Some(&before) => node = before,
                None => break,
            }
        }
        ring[1..].reverse();
        if seen.insert(ring.iter().copied().collect()) {
            rings.push(ring);
        }
    }
    rings
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The file that `#[path = "…"]` names.
fn told_path(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

fn defined_name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Collects what a module names.
struct Reader<'a> {
    module: &'a mut Module,
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        // Test functions inside of functions or of traits count no more than those of a module.
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
        if item.leading_colon.is_some() {
            return;
        }
        for import in syntax::imports(item) {
            match import.name {
                Some(name) => {
                    self.module.imports.insert(name, import.path.clone());
                }
                None => self.module.globs.push(import.path.clone()),
            }
            self.module.mentions.push((import.path, import.line));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.module.mentions.push(syntax::mention(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        syntax::mentions(call.tokens.clone(), &mut self.module.mentions);
        visit::visit_macro(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Vec<String> {
        let mut fixture = Fixture::new().member("terms/a", "");
        for (file, text) in files {
            fixture = fixture.file(&format!("terms/a/src/{file}"), text);
        }
        fixture.findings(check)
    }

    #[test]
    fn two_modules_that_use_each_other_are_a_ring() {
        let found = tree(&[
            ("lib.rs", "mod one;\nmod two;\n"),
            ("one.rs", "use crate::two::B;\npub struct A(B);\n"),
            ("two.rs", "pub struct B;\nfn f(_: super::one::A) {}\n"),
        ]);
        assert_eq!(
            found,
            ["terms/a/src/one.rs:1: a ring among the modules of crate: one uses two \
             (terms/a/src/one.rs:1: crate::two::B), two uses one (terms/a/src/two.rs:2: super::one::A)"]
        );
    }

    #[test]
    fn a_line_is_no_ring() {
        let found = tree(&[
            ("lib.rs", "mod one;\nmod two;\nmod three;\npub use one::A;\n"),
            ("one.rs", "use crate::two::B;\nuse crate::three::C;\npub struct A(B, C);\n"),
            ("two.rs", "use crate::three::*;\npub struct B(C);\n"),
            ("three.rs", "pub struct C;\n"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_ring_of_three_is_found_whole() {
        let found = tree(&[
            ("lib.rs", "mod one;\nmod two;\nmod three;\n"),
            ("one.rs", "use crate::two::B;\npub struct A;\n"),
            ("two.rs", "use crate::three::C;\npub struct B;\n"),
            ("three.rs", "pub struct C;\nmacro_rules! m { () => { $crate::one::A } }\n"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("one uses two") && found[0].contains("three uses one"), "{found:?}");
    }

    #[test]
    fn a_re_export_does_not_hide_a_ring() {
        for (front, one) in [
            ("mod one;\nmod two;\npub use one::A;\npub use two::B;\n", "use crate::B;\npub struct A(B);\n"),
            ("mod one;\nmod two;\npub use two::*;\npub use one::*;\n", "use super::*;\npub struct A(B);\n"),
            ("mod one;\nmod two;\npub use one as x;\npub use two as y;\n", "pub struct A(crate::y::B);\n"),
        ] {
            let two = if front.contains("as x") {
                "use super::x::A;\npub struct B;\nfn f(_: A) {}\n"
            } else {
                "use crate::A;\npub struct B;\nfn f(_: A) {}\n"
            };
            let found = tree(&[("lib.rs", front), ("one.rs", one), ("two.rs", two)]);
            assert_eq!(found.len(), 1, "{front}: {found:?}");
        }
    }

    #[test]
    fn a_parent_and_its_children_are_one_thing() {
        let found = tree(&[
            ("lib.rs", "pub mod retry;\n"),
            (
                "retry/mod.rs",
                "mod spec;\nmod state;\npub use spec::Spec;\npub use state::State;\n\
                              pub trait Port {}\nfn both(_: Spec, _: State) {}\n",
            ),
            ("retry/spec.rs", "use super::Port;\npub struct Spec;\nimpl Port for Spec {}\n"),
            ("retry/state.rs", "use super::{Port, Spec};\npub struct State(Spec);\nimpl Port for State {}\n"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn folders_are_compared_where_their_paths_part() {
        let files = |back: &'static str| {
            tree(&[
                ("lib.rs", "mod left;\nmod right;\n"),
                ("left/mod.rs", "pub mod deep;\npub mod other;\n"),
                ("left/deep.rs", "use crate::right::deep::R;\npub struct L(R);\n"),
                ("left/other.rs", "pub struct O;\n"),
                ("right.rs", "pub mod deep { pub struct R; }\npub mod back;\n"),
                ("right/back.rs", back),
            ])
        };
        // Neither deep nor other is in a ring by itself, but the folders left and right are.
        let found = files("use crate::left::other::O;\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("left uses right") && found[0].contains("right uses left"), "{found:?}");
        assert!(files("use super::deep::R;\n").is_empty());
    }

    #[test]
    fn tests_may_use_what_they_test() {
        let found = tree(&[
            ("lib.rs", "mod one;\nmod two;\n"),
            ("one.rs", "use crate::two::B;\npub struct A(B);\n"),
            (
                "two.rs",
                "pub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::one::A;\n}\n\
                        #[cfg(test)]\nuse crate::one::A;\n#[test]\nfn f() { crate::one::A; }\n",
            ),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn programs_and_libraries_of_one_package_are_looked_at_apart() {
        let found = tree(&[
            ("lib.rs", "pub mod one;\n"),
            ("one.rs", "pub struct A;\n"),
            ("main.rs", "mod p;\nmod q;\nfn main() { p::go(); }\n"),
            ("p.rs", "pub fn go() { crate::q::go() }\n"),
            ("q.rs", "pub fn go() { crate::p::go() }\n"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("p uses q"), "{found:?}");
    }
}
