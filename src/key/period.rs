//! Periods: how often, by the calendar (UTC), a scope gets a new data key.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::error::{Error, Result};
use crate::key::json::words;
use crate::key::text::checked_text;

/// How long one data key of a scope is sealed with, by the UTC calendar.
///
/// ```
/// use strongroom::Period;
/// let label = Period::Hour.label(1_795_324_800_000)?.unwrap();
/// assert_eq!(label.to_string(), "hour=2026-11-22T05Z");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Period {
    /// No periods: a data key lasts until it is rotated.
    #[default]
    None,
    /// A data key a month.
    Month,
    /// A data key a day.
    Day,
    /// A data key an hour.
    Hour,
}

words!(Period { None = "none", Month = "month", Day = "day", Hour = "hour" });

impl Period {
    /// The label of the period that `unix_millis` falls into; `None` where there are no periods.
    ///
    /// # Errors
    /// `InvalidArgument` if the time is outside the years -9999 to 9999.
    pub fn label(self, unix_millis: i64) -> Result<Option<PeriodLabel>> {
        let pattern = match self {
            Self::None => return Ok(None),
            Self::Month => "month=%Y-%m",
            Self::Day => "day=%Y-%m-%d",
            Self::Hour => "hour=%Y-%m-%dT%HZ",
        };
        let text = civil(unix_millis)?.strftime(pattern).to_string();
        PeriodLabel::new(&text).map(Some)
    }

    /// The name of its label's field; `None` where there are no periods.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Month => Some("month"),
            Self::Day => Some("day"),
            Self::Hour => Some("hour"),
        }
    }

    /// The label of the last period that had ended at `unix_millis`; `None` where there are no periods.
    ///
    /// # Errors
    /// As [`Self::label`].
    pub(crate) fn ended_before(self, unix_millis: i64) -> Result<Option<PeriodLabel>> {
        let now = civil(unix_millis)?;
        let hour = now.with().minute(0).second(0).subsec_nanosecond(0);
        let start = match self {
            Self::None => return Ok(None),
            Self::Hour => hour.build(),
            Self::Day => hour.hour(0).build(),
            Self::Month => hour.hour(0).day(1).build(),
        };
        let before = start.and_then(|start| start.checked_sub(1.second()));
        let before = before.and_then(|before| before.to_zoned(TimeZone::UTC));
        let before = before.map_err(|e| out_of_range().with_source(e))?;
        self.label(before.timestamp().as_millisecond())
    }

    /// The label of the period that follows on the one of `unix_millis`; `None` where there are no periods.
    ///
    /// # Errors
    /// As [`Self::label`].
    pub(crate) fn next(self, unix_millis: i64) -> Result<Option<PeriodLabel>> {
        match self.remaining(unix_millis)? {
            Some(left) => self.label(unix_millis.saturating_add(millis(left))),
            None => Ok(None),
        }
    }

    /// How long after `unix_millis` the period ends; `None` where there are no periods.
    ///
    /// # Errors
    /// As [`Self::label`].
    pub fn remaining(self, unix_millis: i64) -> Result<Option<Duration>> {
        let now = civil(unix_millis)?;
        let hour = now.with().minute(0).second(0).subsec_nanosecond(0);
        let end = match self {
            Self::None => return Ok(None),
            Self::Hour => hour.build().and_then(|start| start.checked_add(1.hour())),
            Self::Day => hour.hour(0).build().and_then(|start| start.checked_add(1.day())),
            Self::Month => hour.hour(0).day(1).build().and_then(|start| start.checked_add(1.month())),
        };
        let end = end.map_err(|e| out_of_range().with_source(e))?;
        Ok(Some(Duration::try_from(end.duration_since(now)).unwrap_or_default()))
    }
}

/// Of less than a millisecond nothing is left: the calendar is asked in whole ones.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn out_of_range() -> Error {
    Error::invalid("the clock is outside the years -9999 to 9999")
}

fn civil(unix_millis: i64) -> Result<DateTime> {
    Timestamp::from_millisecond(unix_millis)
        .map(|t| TimeZone::UTC.to_datetime(t))
        .map_err(|e| out_of_range().with_source(e))
}

checked_text!(
    /// One period: `hour=2026-11-22T05Z`, `day=2026-11-22` or `month=2026-11`.
    PeriodLabel,
    |text| match text.split_once('=') {
        Some(("hour", value)) => has_shape(value, "0000-00-00T00Z"),
        Some(("day", value)) => has_shape(value, "0000-00-00"),
        Some(("month", value)) => has_shape(value, "0000-00"),
        _ => false,
    },
    "a period is hour=2026-11-22T05Z, day=2026-11-22 or month=2026-11"
);

/// Digits where `shape` has them, its own characters elsewhere: labels of one kind sort by time.
fn has_shape(value: &str, shape: &str) -> bool {
    let fits = |(byte, shape): (u8, u8)| if shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    value.len() == shape.len() && value.bytes().zip(shape.bytes()).all(fits)
}

impl PeriodLabel {
    /// Whether both are hours, or days, or months; then they sort by time.
    pub(crate) fn same_kind(&self, other: &Self) -> bool {
        self.field().0 == other.field().0
    }

