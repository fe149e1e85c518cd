//! Talking to a server from a command: one call at a time, or only saying which call it would be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use keepfast_client::{
    Address, Client, Config, DEFAULT_ADDRESS, Error, Method, Request, Response, Secret, SecretString, environment,
};
use serde_json::{Map, Value};

use crate::args::Words;
use crate::halt::Halt;
use crate::{exact, terminal, token_file};

mod headers;
mod policy;

/// How long completion waits for the server.
const COMPLETION_TIME: Duration = Duration::from_secs(2);

/// A client with a runtime to wait on, and what to do instead of calling.
pub(crate) struct Session {
    client: Client,
    runtime: tokio::runtime::Runtime,
    instead: Option<Instead>,
}

/// What to print in place of a call.
#[derive(Clone, Copy)]
enum Instead {
    Curl,
    Policy,
}

impl Session {
    /// A session after the environment, with what flags say on top.
    pub(crate) fn new(words: &Words) -> Result<Self, Halt> {
        let client = Client::new(config(words).map_err(|error| Halt::failed(error.to_string()))?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            client: client.map_err(|error| Halt::failed(error.to_string()))?,
            runtime: runtime.map_err(|error| Halt::failed(format!("Cannot start: {error}")))?,
            instead: match () {
                () if words.on("output-curl-string") => Some(Instead::Curl),
                () if words.on("output-policy") => Some(Instead::Policy),
                () => None,
            },
        })
    }

    /// A session that waits for no server: for completion, which a person waits for at every key.
    pub(crate) fn for_completion() -> Option<Self> {
        let mut config = config(&Words::default()).ok()?;
        config.timeout = Some(COMPLETION_TIME);
        config.max_retries = 0;
        let client = Client::new(config).ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        Some(Self { client, runtime, instead: None })
    }

    /// The same server with another token, or none.
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

    /// Makes a call. A failure is told as `context`, a colon, and the reason.
    pub(crate) fn call(&self, context: &str, request: &Request) -> Result<Option<Secret>, Halt> {
        self.announce(request)?;
        self.exchange(&self.client, request).map_err(|error| self.failure(context, &error))
    }

    /// Makes a call to a path that every server has, and whose data has this field.
    pub(crate) fn require(&self, context: &str, request: Request, field: &str) -> Result<Secret, Halt> {
        self.require_any(context, request, &[field])
    }

    /// Makes a call to a path that every server has, and whose data has one of these fields.
    pub(crate) fn require_any(&self, context: &str, request: Request, fields: &[&str]) -> Result<Secret, Halt> {
        let request = request.required();
        let secret = self.call(context, &request)?.unwrap_or_default();
        if secret.wrap_info.is_none() && fields.iter().all(|field| secret.data_field(field).is_none()) {
            let field = fields.join(" or ");
            let url = self.client.url(&request);
            let hint = "does VAULT_ADDR name a server of this API?";
            return Err(Halt::failed(format!("{context}: the answer of {url} has no field {field}: {hint}")));
        }
        Ok(secret)
    }

    /// Makes a call to a path that every server has and whose data is a map of objects, such as mounts by their path.
    pub(crate) fn require_map(&self, context: &str, request: Request) -> Result<Map<String, Value>, Halt> {
        let request = request.required();
        let data = self.call(context, &request)?.and_then(|secret| secret.data).unwrap_or_default();
        if data.values().any(|value| !value.is_object()) {
            let url = self.client.url(&request);
            let hint = "does VAULT_ADDR name a server of this API?";
            return Err(Halt::failed(format!("{context}: the answer of {url} is not a map of objects: {hint}")));
        }
        Ok(data)
    }

    /// Makes a call whose failure the command looks into.
    pub(crate) fn attempt(&self, request: &Request) -> Result<Result<Option<Secret>, Error>, Halt> {
        self.announce(request)?;
        Ok(self.exchange(&self.client, request))
    }

    /// Makes a call that only prepares another: it is really made even when the other is only printed, and
    /// is never wrapped.
    pub(crate) fn preflight(&self, request: Request) -> Result<Option<Secret>, Error> {
        self.exchange(&self.client, &Request { may_wrap: false, ..request })
    }

    /// Makes a call whose answer is wanted as it comes.
    pub(crate) fn raw(&self, context: &str, request: &Request) -> Result<Response, Halt> {
        self.announce(request)?;
        self.runtime.block_on(self.client.raw(request)).map_err(|error| self.failure(context, &error))
    }

    /// An answer, told as the refusal that it is.
    pub(crate) fn refused(&self, context: &str, request: &Request, response: &Response) -> Halt {
        told(context, &self.client.refusal(request, response))
    }

    /// The failure of a call, with a hint where no token was sent.
    fn failure(&self, context: &str, error: &Error) -> Halt {
        let mut halt = told(context, error);
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

    /// Unwraps a token; `None` unwraps the session's own.
    pub(crate) fn unwrap(&self, token: Option<&SecretString>) -> Result<Option<Secret>, Halt> {
        let (client, request) = self.client.unwrapping(token);
        self.announce(&request)?;
        self.exchange(&client, &request).map_err(|error| told("Error unwrapping", &error))
    }

    /// Sends a request and reads the answer, numbers in both kept as they were written.
    fn exchange(&self, client: &Client, request: &Request) -> Result<Option<Secret>, Error> {
        let request = Request { body: request.body.as_deref().map(exact::restore), ..request.clone() };
        let mut response = self.runtime.block_on(client.raw(&request))?;
        response.body = exact::keep(&response.body).into();
        client.interpret(&request, &response)
    }

    /// Lets some time pass between two looks at a server.
    pub(crate) fn pause(&self, time: Duration) {
        self.runtime.block_on(keepfast_client::pause(time));
    }

    /// Prints what stands for the call, when that is all that was asked for.
    fn announce(&self, request: &Request) -> Result<(), Halt> {
        match self.instead {
            None => return Ok(()),
            Some(Instead::Curl) => terminal::line(&self.curl(request)),
            Some(Instead::Policy) => terminal::line(&policy::needed(request)),
        }
        Err(Halt::shown())
    }

    /// The call as a curl command line; the token is fetched by the shell, not shown.
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
        let headers: BTreeMap<String, String> = self.client.headers(request).iter().map(headers::shown).collect();
        for (name, value) in headers {
            if name != "Content-Type" || request.method == Method::Patch {
                let _ = write!(line, " -H {}", double_quoted(&format!("{name}: {value}")));
            }
        }
        if self.token().is_some() {
            let _ = write!(line, " -H \"X-Vault-Token: $({} print token)\"", own_name());
        }
        if let Some(body) = &request.body {
            let _ = write!(line, " -d {}", quoted(&exact::restore(body)));
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

/// The environment's configuration with the flags' on top, and the token that a login has left.
fn config(words: &Words) -> Result<Config, Error> {
    let given = |flag: &str| words.text(flag).filter(|value| !value.is_empty());
    let address = given("agent-address").or_else(|| given("address"));
    // A flag replaces the variable, also one that could not be read.
    let mut config = Config::from_variables(|name| match address {
        Some(given) if environment::PREFIXES.iter().any(|prefix| *name == format!("{prefix}_ADDR")) => {
            Some(given.to_owned())
        }
        _ => std::env::var(name).ok(),
    })?;
    config.address = self::address(words)?;
    // At the command line a person waits: one attempt, unless the environment says otherwise.
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

/// The server that flags and environment name.
pub(crate) fn address(words: &Words) -> Result<Address, Error> {
    let given = |flag: &str| words.text(flag).filter(|value| !value.is_empty()).map(str::to_owned);
    let named = |name: &str| environment::variable(name).map(|(_, value)| value);
    let flag = given("agent-address").or_else(|| given("address"));
    let text = flag.or_else(|| named("AGENT_ADDR")).or_else(|| named("ADDR"));
    Address::parse(text.as_deref().unwrap_or(DEFAULT_ADDRESS))
}

/// A refusal by the server, or its absence.
pub(crate) fn told(context: &str, error: &Error) -> Halt {
    let context = if context.is_empty() { String::new() } else { format!("{context}: ") };
    Halt::failed(format!("{context}{error}"))
}

/// In single quotes for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

/// In double quotes for a shell.
fn double_quoted(text: &str) -> String {
    let escaped: String =
        text.chars().flat_map(|c| matches!(c, '"' | '\\' | '$' | '`').then_some('\\').into_iter().chain([c])).collect();
    format!("\"{escaped}\"")
}

/// The name under which this program was called.
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
    fn nothing_escapes_its_quotes() {
        assert_eq!(quoted("it's"), "'it'\"'\"'s'");
        assert_eq!(double_quoted("a\"$(x)`y`\\"), "\"a\\\"\\$(x)\\`y\\`\\\\\"");
    }
}
