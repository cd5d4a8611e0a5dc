//! Tasks: those that there are, and the one that each vCPU runs.

use super::btf::{Btf, Missing};
use super::lists;
use super::memory::{Memory, Unreadable};
use super::{Kernel, LookError};
use crate::arch::Registers;

/// Most processes, and most threads of one, that are listed.
const MAX_TASKS: usize = 1 << 16;
/// Size of `task_struct.comm`.
const COMM: usize = 16;
/// Most CPUs whose areas are looked at: CONFIG_NR_CPUS's highest.
const MAX_CPUS: u64 = 8192;

/// A task as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    /// Address of its `task_struct`.
    pub addr: u64,
    pub pid: u32,
    /// Of its process.
    pub tgid: u32,
    pub comm: String,
    /// As in ps(1).
    pub state: char,
}

/// Where the members of `task_struct` are.
struct Layout {
    pid: u64,
    tgid: u64,
    comm: u64,
    state: u64,
    exit_state: u64,
    tasks: u64,
    /// Of threads: in the task, and the list's head in its `signal_struct`.
    signal: u64,
    thread_node: u64,
    thread_head: u64,
}

impl Layout {
    fn of(btf: &Btf) -> Result<Self, Missing> {
        let task = |member| btf.offset("task_struct", member);
        Ok(Self {
            pid: task("pid")?,
            tgid: task("tgid")?,
            comm: task("comm")?,
            // Renamed in 5.14.
            state: task("__state").or_else(|_| task("state"))?,
            exit_state: task("exit_state")?,
            tasks: task("tasks")?,
            signal: task("signal")?,
            thread_node: task("thread_node")?,
            thread_head: btf.offset("signal_struct", "thread_head")?,
        })
    }

    fn read(&self, memory: &Memory<'_>, addr: u64) -> Result<Task, Unreadable> {
        let word = |offset| memory.u32(addr.wrapping_add(offset));
        Ok(Task {
            addr,
            pid: word(self.pid)?,
            tgid: word(self.tgid)?,
            comm: memory.string(addr.wrapping_add(self.comm), COMM)?,
            state: letter(word(self.state)?, word(self.exit_state)?),
        })
    }
}

/// Bits of `task_struct.__state` and `exit_state` (include/linux/sched.h). They are
/// the same in every kernel from 4.14 on, to which later ones have added: RTLOCK_WAIT
/// in 5.15, FROZEN in 6.1. Older ones have no type information.
mod bit {
    pub const UNINTERRUPTIBLE: u32 = 0x2;
    /// The states that have letters, in the order of [`LETTERS`].
    pub const REPORTED: u32 = 0x7f;
    /// Above those, though no task has it: TASK_REPORT_IDLE.
    pub const REPORTED_IDLE: u32 = 0x80;
    pub const IDLE: u32 = UNINTERRUPTIBLE | 0x400;
    pub const RTLOCK_WAIT: u32 = 0x1000;
    pub const FROZEN: u32 = 0x8000;
}

/// Running, then one for each bit from the lowest on.
const LETTERS: [char; 9] = ['R', 'S', 'D', 'T', 't', 'X', 'Z', 'P', 'I'];

/// ps(1)'s letter for a state: `__task_state_index` and `task_index_to_char` of
/// include/linux/sched.h, as they are since 6.7. The highest bit decides.
fn letter(state: u32, exit_state: u32) -> char {
    let reported = if state & (bit::RTLOCK_WAIT | bit::FROZEN) != 0 {
        bit::UNINTERRUPTIBLE
    } else if state & bit::IDLE == bit::IDLE {
        bit::REPORTED_IDLE
    } else {
        (state | exit_state) & bit::REPORTED
    };
    LETTERS[(u32::BITS - reported.leading_zeros()) as usize]
}

/// Hands every task to `each`: processes in the order of their creation, each
/// with its threads behind it. The idle tasks are not among them but for CPU 0's.
pub(crate) fn all(
    kernel: &Kernel,
    memory: &Memory<'_>,
    mut each: impl FnMut(&Task),
) -> Result<(), LookError> {
    let layout = Layout::of(kernel.btf(memory)?)?;
    let first = kernel.symbol("init_task")?;
    let mut processes = vec![first];
    let head = first.wrapping_add(layout.tasks);
    let mut end = Ok(());
    let listed = lists::walk(memory, head, layout.tasks, MAX_TASKS, |addr| {
        processes.push(addr);
        Ok(())
    });
    let mut left = MAX_TASKS;
    for process in processes {
        each(&layout.read(memory, process)?);
        let signal = memory.u64(process.wrapping_add(layout.signal))?;
        let threads = signal.wrapping_add(layout.thread_head);
        let threads = lists::walk(memory, threads, layout.thread_node, left, |thread| {
            left = left.saturating_sub(1);
            if thread != process {
                each(&layout.read(memory, thread)?);
            }
            Ok(())
        });
        end = end.and(threads);
    }
    Ok(listed.and(end)?)
}

/// The task that a vCPU runs, and its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    /// Linux's number of the CPU.
    pub cpu: u64,
    pub task: Task,
    /// `preempt_count()`: nesting of what forbids preemption, with the interrupt
    /// contexts in the higher bytes (include/linux/preempt.h).
    pub preempt_count: u32,
}

/// The task that runs on the vCPU with these registers.
pub(crate) fn current(
    kernel: &Kernel,
    memory: &Memory<'_>,
    registers: &Registers,
) -> Result<Current, LookError> {
    /// In x86's copy of the count, this bit means the opposite of its name.
    const NEED_RESCHED: u32 = 1 << 31;
    let btf = kernel.btf(memory)?;
    let (cpu, area) = area(kernel, memory, registers)?;
    // From 6.2 to 6.14 the hot variables were members of one.
    let variable = |name: &'static str, member: &str| match kernel.symbols.get("pcpu_hot") {
        Some(hot) => Ok::<_, LookError>(hot.wrapping_add(btf.offset("pcpu_hot", member)?)),
        None => kernel.symbol(name),
    };
    let task = variable("current_task", "current_task")?;
    let count = variable("__preempt_count", "preempt_count")?;
    let task = memory.u64(task.wrapping_add(area))?;
    Ok(Current {
        cpu,
        task: Layout::of(btf)?.read(memory, task)?,
        preempt_count: memory.u32(count.wrapping_add(area))? & !NEED_RESCHED,
    })
}

/// The CPU, and what to add to the address of a per-CPU variable: in the kernel
/// GS's base is that, in user mode SWAPGS has put it away.
fn area(
    kernel: &Kernel,
    memory: &Memory<'_>,
    registers: &Registers,
) -> Result<(u64, u64), LookError> {
    let bases = match registers.cpl() {
        3 => [registers.k_gs_base, registers.gs.base],
        _ => [registers.gs.base, registers.k_gs_base],
    };
    let offsets = kernel.symbol("__per_cpu_offset")?;
    let count = match kernel.symbols.get("nr_cpu_ids") {
        Some(count) => u64::from(memory.u32(count)?).clamp(1, MAX_CPUS),
        None => MAX_CPUS,
    };
    for cpu in 0..count {
        let Ok(offset) = memory.u64(offsets.wrapping_add(8 * cpu)) else {
            break;
        };
        if offset != 0 && bases.contains(&offset) {
            return Ok((cpu, offset));
        }
    }
    Err(LookError::NoCpu)
}

#[cfg(test)]
#[path = "tasks_test.rs"]
mod tests;
