//! `login`: exchanges credentials for a token and stores it for later commands.

use std::io;

use keepfast_client::{Auth, Method, Request, Secret, SecretString, environment};
use serde_json::{Map, Value, json};

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};
use crate::session::own_name;
use crate::{data, mfa, prompt, terminal, token_file};

pub(crate) const COMMAND: Command = Command {
    name: "login",
    usage: "[TOKEN | K=V...]",
    about: "Log in, and store the token for later commands.",
    details: "
The token is stored in ~/.vault-token. The token method prompts for a missing
token; - reads it from stdin.

    keepfast login
    keepfast login -method=userpass username=sally
    keepfast login -method=approle role_id=... secret_id=...
",
    min: 0,
    max: None,
    flags: &[HTTP, OUTPUT, FlagSet { title: "Command", flags: FLAGS }],
    run,
};

const FLAGS: &[Flag] = &[
    Flag::new("method", Kind::Text, "The auth method: token, userpass or approle. Default: token."),
    Flag::new("no-print", Kind::Bool, "Do not print the token."),
    Flag::new("no-store", Kind::Bool, "Do not store the token."),
    Flag::new("path", Kind::Text, "Mount path of the auth method. Default: its type."),
    Flag::new("token-only", Kind::Bool, "Print only the token and do not store it."),
];

/// Exchanges credentials for a token at a mount path.
type Login = fn(&Cx, &str, Map<String, Value>) -> Result<Secret, CommandError>;

/// A login method.
pub(super) struct LoginMethod {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    login: Login,
}

/// The supported login methods.
pub(super) const METHODS: &[LoginMethod] = &[
    LoginMethod {
        name: "token",
        login: with_token,
        help: "
Usage: login [TOKEN] [K=V...]

  Looks up a token that exists already.

Configuration:

  token=<string>    The token, when it is not the first argument.
  lookup=<bool>     Whether to look the token up first. Default: true.
",
    },
    LoginMethod {
        name: "userpass",
        login: with_userpass,
        help: "
Usage: login -method=userpass [K=V...]

  Logs in with a name and a password.

Configuration:

  username=<string>    The name.
  password=<string>    The password. Default: a prompt.
",
    },
    LoginMethod {
        name: "approle",
        login: with_approle,
        help: "
Usage: login -method=approle [K=V...]

  Logs in as an application.

Configuration:

  role_id=<string>      The role's id.
  secret_id=<string>    A secret id of the role, unless it needs none.
",
    },
];

fn run(cx: &Cx) -> Outcome {
    let name = cx.words.text("method").unwrap_or("token");
    let Some(method) = METHODS.iter().find(|method| method.name == name) else {
        return Err(CommandError::usage(format!(
            "Unknown auth method: {name}. \"{} auth list\" lists the methods of the server; some work only\nthrough the HTTP API.",
            own_name()
        )));
    };
    if cx.words.on("no-print") && (cx.words.on("no-store") || cx.words.on("token-only")) {
        return Err(CommandError::usage(
            "A token that is neither stored nor printed is lost: use only one of the two flags",
        ));
    }
    let path = cx.words.text("path").map_or(name, |path| path.trim_matches('/'));
    let secret = (method.login)(cx, path, credentials(cx, name)?)?;
    finish(cx, &mfa::complete(cx, secret)?)
}

/// Parses the credentials; the token method accepts a bare token.
fn credentials(cx: &Cx, method: &str) -> Result<Map<String, Value>, CommandError> {
    let arguments = cx.arguments_from(0);
    let bare = arguments.first().filter(|first| method == "token" && !first.contains('=') && !first.starts_with('@'));
    let Some(token) = bare else { return data::parse(arguments, &mut io::stdin()) };
    let mut named = vec![format!("token={token}")];
    named.extend_from_slice(&arguments[1..]);
    data::parse(&named, &mut io::stdin())
}

fn with_token(cx: &Cx, _: &str, mut given: Map<String, Value>) -> Result<Secret, CommandError> {
    let token = secret_of(cx, &mut given, "token", "Token")?;
    let look_up = given.get("lookup").and_then(Value::as_str).and_then(environment::truth).unwrap_or(true);
    if !look_up {
        let auth = Auth { client_token: token.expose().clone(), ..Auth::default() };
        return Ok(Secret { auth: Some(auth), ..Secret::default() });
    }
    let request = Request { may_wrap: false, ..Request::new(Method::Get, "auth/token/lookup-self") };
    let session = cx.session()?.with_token(Some(token.clone()));
    let found = session.require("Error authenticating: error looking up token", request, "policies")?;
    let data = found.data.unwrap_or_default();
    Ok(Secret { auth: Some(auth_of(&token, &data)), ..Secret::default() })
}

fn with_userpass(cx: &Cx, path: &str, mut given: Map<String, Value>) -> Result<Secret, CommandError> {
    let Some(username) = given.get("username").and_then(Value::as_str).map(str::to_owned) else {
        return Err(CommandError::failed("Error authenticating: 'username' must be specified"));
    };
    let password = secret_of(cx, &mut given, "password", "Password")?;
    let request = Request::new(Method::Put, format!("auth/{path}/login/{username}"))
        .with_body(json!({ "password": password.expose() }));
    log_in(cx, &request)
}

