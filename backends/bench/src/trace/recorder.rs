//! Makes records of what it is shown.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vhost_user_wire::{DeviceType, HEADER_SIZE, Header};

use super::descriptors::Descriptors;
use super::pending::Pending;
use super::record::{Event, Fragment, Message, Record, Side};
use super::sink::{Sink, SinkError};

/// Gives records their times, numbers and connections. Clones write to the same trace.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    /// Until the trace is finished, if there is one.
    sink: Option<Sink>,
    descriptors: Descriptors,
    records: u64,
    connections: u32,
}

impl Recorder {
    /// The time of the trace begins now.
    pub fn new(sink: Sink) -> Self {
        Self::writing_to(Some(sink))
    }

    /// Nobody wants a trace.
    pub fn silent() -> Self {
        Self::writing_to(None)
    }

    fn writing_to(sink: Option<Sink>) -> Self {
        let state = State {
            sink,
            descriptors: Descriptors::default(),
            records: 0,
            connections: 0,
        };
        let shared = Shared {
            began: Instant::now(),
            state: Mutex::new(state),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A frontend and a backend of this device are connected.
    pub fn connected(&self, device: &str, device_type: Option<DeviceType>) -> ConnectionRecorder {
        let mut state = self.lock();
        state.connections += 1;
        let number = state.connections;
        drop(state);
        let connection = ConnectionRecorder {
            recorder: self.clone(),
            device: device.to_owned(),
            device_type: device_type.map(DeviceType::id),
            number,
            pending: Mutex::default(),
        };
        connection.event(Event::Connected);
        connection
    }

    /// Waits until the trace is written. What happens later is not in it.
    pub fn finish(&self) -> Result<(), SinkError> {
        let sink = self.lock().sink.take();
        sink.map_or(Ok(()), Sink::finish)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the trace began.
    fn now(&self) -> u64 {
        // 2^64 ns are 584 years.
        self.shared.began.elapsed().as_nanos() as u64
    }
}

/// Records what happens on one connection. It may be called from several threads.
pub struct ConnectionRecorder {
    recorder: Recorder,
    device: String,
    device_type: Option<u32>,
    number: u32,
    /// By channel: the frontend's, the backend's.
    pending: Mutex<[Pending; 2]>,
}

impl ConnectionRecorder {
    /// Bytes that `from` has sent on this channel, and the files that came with them. They are a
    /// message if they have a header and are as long as that says.
    pub fn sent(&self, channel: Side, from: Side, bytes: &[u8], files: &[impl AsFd]) {
        let header = bytes.first_chunk().copied().map(Header::from_bytes);
        match header {
            Some(header) if bytes.len() == HEADER_SIZE + header.size as usize => {
                self.message(channel, from, header, &bytes[HEADER_SIZE..], files);
            }
            _ => self.fragment(channel, from, bytes, files),
        }
    }

    pub fn message(
        &self,
        channel: Side,
        from: Side,
        header: Header,
        payload: &[u8],
        files: &[impl AsFd],
    ) {
        let time = self.recorder.now();
        let latency = self.match_reply(channel, &header, time);
        let mut state = self.recorder.lock();
        let files = files
            .iter()
            .map(|file| state.descriptors.describe(file.as_fd()));
        let message = Message {
            channel,
            from,
            request: header.request,
            flags: header.flags,
            size: header.size,
            payload: payload.to_vec(),
            files: files.collect(),
            latency,
        };
        self.push(&mut state, time, Event::Message(message));
    }

    /// Part of something too long to be kept, or of something that its sender did not finish.
    pub fn fragment(&self, channel: Side, from: Side, bytes: &[u8], files: &[impl AsFd]) {
        let time = self.recorder.now();
        let mut state = self.recorder.lock();
        let files = files
            .iter()
            .map(|file| state.descriptors.describe(file.as_fd()));
        let fragment = Fragment {
            channel,
            from,
            bytes: bytes.to_vec(),
            files: files.collect(),
        };
        self.push(&mut state, time, Event::Fragment(fragment));
    }

    pub fn closed(&self, by: Side) {
        self.event(Event::Closed { by });
    }

    /// Something that is no message.
    pub fn event(&self, event: Event) {
        let time = self.recorder.now();
        self.push(&mut self.recorder.lock(), time, event);
    }

    /// Nanoseconds since the trace began.
    pub fn now(&self) -> u64 {
        self.recorder.now()
    }

    pub fn device_type(&self) -> Option<DeviceType> {
        self.device_type.and_then(DeviceType::new)
    }

    fn match_reply(&self, channel: Side, header: &Header, time: u64) -> Option<u64> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = &mut pending[usize::from(channel == Side::Backend)];
        if header.is_reply() {
            return pending.reply(header, time);
        }
        pending.request(channel, header, time);
        None
    }

    fn push(&self, state: &mut State, time: u64, event: Event) {
        let record = Record {
            number: state.records,
            time,
            device: self.device.clone(),
            device_type: self.device_type,
            connection: self.number,
            event,
        };
        state.records += 1;
        if let Some(sink) = &mut state.sink {
            sink.push(record);
        }
    }
}
