//! Rotation schedules with the five fields of cron, in UTC: minute, hour, day of month, month, day of week.
//!
//! The fields are those of Vault, whose parser is Go's `robfig/cron`; OpenBao has no schedules. Own code and not the
//! crate `croner`: of `0 0 */1 * MON` croner makes every day and Vault the Mondays, it refuses `? 0 * * *`, and it
//! accepts `L`, `W`, `#` and `+`, which Vault refuses. A date that no year has is found only by a search of 0.2 s, and
//! it needs `darling`, `derive_builder` and `strum`.

use jiff::Span;
use jiff::civil::date;
use keepfast_framework::Timestamp;

/// A parsed schedule. Each field is a bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether day of month and day of week are both restricted: then one of them must match (POSIX `crontab`).
    either_day: bool,
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    words: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, words: &[] },
    Field { name: "hour", first: 0, last: 23, words: &[] },
    Field { name: "day of month", first: 1, last: 31, words: &[] },
    Field { name: "month", first: 1, last: 12, words: &MONTHS },
    // Sunday is 0 and 7.
    Field { name: "day of week", first: 0, last: 7, words: &DAYS },
];
/// A schedule without a day in so many days has none: 29 February recurs at least every eighth year.
const SEARCH_DAYS: i64 = 9 * 366;
const DAY: i64 = 86_400;
/// The maximum length of a schedule in bytes; it may list every minute and every day.
const MAX_BYTES: usize = 512;
/// The maximum length of a stored schedule in use.
const MAX_STORED_BYTES: usize = 16 * MAX_BYTES;

impl Schedule {
    /// Parses five fields, or one of `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`.
    ///
    /// # Errors
    /// The invalid field, by name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("a schedule has at most {MAX_BYTES} bytes"));
        }
        Self::parse_stored(text)
    }

    /// Parses a stored schedule, which may be older than the limit of the length.
    ///
    /// # Errors
    /// The invalid field, by name.
    pub(super) fn parse_stored(text: &str) -> Result<Self, String> {
        if text.len() > MAX_STORED_BYTES {
            return Err(format!("a schedule has at most {MAX_STORED_BYTES} bytes"));
        }
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let given: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = given[..] else {
            return Err(format!("expected exactly 5 fields, found {}", given.len()));
        };
        let mut weekday_bits = FIELDS[4].parse(weekdays)?;
        weekday_bits |= weekday_bits >> 7 & 1;
        let schedule = Schedule {
            minutes: FIELDS[0].parse(minutes)?,
            hours: FIELDS[1].parse(hours)?,
            days: FIELDS[2].parse(days)?,
            months: FIELDS[3].parse(months)?,
            weekdays: weekday_bits & 0x7f,
            either_day: is_restricted(days) && is_restricted(weekdays),
        };
        match schedule.next(Timestamp::EPOCH) {
            Some(_) => Ok(schedule),
            None => Err("no day has this date".to_owned()),
        }
    }

    /// The first time of the schedule after `at`; `None` if the calendar ends.
    pub(super) fn next(&self, at: Timestamp) -> Option<Timestamp> {
        let start = at.unix().div_euclid(60) + 1;
        let (first_day, minute) = (start.div_euclid(1440), start.rem_euclid(1440));
        for day in first_day..first_day.checked_add(SEARCH_DAYS)? {
            if !self.has_day(day) {
                continue;
            }
            let from = if day == first_day { minute } else { 0 };
            if let Some(minute) = (from..1440).find(|m| has_bit(self.hours, m / 60) && has_bit(self.minutes, m % 60)) {
                // Later times are clamped to the end of the calendar.
                return Some(Timestamp::from_unix(day * DAY + minute * 60)).filter(|next| *next > at);
            }
        }
        None
    }

    fn has_day(&self, day: i64) -> bool {
        // No schedule has a time after the last day of the calendar.
        let Some((month, of_month)) = month_and_day(day) else { return false };
        let (by_date, by_weekday) = (has_bit(self.days, of_month), has_bit(self.weekdays, (day + 4).rem_euclid(7)));
        has_bit(self.months, month) && if self.either_day { by_date || by_weekday } else { by_date && by_weekday }
    }
}

/// Whether a day field selects days: no part of it is `*` or `?`. With a step above 1 it selects days, as in
/// `robfig/cron` v3 and unlike in Vixie's cron.
fn is_restricted(days: &str) -> bool {
    let is_every_day = |part: &str| match part.split_once('/') {
        None => matches!(part, "*" | "?"),
        Some((range, step)) => matches!(range, "*" | "?") && step.parse() == Ok(1),
    };
    !days.split(',').any(is_every_day)
}

fn has_bit(bits: u64, at: i64) -> bool {
    bits >> at & 1 == 1
}

/// Month and day of month of a day counted from 1970-01-01; `None` outside of the years -9999 to 9999.
fn month_and_day(day: i64) -> Option<(i64, i64)> {
    let date = date(1970, 1, 1).checked_add(Span::new().try_days(day).ok()?).ok()?;
    Some((date.month().into(), date.day().into()))
}

