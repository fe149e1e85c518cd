//! `sys/`: health, mounts, auth methods, policies, tools, sealing.

use vaultrs::sys::{self, ServerStatus};

use crate::{Bench, Outcome, hold, response};

pub async fn run(bench: &mut Bench) {
    let outcome = health(bench).await;
    bench.count("health and seal status", outcome);
    let outcome = mounts(bench).await;
    bench.count("mounts", outcome);
    let outcome = auth(bench).await;
    bench.count("auth methods", outcome);
    let outcome = policies(bench).await;
    bench.count("policies", outcome);
    let outcome = tools(bench).await;
    bench.count("random bytes", outcome);
}

async fn health(bench: &Bench) -> Outcome {
    let health = response(sys::health(&bench.root)).await?;
    hold(health.initialized && !health.sealed && !health.standby, "the state of health")?;
    hold(!health.version.is_empty() && health.cluster_name.is_some(), "what health tells")?;
    let status = response(sys::status(&bench.root)).await?;
    hold(matches!(status, ServerStatus::OK), "the status")
}

async fn mounts(bench: &Bench) -> Outcome {
    response(sys::mount::enable(&bench.root, "rs-mount", "kv", None)).await?;
    let mounts = response(sys::mount::list(&bench.root)).await?;
    hold(mounts.get("rs-mount/").is_some_and(|m| m.mount_type == "kv"), "the mount is listed")?;
    response(sys::mount::get_configuration_of_a_secret_engine(&bench.root, "rs-mount")).await?;
    let moved = response(sys::remount::remount(&bench.root, "rs-mount", "rs-moved")).await?;
    response(sys::remount::remount_status(&bench.root, &moved.migration_id)).await?;
    response(sys::mount::disable(&bench.root, "rs-moved")).await?;
    let mounts = response(sys::mount::list(&bench.root)).await?;
    hold(!mounts.contains_key("rs-moved/"), "the mount is gone")
}

async fn auth(bench: &Bench) -> Outcome {
    response(sys::auth::enable(&bench.root, "rs-auth", "userpass", None)).await?;
    let methods = response(sys::auth::list(&bench.root)).await?;
    hold(methods.get("rs-auth/").is_some_and(|m| m.mount_type == "userpass"), "the auth method is listed")?;
    response(sys::auth::disable(&bench.root, "rs-auth")).await
}

async fn policies(bench: &Bench) -> Outcome {
    let text = "path \"rs/*\" { capabilities = [\"read\"] }";
    response(sys::policy::set(&bench.root, "rs-policy", text)).await?;
    hold(response(sys::policy::read(&bench.root, "rs-policy")).await?.rules == text, "the policy's text")?;
    let names = response(sys::policy::list(&bench.root)).await?.policies;
    hold(["default", "root", "rs-policy"].iter().all(|name| names.iter().any(|n| n == name)), "the list of policies")?;
    response(sys::policy::delete(&bench.root, "rs-policy")).await
}

async fn tools(bench: &Bench) -> Outcome {
    let random = response(sys::tools::random(&bench.root, None)).await?;
    hold(random.random_bytes.len() >= 40, "32 random bytes")
}
