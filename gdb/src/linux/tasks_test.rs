use super::*;
use crate::arch::cr0;
use crate::linux::lists::ListError;
use crate::linux::testing::{DATA, IMAGE, Running, Types};

/// Offsets in the image.
const INIT: u64 = DATA;
const SHELL: u64 = DATA + 0x100;
const THREAD: u64 = DATA + 0x200;
const INIT_SIGNAL: u64 = DATA + 0x300;
const SHELL_SIGNAL: u64 = DATA + 0x340;
const OFFSETS: u64 = DATA + 0x400;
const AREAS: [u64; 2] = [DATA + 0x500, DATA + 0x600];
/// Offsets in `task_struct`.
const TASKS: u64 = 0x20;
const SIGNAL: u64 = 0x30;
const THREAD_NODE: u64 = 0x38;

fn types() -> Types {
    let mut types = Types::new();
    let (int, long) = (types.int("int", 4), types.int("long", 8));
    let list = types.structure("list_head", 16, &[("next", long, 0), ("prev", long, 8)]);
    let members = [
        ("pid", int, 0),
        ("tgid", int, 4),
        ("comm", long, 8),
        ("__state", int, 0x18),
        ("exit_state", int, 0x1c),
        ("tasks", list, TASKS as u32),
        ("signal", long, SIGNAL as u32),
        ("thread_node", list, THREAD_NODE as u32),
    ];
    types.structure("task_struct", 0x50, &members);
    types.structure("signal_struct", 16, &[("thread_head", list, 0)]);
    let hot = [("current_task", long, 0), ("preempt_count", int, 8)];
    types.structure("pcpu_hot", 16, &hot);
    types
}

/// init with one process that has two threads; the second one runs on CPU 1.
fn running(percpu: &[(&str, u64)]) -> Running {
    let symbols = [
        &[("init_task", INIT), ("__per_cpu_offset", OFFSETS)],
        percpu,
    ]
    .concat();
    let mut linux = Running::new(&types(), &symbols);
    for (at, pid, tgid, comm, state) in [
        (INIT, 0, 0, &b"swapper/0\0"[..], 0u64),
        (SHELL, 7, 7, b"sh\x1b[2J\0", 1),
        // Not ended by a NUL, as comm always is.
        (THREAD, 8, 7, b"sixteen-letters!", 0x20 << 32),
    ] {
        linux.put(at, &[pid | tgid << 32]);
        linux.put_bytes(at + 8, comm);
        linux.put(at + 0x18, &[state]);
    }
    let list = |at: u64| IMAGE + at;
    linux.put(INIT + TASKS, &[list(SHELL + TASKS)]);
    linux.put(SHELL + TASKS, &[list(INIT + TASKS)]);
    linux.put(INIT + SIGNAL, &[list(INIT_SIGNAL)]);
    linux.put(SHELL + SIGNAL, &[list(SHELL_SIGNAL)]);
    linux.put(INIT_SIGNAL, &[list(INIT + THREAD_NODE)]);
    linux.put(INIT + THREAD_NODE, &[list(INIT_SIGNAL)]);
    linux.put(SHELL_SIGNAL, &[list(SHELL + THREAD_NODE)]);
    linux.put(SHELL + THREAD_NODE, &[list(THREAD + THREAD_NODE)]);
    linux.put(THREAD + THREAD_NODE, &[list(SHELL_SIGNAL)]);
    linux.put(OFFSETS, &AREAS.map(list));
    linux.put(AREAS[1] + 0x40, &[list(THREAD), 0x8000_0102]);
    linux
}

/// Process, thread, state and name.
type Row = (u32, u32, char, String);

fn list(linux: &Running) -> (Vec<Row>, Result<(), LookError>) {
    let mut tasks = Vec::new();
    let result = all(&linux.kernel, &linux.memory(), |task| {
        tasks.push((task.tgid, task.pid, task.state, task.comm.clone()));
    });
    (tasks, result)
}

#[test]
fn processes_and_their_threads_are_listed() {
    let (tasks, result) = list(&running(&[]));
    assert_eq!(result, Ok(()));
    let expected = [
        (0, 0, 'R', "swapper/0"),
        (7, 7, 'S', "sh\u{fffd}[2J"),
        (7, 8, 'Z', "sixteen-letters!"),
    ];
    assert_eq!(
        tasks,
        expected.map(|(t, p, s, comm)| (t, p, s, comm.to_owned()))
    );
}

