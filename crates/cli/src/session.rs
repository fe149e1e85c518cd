//! The connection of a command to a server: sends requests, or prints them instead.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use keepfast_client::{
    Address, Client, Config, DEFAULT_ADDRESS, Error, Method, Request, Response, Secret, SecretString, environment,
};
use serde_json::{Map, Value};

use crate::args::Words;
use crate::command_error::CommandError;
use crate::{exact_numbers, terminal, token_file};

mod headers;
mod policy;

/// The timeout of requests for completion.
const COMPLETION_TIME: Duration = Duration::from_secs(2);

/// A client with its runtime, and the optional printing mode.
pub(crate) struct Session {
    client: Client,
    runtime: tokio::runtime::Runtime,
    print_mode: Option<PrintMode>,
}

/// What to print instead of sending a request.
#[derive(Clone, Copy)]
enum PrintMode {
    Curl,
    Policy,
}

impl Session {
    /// A session from the environment and the flags, which take precedence.
    pub(crate) fn new(words: &Words) -> Result<Self, CommandError> {
        let client = Client::new(config(words).map_err(|error| CommandError::failed(error.to_string()))?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            client: client.map_err(|error| CommandError::failed(error.to_string()))?,
            runtime: runtime.map_err(|error| CommandError::failed(format!("Cannot start: {error}")))?,
            print_mode: match () {
                () if words.on("output-curl-string") => Some(PrintMode::Curl),
                () if words.on("output-policy") => Some(PrintMode::Policy),
                () => None,
            },
        })
    }

    /// A session with a short timeout and without retries: completion runs at every key press. `namespace` is that of
    /// the line; the other flags of an unfinished line have no effect.
    pub(crate) fn for_completion(namespace: Option<&str>) -> Option<Self> {
        let mut config = config(&Words::default()).ok()?;
        config.namespace = namespace.map(str::to_owned).unwrap_or(config.namespace);
        config.timeout = Some(COMPLETION_TIME);
        config.max_retries = 0;
        let client = Client::new(config).ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        Some(Self { client, runtime, print_mode: None })
    }

    /// The same session with another token, or without one.
    pub(crate) fn with_token(self, token: Option<SecretString>) -> Self {
        Self { client: self.client.with_token(token), ..self }
    }

    /// The server's address, which a token helper gets as `VAULT_ADDR`.
    pub(crate) fn address(&self) -> Address {
        self.client.config().address.clone()
    }

    /// The token in use.
    pub(crate) fn token(&self) -> Option<&SecretString> {
        self.client.config().token.as_ref()
    }

    /// Sends a request. The message of an error is `context`, a colon, and the reason.
    pub(crate) fn call(&self, context: &str, request: &Request) -> Result<Option<Secret>, CommandError> {
        self.announce(request)?;
        self.exchange(&self.client, request).map_err(|error| self.failure(context, &error))
    }

    /// Sends a request to a path that every server has, and whose data has this field.
    pub(crate) fn require(&self, context: &str, request: Request, field: &str) -> Result<Secret, CommandError> {
        self.require_any(context, request, &[field])
    }

    /// Sends a request to a path that every server has, and whose data has one of these fields.
    pub(crate) fn require_any(&self, context: &str, request: Request, fields: &[&str]) -> Result<Secret, CommandError> {
        let request = request.required();
        let secret = self.call(context, &request)?.unwrap_or_default();
        if secret.wrap_info.is_none() && fields.iter().all(|field| secret.data_field(field).is_none()) {
            let field = fields.join(" or ");
            let url = self.client.url(&request);
            let hint = "does VAULT_ADDR name a server of this API?";
            return Err(CommandError::failed(format!("{context}: the response of {url} has no field {field}: {hint}")));
        }
        Ok(secret)
    }

    /// Sends a request to a path that every server has, and whose data is a map of objects, such as mounts by path.
    pub(crate) fn require_map(&self, context: &str, request: Request) -> Result<Map<String, Value>, CommandError> {
        let request = request.required();
        let data = self.call(context, &request)?.and_then(|secret| secret.data).unwrap_or_default();
        if data.values().any(|value| !value.is_object()) {
            let url = self.client.url(&request);
            let hint = "does VAULT_ADDR name a server of this API?";
            return Err(CommandError::failed(format!(
                "{context}: the response of {url} is not a map of objects: {hint}"
            )));
        }
        Ok(data)
    }

    /// Sends a request whose error the command evaluates.
    pub(crate) fn attempt(&self, request: &Request) -> Result<Result<Option<Secret>, Error>, CommandError> {
        self.announce(request)?;
        Ok(self.exchange(&self.client, request))
    }

    /// Sends a request that prepares another. It is sent even when the other is only printed, and it is
    /// never wrapped.
    pub(crate) fn preflight(&self, request: Request) -> Result<Option<Secret>, Error> {
        self.exchange(&self.client, &Request { may_wrap: false, ..request })
    }

    /// Sends a request and returns the raw response.
    pub(crate) fn raw(&self, context: &str, request: &Request) -> Result<Response, CommandError> {
        self.announce(request)?;
        self.runtime.block_on(self.client.raw(request)).map_err(|error| self.failure(context, &error))
    }

    /// The error for an error response.
    pub(crate) fn refused(&self, context: &str, request: &Request, response: &Response) -> CommandError {
        request_error(context, &self.client.refusal(request, response))
    }

    /// The error of a failed request, with a hint when it had no token.
    fn failure(&self, context: &str, error: &Error) -> CommandError {
        let mut halt = request_error(context, error);
        let anonymous = self.token().is_none_or(|token| token.expose().is_empty());
        let refused = matches!(error.status(), Some(400 | 403))
            && error
                .errors()
                .iter()
                .any(|text| text.contains("missing client token") || text.contains("permission denied"));
        if anonymous && refused {
            let hint = format!("no token: run \"{} login\" or set VAULT_TOKEN", own_name());
            halt.message = halt.message.map(|message| format!("{message}\n\n{hint}"));
        }
        halt
    }

    /// Unwraps a token; `None` unwraps the session's own token.
    pub(crate) fn unwrap(&self, token: Option<&SecretString>) -> Result<Option<Secret>, CommandError> {
        let (client, request) = self.client.unwrapping(token);
        self.announce(&request)?;
        self.exchange(&client, &request).map_err(|error| request_error("Error unwrapping", &error))
    }

    /// Sends a request and parses the response; numbers in both keep all their digits.
    fn exchange(&self, client: &Client, request: &Request) -> Result<Option<Secret>, Error> {
        let request = Request { body: request.body.as_deref().map(exact_numbers::restore), ..request.clone() };
        let mut response = self.runtime.block_on(client.raw(&request))?;
        response.body = exact_numbers::keep(&response.body).into();
        client.interpret(&request, &response)
    }

    /// Waits between two requests to a server.
    pub(crate) fn pause(&self, time: Duration) {
        self.runtime.block_on(keepfast_client::pause(time));
    }

    /// Prints the request when only that is wanted, and ends the command.
    fn announce(&self, request: &Request) -> Result<(), CommandError> {
        match self.print_mode {
            None => return Ok(()),
            Some(PrintMode::Curl) => terminal::line(&self.curl(request)),
            Some(PrintMode::Policy) => terminal::line(&policy::needed(request)),
        }
        Err(CommandError::printed())
    }

    /// The request as a curl command line; the shell gets the token, which is not printed.
    fn curl(&self, request: &Request) -> String {
        let mut line = "curl".to_owned();
        if request.method != Method::Get {
            let _ = write!(line, " -X {}", request.method.as_str());
        }
        if self.client.config().skip_verify {
            line.push_str(" --insecure");
        }
        let config = self.client.config();
        for (option, path) in [
            ("--cacert", &config.ca_cert),
            ("--capath", &config.ca_path),
            ("--cert", &config.client_cert),
            ("--key", &config.client_key),
        ] {
            if let Some(path) = path {
                let _ = write!(line, " {option} {}", quoted(&path.display().to_string()));
            }
        }
        if let (Some(name), Address::Http(uri)) = (&config.server_name, &config.address) {
            let port = uri.port_u16().unwrap_or(443);
            let _ = write!(
                line,
                " --connect-to {}",
                quoted(&format!("{name}:{port}:{}:{port}", uri.host().unwrap_or_default()))
            );
        }
        if let Address::Unix(path) = &self.client.config().address {
            let _ = write!(line, " --unix-socket {}", quoted(&path.display().to_string()));
        }
        let headers: BTreeMap<String, String> = self.client.headers(request).iter().map(headers::display).collect();
        for (name, value) in headers {
            if name != "Content-Type" || request.method == Method::Patch {
                let _ = write!(line, " -H {}", double_quoted(&format!("{name}: {value}")));
            }
        }
        if self.token().is_some() {
            let _ = write!(line, " -H \"X-Vault-Token: $({} print token)\"", own_name());
        }
        if let Some(body) = &request.body {
            let _ = write!(line, " -d {}", quoted(&exact_numbers::restore(body)));
        }
        let url = self.client.url(request);
        let url = match (&config.server_name, &config.address) {
            (Some(name), Address::Http(uri)) => url.replacen(uri.host().unwrap_or_default(), name, 1),
            _ => url,
        };
        let _ = write!(line, " {}", double_quoted(&url));
        line
    }
}

