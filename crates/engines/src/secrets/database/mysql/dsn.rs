//! A `connection_url` as Go's MySQL driver parses it: `user:password@protocol(address)/database?param=value`.
//!
//! The grammar is that of `ParseDSN` of <https://github.com/go-sql-driver/mysql#dsn-data-source-name>: the last slash
//! separates the database, the last `@` before it ends the credentials, values are percent-decoded, names are not.

use super::super::placeholders::{
    Credentials, MASK, Template, has_too_many, percent_decode, percent_encode, query_decode,
};

/// The maximum length of a DSN in bytes, and the maximum number of parameters.
const MAX_BYTES: usize = 16 * 1024;
const MAX_PARAMETERS: usize = 128;

/// A parsed DSN.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dsn {
    pub(super) user: Template,
    pub(super) password: Template,
    network: Network,
    address: Template,
    /// Whether the text has an address.
    has_address: bool,
    pub(super) database: Template,
    /// In the order of the text; the last of repeated names applies.
    parameters: Vec<(String, Template)>,
    /// Whether the text has an unencoded `@` after its last slash.
    has_late_at: bool,
}

/// The network of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Network {
    #[default]
    Default,
    Tcp,
    Unix,
}

/// The address of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Server {
    Tcp { host: String, port: u16 },
    Socket(String),
}

impl Server {
    /// The address in errors.
    pub(super) fn address(&self) -> String {
        match self {
            Server::Tcp { host, port } => format!("{host}:{port}"),
            Server::Socket(path) => path.clone(),
        }
    }
}

