//! Use at a terminal: escaped values, suggestions, help, completion.

use std::path::Path;
use std::process::Command;

use crate::server::{Done, Server};

const PROGRAM: &str = env!("CARGO_BIN_EXE_keepfast");

/// Runs a shell command line on a pseudo-terminal of util-linux's `script`; returns its exit code and its output.
fn on_a_terminal(server: &Server, line: &str) -> (i32, String) {
    let done = Command::new("script")
        .args(["-q", "-e", "-c", line, "/dev/null"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", server.home())
        .env("VAULT_ADDR", server.address())
        .env("VAULT_TOKEN", server.token())
        .env("TERM", "dumb")
        .output()
        .expect("`script` of util-linux (Debian: bsdutils) is needed");
    (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
}

/// Whether a text contains terminal controls other than the program's own colours.
fn is_obeyed(text: &str) -> bool {
    let plain =
        ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"].iter().fold(text.to_owned(), |text, own| text.replace(own, ""));
    plain.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || plain.contains('\u{202e}')
}

#[test]
fn sec_kf13_values_are_escaped_on_a_terminal_and_raw_in_a_pipe() {
    let server = Server::find();
    let (hostile, kv) = ("A\u{1b}]0;PWNED\u{7}\u{1b}[2J\u{9b}31m\u{202e}", server.kv(2));
    server.ok(&["kv", "put", &format!("{kv}/a"), &format!("v={hostile}")]);
    server.ok(&["secrets", "tune", &format!("-description={hostile}"), &kv]);
    for (arguments, code, part) in [
        (format!("kv get {kv}/a"), 0, "PWNED"),
        (format!("kv get -field=v {kv}/a"), 0, "PWNED"),
        (format!("kv get -format=json {kv}/a"), 0, "PWNED"),
        (format!("kv get -format=yaml {kv}/a"), 0, "PWNED"),
        (format!("read -format=raw {kv}/data/a"), 0, "PWNED"),
        ("secrets list".to_owned(), 0, "PWNED"),
        ("secrets list -detailed".to_owned(), 0, "PWNED"),
        ("read \"$(printf 'x/\\033[2J')\"".to_owned(), 2, "[2J"),
        ("\"$(printf '\\033[2J')\"".to_owned(), 127, "[2J"),
    ] {
        let (ended, shown) = on_a_terminal(&server, &format!("{PROGRAM} {arguments}"));
        assert!(ended == code && shown.contains(part) && !is_obeyed(&shown), "{arguments}: {ended} {shown:?}");
    }
    assert_eq!(server.ok(&["kv", "get", "-field=v", &format!("{kv}/a")]), hostile);
}

fn run(arguments: &[&str]) -> Done {
    Server::at("http://127.0.0.1:1").run_with(arguments, &[], "")
}

#[test]
fn help_before_a_command_is_the_help_of_the_command() {
    let help = run(&["kv", "get", "-h"]).stdout;
    assert!(help.starts_with("Usage: keepfast kv get"), "{help}");
    for flag in ["-h", "-help", "--help", "help"] {
        let done = run(&[flag, "kv", "get", "secret/a"]);
        assert_eq!((done.code, done.stdout.as_str()), (0, help.as_str()), "{flag}");
        assert!(run(&[flag, "kv"]).stdout.starts_with("Usage: keepfast kv <subcommand>"));
        assert!(run(&[flag]).stdout.starts_with("Usage: keepfast <command>"));
    }
    let own = help.find("-version=<int>").unwrap();
    assert!(own < help.find("Connection options").unwrap(), "a command's own options come first: {help}");
}

#[test]
fn an_unknown_command_gets_one_line_with_a_suggestion() {
    for (arguments, code, words) in [
        (&["secret", "list"][..], 127, "Unknown command \"secret\". Did you mean \"secrets\"?"),
        (&["kv", "gte", "a"], 1, "Unknown command \"kv gte\". Did you mean \"get\"?"),
        (&["agent", "-config=a"], 127, "Unknown command \"agent\". Vault or OpenBao has it, Keepfast does not."),
        (&["operator", "usage", "x"], 1, "Unknown command \"operator usage\". Vault or OpenBao has it"),
        (&["namespace", "seal", "x"], 1, "Unknown command \"namespace seal\". Vault or OpenBao has it"),
        (&["xyzzy"], 127, "Unknown command \"xyzzy\". \"keepfast -help\" lists the commands."),
        (&["kv", "get", "-monut=a", "b"], 1, "flag provided but not defined: -monut. Did you mean -mount?"),
        (&["-addres=x", "status"], 1, "flag provided but not defined: -addres."),
    ] {
        let done = run(arguments);
        assert_eq!((done.code, done.stdout.as_str()), (code, ""), "{done:?}");
        assert!(done.stderr.contains(words) && done.stderr.lines().count() == 1, "{done:?}");
    }
}

#[test]
fn the_version_line_has_five_fields() {
    let done = run(&["-version"]);
    let words: Vec<&str> = done.stdout.split_whitespace().collect();
    let ["Keepfast", version, commit, "built", date] = words[..] else { panic!("{done:?}") };
    assert_eq!(version, concat!("v", env!("CARGO_PKG_VERSION")));
    assert!(commit.starts_with('(') && commit.ends_with("),") && !date.is_empty(), "{done:?}");
    assert_eq!(run(&["version"]).stdout, done.stdout);
}

#[test]
fn completion_uses_names_of_the_server() {
    let server = Server::find();
    let kv = server.kv(2);
    server.ok(&["kv", "put", &format!("{kv}/app/db"), "a=b"]);
    server.ok(&["write", "sys/policies/acl/web-readers", "policy=path \"a\" { capabilities = [\"read\"] }"]);
    let complete = |line: &str| {
        let variables = [("COMP_LINE", line), ("VAULT_TOKEN", server.token())];
        server.run_with(&[], &variables, "").stdout
    };
    assert_eq!(complete(&format!("keepfast kv get {}", &kv[..kv.len() - 1])), format!("{kv}/\n"));
    assert_eq!(complete(&format!("keepfast kv get {kv}/")), format!("{kv}/app/\n"));
    assert_eq!(complete(&format!("keepfast kv get {kv}/app/")), format!("{kv}/app/db\n"));
    assert_eq!(complete("keepfast policy read web"), "web-readers\n");
    assert_eq!(complete("keepfast auth tune to"), "token/\n");
    let alone = Server::at("http://127.0.0.1:1").run_with(&[], &[("COMP_LINE", "keepfast kv get s")], "");
    assert_eq!((alone.code, alone.stdout.as_str(), alone.stderr.as_str()), (0, "", ""));
}

#[test]
fn completion_is_installed_once_and_removed() {
    let server = Server::at("http://127.0.0.1:1");
    let run = |flag: &str| server.run_with(&[flag], &[], "");
    let none = run("-autocomplete-install");
    assert!(none.code == 1 && none.stderr.contains("needs a ~/.bashrc"), "{none:?}");
    let file = |name: &str| server.home().join(name);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    std::fs::write(file(".bashrc"), "alias a=b").unwrap();
    std::fs::write(file(".zshrc"), "").unwrap();
    for _ in 0..2 {
        assert_eq!(run("-autocomplete-install").code, 0);
    }
    let bash = read(&file(".bashrc"));
    assert!(bash.starts_with("alias a=b\ncomplete -C /") && bash.matches("complete -C").count() == 1, "{bash}");
    assert!(read(&file(".zshrc")).contains("bashcompinit; complete -C /"));
    assert_eq!(run("-autocomplete-uninstall").code, 0);
    assert_eq!((read(&file(".bashrc")).as_str(), read(&file(".zshrc")).as_str()), ("alias a=b\n", ""));
}

#[test]
fn a_curl_command_has_the_tls_settings_and_token_of_the_request() {
    let server = Server::at("https://10.0.0.1:8200");
    let done = server.run_with(
        &["read", "-output-curl-string", "-tls-server-name=vault.test", "-ca-path=/etc/ssl/certs", "secret/a"],
        &[],
        "",
    );
    let line = done.stdout;
    assert!(line.contains("--capath '/etc/ssl/certs'"), "{line}");
    assert!(line.contains("--connect-to 'vault.test:8200:10.0.0.1:8200'"), "{line}");
    assert!(line.contains("\"https://vault.test:8200/v1/secret/a\""), "{line}");
}
