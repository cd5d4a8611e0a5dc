use std::time::Duration;

use super::*;
use crate::linux::testing::{DATA, Running, Types};

#[test]
fn arguments_are_where_they_were_up_to_a_functions_own_code() {
    let mut running = Running::new(&Types::new(), &[("_text", DATA)]);
    let function = running.kernel.symbol("_text").unwrap();
    for (code, own) in [
        (&[0x55, 0x48, 0x89, 0xe5][..], 0),
        (&[0x0f, 0x1f, 0x44, 0, 0, 0x55], 5),
        (&[0xe8, 1, 2, 3, 4, 0x55], 5),
        (&[0xf3, 0x0f, 0x1e, 0xfa, 0x55], 4),
        (&[0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0, 0], 9),
    ] {
        running.put_bytes(DATA, &[0x90; 16]);
        running.put_bytes(DATA, code);
        let memory = running.memory();
        assert_eq!(
            arguments_end(&memory, function),
            function + own + 1,
            "{code:x?}"
        );
    }
    assert_eq!(arguments_end(&running.memory(), 0), 1);
    assert_eq!(arguments_end(&running.memory(), u64::MAX), u64::MAX);
}

#[test]
fn a_kernel_is_described_once() {
    let mut types = Types::new();
    types.int("int", 4);
    let running = Running::new(&types, &[]);
    let description = Description::start(&running.guest, &running.kernel);
    let made = description.wait(Instant::now() + Duration::from_secs(60));
    let made = made.unwrap();
    assert!(made.iter().any(|section| section.name == ".debug_info"));
    assert!(Rc::ptr_eq(
        &made,
        &description.wait(Instant::now()).unwrap()
    ));
}
