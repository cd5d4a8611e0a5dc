//! gdbstub's state machine: how it is made and fed, and where its output goes.

use gdbstub::stub::GdbStub;
use gdbstub::stub::state_machine::GdbStubStateMachine;

use super::inlet::framed;
use super::wire::Wire;
use crate::arch::{Description, Register, RegisterNumber, Registers};
use crate::limits::PACKET_SIZE;
use crate::session::Session;

pub(super) type Machine<'t> = GdbStubStateMachine<'static, Session<'t>, Wire>;
pub(super) type Fault =
    gdbstub::stub::GdbStubError<std::convert::Infallible, std::convert::Infallible>;

/// Asks for the end of acknowledgements.
pub(super) const NO_ACK: &[u8] = b"QStartNoAckMode";

/// Registers that go with every stop, so that gdb can tell where it is without
/// asking: what its own stub sends (rbp, rsp, rip).
const EXPEDITED: [Register; 3] = [Register::Gpr(6), Register::Gpr(7), Register::Rip];

/// One that confirms no packet: gdbstub would do so together with its answer.
///
/// # Errors
/// The reason, in words.
pub(super) fn new_machine<'t>(session: &mut Session<'t>) -> Result<Machine<'t>, String> {
    let stub = GdbStub::builder(Wire::default())
        .packet_buffer_size(PACKET_SIZE)
        .build()
        .map_err(|error| error.to_string())?;
    let machine = stub
        .run_state_machine(session)
        .map_err(|error| error.to_string())?;
    let mut machine = fed(machine, session, framed(NO_ACK)).map_err(|error| error.to_string())?;
    *wire_of(&mut machine) = Wire::default();
    Ok(machine)
}

/// The state machine when it has taken `bytes`.
pub(super) fn fed<'t>(
    mut machine: Machine<'t>,
    session: &mut Session<'t>,
    bytes: impl IntoIterator<Item = u8>,
) -> Result<Machine<'t>, Fault> {
    for byte in bytes {
        machine = match machine {
            GdbStubStateMachine::Idle(idle) => idle.incoming_data(session, byte)?,
            GdbStubStateMachine::Running(running) => running.incoming_data(session, byte)?,
            other => other,
        };
    }
    Ok(machine)
}

/// The output side, wherever the state machine keeps it.
pub(super) fn wire_of<'a>(machine: &'a mut Machine<'_>) -> &'a mut Wire {
    match machine {
        GdbStubStateMachine::Idle(state) => state.borrow_conn(),
        GdbStubStateMachine::Running(state) => state.borrow_conn(),
        GdbStubStateMachine::CtrlCInterrupt(state) => state.borrow_conn(),
        GdbStubStateMachine::Disconnected(state) => state.borrow_conn(),
    }
}

/// [`EXPEDITED`] by number.
pub(super) fn expedited(
    description: Description,
    registers: &Registers,
) -> Vec<(RegisterNumber, Vec<u8>)> {
    let value = |register: Register| {
        let number = description.number(register)?;
        Some((
            RegisterNumber(number),
            description.bytes(register, registers),
        ))
    };
    EXPEDITED.into_iter().filter_map(value).collect()
}
