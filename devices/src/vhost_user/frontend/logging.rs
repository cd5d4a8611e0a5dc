//! Having the backend log the pages that it writes, for as long as a user wants to know.

use std::ops::Range;
use std::sync::Arc;

use super::{Frontend, Link};
use crate::deadline::Deadline;
use crate::vhost_user::error::{Error, Problem};
use crate::vhost_user::session::page_log::PageLog;
use crate::virtio::DeviceEvent;

impl Frontend {
    /// Has the backend log the pages that it writes from here on, or no longer. Its
    /// successors do too. An error is a refusal: there is no log then.
    pub(crate) fn log_writes(&mut self, wanted: bool) -> Result<DeviceEvent, Error> {
        if wanted == self.page_log.is_some() {
            return Ok(DeviceEvent::Nothing);
        }
        self.page_log = match wanted {
            true => Some(self.new_log().map_err(|problem| self.error(problem))?),
            false => None,
        };
        match self.tell_of_log() {
            Err(problem) if !problem.ends_connection() => {
                self.page_log = None;
                Err(self.error(problem))
            }
            told => Ok(self.unless(told)),
        }
    }

    /// Tells the backend of the log, or that there is none any more.
    fn tell_of_log(&mut self) -> Result<(), Problem> {
        let Some(features) = self.driver.features else {
            return Ok(());
        };
        let rings = (0..).zip(&self.driver.rings);
        let running = rings.filter_map(|(index, ring)| {
            let ring = ring.as_ref().filter(|ring| ring.is_running())?;
            Some(self.ring_addresses(index, &ring.queue))
        });
        let running = running.collect::<Result<Vec<_>, _>>()?;
        let Link::Up(session) = &mut self.link else {
            return Ok(());
        };
        let deadline = Deadline::after(self.options.deadline);
        session.log(self.page_log.as_deref(), features, &deadline)?;
        for addresses in running {
            session.move_ring(addresses, &deadline)?;
        }
        Ok(())
    }

    fn new_log(&self) -> Result<Arc<PageLog>, Problem> {
        match &self.link {
            Link::Up(session) if session.can_log() => {}
            Link::Up(_) => return Err(Problem::NoLog),
            Link::Away(_) => return Err(Problem::Away),
            Link::GivenUp => return Err(Problem::Lost),
        }
        let log = PageLog::new(self.memory.guest()).map_err(Problem::PageLog)?;
        Ok(Arc::new(log))
    }

    /// The pages that the backend has written since this was asked last, if they are
    /// logged.
    pub(crate) fn written_pages(&self) -> Option<Vec<Range<u64>>> {
        self.page_log.as_ref().map(|log| log.take())
    }
}
