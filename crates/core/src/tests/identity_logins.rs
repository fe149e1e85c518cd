//! Logins and identity: races, external groups, and entities of earlier versions.

use std::sync::Arc;

use keepfast_framework::engine::Registered;
use keepfast_framework::fields::{CommaList, Text};
use keepfast_framework::mount::MountInfo;
use keepfast_framework::reply::{Alias, ClaimedAlias};
use keepfast_framework::routes::Help;
use keepfast_framework::token_params::TokenTerms;
use keepfast_framework::{Cx, Engine, Kind, Login, LoginAttempt, Records, Result, Routes};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::identity::convert::convert_entities;
use crate::tests::fixture::{ROOT, TestServer};
use crate::tests::identity::{logged_in, server};

#[tokio::test]
async fn alias_race_makes_one_entity() {
    let server = server().await;
    let unsealed = server.unsealed();
    let identity = &unsealed.access.identity;
    let mount = MountInfo { accessor: "auth_race".to_owned(), ..MountInfo::default() };
    let mut entities = Vec::new();
    // Both logins find no entity; the spellings differ.
    let (mut first, mut second) = (unsealed.barrier.begin(), unsealed.barrier.begin());
    let alias = |name: &str| Alias { name: name.to_owned(), ..Alias::default() };
    let now = unsealed.clock.now();
    entities.push(identity.entity_of(&mut first, &mount, &alias("anna"), now).await.unwrap().entity);
    let lost = identity.entity_of(&mut second, &mount, &alias("ANNA"), now).await.unwrap();
    assert!(lost.created);
    first.commit().await.unwrap();
    assert!(second.commit().await.unwrap_err().may_run_again(), "the second conflicts and runs again");
    let mut again = unsealed.barrier.begin();
    let login = identity.entity_of(&mut again, &mount, &alias("ANNA"), now).await.unwrap();
    assert!(!login.created);
    entities.push(login.entity);
    assert_eq!(entities[0], entities[1]);
    assert_eq!(server.list("identity/entity/id", ROOT).await.ok().data()["keys"], json!([entities[0]]));
}

#[tokio::test]
async fn logins_at_the_same_time_make_one_entity() {
    let server = Arc::new(server().await);
    let logins = (0..8).map(|_| async { logged_in(&server, "anna").await.1 });
    let mut entities = futures_util::future::join_all(logins).await;
    entities.dedup();
    assert_eq!(entities.len(), 1);
    assert_eq!(server.list("identity/entity/id", ROOT).await.ok().data()["keys"], json!(entities));
}

/// An auth method with groups: a login needs only the name of a user, and reports the groups that are stored for it.
struct Grouped;

const GROUPS: Records<Vec<String>> = Records::at("groups/");
const HELP: Help = Help { synopsis: "Users with groups.", description: "" };

#[derive(Deserialize, JsonSchema)]
struct User {
    /// The user.
    name: Text,
    /// The groups.
    groups: Option<CommaList>,
}

async fn write(_: &Grouped, cx: &mut Cx, req: User) -> Result<()> {
    GROUPS.put(cx, &req.name, &req.groups.map(|CommaList(groups)| groups).unwrap_or_default())
}

async fn groups_of(cx: &mut Cx, name: &str) -> Result<TokenTerms> {
    Ok(TokenTerms { renewable: true, groups: GROUPS.get(cx, name).await?, ..TokenTerms::default() })
}

async fn login(_: &Grouped, cx: &mut Cx, req: User) -> Result<LoginAttempt> {
    let terms = groups_of(cx, &req.name).await?;
    let alias = ClaimedAlias { name: req.name.0.clone(), is_known: true };
    let login = Login {
        alias: Some(Alias { name: req.name.0.clone(), ..Alias::default() }),
        terms,
        internal: json!(req.name.0),
        ..Login::default()
    };
    Ok(LoginAttempt { alias, outcome: Ok(login) })
}

impl Engine for Grouped {
    const TYPE: &'static str = "grouped";
    const KIND: Kind = Kind::Auth;

    fn routes(r: &mut Routes<Self>) {
        r.path("users/{name}", HELP).update(write);
        r.path("login/{name}", HELP).update(login).login();
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Ok(Grouped)
    }