#[test]
fn states_have_the_letters_that_the_kernel_gives_them() {
    for (name, state, exit_state, expected) in [
        ("TASK_RUNNING", 0, 0, 'R'),
        ("TASK_NEW", 0x800, 0, 'R'),
        ("TASK_WAKING", 0x200, 0, 'R'),
        ("TASK_INTERRUPTIBLE", 1, 0, 'S'),
        ("TASK_INTERRUPTIBLE|TASK_FREEZABLE", 0x2001, 0, 'S'),
        ("TASK_UNINTERRUPTIBLE", 2, 0, 'D'),
        ("TASK_KILLABLE", 0x102, 0, 'D'),
        ("TASK_STOPPED", 0x104, 0, 'T'),
        ("TASK_TRACED", 8, 0, 't'),
        ("TASK_TRACED before 6.0", 0x108, 0, 't'),
        ("TASK_PARKED", 0x40, 0, 'P'),
        ("TASK_IDLE", 0x402, 0, 'I'),
        ("TASK_IDLE|TASK_FREEZABLE", 0x2402, 0, 'I'),
        ("TASK_RTLOCK_WAIT", 0x1000, 0, 'D'),
        ("TASK_FROZEN", 0x8000, 0, 'D'),
        ("TASK_FROZEN|TASK_FREEZABLE", 0xa000, 0, 'D'),
        ("TASK_DEAD, EXIT_ZOMBIE", 0x80, 0x20, 'Z'),
        ("TASK_DEAD, EXIT_DEAD", 0x80, 0x10, 'X'),
        ("TASK_DEAD, EXIT_TRACE", 0x80, 0x30, 'Z'),
        ("running on its way out, EXIT_ZOMBIE", 0, 0x20, 'Z'),
        ("of several the highest", 0x49, 0, 'P'),
        ("nonsense", u32::MAX, u32::MAX, 'D'),
    ] {
        assert_eq!(letter(state, exit_state), expected, "{name}");
    }
}

#[test]
fn lists_that_lead_astray_end_with_what_was_found() {
    let mut linux = running(&[]);
    linux.put(SHELL + TASKS, &[IMAGE + SHELL + TASKS]);
    let (tasks, result) = list(&linux);
    assert!(
        matches!(result, Err(LookError::List(ListError::Endless { .. }))),
        "{result:?}"
    );
    assert_eq!(
        tasks[..2].iter().map(|task| task.1).collect::<Vec<_>>(),
        [0, 7]
    );
    linux.put(SHELL + TASKS, &[0xdead_0000]);
    let (_, result) = list(&linux);
    assert!(
        matches!(result, Err(LookError::Unreadable(_))),
        "{result:?}"
    );
}

#[test]
fn the_running_task_is_that_of_the_per_cpu_area() {
    for variables in [
        &[("current_task", 0x40), ("__preempt_count", 0x48)][..],
        &[("pcpu_hot", 0x40)],
    ] {
        let linux = running(variables);
        let mut registers = Registers::default();
        let current = |registers: &Registers| current(&linux.kernel, &linux.memory(), registers);
        assert_eq!(current(&registers), Err(LookError::NoCpu));
        for user in [false, true] {
            registers.cr0 = cr0::PE;
            registers.cs.selector = if user { 0x33 } else { 0x10 };
            // SWAPGS has put the kernel's base away.
            registers.gs.base = if user { 0x7fff_0000 } else { IMAGE + AREAS[1] };
            registers.k_gs_base = if user { IMAGE + AREAS[1] } else { 0x7fff_0000 };
            let found = current(&registers).unwrap();
            assert_eq!((found.cpu, found.preempt_count), (1, 0x102));
            assert_eq!((found.task.pid, found.task.addr), (8, IMAGE + THREAD));
        }
    }
}

#[test]
fn a_missing_symbol_is_named() {
    let linux = running(&[]);
    let registers = Registers {
        k_gs_base: IMAGE + AREAS[1],
        ..Registers::default()
    };
    let error = current(&linux.kernel, &linux.memory(), &registers).unwrap_err();
    assert_eq!(error, LookError::NoSymbol("current_task"));
}
