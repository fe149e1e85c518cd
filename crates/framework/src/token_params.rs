//! The token parameters that the roles of every auth method share (`token_ttl`, `token_policies` …).

use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, conversion_text};
use crate::fields::{CommaList, Flag, Int, Quoted, Seconds, Text};

/// The kind of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// As configured for the mount.
    #[default]
    Default,
    /// Stored, revocable, renewable.
    Service,
    /// Self-contained and encrypted; needs no write to storage.
    Batch,
    /// Service unless the request specifies batch.
    DefaultService,
    /// Batch unless the request specifies service.
    DefaultBatch,
}

impl TokenKind {
    /// The name as in `token_type`.
    pub fn name(self) -> &'static str {
        match self {
            TokenKind::Default => "default",
            TokenKind::Service => "service",
            TokenKind::Batch => "batch",
            TokenKind::DefaultService => "default-service",
            TokenKind::DefaultBatch => "default-batch",
        }
    }

    /// Parses a `token_type` of a mount, where the two `default-…` kinds have a meaning; see [`TokenKind::of_role`].
    ///
    /// # Errors
    /// 400 for an unknown name.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "" | "default" => TokenKind::Default,
            "service" => TokenKind::Service,
            "batch" => TokenKind::Batch,
            "default-service" => TokenKind::DefaultService,
            "default-batch" => TokenKind::DefaultBatch,
            other => return Err(unknown_kind(other)),
        })
    }

    /// Parses the `token_type` of a role, which determines the issued kind and so cannot be `default-service` or
    /// `default-batch`.
    ///
    /// # Errors
    /// 400 for any other name than `default`, `service` and `batch`.
    pub fn of_role(name: &str) -> Result<Self> {
        match Self::parse(name)? {
            TokenKind::DefaultService | TokenKind::DefaultBatch => Err(unknown_kind(name)),
            kind => Ok(kind),
        }
    }
}

fn unknown_kind(name: &str) -> Error {
    Error::invalid(format!("invalid 'token_type' value {}", Quoted(name)))
}

/// The stored token parameters of a role. Times are in seconds; zero means "not set".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenParams {
    /// Addresses from which the token may be used; empty for any.
    pub token_bound_cidrs: Vec<String>,
    /// A limit that no renewal extends.
    pub token_explicit_max_ttl: u64,
    /// The maximum TTL with renewals.
    pub token_max_ttl: u64,
    /// Omits the `default` policy.
    pub token_no_default_policy: bool,
    /// The number of uses; zero for unlimited.
    pub token_num_uses: u64,
    /// The period of a periodic token: each renewal sets the TTL to this value.
    pub token_period: u64,
    /// Policies of the token as written; a login uses [`TokenParams::policies`].
    pub token_policies: Vec<String>,
    /// Binds the token to the address of the login.
    pub token_strictly_bind_ip: bool,
    /// The TTL after issue or renewal.
    pub token_ttl: u64,
    /// The kind of the token.
    pub token_type: TokenKind,
}

// Flattened into the requests of roles; a doc comment here would become the description of every role.
#[allow(missing_docs)]
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TokenParamsChange {
    /// Comma-separated addresses or networks from which the token may be used.
    #[serde(deserialize_with = "named::token_bound_cidrs")]
    pub token_bound_cidrs: Option<CommaList>,
    /// Maximum TTL of the token in seconds, which no renewal extends; 0 for none. Default: 0.
    #[serde(deserialize_with = "named::token_explicit_max_ttl")]
    pub token_explicit_max_ttl: Option<Seconds>,
    /// Maximum TTL of the token in seconds, renewals included. Default: that of the mount.
    #[serde(deserialize_with = "named::token_max_ttl")]
    pub token_max_ttl: Option<Seconds>,
    /// Whether the token lacks the policy `default`. Default: false.
    #[serde(deserialize_with = "named::token_no_default_policy")]
    pub token_no_default_policy: Option<Flag>,
    /// Number of uses of the token; 0 for no limit. Default: 0.
    #[serde(deserialize_with = "named::token_num_uses")]
    pub token_num_uses: Option<Int>,
    /// Makes the token periodic: each renewal extends it by this period, in seconds. Default: 0, not periodic.
    #[serde(deserialize_with = "named::token_period")]
    pub token_period: Option<Seconds>,
    /// Comma-separated policies of the token.
    #[serde(deserialize_with = "named::token_policies")]
    pub token_policies: Option<CommaList>,
    /// Whether the token can be used only from the address of the login. Default: false.
    #[serde(deserialize_with = "named::token_strictly_bind_ip")]
    pub token_strictly_bind_ip: Option<Flag>,
    /// TTL of the token in seconds after issue and renewal. Default: that of the mount.
    #[serde(deserialize_with = "named::token_ttl")]
    pub token_ttl: Option<Seconds>,
    /// Type of the token: `default`, `service` or `batch`. Default: `default`, the type that the mount sets.
    #[serde(deserialize_with = "named::token_type")]
    pub token_type: Option<Text>,
}