    async fn renew_login(&self, cx: &mut Cx, internal: &Value) -> Result<TokenTerms> {
        groups_of(cx, internal.as_str().unwrap_or_default()).await
    }
}

/// A server with the method at `auth/one/` and `auth/two/`, and an external group `<mount>-<name>` for two names at each.
async fn with_groups() -> TestServer {
    let engines = keepfast_engines::all().preceded_by(vec![Registered::of::<Grouped>()]);
    let server = TestServer::with(|_, _| {}, engines).await;
    for mount in ["one", "two"] {
        server.post(&format!("sys/auth/{mount}"), ROOT, json!({ "type": "grouped" })).await.ok();
        let accessor = server.get(&format!("sys/auth/{mount}"), ROOT).await.ok().data()["accessor"].clone();
        for name in ["dev", "ops"] {
            let group = json!({ "name": format!("{mount}-{name}"), "type": "external", "policies": [format!("{mount}-{name}")] });
            let id = server.post("identity/group", ROOT, group).await.ok().data()["id"].clone();
            let alias = json!({ "name": name, "mount_accessor": accessor, "canonical_id": id });
            server.post("identity/group-alias", ROOT, alias).await.ok();
        }
    }
    server
}

async fn set_groups(server: &TestServer, mount: &str, groups: Value) {
    server.post(&format!("auth/{mount}/users/anna"), ROOT, json!({ "groups": groups })).await.ok();
}

#[tokio::test]
async fn a_login_and_a_renewal_set_the_external_groups_of_their_mount_only() {
    let server = with_groups().await;
    set_groups(&server, "one", json!(["DEV", "unknown"])).await;
    let login = server.post("auth/one/login/anna", "", json!({})).await.ok();
    assert_eq!(login.body["auth"]["identity_policies"], json!(["one-dev"]));
    let (token, entity) = (login.token(), login.body["auth"]["entity_id"].clone());
    let accessor = server.get("sys/auth/two", ROOT).await.ok().data()["accessor"].clone();
    let alias = json!({ "name": "anna", "mount_accessor": accessor, "canonical_id": entity });
    server.post("identity/entity-alias", ROOT, alias).await.ok();
    set_groups(&server, "two", json!(["ops"])).await;
    let other = server.post("auth/two/login/anna", "", json!({})).await.ok();
    assert_eq!(other.body["auth"]["identity_policies"], json!(["one-dev", "two-ops"]));

    set_groups(&server, "one", json!(["ops"])).await;
    let renewed = server.post("auth/token/renew-self", &token, json!({})).await.ok();
    assert_eq!(renewed.body["auth"]["identity_policies"], json!(["one-ops", "two-ops"]));
    let lookup = server.get("auth/token/lookup-self", &other.token()).await.ok();
    assert_eq!(lookup.data()["identity_policies"], json!(["one-ops", "two-ops"]));
    set_groups(&server, "one", json!([])).await;
    let login = server.post("auth/one/login/anna", "", json!({})).await.ok();
    assert_eq!(login.body["auth"]["identity_policies"], json!(["two-ops"]));
}

#[tokio::test]
async fn an_external_group_loses_its_members_with_its_alias() {
    let server = with_groups().await;
    set_groups(&server, "one", json!(["dev", "ops"])).await;
    let login = server.post("auth/one/login/anna", "", json!({})).await.ok();
    let policies = async || {
        let lookup = server.get("auth/token/lookup-self", &login.token()).await.ok();
        lookup.data()["identity_policies"].clone()
    };
    assert_eq!(policies().await, json!(["one-dev", "one-ops"]));
    let group = server.get("identity/group/name/one-dev", ROOT).await.ok().data().clone();
    let (id, accessor) = (group["alias"]["id"].as_str().unwrap(), &group["alias"]["mount_accessor"]);
    let path = format!("identity/group-alias/id/{id}");
    server.post(&path, ROOT, json!({ "name": "DEV", "mount_accessor": accessor })).await.ok();
    assert_eq!(policies().await, json!(["one-dev", "one-ops"]), "another spelling");
    server.post(&path, ROOT, json!({ "name": "qa", "mount_accessor": accessor })).await.ok();
    assert_eq!(policies().await, json!(["one-ops"]));
    let group = server.get("identity/group/name/one-ops", ROOT).await.ok().data().clone();
    server.delete(&format!("identity/group-alias/id/{}", group["alias"]["id"].as_str().unwrap()), ROOT).await.ok();
    assert_eq!(policies().await, Value::Null);
    server.post("identity/group/name/one-ops", ROOT, json!({ "member_entity_ids": ["x"] })).await.is(400);
}

