//! Help of the paths that answer on a sealed server ([`crate::bare`]): open to everybody, as the paths are.

use keepfast_framework::Routes;
use keepfast_framework::routes::Help;

use super::System;

const HELP: [(&str, Help); 5] = [
    ("health", Help { synopsis: "The state of the server in the status of the answer.", description: "" }),
    ("init", Help { synopsis: "Whether the server has a store; makes one.", description: "" }),
    ("leader", Help { synopsis: "Who leads the servers of this store.", description: "" }),
    ("seal-status", Help { synopsis: "Whether the server is sealed.", description: "" }),
    ("unseal", Help { synopsis: "Takes a share of the unseal key.", description: "" }),
];

pub(super) fn routes(r: &mut Routes<System>) {
    for (path, help) in HELP {
        // What the paths do is answered before any row is looked for.
        r.path(path, help).unauthenticated().hidden();
    }
}
