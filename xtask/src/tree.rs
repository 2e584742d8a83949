//! What the checks look at: the files git knows or would take, and the members cargo sees.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::process;

/// The files of one checkout: tracked ones and those git would track, never what it ignores.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    /// Relative to the root, with `/`, sorted.
    files: Vec<String>,
}

/// The checkout that this xtask was built from.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask has no parent directory")?.to_path_buf())
}

/// Where cargo builds.
pub(crate) fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => Ok(PathBuf::from(target)),
        None => Ok(root()?.join("target")),
    }
}

impl Tree {
    /// Lists the files under `root` by asking git, so that what is ignored is ignored here too.
    pub(crate) fn open(root: &Path) -> Result<Tree> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("git can't be started; it is needed to list the files")?;
        if !output.status.success() {
            bail!("git ls-files failed in {}: {}", root.display(), String::from_utf8_lossy(&output.stderr));
        }
        let listed = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        let mut files: Vec<String> = listed
            .split('\0')
            // A file deleted but not yet committed is still listed by git.
            .filter(|file| !file.is_empty() && root.join(file).is_file())
            .map(str::to_owned)
            .collect();
        files.sort();
        files.dedup();
        ensure!(!files.is_empty(), "git lists no file under {}: is it a checkout?", root.display());
        Ok(Tree { root: root.to_path_buf(), files })
    }

    /// The directory of the checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Every file, relative to the root.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Whether `file` is listed.
    pub(crate) fn contains(&self, file: &str) -> bool {
        self.files.binary_search_by(|known| known.as_str().cmp(file)).is_ok()
    }

    /// The text of `file`, or None when it can't be read or is not UTF-8 (a picture, a store file).
    pub(crate) fn text(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(file)).ok()
    }

    /// The members of the workspace, in cargo's order.
    pub(crate) fn members(&self) -> Result<Vec<Member>> {
        let output = process::cargo()
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .current_dir(&self.root)
            .output()
            .context("cargo metadata can't be started")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).context("cargo metadata printed what we don't know")?;
        // cargo resolves links in the path of the checkout, so compare with its own root and not with ours.
        let root = metadata.workspace_root;
        let relative =
            |path: &Path| path.strip_prefix(&root).ok().map(|path| path.to_string_lossy().into_owned());
        metadata
            .packages
            .into_iter()
            .map(|package| {
                let manifest = relative(&package.manifest_path)
                    .with_context(|| format!("{} lies outside the workspace", package.name))?;
                Ok(Member {
                    directory: manifest.trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned(),
                    manifest,
                    is_default: metadata.workspace_default_members.contains(&package.id),
                    name: package.name,
                    dependencies: package
                        .dependencies
                        .into_iter()
                        .map(|dependency| Dependency {
                            directory: dependency
                                .path
                                .map(|path| relative(&path).unwrap_or_else(|| path.display().to_string())),
                            kind: dependency.kind.unwrap_or_default(),
                            name: dependency.name,
                        })
                        .collect(),
                    roots: package
                        .targets
                        .iter()
                        .filter(|target| !target.kind.iter().any(|kind| kind == "custom-build"))
                        .filter_map(|target| relative(&target.src_path))
                        .collect(),
                })
            })
            .collect()
    }
}

/// A package of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Relative to the root; empty for the package at the root.
    pub(crate) directory: String,
    pub(crate) manifest: String,
    /// Whether `cargo build` at the root builds it.
    pub(crate) is_default: bool,
    pub(crate) dependencies: Vec<Dependency>,
    /// The file each library, program, test and example starts from.
    pub(crate) roots: Vec<String>,
}

/// What a member asks for in its manifest.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Where it lies when it is given by path: relative to the root, or absolute when outside of it.
    pub(crate) directory: Option<String>,
    /// Empty, "dev" or "build".
    pub(crate) kind: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<PackageDependency>,
    targets: Vec<PackageTarget>,
}

#[derive(Deserialize)]
struct PackageDependency {
    name: String,
    path: Option<PathBuf>,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct PackageTarget {
    kind: Vec<String>,
    src_path: PathBuf,
}