    /// Which kind of period it is.
    pub(crate) fn kind(&self) -> Period {
        let name = self.field().0;
        [Period::Month, Period::Day, Period::Hour]
            .into_iter()
            .find(|kind| kind.name() == Some(name))
            .unwrap_or(Period::None)
    }

    /// Whether `unix_millis` falls into it.
    pub(crate) fn is_at(&self, unix_millis: i64) -> bool {
        self.kind().label(unix_millis).is_ok_and(|label| label.as_ref() == Some(self))
    }

    /// Whether the calendar has it. Labels of a right shape may name a 30th of February, or an hour 24.
    pub(crate) fn is_in_calendar(&self) -> bool {
        let (kind, value) = self.field();
        let (date, hour) = value.split_once('T').unwrap_or((value, "00Z"));
        let first_day = if kind == "month" { "-01" } else { "" };
        format!("{date}{first_day}").parse::<Date>().is_ok() && hour < "24Z"
    }

    /// The label as a field: its name and value.
    pub fn field(&self) -> (&str, &str) {
        self.as_str().split_once('=').unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T05:17:29.5Z
    const NOW: i64 = 1_795_324_649_500;

    fn label(period: Period, at: i64) -> String {
        period.label(at).unwrap().map(String::from).unwrap_or_default()
    }

    #[test]
    fn labels_and_ends() {
        assert_eq!(label(Period::None, NOW), "");
        assert_eq!(label(Period::Hour, NOW), "hour=2026-11-22T05Z");
        assert_eq!(label(Period::Day, NOW), "day=2026-11-22");
        assert_eq!(label(Period::Month, NOW), "month=2026-11");
        assert_eq!(Period::Hour.remaining(NOW).unwrap(), Some(Duration::from_millis(2_550_500)));
        assert_eq!(Period::None.remaining(NOW).unwrap(), None);
        for period in [Period::Hour, Period::Day, Period::Month] {
            let left = i64::try_from(period.remaining(NOW).unwrap().unwrap().as_millis()).unwrap();
            assert_eq!(label(period, NOW), label(period, NOW + left - 1));
            assert_ne!(label(period, NOW), label(period, NOW + left));
        }
    }

    #[test]
    fn a_period_is_named_as_its_label_s_field() {
        for period in [Period::None, Period::Hour, Period::Day, Period::Month] {
            let label = period.label(NOW).unwrap();
            assert_eq!(period.name(), label.as_ref().map(|label| label.field().0), "{period:?}");
        }
    }

    #[test]
    fn the_next_period_begins_where_this_one_ends() {
        let next = |period: Period, at: i64| period.next(at).unwrap().map(String::from).unwrap_or_default();
        assert_eq!(next(Period::None, NOW), "");
        assert_eq!(next(Period::Hour, NOW), "hour=2026-11-22T06Z");
        assert_eq!(next(Period::Day, NOW), "day=2026-11-23");
        assert_eq!(next(Period::Month, NOW), "month=2026-12");
        assert!(Period::Hour.next(i64::MAX).is_err());
        for period in [Period::Hour, Period::Day, Period::Month] {
            let (this, left) = (period.label(NOW).unwrap().unwrap(), millis(period.remaining(NOW).unwrap().unwrap()));
            let next = period.next(NOW).unwrap().unwrap();
            assert!(this.is_at(NOW + left - 1) && !this.is_at(NOW + left), "{this}");
            assert!(!next.is_at(NOW + left - 1) && next.is_at(NOW + left), "{next}");
            assert_eq!((this.kind(), next.kind()), (period, period));
        }
    }

    #[test]
    fn the_last_period_that_ended() {
        let ended = |period: Period, at: i64| period.ended_before(at).unwrap().map(String::from).unwrap_or_default();
        assert_eq!(ended(Period::None, NOW), "");
        assert_eq!(ended(Period::Hour, NOW), "hour=2026-11-22T04Z");
        assert_eq!(ended(Period::Day, NOW), "day=2026-11-21");
        assert_eq!(ended(Period::Month, NOW), "month=2026-10");
        assert_eq!(ended(Period::Day, 0), "day=1969-12-31");
        assert!(Period::Hour.ended_before(i64::MIN).is_err());
    }

    #[test]
    fn labels_have_one_shape() {
        for good in ["hour=2026-11-22T05Z", "day=2026-11-22", "month=2026-11"] {
            assert!(PeriodLabel::new(good).is_ok(), "{good}");
        }
        for bad in ["", "hour=", "hour=2026-11-22", "day=2026-11-2x", "year=2026", "month=02026-11", "day=２026-1-22"]
        {
            assert!(PeriodLabel::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn not_every_label_is_in_the_calendar() {
        let is = |text: &str| PeriodLabel::new(text).unwrap().is_in_calendar();
        for good in ["hour=2026-11-22T00Z", "hour=2026-11-22T23Z", "day=2024-02-29", "month=0000-12"] {
            assert!(is(good), "{good}");
        }
        for bad in ["hour=2026-11-22T24Z", "hour=2026-11-31T05Z", "day=2026-02-29", "day=2026-00-01", "month=2026-13"] {
            assert!(!is(bad), "{bad}");
        }
    }

    #[test]
    fn impossible_times_are_errors() {
        assert!(Period::Hour.label(i64::MAX).is_err());
        assert!(Period::Hour.remaining(i64::MIN).is_err());
        assert!(Period::Hour.label(-1).is_ok());
    }
}
