//! `operator key-status`: the key that data is encrypted with.

use crate::args::Command;
use crate::commands::status::show_key;
use crate::flags::{FORMAT, HTTP};

pub(crate) const COMMAND: Command = Command {
    name: "key-status",
    usage: "",
    about: "Show the term of the encryption key, since when it is in use and how much.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run: |cx| show_key(cx, &cx.session()?),
};
