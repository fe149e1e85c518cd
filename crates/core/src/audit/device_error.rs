//! The error of an audit device that cannot be used.

use crate::settings::AuditSettings;

/// Why an audit device cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("audit device {device:?} cannot be opened: {reason}")]
pub struct DeviceError {
    /// The path of the device in `sys/audit`.
    pub device: String,
    /// The file and the error of the system, or the invalid option.
    pub reason: String,
}

impl DeviceError {
    pub(super) fn of(settings: &AuditSettings, reason: impl Into<String>) -> Self {
        DeviceError { device: settings.name.clone(), reason: reason.into() }
    }
}

impl From<DeviceError> for keepfast_framework::Error {
    fn from(error: DeviceError) -> Self {
        keepfast_framework::Error::new(keepfast_framework::Status::INTERNAL, error.to_string())
    }
}