/// Deserializers that put the name of the field into an error: a flattened struct reads its values from a buffer, where
/// the deserializer of the request no longer knows the name.
mod named {
    use super::*;

    macro_rules! readers {
        ($($name:ident: $of:ty),* $(,)?) => {$(
            pub(super) fn $name<'de, D: Deserializer<'de>>(d: D) -> Result<Option<$of>, D::Error> {
                <$of>::deserialize(d)
                    .map(Some)
                    .map_err(|why| D::Error::custom(conversion_text(stringify!($name), why)))
            }
        )*};
    }

    readers! {
        token_bound_cidrs: CommaList,
        token_explicit_max_ttl: Seconds,
        token_max_ttl: Seconds,
        token_no_default_policy: Flag,
        token_num_uses: Int,
        token_period: Seconds,
        token_policies: CommaList,
        token_strictly_bind_ip: Flag,
        token_ttl: Seconds,
        token_type: Text,
    }
}

impl TokenParams {
    /// Applies the parameters of a request and checks the result.
    ///
    /// # Errors
    /// 400 when a value is out of its range or values contradict each other.
    pub fn apply(&mut self, change: TokenParamsChange) -> Result<()> {
        if let Some(CommaList(cidrs)) = change.token_bound_cidrs {
            self.token_bound_cidrs = canonical_cidrs(&cidrs)?;
        }
        if let Some(kind) = change.token_type {
            self.token_type = TokenKind::of_role(&kind)?;
        }
        if let Some(Int(uses)) = change.token_num_uses {
            self.token_num_uses =
                u64::try_from(uses).map_err(|_| Error::invalid("'token_num_uses' cannot be negative"))?;
        }
        if let Some(CommaList(policies)) = change.token_policies {
            self.token_policies = policies;
        }
        let seconds = [
            (&mut self.token_explicit_max_ttl, change.token_explicit_max_ttl),
            (&mut self.token_max_ttl, change.token_max_ttl),
            (&mut self.token_period, change.token_period),
            (&mut self.token_ttl, change.token_ttl),
        ];
        for (kept, given) in seconds {
            *kept = given.map_or(*kept, |Seconds(seconds)| seconds);
        }
        let flags = [
            (&mut self.token_no_default_policy, change.token_no_default_policy),
            (&mut self.token_strictly_bind_ip, change.token_strictly_bind_ip),
        ];
        for (kept, given) in flags {
            *kept = given.map_or(*kept, |Flag(flag)| flag);
        }
        self.check()
    }

    /// The policies of a token issued under this role, without `default`; see [`canonical_policies`].
    pub fn policies(&self) -> Vec<String> {
        canonical_policies(self.token_policies.clone())
    }

    fn check(&self) -> Result<()> {
        if self.token_max_ttl > 0 && self.token_ttl > self.token_max_ttl {
            return Err(Error::invalid("'token_ttl' cannot be greater than 'token_max_ttl'"));
        }
        if matches!(self.token_type, TokenKind::Batch | TokenKind::DefaultBatch) {
            if self.token_period > 0 {
                return Err(Error::invalid(
                    "'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens",
                ));
            }
            if self.token_num_uses > 0 {
                return Err(Error::invalid(
                    "'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count",
                ));
            }
        }
        Ok(())
    }

