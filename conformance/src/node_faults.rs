//! Means to disturb the nodes of a cluster beside signals: proxies on their links, and two preloaded libraries, which
//! step the clock and make writes and syncs fail (`campaign/cluster/node_faults.c`, `campaign/disk_fault.c`).

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::links::Links;
use crate::servers::NodeSettings;

/// The faults of the nodes of one cluster.
pub struct NodeFaults {
    /// The links between the nodes.
    pub links: Links,
    libraries: [PathBuf; 2],
    directory: TempDir,
}

impl NodeFaults {
    /// Compiles the libraries and opens a proxy for each of this number of nodes.
    ///
    /// # Errors
    /// When there is no C compiler or no free port.
    pub fn prepare(nodes: usize, seed: u64) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("conformance-faults-").tempdir()?;
        let libraries = [
            compile("campaign/cluster/node_faults.c", directory.path())?,
            compile("campaign/disk_fault.c", directory.path())?,
        ];
        let faults = Self { links: Links::open(nodes, seed)?, libraries, directory };
        for node in 0..nodes {
            std::fs::write(faults.clock(node), 0_i64.to_ne_bytes())?;
        }
        Ok(faults)
    }

    /// The settings of a node, whose cluster port is behind its proxy.
    pub fn settings(&self, node: usize, node_id: String) -> NodeSettings {
        let (cluster_address, advertised) = (self.links.target(node).to_string(), self.links.address(node).to_string());
        NodeSettings { node_id, cluster_address, advertised }
    }

    /// The environment variables of a node.
    pub fn environment(&self, node: usize) -> Vec<(String, String)> {
        let [own, disk] = &self.libraries;
        let variables = [
            ("LD_PRELOAD", format!("{}:{}", own.display(), disk.display())),
            ("NODE_ADDRESS", self.links.source(node).to_string()),
            ("CLOCK_FILE", self.clock(node).display().to_string()),
            ("FAULT_SWITCH", self.disk(node).display().to_string()),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Sets the seconds by which the wall clock of a node is ahead.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set_clock(&self, node: usize, ahead: i64) -> Result<()> {
        // The node has mapped the file, so it is not replaced.
        let file = std::fs::OpenOptions::new().write(true).open(self.clock(node))?;
        file.write_all_at(&ahead.to_ne_bytes(), 0)?;
        Ok(())
    }

    /// Makes writes or syncs of a node below a directory fail; `disk_fault.c` lists the modes.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn break_disk(&self, node: usize, mode: &str, below: &Path) -> Result<()> {
        switch_on(&self.disk(node), mode, below)
    }

    /// Makes the disk of a node work again.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn mend_disk(&self, node: usize) -> Result<()> {
        Ok(std::fs::remove_file(self.disk(node))?)
    }

    fn clock(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("clock-{node}"))
    }

    fn disk(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("disk-{node}"))
    }
}

/// Writes the file that switches faults of the disk on. It is written elsewhere and renamed, so that the library never
/// reads a part of it.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn switch_on(switch: &Path, mode: &str, place: &Path) -> Result<()> {
    let prepared = switch.with_extension("next");
    std::fs::write(&prepared, format!("{mode} {}", place.display()))?;
    Ok(std::fs::rename(&prepared, switch)?)
}

/// Compiles a library to preload; `source` is below `src/`.
///
/// # Errors
/// When there is no C compiler.
pub(crate) fn compile(source: &str, directory: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(source);
    let library = directory.join(source.with_extension("so").file_name().context("no file name")?);
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    if !built.context("starting the C compiler")?.success() {
        bail!("the library with the faults does not compile");
    }
    Ok(library)
}