/// The records of an entity as the version before the API of identity wrote them.
const OLD_ENTITY: &str = r#"{"id":"5f6a7b0c-0000-4000-8000-000000000001","name":"entity_5f6a7b0c","metadata":{},
    "policies":[],"aliases":[{"id":"5f6a7b0c-0000-4000-8000-00000000000a","name":"Role-X","mount_accessor":"auth_approle_1",
    "metadata":{"role_name":"x"},"custom_metadata":{}}],"namespace":"root","created":1780000000000000000}"#;
const OLD_ALIAS: &str = r#"{"entity":"5f6a7b0c-0000-4000-8000-000000000001","id":"5f6a7b0c-0000-4000-8000-00000000000a",
    "metadata":{"role_name":"x"}}"#;

#[tokio::test]
async fn entities_of_an_earlier_version_work_and_are_converted() {
    let server = server().await;
    let unsealed = server.unsealed();
    let view = unsealed.barrier.view("identity/");
    let mut tx = unsealed.barrier.begin();
    tx.delete(&view, "converted");
    // Two entities with one name, and one alias in two spellings: earlier versions had no unique names and no folding.
    let second = OLD_ENTITY.replace("-000000000001", "-000000000002").replace("-00000000000a", "-00000000000b");
    let second = second.replace("Role-X", "role-x");
    let keys = [("Role-X", OLD_ALIAS.to_owned()), ("role-x", OLD_ALIAS.replace("-000000000001", "-000000000002"))];
    for (name, record) in keys {
        let place = crate::identity::names::unfolded_alias_key("auth_approle_1", name);
        tx.put(&view, &format!("alias/{place}"), record.into());
    }
    for (id, record) in [("000000000001", OLD_ENTITY.to_owned()), ("000000000002", second)] {
        tx.put(&view, &format!("entity/5f6a7b0c-0000-4000-8000-{id}"), record.into());
    }
    tx.commit().await.unwrap();
    for _ in 0..2 {
        convert_entities(&unsealed.barrier).await.unwrap();
    }
    let first = server.get("identity/entity/name/entity_5f6a7b0c", ROOT).await.ok();
    assert_eq!(first.data()["id"], "5f6a7b0c-0000-4000-8000-000000000001");
    assert_eq!(first.data()["aliases"][0]["name"], "Role-X");
    let second = server.get("identity/entity/id/5f6a7b0c-0000-4000-8000-000000000002", ROOT).await.ok();
    let name = second.data()["name"].as_str().unwrap();
    assert!(name.starts_with("entity_") && name != "entity_5f6a7b0c", "{name}");
    server.get(&format!("identity/entity/name/{name}"), ROOT).await.ok();
    let alias = server.get("identity/entity-alias/id/5f6a7b0c-0000-4000-8000-00000000000a", ROOT).await.ok();
    assert_eq!(alias.data()["canonical_id"], first.data()["id"]);
    // Each login still has its entity.
    let mount = MountInfo { accessor: "auth_approle_1".to_owned(), ..MountInfo::default() };
    for (name, id) in [("Role-X", "000000000001"), ("role-x", "000000000002")] {
        let mut tx = unsealed.barrier.begin();
        let alias = Alias { name: name.to_owned(), metadata: [("role_name".to_owned(), "x".to_owned())].into() };
        let login = unsealed.access.identity.entity_of(&mut tx, &mount, &alias, unsealed.clock.now()).await.unwrap();
        assert_eq!(login.entity, format!("5f6a7b0c-0000-4000-8000-{id}"), "{name}");
        assert!(!tx.is_dirty());
    }
}

