//! The requests that a backend has, and those that have come back from it.

use std::collections::HashMap;

use super::arena::Arena;
use super::compare::Answer;
use crate::driver::{Chain, DriverError, Element, Memory, Table};
use crate::recording::Submit;

/// A buffer holds this where the device has written nothing.
const UNTOUCHED: u8 = 0xa5;

/// A request that is with the device.
struct Placed {
    queue: u8,
    buffers: Vec<Element>,
    /// Address and length.
    table: Option<(u64, u64)>,
    is_external: bool,
}

/// A request that has come back.
struct Arrived {
    queue: u8,
    /// Counts all of them.
    place: u64,
    answer: Answer,
}

#[derive(Default)]
pub struct Requests {
    arena: Arena,
    placed: HashMap<u64, Placed>,
    /// By queue, and the number under which the ring has it.
    numbers: HashMap<(u8, u16), u64>,
    arrived: HashMap<u64, Arrived>,
    arrivals: u64,
}

impl Requests {
    /// With buffers in this part of memory.
    pub fn new(arena: Arena) -> Self {
        Self {
            arena,
            ..Self::default()
        }
    }

    /// Puts the buffers into memory, as they were. Nothing where there is no room.
    pub fn place(
        &mut self,
        memory: &Memory,
        request: &Submit,
        is_external: bool,
    ) -> Result<Option<Chain>, DriverError> {
        let mut placed = Placed {
            queue: request.queue,
            buffers: Vec::new(),
            table: None,
            is_external,
        };
        if !self.take_room(request, &mut placed) {
            self.free(&placed);
            return Ok(None);
        }
        let mut readable = &request.readable[..];
        for buffer in &placed.buffers {
            let len = buffer.len as usize;
            if buffer.writable {
                memory.write(buffer.addr, &vec![UNTOUCHED; len])?;
                continue;
            }
            let (bytes, rest) = readable.split_at(readable.len().min(len));
            memory.write(buffer.addr, bytes)?;
            readable = rest;
        }
        let mut chain = Chain::new(placed.buffers.clone());
        if let (Some((addr, _)), Some(direct)) = (placed.table, request.table_after) {
            chain = chain.indirect(Table {
                direct: direct.into(),
                ..Table::at(addr)
            });
        }
        self.placed.insert(request.number, placed);
        Ok(Some(chain))
    }

    fn take_room(&mut self, request: &Submit, placed: &mut Placed) -> bool {
        for element in &request.elements {
            let Some(addr) = self.arena.take(element.len.into()) else {
                return false;
            };
            placed.buffers.push(Element {
                addr,
                len: element.len,
                writable: element.is_writable,
            });
        }
        if request.table_after.is_some() {
            let len = 16 * request.elements.len() as u64;
            placed.table = self.arena.take(len).map(|addr| (addr, len));
            return placed.table.is_some();
        }
        true
    }

    /// The ring has a request under this number.
    pub fn staged(&mut self, queue: u8, id: u16, number: u64) {
        self.numbers.insert((queue, id), number);
    }

    /// The ring gives one back.
    pub fn arrive(
        &mut self,
        memory: &Memory,
        queue: u8,
        id: u16,
        len: Option<u32>,
    ) -> Result<(), DriverError> {
        let number = self.numbers.remove(&(queue, id));
        let Some((number, placed)) = number.and_then(|number| self.placed.remove_entry(&number))
        else {
            return Ok(());
        };
        if !placed.is_external {
            let bytes = written(memory, &placed.buffers)?;
            let answer = Answer {
                len,
                last: bytes.last().copied(),
                bytes,
                overtaken_by: None,
            };
            let place = self.arrivals;
            self.arrivals += 1;
            let arrived = Arrived {
                queue,
                place,
                answer,
            };
            self.arrived.insert(number, arrived);
        }
        self.free(&placed);
        Ok(())
    }

    /// The answer to a request, if it has come. Those that are taken later were used later in the
    /// recording.
    pub fn take(&mut self, number: u64) -> Option<Answer> {
        let arrived = self.arrived.remove(&number)?;
        let earlier = self
            .arrived
            .iter()
            .filter(|(_, other)| other.queue == arrived.queue && other.place < arrived.place);
        let overtaken_by = earlier.map(|(number, _)| *number).min();
        Some(Answer {
            overtaken_by,
            ..arrived.answer
        })
    }

    /// Takes the buffers of these queues back, and their answers.
    pub fn forget(&mut self, is_it: impl Fn(u8) -> bool) {
        let gone = self.placed.extract_if(|_, placed| is_it(placed.queue));
        let gone: Vec<_> = gone.map(|(_, placed)| placed).collect();
        gone.iter().for_each(|placed| self.free(placed));
        self.numbers.retain(|(queue, _), _| !is_it(*queue));
        self.arrived.retain(|_, arrived| !is_it(arrived.queue));
    }

    fn free(&mut self, placed: &Placed) {
        for buffer in &placed.buffers {
            self.arena.give(buffer.addr, buffer.len.into());
        }
        if let Some((addr, len)) = placed.table {
            self.arena.give(addr, len);
        }
    }
}

fn written(memory: &Memory, buffers: &[Element]) -> Result<Vec<u8>, DriverError> {
    let mut bytes = Vec::new();
    for buffer in buffers.iter().filter(|buffer| buffer.writable) {
        bytes.extend(memory.read(buffer.addr, buffer.len as usize)?);
    }
    Ok(bytes)
}
