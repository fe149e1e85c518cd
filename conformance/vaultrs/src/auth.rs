//! Tokens, AppRole, and wrapped responses.

use vaultrs::api::ResponseWrapper;
use vaultrs::api::sys::requests::ListMountsRequest;
use vaultrs::api::token::requests::CreateTokenRequest;
use vaultrs::auth::approle;
use vaultrs::{sys, token};

use crate::{Bench, Outcome, hold, response};

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
    let made = response(token::new(&bench.root, Some(&mut wanted))).await?;
    hold(made.lease_duration == 3600 && made.renewable && !made.orphan, "the token's terms")?;
    let found = response(token::lookup(&bench.root, &made.client_token)).await?;
    hold(found.accessor == made.accessor && found.policies == ["default"], "the look-up")?;
    response(token::lookup_accessor(&bench.root, &made.accessor)).await?;
    let own = bench.client(&made.client_token)?;
    hold(response(token::lookup_self(&own)).await?.id == made.client_token, "the look-up of itself")?;
    response(token::renew(&bench.root, &made.client_token, Some("20m"))).await?;
    response(token::renew_accessor(&bench.root, &made.accessor, None)).await?;
    hold(response(token::renew_self(&own, Some("30m"))).await?.lease_duration == 1800, "the renewed life")?;
    response(token::revoke_self(&own)).await?;
    hold(token::lookup_self(&own).await.is_err(), "a revoked token is refused")?;
    let orphan = response(token::new_orphan(&bench.root, None)).await?;
    hold(orphan.orphan, "an orphan")?;
    response(token::revoke_accessor(&bench.root, &orphan.accessor)).await?;
    response(token::tidy(&bench.root)).await
}

async fn roles(bench: &Bench) -> Outcome {
    response(token::role::set(&bench.root, "rs-role", None)).await?;
    response(token::role::read(&bench.root, "rs-role")).await?;
    let names = response(token::role::list(&bench.root)).await?.keys;
    hold(names.iter().any(|name| name == "rs-role"), "the list of roles")?;
    let made = response(token::new_role(&bench.root, "rs-role", None)).await?;
    response(token::revoke(&bench.root, &made.client_token)).await?;
    response(token::role::delete(&bench.root, "rs-role")).await
}

async fn app_role(bench: &Bench) -> Outcome {
    let root = &bench.root;
    response(sys::auth::enable(root, "rs-approle", "approle", None)).await?;
    let mut wanted = vaultrs::api::auth::approle::requests::SetAppRoleRequest::builder();
    wanted.token_policies(vec!["default".to_owned()]).token_ttl("10m").secret_id_num_uses(2_u64);
    response(approle::role::set(root, "rs-approle", "app", Some(&mut wanted))).await?;
    hold(response(approle::role::read(root, "rs-approle", "app")).await?.token_ttl == 600, "the role")?;
    hold(response(approle::role::list(root, "rs-approle")).await?.keys == ["app"], "the list of roles")?;
    response(approle::role::update_id(root, "rs-approle", "app", "the-role")).await?;
    let role_id = response(approle::role::read_id(root, "rs-approle", "app")).await?.role_id;
    hold(role_id == "the-role", "the role id")?;
    let secret = response(approle::role::secret::generate(root, "rs-approle", "app", None)).await?;
    response(approle::role::secret::read(root, "rs-approle", "app", &secret.secret_id)).await?;
    response(approle::role::secret::read_accessor(root, "rs-approle", "app", &secret.secret_id_accessor)).await?;
    hold(
        response(approle::role::secret::list(root, "rs-approle", "app")).await?.keys.len() == 1,
        "the list of secret ids",
    )?;
    let nobody = bench.client("")?;
    let login = response(approle::login(&nobody, "rs-approle", &role_id, &secret.secret_id)).await?;
    hold(login.lease_duration == 600 && login.policies == ["default"], "the login")?;
    let wrong = approle::login(&nobody, "rs-approle", &role_id, "wrong").await;
    hold(wrong.is_err(), "a wrong secret id is refused")?;
    response(approle::role::secret::custom(root, "rs-approle", "app", "chosen", None)).await?;
    response(approle::role::secret::delete(root, "rs-approle", "app", "chosen")).await?;
    response(approle::role::secret::delete_accessor(root, "rs-approle", "app", &secret.secret_id_accessor)).await?;
    response(approle::tidy(root, "rs-approle")).await?;
    response(approle::role::delete(root, "rs-approle", "app")).await?;
    response(sys::auth::disable(root, "rs-approle")).await
}

async fn wrapping(bench: &Bench) -> Outcome {
    let request = || ListMountsRequest::builder().build().map_err(|e| e.to_string());
    let wrapped = response(request()?.wrap(&bench.root)).await?;
    let about = response(wrapped.lookup(&bench.root)).await?;
    hold(about.creation_path == "sys/mounts" && about.creation_ttl > 0, "what is wrapped")?;
    let mounts = response(wrapped.unwrap(&bench.root)).await?;
    hold(mounts.contains_key("sys/"), "what was wrapped")?;
    hold(wrapped.unwrap(&bench.root).await.is_err(), "a wrapping token works once")
}