impl Dsn {
    /// Parses a DSN.
    ///
    /// # Errors
    /// The error in the driver's words; it quotes no part of the DSN.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES || text.contains('\0') {
            return Err("invalid DSN: it is longer than 16 KiB or contains a NUL".to_owned());
        }
        if has_too_many(text) {
            return Err("invalid DSN: more than 16 placeholders".to_owned());
        }
        let (front, back) =
            text.rsplit_once('/').ok_or("invalid DSN: missing the slash separating the database name")?;
        let mut dsn = Dsn::default();
        let address = match front.rsplit_once('@') {
            Some((credentials, address)) => {
                let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
                (dsn.user, dsn.password) = (as_written(user), as_written(password));
                address
            }
            None => front,
        };
        let network = match address.split_once('(') {
            Some((network, rest)) => {
                let unclosed = if rest.contains(')') {
                    "invalid DSN: did you forget to escape a param value?"
                } else {
                    "invalid DSN: network address not terminated (missing closing brace)"
                };
                dsn.address = as_written(rest.strip_suffix(')').ok_or(unclosed)?);
                dsn.has_address = true;
                network
            }
            None => address,
        };
        dsn.network = match network {
            "" => Network::Default,
            "tcp" => Network::Tcp,
            "unix" => Network::Unix,
            _ => return Err("invalid DSN: the protocol is neither tcp nor unix".to_owned()),
        };
        dsn.has_late_at = back.contains('@');
        let (database, query) = back.split_once('?').unwrap_or((back, ""));
        dsn.database = Template::parse(database, percent_decode).map_err(|why| format!("invalid dbname: {why}"))?;
        // A parameter without an equals sign is ignored.
        for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
            let value = Template::parse(value, query_decode).map_err(|why| format!("invalid DSN: {why}"))?;
            dsn.parameters.push((name.to_owned(), value));
        }
        if dsn.parameters.len() > MAX_PARAMETERS {
            Err("invalid DSN: more than 128 parameters".to_owned())
        } else {
            Ok(dsn)
        }
    }

    /// The effective names and values: the last one of each name.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, &Template)> {
        let counts = |at: usize, name: &str| !self.parameters[at + 1..].iter().any(|(later, _)| later == name);
        let all = self.parameters.iter().enumerate();
        all.filter(move |(at, (name, _))| counts(*at, name)).map(|(_, (name, value))| (name.as_str(), value))
    }

    /// Whether a part other than the password has the password's placeholder.
    pub(super) fn has_misplaced_password(&self) -> bool {
        let parameters = self.parameters.iter().map(|(_, value)| value);
        [&self.user, &self.address, &self.database].into_iter().chain(parameters).any(Template::has_password)
    }

    /// The address of the server with the values of its placeholders.
    ///
    /// # Errors
    /// When the port is invalid, or when a part other than the host has a placeholder.
    pub(super) fn server(&self, credentials: &Credentials) -> Result<Server, String> {
        let split = "invalid DSN: the address has a placeholder outside the host";
        let address = self.address.fill_word(credentials).ok_or(split)?;
        if self.network == Network::Unix {
            let path = if address.is_empty() { "/tmp/mysql.sock".to_owned() } else { address };
            return Ok(Server::Socket(path));
        }
        if address.is_empty() {
            return Ok(Server::Tcp { host: "127.0.0.1".to_owned(), port: 3306 });
        }
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| "invalid DSN: the port is not a number")?)
            }
            _ => (address.as_str(), 3306),
        };
        Ok(Server::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port })
    }

    /// The DSN in responses: rebuilt from its parsed form, with [`MASK`] for a password that is not only the
    /// placeholder and for each parameter that `is_public` refuses.
    ///
    /// `None` if the database's name has the characters of an address, or an unencoded `@` follows the last slash: that
    /// may be the end of a password with a slash.
    pub(super) fn masked(&self, is_public: impl Fn(&str, &Template) -> bool) -> Option<String> {
        let plain = |value: &Template| value.encoded(str::to_owned);
        if self.has_late_at || plain(&self.database).contains(['@', '(', ')']) {
            return None;
        }
        let password = match &self.password {
            password if password.has_text() => format!(":{MASK}"),
            password if password.is_empty() => String::new(),
            password => format!(":{}", plain(password)),
        };
        let has_login = !self.user.is_empty() || !self.password.is_empty();
        let login = if has_login { format!("{}{password}@", plain(&self.user)) } else { String::new() };
        let network = match self.network {
            Network::Default => "",
            Network::Tcp => "tcp",
            Network::Unix => "unix",
        };
        let address = if self.has_address { format!("({})", plain(&self.address)) } else { String::new() };
        let parameter = |(name, value): &(String, Template)| {
            if is_public(name, value) {
                format!("{name}={}", value.encoded(|text| percent_encode(text).replace('/', "%2F")))
            } else {
                format!("{MASK}={MASK}")
            }
        };
        let parameters: Vec<String> = self.parameters.iter().map(parameter).collect();
        let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
        let database = self.database.encoded(|text| percent_encode(text).replace('/', "%2F"));
        Some(format!("{login}{network}{address}/{database}{query}"))
    }
}

