//! `login`, the token file, and the precedence of tokens.

use std::os::unix::fs::PermissionsExt;

use crate::server::{Server, unique};

/// An AppRole that can log in, at its own mount.
fn approle(server: &Server) -> (String, String, String) {
    let path = unique("approle");
    server.ok(&["auth", "enable", &format!("-path={path}"), "approle"]);
    server.ok(&["write", &format!("auth/{path}/role/app"), "token_policies=default", "token_ttl=20m"]);
    let role_id = server.ok(&["read", "-field=role_id", &format!("auth/{path}/role/app/role-id")]);
    let secret_id = server.ok(&["write", "-f", "-field=secret_id", &format!("auth/{path}/role/app/secret-id")]);
    (path, format!("role_id={role_id}"), format!("secret_id={secret_id}"))
}

#[test]
fn an_approle_login_stores_its_token() {
    let server = Server::find();
    let (path, role_id, secret_id) = approle(&server);
    let path = format!("-path={path}");
    let done = server.run_with(&["login", "-method=approle", &path, &role_id, &secret_id], &[], "");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stdout.starts_with("Success! You are now authenticated.")
            && done.stdout.contains("\ntoken_duration          20m\n"),
        "{done:?}"
    );
    assert!(done.stdout.ends_with("\ntoken_meta_role_name    app\n"), "{done:?}");
    let file = server.home().join(".vault-token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let stored = std::fs::read_to_string(&file).unwrap();
    assert_eq!(server.run_with(&["token", "lookup", "-field=id"], &[], "").stdout, stored);
    assert_eq!(server.run_with(&["print", "token"], &[], "").stdout, stored.clone() + "\n");
    // The environment takes precedence over the file.
    let root = server.token();
    let loud = server.run_with(&["login", "-method=approle", &path, &role_id, &secret_id], &[("BAO_TOKEN", root)], "");
    assert!(loud.stderr.contains("BAO_TOKEN environment variable is set"), "{loud:?}");
    assert_eq!(server.run_with(&["print", "token"], &[("BAO_TOKEN", "b"), ("VAULT_TOKEN", "v")], "").stdout, "b\n");
    assert_eq!(server.run_with(&["print", "token"], &[("KEEPFAST_TOKEN", "k"), ("BAO_TOKEN", "b")], "").stdout, "k\n");
}

#[test]
fn a_token_is_looked_up_before_it_is_stored() {
    let server = Server::find();
    let file = server.home().join(".vault-token");
    let done = server.run_with(&["login", "no-such-token"], &[], "");
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.starts_with("Error authenticating: error looking up token: ") && !file.exists(), "{done:?}");
    let root = server.token();
    let done = server.run_with(&["login", "-no-print", "-"], &[], root);
    assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), root);
}

