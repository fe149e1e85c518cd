//! The codes with which a TPM refuses a command, and the class of each (part 2, "TPM_RC").

use keepfast_framework::seal::SealError;

use super::wire::Command;
use crate::call::{denied, misconfigured, unreachable_because};

/// Why a command has no result.
pub(super) enum Failure {
    /// The TPM refused the command with this code.
    Code(Command, u32),
    /// Another reason.
    Other(SealError),
}

/// What a code means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The authorization value is wrong.
    AuthRefused,
    /// The policy does not hold.
    PolicyRefused,
    /// No authorization value is tried before a time is over, or an administrator resets the counter.
    LockedOut,
    /// The handle is unknown.
    NoHandle,
    /// A parameter is refused: number, size, structure, value, integrity.
    Parameter,
    /// The TPM is busy or not started, or has no room.
    Busy,
    /// Another reason.
    Other,
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        Failure::Other(error)
    }
}

impl Failure {
    /// The meaning of the code, if there is one.
    pub(super) fn meaning(&self) -> Option<Meaning> {
        match self {
            Failure::Code(_, code) => Some(meaning(*code)),
            Failure::Other(_) => None,
        }
    }
}

impl From<Failure> for SealError {
    fn from(failure: Failure) -> Self {
        let (command, code) = match failure {
            Failure::Code(command, code) => (command, code),
            Failure::Other(error) => return error,
        };
        let cause = |text: &str| format!("{text} ({command:?}: code {code:#05x})");
        match meaning(code) {
            Meaning::AuthRefused => denied(cause("the TPM refused the authorization value")),
            Meaning::PolicyRefused => denied(cause("the policy of the wrapped key does not hold")),
            Meaning::LockedOut => denied(cause(
                "the TPM is in dictionary attack lockout: wait for its recovery time, or reset it with the lockout authorization",
            )),
            Meaning::NoHandle => misconfigured(cause("the TPM has no such key")),
            Meaning::Busy => unreachable_because(cause("the TPM is busy, not started, or has no room")),
            Meaning::Parameter | Meaning::Other => misconfigured(cause("the TPM refused a command")),
        }
    }
}

/// The meaning of a code. Format one (bit 7) has the error in bits 0 to 5, and in bit 6 and above the parameter, handle or
/// session that it is about.
fn meaning(code: u32) -> Meaning {
    const PARAMETER: u32 = 0x40;
    if code & !0xfff != 0 {
        // Of a layer above the TPM, such as a resource manager.
        return Meaning::Other;
    }
    if code & 0x80 != 0 {
        return match code & 0xbf {
            0x8e | 0xa2 => Meaning::AuthRefused,
            0x9d => Meaning::PolicyRefused,
            0x8b => Meaning::NoHandle,
            _ if code & PARAMETER != 0 => Meaning::Parameter,
            _ => Meaning::Other,
        };
    }
    match code {
        0x921 => Meaning::LockedOut,
        // TPM_RC_PCR_CHANGED, since the policy was evaluated.
        0x128 => Meaning::PolicyRefused,
        // TPM_RC_INITIALIZE, TPM_RC_FAILURE; warnings.
        0x100 | 0x101 | 0x901..=0x908 | 0x90a | 0x920 | 0x922 | 0x923 => Meaning::Busy,
        _ => Meaning::Other,
    }
}

#[cfg(test)]
mod tests {
    use keepfast_framework::seal::SealErrorClass;

    use super::*;

    #[test]
    fn codes_have_the_class_of_their_meaning() {
        for (code, expected) in [
            (0x98e, SealErrorClass::Denied),
            (0x9a2, SealErrorClass::Denied),
            (0x99d, SealErrorClass::Denied),
            (0x921, SealErrorClass::Denied),
            (0x922, SealErrorClass::Unreachable),
            (0x902, SealErrorClass::Unreachable),
            (0x100, SealErrorClass::Unreachable),
            (0x18b, SealErrorClass::Misconfigured),
            (0x143, SealErrorClass::Misconfigured),
            (0x000b_018e, SealErrorClass::Misconfigured),
            (0xffff_ffff, SealErrorClass::Misconfigured),
        ] {
            let error = SealError::from(Failure::Code(Command::Unseal, code));
            assert_eq!(error.class, expected, "{code:x}: {error}");
        }
        assert_eq!(meaning(0x1df), Meaning::Parameter);
    }
}
