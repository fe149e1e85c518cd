//! Connection strings of PostgreSQL in libpq's grammar.
//!
//! A URI (`postgresql://user:password@host:port,host:port/dbname?name=value`) or keywords (`host=h password='a b'`), as
//! in <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>. If libpq and pgx, the driver of
//! OpenBao, parse a text differently and both ways are equally safe, pgx's applies: a plus sign in a query is a blank,
//! the last `@` ends the credentials, `database` is an alias of `dbname`.

use super::super::placeholders::{
    MASK, Template, has_too_many, percent_decode, percent_encode, percent_encode_authority, query_decode,
};

/// The maximum length of a connection string in bytes, and the maximum number of parameters.
const MAX_BYTES: usize = 16 * 1024;
const MAX_PARAMETERS: usize = 128;
const PASSWORD: &str = "password";

/// A parsed connection string.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConnInfo {
    grammar: Grammar,
    /// In the order of the text; the last of repeated names applies.
    parameters: Vec<Parameter>,
}

#[derive(Debug, PartialEq, Eq)]
enum Grammar {
    Uri { scheme: &'static str, hosts: Vec<Host>, has_late_at: bool },
    Keywords,
}

/// A host of a URI's authority with its port.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    name: Template,
    port: Option<Template>,
}

#[derive(Debug, PartialEq, Eq)]
struct Parameter {
    name: String,
    value: Template,
    place: Place,
}

/// The part of a URI with a parameter. Keywords are all in `Query`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Credentials,
    Authority,
    Path,
    Query,
}

impl ConnInfo {
    /// Parses a connection string.
    ///
    /// # Errors
    /// The error; it quotes no part of the text.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_BYTES {
            return Err("it is longer than 16 KiB");
        }
        if has_too_many(text) {
            return Err("it has more than 16 placeholders");
        }
        let uri = ["postgresql", "postgres"].into_iter().find_map(|scheme| {
            let rest = text.strip_prefix(scheme)?.strip_prefix("://")?;
            Some((scheme, rest))
        });
        let parsed = match uri {
            Some((scheme, rest)) => parse_uri(scheme, rest)?,
            None => ConnInfo { grammar: Grammar::Keywords, parameters: parse_keywords(text)? },
        };
        if parsed.parameters.len() > MAX_PARAMETERS { Err("it has more than 128 parameters") } else { Ok(parsed) }
    }

    /// Whether it is a URI, in which values are percent-encoded.
    pub(super) fn is_uri(&self) -> bool {
        matches!(self.grammar, Grammar::Uri { .. })
    }

    /// The effective names and values: the last one of each name.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, &Template)> {
        let all = self.parameters.iter().enumerate();
        let counts = |at: usize, name: &str| !self.parameters[at + 1..].iter().any(|later| later.name == name);
        all.filter(move |(at, p)| counts(*at, &p.name)).map(|(_, p)| (p.name.as_str(), &p.value))
    }

    /// Whether it contains a password.
    pub(super) fn has_password(&self) -> bool {
        self.parameters.iter().any(|p| p.name == PASSWORD && p.value.has_text())
    }

    /// The connection string in responses: rebuilt from its parsed form, with [`MASK`] for each name and value whose
    /// name `is_public` refuses. A value of `password` is kept if it is only the placeholder.
    ///
    /// `None` if a URI has an unencoded `@` after its authority: the authority may then be the beginning of a password
    /// with a slash or a question mark.
    pub(super) fn masked(&self, is_public: impl Fn(&str) -> bool) -> Option<String> {
        if matches!(self.grammar, Grammar::Uri { has_late_at: true, .. }) {
            return None;
        }
        // A part of a password after a blank or an ampersand is parsed as a name.
        let name =
            |p: &'_ Parameter| if is_public(&p.name) || p.name == PASSWORD { p.name.clone() } else { MASK.to_owned() };
        let value = |p: &Parameter, encode: fn(&Template) -> String| {
            let is_shown = is_public(&p.name) || (p.name == PASSWORD && !p.value.has_text());
            if is_shown { encode(&p.value) } else { MASK.to_owned() }
        };
        let query = |separator: &str, encode: fn(&Template) -> String| {
            let all = self.parameters.iter().filter(|p| p.place == Place::Query);
            let words = all.map(|p| format!("{}={}", name(p), value(p, encode)));
            words.collect::<Vec<_>>().join(separator)
        };
        let Grammar::Uri { scheme, hosts, .. } = &self.grammar else {
            return Some(query(" ", |value| quoted(&value.encoded(str::to_owned))));
        };
        let in_authority = |value: &Template| value.encoded(percent_encode_authority);
        let in_query = |value: &Template| value.encoded(percent_encode);
        let at = |place: Place| self.parameters.iter().filter(move |p| p.place == place);
        let credentials: Vec<String> = at(Place::Credentials).map(|p| value(p, in_authority)).collect();
        let credentials = if credentials.is_empty() { String::new() } else { format!("{}@", credentials.join(":")) };
        let hosts: Vec<String> = hosts.iter().map(Host::to_uri).collect();
        let path: String = at(Place::Path).map(|p| format!("/{}", value(p, in_query))).collect();
        let query = Some(query("&", in_query)).filter(|q| !q.is_empty()).map(|q| format!("?{q}"));
        Some(format!("{scheme}://{credentials}{}{path}{}", hosts.join(","), query.unwrap_or_default()))
    }
}