fn with_approle(cx: &Cx, path: &str, mut given: Map<String, Value>) -> Result<Secret, CommandError> {
    if !given.contains_key("role_id") {
        return Err(CommandError::failed("Error authenticating: 'role_id' must be specified"));
    }
    given.retain(|key, _| matches!(key.as_str(), "role_id" | "secret_id"));
    let request = Request::new(Method::Put, format!("auth/{path}/login")).with_body(Value::Object(given));
    log_in(cx, &request)
}

/// Sends credentials without the current token, which must not affect the login.
fn log_in(cx: &Cx, request: &Request) -> Result<Secret, CommandError> {
    let response = cx.session()?.with_token(None).call("Error authenticating", request)?;
    response.ok_or_else(|| CommandError::failed("Error authenticating: the server returned no token"))
}

/// A secret from the credentials, else from a prompt.
fn secret_of(cx: &Cx, given: &mut Map<String, Value>, field: &str, what: &str) -> Result<SecretString, CommandError> {
    match given.remove(field) {
        Some(Value::String(text)) if field != "token" => Ok(SecretString::new(text)),
        Some(Value::String(text)) => Ok(SecretString::new(text.trim().to_owned())),
        _ => prompt::hidden(what, cx.words.on("non-interactive")),
    }
}

/// Converts the lookup of a token to the form of a login.
fn auth_of(token: &SecretString, data: &Map<String, Value>) -> Auth {
    let texts = |name: &str| -> Option<Vec<String>> {
        let values = data.get(name)?.as_array()?;
        Some(values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
    };
    let (own, of_entity) = (texts("policies"), texts("identity_policies"));
    let mut all: Vec<String> = own.iter().chain(&of_entity).flatten().cloned().collect();
    all.sort();
    all.dedup();
    Auth {
        client_token: token.expose().clone(),
        accessor: data.get("accessor").and_then(Value::as_str).unwrap_or_default().to_owned(),
        policies: Some(all),
        token_policies: own,
        identity_policies: of_entity,
        metadata: data.get("meta").and_then(Value::as_object).cloned(),
        orphan: data.get("orphan").and_then(Value::as_bool).unwrap_or(false),
        entity_id: data.get("entity_id").and_then(Value::as_str).unwrap_or_default().to_owned(),
        lease_duration: data.get("ttl").and_then(Value::as_i64).unwrap_or(0),
        renewable: data.get("renewable").and_then(Value::as_bool).unwrap_or(false),
        mfa_requirement: None,
    }
}

/// Stores and prints the token, as the flags say.
// recursion: bounded by one unwrapping: the unwrapped response is not wrapped
fn finish(cx: &Cx, secret: &Secret) -> Outcome {
    let token_only = cx.words.on("token-only");
    if let Some(wrapped) = &secret.wrap_info {
        // Unwraps only a token that is stored; otherwise the caller gets the wrapping token.
        let wrapping = SecretString::new(wrapped.token.clone());
        return match () {
            () if token_only => print_token_only(cx, &wrapped.token),
            () if cx.words.on("no-store") => cx.output.secret(secret),
            () => {
                let inner = cx.session()?.with_token(Some(wrapping)).unwrap(None)?;
                let inner = inner.filter(|inner| inner.wrap_info.is_none());
                finish(
                    cx,
                    &inner.ok_or_else(|| CommandError::failed("Error authenticating: the server returned no token"))?,
                )
            }
        };
    }
    let Some(auth) = &secret.auth else {
        return Err(CommandError::failed("Error authenticating: the server returned no token"));
    };
    if mfa::is_pending(secret) {
        return cx.output.secret(secret);
    }
    if auth.client_token.is_empty() {
        return Err(CommandError::failed("Error authenticating: the server returned no token"));
    }
    if token_only {
        return print_token_only(cx, &auth.client_token);
    }
    let store = !cx.words.on("no-store");
    if store {
        let token = SecretString::new(auth.client_token.clone());
        token_file::store(&cx.session()?.address(), &token)?;
        if let Some((variable, _)) = environment::variable("TOKEN") {
            terminal::warning(&format!(
                "WARNING! The {variable} environment variable is set and takes precedence over the stored\ntoken. Unset it to use the new token.\n"
            ));
        }
    }
    if cx.words.on("no-print") {
        return Ok(0);
    }
    if cx.output.is_table() && cx.output.field().is_none() {
        terminal::success(if store { STORED } else { NOT_STORED });
    }
    cx.output.secret(secret)
}

/// Prints only a token.
fn print_token_only(cx: &Cx, token: &str) -> Outcome {
    cx.output.bare(&Value::from(token));
    Ok(0)
}

const STORED: &str = "Success! You are now authenticated. The token has been stored and will be used by\nlater commands; there is no need to log in again.\n";
const NOT_STORED: &str =
    "Success! You are now authenticated. The token has not been stored: set VAULT_TOKEN\nto use it.\n";
