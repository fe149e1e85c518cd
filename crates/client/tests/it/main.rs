//! The client against scripted servers: what it sends, what it makes of answers, whom it trusts.

mod answers;
mod server;
mod tls;