    /// The terms of a token issued under this role.
    pub fn terms(&self) -> TokenTerms {
        TokenTerms {
            ttl: Duration::from_secs(self.token_ttl),
            max_ttl: Duration::from_secs(self.token_max_ttl),
            explicit_max_ttl: Duration::from_secs(self.token_explicit_max_ttl),
            period: Duration::from_secs(self.token_period),
            num_uses: self.token_num_uses,
            bound_cidrs: parse_cidrs(&self.token_bound_cidrs),
            kind: self.token_type,
            no_default_policy: self.token_no_default_policy,
            strictly_bind_ip: self.token_strictly_bind_ip,
            renewable: true,
            groups: None,
        }
    }
}

/// The terms that a login requests for its token. Zero durations mean "not requested".
#[derive(Clone, Debug, Default)]
pub struct TokenTerms {
    /// The TTL after issue.
    pub ttl: Duration,
    /// The maximum TTL with renewals.
    pub max_ttl: Duration,
    /// A limit that no renewal extends.
    pub explicit_max_ttl: Duration,
    /// The period; not periodic when zero.
    pub period: Duration,
    /// The number of uses; zero for unlimited.
    pub num_uses: u64,
    /// Addresses from which the token may be used; empty for any.
    pub bound_cidrs: Vec<IpNet>,
    /// Service or batch.
    pub kind: TokenKind,
    /// Omits the policy `default`.
    pub no_default_policy: bool,
    /// Binds the token to the address of the login.
    pub strictly_bind_ip: bool,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// The names of the caller's groups in the auth method, at a login and at a renewal; `None` for a method without
    /// groups. The entity becomes a member of the external groups with these aliases, and of no others of the mount.
    pub groups: Option<Vec<String>>,
}

/// Policies in their stored form: trimmed, lower case, sorted, unique, without empty names.
pub fn canonical_policies(policies: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = policies.iter().map(|p| p.trim().to_lowercase()).filter(|p| !p.is_empty()).collect();
    out.sort();
    out.dedup();
    out
}

/// Policies in the stored form of the deprecated `policies` of a role: canonical, and `root` removes all others.
pub fn parsed_policies(policies: Vec<String>) -> Vec<String> {
    let out = canonical_policies(policies);
    if out.iter().any(|policy| policy == "root") { vec!["root".to_owned()] } else { out }
}

/// Networks in their stored form: a network of one address is that address.
///
/// # Errors
/// 400 for a text that is neither an address nor a network.
pub fn canonical_cidrs(cidrs: &[String]) -> Result<Vec<String>> {
    cidrs
        .iter()
        .map(|cidr| match parse_cidr(cidr) {
            Some(net) => Ok(shown_cidr(&net)),
            None => Err(Error::invalid(format!(
                "error parsing address {0}: Unable to convert {0} to an IPv4 or IPv6 address, or a UNIX Socket",
                Quoted(cidr)
            ))),
        })
        .collect()
}

