//! The token parameters that the roles of every auth method share (`token_ttl`, `token_policies` …).

use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fields::{CommaList, Flag, Int, Seconds, Text};

/// What kind of token is issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// As the mount is tuned.
    #[default]
    Default,
    /// Stored, revocable, renewable.
    Service,
    /// Encrypted into its own text; costs no write.
    Batch,
    /// Service unless the request asks for batch.
    DefaultService,
    /// Batch unless the request asks for service.
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

    /// Reads a `token_type`.
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
            other => return Err(Error::invalid(format!("invalid 'token_type' value {other:?}"))),
        })
    }
}

/// The stored token parameters of a role. Times are seconds, zero means "not set".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenParams {
    /// Addresses from which the token may be used; empty for any.
    pub token_bound_cidrs: Vec<String>,
    /// A bound that no renewal moves.
    pub token_explicit_max_ttl: u64,
    /// The longest life with renewals.
    pub token_max_ttl: u64,
    /// Leaves the `default` policy out.
    pub token_no_default_policy: bool,
    /// How often the token may be used; zero for any number.
    pub token_num_uses: u64,
    /// Makes the token periodic: each renewal gives this long.
    pub token_period: u64,
    /// Policies of the token.
    pub token_policies: Vec<String>,
    /// Binds the token to the address that logged in.
    pub token_strictly_bind_ip: bool,
    /// The life after issue or renewal.
    pub token_ttl: u64,
    /// What kind of token.
    pub token_type: TokenKind,
}

// Flattened into the requests of roles; a doc comment here would become the description of every role.
#[allow(missing_docs)]
#[derive(Deserialize, JsonSchema)]
pub struct TokenParamsChange {
    /// Comma-separated addresses or networks from which the token may be used.
    pub token_bound_cidrs: Option<CommaList>,
    /// A life bound that no renewal moves.
    pub token_explicit_max_ttl: Option<Seconds>,
    /// The longest life of the token with renewals.
    pub token_max_ttl: Option<Seconds>,
    /// Leave the policy `default` out of the token.
    pub token_no_default_policy: Option<Flag>,
    /// How often the token may be used; 0 for any number.
    pub token_num_uses: Option<Int>,
    /// Makes the token periodic: each renewal gives this long.
    pub token_period: Option<Seconds>,
    /// Comma-separated policies of the token.
    pub token_policies: Option<CommaList>,
    /// Bind the token to the address that logged in.
    pub token_strictly_bind_ip: Option<Flag>,
    /// The life of the token after issue or renewal.
    pub token_ttl: Option<Seconds>,
    /// `service`, `batch`, `default`, `default-service` or `default-batch`.
    pub token_type: Option<Text>,
}

impl TokenParams {
    /// Applies what a request names and checks the whole.
    ///
    /// # Errors
    /// 400 when a value is out of its range or values contradict each other.
    pub fn apply(&mut self, change: TokenParamsChange) -> Result<()> {
        if let Some(CommaList(cidrs)) = change.token_bound_cidrs {
            self.token_bound_cidrs = canonical_cidrs(&cidrs)?;
        }
        if let Some(v) = change.token_explicit_max_ttl {
            self.token_explicit_max_ttl = v.0;
        }
        if let Some(v) = change.token_max_ttl {
            self.token_max_ttl = v.0;
        }
        if let Some(v) = change.token_no_default_policy {
            self.token_no_default_policy = v.0;
        }
        if let Some(v) = change.token_num_uses {
            self.token_num_uses = u64::try_from(v.0).map_err(|_| Error::invalid("'token_num_uses' cannot be negative"))?;
        }
        if let Some(v) = change.token_period {
            self.token_period = v.0;
        }
        if let Some(CommaList(policies)) = change.token_policies {
            self.token_policies = canonical_policies(policies);
        }
        if let Some(v) = change.token_strictly_bind_ip {
            self.token_strictly_bind_ip = v.0;
        }
        if let Some(v) = change.token_ttl {
            self.token_ttl = v.0;
        }
        if let Some(v) = change.token_type {
            self.token_type = TokenKind::parse(&v)?;
        }
        self.check()
    }

    fn check(&self) -> Result<()> {
        if self.token_max_ttl > 0 && self.token_ttl > self.token_max_ttl {
            return Err(Error::invalid("'token_ttl' cannot be greater than 'token_max_ttl'"));
        }
        if matches!(self.token_type, TokenKind::Batch | TokenKind::DefaultBatch) {
            if self.token_period > 0 {
                return Err(Error::invalid("'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens"));
            }
            if self.token_num_uses > 0 {
                return Err(Error::invalid("'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count"));
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
        }
    }
}

/// What a login asks of the token to be issued. Zero durations mean "not asked for".
#[derive(Clone, Debug, Default)]
pub struct TokenTerms {
    /// The life after issue.
    pub ttl: Duration,
    /// The longest life with renewals.
    pub max_ttl: Duration,
    /// A bound that no renewal moves.
    pub explicit_max_ttl: Duration,
    /// Periodic when not zero.
    pub period: Duration,
    /// Uses; zero for any number.
    pub num_uses: u64,
    /// Where the token may be used from; empty for anywhere.
    pub bound_cidrs: Vec<IpNet>,
    /// Service or batch.
    pub kind: TokenKind,
    /// Without the policy `default`.
    pub no_default_policy: bool,
    /// Bound to the address that logged in.
    pub strictly_bind_ip: bool,
    /// Whether it can be renewed.
    pub renewable: bool,
}

/// Policies in the form that is stored: trimmed, lower case, sorted, each once, without empty names.
pub fn canonical_policies(policies: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = policies.iter().map(|p| p.trim().to_lowercase()).filter(|p| !p.is_empty()).collect();
    out.sort();
    out.dedup();
    out
}

/// Networks in the form that is stored; a lone address keeps its form.
///
/// # Errors
/// 400 for what is neither an address nor a network.
pub fn canonical_cidrs(cidrs: &[String]) -> Result<Vec<String>> {
    for cidr in cidrs {
        if parse_cidr(cidr).is_none() {
            return Err(Error::invalid(format!("error parsing address {cidr:?}: Unable to convert {cidr} to an IPv4 or IPv6 address, or a UNIX Socket")));
        }
    }
    Ok(cidrs.to_vec())
}

/// An address or a network in CIDR notation.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

/// The networks of a stored list; what was checked at write is parsed here.
pub fn parse_cidrs(cidrs: &[String]) -> Vec<IpNet> {
    cidrs.iter().filter_map(|c| parse_cidr(c)).collect()
}
