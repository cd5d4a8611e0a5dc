use super::*;
use crate::breakpoints::Holder;
use crate::linux::testing::{DATA, IMAGE, IMAGE_PHYS, Running, Types};
use crate::target::{Resume, StopReason};
use crate::testing::{Hand, Scripted};

const VCPU: VcpuId = VcpuId(0);
const HEAD: u64 = DATA;
const MODULE: u64 = DATA + 0x100;
/// `do_init_module`, and a function of the kernel's.
const EVENT: u64 = DATA + 0x1000;
const WORK: u64 = DATA + 0x1100;
/// The module's memory.
const MODULE_CODE: u64 = 0xffff_ffff_c000_1000;
const INT3: u8 = 0xcc;

fn types() -> Types {
    let mut types = Types::new();
    let (int, long) = (types.int("int", 4), types.int("long", 8));
    types.structure("list_head", 16, &[("next", long, 0), ("prev", long, 8)]);
    let members = [("base", long, 0), ("size", int, 8)];
    let memory = types.structure("module_memory", 0x10, &members);
    let memory = types.array(memory, 7);
    let members = [
        ("state", int, 0),
        ("list", long, 8),
        ("name", long, 0x18),
        ("mem", memory, 0x60),
    ];
    types.structure("module", 0x100, &members);
    types
}

/// A guest with a kernel without modules.
struct Guest(Hand);

