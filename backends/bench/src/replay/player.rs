//! Drives one backend, or two, through a recording.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::time::{Duration, Instant};

use vhost_user_wire::{DeviceType, features};

use super::compare::{Answer, Difference, compare};
use super::error::LaneError;
use super::lane::Lane;
use super::outcome::{First, Outcome};
use super::rules::{Rule, Rules};
use crate::device::{self, Outline};
use crate::recording::{Config, Item, ReadError, Reader, Submit, Used};

/// Requests before a different one that are shown.
const SHOWN: usize = 5;
/// Notes about the same kind of thing that are kept.
const NOTES: usize = 16;

/// Why a replay did not come to its end. The backend's trouble is a difference, and not this.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    #[error("{backend} cannot be replayed to")]
    Lane {
        backend: &'static str,
        source: LaneError,
    },
    #[error("the recording")]
    Read(#[from] ReadError),
    #[error(
        "{backend} has a disk of {found} sectors, and the recorded one had {expected}: give it a \
         copy of the image as it was before the recording began (docs/replay.md)"
    )]
    Disk {
        backend: &'static str,
        expected: u64,
        found: u64,
    },
}

/// A request whose answer is to come.
struct Pending {
    request: Submit,
    rule: Rule,
}

pub struct Player {
    device_type: Option<DeviceType>,
    rules: Rules,
    /// The backend, behind another one with whose answers its own are compared, if there is one.
    lanes: Vec<Lane>,
    /// Whether requests keep their times.
    is_paced: bool,
    began: Instant,
    first_time: Option<u64>,
    pending: HashMap<u64, Pending>,
    /// The queue with staged requests.
    staged: Option<u8>,
    before: VecDeque<String>,
    config: Option<Config>,
    is_config_checked: bool,
    outcome: Outcome,
}

impl Player {
    pub fn new(
        device_type: Option<DeviceType>,
        rules: Rules,
        lanes: Vec<Lane>,
        is_paced: bool,
    ) -> Self {
        Self {
            device_type,
            rules,
            lanes,
            is_paced,
            began: Instant::now(),
            first_time: None,
            pending: HashMap::new(),
            staged: None,
            before: VecDeque::new(),
            config: None,
            is_config_checked: false,
            outcome: Outcome::default(),
        }
    }

