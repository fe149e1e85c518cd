//! Black-box tests of the command line.
//!
//! `commands_without_a_server` replays `tests/cmd`. The other tests need a server: the one of
//! `KEEPFAST_TEST_SERVER_ADDR` and `KEEPFAST_TEST_SERVER_TOKEN` (Keepfast or OpenBao, in development
//! mode), else each test starts its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod data;
mod formats;
#[path = "../../../pgp/src/gnupg.rs"]
mod gnupg;
mod kv;
mod login;
mod mfa;
mod mounts;
mod namespaces;
mod operator;
mod pgp;
mod policies;
mod process;
mod raft;
#[allow(dead_code, reason = "the tests of the client use the rest")]
#[path = "../../../client/tests/it/server.rs"]
mod recorder;
mod refusals;
mod seals;
mod server;
mod terminal;
mod token_helper;
mod tokens;
mod transit;
mod wrapping;
mod wrong_server;

#[test]
fn commands_without_a_server() {
    trycmd::TestCases::new().case("tests/cmd/*.md").case("tests/cmd/*.toml");
}
