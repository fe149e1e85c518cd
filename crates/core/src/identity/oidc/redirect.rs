//! The rules for redirect URIs and issuers.

/// Whether the redirect URI of a request is one that the client has registered: the same text, or for a loopback
/// address the same with another port (RFC 8252, 7.3).
pub(super) fn is_allowed(registered: &[String], requested: &str) -> bool {
    let loopback = Loopback::parse(requested);
    let same_but_port = |known: &str| loopback.is_some() && Loopback::parse(known) == loopback;
    registered.iter().any(|known| known == requested || same_but_port(known))
}

/// The parts of a loopback URI that must be equal: all but the port.
#[derive(PartialEq, Eq)]
struct Loopback<'a> {
    host: &'a str,
    rest: &'a str,
}

impl<'a> Loopback<'a> {
    fn parse(uri: &'a str) -> Option<Self> {
        let (authority, rest) = split_authority(uri.strip_prefix("http://")?);
        let host = ["127.0.0.1", "[::1]", "localhost"].into_iter().find(|host| authority.starts_with(host))?;
        let host = &authority[..host.len()];
        let port = authority[host.len()..].strip_prefix(':');
        let is_port = port.is_some_and(is_port) || authority.len() == host.len();
        is_port.then_some(Loopback { host, rest })
    }
}

fn split_authority(text: &str) -> (&str, &str) {
    text.split_at(text.find(['/', '?', '#']).unwrap_or(text.len()))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text is an issuer: a scheme, a host and optionally a port, and nothing else.
pub(super) fn is_issuer(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    let (authority, rest) = split_authority(rest);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':');
    rest.is_empty() && !host.is_empty() && host.bytes().all(is_host) && port.is_none_or(is_port) && text.len() <= 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_uris_are_compared_exactly_but_for_loopback_ports() {
        let registered = ["https://a/cb?x=1", "http://127.0.0.1:9/cb", "http://localhost/cb", "http://[::1]/"];
        let registered = registered.map(str::to_owned);
        for allowed in [
            "https://a/cb?x=1",
            "http://127.0.0.1:9/cb",
            "http://127.0.0.1:65535/cb",
            "http://127.0.0.1/cb",
            "http://localhost:1/cb",
            "http://[::1]:7/",
        ] {
            assert!(is_allowed(&registered, allowed), "{allowed}");
        }
        for refused in [
            "https://a/cb",
            "https://A/cb?x=1",
            "https://a:443/cb?x=1",
            "https://a/cb?x=1#",
            "https://127.0.0.1:9/cb",
            "http://127.0.0.1:9/cb/",
            "http://127.0.0.1:9/cb?x",
            "http://127.0.0.1:9/cb#x",
            "http://127.0.0.1:+9/cb",
            "http://127.0.0.1:65536/cb",
            "http://127.0.0.1:9@evil/cb",
            "http://127.0.0.1.evil/cb",
            "http://u@127.0.0.1:9/cb",
            "http://localhost.evil:9/cb",
            "http://LOCALHOST/cb",
            "http://127.0.0.2/cb",
            "",
        ] {
            assert!(!is_allowed(&registered, refused), "{refused}");
        }
    }

    #[test]
    fn an_issuer_is_a_scheme_a_host_and_a_port() {
        for good in ["https://example.com", "http://x:1", "https://[::1]:8200", "https://10.0.0.1"] {
            assert!(is_issuer(good), "{good}");
        }
        for bad in [
            "",
            "x",
            "ftp://x",
            "http://",
            "http://x:1/",
            "http://x/a",
            "http://x?y",
            "http://x#y",
            "http://u@x",
            "http://x:",
            "http://x:y",
            "http://x y",
        ] {
            assert!(!is_issuer(bad), "{bad}");
        }
    }
}
