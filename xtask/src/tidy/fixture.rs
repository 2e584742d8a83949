//! Small trees for the checks' own tests: real files under a real `git`, gone when the test ends.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Check, Finding, Scene};

/// A workspace in the making.
pub(super) struct Fixture {
    directory: TempDir,
    members: Vec<String>,
}

impl Fixture {
    /// An empty workspace without members.
    pub(super) fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let status = Command::new("git").args(["init", "--quiet"]).current_dir(&directory).status().unwrap();
        assert!(status.success());
        Fixture { directory, members: Vec::new() }
    }

    /// Adds a file.
    pub(super) fn file(self, path: &str, text: &str) -> Fixture {
        let path = self.directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Adds a member named as its folder asks, with `manifest` after its `[package]` table and a library.
    pub(super) fn member(self, directory: &str, manifest: &str) -> Fixture {
        let folder = directory.rsplit('/').next().unwrap();
        let name = if folder == "xtask" { folder.to_owned() } else { format!("mainstay-{folder}") };
        self.named_member(directory, &name, manifest)
    }

    /// Adds a member of any name.
    pub(super) fn named_member(mut self, directory: &str, name: &str, manifest: &str) -> Fixture {
        self.members.push(directory.to_owned());
        let text =
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{manifest}\n");
        self.file(&format!("{directory}/Cargo.toml"), &text)
            .file(&format!("{directory}/src/lib.rs"), "//! Something.\n\npub fn something() {}\n")
    }

    /// What `check` finds in it, as text without the remedies.
    pub(super) fn findings(self, check: Check) -> Vec<String> {
        let members: Vec<String> = self.members.iter().map(|member| format!("{member:?}")).collect();
        let root = format!("[workspace]\nresolver = \"3\"\nmembers = [{}]\n", members.join(", "));
        let fixture = if self.directory.path().join("Cargo.toml").exists() {
            self
        } else {
            self.file("Cargo.toml", &root)
        };
        fixture.check(check).iter().map(brief).collect()
    }

    /// The directory of the tree.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn check(&self, check: Check) -> Vec<Finding> {
        let scene = Scene::open(self.path()).unwrap();
        let mut findings = Vec::new();
        check(&scene, &mut findings);
        for finding in &findings {
            assert!(!finding.remedy.is_empty(), "{finding} says not what to do");
        }
        findings
    }
}

fn brief(finding: &Finding) -> String {
    format!("{}:{}: {}", finding.file, finding.line, finding.what)
}
