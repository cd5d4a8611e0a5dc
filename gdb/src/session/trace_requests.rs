//! Packets about tracepoints that gdbstub does not get to see: see
//! [`Request`](crate::trace::Request).

use super::Session;
use super::base::errno;
use super::tracepoints::TraceError;
use crate::trace::{Request, VariableDefinition};

/// The end of a list.
const END: &str = "l";

impl Session<'_> {
    /// The answer to a packet.
    pub(crate) fn answer_trace_request(&mut self, request: Request) -> String {
        if self.is_running() {
            return error(errno::EBUSY);
        }
        match request {
            Request::DefineVariable(definition) => self.define_variable(&definition),
            Request::Value(number) => {
                // What a trace frame holds is the past.
                let value = match self.trace.frame() {
                    Some(frame) => frame.variable(number),
                    None => self.trace.variables.get(number),
                };
                value.map_or("U".to_owned(), |value| format!("V{value:x}"))
            }
            Request::Variables => {
                self.trace_uploads = self.trace.variables.described().collect();
                self.next_upload()
            }
            Request::Next => self.next_upload(),
        }
    }

    fn define_variable(&mut self, definition: &str) -> String {
        let defined = VariableDefinition::parse(definition)
            .and_then(|definition| self.trace.variables.define(definition));
        match defined {
            Ok(()) => "OK".to_owned(),
            Err(refusal) => {
                self.notice(super::chain(&TraceError::Variable(refusal)));
                error(errno::EINVAL)
            }
        }
    }

    fn next_upload(&mut self) -> String {
        self.trace_uploads.pop_front().unwrap_or(END.to_owned())
    }
}

fn error(number: u8) -> String {
    format!("E{number:02x}")
}
