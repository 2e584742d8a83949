//! Date and time of RFC 3339, to the millisecond.
//!
//! The days of a date are counted by the method of Howard Hinnant, "chrono-compatible low-level date algorithms".

use std::fmt::Write as _;

use crate::time::Timestamp;

const DAY_MS: i64 = 86_400_000;

/// 0000-01-01T00:00:00Z.
const FIRST_MS: i64 = -62_167_219_200_000;

/// 9999-12-31T23:59:59.999Z.
const LAST_MS: i64 = 253_402_300_799_999;

/// Has it a year of four digits?
pub(super) fn is_writable(time: Timestamp) -> bool {
    (FIRST_MS..=LAST_MS).contains(&time.as_millis())
}

/// `2018-04-05T17:31:00Z`; milliseconds follow where there are any.
pub(super) fn write(time: Timestamp) -> String {
    let (days, ms) = (time.as_millis().div_euclid(DAY_MS), time.as_millis().rem_euclid(DAY_MS));
    let (year, month, day) = date_of(days);
    let (hour, minute, second, milli) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    let mut text = String::with_capacity(24);
    // Writing to a string does not fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if milli > 0 {
        let _ = write!(text, ".{milli:03}");
    }
    text.push('Z');
    text
}

/// What RFC 3339 §5.6 allows, within the years that can be written. A leap second counts as the second after it;
/// what is finer than a millisecond is cut.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    // Nobody writes finer than yoctoseconds.
    if !(20..=64).contains(&bytes.len()) || !text.is_ascii() {
        return None;
    }
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, separator)| bytes[at] != separator) || !b"Tt ".contains(&bytes[10]) {
        return None;
    }
    let (year, month, day) = (digits(&bytes[0..4])?, digits(&bytes[5..7])?, digits(&bytes[8..10])?);
    let (hour, minute, second) = (digits(&bytes[11..13])?, digits(&bytes[14..16])?, digits(&bytes[17..19])?);
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (milli, zone) = fraction(&bytes[19..])?;
    let offset_ms = offset(zone)? * 60_000;
    let ms = days_of(year, month, day) * DAY_MS
        + (hour * 3_600 + minute * 60 + second) * 1_000
        + if second == 60 { 0 } else { milli }
        - offset_ms;
    Some(Timestamp::from_millis(ms)).filter(|time| is_writable(*time))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |sum, c| c.is_ascii_digit().then(|| sum * 10 + i64::from(c - b'0')))
}

/// Milliseconds, and what follows them.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else { return Some((0, text)) };
    let count = rest.iter().take_while(|c| c.is_ascii_digit()).count();
    let (number, zone) = rest.split_at(count);
    if number.is_empty() {
        return None;
    }
    let milli = (0..3).fold(0, |sum, at| sum * 10 + i64::from(number.get(at).map_or(0, |c| c - b'0')));
    Some((milli, zone))
}

/// Minutes east of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let east = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            Some(if *sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01. The year is counted from March, so that the leap day is its last.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse of [`days_of`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_that_others_wrote_are_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2018-04-05T17:31:00Z", 1_522_949_460_000),
            ("1985-04-12T23:20:50.52Z", 482_196_050_520), // RFC 3339 §5.8
            ("1996-12-19T16:39:57-08:00", 851_042_397_000), // RFC 3339 §5.8
            ("1990-12-31T23:59:60Z", 662_688_000_000),    // RFC 3339 §5.8: a leap second
            ("1990-12-31T15:59:60-08:00", 662_688_000_000), // RFC 3339 §5.8
            ("1937-01-01T12:00:27.87+00:20", -1_041_337_172_130), // RFC 3339 §5.8
            ("2000-02-29t00:00:00.0009999z", 951_782_400_000),
            ("0000-01-01T00:00:00Z", FIRST_MS),
            ("9999-12-31T23:59:59.999Z", LAST_MS),
        ] {
            assert_eq!(read(text), Some(Timestamp::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2018-04-05",
            "2018-04-05T17:31:00",
            "2018-04-05T17:31Z",
            "2018-13-05T17:31:00Z",
            "2018-00-05T17:31:00Z",
            "2018-02-29T17:31:00Z",
            "1900-02-29T17:31:00Z",
            "2018-04-31T17:31:00Z",
            "2018-04-00T17:31:00Z",
            "2018-04-05T24:00:00Z",
            "2018-04-05T17:60:00Z",
            "2018-04-05T17:31:61Z",
            "2018-04-05T17:31:00.Z",
            "2018-04-05T17:31:00.1",
            "2018-04-05T17:31:00+24:00",
            "2018-04-05T17:31:00+0100",
            "2018-04-05T17:31:00ZZ",
            "+018-04-05T17:31:00Z",
            "2018-04-05T-7:31:00Z",
            "0000-01-01T00:00:00+00:01",
            "2018-04-05T17:31:00.٣Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&format!("2018-04-05T17:31:00.{}Z", "1".repeat(100))), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_sorts_as_time_does(a in FIRST_MS..=LAST_MS, b in FIRST_MS..=LAST_MS) {
            for ms in [a, b] {
                prop_assert_eq!(read(&write(Timestamp::from_millis(ms))), Some(Timestamp::from_millis(ms)));
            }
            let seconds = |ms: i64| write(Timestamp::from_millis(ms.div_euclid(1_000) * 1_000));
            prop_assert_eq!(seconds(a).cmp(&seconds(b)), a.div_euclid(1_000).cmp(&b.div_euclid(1_000)));
        }

        #[test]
        fn no_text_makes_reading_panic(text in ".{0,40}", at in 0_usize..24, c: char) {
            let _ = read(&text);
            let mut near: Vec<char> = "2018-04-05T17:31:00.123Z".chars().collect();
            near[at] = c;
            let _ = read(&near.into_iter().collect::<String>());
        }
    }
}
