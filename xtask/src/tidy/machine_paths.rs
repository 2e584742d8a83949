//! The rule: no file names the machine it was written on, or the host its packages came from.
//!
//! Home directories, the directory of this checkout, and the hosts of package registries. They are useless
//! elsewhere and tell what nobody asked. What this machine is called is asked of the machine, so that the
//! rule needs no list of machines; lock files may say where a package comes from.

use std::path::Path;

use super::{Finding, Scene};

/// Parents that no machine is recognised by: a checkout may lie there anywhere.
const COMMON: [&str; 9] = ["/", "/tmp", "/usr", "/opt", "/var", "/srv", "/mnt", "/src", "/var/tmp"];

/// Split in two so that this file does not name what it refuses.
const HOMES: [(&str, &str); 4] = [("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/"), ("C:\\Us", "ers\\")];

/// Hosts of registries, with what follows the name in an address.
const REGISTRIES: [(&str, &str); 6] = [
    ("crates", ".io/"),
    ("pypi", ".org"),
    ("npmjs", ".com"),
    ("npmjs", ".org"),
    ("deb.deb", "ian.org"),
    ("repo1.ma", "ven.org"),
];

/// Files that are written by package managers and say where each package comes from.
const LOCKS: [&str; 3] = ["Cargo.lock", "package-lock.json", "uv.lock"];

/// Where the rule is broken, and how.
struct Names {
    /// Whole paths: they count only where a path begins.
    paths: Vec<String>,
    /// Parts of addresses: they count anywhere.
    hosts: Vec<String>,
}

impl Names {
    fn of_this_machine(root: &Path) -> Names {
        let mut paths: Vec<String> = HOMES.iter().map(|(a, b)| format!("{a}{b}")).collect();
        let mut own = vec![root.to_path_buf()];
        own.extend(root.parent().map(Path::to_path_buf));
        own.extend(["HOME", "CARGO_HOME", "RUSTUP_HOME"].iter().filter_map(std::env::var_os).map(Into::into));
        for path in own.iter().filter_map(|path| path.to_str()) {
            if !COMMON.contains(&path) {
                paths.push(format!("{}/", path.trim_end_matches('/')));
            }
        }
        let hosts = REGISTRIES.iter().map(|(a, b)| format!("{a}{b}")).collect();
        Names { paths, hosts }
    }

    /// The first name that a line says.
    fn find(&self, line: &str) -> Option<&str> {
        let path = self.paths.iter().find(|path| {
            line.match_indices(path.as_str()).any(|(at, _)| {
                // Inside a longer path it is something else: `models/home/src`.
                !line[..at].ends_with(|before: char| before.is_alphanumeric() || "_-./~}".contains(before))
            })
        });
        path.or_else(|| self.hosts.iter().find(|host| line.contains(host.as_str()))).map(String::as_str)
    }
}

pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    let names = Names::of_this_machine(scene.tree.root());
    for file in scene.tree.files() {
        if LOCKS.iter().any(|lock| file.ends_with(lock)) {
            continue;
        }
        // What is not text is data: a store file, a picture.
        let Some(text) = scene.tree.text(file) else { continue };
        for (index, line) in text.lines().enumerate() {
            if let Some(name) = names.find(line) {
                findings.push(Finding {
                    rule: "machine-paths",
                    file: file.to_owned(),
                    line: index + 1,
                    what: format!("it names {name}, a place of one machine or a package host"),
                    remedy: "use a path relative to the repository, or an example that names no machine"
                        .into(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn tree(text: &str) -> Vec<String> {
        Fixture::new().member("terms/a", "").file("docs/a.md", text).findings(check)
    }

    #[test]
    fn homes_and_registries_are_refused() {
        for (a, b) in HOMES {
            let found = tree(&format!("# A\n\nsee `{a}{b}someone/x`\n"));
            assert_eq!(found.len(), 1, "{a}{b}: {found:?}");
            assert!(found[0].starts_with("docs/a.md:3: it names "), "{found:?}");
        }
        for (a, b) in REGISTRIES {
            assert_eq!(tree(&format!("https://{a}{b}/x")).len(), 1, "{a}{b}");
        }
    }

    #[test]
    fn the_place_of_the_checkout_is_refused() {
        let fixture = Fixture::new().member("terms/a", "");
        let line = format!("built in {}/target\n", fixture.path().display());
        assert_eq!(fixture.file("docs/a.md", &line).findings(check).len(), 1);
    }

    #[test]
    fn what_only_looks_like_a_place_is_allowed() {
        let inside = HOMES[0].0.to_owned() + HOMES[0].1;
        let host = REGISTRIES[0].0.to_owned() + REGISTRIES[0].1;
        let found = Fixture::new()
            .member("terms/a", "")
            .file("docs/a.md", &format!("models{inside}src, /tmp/x, {}\n", inside.trim_end_matches('/')))
            .file("tests/outside/b/Cargo.lock", &format!("source = \"registry+https://{host}\"\n"))
            .findings(check);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn the_parent_of_a_checkout_counts_unless_it_is_common() {
        let names = Names::of_this_machine(Path::new("/builds/project"));
        assert_eq!(names.find("in /builds/other"), Some("/builds/"));
        let names = Names::of_this_machine(Path::new("/tmp/project"));
        assert_eq!(names.find("in /tmp/other"), None);
        assert_eq!(names.find("in /tmp/project/x"), Some("/tmp/project/"));
    }
}
