//! The CMOS real-time clock (Motorola MC146818 data sheet): time of day in UTC.
//!
//! There are no alarms and no periodic interrupts; guests have better timers.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::{AccessError, BusDevice};

// Registers by CMOS index.
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_D: u8 = 0x0d;
/// Not a register of the chip, but every PC keeps the century here.
const CENTURY: u8 = 0x32;

/// Status A: 32.768 kHz time base, 1024 Hz rate, no update in progress.
const TIME_BASE: u8 = 0x26;
/// Status B: 24-hour mode, BCD.
const HOURS_24: u8 = 0x02;
/// Status D: RAM and time are valid.
const VALID: u8 = 0x80;
/// Bit 7 of the index port masks NMI and selects nothing.
const INDEX_MASK: u8 = 0x7f;
const INDEX_PORT: u64 = 0;

type Clock = Box<dyn Fn() -> u64 + Send>;

/// Index port at offset 0, data port at offset 1.
pub struct Rtc {
    index: u8,
    /// Seconds since 1970.
    clock: Clock,
}

impl Default for Rtc {
    /// A clock that follows the host's.
    fn default() -> Self {
        Self::with_clock(Box::new(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs())
        }))
    }
}

impl Rtc {
    fn with_clock(clock: Clock) -> Self {
        Self { index: 0, clock }
    }

    fn register(&self) -> u8 {
        let now = Date::from_unix((self.clock)());
        match self.index {
            SECONDS => bcd(now.second),
            MINUTES => bcd(now.minute),
            HOURS => bcd(now.hour),
            WEEKDAY => bcd(now.weekday),
            DAY => bcd(now.day),
            MONTH => bcd(now.month),
            YEAR => bcd((now.year % 100) as u8),
            CENTURY => bcd((now.year / 100 % 100) as u8),
            STATUS_A => TIME_BASE,
            STATUS_B => HOURS_24,
            STATUS_D => VALID,
            _ => 0,
        }
    }
}

impl BusDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError::Width);
        };
        *byte = if offset == INDEX_PORT {
            self.index
        } else {
            self.register()
        };
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError::Width);
        };
        // The clock is the host's: a guest that sets it changes nothing.
        if offset == INDEX_PORT {
            self.index = byte & INDEX_MASK;
        }
        Ok(())
    }
}

fn bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

/// A date of the Gregorian calendar.
#[derive(Debug, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    /// 1 is Sunday.
    weekday: u8,
}

impl Date {
    fn from_unix(seconds: u64) -> Self {
        let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
        // 1970-01-01 was a Thursday.
        let weekday = (days + 4) % 7 + 1;
        let mut year = 1970 + days / 146_097 * 400;
        days %= 146_097;
        while days >= days_of_year(year) {
            days -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while days >= days_of_month(year, month) {
            days -= days_of_month(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: days as u8 + 1,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
            weekday: weekday as u8,
        }
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: u64, month: u8) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rtc: &mut Rtc, index: u8) -> u8 {
        rtc.write(0, &[index]).unwrap();
        let mut byte = [0];
        rtc.read(1, &mut byte).unwrap();
        byte[0]
    }

    #[test]
    fn known_dates() {
        let date = |seconds| {
            let d = Date::from_unix(seconds);
            (
                d.year, d.month, d.day, d.hour, d.minute, d.second, d.weekday,
            )
        };
        assert_eq!(date(0), (1970, 1, 1, 0, 0, 0, 5));
        assert_eq!(date(951_782_400), (2000, 2, 29, 0, 0, 0, 3));
        assert_eq!(date(1_709_251_199), (2024, 2, 29, 23, 59, 59, 5));
        assert_eq!(date(4_107_542_400), (2100, 3, 1, 0, 0, 0, 2));
    }

    #[test]
    fn the_guest_reads_bcd_in_24_hour_mode() {
        let mut rtc = Rtc::with_clock(Box::new(|| 1_709_251_199));
        let [year, month, day] = [YEAR, MONTH, DAY].map(|index| read(&mut rtc, index));
        assert_eq!((year, month, day), (0x24, 0x02, 0x29));
        let [hour, minute, second] = [HOURS, MINUTES, SECONDS].map(|index| read(&mut rtc, index));
        assert_eq!((hour, minute, second), (0x23, 0x59, 0x59));
        assert_eq!(read(&mut rtc, CENTURY), 0x20);
        assert_eq!(read(&mut rtc, STATUS_D), VALID);
        assert_eq!(
            read(&mut rtc, SECONDS | 0x80),
            0x59,
            "bit 7 is the NMI mask"
        );
    }
}
