//! HTTP proxies, chosen by Go's rules.
//!
//! Source: `golang.org/x/net/http/httpproxy`.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;

use crate::SettingsError;

/// A proxy: `http://` or `https://`, host and port, with or without a user and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub(crate) secure: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The value of `Proxy-Authorization`, marked sensitive.
    pub(crate) authorization: Option<HeaderValue>,
}

/// The proxies by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxy of every address.
    every: Option<Proxy>,
    /// The proxy of `http://` addresses: `HTTP_PROXY`.
    http: Option<Proxy>,
    /// The proxy of `https://` addresses: `HTTPS_PROXY`.
    https: Option<Proxy>,
    /// Addresses that use neither `http` nor `https`: `NO_PROXY`.
    except: Vec<Exception>,
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    /// Names with this suffix, which has the leading dot; `itself` includes the name without the dot.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxy {
    /// Parses the URL of a proxy; without a scheme it is an `http://` proxy. `None` when it is not the URL of an
    /// `http://` or `https://` proxy.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = text.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = without_brackets(uri.host().filter(|host| !host.is_empty())?);
        let user = uri.authority()?.as_str().rsplit_once('@').map(|(user, _)| user);
        let authorization = match user {
            Some(user) => Some(basic(user)?),
            None => None,
        };
        Some(Self { secure, host, port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }), authorization })
    }

    /// Parses the value of an environment variable.
    ///
    /// # Errors
    /// When the value is not the URL of a proxy. The text contains the name of the variable, not its value, which may
    /// contain a password.
    pub fn of_variable(name: &str, value: &str) -> Result<Self, SettingsError> {
        let why = "is not the URL of an http:// or https:// proxy; other kinds are not supported";
        Self::parse(value).ok_or_else(|| SettingsError(format!("{name} {why}")))
    }

    /// The URI of the proxy, without user and password.
    pub fn uri(&self) -> Option<Uri> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{}://{host}:{}", if self.secure { "https" } else { "http" }, self.port).parse().ok()
    }
}

