//! A `connection_url` as Go's MySQL driver reads it: `user:password@protocol(address)/database?param=value`.

/// What it says, in the text's own parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dsn {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) server: Server,
    pub(super) database: String,
    pub(super) parameters: Vec<(String, String)>,
}

/// Where the server is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Server {
    Tcp { host: String, port: u16 },
    Socket(String),
}

impl Default for Server {
    fn default() -> Self {
        Server::Tcp { host: "127.0.0.1".to_owned(), port: 3306 }
    }
}

impl Server {
    /// As error texts name it.
    pub(super) fn address(&self) -> String {
        match self {
            Server::Tcp { host, port } => format!("{host}:{port}"),
            Server::Socket(path) => path.clone(),
        }
    }
}

impl Dsn {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, in the driver's words; no part of it is quoted.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        let (front, database) =
            text.rsplit_once('/').ok_or("invalid DSN: missing the slash separating the database name")?;
        // The path of a socket has slashes too.
        let (front, database) = match front.rfind('(') {
            Some(open) if !front[open..].contains(')') => match text.rfind(")/") {
                Some(close) => (&text[..=close], &text[close + 2..]),
                None => (front, database),
            },
            _ => (front, database),
        };
        let (credentials, address) = front.rsplit_once('@').unwrap_or(("", front));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let parameters = query.split('&').filter(|p| !p.is_empty()).map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (name.to_owned(), value.to_owned())
        });
        Ok(Dsn {
            user: user.to_owned(),
            password: password.to_owned(),
            server: server(address)?,
            database: database.to_owned(),
            parameters: parameters.collect(),
        })
    }
}

fn server(text: &str) -> Result<Server, String> {
    let (protocol, address) = match text.split_once('(') {
        Some((protocol, rest)) => {
            let unclosed = "invalid DSN: network address not terminated (missing closing brace)";
            (protocol, rest.strip_suffix(')').ok_or(unclosed)?)
        }
        None => (text, ""),
    };
    match protocol {
        "" | "tcp" if address.is_empty() => Ok(Server::default()),
        "" | "tcp" => {
            let (host, port) = match address.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => {
                    (host, port.parse().map_err(|_| "invalid DSN: the port is no number")?)
                }
                _ => (address, 3306),
            };
            Ok(Server::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port })
        }
        "unix" => Ok(Server::Socket(if address.is_empty() { "/tmp/mysql.sock" } else { address }.to_owned())),
        _ => Err("invalid DSN: the protocol is neither tcp nor unix".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dsns_are_read_as_the_driver_reads_them() {
        let tcp = |host: &str, port| Server::Tcp { host: host.to_owned(), port };
        for (text, user, password, server, database) in [
            ("u:p@tcp(db:3307)/shop?tls=true", "u", "p", tcp("db", 3307), "shop"),
            ("u:p@t:x@tcp([::1]:1)/", "u", "p@t:x", tcp("::1", 1), ""),
            ("u@tcp(db)/", "u", "", tcp("db", 3306), ""),
            ("u:p@/", "u", "p", tcp("127.0.0.1", 3306), ""),
            ("u:p@unix(/run/my.sock)/d", "u", "p", Server::Socket("/run/my.sock".to_owned()), "d"),
        ] {
            let read = Dsn::read(text).unwrap();
            assert_eq!(
                (&*read.user, &*read.password, read.server, &*read.database),
                (user, password, server, database),
                "{text}"
            );
        }
        let parameters = Dsn::read("u@/?a=1&b=x").unwrap().parameters;
        assert_eq!(parameters, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x".to_owned())]);
        for (text, expected) in [
            ("nonsense", "invalid DSN: missing the slash separating the database name"),
            ("u:p@tcp(a:1/", "invalid DSN: network address not terminated (missing closing brace)"),
            ("u:p@tcp(a:x)/", "invalid DSN: the port is no number"),
            ("u:p@pipe(a)/", "invalid DSN: the protocol is neither tcp nor unix"),
        ] {
            assert_eq!(Dsn::read(text).unwrap_err(), expected);
        }
    }
}
