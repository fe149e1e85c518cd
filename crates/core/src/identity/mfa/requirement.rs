//! `mfa_requirement`: the MFA that a login waits for.

use std::collections::BTreeMap;

use serde::Serialize;

use super::rules::RequiredMfa;

/// The MFA that a login waits for, as the API shows it.
#[derive(Serialize)]
pub(crate) struct MfaRequirement {
    mfa_request_id: String,
    mfa_constraints: BTreeMap<String, Constraint>,
}

/// The methods of an enforcement, any of which passes it.
#[derive(Serialize)]
struct Constraint {
    any: Vec<ConstraintMethod>,
}

#[derive(Serialize)]
struct ConstraintMethod {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    uses_passcode: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

impl MfaRequirement {
    /// The requirement of these enforcements.
    pub(super) fn new(mfa_request_id: String, required: Vec<RequiredMfa>) -> Self {
        let mut mfa_constraints = BTreeMap::new();
        for RequiredMfa { mut name, methods } in required {
            let any = methods.into_iter().map(|method| ConstraintMethod {
                kind: method.settings.kind(),
                uses_passcode: true,
                id: method.id,
                name: method.name,
            });
            // An enforcement of a namespace above may have the same name.
            while mfa_constraints.contains_key(&name) {
                name.push('+');
            }
            mfa_constraints.insert(name, Constraint { any: any.collect() });
        }
        MfaRequirement { mfa_request_id, mfa_constraints }
    }
}