impl Field {
    /// A comma list of `*`, `a`, `a-b`, each with an optional `/step`.
    fn parse(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |bits, part| Ok(bits | self.part(part)?))
    }

    fn part(&self, text: &str) -> Result<u64, String> {
        let (range, step) = match text.split_once('/') {
            None => (text, None),
            Some((range, step)) => (range, Some(self.number(step, false)?)),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (self.first, self.last),
            Some((first, last)) => (self.bound(first)?, self.bound(last)?),
            // `5/10` continues to the end of the range.
            None => (self.bound(range)?, if step.is_some() { self.last } else { self.bound(range)? }),
        };
        if first > last {
            return Err(format!("{}: a range ends before it begins", self.name));
        }
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err(format!("{}: a step must be at least 1", self.name));
        }
        Ok((first..=last).step_by(step as usize).fold(0, |bits, at| bits | 1 << at))
    }

    fn bound(&self, text: &str) -> Result<u32, String> {
        let number = self.number(text, true)?;
        if (self.first..=self.last).contains(&number) {
            return Ok(number);
        }
        Err(format!("{}: {number} is not between {} and {}", self.name, self.first, self.last))
    }

    fn number(&self, text: &str, words: bool) -> Result<u32, String> {
        let word = || self.words.iter().position(|w| words && w.eq_ignore_ascii_case(text));
        let digits = !text.is_empty() && text.len() < 5 && text.bytes().all(|b| b.is_ascii_digit());
        match (digits, word()) {
            (true, _) => text.parse().map_err(|_| format!("{}: {text:?} is no number", self.name)),
            (false, Some(at)) => Ok(at as u32 + self.first),
            (false, None) => Err(format!("{}: {text:?} is no number", self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn next(schedule: &str, after: &str) -> String {
        Schedule::parse(schedule).unwrap().next(at(after)).unwrap().rfc3339_seconds()
    }

    #[test]
    fn no_time_is_after_the_end_of_the_calendar() {
        let end = Timestamp::from_nanos(i64::MAX);
        assert_eq!(Schedule::parse("* * * * *").unwrap().next(end), None);
        assert_eq!(Schedule::parse("59 23 31 12 7").unwrap().next(end), None);
    }

    #[test]
    fn times_are_those_of_cron() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-11-28T18:00:00Z", "2026-11-28T18:01:00Z"),
            ("* * * * *", "2026-11-28T18:00:59.9Z", "2026-11-28T18:01:00Z"),
            ("@hourly", "2026-11-28T18:00:00Z", "2026-11-28T19:00:00Z"),
            ("@daily", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            ("0 0 * * SAT", "2026-11-28T00:00:00Z", "2026-12-05T00:00:00Z"),
            ("0 0 * * 7", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("30 2 29 feb *", "2026-11-28T00:00:00Z", "2028-02-29T02:30:00Z"),
            ("30 2 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T02:30:00Z"),
            ("*/15 9-17 * * mon-fri", "2026-11-27T17:45:00Z", "2026-11-30T09:00:00Z"),
            ("5/20 * * * *", "2026-11-28T18:25:00Z", "2026-11-28T18:45:00Z"),
            ("1,2,58 23 * * *", "2026-11-28T23:02:00Z", "2026-11-28T23:58:00Z"),
            // Both days restricted: one of them must match.
            ("0 0 13 * FRI", "2026-11-28T00:00:00Z", "2026-12-04T00:00:00Z"),
            ("0 0 1-31 * MON", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("0 0 */1 * MON", "2026-11-28T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("0 0 ? * MON", "2026-11-28T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("0 0 */2 * MON", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("0 0 */2 * *", "2026-11-29T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("? 0 * * *", "2026-11-28T00:59:00Z", "2026-11-29T00:00:00Z"),
            ("0 0 1 1 *", "1969-12-31T23:59:30Z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(next(schedule, after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn errors_contain_the_name_of_the_field() {
        for (schedule, expected) in [
            ("", "expected exactly 5 fields, found 0"),
            ("* * * * * *", "found 6"),
            ("60 * * * *", "minute: 60"),
            ("* 24 * * *", "hour: 24"),
            ("* * 0 * *", "day of month: 0"),
            ("* * * 13 *", "month: 13"),
            ("* * * * 8", "day of week: 8"),
            ("* * * foo *", "month: \"foo\""),
            ("*/0 * * * *", "step"),
            ("5-1 * * * *", "range"),
            ("1,, * * * *", "minute: \"\""),
            ("-1 * * * *", "minute: \"\""),
            ("0 0 30 2 *", "no day"),
            ("@reboot", "found 1"),
            ("0 0 L * *", "day of month: \"L\""),
            ("0 0 15W * *", "day of month: \"15W\""),
            ("0 0 * * FRI#2", "day of week: \"FRI#2\""),
            ("0 0 1 * +MON", "day of week: \"+MON\""),
            ("TZ=UTC * * * *", "minute"),
        ] {
            let error = Schedule::parse(schedule).unwrap_err();
            assert!(error.contains(expected), "{schedule}: {error}");
        }
    }

    // Each day of 800 years follows from the previous one.
    #[test]
    fn the_calendar_is_gregorian() {
        let (mut month, mut day, mut year) = (1, 1, 1970);
        for count in 0..292_194 {
            assert_eq!(month_and_day(count), Some((month, day)), "day {count}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day = day % length + 1;
            month = if day == 1 { month % 12 + 1 } else { month };
            year += i64::from((month, day) == (1, 1));
        }
    }
}
