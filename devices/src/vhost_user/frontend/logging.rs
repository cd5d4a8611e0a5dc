//! Having the backend log the pages that it writes, for as long as a user wants to know.

use std::ops::Range;
use std::sync::Arc;

use super::Frontend;
use crate::deadline::Deadline;
use crate::vhost_user::error::{Error, Problem};
use crate::virtio::DeviceEvent;

impl Frontend {
    /// Has the backend log the pages that it writes from here on, or no longer. Its
    /// successors do too. An error is a refusal: there is no log then.
    pub(crate) fn log_writes(&mut self, wanted: bool) -> Result<DeviceEvent, Error> {
        if wanted == self.ram.log().is_some() {
            return Ok(DeviceEvent::Nothing);
        }
        match wanted {
            true => {
                let started = self.start_log();
                started.map_err(|problem| self.link.error(problem))?;
            }
            false => self.ram.stop_log(),
        }
        match self.tell_of_log() {
            Err(problem) if !problem.ends_connection() => {
                self.ram.stop_log();
                Err(self.link.error(problem))
            }
            told => Ok(self.unless(told)),
        }
    }

    /// Tells the backend of the log, or that there is none any more.
    fn tell_of_log(&mut self) -> Result<(), Problem> {
        let Some(features) = self.driver.features() else {
            return Ok(());
        };
        let running = self.driver.rings().filter(|(_, ring)| ring.is_running());
        let running = running.map(|(index, ring)| self.ram.ring_addresses(index, ring.queue()));
        let running = running.collect::<Result<Vec<_>, _>>()?;
        let Some(session) = self.link.session() else {
            return Ok(());
        };
        let deadline = Deadline::after(self.options.deadline);
        session.log(self.ram.log().map(Arc::as_ref), features, &deadline)?;
        for addresses in running {
            session.move_ring(addresses, &deadline)?;
        }
        Ok(())
    }

    fn start_log(&mut self) -> Result<(), Problem> {
        if self.link.is_given_up() {
            return Err(Problem::Lost);
        }
        let session = self.link.session().ok_or(Problem::Away)?;
        match session.can_log() {
            true => self.ram.start_log(),
            false => Err(Problem::NoLog),
        }
    }

    /// The pages that the backend has written since this was asked last, if they are
    /// logged.
    pub(crate) fn written_pages(&self) -> Option<Vec<Range<u64>>> {
        self.ram.written_pages()
    }
}
