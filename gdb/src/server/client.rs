//! The client that is attached.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, MultiThreadStopReason};

use super::agreed::Agreed;
use super::ahead::{self, Ahead};
use super::dialect::{Dialect, Said};
use super::inlet::{Arrival, Inlet, framed};
use super::stream::Stream;
use super::stub::{self, Fault, Machine, NO_ACK, expedited, fed, new_machine};
use super::waited::Waited;
use super::wire::Wire;
use crate::qemu::Queries;
use crate::session::{Session, Stop};

/// Most bytes that are read from a client at once.
const BUFFER_SIZE: usize = 64 * 1024;

/// The answer to `vKill`.
const KILLED: &str = "OK";
/// The answer to `k`: gdb reads none, and LLDB wants to hear of a process that has been
/// killed.
const KILLED_FOR_LLDB: &str = "X09";

/// Announced in `qSupported` by a client that shows `E.` and a text.
const ERROR_TEXTS: &[u8] = b"error-message+";

/// The answer to a packet that makes no sense: EINVAL.
const EINVAL: &str = "E16";

/// Why a client leaves.
#[derive(Debug)]
pub(super) enum Leave {
    /// It said so, by `D`.
    Detached,
    /// It sent `k`.
    Killed,
    /// It is gone.
    Closed,
    /// The guest is, with this exit status.
    Exited(u8),
    /// It does not speak the protocol.
    Fault(String),
}

/// A connection, gdbstub's state of it, and the input that has been read but not used.
pub(super) struct Client<'t> {
    stream: Stream,
    /// `None` only while a step of the state machine runs, or after it failed.
    machine: Option<Machine<'t>>,
    input: Vec<u8>,
    used: usize,
    inlet: Inlet,
    waited: Waited,
    dialect: Dialect,
    queries: Queries,
    agreed: Agreed,
    /// The client shows errors that are texts.
    shows_errors: bool,
    /// The answer to the packet that kills, if that comes next.
    kill_answer: &'static str,
    /// The guest is stopped for it: from its first packet on, so that somebody who
    /// only knocks at the port does not disturb the guest.
    attached: bool,
}

impl<'t> Client<'t> {
    /// # Errors
    /// The reason, for the log.
    pub fn new(stream: Stream, session: &mut Session<'t>) -> Result<Self, String> {
        let machine = new_machine(session)?;
        Ok(Self {
            stream,
            machine: Some(machine),
            input: Vec::new(),
            used: 0,
            inlet: Inlet::default(),
            waited: Waited::default(),
            dialect: Dialect::default(),
            queries: Queries::default(),
            agreed: Agreed::default(),
            shows_errors: false,
            kill_answer: KILLED,
            attached: false,
        })
    }

    pub fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether answers wait for the socket. No input is taken then.
    pub fn is_blocked(&mut self) -> bool {
        self.wire().is_some_and(|wire| !wire.pending().is_empty())
    }

    /// The socket is ready for something: sends, then reads once and answers.
    /// False when there was nothing to read, or no room for answers.
    pub fn on_ready(&mut self, session: &mut Session<'t>) -> Result<bool, Leave> {
        self.send()?;
        self.settle(session)?;
        self.use_input(session)?;
        if self.is_blocked() {
            return Ok(false);
        }
        let received = self.receive()?;
        self.use_input(session)?;
        Ok(received)
    }

    /// Reads up to the end of what has been sent, to see whether the client is
    /// gone. The end of a connection comes behind all of its data, of which the
    /// system keeps a few hundred kilobytes.
    pub fn check(&mut self, session: &mut Session<'t>) -> Result<(), Leave> {
        for _ in 0..16 {
            if !self.on_ready(session)? {
                break;
            }
        }
        Ok(())
    }

    /// The session may have a stop to report.
    pub fn on_stop(&mut self, session: &mut Session<'t>) -> Result<(), Leave> {
        self.settle(session)?;
        self.send()
    }

    /// Sends the remaining output before the client leaves; best effort.
    pub fn farewell(&mut self) {
        let _ = self.send();
    }