impl Guest {
    fn word(&self, at: u64, value: u64) {
        let at = (IMAGE_PHYS + at) as usize;
        self.0.script().ram[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// It has loaded a module, in this state of `enum module_state`.
    fn loads(&self, state: u64) {
        self.word(MODULE, state);
        self.word(MODULE + 8, IMAGE + HEAD);
        self.word(MODULE + 0x18, u64::from_le_bytes(*b"dummy\0\0\0"));
        self.word(MODULE + 0x60, MODULE_CODE);
        self.word(MODULE + 0x68, 0x1000);
        self.word(HEAD, IMAGE + MODULE + 8);
    }

    fn unloads(&self) {
        self.word(HEAD, IMAGE + HEAD);
    }

    fn byte(&self, at: u64) -> u8 {
        self.0.script().ram[(IMAGE_PHYS + at) as usize]
    }

    fn comes_to(&self, at: u64) {
        self.0.stops(0, IMAGE + at, StopReason::Int3);
    }
}

fn with_guest(test: impl FnOnce(&mut Session<'_>, &Guest)) {
    let running = Running::new(&types(), &[("modules", HEAD), ("do_init_module", EVENT)]);
    let (mut target, hand) = Scripted::new(&[IMAGE + WORK]);
    {
        let mut script = hand.script();
        script.ram = running.guest.ram;
        script.registers[0] = running.guest.registers;
        script.registers[0].cs.long = true;
        script.registers[0].rip = IMAGE + WORK;
        script.symbols = Some(running.file);
    }
    let guest = Guest(hand);
    guest.unloads();
    let mut session = Session::new(&mut target);
    session.attach();
    test(&mut session, &guest);
}

fn list(session: &Session<'_>) -> String {
    let mut buf = [0; 4096];
    let Ok(count) = session.get_libraries(0, 4096, &mut buf) else {
        panic!("there is no list");
    };
    String::from_utf8(buf[..count].to_vec()).unwrap()
}

fn resumes(session: &mut Session<'_>) -> Option<Stop> {
    session.start(vec![Action::Continue]);
    session.take_stop()
}

fn next_stop(session: &mut Session<'_>) -> Option<Stop> {
    session.on_event();
    session.take_stop()
}

const LIBRARY: Option<Stop> = Some(Stop::At(VCPU, Reason::Library));
const SOFTWARE: Option<Stop> = Some(Stop::At(VCPU, Reason::Software));

#[test]
fn gdb_hears_of_a_module_before_that_is_initialised() {
    with_guest(|session, guest| {
        assert_eq!(list(session), "<library-list>\n</library-list>\n");
        assert_eq!(resumes(session), None);
        assert_eq!(guest.byte(EVENT), INT3);
        guest.loads(1);
        guest.comes_to(EVENT);
        assert_eq!(next_stop(session), LIBRARY);
        // It leaves its place to gdb.
        assert_ne!(guest.byte(EVENT), INT3);
        assert!(list(session).contains("/ffffffffc0001000/dummy.ko"));
        // Nothing that it does not know: it hears of its own breakpoint there.
        let addr = VirtAddr(IMAGE + EVENT);
        session.insert_software(addr, Owner::Gdb).unwrap();
        assert_eq!(resumes(session), None);
        guest.comes_to(EVENT);
        assert_eq!(next_stop(session), SOFTWARE);
        // Without one the vCPU is past it by itself.
        session.remove_software(addr, Owner::Gdb);
        session.vcpus[VCPU].unmark_reported();
        assert_eq!(resumes(session), None);
        guest.comes_to(EVENT);
        assert_eq!(next_stop(session), None);
        assert_eq!(guest.0.resumed(), [Resume::Step]);
    });
}

#[test]
fn gdb_hears_of_one_that_is_gone_before_it_plants_breakpoints() {
    with_guest(|session, guest| {
        guest.loads(0);
        assert!(list(session).contains("dummy"));
        guest.unloads();
        assert_eq!(resumes(session), LIBRARY);
        assert!(guest.0.script().resumed.is_empty());
        assert!(!list(session).contains("dummy"));

        // While the guest runs: at the next breakpoint, of which it hears then.
        let addr = VirtAddr(IMAGE + WORK + 8);
        session.insert_software(addr, Owner::Gdb).unwrap();
        assert_eq!(resumes(session), None);
        guest.loads(0);
        guest.comes_to(WORK + 8);
        assert_eq!(next_stop(session), LIBRARY);
        list(session);
        assert_eq!(resumes(session), SOFTWARE);
        // Once.
        assert_eq!(resumes(session), None);
        assert_eq!(guest.0.resumed(), [Resume::Step]);
    });
}

#[test]
fn a_breakpoint_that_gdb_takes_away_when_it_hears_of_modules_is_not_hit() {
    with_guest(|session, guest| {
        list(session);
        let addr = VirtAddr(IMAGE + WORK + 8);
        session.insert_software(addr, Owner::Gdb).unwrap();
        assert_eq!(resumes(session), None);
        guest.loads(0);
        guest.comes_to(WORK + 8);
        assert_eq!(next_stop(session), LIBRARY);
        list(session);
        session.remove_software(addr, Owner::Gdb);
        assert_eq!(resumes(session), None);
        assert_eq!(guest.0.resumed(), [Resume::Continue]);
    });
}

#[test]
fn breakpoints_in_a_module_that_is_gone_are_gone_with_it() {
    with_guest(|session, guest| {
        guest.loads(0);
        list(session);
        let inside = VirtAddr(MODULE_CODE + 8);
        let slots = &mut session.guest.breakpoints.slots;
        slots.add(Holder::Hardware(inside)).unwrap();
        session.insert_software(inside, Owner::Gdb).unwrap();
        let outside = VirtAddr(IMAGE + WORK + 8);
        session.insert_software(outside, Owner::Gdb).unwrap();
        guest.unloads();
        assert_eq!(resumes(session), LIBRARY);
        let left = session.guest.breakpoints.all_of_gdb();
        assert_eq!(
            left.iter().map(|place| place.addr).collect::<Vec<_>>(),
            [outside]
        );
    });
}

#[test]
fn who_does_not_ask_is_not_told() {
    with_guest(|session, guest| {
        assert_eq!(resumes(session), None);
        assert_ne!(guest.byte(EVENT), INT3);
    });
    with_guest(|session, guest| {
        list(session);
        guest.loads(0);
        assert_eq!(resumes(session), LIBRARY);
        // It does not read the list: it gets no further stops.
        assert_eq!(resumes(session), None);
        assert_ne!(guest.byte(EVENT), INT3);
    });
}

#[test]
fn a_module_in_the_making_is_none() {
    with_guest(|session, guest| {
        guest.loads(3);
        assert!(!list(session).contains("dummy"));
    });
}
