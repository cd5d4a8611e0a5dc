//! Reads a recording as a whole, before anything is sent: what makes no sense is refused, and what
//! the driver needs is known.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use super::arena::Arena;
use super::rules::Rules;
use crate::recording::{Item, ReadError, Reader, Start, Submit, Used};

/// Guest memory that a recording may ask for. A replay has it twice, so that pieces fit, and a copy.
const MOST_MEMORY: u64 = 512 << 20;
/// Elements of a request, with those of its table.
const MOST_ELEMENTS: usize = 1 << 15;

/// Each text completes a sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("makes no sense: record {record} {what}")]
    Nonsense { record: u64, what: &'static str },
    #[error("needs {} MiB of guest memory, and {} MiB is the most that is supported", .0 >> 20, MOST_MEMORY >> 20)]
    TooLarge(u64),
    #[error("has no requests in it")]
    Empty,
}

/// What a recording has.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    pub requests: u64,
    /// Requests that were not recorded as they were.
    pub left_out: u64,
    /// One more than the highest queue's number.
    pub queues: usize,
    /// Bytes of buffers that are with the device at the same time.
    pub buffers: u64,
    /// Bytes of all rings that are ever started in one connection.
    pub rings: u64,
    pub is_cut_short: bool,
}

impl Survey {
    pub fn of<R: Read>(reader: &mut Reader<R>, mut rules: Rules) -> Result<Self, SurveyError> {
        let mut state = State::default();
        let mut record = 0;
        while let Some(item) = reader.next_item()? {
            record += 1;
            rules.learn(&item);
            let checked = state.item(&item, &rules);
            checked.map_err(|what| SurveyError::Nonsense { record, what })?;
        }
        let mut survey = state.survey;
        survey.is_cut_short = reader.is_cut_short();
        survey.buffers += state.external.values().sum::<u64>();
        match survey.buffers.saturating_add(survey.rings) {
            _ if survey.requests == 0 => Err(SurveyError::Empty),
            need if need > MOST_MEMORY => Err(SurveyError::TooLarge(need)),
            _ => Ok(survey),
        }
    }
}

/// A request that the device has yet to use.
struct Waiting {
    queue: u8,
    cost: u64,
    writable: u64,
}

#[derive(Default)]
struct State {
    survey: Survey,
    is_connected: bool,
    running: BTreeMap<u8, u16>,
    last_number: u64,
    waiting: HashMap<u64, Waiting>,
    /// Bytes with the device now, and of the rings of this connection.
    buffers: u64,
    rings: u64,
    /// Of queues whose buffers may all stay with the device.
    external: BTreeMap<u8, u64>,
}

type Checked = Result<(), &'static str>;

impl State {
    fn item(&mut self, item: &Item, rules: &Rules) -> Checked {
        match item {
            Item::Connected => {
                self.close();
                self.is_connected = true;
                Ok(())
            }
            _ if !self.is_connected => Err("comes before any connection"),
            Item::Closed { .. } => {
                self.close();
                Ok(())
            }
            Item::Reset => {
                self.stop_all();
                Ok(())
            }
            Item::Start(start) => self.start(*start),
            Item::Stop { queue, .. } => {
                self.stop(*queue);
                Ok(())
            }
            Item::Submit(request) => self.submit(request, rules),
            Item::Used(used) => self.used(used),
            _ => Ok(()),
        }
    }

    fn close(&mut self) {
        self.stop_all();
        (self.is_connected, self.rings) = (false, 0);
    }

    fn stop_all(&mut self) {
        self.running.clear();
        self.waiting.clear();
        self.buffers = 0;
    }

    fn stop(&mut self, queue: u8) {
        self.running.remove(&queue);
        let gone = self.waiting.extract_if(|_, waiting| waiting.queue == queue);
        self.buffers -= gone.map(|(_, waiting)| waiting.cost).sum::<u64>();
    }

    fn start(&mut self, start: Start) -> Checked {
        let size = start.size;
        if !(1..=1 << 15).contains(&size) {
            return Err("starts a ring of a size that there is not");
        }
        if self.running.insert(start.queue, size).is_some() {
            return Err("starts a ring that runs");
        }
        // Descriptors, available and used ring, each in pages of its own.
        self.rings += 26 * u64::from(size) + 4 * 4096;
        self.survey.rings = self.survey.rings.max(self.rings);
        self.survey.queues = self.survey.queues.max(usize::from(start.queue) + 1);
        Ok(())
    }

    fn submit(&mut self, request: &Submit, rules: &Rules) -> Checked {
        let Some(size) = self.running.get(&request.queue).copied() else {
            return Err("is a request on a ring that does not run");
        };
        if request.number <= self.last_number {
            return Err("is a request with a number that another had");
        }
        self.last_number = request.number;
        self.survey.requests += 1;
        let cost = match request.trouble {
            Some(_) => 0,
            None => cost(request, size)?,
        };
        self.survey.left_out += u64::from(request.trouble.is_some());
        self.buffers = self.buffers.saturating_add(cost);
        self.survey.buffers = self.survey.buffers.max(self.buffers);
        if rules.is_external(request.queue) {
            let all = self.external.entry(request.queue).or_default();
            *all = (*all).max(cost.saturating_mul(size.into()));
        }
        self.waiting.insert(
            request.number,
            Waiting {
                queue: request.queue,
                cost,
                writable: request.writable_len(),
            },
        );
        Ok(())
    }

    fn used(&mut self, used: &Used) -> Checked {
        let Some(waiting) = self.waiting.remove(&used.number) else {
            return Err("is an answer to a request that there is not");
        };
        self.buffers -= waiting.cost;
        if used.written.len() as u64 > waiting.writable {
            return Err("is an answer that is longer than its buffers");
        }
        Ok(())
    }
}

/// Bytes of guest memory that a request takes.
fn cost(request: &Submit, size: u16) -> Result<u64, &'static str> {
    let elements = request.elements.len();
    if elements > MOST_ELEMENTS {
        return Err("is a request with more buffers than there can be");
    }
    let before = request.table_after.map(usize::from);
    if before.is_some_and(|before| before >= elements) {
        return Err("is a request with an empty table");
    }
    let descriptors = before.map_or(elements, |before| before + 1);
    if !(1..=usize::from(size)).contains(&descriptors) {
        return Err("is a request that is longer than its ring");
    }
    if request.readable.len() as u64 != request.readable_len() {
        return Err("is a request whose content is not as long as its buffers");
    }
    let buffers = request.elements.iter().map(|e| Arena::cost(e.len.into()));
    let table = request
        .table_after
        .map_or(0, |_| Arena::cost(16 * elements as u64));
    Ok(buffers.fold(table, u64::saturating_add))
}

#[cfg(test)]
#[path = "survey_test.rs"]
mod tests;
