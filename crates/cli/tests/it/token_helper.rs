//! A token helper replaces the token file.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::server::Server;

/// A helper that stores the token in a file beside it and logs its operations.
const HELPER: &str = "#!/bin/sh
cd \"$(dirname \"$0\")\"
echo \"$1 $VAULT_ADDR\" >> log
case $1 in
  get) cat kept 2>/dev/null || true ;;
  store) cat > kept ;;
esac
";

fn set_up(server: &Server, file: &str, script: &str) -> PathBuf {
    let directory = server.home().join("helper");
    std::fs::create_dir(&directory).unwrap();
    let program = directory.join("keep");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(server.home().join(file), format!("token_helper = \"{}\"\n", program.display())).unwrap();
    directory
}

#[test]
fn a_login_stores_in_the_helper_and_commands_read_it() {
    for file in [".vault", ".bao"] {
        let server = Server::find();
        let directory = set_up(&server, file, HELPER);
        let done = server.run_with(&["login", "-no-print", server.token()], &[], "");
        assert_eq!(done.code, 0, "{done:?}");
        assert_eq!(std::fs::read_to_string(directory.join("kept")).unwrap(), server.token());
        assert!(!server.home().join(".vault-token").exists(), "the token is not in the token file");
        let done = server.run_with(&["token", "lookup", "-field=id"], &[], "");
        assert_eq!((done.code, done.stdout.as_str()), (0, server.token()), "{done:?}");
        let printed = server.run_with(&["print", "token"], &[], "");
        assert_eq!(printed.stdout.trim(), server.token());
        let log = std::fs::read_to_string(directory.join("log")).unwrap();
        assert!(log.contains(&format!("store {}\n", server.address())), "{log}");
        assert!(log.contains(&format!("get {}\n", server.address())), "{log}");
    }
}

#[test]
fn a_token_variable_goes_before_the_helper() {
    let server = Server::find();
    let directory = set_up(&server, ".vault", HELPER);
    server.ok(&["token", "lookup"]);
    assert!(!directory.join("log").exists());
}

#[test]
fn a_failing_helper_is_an_error_without_fallback() {
    let server = Server::find();
    std::fs::write(server.home().join(".vault-token"), server.token()).unwrap();
    set_up(&server, ".vault", "#!/bin/sh\necho out of order >&2\nexit 3\n");
    let done = server.run_with(&["token", "lookup"], &[], "");
    assert!(
        done.code != 0 && done.stderr.contains("out of order") && done.stderr.contains("exit status: 3"),
        "{done:?}"
    );
    std::fs::write(server.home().join(".vault"), "token_helper = \"/not/there\"").unwrap();
    let done = server.run_with(&["token", "lookup"], &[], "");
    assert!(done.code != 0 && done.stderr.contains("/not/there"), "{done:?}");
}

#[test]
fn config_path_sets_the_configuration_file() {
    let server = Server::find();
    let directory = set_up(&server, "settings.hcl", HELPER);
    std::fs::write(directory.join("kept"), server.token()).unwrap();
    let settings = server.home().join("settings.hcl").display().to_string();
    for name in ["VAULT_CONFIG_PATH", "BAO_CONFIG_PATH"] {
        let done = server.run_with(&["token", "lookup", "-field=id"], &[(name, &settings)], "");
        assert_eq!((done.code, done.stdout.as_str()), (0, server.token()), "{name}: {done:?}");
    }
    let done = server.run_with(&["status"], &[("VAULT_CONFIG_PATH", "/not/there")], "");
    assert!(done.code != 0 && done.stderr.contains("VAULT_CONFIG_PATH"), "{done:?}");
}
