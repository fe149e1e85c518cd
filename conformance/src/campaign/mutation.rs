//! Valid requests and their mutations.

use crate::rng::Rng;

/// Replacements for a header, a path or a body.
const NASTY: [&[u8]; 24] = [
    b"",
    b"\0",
    b"\r\n",
    b"\n\n",
    b"%00",
    b"%2e%2e/",
    b"%zz",
    b"../",
    b"//",
    b"\xff\xfe\xfd",
    b"\xe2\x80\xae",
    b"999999999999999999999",
    b"-1",
    b"0x10",
    b"1e999",
    b"{\"a\":",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\"\\ud800\"",
    b"null",
    b"NaN",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
];

/// The paths of the requests; the last part of a path in braces is random.
const PATHS: [&str; 22] = [
    "/v1/kv/app",
    "/v1/kv/a/b/c?list=true",
    "/v1/kv2/data/app?version=1",
    "/v1/kv2/metadata/app",
    "/v1/kv2/metadata/?limit=2&after=a",
    "/v1/kv2/subkeys/app?depth=1",
    "/v1/kv2/config",
    "/v1/cubbyhole/x",
    "/v1/auth/token/create",
    "/v1/auth/token/lookup-self",
    "/v1/auth/token/renew-self",
    "/v1/auth/token/roles/r",
    "/v1/auth/ar/login",
    "/v1/auth/ar/role/r",
    "/v1/auth/ar/role/r/secret-id",
    "/v1/sys/mounts",
    "/v1/sys/policies/acl/p",
    "/v1/sys/capabilities-self",
    "/v1/sys/wrapping/wrap",
    "/v1/sys/leases/lookup",
    "/v1/sys/health",
    "/v1/sys/internal/ui/mounts",
];

const METHODS: [&str; 9] = ["GET", "POST", "PUT", "PATCH", "DELETE", "LIST", "SCAN", "HEAD", "OPTIONS"];

const BODIES: [&str; 9] = [
    "",
    "{}",
    r#"{"data":{"a":1},"options":{"cas":0}}"#,
    r#"{"policy":"path \"a/*\" { capabilities = [\"read\"] }"}"#,
    r#"{"policies":["default"],"ttl":"1h","meta":{"a":"b"},"num_uses":3}"#,
    r#"{"role_id":"x","secret_id":"y"}"#,
    r#"{"paths":["kv/app","sys/mounts"]}"#,
    r#"{"token_ttl":"1h","token_bound_cidrs":["127.0.0.1/32"],"secret_id_num_uses":2}"#,
    r#"{"max_versions":5,"custom_metadata":{"a":"b"},"delete_version_after":"3h"}"#,
];

/// The bytes of a request with any mutation.
pub(super) fn request(rng: &mut Rng, token: &str) -> Vec<u8> {
    let mut bytes = valid(rng, token);
    for _ in 0..rng.below(4) {
        mutate(rng, &mut bytes);
    }
    bytes
}

fn valid(rng: &mut Rng, token: &str) -> Vec<u8> {
    let body = rng.pick(&BODIES);
    let mut head = format!("{} {} HTTP/1.1\r\nHost: localhost\r\n", rng.pick(&METHODS), rng.pick(&PATHS));
    match rng.below(5) {
        0 => head.push_str("X-Vault-Token: hvs.notatoken\r\n"),
        1 => head.push_str(&format!("Authorization: Bearer {token}\r\n")),
        2 => {}
        _ => head.push_str(&format!("X-Vault-Token: {token}\r\n")),
    }
    for header in ["X-Vault-Wrap-TTL: 60s\r\n", "X-Vault-Namespace: a/b\r\n", "X-Vault-Request: true\r\n"] {
        if rng.below(6) == 0 {
            head.push_str(header);
        }
    }
    let kinds = ["application/json", "application/merge-patch+json", "application/x-www-form-urlencoded", "text/plain"];
    head.push_str(&format!("Content-Type: {}\r\n", rng.pick(&kinds)));
    if rng.below(8) == 0 {
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        return format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}").into_bytes();
    }
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = rng.below(bytes.len() + 1);
    let until = (at + rng.below(24)).min(bytes.len());
    match rng.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 => drop(bytes.splice(at..at, rng.pick(&NASTY).iter().copied())),
        2 => drop(bytes.drain(at..until)),
        3 => bytes.truncate(at),
        4 => {
            let piece = bytes[at..until].to_vec();
            for _ in 0..rng.below(200) {
                bytes.splice(at..at, piece.iter().copied());
            }
        }
        5 => drop(bytes.splice(at..until, rng.pick(&NASTY).iter().copied())),
        6 => spoil_a_header(rng, bytes),
        _ => {
            let random: Vec<u8> = (0..rng.below(40)).map(|_| rng.draw() as u8).collect();
            bytes.splice(at..until, random);
        }
    }
}

/// Repeats a line of the head, or makes it very long.
fn spoil_a_header(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    if ends.len() < 3 {
        return;
    }
    let line = rng.below(ends.len() - 1);
    let (start, end) = (ends[line], ends[line + 1]);
    let mut copy = bytes[start..end].to_vec();
    if rng.below(3) == 0 {
        let filler = vec![b'a' + rng.below(26) as u8; 1 << rng.below(18)];
        let before_the_end = copy.len().saturating_sub(2);
        copy.splice(before_the_end..before_the_end, filler);
    }
    for _ in 0..=rng.below(3) {
        bytes.splice(start..start, copy.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_every_request() {
        let all = |seed| (0..200).map(|item| request(&mut Rng::of(seed, item), "t")).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
    }
}
