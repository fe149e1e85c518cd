//! Roles and their properties.

use keepfast_framework::{Operation, engine::Registered};
use serde_json::{Value, json};

use super::{AppRole, bench, login, refusal, register};

const UNSUPPORTED: &str = "1 error occurred:\n\t* unsupported path\n\n";

#[tokio::test]
async fn a_new_role_has_openbao_defaults_and_a_lower_case_name() {
    let bench = bench(&[]).await;
    assert!(bench.list("role/").await.is_err());
    assert_eq!(bench.exists("role/R1").await.unwrap(), Some(false));
    bench.write("role/R1", json!({})).await.unwrap();
    assert_eq!(bench.exists("role/r1").await.unwrap(), Some(true));
    assert_eq!(bench.list("role/").await.unwrap().data(), json!({ "keys": ["r1"] }));
    let expected = json!({
        "bind_secret_id": true, "local_secret_ids": false, "secret_id_bound_cidrs": null, "secret_id_num_uses": 0,
        "secret_id_ttl": 0, "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": 0,
        "token_no_default_policy": false, "token_num_uses": 0, "token_period": 0, "token_policies": [],
        "token_strictly_bind_ip": false, "token_ttl": 0, "token_type": "default"
    });
    assert_eq!(bench.read("role/R1").await.unwrap().data(), expected);
    let role_id = bench.read("role/r1/role-id").await.unwrap().data()["role_id"].as_str().unwrap().to_owned();
    assert_eq!(role_id.len(), 36);
    assert_eq!(refusal(bench.read("role/none").await), (404, String::new()));
    bench.delete("role/none").await.unwrap();
    bench.delete("role/R1").await.unwrap();
    assert_eq!(refusal(bench.read("role/r1").await).0, 404);
}

#[tokio::test]
async fn role_names_are_those_that_openbao_accepts() {
    let bench = bench(&[]).await;
    for name in ["a-", "a.", "-a", ".a", "a b", "a@b", "é", "-"] {
        assert_eq!(refusal(bench.write(&format!("role/{name}"), json!({})).await), (404, UNSUPPORTED.into()), "{name}");
    }
    for name in ["a.b-c", "_x", "A-B", "x", "7"] {
        bench.write(&format!("role/{name}"), json!({})).await.unwrap();
    }
}

#[tokio::test]
async fn lists_are_paged() {
    let bench = bench(&[("k1", json!({})), ("k2", json!({})), ("k3", json!({}))]).await;
    let list = async |body| bench.call(Operation::List, "role/", body).await.map(|a| a.data()["keys"].clone());
    assert_eq!(list(json!({ "limit": 2 })).await.unwrap(), json!(["k1", "k2"]));
    assert_eq!(list(json!({ "after": "k1", "limit": "1" })).await.unwrap(), json!(["k2"]));
    assert_eq!(list(json!({ "after": "k1", "limit": -1 })).await.unwrap(), json!(["k2", "k3"]));
    assert_eq!(list(json!({ "after": "z" })).await.err().unwrap().status().0, 404);
    for i in ["s1", "s2", "s3"] {
        register(&bench, "k1", i, json!({})).await;
    }
    let all = bench.list("role/k1/secret-id").await.unwrap().data()["keys"].clone();
    assert_eq!(all.as_array().unwrap().len(), 3);
    let page = bench.call(Operation::List, "role/k1/secret-id/", json!({ "after": all[0], "limit": 1 })).await.unwrap();
    assert_eq!(page.data()["keys"], json!([all[1]]));
    assert_eq!(refusal(bench.list("role/k2/secret-id").await).0, 404);
    assert_eq!(refusal(bench.list("role/NONE/secret-id").await), (400, "role \"none\" does not exist".into()));
}

