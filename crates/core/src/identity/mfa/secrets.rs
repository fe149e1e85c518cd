//! The TOTP secrets of entities.

use keepfast_crypto::locked::LockedBytes;
use keepfast_crypto::random;
use keepfast_framework::{Error, Page, Result};
use keepfast_storage::{Tx, View};

use super::records::{ATTEMPTS, ENROLLED, EnrolledSecret, SECRETS, TotpSettings, of_entity};
use super::totp::CodeForm;
use crate::identity::record::Mark;
use crate::identity::store::Identity;

impl Identity {
    /// Creates the secret of an entity for a method, unless there is one: then `None`. `view` is that of the mount, which
    /// wraps secrets where seal wrap is enabled.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn enroll(
        &self,
        tx: &mut Tx,
        view: &View,
        (entity, method): (&str, &str),
        settings: &TotpSettings,
    ) -> Result<Option<EnrolledSecret>> {
        let at = of_entity(entity, method);
        if self.read(&SECRETS, tx, &at).await?.is_some() {
            return Ok(None);
        }
        let mut key = LockedBytes::zeroed(settings.key_size);
        random::fill(key.expose_mut());
        let TotpSettings { algorithm, digits, period, skew, .. } = *settings;
        let form = CodeForm { algorithm, digits, period, skew };
        let secret = EnrolledSecret { namespace: self.namespace.clone(), key, form };
        SECRETS.put_in(tx, view, &at, &secret)?;
        ENROLLED.put_in(tx, view, &format!("{method}/{entity}"), &Mark {})?;
        Ok(Some(secret))
    }

    /// Deletes the secret of an entity for a method.
    pub(super) fn unenroll(&self, tx: &mut Tx, entity: &str, method: &str) {
        SECRETS.delete_in(tx, &self.view, &of_entity(entity, method));
        ATTEMPTS.delete_in(tx, &self.view, &of_entity(entity, method));
        ENROLLED.delete_in(tx, &self.view, &format!("{method}/{entity}"));
    }

    /// The methods for which an entity has a secret. The commit conflicts with a change of them.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn mfa_methods_of(&self, tx: &mut Tx, entity: &str) -> Result<Vec<String>> {
        SECRETS.list_verified_in(tx, &self.view, &format!("{entity}/"), &Page::all()).await
    }

    /// Deletes the secrets of an entity that is deleted.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn delete_mfa_of(&self, tx: &mut Tx, entity: &str) -> Result<()> {
        for method in self.mfa_methods_of(tx, entity).await? {
            self.unenroll(tx, entity, &method);
        }
        Ok(())
    }

    /// Refuses the merge of an entity into another one where both have a secret for the same method.
    ///
    /// # Errors
    /// 400.
    pub(crate) async fn check_mfa_clash(&self, tx: &mut Tx, to: &str, from: &str) -> Result<()> {
        let kept = self.mfa_methods_of(tx, to).await?;
        match self.mfa_methods_of(tx, from).await?.into_iter().find(|method| kept.contains(method)) {
            None => Ok(()),
            Some(id) => Err(Error::invalid(format!("conflicting MFA config ID {id:?} in entity ID {from:?}"))),
        }
    }

    /// Moves the secrets of a merged entity to the one that stays, which keeps its own secrets.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn move_mfa(&self, tx: &mut Tx, view: &View, from: &str, to: &str) -> Result<()> {
        let kept = self.mfa_methods_of(tx, to).await?;
        for method in self.mfa_methods_of(tx, from).await? {
            if kept.contains(&method) {
                self.unenroll(tx, from, &method);
                continue;
            }
            let secret = self.read(&SECRETS, tx, &of_entity(from, &method)).await?;
            let attempts = self.read(&ATTEMPTS, tx, &of_entity(from, &method)).await?;
            self.unenroll(tx, from, &method);
            if let Some(secret) = secret {
                SECRETS.put_in(tx, view, &of_entity(to, &method), &secret)?;
                ENROLLED.put_in(tx, view, &format!("{method}/{to}"), &Mark {})?;
            }
            if let Some(attempts) = attempts {
                ATTEMPTS.put_in(tx, view, &of_entity(to, &method), &attempts)?;
            }
        }
        Ok(())
    }
}