    /// Feeds gdbstub until all input is used or answers wait.
    fn use_input(&mut self, session: &mut Session<'t>) -> Result<(), Leave> {
        while self.used < self.input.len() && !self.is_blocked() {
            let byte = self.input[self.used];
            self.used += 1;
            match self.inlet.take(byte) {
                Ok(Some(arrival)) => self.on_arrival(session, arrival)?,
                Ok(None) => {}
                Err(garbage) => return Err(Leave::Fault(garbage.to_string())),
            }
            self.settle(session)?;
            if self.is_blocked() {
                self.send()?;
            }
        }
        Ok(())
    }

    fn on_arrival(&mut self, session: &mut Session<'t>, arrival: Arrival) -> Result<(), Leave> {
        if self.waited.explains(&arrival, self.used) {
            return Ok(());
        }
        match arrival {
            Arrival::Packet(body) if self.inlet.is_trusting() => {
                self.attach(session);
                self.on_packet(session, &body)
            }
            Arrival::Packet(body) => self.on_confirmed(session, body),
            Arrival::Interrupt => {
                self.attach(session);
                self.feed(session, [3]).map_err(fault)
            }
            Arrival::Damaged => {
                self.with_wire(Wire::reject);
                Ok(())
            }
            // There is no such thing without acknowledgements, but gdb 13 sends it
            // when an answer takes longer than its `remotetimeout`.
            Arrival::Resend if self.inlet.is_trusting() => Ok(()),
            Arrival::Resend => {
                self.with_wire(Wire::repeat);
                Ok(())
            }
        }
    }

    /// Confirms a packet before it is dealt with, which may take long.
    fn on_confirmed(&mut self, session: &mut Session<'t>, body: Vec<u8>) -> Result<(), Leave> {
        self.with_wire(Wire::acknowledge);
        self.send()?;
        self.attach(session);
        self.on_packet(session, &body)?;
        self.receive_more();
        self.waited = Waited {
            packet: body,
            input: self.input.len(),
        };
        Ok(())
    }

    fn attach(&mut self, session: &mut Session<'t>) {
        if !self.attached {
            self.attached = true;
            session.attach();
        }
    }

    /// Answers a packet, and says why a breakpoint is refused to whom shows it: gdb 18
    /// does for a hardware breakpoint, and for no other kind of point.
    fn on_packet(&mut self, session: &mut Session<'t>, body: &[u8]) -> Result<(), Leave> {
        self.deal_with(session, body)?;
        let shown = self.shows_errors && body.starts_with(b"Z1");
        if let Some(refusal) = session.take_refusal(shown) {
            self.with_wire(|wire| wire.explain_error(&refusal));
        }
        Ok(())
    }

    /// Answers a packet; one that must not reach gdbstub as it is takes a detour.
    fn deal_with(&mut self, session: &mut Session<'t>, body: &[u8]) -> Result<(), Leave> {
        if let Some(query) = self.queries.take(body) {
            let answer = session.answer_query(query);
            self.with_wire(|wire| wire.packet(&answer));
            return Ok(());
        }
        match Ahead::of(body) {
            Ahead::Pass => self.answer(session, body),
            Ahead::Define(definition) => {
                session.define_tracepoint(&definition);
                self.tell(session);
                self.answer(session, ahead::NO_ACTIONS)
            }
            Ahead::Start => {
                session.plant_tracepoints();
                self.tell(session);
                self.answer(session, body)
            }
            Ahead::Supported => {
                self.shows_errors = body
                    .split(|byte| b":;".contains(byte))
                    .any(|feature| feature == ERROR_TEXTS);
                self.answer(session, body)?;
                self.with_wire(|wire| wire.extend_packet(ahead::FEATURES));
                Ok(())
            }
            Ahead::Read { addr, len } => {
                let stopped = session.selection.focus().0 + 1;
                let bytes = session.read_for_thread(self.dialect.general(stopped), addr, len);
                self.with_wire(|wire| match bytes {
                    // The letter tells no bytes from a packet that is not known.
                    Ok(bytes) => wire.binary(b'b', &bytes),
                    Err(number) => wire.packet(&format!("E{number:02x}")),
                });
                Ok(())
            }
            Ahead::Breakpoint(place, program) => match session.set_program(place, program) {
                Ok(()) => self.answer(session, body),
                Err(_) => {
                    self.refuse(body);
                    Ok(())
                }
            },
            Ahead::Inquire(inquiry) => {
                let stopped = session.selection.focus().0 + 1;
                let answer = session.answer_inquiry(self.dialect.general(stopped), &inquiry);
                self.with_wire(|wire| wire.packet(&answer));
                Ok(())
            }
            Ahead::Ask(request) => {
                let takes_text = request.takes_text();
                let answer = session.answer_trace_request(request);
                if takes_text {
                    self.tell(session);
                }
                self.with_wire(|wire| wire.packet(&answer));
                Ok(())
            }
            Ahead::Malformed => {
                self.refuse(body);
                Ok(())
            }
        }
    }

