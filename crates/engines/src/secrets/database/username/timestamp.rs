//! Times in the layouts of Go's `time` package, where each part has the form that it has in "Mon Jan 2 15:04:05 MST
//! 2006".

use keepfast_framework::Timestamp;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// Formats a time in UTC. Longer parts come first, because shorter ones are their prefixes.
pub(super) fn format(layout: &str, at: Timestamp) -> String {
    let parts = parts(at);
    let mut out = String::new();
    let mut rest = layout;
    while let Some(character) = rest.chars().next() {
        match parts.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                out.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                out.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
    }
    out
}

fn parts(at: Timestamp) -> Vec<(&'static str, String)> {
    let text = at.rfc3339_seconds();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    let number = |from: usize, to: usize| part(from, to).parse::<usize>().unwrap_or_default();
    let (month, day, hour) = (number(5, 7), number(8, 10), number(11, 13));
    let twelve = (hour + 11) % 12 + 1;
    let (month_name, day_name) = (MONTHS[(month + 11) % 12], DAYS[at.unix().div_euclid(86_400).rem_euclid(7) as usize]);
    let fraction = format!("{:09}", at.nanos().rem_euclid(1_000_000_000));
    vec![
        ("2006", part(0, 4)),
        ("January", month_name.to_owned()),
        ("Jan", month_name[..3].to_owned()),
        ("Monday", day_name.to_owned()),
        ("Mon", day_name[..3].to_owned()),
        ("MST", "UTC".to_owned()),
        (".000000000", format!(".{fraction}")),
        (".000000", format!(".{}", &fraction[..6])),
        (".000", format!(".{}", &fraction[..3])),
        ("Z07:00", "Z".to_owned()),
        ("Z0700", "Z".to_owned()),
        ("-07:00", "+00:00".to_owned()),
        ("-0700", "+0000".to_owned()),
        ("-07", "+00".to_owned()),
        ("01", part(5, 7)),
        ("02", part(8, 10)),
        ("03", format!("{twelve:02}")),
        ("04", part(14, 16)),
        ("05", part(17, 19)),
        ("06", part(2, 4)),
        ("15", part(11, 13)),
        ("PM", if hour < 12 { "AM" } else { "PM" }.to_owned()),
        ("pm", if hour < 12 { "am" } else { "pm" }.to_owned()),
        ("_2", format!("{day:2}")),
        ("1", month.to_string()),
        ("2", day.to_string()),
        ("3", twelve.to_string()),
        ("4", number(14, 16).to_string()),
        ("5", number(17, 19).to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_go() {
        let at = Timestamp::from_nanos(1_795_435_347_123_456_789);
        for (layout, expected) in [
            ("2006-01-02T15:04:05Z07:00", "2026-11-23T12:02:27Z"),
            ("Mon Jan _2 03:04:05PM MST 06", "Mon Nov 23 12:02:27PM UTC 26"),
            ("20060102150405.000", "20261123120227.123"),
            ("Monday, 2 January", "Monday, 23 November"),
            ("x", "x"),
        ] {
            assert_eq!(format(layout, at), expected, "{layout}");
        }
    }
}
