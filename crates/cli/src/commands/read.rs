//! `read`: reads the value at a path.

use std::io;

use keepfast_client::{Method, Request};

use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::data;
use crate::flags::{HTTP, OUTPUT};
use crate::output::Format;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "read",
    usage: "PATH [K=V...]",
    about: "Read data, configuration or credentials from a path.",
    details: "
The engine at the path defines the response. Further arguments are query
parameters.

    keepfast read auth/approle/role/app/role-id
    keepfast read -field=role_id auth/approle/role/app/role-id
",
    min: 1,
    max: None,
    flags: &[HTTP, OUTPUT],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let path = cx.path(0);
    let mut request = Request::new(Method::Get, &path);
    request.query = data::parse_query(cx.arguments_from(1), &mut io::stdin())?;
    let context = format!("Error reading {path}");
    let session = cx.session()?;
    let not_found = || CommandError::failed(format!("No value found at {path}"));
    if cx.output.format == Format::Raw {
        let response = session.raw(&context, &request)?;
        if response.status == 404 {
            return Err(not_found());
        }
        terminal::line(&String::from_utf8_lossy(&response.body));
        return Ok(0);
    }
    let secret = session.call(&context, &request)?.ok_or_else(not_found)?;
    cx.output.secret(&secret)
}
