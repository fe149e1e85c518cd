//! Connection strings with a known password: their masked form in responses contains no part of it.

use keepfast_engines::fuzzing::masked_connection_url;

/// The first and the last characters of each password, by which it is found.
const ENDS: [&str; 2] = ["Kd7", "Wz4"];
/// Names of parameters whose values are secrets.
const NAMES: [&str; 6] = ["password", "%70assword", "PASSWORD", "sslpassword", "pwd", "connectionAttributes"];

/// Connection strings: never a panic; the masked form is not much longer than the text, and contains no part of a password,
/// whether it was written with escapes or without.
pub fn connection_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for plugin in ["postgresql", "mysql", "valkey"] {
        if let Some(shown) = shown(plugin, text) {
            assert!(shown.len() <= 6 * text.len() + 64, "{plugin}: {shown}");
        }
    }
    // Escapes of a longer one exceed the limit of each grammar.
    let is_short = text.len() < 4096;
    for (plugin, url) in if is_short { built(text) } else { Vec::new() } {
        let Some(shown) = shown(plugin, &url) else { continue };
        assert!(ENDS.iter().all(|end| !shown.contains(end)), "{plugin}: {url} is shown as {shown}");
    }
}

fn shown(plugin: &str, url: &str) -> Option<String> {
    masked_connection_url(&format!("{plugin}-database-plugin"), url).expect("a known plugin")
}

/// Connection strings of each grammar with a password of this text.
fn built(text: &str) -> Vec<(&'static str, String)> {
    let password = format!("{}{text}{}", ENDS[0], ENDS[1]);
    let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let user: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
    let mut all = Vec::new();
    // Users forget escapes, so the bare password has to be hidden too.
    for password in [&password, &encoded] {
        all.extend([
            ("postgresql", format!("postgresql://app:{password}@db.example:5432/orders?sslmode=require")),
            ("postgresql", format!("postgres://{user}:{password}@[::1]:1,b/")),
            ("postgresql", format!("postgres://:{password}@")),
            ("mysql", format!("app:{password}@tcp(db.example:3306)/orders?tls=true")),
            ("mysql", format!("app:{password}@unix(/run/my.sock)/")),
            ("mysql", format!("app:{password}@tcp(db.example:3306)")),
            ("mysql", format!("app:{password}@/orders?charset=utf8")),
            ("valkey", format!("redis://app:{password}@db.example:6379/0")),
            ("valkey", format!("rediss://{user}:{password}@[::1]")),
        ]);
    }
    for name in NAMES {
        all.extend([
            ("postgresql", format!("postgresql://db.example/orders?user={user}&{name}={encoded}")),
            ("postgresql", format!("host=db.example {name} = '{quoted}'\tdbname=orders")),
            ("mysql", format!("app@/orders?tls=true&{name}={encoded}")),
            ("valkey", format!("redis://app:x@db.example?{name}={encoded}&db=1")),
        ]);
        // With an equals sign it may be any other parameter.
        if !text.contains('=') {
            all.push(("postgresql", format!("host=db.example {name}={password} dbname=orders")));
        }
    }
    all
}
