//! Packets about tracepoints that gdbstub does not get to see: see
//! [`Request`](crate::trace::Request).

use host_io::errors::chain;

use super::Session;
use super::base::errno;
use super::tracepoints::TraceError;
use crate::agent::VariableDefinition;
use crate::limits::PACKET_SIZE;
use crate::packet::encoded;
use crate::trace::{Request, Source};

/// The end of a list.
const END: &str = "l";

/// A refusal whose reason gdb's user is told otherwise. gdb takes an error number that
/// begins with 1 or 2 for something else here.
const REFUSED: &str = "E79";

/// Most bytes of the trace buffer in one answer, in hexadecimal digits.
const MOST_OF_BUFFER: usize = (PACKET_SIZE - 64) / 2;

impl Session<'_> {
    /// The answer to a packet.
    pub(crate) fn answer_trace_request(&mut self, request: Request) -> String {
        if self.is_running() {
            return error(errno::EBUSY);
        }
        match request {
            Request::DefineVariable(definition) => self.define_variable(&definition),
            Request::Value(number) => {
                // A trace frame is the past.
                let value = match self.trace.frame() {
                    Some(frame) => frame.variable(number),
                    None => self.trace.variables.get(number),
                };
                value.map_or("U".to_owned(), |value| format!("V{value:x}"))
            }
            Request::Variables => piece(self.trace_dialog.upload(self.trace.variables.described())),
            Request::Source(source) => {
                let added = Source::parse(&source).and_then(|it| self.trace.add_source(&it));
                self.outcome(added.map_err(TraceError::Definition))
            }
            Request::Tracepoints => piece(self.trace_dialog.upload(self.trace.described())),
            Request::Next => piece(self.trace_dialog.next_upload()),
            Request::Buffer { offset, len } => self.read_trace_buffer(offset, len),
            Request::Disconnected(disconnected) => {
                self.trace.disconnected = disconnected;
                "OK".to_owned()
            }
            Request::Save => self.outcome(Err(TraceError::Save)),
        }
    }

    fn define_variable(&mut self, definition: &str) -> String {
        let defined = VariableDefinition::parse(definition)
            .and_then(|definition| self.trace.variables.define(definition));
        self.outcome(defined.map_err(TraceError::Variable))
    }

    fn outcome(&mut self, outcome: Result<(), TraceError>) -> String {
        match outcome {
            Ok(()) => "OK".to_owned(),
            Err(refusal) => {
                self.notice(chain(&refusal));
                REFUSED.to_owned()
            }
        }
    }

    fn read_trace_buffer(&mut self, offset: u64, len: u64) -> String {
        let len = usize::try_from(len).map_or(MOST_OF_BUFFER, |len| len.min(MOST_OF_BUFFER));
        let (frames, description) = (&self.trace.frames, self.described.now());
        let bytes = self
            .trace_dialog
            .read_copy(frames, description, offset, len);
        if bytes.is_empty() {
            return END.to_owned();
        }
        encoded(&bytes)
    }
}

/// A piece of a list, or its end.
fn piece(piece: Option<String>) -> String {
    piece.unwrap_or(END.to_owned())
}

fn error(number: u8) -> String {
    format!("E{number:02x}")
}