fn as_written(text: &str) -> Template {
    Template::parse(text, |text| Ok::<_, std::convert::Infallible>(text.to_owned()))
        .unwrap_or_else(|never| match never {})
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credentials() -> Credentials {
        Credentials::new("U@".to_owned(), "db-1").unwrap()
    }

    fn fill(template: &Template) -> String {
        template.fill(&credentials())
    }

    #[test]
    fn dsns_are_parsed_as_by_the_go_driver() {
        let tcp = |host: &str, port| Server::Tcp { host: host.to_owned(), port };
        let socket = |path: &str| Server::Socket(path.to_owned());
        for (text, user, password, server, database) in [
            ("u:p@tcp(db:3307)/shop?tls=true", "u", "p", tcp("db", 3307), "shop"),
            ("u:p@t:x@tcp([::1]:1)/", "u", "p@t:x", tcp("::1", 1), ""),
            ("u:p/w?x@tcp(db)/a%20b", "u", "p/w?x", tcp("db", 3306), "a b"),
            ("u@tcp(db)/", "u", "", tcp("db", 3306), ""),
            ("u:p@/", "u", "p", tcp("127.0.0.1", 3306), ""),
            ("/", "", "", tcp("127.0.0.1", 3306), ""),
            ("u:p@unix(/run/my.sock)/d", "u", "p", socket("/run/my.sock"), "d"),
            ("u:p@unix/d", "u", "p", socket("/tmp/mysql.sock"), "d"),
            ("{{username}}:{{password}}@tcp({{password}}:1)/{{username}}", "U@", "db-1", tcp("db-1", 1), "U@"),
        ] {
            let read = Dsn::parse(text).unwrap();
            let server_read = read.server(&credentials()).unwrap();
            let read = (fill(&read.user), fill(&read.password), server_read, fill(&read.database));
            assert_eq!(read, (user.to_owned(), password.to_owned(), server, database.to_owned()), "{text}");
        }
        let read = Dsn::parse("u@/?a=1&b=x%2B+y&a=2&c").unwrap();
        let read: Vec<(&str, String)> = read.parameters().map(|(name, value)| (name, fill(value))).collect();
        assert_eq!(read, [("b", "x+ y".to_owned()), ("a", "2".to_owned())]);
        for (text, expected) in [
            ("nonsense", "invalid DSN: missing the slash separating the database name"),
            ("u:p@tcp(a:1/", "invalid DSN: network address not terminated (missing closing brace)"),
            ("u:p@tcp(a:1)/d?tls=true&loc=a/b", "invalid DSN: did you forget to escape a param value?"),
            ("u:p@pipe(a)/", "invalid DSN: the protocol is neither tcp nor unix"),
            ("u:geheim/", "invalid DSN: the protocol is neither tcp nor unix"),
            ("u:p@/d?tls=%zz", "invalid DSN: a percent sign is not followed by two hexadecimal digits"),
        ] {
            assert_eq!(Dsn::parse(text).unwrap_err(), expected);
        }
        assert_eq!(
            Dsn::parse("u:p@tcp(a:x)/").unwrap().server(&credentials()).unwrap_err(),
            "invalid DSN: the port is not a number"
        );
    }

    #[test]
    fn a_placeholder_of_an_address_cannot_change_it() {
        let read = Dsn::parse("u@tcp({{username}}:1)/").unwrap().server(&credentials());
        assert_eq!(read.unwrap_err(), "invalid DSN: the address has a placeholder outside the host");
        let many = format!("{}@/", "{{username}}".repeat(17));
        assert_eq!(Dsn::parse(&many).unwrap_err(), "invalid DSN: more than 16 placeholders");
    }

    #[test]
    fn sec_kf08_no_spelling_of_a_dsn_password_is_returned() {
        let public = |name: &str, _: &Template| name == "tls";
        for (text, expected) in [
            ("u:geheim@tcp(h:1)/d?tls=true", "u:xxxxx@tcp(h:1)/d?tls=true"),
            ("u:ge:h@eim/?@tcp(h:1)/d", "u:xxxxx@tcp(h:1)/d"),
            ("u:{{password}}geheim@/d", "u:xxxxx@/d"),
            (":geheim@unix(/s)/", ":xxxxx@unix(/s)/"),
            ("{{username}}:{{password}}@tcp(h)/d", "{{username}}:{{password}}@tcp(h)/d"),
            ("u@tcp(h:1)/d", "u@tcp(h:1)/d"),
            ("u@/?password=geheim&geheim=1&tls=a%2Fb", "u@/?xxxxx=xxxxx&xxxxx=xxxxx&tls=a%2Fb"),
        ] {
            assert_eq!(Dsn::parse(text).unwrap().masked(public).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn sec_kf08_the_end_of_a_dsn_password_is_not_returned() {
        for text in ["u:pa@/geheim@tcp(h:1)", "u:pa@/d?charset=geheim@tcp(h:1)", "u:pa@tcp(h)/?tls&a=geheim@tcp(h:1)"] {
            assert_eq!(Dsn::parse(text).unwrap().masked(|_, _| true), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_masked_dsn_is_a_dsn(text in "[a-z(){}:@/?&=%+]{0,60}") {
            if let Some(shown) = Dsn::parse(&text).ok().and_then(|dsn| dsn.masked(|_, _| true)) {
                prop_assert!(Dsn::parse(&shown).is_ok(), "{}", shown);
            }
        }
    }
}