#[tokio::test]
async fn sec_external_memberships_end_with_the_alias_that_reported_them() {
    for change in ["delete", "rename", "mount", "move", "merge"] {
        let server = with_groups().await;
        set_groups(&server, "one", json!(["dev"])).await;
        let login = server.post("auth/one/login/anna", "", json!({})).await.ok();
        assert_eq!(login.body["auth"]["identity_policies"], json!(["one-dev"]));
        let entity = login.body["auth"]["entity_id"].as_str().unwrap().to_owned();
        let path = format!("identity/entity/id/{entity}");
        let alias = server.get(&path, ROOT).await.ok().data()["aliases"][0]["id"].as_str().unwrap().to_owned();
        let alias_path = format!("identity/entity-alias/id/{alias}");
        let accessor = server.get("sys/auth/two", ROOT).await.ok().data()["accessor"].clone();
        let other = server.post("identity/entity", ROOT, json!({ "name": "other" })).await.ok().data()["id"].clone();
        match change {
            "delete" => server.delete(&alias_path, ROOT).await.ok(),
            "rename" => server.post(&alias_path, ROOT, json!({ "name": "carl" })).await.ok(),
            "mount" => server.post(&alias_path, ROOT, json!({ "mount_accessor": accessor })).await.ok(),
            "move" => server.post(&alias_path, ROOT, json!({ "canonical_id": other })).await.ok(),
            _ => {
                let of_other = server.post("auth/one/login/bert", "", json!({})).await.ok();
                let of_other = of_other.body["auth"]["entity_id"].clone();
                let read = server.get(&format!("identity/entity/id/{}", of_other.as_str().unwrap()), ROOT).await.ok();
                let keep = json!({ "from_entity_ids": [of_other], "to_entity_id": entity,
                    "conflicting_alias_ids_to_keep": [read.data()["aliases"][0]["id"]] });
                server.post("identity/entity/merge", ROOT, keep).await.ok()
            }
        };
        assert_eq!(server.get(&path, ROOT).await.ok().data()["group_ids"], json!([]), "{change}");
        // A token of the former login does not bring them back.
        server.post("auth/token/renew-self", &login.token(), json!({})).await.ok();
        assert_eq!(server.get(&path, ROOT).await.ok().data()["group_ids"], json!([]), "{change}");
    }
}

#[tokio::test]
async fn damaged_records_do_not_stop_the_conversion_of_others() {
    let server = server().await;
    let unsealed = server.unsealed();
    let view = unsealed.barrier.view("identity/");
    let mut tx = unsealed.barrier.begin();
    let (entity, alias) = (OLD_ENTITY.replace("5f6a7b0c-0000-4000-8000-00000000000a", ""), OLD_ALIAS);
    let alias = alias.replace("5f6a7b0c-0000-4000-8000-00000000000a", "");
    tx.put(&view, "entity/5f6a7b0c-0000-4000-8000-000000000001", entity.into());
    let place = crate::identity::names::unfolded_alias_key("auth_approle_1", "Role-X");
    tx.put(&view, &format!("alias/{place}"), alias.into());
    let damaged = OLD_ENTITY.replace("-000000000001", "-000000000002").replace("-00000000000a", "-00000000000b");
    let damaged = damaged.replace("Role-X", "role-y").replace("entity_5f6a7b0c", "damaged");
    tx.put(&view, "entity/5f6a7b0c-0000-4000-8000-000000000002", damaged.into());
    for key in ["converted", "alias-id/5f6a7b0c-0000-4000-8000-00000000000b"] {
        tx.put(&view, key, "damaged".into());
    }
    let place = crate::identity::names::unfolded_alias_key("auth_approle_1", "role-y");
    tx.put(&view, &format!("alias/{place}"), "damaged".into());
    tx.commit().await.unwrap();
    convert_entities(&unsealed.barrier).await.unwrap();
    let first = server.get("identity/entity/name/entity_5f6a7b0c", ROOT).await.ok();
    let id = first.data()["aliases"][0]["id"].as_str().unwrap();
    assert_eq!(id.len(), 36, "an id is assigned");
    server.get(&format!("identity/entity-alias/id/{id}"), ROOT).await.ok();
    server.get("identity/entity/name/damaged", ROOT).await.ok();
}