/// The `Basic` credentials (RFC 7617) of a `user:password` that is percent-encoded as in a URL.
fn basic(user: &str) -> Option<HeaderValue> {
    let decoded: Vec<u8> = percent_decode_str(user).collect();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(decoded))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Proxies {
    /// The proxies of the environment variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, also in lower case.
    /// `source` returns the value of a variable.
    ///
    /// # Errors
    /// Those of [`Proxy::of_variable`].
    pub fn from_variables(source: &impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let general = |name: &str| {
            let find = |name: String| source(&name).filter(|value| !value.trim().is_empty()).map(|value| (name, value));
            find(name.to_owned()).or_else(|| find(name.to_ascii_lowercase()))
        };
        let proxy = |name: &str| general(name).map(|(name, value)| Proxy::of_variable(&name, &value)).transpose();
        let except = general("NO_PROXY").map(|(_, value)| value).unwrap_or_default();
        Ok(Self {
            every: None,
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            except: except.split(',').filter_map(Exception::parse).collect(),
        })
    }

    /// Uses a proxy for every address, without exceptions.
    #[must_use]
    pub fn with_proxy_for_all(self, proxy: Proxy) -> Self {
        Proxies { every: Some(proxy), ..self }
    }

    /// The proxy for a URL; `None` for a direct connection. Loopback addresses use no proxy except one for every
    /// address.
    pub fn for_address(&self, uri: &Uri) -> Option<&Proxy> {
        if self.every.is_some() {
            return self.every.as_ref();
        }
        let secure = uri.scheme_str() == Some("https");
        let proxy = if secure { &self.https } else { &self.http }.as_ref()?;
        let host = without_brackets(uri.host().unwrap_or_default()).to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let address: Option<IpAddr> = host.parse().ok();
        let local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let excepted = self.except.iter().any(|exception| exception.covers(&host, address, port));
        (!local && !excepted).then_some(proxy)
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Self::Everything);
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Some(Self::Network(network));
        }
        if let Ok(address) = without_brackets(&text).parse() {
            return Some(Self::Address(address, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        if let Ok(address) = without_brackets(host).parse() {
            return Some(Self::Address(address, port));
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let itself = !host.starts_with('.');
        Some(Self::Domain { suffix: if itself { format!(".{host}") } else { host.to_owned() }, itself, port })
    }

    fn covers(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::Address(excepted, at) => address == Some(*excepted) && at.is_none_or(|at| at == port),
            Self::Domain { suffix, itself, port: at } => {
                let matches = host.ends_with(suffix.as_str()) || (*itself && Some(host) == suffix.strip_prefix('.'));
                matches && at.is_none_or(|at| at == port)
            }
        }
    }
}

/// The host of a URL without the brackets of an IPv6 address.
pub(crate) fn without_brackets(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Result<Proxies, SettingsError> {
        Proxies::from_variables(&|name: &str| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()))
    }

    fn through(proxies: &Proxies, address: &str) -> Option<String> {
        proxies.for_address(&address.parse().unwrap()).map(|proxy| format!("{}:{}", proxy.host, proxy.port))
    }

    #[test]
    fn the_scheme_of_the_address_chooses_the_proxy() {
        let set = proxies(&[("HTTPS_PROXY", "http://s:3128"), ("http_proxy", "p")]).unwrap();
        assert_eq!(through(&set, "https://v:8200").as_deref(), Some("s:3128"));
        assert_eq!(through(&set, "http://v:8200").as_deref(), Some("p:80"));
        assert_eq!(through(&proxies(&[]).unwrap(), "https://v"), None);
        for local in ["http://localhost:8200", "http://127.0.0.9", "http://[::1]:8200"] {
            assert_eq!(through(&set, local), None, "{local}");
        }
    }

    #[test]
    fn a_proxy_for_all_has_no_exceptions() {
        let set = proxies(&[("HTTP_PROXY", "p"), ("NO_PROXY", "*")]).unwrap();
        assert_eq!(through(&set, "http://v"), None);
        let set = set.with_proxy_for_all(Proxy::parse("https://b").unwrap());
        for address in ["http://127.0.0.1:8200", "https://v"] {
            assert_eq!(through(&set, address).as_deref(), Some("b:443"), "{address}");
        }
    }

    #[test]
    fn exceptions_follow_the_rules_of_go() {
        let list = "one.test, .two.test,*.three.test,10.0.0.0/8,192.0.2.7,four.test:8200,[2001:db8::1]:8200";
        let set = proxies(&[("HTTP_PROXY", "p"), ("NO_PROXY", list)]).unwrap();
        for direct in [
            "http://one.test",
            "http://a.ONE.test:9",
            "http://a.two.test",
            "http://a.three.test",
            "http://10.1.2.3",
            "http://192.0.2.7:1",
            "http://four.test:8200",
            "http://[2001:db8::1]:8200",
        ] {
            assert_eq!(through(&set, direct), None, "{direct}");
        }
        for proxied in [
            "http://xone.test",
            "http://two.test",
            "http://three.test",
            "http://11.0.0.1",
            "http://four.test",
            "http://[2001:db8::1]",
        ] {
            assert!(through(&set, proxied).is_some(), "{proxied}");
        }
    }

    #[test]
    fn an_unsupported_proxy_is_refused_without_its_password() {
        for value in ["socks5://u:hidden@h:1080", "ftp://hidden", "http://", "http://:1"] {
            let message = proxies(&[("HTTPS_PROXY", value)]).err().unwrap().to_string();
            assert!(message.starts_with("HTTPS_PROXY is not") && !message.contains("hidden"), "{message}");
        }
    }

    #[test]
    fn a_user_of_the_url_is_sent_as_basic_authentication() {
        let proxy = Proxy::parse("http://us%40er:p%3ass@h:1").unwrap();
        assert_eq!(proxy.authorization.as_ref().unwrap(), &format!("Basic {}", STANDARD.encode("us@er:p:ss")));
        assert!(!format!("{proxy:?}").contains("Basic"));
        assert_eq!(Proxy::parse("http://[::1]:3128").unwrap().uri().unwrap(), "http://[::1]:3128/");
    }
}
