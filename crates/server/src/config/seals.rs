//! The `seal` stanzas and the seal of the environment.
//!
//! Sources: <https://openbao.org/docs/configuration/seal>, <https://developer.hashicorp.com/vault/docs/configuration/seal>.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keepfast_core::{ConfiguredSeal, SealSet, SealTiming};
use keepfast_framework::Clock;
use keepfast_framework::clock::SystemClock;
use keepfast_framework::seal::Seal;
use keepfast_hcl::{Position, Suggestion};
use keepfast_seals::SealStanza;

use super::environment::Environment;
use super::error::{ConfigError, Warning};
use super::stanza::{Labelled, Stanza};

/// The keys that every seal has.
/// The type of a stanza for shares of an unseal key, without a seal.
const SHAMIR: &str = "shamir";
const GENERAL: [&str; 9] = [
    "name",
    "priority",
    "disabled",
    "enroll",
    "timeout",
    "health_check_interval",
    "health_check_interval_unhealthy",
    "health_check_timeout",
    "health_check_enabled",
];
/// The shortest interval and timeout.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest timeout of a call.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The priority of a stanza without one.
const PRIORITY: u16 = 1;

/// One seal of the configuration, checked; its service is not called.
#[derive(Clone)]
pub struct SealSettings {
    /// The name, by default the type. It identifies the seal in the storage.
    pub name: String,
    /// The order in which seals are tried, the lowest first.
    pub priority: u16,
    /// Whether the seal unwraps and does not wrap: a migration from it.
    pub disabled: bool,
    /// Whether the seal is enrolled by a command only.
    pub enroll_manually: bool,
    /// Timeouts and intervals.
    pub timing: SealTiming,
    /// The seal.
    pub seal: Arc<dyn Seal>,
    /// The file of the stanza; `the environment` for a seal of `VAULT_SEAL_TYPE`.
    pub source: String,
    /// The file of a secret that the seal waits for.
    pub waits_for: Option<String>,
    /// A digest of the stanza, for a seal that counts its attempts.
    origin: Option<[u8; 32]>,
}

impl SealSettings {
    /// The seal as core takes it.
    pub fn configured(&self) -> ConfiguredSeal {
        ConfiguredSeal {
            name: self.name.clone(),
            priority: self.priority,
            disabled: self.disabled,
            enroll_manually: self.enroll_manually,
            timing: self.timing,
            seal: self.seal.clone(),
        }
    }
}

impl super::Config {
    /// The seals as core takes them.
    ///
    /// # Errors
    /// [`ConfigError`] when they cannot be configured together, which loading has checked.
    pub fn seal_set(&self) -> Result<SealSet, ConfigError> {
        seal_set(&self.seals)
    }
}

/// The seals that replace the running ones after a reload.
///
/// # Errors
/// Names the seal that waits for a file, unless the running one does, too.
pub(crate) fn replacing(mut new: Vec<SealSettings>, running: &[SealSettings]) -> Result<Vec<SealSettings>, String> {
    for seal in &mut new {
        let is_same = |old: &&SealSettings| old.name == seal.name && old.seal.kind() == seal.seal.kind();
        let old = running.iter().find(is_same);
        if let Some(reason) = seal.waits_for.as_ref().filter(|_| old.is_none_or(|old| !old.seal.waits())) {
            return Err(format!("seal {:?}: {reason}", seal.name));
        }
        // Its attempts with a PIN go on being counted.
        if let Some(old) = old.filter(|old| old.origin.is_some() && old.origin == seal.origin) {
            seal.seal = old.seal.clone();
        }
    }
    Ok(new)
}

/// These seals as core takes them.
///
/// # Errors
/// [`ConfigError`] when they cannot be configured together.
pub(crate) fn seal_set(seals: &[SealSettings]) -> Result<SealSet, ConfigError> {
    let set = SealSet::new(seals.iter().map(SealSettings::configured).collect());
    set.map_err(|error| ConfigError::Whole(error.to_string()))
}

/// What may be printed of a seal.
impl fmt::Display for SealSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (name: {:?}", self.seal.kind(), self.name)?;
        for (key, value) in self.seal.description() {
            write!(f, ", {key}: {value:?}")?;
        }
        write!(f, ", disabled: {}, source: {:?})", self.disabled, self.source)
    }
}

impl fmt::Debug for SealSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A stanza whose general keys are read.
struct Read {
    kind: String,
    general: General,
    options: BTreeMap<String, String>,
    source: String,
    /// Whether it is of the environment, whose variables all belong to it.
    is_environment: bool,
    position: Position,
}

/// The general keys.
struct General {
    name: String,
    priority: u16,
    disabled: bool,
    enroll_manually: bool,
    timing: SealTiming,
}

