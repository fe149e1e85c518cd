//! `sys/seal`: seals the server.

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Cx, Result, Routes};

use super::System;

const HELP: Help = Help { synopsis: "Seals the server.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("seal", HELP).update(seal).update_sealed(seal_again).sudo().of_own_node().not_in_namespaces();
}

/// Seals the server in the background: the response must be sent before the keys are wiped.
async fn seal(sys: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    let lifecycle = sys.lifecycle()?;
    cx.after_commit(move || {
        tracing::info!("seal requested");
        tokio::spawn(async move { lifecycle.seal().await });
    });
    Ok(())
}

/// A sealed server stays sealed, and an unsealed one needs a token. A join whose shares were accepted unseals the server,
/// and a caller without a token does not end it.
async fn seal_again(sys: &System, _: Nothing) -> Result<SealedResponse<()>> {
    let server = sys.lifecycle()?;
    if !server.is_sealed() {
        return Ok(SealedResponse::Passed);
    }
    server.administration.joining.check_not_completing()?;
    Ok(if server.is_sealed() { SealedResponse::Empty } else { SealedResponse::Passed })
}