/// The configuration of the environment and the flags, with the stored token.
fn config(words: &Words) -> Result<Config, Error> {
    let given = |flag: &str| words.text(flag).filter(|value| !value.is_empty());
    let address = given("agent-address").or_else(|| given("address"));
    // A flag replaces the variable, even an invalid one.
    let mut config = Config::from_variables(|name| match address {
        Some(given) if environment::PREFIXES.iter().any(|prefix| *name == format!("{prefix}_ADDR")) => {
            Some(given.to_owned())
        }
        _ => std::env::var(name).ok(),
    })?;
    config.address = self::address(words)?;
    // A user waits for the command: one attempt, unless the environment sets another number.
    if environment::variable("MAX_RETRIES").is_none() {
        config.max_retries = 0;
    }
    config.token = token_file::current(&config.address)?;
    for (flag, slot) in [
        ("ca-cert", &mut config.ca_cert),
        ("ca-path", &mut config.ca_path),
        ("client-cert", &mut config.client_cert),
        ("client-key", &mut config.client_key),
    ] {
        if let Some(path) = given(flag) {
            *slot = Some(path.into());
        }
    }
    config.server_name = given("tls-server-name").map(str::to_owned).or(config.server_name);
    config.namespace = words.text("namespace").map(str::to_owned).unwrap_or(config.namespace);
    config.skip_verify = words.truth("tls-skip-verify").unwrap_or(config.skip_verify);
    config.follow_redirects = words.truth("disable-redirects").map_or(config.follow_redirects, |disabled| !disabled);
    if let Some(ttl) = words.duration("wrap-ttl") {
        config.wrap_ttl = Some(keepfast_client::duration::format(ttl));
    }
    config.headers = headers::of(words)?;
    Ok(config)
}

