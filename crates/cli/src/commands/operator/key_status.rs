//! `operator key-status`: prints the state of the encryption key.

use crate::args::Command;
use crate::commands::status::show_key;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "key-status",
    usage: "",
    about: "Show the term, the install time and the encryption count of the encryption key.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run: |cx| show_key(cx, &cx.session()?),
};