/// A network in its displayed form: one of a single address is that address.
pub fn shown_cidr(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// Parses an address or a network in CIDR notation.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

/// The networks of a stored list, which was checked when it was written.
pub fn parse_cidrs(cidrs: &[String]) -> Vec<IpNet> {
    cidrs.iter().filter_map(|c| parse_cidr(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{Body, Input};
    use proptest::prelude::*;

    /// A role's request as engines declare it.
    #[derive(Deserialize, JsonSchema)]
    struct Write {
        #[allow(dead_code)]
        name: Option<Text>,
        #[serde(flatten)]
        token: TokenParamsChange,
    }

    fn write(body: &str) -> Result<TokenParams> {
        let input = Input { body: Body::parse(bytes::Bytes::copy_from_slice(body.as_bytes()))?, ..Input::default() };
        let mut params = TokenParams::default();
        params.apply(input.read::<Write>()?.token)?;
        Ok(params)
    }

    #[test]
    fn errors_have_the_texts_of_openbao() {
        for (body, expected) in [
            (r#"{"token_num_uses":-1}"#, "'token_num_uses' cannot be negative"),
            (
                r#"{"token_ttl":-1}"#,
                "error converting input for field \"token_ttl\": cannot provide negative value '-1'",
            ),
            (
                r#"{"token_period":"x"}"#,
                "error converting input for field \"token_period\": time: invalid duration \"x\"",
            ),
            (r#"{"token_ttl":100,"token_max_ttl":50}"#, "'token_ttl' cannot be greater than 'token_max_ttl'"),
            (r#"{"token_type":"Batch"}"#, "invalid 'token_type' value \"Batch\""),
            (r#"{"token_type":"default-service"}"#, "invalid 'token_type' value \"default-service\""),
            (
                r#"{"token_bound_cidrs":"zz"}"#,
                "error parsing address \"zz\": Unable to convert \"zz\" to an IPv4 or IPv6 address, or a UNIX Socket",
            ),
            (
                r#"{"token_type":"batch","token_period":3}"#,
                "'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens",
            ),
            (
                r#"{"token_type":"batch","token_num_uses":3}"#,
                "'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count",
            ),
        ] {
            assert_eq!(write(body).err().map(|e| e.public().to_owned()).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn parameters_are_stored_as_written_and_null_changes_nothing() {
        let params = write(r#"{"token_policies":"B, a,b,,","token_bound_cidrs":"1.2.3.4/32,FE80::/10,10.1.2.3/8,::1/128","token_ttl":null,"token_type":""}"#).unwrap();
        assert_eq!(params.token_policies, ["B", "a", "b", "", ""]);
        assert_eq!(params.policies(), ["a", "b"]);
        assert_eq!(params.token_bound_cidrs, ["1.2.3.4", "fe80::/10", "10.1.2.3/8", "::1"]);
        assert_eq!((params.token_ttl, params.token_type), (0, TokenKind::Default));
        assert!(write(r#"{"token_policies":{}}"#).unwrap().token_policies.is_empty());
        assert_eq!(parsed_policies(vec!["A".into(), " Root ".into()]), ["root"]);
    }

    fn any_params() -> impl Strategy<Value = TokenParams> {
        let kinds = vec![
            TokenKind::Default,
            TokenKind::Service,
            TokenKind::Batch,
            TokenKind::DefaultService,
            TokenKind::DefaultBatch,
        ];
        let cidr = prop_oneof![
            any::<std::net::IpAddr>().prop_map(|a| a.to_string()),
            any::<[u8; 4]>().prop_map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}/{}", d % 33))
        ];
        let texts = (proptest::collection::vec(cidr, 0..4), proptest::collection::vec(".{0,12}", 0..4));
        (texts, any::<[u64; 5]>(), any::<(bool, bool)>(), proptest::sample::select(kinds)).prop_map(
            |((cidrs, policies), n, flags, kind)| TokenParams {
                token_bound_cidrs: cidrs,
                token_explicit_max_ttl: n[0],
                token_max_ttl: n[1],
                token_no_default_policy: flags.0,
                token_num_uses: n[2],
                token_period: n[3],
                token_policies: policies,
                token_strictly_bind_ip: flags.1,
                token_ttl: n[4],
                token_type: kind,
            },
        )
    }

    proptest! {
        #[test]
        fn stored_parameters_are_read_unchanged(params in any_params()) {
            let stored = serde_json::to_vec(&params).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<TokenParams>(&stored).unwrap(), &params);
            let canonical = canonical_cidrs(&params.token_bound_cidrs).unwrap();
            prop_assert_eq!(&canonical_cidrs(&canonical).unwrap(), &canonical);
            prop_assert_eq!(parse_cidrs(&canonical), parse_cidrs(&params.token_bound_cidrs));
            prop_assert_eq!(params.terms().bound_cidrs.len(), params.token_bound_cidrs.len());
        }
    }
}
