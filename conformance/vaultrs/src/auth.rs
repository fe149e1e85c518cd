//! Tokens, AppRole, and answers that are wrapped.

use vaultrs::api::ResponseWrapper;
use vaultrs::api::sys::requests::ListMountsRequest;
use vaultrs::api::token::requests::CreateTokenRequest;
use vaultrs::auth::approle;
use vaultrs::{sys, token};

use crate::{Bench, Outcome, hold, said};

pub async fn run(bench: &mut Bench) {
    let outcome = tokens(bench).await;
    bench.count("tokens", outcome);
    let outcome = roles(bench).await;
    bench.count("token roles", outcome);
    let outcome = app_role(bench).await;
    bench.count("approle", outcome);
    let outcome = wrapping(bench).await;
    bench.count("wrapping", outcome);
}

async fn tokens(bench: &Bench) -> Outcome {
    let mut wanted = CreateTokenRequest::builder();
    wanted.ttl("1h").policies(vec!["default".to_owned()]);
    let made = said(token::new(&bench.root, Some(&mut wanted))).await?;
    hold(made.lease_duration == 3600 && made.renewable && !made.orphan, "the token's terms")?;
    let found = said(token::lookup(&bench.root, &made.client_token)).await?;
    hold(found.accessor == made.accessor && found.policies == ["default"], "the look-up")?;
    said(token::lookup_accessor(&bench.root, &made.accessor)).await?;
    let own = bench.client(&made.client_token)?;
    hold(said(token::lookup_self(&own)).await?.id == made.client_token, "the look-up of itself")?;
    said(token::renew(&bench.root, &made.client_token, Some("20m"))).await?;
    said(token::renew_accessor(&bench.root, &made.accessor, None)).await?;
    hold(said(token::renew_self(&own, Some("30m"))).await?.lease_duration == 1800, "the renewed life")?;
    said(token::revoke_self(&own)).await?;
    hold(token::lookup_self(&own).await.is_err(), "a revoked token is refused")?;
    let orphan = said(token::new_orphan(&bench.root, None)).await?;
    hold(orphan.orphan, "an orphan")?;
    said(token::revoke_accessor(&bench.root, &orphan.accessor)).await?;
    said(token::tidy(&bench.root)).await
}

async fn roles(bench: &Bench) -> Outcome {
    said(token::role::set(&bench.root, "rs-role", None)).await?;
    said(token::role::read(&bench.root, "rs-role")).await?;
    let names = said(token::role::list(&bench.root)).await?.keys;
    hold(names.iter().any(|name| name == "rs-role"), "the list of roles")?;
    let made = said(token::new_role(&bench.root, "rs-role", None)).await?;
    said(token::revoke(&bench.root, &made.client_token)).await?;
    said(token::role::delete(&bench.root, "rs-role")).await
}

async fn app_role(bench: &Bench) -> Outcome {
    let root = &bench.root;
    said(sys::auth::enable(root, "rs-approle", "approle", None)).await?;
    let mut wanted = vaultrs::api::auth::approle::requests::SetAppRoleRequest::builder();
    wanted.token_policies(vec!["default".to_owned()]).token_ttl("10m").secret_id_num_uses(2_u64);
    said(approle::role::set(root, "rs-approle", "app", Some(&mut wanted))).await?;
    hold(said(approle::role::read(root, "rs-approle", "app")).await?.token_ttl == 600, "the role")?;
    hold(said(approle::role::list(root, "rs-approle")).await?.keys == ["app"], "the list of roles")?;
    said(approle::role::update_id(root, "rs-approle", "app", "the-role")).await?;
    let role_id = said(approle::role::read_id(root, "rs-approle", "app")).await?.role_id;
    hold(role_id == "the-role", "the role id")?;
    let secret = said(approle::role::secret::generate(root, "rs-approle", "app", None)).await?;
    said(approle::role::secret::read(root, "rs-approle", "app", &secret.secret_id)).await?;
    said(approle::role::secret::read_accessor(root, "rs-approle", "app", &secret.secret_id_accessor)).await?;
    hold(
        said(approle::role::secret::list(root, "rs-approle", "app")).await?.keys.len() == 1,
        "the list of secret ids",
    )?;
    let nobody = bench.client("")?;
    let login = said(approle::login(&nobody, "rs-approle", &role_id, &secret.secret_id)).await?;
    hold(login.lease_duration == 600 && login.policies == ["default"], "the login")?;
    let wrong = approle::login(&nobody, "rs-approle", &role_id, "wrong").await;
    hold(wrong.is_err(), "a wrong secret id is refused")?;
    said(approle::role::secret::custom(root, "rs-approle", "app", "chosen", None)).await?;
    said(approle::role::secret::delete(root, "rs-approle", "app", "chosen")).await?;
    said(approle::role::secret::delete_accessor(root, "rs-approle", "app", &secret.secret_id_accessor)).await?;
    said(approle::tidy(root, "rs-approle")).await?;
    said(approle::role::delete(root, "rs-approle", "app")).await?;
    said(sys::auth::disable(root, "rs-approle")).await
}

async fn wrapping(bench: &Bench) -> Outcome {
    let request = || ListMountsRequest::builder().build().map_err(|e| e.to_string());
    let wrapped = said(request()?.wrap(&bench.root)).await?;
    let about = said(wrapped.lookup(&bench.root)).await?;
    hold(about.creation_path == "sys/mounts" && about.creation_ttl > 0, "what is wrapped")?;
    let mounts = said(wrapped.unwrap(&bench.root)).await?;
    hold(mounts.contains_key("sys/"), "what was wrapped")?;
    hold(wrapped.unwrap(&bench.root).await.is_err(), "a wrapping token works once")
}
