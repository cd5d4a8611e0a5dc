//! Where rings resume, and having a backend start them there.

use vhost::vhost_user::message::VhostUserVringAddr;

use super::driver::Driver;
use super::offer::Offer;
use super::ram::Ram;
use super::ring::{CannotResume, Evidence, Ring};
use crate::deadline::Deadline;
use crate::vhost_user::error::Problem;
use crate::vhost_user::profile::Profile;
use crate::vhost_user::session::Session;
use crate::vhost_user::session::rings::RingSetup;
use crate::virtio::DeviceType;

/// Where a ring is, and where it resumes.
pub struct ResumePoint {
    addresses: VhostUserVringAddr,
    base: u32,
}

impl ResumePoint {
    fn queue(&self) -> u16 {
        // There are no more queues than a u16 counts.
        self.addresses.index as u16
    }
}

/// Where each ring that the driver has started resumes.
pub fn resume_points(
    driver: &Driver,
    ram: &Ram,
    offer: &Offer,
    profile: &Profile,
    device_type: DeviceType,
) -> Result<Vec<ResumePoint>, Problem> {
    let point = |(queue, ring): (u16, &Ring)| {
        offer.check_queue(queue)?;
        let base = ring.base(evidence(driver, profile, queue), ram.guest());
        let base = base.map_err(|unknown| match unknown {
            CannotResume::InFlight => Problem::InFlight { queue, device_type },
            CannotResume::Position => Problem::PositionLost { queue },
        })?;
        let addresses = ram.ring_addresses(queue, ring.queue())?;
        Ok(ResumePoint { addresses, base })
    };
    driver.rings().map(point).collect()
}

/// The evidence of a queue's requests in flight, other than its rings.
fn evidence(driver: &Driver, profile: &Profile, queue: u16) -> Evidence {
    if driver.inflight().is_some() {
        Evidence::Inflight
    } else if profile.in_order.includes(queue) {
        Evidence::InOrder
    } else {
        Evidence::None
    }
}

/// Has the backend start rings, and work.
pub fn start_rings(
    session: &mut Session,
    driver: &mut Driver,
    points: Vec<ResumePoint>,
    deadline: &Deadline,
) -> Result<(), Problem> {
    for point in points {
        let Some(ring) = driver.ring_mut(point.queue()) else {
            continue;
        };
        ring.mark_running(point.base);
        let setup = ring_setup(ring, point.addresses, point.base)?;
        session.start_ring(&setup, deadline)?;
        ring.signal();
    }
    Ok(session.begin(deadline)?)
}

/// The setup that a backend has to know of a ring that it starts.
pub fn ring_setup(
    ring: &mut Ring,
    addresses: VhostUserVringAddr,
    base: u32,
) -> Result<RingSetup, Problem> {
    let queue = addresses.index as u16;
    let failed = |source| Problem::EventFd { queue, source };
    Ok(RingSetup {
        addresses,
        size: ring.queue().size,
        base,
        kick: ring.connect().map_err(failed)?,
        call: ring.call().map_err(failed)?,
    })
}