    /// Has gdbstub answer. A packet that gdbstub does not understand is answered
    /// with an error, and the session continues.
    fn answer(&mut self, session: &mut Session<'t>, body: &[u8]) -> Result<(), Leave> {
        let threads = session.guest.machine.vcpu_count();
        let stopped = session.selection.focus().0 + 1;
        self.kill_answer = match body {
            b"k" => KILLED_FOR_LLDB,
            _ => KILLED,
        };
        let said = self.dialect.translate(body, threads, stopped);
        let answered = match &said {
            Said::Plainly => self.feed(session, framed(body)),
            Said::Otherwise(body) => self.feed(session, framed(body)),
            Said::Nonsense => {
                self.refuse(body);
                return Ok(());
            }
        };
        match answered {
            Ok(()) => {
                self.agreed.note(body);
                if body == NO_ACK {
                    self.inlet.trust();
                }
                Ok(())
            }
            Err(_) => {
                self.revive(session)?;
                self.refuse(body);
                Ok(())
            }
        }
    }

    /// gdbstub does not survive a packet that it does not understand: another one
    /// takes its place and is told what the client and it had agreed on.
    fn revive(&mut self, session: &mut Session<'t>) -> Result<(), Leave> {
        self.machine = Some(new_machine(session).map_err(fault)?);
        let agreed = self.agreed.packets().map(<[u8]>::to_vec);
        // The session ignores it: it makes gdbstub wait for the guest, as before.
        let running = session.is_running().then(|| b"vCont;c".to_vec());
        for packet in agreed.chain(running).collect::<Vec<_>>() {
            self.feed(session, framed(&packet)).map_err(fault)?;
        }
        self.with_wire(|wire| *wire = Wire::default());
        Ok(())
    }

    /// Answers that a packet makes no sense.
    fn refuse(&mut self, body: &[u8]) {
        let start = &body[..body.len().min(40)];
        tracing::debug!(packet = %start.escape_ascii(), "gdb sent what makes no sense");
        self.with_wire(|wire| wire.packet(EINVAL));
    }

    fn with_wire(&mut self, act: impl FnOnce(&mut Wire)) {
        if let Some(wire) = self.wire() {
            act(wire);
        }
    }

    fn wire(&mut self) -> Option<&mut Wire> {
        self.machine.as_mut().map(stub::wire_of)
    }

    /// # Errors
    /// gdbstub gives up; there is no state machine then.
    fn feed(
        &mut self,
        session: &mut Session<'t>,
        bytes: impl IntoIterator<Item = u8>,
    ) -> Result<(), Fault> {
        let Some(machine) = self.machine.take() else {
            return Ok(());
        };
        self.machine = Some(fed(machine, session, bytes)?);
        Ok(())
    }

    /// Runs the state machine until it wants input or an event.
    fn settle(&mut self, session: &mut Session<'t>) -> Result<(), Leave> {
        loop {
            match self.machine.as_ref() {
                Some(GdbStubStateMachine::CtrlCInterrupt(_)) => self.interrupt(session)?,
                Some(GdbStubStateMachine::Running(_)) => {
                    self.tell(session);
                    match session.take_stop() {
                        Some(stop) => self.report(session, &stop)?,
                        None => return Ok(()),
                    }
                }
                Some(GdbStubStateMachine::Disconnected(gone)) => {
                    let leave = match gone.get_reason() {
                        DisconnectReason::TargetExited(status) => Leave::Exited(status),
                        DisconnectReason::Kill => Leave::Killed,
                        _ => Leave::Detached,
                    };
                    let answer = self.kill_answer;
                    if let (Leave::Killed, Some(wire)) = (&leave, self.wire()) {
                        wire.packet(answer);
                    }
                    return Err(leave);
                }
                Some(GdbStubStateMachine::Idle(_)) => {
                    // gdb does not wait for a stop and cannot be told.
                    return session
                        .exited()
                        .map_or(Ok(()), |status| Err(Leave::Exited(status)));
                }
                None => return Err(Leave::Closed),
            }
        }
    }

