//! The device status and the driver's handshake (virtio 1.3, sections 2.1 and 3.1).

use std::fmt;

use super::features::FeaturesError;

/// The device status field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(u8);

/// The action that a write to the status asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: the handshake continues.
    Proceed,
    /// Stop all queues and forget what the driver configured.
    Reset,
    /// The driver is ready: start the queues it configured.
    Start,
    /// The driver gave up; only a reset is accepted now.
    GiveUp,
}

/// Why a write to the status was not taken. The driver's fault; the status is
/// what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("the driver wrote undefined bits: {0:#x}")]
    UndefinedBits(u32),
    #[error("the driver cleared {0} without a reset")]
    Cleared(Status),
    #[error("the driver set {bit} before {missing}")]
    TooEarly { bit: Status, missing: Status },
    #[error("the driver had given up; it has to reset the device first")]
    AfterFailed,
    #[error("the driver's choice of features is refused")]
    Features(#[source] FeaturesError),
}

impl Status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: Self = Self(1 << 0);
    /// The guest has a driver for it.
    pub const DRIVER: Self = Self(1 << 1);
    /// The driver is set up.
    pub const DRIVER_OK: Self = Self(1 << 2);
    /// Driver and device agree on the features.
    pub const FEATURES_OK: Self = Self(1 << 3);
    /// The device has failed and needs a reset. Set by the device only.
    pub const NEEDS_RESET: Self = Self(1 << 6);
    /// The driver has given up.
    pub const FAILED: Self = Self(1 << 7);

    /// Bits in the order of the handshake, each with the one it presupposes.
    const HANDSHAKE: [(Self, Self); 3] = [
        (Self::DRIVER, Self::ACKNOWLEDGE),
        (Self::FEATURES_OK, Self::DRIVER),
        (Self::DRIVER_OK, Self::FEATURES_OK),
    ];
    const NAMES: [(Self, &'static str); 6] = [
        (Self::ACKNOWLEDGE, "ACKNOWLEDGE"),
        (Self::DRIVER, "DRIVER"),
        (Self::FEATURES_OK, "FEATURES_OK"),
        (Self::DRIVER_OK, "DRIVER_OK"),
        (Self::NEEDS_RESET, "NEEDS_RESET"),
        (Self::FAILED, "FAILED"),
    ];
    const DEFINED: u8 = Self::ACKNOWLEDGE.0
        | Self::DRIVER.0
        | Self::DRIVER_OK.0
        | Self::FEATURES_OK.0
        | Self::NEEDS_RESET.0
        | Self::FAILED.0;

    /// The value of the status register.
    pub fn bits(self) -> u32 {
        self.0.into()
    }

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The device tells the driver that it needs a reset.
    pub fn set_needs_reset(&mut self) {
        self.0 |= Self::NEEDS_RESET.0;
    }

    /// The driver writes `value` to the status register. `features` judges the
    /// driver's choice of features, and is asked when FEATURES_OK is new.
    pub fn write(
        &mut self,
        value: u32,
        features: impl FnOnce() -> Result<(), FeaturesError>,
    ) -> Result<Step, HandshakeError> {
        if value == 0 {
            *self = Self::default();
            return Ok(Step::Reset);
        }
        let asked = Self::parse(value)?;
        if self.is_begun_again(asked) {
            let asked = Self((asked.0 | Self::ACKNOWLEDGE.0) & !Self::FAILED.0);
            return self.advance(Self::ACKNOWLEDGE, asked, features);
        }
        if self.contains(Self::FAILED) {
            return Err(HandshakeError::AfterFailed);
        }
        if asked.contains(Self::FAILED) {
            self.0 |= Self::FAILED.0;
            return Ok(Step::GiveUp);
        }
        self.advance(*self, asked, features)
    }

    /// Linux sets FAILED after the reset when a driver's probe has failed, and the next
    /// driver (a fixed version of the module, say) begins without another reset. A reset
    /// would have nothing to undo.
    fn is_begun_again(self, asked: Self) -> bool {
        self == Self::FAILED && asked != Self::FAILED
    }

    /// Takes the handshake from `before` to `asked`.
    fn advance(
        &mut self,
        before: Self,
        asked: Self,
        features: impl FnOnce() -> Result<(), FeaturesError>,
    ) -> Result<Step, HandshakeError> {
        before.check_order(asked)?;
        let new = Self(asked.0 & !before.0);
        if new.contains(Self::FEATURES_OK) {
            features().map_err(HandshakeError::Features)?;
        }
        self.0 = before.0 | new.0;
        Ok(if new.contains(Self::DRIVER_OK) {
            Step::Start
        } else {
            Step::Proceed
        })
    }

    /// The bits that are the driver's to set. NEEDS_RESET is not: drivers write
    /// it back because they read it.
    fn parse(value: u32) -> Result<Self, HandshakeError> {
        let undefined = value & !u32::from(Self::DEFINED);
        match u8::try_from(value) {
            Ok(bits) if undefined == 0 => Ok(Self(bits & !Self::NEEDS_RESET.0)),
            _ => Err(HandshakeError::UndefinedBits(undefined)),
        }
    }

    fn check_order(self, asked: Self) -> Result<(), HandshakeError> {
        let cleared = self.0 & !Self::NEEDS_RESET.0 & !asked.0;
        if cleared != 0 {
            return Err(HandshakeError::Cleared(Self(cleared)));
        }
        for (bit, missing) in Self::HANDSHAKE {
            if asked.contains(bit) && !asked.contains(missing) {
                return Err(HandshakeError::TooEarly { bit, missing });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Status {
    /// `ACKNOWLEDGE|DRIVER`, or `RESET` when no bit is set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Self::NAMES
            .iter()
            .filter(|(bit, _)| self.contains(*bit))
            .map(|(_, name)| *name)
            .collect();
        if names.is_empty() {
            return f.write_str("RESET");
        }
        f.write_str(&names.join("|"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: u32 = Status::ACKNOWLEDGE.0 as u32;
    const DRIVER: u32 = ACK | Status::DRIVER.0 as u32;
    const FEATURES: u32 = DRIVER | Status::FEATURES_OK.0 as u32;
    const RUNNING: u32 = FEATURES | Status::DRIVER_OK.0 as u32;
    const FAILED: u32 = Status::FAILED.0 as u32;
    const NEEDS_RESET: u32 = Status::NEEDS_RESET.0 as u32;

    fn at(value: u32) -> Status {
        Status(value as u8)
    }

    fn write(status: &mut Status, value: u32) -> Result<Step, HandshakeError> {
        status.write(value, || Ok(()))
    }

    #[test]
    fn the_handshake_in_order() {
        let mut status = Status::default();
        for value in [ACK, DRIVER, FEATURES] {
            assert_eq!(write(&mut status, value), Ok(Step::Proceed));
            assert_eq!(status.bits(), value);
        }
        assert_eq!(write(&mut status, RUNNING), Ok(Step::Start));
        assert_eq!(write(&mut status, RUNNING), Ok(Step::Proceed), "once");
        assert_eq!(write(&mut status, 0), Ok(Step::Reset));
        assert_eq!(status.bits(), 0);
    }

    #[test]
    fn bits_are_not_taken_before_those_they_presuppose() {
        for (before, value) in [
            (0, Status::DRIVER),
            (ACK, Status::FEATURES_OK),
            (DRIVER, Status::DRIVER_OK),
            (0, Status::DRIVER_OK),
        ] {
            let mut status = at(before);
            let error = write(&mut status, before | value.bits()).unwrap_err();
            assert!(
                matches!(error, HandshakeError::TooEarly { bit, .. } if bit == value),
                "{error}"
            );
            assert_eq!(status, at(before));
        }
    }

    #[test]
    fn refused_features_leave_the_bit_clear_and_may_be_retried() {
        let mut status = at(DRIVER);
        let refusal = FeaturesError::NotOffered(vec!["x".into()]);
        let error = status.write(FEATURES, || Err(refusal.clone())).unwrap_err();
        assert_eq!(error, HandshakeError::Features(refusal));
        assert_eq!(status, at(DRIVER));
        assert_eq!(write(&mut status, FEATURES), Ok(Step::Proceed));
    }

    #[test]
    fn a_refusal_also_stops_a_start_in_the_same_write() {
        let mut status = at(DRIVER);
        let refused = status.write(RUNNING, || Err(FeaturesError::Legacy));
        assert!(refused.is_err());
        assert_eq!(status, at(DRIVER));
    }

    #[test]
    fn features_are_judged_once() {
        let mut status = at(FEATURES);
        let step = status.write(RUNNING, || unreachable!("FEATURES_OK is not new"));
        assert_eq!(step, Ok(Step::Start));
    }

    #[test]
    fn only_a_reset_clears_bits() {
        let mut status = at(FEATURES);
        assert_eq!(
            write(&mut status, ACK),
            Err(HandshakeError::Cleared(at(FEATURES & !ACK)))
        );
        assert_eq!(status, at(FEATURES));
    }

    #[test]
    fn after_failed_only_a_reset_counts() {
        let mut status = at(DRIVER);
        assert_eq!(write(&mut status, FAILED), Ok(Step::GiveUp));
        assert_eq!(status.bits(), DRIVER | FAILED);
        assert_eq!(
            write(&mut status, FEATURES | FAILED),
            Err(HandshakeError::AfterFailed)
        );
        assert_eq!(write(&mut status, 0), Ok(Step::Reset));
    }

    #[test]
    fn after_failed_behind_a_reset_a_driver_may_begin_again() {
        // As Linux does it, which does not acknowledge the device again either.
        let driver = Status::DRIVER.bits();
        let mut status = Status::default();
        assert_eq!(write(&mut status, FAILED), Ok(Step::GiveUp));
        assert_eq!(write(&mut status, FAILED), Err(HandshakeError::AfterFailed));
        assert!(write(&mut status, FAILED | Status::DRIVER_OK.bits()).is_err());
        assert_eq!(status.bits(), FAILED);
        assert_eq!(write(&mut status, FAILED | driver), Ok(Step::Proceed));
        assert_eq!(status.bits(), DRIVER);
        assert_eq!(write(&mut status, FEATURES), Ok(Step::Proceed));
        assert_eq!(write(&mut status, RUNNING), Ok(Step::Start));
    }

    #[test]
    fn needs_reset_is_the_devices_alone() {
        let mut status = at(DRIVER);
        assert_eq!(
            write(&mut status, FEATURES | NEEDS_RESET),
            Ok(Step::Proceed)
        );
        assert_eq!(status.bits(), FEATURES, "a driver cannot set it");
        status.set_needs_reset();
        assert_eq!(write(&mut status, RUNNING), Ok(Step::Start));
        assert_eq!(status.bits(), RUNNING | NEEDS_RESET, "nor clear it");
    }

    #[test]
    fn undefined_bits_are_refused() {
        let mut status = at(ACK);
        for bits in [1 << 4, 1 << 5, 1 << 8, 1 << 31] {
            assert_eq!(
                write(&mut status, DRIVER | bits),
                Err(HandshakeError::UndefinedBits(bits))
            );
        }
        assert_eq!(status, at(ACK));
    }

    #[test]
    fn prints_names() {
        assert_eq!(
            at(DRIVER | NEEDS_RESET).to_string(),
            "ACKNOWLEDGE|DRIVER|NEEDS_RESET"
        );
        assert_eq!(Status::default().to_string(), "RESET");
    }
}
