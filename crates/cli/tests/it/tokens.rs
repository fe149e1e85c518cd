//! `token …` and `lease …`.

use crate::server::{Server, unique};

#[test]
fn a_token_is_created_renewed_and_revoked() {
    let server = Server::find();
    let create =
        ["token", "create", "-policy=default", "-ttl=1h", "-metadata=team=a", "-display-name=it", "-field=token"];
    let token = server.ok(&create);
    let accessor = server.ok(&["token", "lookup", "-field=accessor", &token]);
    let shown = server.ok(&["token", "lookup", &token]);
    for line in [
        "creation_ttl        1h\n",
        "display_name        token-it\n",
        "entity_id           n/a\n",
        "explicit_max_ttl    0s\n",
        "meta                map[team:a]\n",
        "policies            [default]\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    let by_accessor = server.ok(&["token", "lookup", "-accessor", &accessor]);
    assert!(by_accessor.contains("id                  n/a\n"), "{by_accessor}");
    let renewed = server.ok(&["token", "renew", "-increment=30m", &token]);
    let expected = format!(
        "Key                  Value\n---                  -----\ntoken                {token}\ntoken_accessor       {accessor}\ntoken_duration       30m\n\
         token_renewable      true\ntoken_policies       [\"default\"]\nidentity_policies    []\npolicies             [\"default\"]\ntoken_meta_team      a\n"
    );
    assert_eq!(renewed, expected);
    assert_eq!(server.ok(&["token", "capabilities", &token, "auth/token/lookup-self"]), "read\n");
    assert_eq!(server.ok(&["token", "capabilities", "-format=json", "secret/x"]), "[\n  \"root\"\n]\n");
    assert_eq!(server.ok(&["token", "revoke", "-accessor", &accessor]), "Success! Revoked token (if it existed)\n");
    server.fails(&["token", "lookup", &token], 2, "Error looking up token: Error making API request.\n\nURL: POST ");
}

#[test]
fn commands_without_a_token_use_the_current_one() {
    let server = Server::find();
    let token = server.ok(&["token", "create", "-policy=default", "-ttl=1h", "-field=token"]);
    let own = [("VAULT_TOKEN", token.as_str())];
    assert_eq!(server.run_with(&["token", "lookup", "-field=id"], &own, "").stdout, token);
    assert_eq!(server.run_with(&["token", "renew"], &own, "").code, 0);
    assert_eq!(server.run_with(&["token", "revoke", "-self"], &own, "").code, 0);
    assert_eq!(server.run_with(&["token", "lookup"], &own, "").code, 2);
}

#[test]
fn an_orphan_outlives_its_parent_and_a_child_does_not() {
    let server = Server::find();
    let policy = unique("policy");
    let text = "path \"auth/token/create\" { capabilities = [\"create\", \"update\", \"sudo\"] }";
    server.ok(&["write", &format!("sys/policies/acl/{policy}"), &format!("policy={text}")]);
    let parent =
        server.ok(&["token", "create", &format!("-policy={policy}"), "-policy=default", "-ttl=1h", "-field=token"]);
    let own = [("VAULT_TOKEN", parent.as_str())];
    let create = |flag: &str| {
        let done = server.run_with(&["token", "create", "-policy=default", flag, "-field=token"], &own, "");
        assert_eq!(done.code, 0, "{done:?}");
        done.stdout
    };
    let (child, orphan) = (create("-orphan=false"), create("-orphan"));
    server.ok(&["token", "revoke", &parent]);
    assert_eq!(server.run(&["token", "lookup", &child]).code, 2);
    assert_eq!(server.ok(&["token", "lookup", "-field=orphan", &orphan]), "true");
}

#[test]
fn a_root_token_does_not_expire() {
    let server = Server::find();
    let shown = server.ok(&["token", "create"]);
    assert!(
        shown.contains("token_duration       ∞\ntoken_renewable      false\ntoken_policies       [\"root\"]\n"),
        "{shown}"
    );
    let json = server.ok(&["token", "create", "-format=json"]);
    assert!(json.contains("\"data\": null,\n  \"warnings\": null,\n  \"auth\": {\n    \"client_token\": \""), "{json}");
}

#[test]
fn the_lease_of_a_token_is_listed_and_revoked() {
    let server = Server::find();
    let role = unique("role");
    server.ok(&["write", &format!("auth/token/roles/{role}"), "allowed_policies=default"]);
    let token = server.ok(&["token", "create", &format!("-role={role}"), "-ttl=1h", "-field=token"]);
    let path = format!("auth/token/create/{role}");
    let names = server.ok(&["list", "-format=yaml", &format!("sys/leases/lookup/{path}")]);
    let id = format!("{path}/{}", names.trim().trim_start_matches("- "));
    let shown = server.ok(&["lease", "lookup", &id]);
    assert!(shown.contains(&format!("id              {id}\n")) && shown.contains("last_renewal    <nil>\n"), "{shown}");
    assert_eq!(server.ok(&["lease", "revoke", "-sync", &id]), format!("Success! Revoked lease: {id}\n"));
    assert_eq!(server.run(&["token", "lookup", &token]).code, 2);
    server.fails(&["lease", "lookup", "none"], 2, "error looking up lease id none: Error making API request.");
    server.fails(&["lease", "revoke", "-force", "x"], 1, "Specifying -force requires also specifying -prefix");
}

#[test]
fn the_lease_quarantine_is_shown_begun_and_ended() {
    let server = Server::find();
    let shown = |on: &str| {
        let shown = server.ok(&["lease", "quarantine"]);
        assert!(shown.contains(&format!("enabled    {on}\n")), "{shown}");
    };
    shown("false");
    let started = "Success! Leases are under quarantine: nothing is revoked or rotated.\n";
    assert_eq!(server.ok(&["lease", "quarantine", "begin"]), started);
    shown("true");
    assert_eq!(server.ok(&["lease", "quarantine", "end"]), "Success! The quarantine of leases has ended.\n");
    shown("false");
    server.fails(&["lease", "quarantine", "off"], 1, "Expected begin or end, not \"off\"");
}