impl Host {
    fn to_uri(&self) -> String {
        let name = self.name.encoded(|text| match text.parse::<std::net::Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => percent_encode_authority(text),
        });
        let port = self.port.as_ref().map(|port| format!(":{}", port.encoded(percent_encode_authority)));
        format!("{name}{}", port.unwrap_or_default())
    }
}

/// A value in the syntax of keywords.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| !c.is_ascii_whitespace() && c != '\x0b' && c != '\'' && c != '\\';
    if text.chars().all(is_plain) && !text.is_empty() {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn canonical(name: &str) -> String {
    if name == "database" { "dbname".to_owned() } else { name.to_owned() }
}

fn parse_uri(scheme: &'static str, rest: &str) -> Result<ConnInfo, &'static str> {
    if rest.contains('#') {
        return Err("a number sign in a URI must be encoded as %23");
    }
    if rest.chars().any(char::is_control) {
        return Err("it contains a control character");
    }
    let has_late_at = rest.find(['/', '?']).is_some_and(|end| rest[end..].contains('@'));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (Some(credentials), hosts),
        None => (None, authority),
    };
    let decoded = |raw: &str| Template::parse(raw, percent_decode);
    let mut parameters = Vec::new();
    let mut push = |name: &str, value: Template, place: Place| {
        parameters.push(Parameter { name: canonical(name), value, place });
    };
    if let Some(credentials) = credentials {
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        push("user", decoded(user)?, Place::Credentials);
        if let Some(password) = password {
            push(PASSWORD, decoded(password)?, Place::Credentials);
        }
    }
    let hosts = parse_hosts(hosts)?;
    if !hosts.is_empty() {
        push("host", Template::joined(hosts.iter().map(|host| host.name.clone())), Place::Authority);
        if hosts.iter().any(|host| host.port.is_some()) {
            let ports = hosts.iter().map(|host| host.port.clone().unwrap_or_default());
            push("port", Template::joined(ports), Place::Authority);
        }
    }
    if !path.is_empty() {
        push("dbname", decoded(path)?, Place::Path);
    }
    for parameter in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or("a parameter has no equals sign")?;
        let (name, value) = (query_decode(name)?, Template::parse(value, query_decode)?);
        // As in libpq, for URIs of JDBC.
        if name == "ssl" && value == Template::literal("true") {
            push("sslmode", Template::literal("require"), Place::Query);
        } else {
            push(&name, value, Place::Query);
        }
    }
    Ok(ConnInfo { grammar: Grammar::Uri { scheme, hosts, has_late_at }, parameters })
}

fn parse_hosts(text: &str) -> Result<Vec<Host>, &'static str> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(parse_host).collect()
}

fn parse_host(text: &str) -> Result<Host, &'static str> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or("an IPv6 address has no closing bracket")?;
            match port.strip_prefix(':') {
                None if !port.is_empty() => return Err("an IPv6 address is not followed by a port"),
                port => (name, port),
            }
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let decoded = |raw: &str| Template::parse(raw, percent_decode);
    // Otherwise it may be a password without an at sign.
    if port.is_some_and(|port| !port.starts_with("{{") && !port.bytes().all(|b| b.is_ascii_digit())) {
        return Err("a port is not a number");
    }
    Ok(Host { name: decoded(name)?, port: port.filter(|p| !p.is_empty()).map(decoded).transpose()? })
}

/// The characters of libpq's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn parse_keywords(text: &str) -> Result<Vec<Parameter>, &'static str> {
    if text.contains('\0') {
        return Err("it contains a NUL");
    }
    let mut parameters = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let after = after.trim_start_matches(is_space);
        let after = after.strip_prefix('=').ok_or("it is neither a URI nor a list of keywords and values")?;
        if name.is_empty() {
            return Err("a value has no name");
        }
        let (value, left) = keyword_value(after.trim_start_matches(is_space))?;
        parameters.push(Parameter { name: canonical(name), value, place: Place::Query });
        rest = left.trim_start_matches(is_space);
    }
    if parameters.is_empty() { Err("it is empty") } else { Ok(parameters) }
}

/// The value at the start of a text, and the rest.
fn keyword_value(text: &str) -> Result<(Template, &str), &'static str> {
    let (raw, is_quoted) = match text.strip_prefix('\'') {
        Some(raw) => (raw, true),
        None => (text, false),
    };
    let mut characters = raw.char_indices();
    let mut end = None;
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next().ok_or("a backslash is the last character")?;
        } else if if is_quoted { c == '\'' } else { is_space(c) } {
            end = Some((at, at + c.len_utf8()));
            break;
        }
    }
    let (end, next) = match end {
        None if is_quoted => return Err("a quoted value has no closing quote"),
        None => (raw.len(), raw.len()),
        Some(end) => end,
    };
    let value = Template::parse(&raw[..end], |raw| Ok::<_, &'static str>(without_backslashes(raw)))?;
    Ok((value, &raw[next..]))
}

/// Removes each backslash that escapes a character.
fn without_backslashes(raw: &str) -> String {
    let mut characters = raw.chars();
    let next = || match characters.next() {
        Some('\\') => characters.next(),
        other => other,
    };
    std::iter::from_fn(next).collect()
}

/// A value of `username` or `password` in the syntax of the connection string, for `disable_escaping`.
///
/// # Errors
/// As [`percent_decode`].
pub(super) fn unescaped(value: &str, is_uri: bool) -> Result<String, &'static str> {
    if is_uri {
        return percent_decode(value);
    }
    let quoted = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\''));
    Ok(without_backslashes(quoted.unwrap_or(value)))
}

#[cfg(test)]
mod tests;
