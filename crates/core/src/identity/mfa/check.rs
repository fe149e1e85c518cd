//! The check of a login's MFA credentials.

use std::collections::BTreeMap;

use keepfast_crypto::compare;
use keepfast_framework::fields::Quoted;
use keepfast_framework::{Error, Result, Status, Timestamp};
use keepfast_storage::{StorageError, Tx};

use super::credentials::{MfaCredentials, NoCode};
use super::records::{ATTEMPTS, Attempts, Method, MethodSettings, SECRETS, TotpSettings, of_entity};
use super::rules::RequiredMfa;
use crate::identity::store::Identity;

/// Why a method is not passed.
#[derive(Clone, Copy)]
enum Refusal {
    /// The caller sent no code for it.
    NoCode(NoCode),
    /// The entity has no secret for it.
    NoSecret,
    /// The code is wrong, or was accepted before.
    Wrong,
    /// There were too many wrong codes. Codes are accepted again after these seconds.
    TooMany(u32, u64),
}

impl Refusal {
    /// The text for a method of an entity; `None` where the caller sent nothing.
    fn text(&self, method: &Method, entity: &str) -> Option<String> {
        let unreadable = |why: &str| format!("failed to parse MFA factor, {why}");
        Some(match self {
            Refusal::NoCode(NoCode::Absent) => return None,
            Refusal::NoCode(NoCode::Several) => unreadable("found multiple passcodes for the same MFA method"),
            Refusal::NoCode(NoCode::EmptyPasscode) => unreadable("invalid passcode"),
            Refusal::NoCode(NoCode::Unknown) => unreadable("found an invalid MFA cred"),
            Refusal::NoCode(NoCode::Empty) | Refusal::Wrong => "MFA credentials not supplied or incorrect".to_owned(),
            Refusal::NoSecret => {
                format!("MFA secret for method name {} not present in entity {entity:?}", Quoted(&method.name))
            }
            Refusal::TooMany(most, wait) => format!(
                "maximum TOTP validation attempts {} exceeded the allowed attempts {most}. Please try again in {wait}s \
                 seconds",
                most.saturating_add(1)
            ),
        })
    }
}

/// The error for an enforcement that is not satisfied, in the text of OpenBao.
fn refused(required: &RequiredMfa, refusals: &[Refusal], entity: &str) -> Error {
    let RequiredMfa { name, methods } = required;
    let of_methods = || methods.iter().zip(refusals);
    let mut texts: Vec<String> = of_methods().filter_map(|(method, refusal)| refusal.text(method, entity)).collect();
    let has_codes = !texts.is_empty();
    if has_codes {
        let ids: Vec<&str> = methods.iter().map(|method| method.id.as_str()).collect();
        texts.push(format!("login MFA validation failed for methodID: [{}]", ids.join(" ")));
    } else {
        texts.extend(methods.iter().map(|Method { id, name, .. }| {
            format!("failed to find MFA credentials associated with an MFA method ID {id}, method name {name}")
        }));
    }
    let count = if texts.len() == 1 { "1 error".to_owned() } else { format!("{} errors", texts.len()) };
    let list: String = texts.iter().map(|text| format!("\t* {text}\n")).collect();
    let why = if has_codes { "" } else { "failed to sanitize MFA creds, " };
    let text = format!("failed to satisfy enforcement {name}. error: {why}{count} occurred:\n{list}\n");
    Error::new(Status::FORBIDDEN, text).because("the MFA credentials do not satisfy an enforcement")
}

impl Attempts {
    /// Whether codes are refused in this time step.
    fn is_spent(&self, step: u64, most: u32) -> bool {
        self.failed_in == step && self.failed >= most
    }

    /// Counts a wrong code in this time step.
    fn fail(&mut self, step: u64) {
        let failed = if self.failed_in == step { self.failed } else { 0 };
        (self.failed_in, self.failed) = (step, failed.saturating_add(1));
    }
}