    /// Ctrl-C. The stop it leads to is reported like any other; while the guest
    /// is stopped it leads to none, because gdb has the last one yet to read.
    fn interrupt(&mut self, session: &mut Session<'t>) -> Result<(), Leave> {
        session.interrupt();
        self.step(|machine| match machine {
            GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                interrupt.interrupt_handled(session, None::<MultiThreadStopReason<u64>>)
            }
            other => Ok(other),
        })
    }

    fn report(&mut self, session: &mut Session<'t>, stop: &Stop) -> Result<(), Leave> {
        let registers = match stop {
            Stop::At(vcpu, _) => session.guest.machine.registers(*vcpu).ok(),
            Stop::Exited(_) => None,
        };
        let description = session.description();
        let expedite = |registers| expedited(description, registers);
        let values = registers.as_ref().map(expedite).unwrap_or_default();
        self.step(|machine| match machine {
            GdbStubStateMachine::Running(running) => {
                let mut registers = values.iter().map(|(number, value)| (*number, &value[..]));
                running.report_stop_with_regs(session, stop.to_gdb(), &mut registers)
            }
            other => Ok(other),
        })
    }

    /// Shows the user's notices, while gdb waits for a stop or for the answer to a
    /// packet about tracepoints.
    fn tell(&mut self, session: &mut Session<'t>) {
        self.with_wire(|wire| {
            // gdb may read more slowly than the guest prints.
            if wire.pending().len() < BUFFER_SIZE {
                wire.console(&session.take_printed());
            }
            for notice in session.take_notices() {
                wire.console(&format!("{notice}\n"));
            }
        });
    }

    fn step(
        &mut self,
        step: impl FnOnce(Machine<'t>) -> Result<Machine<'t>, Fault>,
    ) -> Result<(), Leave> {
        let machine = self.machine.take().ok_or(Leave::Closed)?;
        match step(machine) {
            Ok(machine) => {
                self.machine = Some(machine);
                Ok(())
            }
            Err(error) => Err(fault(error)),
        }
    }

    /// Sends as much as the socket takes.
    fn send(&mut self) -> Result<(), Leave> {
        loop {
            let Some(wire) = self.machine.as_mut().map(stub::wire_of) else {
                return Ok(());
            };
            if wire.overflowed() {
                return Err(Leave::Fault("an answer is too long".to_owned()));
            }
            if wire.pending().is_empty() {
                return Ok(());
            }
            match self.stream.write(wire.pending()) {
                Ok(count) => wire.sent(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Leave::Closed),
            }
        }
    }

    /// Reads once; the rest is reported again. False when there was nothing.
    fn receive(&mut self) -> Result<bool, Leave> {
        self.input.resize(BUFFER_SIZE, 0);
        self.used = 0;
        self.waited.input = 0;
        let result = self.stream.read(&mut self.input);
        self.input.truncate(*result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Err(Leave::Closed),
            Ok(_) => Ok(true),
            Err(error) if is_transient(&error) => Ok(false),
            Err(_) => Err(Leave::Closed),
        }
    }

    /// Reads the input that has come meanwhile, behind the input that is still to be
    /// used. An end of the connection is left to [`Client::receive`].
    fn receive_more(&mut self) {
        self.input.drain(..self.used);
        self.used = 0;
        let kept = self.input.len();
        self.input.resize(kept.max(BUFFER_SIZE), 0);
        let count = self.stream.read(&mut self.input[kept..]).unwrap_or(0);
        self.input.truncate(kept + count);
    }
}

fn fault(fault: impl std::fmt::Display) -> Leave {
    Leave::Fault(fault.to_string())
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl AsFd for Client<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
#[path = "client_test.rs"]
mod tests;
