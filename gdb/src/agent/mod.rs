//! gdb's agent expressions: the bytecode in which it sends conditions, expressions
//! to collect and the texts of `dprintf` (gdb manual, appendix "The GDB Agent
//! Expression Mechanism").

mod printf;
mod variables;

pub(crate) use printf::FormatError;
pub(crate) use variables::{Number, VariableDefinition, VariableError, Variables};

/// Most values on the stack. gdb's own expressions need a dozen.
const MAX_STACK: usize = 64;

/// Most instructions of one evaluation: it may loop, and the guest waits for it.
const MAX_STEPS: usize = 10_000;

/// Most bytes of a string whose length gdb leaves open.
const MAX_STRING: u64 = 4096;

/// A vCPU, as expressions see it.
pub(crate) trait Vcpu {
    /// A register by gdb's number.
    fn register(&self, number: usize) -> Option<u64>;

    /// Reads all of `buf`, or says that it cannot.
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool;
}

/// An expression that cannot be evaluated. gdb's user reads it in `tstatus`, or in
/// place of the text that was to be printed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("the expression ends in the middle of an instruction")]
    Truncated,
    #[error("agent instruction {0:#04x} is not supported")]
    Opcode(u8),
    #[error("the expression takes more from its stack than there is")]
    StackEmpty,
    #[error("the expression needs more than {MAX_STACK} stack places")]
    StackFull,
    #[error("the expression takes more than {MAX_STEPS} instructions")]
    TooLong,
    #[error("the expression divides by zero")]
    DivideByZero,
    #[error("memory at {0:#x} cannot be read")]
    Memory(u64),
    #[error("there is no register {0}")]
    Register(u16),
    #[error("there is no trace state variable {0}")]
    Variable(Number),
    #[error("it cannot be printed: {0}")]
    Format(#[from] FormatError),
}

/// What an expression does beside its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It collects so many bytes at an address.
    Memory(u64, u64),
    /// It collects a trace state variable, with its value at that moment.
    Variable(Number, i64),
    /// It prints a text.
    Printed(String),
}

type Result<T> = std::result::Result<T, AgentError>;

/// Evaluates `code`, which may change `variables`. `record` gets all of its other
/// effects.
///
/// # Errors
/// The expression is malformed, too long, or reads memory that is not there.
pub(crate) fn evaluate(
    code: &[u8],
    vcpu: &dyn Vcpu,
    variables: &mut Variables,
    record: &mut dyn FnMut(Effect),
) -> Result<Option<u64>> {
    let mut agent = Agent {
        code,
        at: 0,
        stack: Vec::new(),
        vcpu,
        variables,
        record,
    };
    for _ in 0..MAX_STEPS {
        let opcode = agent.operand::<1>()? as u8;
        if opcode == op::END {
            return Ok(agent.stack.pop());
        }
        agent.step(opcode)?;
    }
    Err(AgentError::TooLong)
}

/// The instructions' numbers (gdb manual, "Bytecode Descriptions").
mod op {
    pub const ADD: u8 = 0x02;
    pub const RSH_UNSIGNED: u8 = 0x0b;
    pub const TRACE: u8 = 0x0c;
    pub const TRACE_QUICK: u8 = 0x0d;
    pub const LOG_NOT: u8 = 0x0e;
    pub const BIT_AND: u8 = 0x0f;
    pub const BIT_XOR: u8 = 0x11;
    pub const BIT_NOT: u8 = 0x12;
    pub const EQUAL: u8 = 0x13;
    pub const LESS_UNSIGNED: u8 = 0x15;
    pub const EXT: u8 = 0x16;
    pub const REF8: u8 = 0x17;
    pub const REF64: u8 = 0x1a;
    pub const IF_GOTO: u8 = 0x20;
    pub const GOTO: u8 = 0x21;
    pub const CONST8: u8 = 0x22;
    pub const CONST16: u8 = 0x23;
    pub const CONST32: u8 = 0x24;
    pub const CONST64: u8 = 0x25;
    pub const REG: u8 = 0x26;
    pub const END: u8 = 0x27;
    pub const DUP: u8 = 0x28;
    pub const POP: u8 = 0x29;
    pub const ZERO_EXT: u8 = 0x2a;
    pub const SWAP: u8 = 0x2b;
    pub const GETV: u8 = 0x2c;
    pub const SETV: u8 = 0x2d;
    pub const TRACEV: u8 = 0x2e;
    pub const TRACENZ: u8 = 0x2f;
    pub const TRACE16: u8 = 0x30;
    pub const PICK: u8 = 0x32;
    pub const ROT: u8 = 0x33;
    pub const PRINTF: u8 = 0x34;
}

