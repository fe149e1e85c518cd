//! The credentials of a login's MFA: the codes that a caller sends for methods, by their id or name.

use std::collections::BTreeMap;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Error, Result};
use serde_json::{Map, Value};

/// The start of a code, which may be left out.
const PASSCODE: &str = "passcode=";

/// The codes of a caller by the id or the name of a method.
pub(crate) struct MfaCredentials(BTreeMap<String, Vec<SecretString>>);

/// Why what a caller sent for a method is no code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCode {
    /// Nothing.
    Absent,
    /// An empty list, or an empty code.
    Empty,
    /// Several codes.
    Several,
    /// An empty `passcode=`.
    EmptyPasscode,
    /// A credential of another kind.
    Unknown,
}

impl MfaCredentials {
    /// Those of the values of `X-Vault-MFA`: a method, and its code after a colon.
    pub(super) fn of_headers(values: &[SecretString]) -> Self {
        let mut codes = BTreeMap::<String, Vec<SecretString>>::new();
        for value in values {
            let (method, code) = match value.expose().split_once(':') {
                Some((method, code)) => (method, Some(code)),
                None => (value.expose().as_str(), None),
            };
            let codes = codes.entry(method.to_owned()).or_default();
            codes.extend(code.map(|code| SecretString::new(code.to_owned())));
        }
        MfaCredentials(codes)
    }

    /// Those of `mfa_payload`: a list of codes for each method.
    ///
    /// # Errors
    /// 400 for another form.
    pub(crate) fn of_payload(payload: Map<String, Value>) -> Result<Self> {
        let invalid = || Error::invalid("invalid mfa payload");
        // Moved and not copied, so that the codes are wiped.
        let code = |value| match value {
            Value::String(code) => Ok(SecretString::new(code)),
            Value::Number(number) => Ok(SecretString::new(number.to_string())),
            _ => Err(invalid()),
        };
        let codes = |value| match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(values) => values.into_iter().map(code).collect(),
            _ => Err(invalid()),
        };
        let all: Result<_> = payload.into_iter().map(|(method, value)| Ok((method, codes(value)?))).collect();
        all.map(MfaCredentials)
    }

    /// The code for a method.
    ///
    /// # Errors
    /// When there is not exactly one.
    pub(super) fn code_for(&self, id: &str, name: &str) -> std::result::Result<&str, NoCode> {
        let found = self.0.get(id).or_else(|| self.0.get(name).filter(|_| !name.is_empty()));
        let code = match found.map(Vec::as_slice) {
            None => return Err(NoCode::Absent),
            Some([]) => return Err(NoCode::Empty),
            Some([code]) => code.expose().as_str(),
            Some(_) => return Err(NoCode::Several),
        };
        match code.strip_prefix(PASSCODE) {
            Some("") => Err(NoCode::EmptyPasscode),
            Some(code) => Ok(code),
            None if code.is_empty() => Err(NoCode::Empty),
            None if code.contains('=') => Err(NoCode::Unknown),
            None => Ok(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payload(value: Value) -> Result<MfaCredentials> {
        MfaCredentials::of_payload(value.as_object().unwrap().clone())
    }

    #[test]
    fn a_method_has_one_code_by_its_id_or_name() {
        let all = payload(json!({
            "id": ["123456"], "name": ["passcode=654321"], "none": [], "null": null, "empty": [""], "two": ["1", "2"],
            "number": [123456], "bare": ["passcode="], "other": ["push=1"],
        }))
        .unwrap();
        assert_eq!(all.code_for("id", "name"), Ok("123456"));
        assert_eq!(all.code_for("unknown", "name"), Ok("654321"));
        assert_eq!(all.code_for("number", ""), Ok("123456"));
        for (id, why) in [
            ("unknown", NoCode::Absent),
            ("none", NoCode::Empty),
            ("null", NoCode::Empty),
            ("empty", NoCode::Empty),
            ("two", NoCode::Several),
            ("bare", NoCode::EmptyPasscode),
            ("other", NoCode::Unknown),
        ] {
            assert_eq!(all.code_for(id, ""), Err(why), "{id}");
        }
        assert!(payload(json!({ "": ["1"] })).unwrap().code_for("id", "").is_err(), "no name is none");
        for other in [json!({ "id": "123456" }), json!({ "id": 5 }), json!({ "id": [["1"]] }), json!({ "id": {} })] {
            assert!(payload(other).is_err());
        }
    }

    #[test]
    fn headers_have_a_method_and_a_code() {
        let values = ["id:123456", "name", "id2:1:2", "twice:1", "twice:2"];
        let all = MfaCredentials::of_headers(&values.map(|value| SecretString::new(value.to_owned())));
        assert_eq!(all.code_for("id", ""), Ok("123456"));
        assert_eq!(all.code_for("", "name"), Err(NoCode::Empty));
        assert_eq!(all.code_for("id2", ""), Ok("1:2"));
        assert_eq!(all.code_for("twice", ""), Err(NoCode::Several));
    }
}