#[tokio::test]
async fn invalid_role_parameters_are_refused() {
    let bench = bench(&[("local", json!({ "local_secret_ids": true })), ("other", json!({}))]).await;
    for (body, text) in [
        (json!({ "role_id": "" }), "invalid role_id supplied, or failed to generate a role_id"),
        (json!({ "role_id": "local-id" }), "role_id already in use"),
        (json!({ "bind_secret_id": false }), "at least one constraint should be enabled on the role"),
        (json!({ "secret_id_num_uses": -1 }), "secret_id_num_uses cannot be negative"),
        (
            json!({ "secret_id_num_uses": "x" }),
            "error converting input for field \"secret_id_num_uses\": '' cannot parse value as 'int': strconv.ParseInt: invalid syntax",
        ),
        (
            json!({ "secret_id_bound_cidrs": "127.0.0.1" }),
            "failed to validate CIDR blocks: invalid CIDR address: 127.0.0.1",
        ),
        (
            json!({ "token_ttl": -1 }),
            "error converting input for field \"token_ttl\": cannot provide negative value '-1'",
        ),
        (json!({ "token_num_uses": -1 }), "'token_num_uses' cannot be negative"),
        (json!({ "token_type": "foo" }), "invalid 'token_type' value \"foo\""),
        (
            json!({ "token_type": "default-batch", "token_period": 3 }),
            "'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens",
        ),
        (
            json!({ "token_type": "batch", "period": 3 }),
            "'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens",
        ),
        (
            json!({ "period": 100_000_000 }),
            "period of \"27777h46m40s\" is greater than the backend's maximum lease TTL of \"768h0m0s\"",
        ),
    ] {
        assert_eq!(refusal(bench.write("role/new", body.clone()).await), (400, text.into()), "{body}");
        assert_eq!(refusal(bench.read("role/new").await).0, 404, "{body}");
    }
    let fixed = "local_secret_ids can only be modified during role creation";
    assert_eq!(refusal(bench.write("role/local", json!({ "local_secret_ids": true })).await), (400, fixed.into()));
    assert_eq!(bench.read("role/local/local-secret-ids").await.unwrap().data(), json!({ "local_secret_ids": true }));
    assert_eq!(refusal(bench.write("role/local/local-secret-ids", json!({})).await).0, 405);
    for role_id in [json!({}), json!({ "role_id": "" })] {
        assert_eq!(refusal(bench.write("role/other/role-id", role_id).await), (400, "missing role_id".into()));
    }
    let taken = bench.write("role/other/role-id", json!({ "role_id": "local-id" })).await;
    assert_eq!(refusal(taken), (400, "role_id already in use".into()));
    assert_eq!(refusal(bench.write("role/none/role-id", json!({ "role_id": "k" })).await), (404, UNSUPPORTED.into()));
}

#[tokio::test]
async fn ineffective_role_parameters_return_warnings() {
    let bench = bench(&[]).await;
    let long = "token_max_ttl is greater than the backend mount's maximum TTL value; issued tokens' max TTL value will be truncated";
    for (body, expected) in [
        (json!({ "token_max_ttl": 100_000_000 }), vec![long]),
        (
            json!({ "token_type": "default-batch" }),
            vec!["default-batch has no useful meaning; adjusting to batch", long],
        ),
        (
            json!({ "token_type": "default-service", "token_max_ttl": 0 }),
            vec!["default-service has no useful meaning; adjusting to service"],
        ),
        (json!({ "token_ttl": 100_000_000, "token_period": 100_000_000 }), vec![]),
    ] {
        assert_eq!(bench.write("role/r", body.clone()).await.unwrap().warnings, expected, "{body}");
    }
    assert_eq!(bench.read("role/r").await.unwrap().data()["token_type"], "service");
}

#[tokio::test]
async fn deprecated_names_are_returned_when_they_were_used_last() {
    let bench = bench(&[]).await;
    let mut shown = Vec::new();
    for body in [
        json!({ "policies": "B,a,b,,", "period": 60 }),
        json!({ "token_ttl": 5 }),
        json!({ "policies": "Z", "token_policies": "B,a,b,,", "period": 7, "token_period": 8 }),
        json!({ "policies": "A,b , root" }),
        json!({ "token_policies": "x", "token_period": 9 }),
    ] {
        bench.write("role/r", body).await.unwrap();
        let role = bench.read("role/r").await.unwrap().data();
        shown.push([
            role["policies"].clone(),
            role["token_policies"].clone(),
            role["period"].clone(),
            role["token_period"].clone(),
        ]);
    }
    let expected = [
        json!([["a", "b"], ["a", "b"], 60, 60]),
        json!([["a", "b"], ["a", "b"], 60, 60]),
        json!([["B", "a", "b", "", ""], ["B", "a", "b", "", ""], 8, 8]),
        json!([["root"], ["root"], 8, 8]),
        json!([null, ["x"], null, 9]),
    ];
    assert_eq!(json!(shown), json!(expected));
}

