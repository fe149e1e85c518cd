//! Seals of processes: key files that come and go, stanzas that SIGHUP reads, and a cluster that migrates.

#![allow(clippy::disallowed_methods, reason = "the program uses the system clock")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{LIMIT, PROGRAM, Process};

const READY: &str = "post-unseal setup complete";

/// A node with a directory of its own.
struct Node {
    home: tempfile::TempDir,
    ports: [u16; 2],
    /// The rest of its storage stanza.
    joins: String,
    token: String,
    process: Option<Process>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Node {
    fn new(joins: &str) -> Self {
        let ports = [free_port(), free_port()];
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("data")).unwrap();
        Node { home, ports, joins: joins.to_owned(), token: String::new(), process: None }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("c.hcl")
    }

    /// Writes the configuration with these seals.
    fn configure(&self, seals: &str) {
        let (data, [port, cluster]) = (self.home.path().join("data"), self.ports);
        let text = format!(
            "storage \"raft\" {{\n path = {data:?}\n node_id = \"n{port}\"\n {}\n}}\nlistener \"tcp\" {{\n address = \
             \"127.0.0.1:{port}\"\n cluster_address = \"127.0.0.1:{cluster}\"\n tls_disable = true\n}}\napi_addr = \"http://127.0.0.1:{port}\"\ncluster_addr = \
             \"https://127.0.0.1:{cluster}\"\ndisable_mlock = true\n{seals}",
            self.joins
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn start(&mut self) -> &Process {
        let flag = format!("-config={}", self.config().display());
        self.process.insert(Process::start(self.home.path(), &["server", &flag], &[]))
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    /// Reads the configuration with these seals again.
    fn reload(&self, seals: &str) {
        self.configure(seals);
        self.process().signal(Signal::HUP);
    }

    /// The exit code and the output of a command.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let run = Command::new(PROGRAM)
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("VAULT_ADDR", self.address())
            .env("VAULT_TOKEN", &self.token)
            .output()
            .unwrap();
        (run.status.code().unwrap_or(-1), String::from_utf8_lossy(&run.stdout).into_owned())
    }

    /// The output of a command in JSON; null when it fails.
    fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["-format=json"]).collect();
        serde_json::from_str(&self.run(&all).1).unwrap_or_default()
    }

