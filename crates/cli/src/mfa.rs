//! The MFA of a login: prompts for the code of the only method, and completes the login with it.

use std::io::{self, IsTerminal};

use keepfast_client::{Auth, Method, Request, Secret};
use serde_json::{Value, json};

use crate::command_error::CommandError;
use crate::cx::Cx;
use crate::{prompt, terminal};

const PATH: &str = "sys/mfa/validate";
const PENDING: &str = "A login request was issued that is subject to MFA validation. Please make sure\nto validate the login by sending another request to sys/mfa/validate endpoint.\n\n";

/// The method that a login needs, where there is no choice.
struct OnlyMethod<'a> {
    id: &'a str,
    kind: &'a str,
    uses_passcode: bool,
}

/// Whether a login waits for its MFA.
pub(crate) fn is_pending(secret: &Secret) -> bool {
    secret.auth.as_ref().is_some_and(|auth| auth.client_token.is_empty() && auth.mfa_requirement.is_some())
}

/// Completes a login that waits for its MFA, if the user is at a terminal and has no choice of methods. Any other
/// response is returned as it is, a login that still waits with a warning.
pub(crate) fn complete(cx: &Cx, secret: Secret) -> Result<Secret, CommandError> {
    if !is_pending(&secret) {
        return Ok(secret);
    }
    let is_interactive = !cx.words.on("non-interactive") && io::stdin().is_terminal();
    let method = secret.auth.as_ref().and_then(only_method).filter(|_| is_interactive);
    let (Some(OnlyMethod { id, kind, uses_passcode }), Some(request_id)) = (method, request_id(&secret)) else {
        terminal::warning(PENDING);
        return Ok(secret);
    };
    terminal::warning("Initiating Interactive MFA Validation...\n");
    let code = match uses_passcode {
        true => prompt::hidden(&format!("Enter the passphrase for methodID {id:?} of type {kind:?}"), false)?,
        false => {
            terminal::warning("The service of the method asks you to confirm the login.\n");
            keepfast_client::SecretString::new(String::new())
        }
    };
    let body = json!({ "mfa_request_id": request_id, "mfa_payload": { id: [code.expose()] } });
    let request = Request::new(Method::Post, PATH).with_body(body);
    let response = cx.session()?.with_token(None).call("Error validating the MFA of the login", &request)?;
    response.ok_or_else(|| CommandError::failed("Error authenticating: the server returned no token"))
}

fn request_id(secret: &Secret) -> Option<&str> {
    secret.auth.as_ref()?.mfa_requirement.as_ref()?.get("mfa_request_id")?.as_str()
}

/// The only method of the only enforcement.
fn only_method(auth: &Auth) -> Option<OnlyMethod<'_>> {
    let constraints = auth.mfa_requirement.as_ref()?.get("mfa_constraints")?.as_object()?;
    let mut constraints = constraints.values();
    let (Some(constraint), None) = (constraints.next(), constraints.next()) else { return None };
    let [method] = constraint.get("any")?.as_array()?.as_slice() else { return None };
    Some(OnlyMethod {
        id: method.get("id")?.as_str()?,
        kind: method.get("type")?.as_str()?,
        uses_passcode: method.get("uses_passcode").and_then(Value::as_bool).unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn the_method_of_a_prompt_is_the_only_one() {
        let method = json!({ "type": "totp", "id": "m", "uses_passcode": true });
        let any = |methods: &[&Value]| json!({ "any": methods });
        let auth = |constraints: Value| Auth {
            mfa_requirement: Some(json!({ "mfa_request_id": "r", "mfa_constraints": constraints })),
            ..Auth::default()
        };
        let one = auth(json!({ "e": any(&[&method]) }));
        let found = only_method(&one).unwrap();
        assert_eq!((found.id, found.kind, found.uses_passcode), ("m", "totp", true));
        for other in [json!({}), json!({ "e": any(&[]) }), json!({ "e": any(&[&method, &method]) })] {
            assert!(only_method(&auth(other)).is_none());
        }
        assert!(only_method(&auth(json!({ "e": any(&[&method]), "f": any(&[&method]) }))).is_none());
        assert!(only_method(&Auth::default()).is_none());
        assert!(is_pending(&Secret { auth: Some(one), ..Secret::default() }));
        assert!(!is_pending(&Secret::default()));
    }
}