#[test]
fn a_login_without_store_writes_no_file() {
    let server = Server::find();
    let (root, file) = (server.token().to_owned(), server.home().join(".vault-token"));
    let shown = server.run_with(&["login", "-no-store", &root], &[], "");
    assert!(shown.code == 0 && shown.stdout.contains("has not been stored"), "{shown:?}");
    let only = server.run_with(&["login", "-token-only", &format!("token={root}")], &[], "");
    assert_eq!((only.code, only.stdout), (0, root.clone()));
    assert!(!file.exists());
    let silent = server.run_with(&["login", "-no-print", "token=-"], &[], &root);
    assert_eq!((silent.code, silent.stdout.as_str()), (0, ""), "{silent:?}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), root);
}

#[test]
fn wrong_credentials_fail_and_store_no_token() {
    let server = Server::find();
    let (path, role_id, _) = approle(&server);
    let done =
        server.run_with(&["login", "-method=approle", &format!("-path={path}"), &role_id, "secret_id=wrong"], &[], "");
    assert_eq!(done.code, 2);
    assert!(
        done.stderr.starts_with("Error authenticating: Error making API request.") && !done.stderr.contains("wrong"),
        "{done:?}"
    );
    let none = server.run_with(&["login", "-method=userpass", "-non-interactive", "username=x"], &[], "");
    assert!(none.code == 1 && none.stderr.contains("Password is needed"), "{none:?}");
    let unknown = server.run_with(&["login", "-method=nope"], &[], "");
    assert!(unknown.code == 1 && unknown.stderr.starts_with("Unknown auth method: nope."), "{unknown:?}");
}

#[test]
fn the_program_works_under_the_name_vault() {
    let server = Server::find();
    let vault = server.named_vault();
    let root = server.token();
    let run = |arguments: &[&str]| server.run_program(&vault, arguments, &[("VAULT_TOKEN", root)], "");
    assert_eq!(run(&["token", "lookup", "-field=id"]).stdout, root);
    assert!(run(&["version"]).stdout.starts_with("Keepfast v"));
    assert!(run(&["read", "-output-curl-string", "a/b"]).stdout.contains("$(vault print token)"));
    assert!(run(&["kv"]).stderr.starts_with("Usage: vault kv <subcommand>"));
}

#[test]
fn a_userpass_login_takes_name_and_password() {
    let server = Server::find();
    let path = unique("userpass");
    server.ok(&["auth", "enable", &format!("-path={path}"), "userpass"]);
    server.ok(&["write", &format!("auth/{path}/users/bob"), "password=pw", "token_policies=default"]);
    let flag = format!("-path={path}");
    let login = |password: &str| {
        server.run_with(
            &["login", "-method=userpass", &flag, "-field=policies", "username=bob", "password=-"],
            &[],
            password,
        )
    };
    assert_eq!((login("pw").code, login("pw").stdout.as_str()), (0, "[default]"));
    let refused = login("wrong");
    assert!(refused.code == 2 && refused.stderr.contains("* invalid username or password"), "{refused:?}");
}

#[test]
fn a_wrapped_login_is_unwrapped_only_to_store_the_token() {
    let server = Server::find();
    let (path, role_id, secret_id) = approle(&server);
    let path = format!("-path={path}");
    let login = |more: &[&str]| {
        let words = ["login", "-method=approle", &path, "-wrap-ttl=60"];
        server.run_with(&[&words, more, &[&role_id, &secret_id]].concat(), &[], "")
    };
    let kept = login(&["-field=token"]);
    assert_eq!(kept.code, 0, "{kept:?}");
    assert_eq!(std::fs::read_to_string(server.home().join(".vault-token")).unwrap(), kept.stdout);
    // Without a stored token, the output is the wrapping token.
    let wrapping = login(&["-token-only"]).stdout;
    assert_eq!(server.run_with(&["unwrap", "-field=token_duration", &wrapping], &[], "").stdout, "1200");
    let shown = login(&["-no-store"]).stdout;
    assert!(shown.contains("wrapping_token: ") && !shown.contains("token_duration"), "{shown}");
    let lost = login(&["-no-store", "-no-print"]);
    assert!(lost.code == 1 && lost.stderr.contains("neither stored nor printed"), "{lost:?}");
}

#[test]
fn token_path_sets_the_token_file() {
    let server = Server::find();
    let (root, file) = (server.token(), server.home().join("elsewhere"));
    let variables = [("VAULT_TOKEN_PATH", file.to_str().unwrap())];
    let done = server.run_with(&["login", "-no-print", root], &variables, "");
    assert_eq!((done.code, std::fs::read_to_string(&file).unwrap().as_str()), (0, root), "{done:?}");
    assert_eq!(server.run_with(&["token", "lookup", "-field=id"], &variables, "").stdout, root);
    assert!(!server.home().join(".vault-token").exists());
}

#[test]
fn token_only_prints_in_the_requested_format() {
    let server = Server::find();
    let done = server.run_with(&["login", "-token-only", "-format=json", server.token()], &[], "");
    assert_eq!(done.stdout, format!("{:?}", server.token()));
}