    /// The names of the seals that have a slot.
    fn enrolled(&self) -> Vec<String> {
        let listed = self.json(&["operator", "seals", "list"]);
        let seals = listed["seals"].as_array().cloned().unwrap_or_default();
        let with_slot = seals.iter().filter(|seal| seal["enrolled"] == true);
        with_slot.map(|seal| seal["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Whether it is sealed; `None` without a response.
    fn sealed(&self) -> Option<bool> {
        self.json(&["status"])["sealed"].as_bool()
    }

    fn init(&mut self) {
        let made = self.json(&["operator", "init", "-recovery-shares=1", "-recovery-threshold=1"]);
        self.token = made["root_token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

/// A stanza whose key is in this file, which is written.
fn keyed(name: &str, file: &std::path::Path, more: &str) -> String {
    if !file.exists() {
        std::fs::write(file, format!("{name:0>32}")).unwrap();
    }
    let file = file.display();
    format!(
        "seal \"static\" {{\n name = \"{name}\"\n current_key_id = \"1\"\n current_key = \"file://{file}\"\n {more}\n}}\n"
    )
}

#[test]
fn a_start_waits_for_a_key_file_and_a_reload_reads_stanzas() {
    let mut node = Node::new("");
    let [first, second] = ["one", "two"].map(|name| node.home.path().join(name));
    let (one, two) = (keyed("one", &first, ""), keyed("two", &second, ""));
    std::fs::remove_file(&first).unwrap();
    node.configure(&one);
    node.start().logged("the seal waits for it");
    until("the server listens", || node.json(&["status"])["initialized"] == false);
    std::fs::write(&first, format!("{:0>32}", "one")).unwrap();
    node.init();
    until("the server unseals itself", || node.sealed() == Some(false));
    assert_eq!(node.enrolled(), ["one"]);
    // The file is not mounted yet at the next start.
    std::fs::rename(&first, node.home.path().join("away")).unwrap();
    node.process().signal(Signal::TERM);
    node.process.as_mut().unwrap().end();
    node.start();
    let failure = node.process().logged("the seal fails");
    assert!(failure.contains("unreachable") && failure.contains("cannot read"), "{failure}");
    assert_eq!(node.sealed(), Some(true));
    std::fs::rename(node.home.path().join("away"), &first).unwrap();
    node.process().logged(READY);
    // A syntactically wrong stanza, one that waits, and an unknown type leave the seals as they are.
    let missing = keyed("three", &second, "").replace("/two", "/none");
    for (bad, logged) in [
        (format!("{one}seal \"static\" {{"), "the configuration in use is kept"),
        (format!("{one}seal \"static\" {{ name = \"x\" }}"), "the configuration in use is kept"),
        (format!("{one}{missing}"), "the seals in use are kept"),
    ] {
        node.reload(&bad);
        node.process().logged(logged);
        assert_eq!(node.json(&["operator", "seals", "list"])["seals"].as_array().map(Vec::len), Some(1));
    }
    node.reload(&format!("{one}{two}"));
    until("the second seal is enrolled", || node.enrolled() == ["one", "two"]);
    // A lone server removes a seal on request only.
    node.reload(&format!("{}{two}", keyed("one", &first, "disabled = true")));
    until("the removal", || node.run(&["operator", "seals", "remove", "one"]).0 == 0);
    assert_eq!(node.enrolled(), ["two"]);
}

#[test]
fn a_cluster_of_processes_migrates_while_its_leader_is_killed() {
    let mut first = Node::new("");
    let files = ["one", "two"].map(|name| first.home.path().join(name));
    let old = keyed("one", &files[0], "");
    let new = keyed("one", &files[0], "disabled = true") + &keyed("two", &files[1], "");
    first.configure(&old);
    first.start();
    until("the server listens", || first.json(&["status"])["initialized"] == false);
    first.init();
    let stable = ["operator", "raft", "autopilot", "set-config", "-server-stabilization-time=1s"];
    until("autopilot", || first.run(&stable).0 == 0);
    let joins = format!("retry_join {{\n leader_api_addr = \"{}\"\n }}", first.address());
    let mut nodes = vec![first];
    for _ in 0..2 {
        let mut node = Node::new(&joins);
        node.token.clone_from(&nodes[0].token);
        node.configure(&old);
        node.start().logged(READY);
        nodes.push(node);
    }
    let voters = |node: &Node| {
        let members = node.json(&["read", "sys/storage/raft/configuration"]);
        let members = members["data"]["config"]["servers"].as_array().cloned().unwrap_or_default();
        members.iter().filter(|member| member["voter"] == true).count()
    };
    until("three voters", || voters(&nodes[0]) == 3);
    // The leader and one member have the new stanzas: both ways open, and the third one is awaited.
    nodes[0].reload(&new);
    nodes[1].reload(&new);
    until("the first commit", || nodes[0].enrolled() == ["one", "two"]);
    let awaits = |node: &Node| node.json(&["operator", "seals", "list"])["migration"]["awaits"].to_string();
    let third = format!("n{}", nodes[2].ports[0]);
    until("the third member is awaited", || awaits(&nodes[0]).contains(&third));
    // The leader is killed between the two commits.
    nodes[0].process = None;
    nodes[2].reload(&new);
    until("a member leads", || nodes[1].enrolled().len() == 2 && voters(&nodes[1]) == 3);
    nodes[0].start();
    until("the second commit", || nodes[1].enrolled() == ["two"]);
    // Each member starts by the new seal alone.
    std::fs::remove_file(&files[0]).unwrap();
    for node in &mut nodes {
        node.process = None;
        node.configure(&keyed("two", &files[1], ""));
        node.start().logged(READY);
    }
    until("a secret is written", || nodes[2].run(&["secrets", "enable", "-path=done", "kv"]).0 == 0);
}

#[test]
fn a_diagnosis_has_an_exit_code_for_each_outcome() {
    let node = Node::new("");
    let file = node.home.path().join("one");
    node.configure(&keyed("one", &file, ""));
    let config = format!("-config={}", node.config().display());
    let diagnose = |more: &[&str]| {
        let all: Vec<&str> = ["operator", "diagnose"].into_iter().chain(more.iter().copied()).collect();
        node.run(&all)
    };
    assert_eq!(diagnose(&[]).0, 3);
    assert_eq!(diagnose(&[&config, "-skip=nothing"]).0, 1);
    let (code, text) = diagnose(&[&config]);
    assert!(code == 2 && text.contains("TLS is disabled"), "{text}");
    assert!(text.contains("[ success ] Check Seal \"one\" (static): it wraps under 1"), "{text}");
    let (_, text) = diagnose(&[&config, "-skip=listener,storage", "-skip=autounseal"]);
    assert_eq!(text.matches("[ skipped ]").count(), 3, "{text}");
    std::fs::remove_file(&file).unwrap();
    let (code, text) = diagnose(&[&config]);
    assert!(code == 1 && text.contains("unreachable: current_key: cannot read"), "{text}");
    assert_eq!(node.json(&["operator", "diagnose", &config])["status"], "fail");
    std::fs::write(node.config(), "storage \"raft\" {").unwrap();
    assert_eq!(diagnose(&[&config]).0, 4);
}