#[tokio::test]
async fn properties_are_read_set_and_reset() {
    let bench = bench(&[("r", json!({}))]).await;
    // Property, value after a reset, written value, value of the next read.
    let rows: [(&str, Value, Value, Value); 13] = [
        (
            "policies",
            json!({ "token_policies": [] }),
            json!({ "policies": "B,a,b,," }),
            json!({ "token_policies": ["a", "b"], "policies": ["a", "b"] }),
        ),
        (
            "policies",
            json!({ "token_policies": [] }),
            json!({ "token_policies": "B,a,," }),
            json!({ "token_policies": ["a", "b"] }),
        ),
        (
            "bound-cidr-list",
            json!({ "bound_cidr_list": null }),
            json!({ "bound_cidr_list": "10.0.0.0/8" }),
            // OpenBao's deprecated path does not return the value that it sets.
            json!({ "bound_cidr_list": null }),
        ),
        (
            "secret-id-bound-cidrs",
            json!({ "secret_id_bound_cidrs": null }),
            json!({ "secret_id_bound_cidrs": "10.0.0.1/8,1.2.3.4/32" }),
            json!({ "secret_id_bound_cidrs": ["10.0.0.1/8", "1.2.3.4/32"] }),
        ),
        (
            "token-bound-cidrs",
            json!({ "token_bound_cidrs": null }),
            json!({ "token_bound_cidrs": "10.0.0.0/8,1.2.3.4/32" }),
            json!({ "token_bound_cidrs": ["10.0.0.0/8", "1.2.3.4"] }),
        ),
        (
            "bind-secret-id",
            json!({ "bind_secret_id": true }),
            json!({ "bind_secret_id": "1" }),
            json!({ "bind_secret_id": true }),
        ),
        (
            "secret-id-num-uses",
            json!({ "secret_id_num_uses": 0 }),
            json!({ "secret_id_num_uses": "3" }),
            json!({ "secret_id_num_uses": 3 }),
        ),
        (
            "secret-id-ttl",
            json!({ "secret_id_ttl": 0 }),
            json!({ "secret_id_ttl": "1h" }),
            json!({ "secret_id_ttl": 3600 }),
        ),
        ("period", json!({ "token_period": 0 }), json!({ "period": "1" }), json!({ "token_period": 1, "period": 1 })),
        ("period", json!({ "token_period": 0 }), json!({ "token_period": 77 }), json!({ "token_period": 77 })),
        (
            "token-num-uses",
            json!({ "token_num_uses": 0 }),
            json!({ "token_num_uses": 1 }),
            json!({ "token_num_uses": 1 }),
        ),
        (
            "token-ttl",
            json!({ "token_ttl": 0 }),
            json!({ "token_ttl": 100_000_000 }),
            json!({ "token_ttl": 100_000_000 }),
        ),
        (
            "token-max-ttl",
            json!({ "token_max_ttl": 0 }),
            json!({ "token_max_ttl": 100_000_000 }),
            json!({ "token_max_ttl": 100_000_000 }),
        ),
    ];
    for (name, reset, written, read) in rows {
        let path = format!("role/R/{name}");
        let warned = bench.read(&path).await.unwrap().warnings;
        assert_eq!(warned.len(), usize::from(name == "bound-cidr-list"), "{name}");
        bench.write(&path, written).await.unwrap();
        assert_eq!(bench.read(&path).await.unwrap().data(), read, "{name}");
        bench.delete(&path).await.unwrap();
        assert_eq!(bench.read(&path).await.unwrap().data(), reset, "{name}");
        let none = format!("role/none/{name}");
        assert_eq!(refusal(bench.read(&none).await).0, 404, "{name}");
        assert_eq!(refusal(bench.write(&none, json!({})).await), (404, UNSUPPORTED.into()), "{name}");
        bench.delete(&none).await.unwrap();
    }
}

