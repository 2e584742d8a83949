//! The shop's interface against its own description: schemathesis makes requests from `/openapi.json`, good and bad,
//! and compares every answer with it.
//!
//! Needs Python 3 with its `venv`, and PyPI: the tool is installed into the target folder, once, in a fixed version.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::crash;
use crate::process::{self, Ended};
use crate::shop::{PROCESSOR, SERVICES, Up, build};
use crate::tree;

const TOOL: &str = "schemathesis==4.32.0";

/// What an answer must hold to. Not its default set: that a described request may be refused for a reason that no
/// schema can say (an unknown article, a foreign receipt) is right here.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance";

const INSTALL_MAX: Duration = Duration::from_secs(300);

const RUN_MAX: Duration = Duration::from_secs(600);

/// How much, and where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Requests made for each operation, in each of the tool's phases.
    #[arg(long, default_value_t = 30)]
    examples: u32,
    /// Repeats a run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The shop's ports follow this one.
    #[arg(long, default_value_t = 27_200)]
    port_base: u16,
    /// A `mainstay` that is built already.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// True when every answer of every service is as described.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let folder = tree::target()?.join("openapi");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let tool = install(&folder)?;
    let data = folder.join("data");
    if data.exists() {
        std::fs::remove_dir_all(&data).context("an earlier run's data can't be removed")?;
    }
    let mut up = Up::new(&binary, &folder, arguments.port_base);
    let checked = up.start().and_then(|()| {
        // A service that has never heard of another can't tell a stranger's receipt from one of its.
        crash::warm_up(arguments.port_base)?;
        let mut passed = true;
        for (port, service) in (1..).zip(SERVICES) {
            passed &= check(arguments, &tool, &folder, service, arguments.port_base + port)?;
        }
        let wrong = up.stop()?;
        if let Some(wrong) = &wrong {
            eprintln!("{wrong}");
        }
        Ok(passed && wrong.is_none())
    });
    up.end();
    checked
}

/// The tool's program; installed when it is not there.
fn install(folder: &Path) -> Result<PathBuf> {
    let home = folder.join(TOOL.replace("==", "-"));
    let tool = home.join("bin/schemathesis");
    if tool.exists() {
        return Ok(tool);
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(&home);
    if !succeeds(&mut venv, INSTALL_MAX)? {
        bail!("python3 -m venv failed; install Python 3 with its venv module (Debian: python3-venv)");
    }
    let mut pip = Command::new(home.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", TOOL]);
    if !succeeds(&mut pip, INSTALL_MAX)? {
        bail!("{TOOL} can't be installed from PyPI; is there a network?");
    }
    Ok(tool)
}

fn check(arguments: &Arguments, tool: &Path, folder: &Path, service: &str, port: u16) -> Result<bool> {
    let mut command = Command::new(tool);
    command.args(["run", &format!("http://127.0.0.1:{port}/openapi.json"), "--checks", CHECKS]);
    command.args(["--max-examples", &arguments.examples.to_string(), "--seed", &arguments.seed.to_string()]);
    command.args(["--request-timeout", "20", "--no-color"]).current_dir(folder);
    if service == PROCESSOR {
        // It would be told to hang, and then no other answer would come.
        command.args(["--exclude-path", "/behaviour"]);
    }
    let passed = succeeds(&mut command, RUN_MAX)?;
    if passed {
        eprintln!("{service}: every answer is as described");
    } else {
        eprintln!("{service}: its answers are not as described, see above");
        eprintln!("    to repeat it: cargo xtask openapi --seed {}", arguments.seed);
    }
    Ok(passed)
}

fn succeeds(command: &mut Command, limit: Duration) -> Result<bool> {
    command.stdout(std::io::stderr());
    match process::run(command, limit)? {
        Ended::Exited(status) => Ok(status.success()),
        Ended::TimedOut => bail!("{} did not end within {limit:?}", command.get_program().display()),
    }
}