/// Reads the seals of all files, then the one of the environment.
pub(super) fn read(
    roots: &mut [Stanza<'_>],
    environment: &Environment,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<SealSettings>, ConfigError> {
    let mut stanzas = Vec::new();
    let mut has_shamir = false;
    for root in roots {
        for block in root.blocks("seal", 1)? {
            let kind = block.labels.first().copied().unwrap_or_default().to_ascii_lowercase();
            match kind == SHAMIR {
                true => has_shamir |= !read_shamir(block, warnings)?,
                false => stanzas.extend(read_stanza(kind, block, warnings)?),
            }
        }
    }
    if let Some(kind) = environment.setting("SEAL_TYPE").map(str::to_ascii_lowercase) {
        let name = environment.setting("SEAL_NAME").unwrap_or(&kind);
        add_of_environment(&kind, name, &mut stanzas)?;
    }
    check_together(&stanzas, has_shamir)?;
    let mut seals = Vec::new();
    for stanza in &stanzas {
        let of_kind = stanzas.iter().filter(|other| other.kind == stanza.kind).count();
        let shares_kind = of_kind > 1 && !stanza.is_environment;
        seals.push(create(stanza, shares_kind, environment, warnings)?);
    }
    seals.sort_by_key(|seal| seal.priority);
    seal_set(&seals)?;
    Ok(seals)
}

/// Reads `seal "shamir"`; returns whether it is disabled.
fn read_shamir(block: Labelled<'_>, warnings: &mut Vec<Warning>) -> Result<bool, ConfigError> {
    let Labelled { mut stanza, .. } = block;
    let disabled = stanza.flag("disabled")?.unwrap_or(false);
    stanza.finish(warnings);
    Ok(disabled)
}

/// Reads a stanza of an external seal; `None` for a disabled one of a type that this server does not have.
fn read_stanza(kind: String, block: Labelled<'_>, warnings: &mut Vec<Warning>) -> Result<Option<Read>, ConfigError> {
    let Labelled { position, mut stanza, .. } = block;
    if !keepfast_seals::kinds().any(|known| known == kind) {
        if stanza.flag("disabled")?.unwrap_or(false) {
            warnings.push(
                stanza.warning(position, format!("seal {kind:?} is disabled and not supported: it has no effect")),
            );
            return Ok(None);
        }
        let known: Vec<&str> = keepfast_seals::kinds().chain(["shamir"]).collect();
        let suggestion = Suggestion::of(&kind, &known);
        let text = format!("seal {kind:?} is not supported{suggestion}; there are {}", known.join(", "));
        return Err(stanza.fault(position, text));
    }
    let general = read_general(&kind, position, &mut stanza)?;
    let source = stanza.file().to_owned();
    let mut options = BTreeMap::new();
    for (key, value) in stanza.pairs()? {
        if GENERAL.contains(&key.as_str()) {
            continue;
        }
        if options.insert(key.clone(), value).is_some() {
            return Err(ConfigError::At { file: source, position, message: format!("{key} is set twice") });
        }
    }
    Ok(Some(Read { kind, general, options, source, is_environment: false, position }))
}

fn read_general(kind: &str, position: Position, stanza: &mut Stanza<'_>) -> Result<General, ConfigError> {
    let name = stanza.text("name")?.filter(|name| !name.is_empty()).unwrap_or_else(|| kind.to_owned());
    let priority = match stanza.integer("priority")? {
        None => PRIORITY,
        Some(given) => u16::try_from(given)
            .ok()
            .filter(|priority| *priority > 0)
            .ok_or_else(|| stanza.fault(position, "priority must be a number from 1 to 65535"))?,
    };
    let enroll_manually = match stanza.text("enroll")?.unwrap_or_default().as_str() {
        "" | "auto" => false,
        "manual" => true,
        _ => return Err(stanza.fault(stanza.position("enroll"), "enroll must be \"auto\" or \"manual\"")),
    };
    let disabled = stanza.flag("disabled")?.unwrap_or(false);
    Ok(General { name, priority, disabled, enroll_manually, timing: read_timing(stanza)? })
}

fn read_timing(stanza: &mut Stanza<'_>) -> Result<SealTiming, ConfigError> {
    let mut timing = SealTiming::default();
    let limits = [
        ("timeout", LONGEST_TIMEOUT, &mut timing.timeout),
        ("health_check_interval", Duration::MAX, &mut timing.health_check_interval),
        ("health_check_interval_unhealthy", Duration::MAX, &mut timing.health_check_interval_unhealthy),
        ("health_check_timeout", Duration::MAX, &mut timing.health_check_timeout),
    ];
    for (key, longest, known) in limits {
        let Some(given) = stanza.duration(key)? else { continue };
        if !(SHORTEST..=longest).contains(&given) {
            let most =
                if longest == Duration::MAX { String::new() } else { format!(" and at most {}s", longest.as_secs()) };
            return Err(
                stanza.fault(stanza.position(key), format!("{key} must be at least {}s{most}", SHORTEST.as_secs()))
            );
        }
        *known = given;
    }
    timing.health_check_enabled = stanza.flag("health_check_enabled")?.unwrap_or(timing.health_check_enabled);
    Ok(timing)
}

/// Adds the seal of `VAULT_SEAL_TYPE`, which has all its keys in variables. A variable that was left over must not change
/// the seal: with another enabled stanza it is an error.
///
/// Its name depends on no stanza: it identifies the seal in the storage.
fn add_of_environment(kind: &str, name: &str, stanzas: &mut Vec<Read>) -> Result<(), ConfigError> {
    let mut enabled = stanzas.iter().filter(|stanza| !stanza.general.disabled);
    if let Some(first) = enabled.next() {
        if first.kind == kind || enabled.any(|stanza| stanza.kind == kind) {
            return Ok(());
        }
        let text = format!("VAULT_SEAL_TYPE is {kind:?}, and the configuration has seal {:?}", first.kind);
        return Err(ConfigError::Whole(text));
    }
    if kind == SHAMIR {
        return Ok(());
    }
    if !keepfast_seals::kinds().any(|known| known == kind) {
        return Err(ConfigError::Whole(format!("VAULT_SEAL_TYPE: seal {kind:?} is not supported")));
    }
    if stanzas.iter().any(|stanza| stanza.general.name == name) {
        let text = format!("VAULT_SEAL_TYPE: a stanza is named {name:?}; set VAULT_SEAL_NAME, and keep it");
        return Err(ConfigError::Whole(text));
    }
    let timing = SealTiming::default();
    let general =
        General { name: name.to_owned(), priority: PRIORITY, disabled: false, enroll_manually: false, timing };
    let (options, source) = (BTreeMap::new(), "the environment".to_owned());
    let (kind, position) = (kind.to_owned(), Position::START);
    stanzas.push(Read { kind, general, options, source, is_environment: true, position });
    Ok(())
}

fn check_together(stanzas: &[Read], has_shamir: bool) -> Result<(), ConfigError> {
    if has_shamir && stanzas.iter().any(|stanza| !stanza.general.disabled) {
        let text =
            "seal \"shamir\" is enabled beside another seal; recovery shares need no stanza: remove or disable it";
        return Err(ConfigError::Whole(text.into()));
    }
    for (at, stanza) in stanzas.iter().enumerate() {
        let fault =
            |message: String| ConfigError::At { file: stanza.source.clone(), position: stanza.position, message };
        let name = &stanza.general.name;
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(fault(format!("the name of a seal has letters, digits, '-', '_' and '.', not {name:?}")));
        }
        if stanzas[..at].iter().any(|other| other.general.name == *name) {
            return Err(fault(format!("two seals are named {name:?}; set their \"name\"")));
        }
        let suffix = keepfast_seals::variable_suffix(name);
        let shares_variables =
            |other: &&Read| other.kind == stanza.kind && keepfast_seals::variable_suffix(&other.general.name) == suffix;
        if let Some(other) = stanzas[..at].iter().find(shares_variables) {
            let other = &other.general.name;
            let text = format!(
                "the seals {other:?} and {name:?} have the same suffix of variables, _{suffix}; name one otherwise"
            );
            return Err(fault(text));
        }
    }
    Ok(())
}

fn create(
    stanza: &Read,
    shares_kind: bool,
    environment: &Environment,
    warnings: &mut Vec<Warning>,
) -> Result<SealSettings, ConfigError> {
    let Read { kind, general, options, source, position, .. } = stanza;
    let General { name, priority, disabled, enroll_manually, timing } = general;
    let request = SealStanza { kind, name, options, timeout: timing.timeout, shares_kind };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let created = keepfast_seals::from_stanza(&request, environment, &clock);
    let fault = |message: String| ConfigError::At { file: source.clone(), position: *position, message };
    let created = created.map_err(|error| fault(error.to_string()))?;
    for message in created.warnings {
        warnings.push(Warning { file: source.clone(), position: *position, message });
    }
    Ok(SealSettings {
        name: name.clone(),
        priority: *priority,
        disabled: *disabled,
        enroll_manually: *enroll_manually,
        timing: *timing,
        seal: created.seal,
        source: source.clone(),
        waits_for: created.waits_for,
        origin: created.origin,
    })
}

#[cfg(test)]
#[path = "seals_tests.rs"]
mod tests;