struct Agent<'a> {
    code: &'a [u8],
    /// The next instruction.
    at: usize,
    stack: Vec<u64>,
    vcpu: &'a dyn Vcpu,
    variables: &'a mut Variables,
    record: &'a mut dyn FnMut(Effect),
}

impl Agent<'_> {
    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            op::ADD..=op::RSH_UNSIGNED
            | op::BIT_AND..=op::BIT_XOR
            | op::EQUAL..=op::LESS_UNSIGNED => {
                let (b, a) = (self.pop()?, self.pop()?);
                self.push(binary(opcode, a, b)?)
            }
            op::LOG_NOT => self.unary(|a| u64::from(a == 0)),
            op::BIT_NOT => self.unary(|a| !a),
            op::EXT | op::ZERO_EXT => {
                let bits = self.operand::<1>()?;
                self.unary(|a| extend(a, bits, opcode == op::EXT))
            }
            op::REF8..=op::REF64 => self.reference(1 << (opcode - op::REF8)),
            op::IF_GOTO | op::GOTO => self.branch(opcode == op::IF_GOTO),
            op::CONST8 => self.constant::<1>(),
            op::CONST16 => self.constant::<2>(),
            op::CONST32 => self.constant::<4>(),
            op::CONST64 => self.constant::<8>(),
            op::REG => {
                let number = self.operand::<2>()? as u16;
                let value = self.vcpu.register(number.into());
                self.push(value.ok_or(AgentError::Register(number))?)
            }
            op::GETV..=op::TRACEV => self.variable(opcode),
            op::TRACE..=op::TRACE_QUICK | op::TRACENZ..=op::TRACE16 => self.collect(opcode),
            op::DUP..=op::POP | op::SWAP | op::PICK..=op::ROT => self.arrange(opcode),
            op::PRINTF => self.print(),
            other => Err(AgentError::Opcode(other)),
        }
    }

    /// The next `N` bytes of code, most significant first.
    fn operand<const N: usize>(&mut self) -> Result<u64> {
        let rest = self.code.get(self.at..).unwrap_or_default();
        let bytes = rest.first_chunk::<N>().ok_or(AgentError::Truncated)?;
        self.at += N;
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn constant<const N: usize>(&mut self) -> Result<()> {
        let value = self.operand::<N>()?;
        self.push(value)
    }

    fn push(&mut self, value: u64) -> Result<()> {
        if self.stack.len() == MAX_STACK {
            return Err(AgentError::StackFull);
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<u64> {
        self.stack.pop().ok_or(AgentError::StackEmpty)
    }

    fn unary(&mut self, f: impl FnOnce(u64) -> u64) -> Result<()> {
        let value = self.pop()?;
        self.push(f(value))
    }

    fn branch(&mut self, conditional: bool) -> Result<()> {
        let to = self.operand::<2>()? as usize;
        if !conditional || self.pop()? != 0 {
            self.at = to;
        }
        Ok(())
    }

    fn variable(&mut self, opcode: u8) -> Result<()> {
        let number = self.operand::<2>()? as Number;
        let missing = AgentError::Variable(number);
        if opcode == op::SETV {
            // The value stays where it is.
            let value = *self.stack.last().ok_or(AgentError::StackEmpty)?;
            let set = self.variables.set(number, value.cast_signed());
            return set.ok_or(missing);
        }
        let value = self.variables.get(number).ok_or(missing)?;
        if opcode == op::TRACEV {
            (self.record)(Effect::Variable(number, value));
            return Ok(());
        }
        self.push(value.cast_unsigned())
    }

    /// Reads `len` bytes at the address on the stack, zero-extended.
    fn reference(&mut self, len: usize) -> Result<()> {
        let addr = self.pop()?;
        let mut bytes = [0; 8];
        if !self.vcpu.read(addr, &mut bytes[..len]) {
            return Err(AgentError::Memory(addr));
        }
        self.push(u64::from_le_bytes(bytes))
    }

    fn collect(&mut self, opcode: u8) -> Result<()> {
        let (addr, len) = match opcode {
            op::TRACE | op::TRACENZ => {
                let len = self.pop()?;
                (self.pop()?, len)
            }
            _ => {
                let len = match opcode {
                    op::TRACE_QUICK => self.operand::<1>()?,
                    _ => self.operand::<2>()?,
                };
                // These two leave the address where it is.
                (*self.stack.last().ok_or(AgentError::StackEmpty)?, len)
            }
        };
        let len = match opcode {
            op::TRACENZ => self.string_len(addr, len),
            _ => len,
        };
        (self.record)(Effect::Memory(addr, len));
        Ok(())
    }

    /// Prints as C's `printf`. A function and a channel, which `set dprintf-function`
    /// would name, are above the values on the stack: there is but one way to print.
    fn print(&mut self) -> Result<()> {
        let count = self.operand::<1>()?;
        let len = self.operand::<2>()? as usize;
        let format = self.code.get(self.at..).unwrap_or_default();
        let format = format.get(..len).ok_or(AgentError::Truncated)?;
        self.at += len;
        let (_function, _channel) = (self.pop()?, self.pop()?);
        let values = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        let format = format.strip_suffix(b"\0").unwrap_or(format);
        let text = printf::format(format, &values, |addr, limit| self.string(addr, limit))?;
        (self.record)(Effect::Printed(text));
        Ok(())
    }

    /// A string of at most `limit` bytes, without its final 0.
    fn string(&self, addr: u64, limit: usize) -> Option<Vec<u8>> {
        let limit = limit.min(MAX_STRING as usize);
        let mut bytes = Vec::new();
        let mut byte = [0];
        while bytes.len() < limit {
            let at = addr.wrapping_add(bytes.len() as u64);
            if !self.vcpu.read(at, &mut byte) {
                return None;
            }
            if byte == [0] {
                break;
            }
            bytes.push(byte[0]);
        }
        Some(bytes)
    }

    /// The length of a string with its final 0, or what can be read of it. A limit
    /// of 0 is none.
    fn string_len(&self, addr: u64, limit: u64) -> u64 {
        let limit = if limit == 0 { MAX_STRING } else { limit };
        let mut byte = [0];
        for n in 0..limit.min(MAX_STRING) {
            if !self.vcpu.read(addr.wrapping_add(n), &mut byte) {
                return n;
            }
            if byte == [0] {
                return n + 1;
            }
        }
        limit.min(MAX_STRING)
    }

    fn arrange(&mut self, opcode: u8) -> Result<()> {
        let len = self.stack.len();
        match opcode {
            op::POP => self.pop().map(drop),
            op::DUP | op::PICK => {
                let depth = match opcode {
                    op::PICK => self.operand::<1>()? as usize,
                    _ => 0,
                };
                let place = len.checked_sub(depth + 1).ok_or(AgentError::StackEmpty)?;
                self.push(self.stack[place])
            }
            _ => {
                // swap: a b, b a. rot: a b c, c a b.
                let count = if opcode == op::SWAP { 2 } else { 3 };
                let first = len.checked_sub(count).ok_or(AgentError::StackEmpty)?;
                self.stack[first..].rotate_right(1);
                Ok(())
            }
        }
    }
}

/// `a OP b`, where `b` was on top.
fn binary(opcode: u8, a: u64, b: u64) -> Result<u64> {
    let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
    let divided = |value: Option<u64>| value.ok_or(AgentError::DivideByZero);
    let shift = u32::try_from(b).unwrap_or(u32::MAX);
    Ok(match opcode {
        0x02 => a.wrapping_add(b),
        0x03 => a.wrapping_sub(b),
        0x04 => a.wrapping_mul(b),
        0x05 if b == 0 => return Err(AgentError::DivideByZero),
        0x05 => signed_a.wrapping_div(signed_b).cast_unsigned(),
        0x06 => divided(a.checked_div(b))?,
        0x07 if b == 0 => return Err(AgentError::DivideByZero),
        0x07 => signed_a.wrapping_rem(signed_b).cast_unsigned(),
        0x08 => divided(a.checked_rem(b))?,
        0x09 => a.checked_shl(shift).unwrap_or(0),
        0x0a => (signed_a >> shift.min(63)).cast_unsigned(),
        0x0b => a.checked_shr(shift).unwrap_or(0),
        0x0f => a & b,
        0x10 => a | b,
        0x11 => a ^ b,
        0x13 => u64::from(a == b),
        0x14 => u64::from(signed_a < signed_b),
        0x15 => u64::from(a < b),
        other => return Err(AgentError::Opcode(other)),
    })
}

/// The low `bits` of a value, with or without the sign of the highest of them.
fn extend(value: u64, bits: u64, signed: bool) -> u64 {
    let unused = match u32::try_from(bits) {
        Ok(bits @ 1..=63) => 64 - bits,
        _ => return value,
    };
    let high = value << unused;
    match signed {
        true => (high.cast_signed() >> unused).cast_unsigned(),
        false => high >> unused,
    }
}

#[cfg(test)]
#[path = "agent_test.rs"]
mod tests;