/// The address of the server from flags and environment.
pub(crate) fn address(words: &Words) -> Result<Address, Error> {
    let given = |flag: &str| words.text(flag).filter(|value| !value.is_empty()).map(str::to_owned);
    let named = |name: &str| environment::variable(name).map(|(_, value)| value);
    let flag = given("agent-address").or_else(|| given("address"));
    let text = flag.or_else(|| named("AGENT_ADDR")).or_else(|| named("ADDR"));
    Address::parse(text.as_deref().unwrap_or(DEFAULT_ADDRESS))
}

/// The error for a failed request, with its context.
pub(crate) fn request_error(context: &str, error: &Error) -> CommandError {
    let context = if context.is_empty() { String::new() } else { format!("{context}: ") };
    CommandError::failed(format!("{context}{error}"))
}

/// Single-quoted for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

/// Double-quoted for a shell.
fn double_quoted(text: &str) -> String {
    let escaped: String =
        text.chars().flat_map(|c| matches!(c, '"' | '\\' | '$' | '`').then_some('\\').into_iter().chain([c])).collect();
    format!("\"{escaped}\"")
}

/// The file name with which this program was started.
pub(crate) fn own_name() -> String {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    called
        .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "keepfast".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn shell_quotes_cannot_be_escaped() {
        assert_eq!(quoted("it's"), "'it'\"'\"'s'");
        assert_eq!(double_quoted("a\"$(x)`y`\\"), "\"a\\\"\\$(x)\\`y\\`\\\\\"");
    }
}