#[tokio::test]
async fn properties_refuse_the_same_values_as_openbao() {
    let bench = bench(&[("r", json!({ "token_ttl": 40, "token_max_ttl": 50 }))]).await;
    for (name, body, text) in [
        ("policies", json!({}), "missing token_policies"),
        ("bound-cidr-list", json!({ "bound_cidr_list": "" }), "missing bound_cidr_list"),
        ("secret-id-bound-cidrs", json!({ "secret_id_bound_cidrs": [] }), "missing bound_cidr_list"),
        (
            "secret-id-bound-cidrs",
            json!({ "secret_id_bound_cidrs": "1" }),
            "failed to validate CIDR blocks: invalid CIDR address: 1",
        ),
        (
            "token-bound-cidrs",
            json!({ "token_bound_cidrs": "1" }),
            "failed to parse token_bound_cidrs: error parsing address \"1\": Unable to convert \"1\" to an IPv4 or IPv6 address, or a UNIX Socket",
        ),
        ("secret-id-num-uses", json!({}), "missing secret_id_num_uses"),
        ("secret-id-num-uses", json!({ "secret_id_num_uses": -1 }), "secret_id_num_uses cannot be negative"),
        (
            "secret-id-num-uses",
            json!({ "secret_id_num_uses": {} }),
            "Field validation failed: error converting input for field \"secret_id_num_uses\": '' expected type 'int', got unconvertible type 'map[string]interface {}'",
        ),
        ("secret-id-ttl", json!({}), "missing secret_id_ttl"),
        ("period", json!({}), "missing period"),
        (
            "period",
            json!({ "token_period": 100_000_000 }),
            "period of \"27777h46m40s\" is greater than the backend's maximum lease TTL of \"768h0m0s\"",
        ),
        ("token-num-uses", json!({}), "missing token_num_uses"),
        ("token-num-uses", json!({ "token_num_uses": -1 }), "'token_num_uses' cannot be negative"),
        ("token-ttl", json!({}), "missing token_ttl"),
        ("token-ttl", json!({ "token_ttl": 100 }), "token_ttl should not be greater than token_max_ttl"),
        ("token-max-ttl", json!({ "token_max_ttl": 30 }), "token_max_ttl should be greater than or equal to token_ttl"),
        (
            "token-max-ttl",
            json!({ "token_max_ttl": -1 }),
            "Field validation failed: error converting input for field \"token_max_ttl\": cannot provide negative value '-1'",
        ),
        ("bind-secret-id", json!({}), "missing bind_secret_id"),
        ("bind-secret-id", json!({ "bind_secret_id": false }), "at least one constraint should be enabled on the role"),
    ] {
        assert_eq!(
            refusal(bench.write(&format!("role/r/{name}"), body.clone()).await),
            (400, text.into()),
            "{name} {body}"
        );
    }
    for (name, body) in [
        ("bound-cidr-list", json!({})),
        ("token-bound-cidrs", json!({ "token_bound_cidrs": {} })),
        ("token-max-ttl", json!({ "token_max_ttl": 0 })),
    ] {
        bench.write(&format!("role/r/{name}"), body).await.unwrap();
    }
    bench.write("role/open", json!({ "bind_secret_id": false, "secret_id_bound_cidrs": "10.0.0.0/8" })).await.unwrap();
    let last = bench.delete("role/open/secret-id-bound-cidrs").await;
    assert_eq!(refusal(last), (400, "at least one constraint should be enabled on the role".into()));
}

#[tokio::test]
async fn a_changed_role_id_logs_in_and_the_old_one_is_free_again() {
    let bench = bench(&[("a", json!({})), ("b", json!({}))]).await;
    register(&bench, "a", "s", json!({})).await;
    login(&bench, "a", "s").await.unwrap();
    bench.write("role/a/role-id", json!({ "role_id": "new" })).await.unwrap();
    assert_eq!(refusal(login(&bench, "a", "s").await), (400, "invalid role or secret ID".into()));
    bench.write("login", json!({ "role_id": " new ", "secret_id": " s\n" })).await.unwrap();
    bench.write("role/b", json!({ "role_id": "a-id" })).await.unwrap();
    assert_eq!(bench.read("role/b/role-id").await.unwrap().data(), json!({ "role_id": "a-id" }));
    bench.write("role/b", json!({ "role_id": "a-id" })).await.unwrap();
    bench.delete("role/b").await.unwrap();
    bench.write("role/c", json!({ "role_id": "a-id" })).await.unwrap();
}

#[test]
fn the_table_is_unambiguous_and_every_row_has_help() {
    let registered = Registered::of::<AppRole>();
    let table = registered.table();
    assert_eq!(table.ambiguities(), []);
    for row in table.rows() {
        assert!(row.help.synopsis.ends_with('.'), "{:?}", row.patterns);
        for operation in &row.operations {
            let request = operation.request();
            let described = request.get("properties").and_then(Value::as_object).into_iter().flatten();
            for (name, property) in described {
                assert!(property.get("description").is_some(), "{:?} {name}", row.patterns);
            }
        }
    }
}

#[tokio::test]
async fn sec_no_role_has_another_spelling_of_the_role_id_of_a_role() {
    let bench = bench(&[("lower", json!({})), ("mine", json!({}))]).await;
    let taken = (400, "role_id already in use".to_owned());
    let set = async |role: &str, id: &str| bench.write(&format!("role/{role}/role-id"), json!({ "role_id": id })).await;
    assert_eq!(refusal(set("mine", "LOWER-id").await), taken);
    assert_eq!(refusal(bench.write("role/new", json!({ "role_id": "Lower-ID" })).await), taken);
    set("lower", "Mixed-É").await.unwrap();
    for spelling in ["mixed-é", "MIXED-É", "Mixed-é"] {
        assert_eq!(refusal(set("mine", spelling).await), taken, "{spelling}");
    }
    set("lower", "MIXED-é").await.unwrap();
    register(&bench, "lower", "s", json!({})).await;
    bench.write("login", json!({ "role_id": "MIXED-é", "secret_id": "s" })).await.unwrap();
    assert_eq!(refusal(bench.write("login", json!({ "role_id": "mixed-é", "secret_id": "s" })).await).0, 400);
    // A role id is free when its role has another one, or is deleted.
    set("mine", "LOWER-id").await.unwrap();
    bench.delete("role/lower").await.unwrap();
    set("mine", "mixed-é").await.unwrap();
}
