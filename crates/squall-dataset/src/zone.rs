//! Time zones, for wall clock times that stand for instants.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, FixedOffset, MappedLocalTime, Offset, TimeDelta};
use chrono_tz::Tz;
use squall_schema::{Error, Result};

/// A time zone: UTC by default, an offset such as `+02:00`, or a name such as `Europe/Zurich`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeZone(Zone);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Fixed(FixedOffset),
    Named(Tz),
}

impl Default for TimeZone {
    fn default() -> Self {
        Self(Zone::Named(Tz::UTC))
    }
}

impl FromStr for TimeZone {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fixed = text.parse().map(Zone::Fixed);
        let zone = fixed.or_else(|_| text.parse().map(Zone::Named));
        zone.map(Self).map_err(|_| {
            Error::invalid(format!(
                "no time zone {text:?}: expected a name such as Europe/Zurich, an offset such as +02:00, or UTC"
            ))
        })
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Zone::Fixed(offset) => offset.fmt(f),
            Zone::Named(zone) => f.write_str(zone.name()),
        }
    }
}

impl TimeZone {
    /// The instant at which a clock on the wall shows this time, both in microseconds since 1970-01-01; `None` outside of
    /// chrono's years. Of two instants it is the earlier; a time that the clock skips is as much later, as Java does it.
    pub(crate) fn instant(self, wall: i64) -> Option<i64> {
        match self.0 {
            Zone::Fixed(offset) => instant(offset, wall),
            Zone::Named(zone) => instant(zone, wall),
        }
    }
}

fn instant(zone: impl chrono::TimeZone, wall: i64) -> Option<i64> {
    let clock = DateTime::from_timestamp_micros(wall)?.naive_utc();
    match zone.from_local_datetime(&clock) {
        MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => Some(time.timestamp_micros()),
        MappedLocalTime::None => {
            // The offset from before the clock was put forward.
            let before = clock.checked_sub_signed(TimeDelta::days(1))?;
            let offset = zone.offset_from_utc_datetime(&before).fix().local_minus_utc();
            wall.checked_sub(i64::from(offset) * 1_000_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_time_is_an_instant_in_a_zone() {
        let hours = |zone: &str, wall: i64| {
            let zone: TimeZone = zone.parse().expect("a zone");
            zone.instant(wall * 3_600_000_000)
                .map(|instant| instant / 3_600_000_000)
        };
        // 2024-03-31, when the clocks of Zürich went from 2 to 3, and 2024-10-27, when they went from 3 to 2.
        let (spring, autumn) = (19_813 * 24, 20_023 * 24);
        for (zone, wall, instant) in [
            ("UTC", 5, 5),
            ("+02:00", 5, 3),
            ("-0800", 5, 13),
            ("Europe/Zurich", spring + 1, spring),
            ("Europe/Zurich", spring + 2, spring + 1),
            ("Europe/Zurich", spring + 3, spring + 1),
            ("Europe/Zurich", autumn + 2, autumn),
            ("Europe/Zurich", autumn + 3, autumn + 2),
        ] {
            assert_eq!(hours(zone, wall), Some(instant), "{zone} {wall}");
        }
        assert_eq!(TimeZone::default().instant(i64::MAX), None);
        assert!("Europe/Atlantis".parse::<TimeZone>().is_err());
    }
}