impl Identity {
    /// Checks the credentials of a login of an entity for each of the enforcements.
    ///
    /// An accepted code is stored as used in this transaction. So of two requests with the same code one conflicts, runs
    /// again and is refused; and a code is accepted only if the wrong codes before it are within the limit.
    ///
    /// # Errors
    /// 403 when an enforcement is not satisfied; the wrong codes are then counted.
    pub(super) async fn check_mfa(
        &self,
        tx: &mut Tx,
        entity: &str,
        required: &[RequiredMfa],
        credentials: &MfaCredentials,
        now: Timestamp,
    ) -> Result<()> {
        // A code counts once, also where several enforcements have its method.
        let mut results = BTreeMap::new();
        for enforcement in required {
            let mut refusals = Vec::new();
            for method in &enforcement.methods {
                let result = match results.get(&method.id) {
                    Some(known) => *known,
                    None => self.check_method(tx, entity, method, credentials, now).await?,
                };
                results.insert(&method.id, result);
                match result {
                    Some(refusal) => refusals.push(refusal),
                    None => break,
                }
            }
            if refusals.len() == enforcement.methods.len() {
                return Err(refused(enforcement, &refusals, entity));
            }
        }
        Ok(())
    }

    /// Checks the code for a method. A wrong code is counted before this returns.
    async fn check_method(
        &self,
        tx: &mut Tx,
        entity: &str,
        method: &Method,
        credentials: &MfaCredentials,
        now: Timestamp,
    ) -> Result<Option<Refusal>> {
        let MethodSettings::Totp(settings) = &method.settings;
        match credentials.code_for(&method.id, &method.name) {
            // As on OpenBao a missing secret is the first reason.
            Err(NoCode::Empty) => {
                let secret = self.read(&SECRETS, tx, &of_entity(entity, &method.id)).await?;
                Ok(Some(if secret.is_some() { Refusal::Wrong } else { Refusal::NoSecret }))
            }
            Err(no_code) => Ok(Some(Refusal::NoCode(no_code))),
            Ok(code) => self.check_code(tx, (entity, &method.id), settings, code, now).await,
        }
    }

    async fn check_code(
        &self,
        tx: &mut Tx,
        (entity, method): (&str, &str),
        settings: &TotpSettings,
        code: &str,
        now: Timestamp,
    ) -> Result<Option<Refusal>> {
        let at = of_entity(entity, method);
        // Read apart from the transaction: the count of a wrong code must not conflict with it, because the code for another
        // method may be right.
        let mut seen = self.barrier.begin_read();
        let Some(secret) = self.read(&SECRETS, &mut seen, &at).await? else { return Ok(Some(Refusal::NoSecret)) };
        let attempts = self.read(&ATTEMPTS, &mut seen, &at).await?.unwrap_or_default();
        let (form, most) = (secret.form, settings.max_validation_attempts);
        let (step, too_many) = (form.step_at(now), Refusal::TooMany(most, form.seconds_to_next(now)));
        if attempts.is_spent(step, most) {
            return Ok(Some(too_many));
        }
        let key = secret.key.expose();
        let Some(accepted) = form.step_of(key, code, now, attempts.last_step) else {
            let is_counted = self.count_wrong_code(&at, step, most).await?;
            return Ok(Some(if is_counted { Refusal::Wrong } else { too_many }));
        };
        // The commit conflicts with every other use of a code, right or wrong, and with a change of the secret.
        let is_unchanged = self.read(&ATTEMPTS, tx, &at).await?.unwrap_or_default() == attempts
            && self.read(&SECRETS, tx, &at).await?.is_some_and(|found| compare::equal(found.key.expose(), key));
        if !is_unchanged {
            return Err(StorageError::Conflict.into());
        }
        let namespace = self.namespace.clone();
        let attempts = Attempts { namespace, last_step: accepted, failed_in: 0, failed: 0 };
        ATTEMPTS.put_in(tx, &self.view, &at, &attempts)?;
        Ok(None)
    }

    /// Counts a wrong code, in its own transaction: that of the refused request writes nothing. Returns whether the limit
    /// was not reached before: only then may the caller learn that the code is wrong.
    async fn count_wrong_code(&self, at: &str, step: u64, most: u32) -> Result<bool> {
        self.barrier
            .transact(|mut tx| async move {
                let none = || Attempts { namespace: self.namespace.clone(), ..Attempts::default() };
                let mut attempts = self.read(&ATTEMPTS, &mut tx, at).await?.unwrap_or_else(none);
                if attempts.is_spent(step, most) {
                    return Ok((tx, false));
                }
                attempts.fail(step);
                ATTEMPTS.put_in(&mut tx, &self.view, at, &attempts)?;
                Ok::<_, Error>((tx, true))
            })
            .await
    }
}