    /// Plays all of it; `progress` is called with the number of requests so far.
    pub fn play<R: Read>(
        mut self,
        reader: &mut Reader<R>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Outcome, PlayError> {
        while self.outcome.ended_early.is_none()
            && let Some(item) = reader.next_item()?
        {
            self.rules.learn(&item);
            let is_more =
                matches!(&item, Item::Submit(request) if Some(request.queue) == self.staged);
            if !is_more {
                self.publish()?;
            }
            match item {
                Item::Submit(request) => {
                    self.submit(request)?;
                    progress(self.outcome.requests);
                }
                Item::Used(used) => self.used(&used),
                other => self.control(other)?,
            }
        }
        self.publish()?;
        self.outcome.elapsed = self.began.elapsed();
        Ok(self.outcome)
    }

    /// Has all backends do something. One that cannot at first is an error; one that fails later
    /// has done something else than the recorded one.
    fn each(
        &mut self,
        mut act: impl FnMut(&mut Lane) -> Result<(), LaneError>,
    ) -> Result<(), PlayError> {
        for lane in &mut self.lanes {
            let backend = lane.name();
            match act(lane) {
                Ok(()) => {}
                Err(source) if self.outcome.equal + self.outcome.different == 0 => {
                    return Err(PlayError::Lane { backend, source });
                }
                Err(error) => {
                    let lines = lane.last_lines().join("\n");
                    let text = format!("{backend} failed: {error}\n{lines}");
                    self.outcome.ended_early = Some(text.trim_end().to_owned());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn control(&mut self, item: Item) -> Result<(), PlayError> {
        match item {
            Item::Connected => {
                (self.config, self.is_config_checked) = (None, false);
                self.pending.clear();
                self.each(Lane::connect)
            }
            Item::ProtocolFeatures(features) => self.each(|lane| {
                lane.set_protocol_features(features);
                Ok(())
            }),
            Item::Features(features) => self.set_features(features),
            Item::Status(status) => self.each(|lane| match lane.is_set_up() {
                true => lane.set_status(status),
                false => Ok(()),
            }),
            Item::Reset => {
                self.pending.clear();
                self.each(|lane| match lane.is_set_up() {
                    true => lane.reset(),
                    false => Ok(()),
                })
            }
            Item::Config(config) => {
                if config.offset == 0 && self.config.is_none() {
                    self.config = Some(config);
                }
                self.check_config()
            }
            Item::ConfigWritten(config) => self.each(|lane| lane.write_config(&config)),
            Item::Start(start) => self.each(|lane| lane.start(start)),
            Item::Enable { queue, on } => self.each(|lane| lane.enable(queue, on)),
            Item::Stop { queue, .. } => {
                self.pending
                    .retain(|_, pending| pending.request.queue != queue);
                self.each(|lane| lane.stop(queue))
            }
            Item::Closed { .. } => {
                self.pending.clear();
                self.each(|lane| {
                    lane.disconnect();
                    Ok(())
                })
            }
            Item::Submit(_) | Item::Used(_) => Ok(()),
        }
    }

    fn set_features(&mut self, features: u64) -> Result<(), PlayError> {
        let mut missing = Vec::new();
        self.each(|lane| {
            missing.push((lane.set_features(features)?, lane.name()));
            Ok(())
        })?;
        let own = self.device_type.map_or(&[][..], features::own_names);
        for (missing, backend) in missing {
            if missing != 0 {
                let names = features::names(missing, own).join(", ");
                self.note(format!(
                    "{backend} does not offer {names}, which the recorded driver accepted"
                ));
            }
        }
        self.check_config()
    }

    fn note(&mut self, text: String) {
        let notes = &mut self.outcome.notes;
        if notes.len() < NOTES && !notes.contains(&text) {
            notes.push(text);
        }
    }

    /// Compares the configuration space as it was at first.
    fn check_config(&mut self) -> Result<(), PlayError> {
        let is_set_up = self.lanes.iter().all(Lane::is_set_up);
        let Some(config) = self.config.clone().filter(|_| is_set_up) else {
            return Ok(());
        };
        if std::mem::replace(&mut self.is_config_checked, true) {
            return Ok(());
        }
        let mut found = Vec::new();
        self.each(|lane| {
            found.push((lane.config(config.bytes.len() as u32)?, lane.name()));
            Ok(())
        })?;
        for (found, backend) in found {
            if let Some(found) = found {
                self.compare_config(backend, &config.bytes, &found)?;
            }
        }
        Ok(())
    }

    fn compare_config(
        &mut self,
        backend: &'static str,
        expected: &[u8],
        found: &[u8],
    ) -> Result<(), PlayError> {
        let sectors = |bytes: &[u8]| bytes.first_chunk().map(|b| u64::from_le_bytes(*b));
        if self.device_type == Some(DeviceType::BLK)
            && let (Some(expected), Some(found)) = (sectors(expected), sectors(found))
            && expected != found
        {
            return Err(PlayError::Disk {
                backend,
                expected,
                found,
            });
        }
        let both = expected.iter().zip(found);
        if let Some(at) = both
            .enumerate()
            .find_map(|(at, (a, b))| (a != b).then_some(at))
        {
            self.note(format!(
                "{backend} has another configuration space: byte {at} is {:#04x}, and was {:#04x}",
                found[at], expected[at]
            ));
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), PlayError> {
        match self.staged.take() {
            Some(queue) => self.each(|lane| lane.publish(queue)),
            None => Ok(()),
        }
    }

    fn submit(&mut self, request: Submit) -> Result<(), PlayError> {
        self.outcome.requests += 1;
        if request.trouble.is_some() {
            self.outcome.left_out += 1;
            return Ok(());
        }
        self.keep_pace(request.time);
        let is_external = self.rules.is_external(request.queue);
        self.each(|lane| lane.stage(&request, is_external))?;
        self.staged = Some(request.queue);
        if is_external {
            self.outcome.external += 1;
            return Ok(());
        }
        let rule = self.rules.of(&request);
        self.pending
            .insert(request.number, Pending { request, rule });
        Ok(())
    }

    fn keep_pace(&mut self, time: u64) {
        let first = *self.first_time.get_or_insert_with(|| {
            self.began = Instant::now();
            time
        });
        if self.is_paced {
            let due = self.began + Duration::from_nanos(time.saturating_sub(first));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    /// Compares the answers that there are now with the recorded one, or with each other.
    fn used(&mut self, used: &Used) {
        let Some(Pending { request, rule }) = self.pending.remove(&used.number) else {
            return;
        };
        let recorded = Answer::from(used);
        let mut answers = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            match lane.wait(request.queue, request.number) {
                Ok(answer) => answers.push(answer),
                Err(why) => {
                    let missing = Difference::Missing { why };
                    self.outcome.ended_early = Some(format!("{} gave no answer", lane.name()));
                    let expected = answers.pop().unwrap_or(recorded.clone());
                    return self.differ(&request, missing, expected, None, &recorded, index);
                }
            }
        }
        let Some(found) = answers.pop() else { return };
        let expected = answers.pop().unwrap_or_else(|| recorded.clone());
        match compare(&expected, &found, request.writable_len(), &rule) {
            Some(difference) => {
                let index = self.lanes.len() - 1;
                let found = Some(found);
                self.differ(&request, difference, expected, found, &recorded, index);
            }
            None => self.outcome.equal += 1,
        }
        self.remember(&request);
    }

    fn differ(
        &mut self,
        request: &Submit,
        difference: Difference,
        expected: Answer,
        found: Option<Answer>,
        recorded: &Answer,
        lane: usize,
    ) {
        self.outcome.different += 1;
        if self.outcome.first.is_some() {
            return;
        }
        let is_against = self.lanes.len() > 1;
        self.outcome.first = Some(First {
            number: request.number,
            queue: request.queue,
            what: self.describe(request),
            device_type: self.device_type,
            difference,
            expected,
            found,
            recorded: is_against.then(|| recorded.clone()),
            before: self.before.iter().cloned().collect(),
            output: self.lanes[lane].last_lines(),
        });
    }

    fn remember(&mut self, request: &Submit) {
        // Nobody looks behind the first difference.
        if self.outcome.first.is_none() {
            let (number, queue) = (request.number, request.queue);
            let what = self.describe(request);
            self.before
                .push_back(format!("request {number}, queue {queue}: {what}"));
            if self.before.len() > SHOWN {
                self.before.pop_front();
            }
        }
    }

    fn describe(&self, request: &Submit) -> String {
        let outline = Outline {
            queue: request.queue,
            begin: &request.readable,
            readable: request.readable_len(),
            writable: request.writable_len(),
        };
        device::describe(self.device_type, &outline)
    }
}
