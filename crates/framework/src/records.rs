//! Typed constants that declare the storage layout of an engine.

use std::marker::PhantomData;

use bytes::Bytes;
use keepfast_storage::{Page, ReadTx, Tx, View};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cx::Cx;
use crate::error::Result;

/// Records of one type under one prefix of a view, as JSON. A field that a later version adds has a default.
pub struct Records<T> {
    prefix: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Records under `prefix`, which ends in `/`, or the single record of that name if it does not.
    pub const fn at(prefix: &'static str) -> Self {
        Records { prefix, of: PhantomData }
    }

    /// Reads the record of this name.
    ///
    /// # Errors
    /// When storage fails or the record does not deserialize as this type.
    pub async fn get(&self, cx: &mut Cx, name: &str) -> Result<Option<T>> {
        let (tx, view) = cx.store();
        self.get_in(tx, view, name).await
    }

    /// Writes the record of this name when the request's transaction commits.
    ///
    /// # Errors
    /// When the value cannot be serialized as JSON.
    pub fn put(&self, cx: &mut Cx, name: &str, value: &T) -> Result<()> {
        let (tx, view) = cx.store();
        self.put_in(tx, view, name, value)
    }

    /// Deletes the record of this name when the request's transaction commits.
    pub fn delete(&self, cx: &mut Cx, name: &str) {
        let (tx, view) = cx.store();
        self.delete_in(tx, view, name);
    }

    /// Lists the names one level below `folder` (empty, or ending in `/`), sorted.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn list(&self, cx: &mut Cx, folder: &str, page: &Page) -> Result<Vec<String>> {
        let (tx, view) = cx.store();
        self.list_in(tx, view, folder, page).await
    }

    /// As [`Records::get`], outside of a handler.
    ///
    /// # Errors
    /// As [`Records::get`].
    pub async fn get_in(&self, tx: &mut ReadTx, view: &View, name: &str) -> Result<Option<T>> {
        match tx.get(view, &self.key(name)).await? {
            None => Ok(None),
            Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        }
    }

    /// As [`Records::put`], outside of a handler.
    ///
    /// # Errors
    /// As [`Records::put`].
    pub fn put_in(&self, tx: &mut Tx, view: &View, name: &str, value: &T) -> Result<()> {
        tx.put(view, &self.key(name), Bytes::from(serde_json::to_vec(value)?));
        Ok(())
    }

    /// As [`Records::delete`], outside of a handler.
    pub fn delete_in(&self, tx: &mut Tx, view: &View, name: &str) {
        tx.delete(view, &self.key(name));
    }

    /// As [`Records::list`], outside of a handler.
    ///
    /// # Errors
    /// As [`Records::list`].
    pub async fn list_in(&self, tx: &mut ReadTx, view: &View, folder: &str, page: &Page) -> Result<Vec<String>> {
        Ok(tx.list(view, &self.key(folder), page).await?)
    }

    /// As [`Records::list_in`]; the commit fails when the names have changed by then, so a request runs again.
    ///
    /// # Errors
    /// As [`Records::list`].
    pub async fn list_verified_in(
        &self,
        tx: &mut ReadTx,
        view: &View,
        folder: &str,
        page: &Page,
    ) -> Result<Vec<String>> {
        Ok(tx.list_verified(view, &self.key(folder), page).await?)
    }

    fn key(&self, name: &str) -> String {
        let mut key = String::with_capacity(self.prefix.len() + name.len());
        key.push_str(self.prefix);
        key.push_str(name);
        key
    }
}
