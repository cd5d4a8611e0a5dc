use super::*;
use crate::recording::Config;

fn request(queue: u8, readable: &[u8]) -> Submit {
    Submit {
        time: 0,
        number: 1,
        queue,
        id: 0,
        elements: Vec::new(),
        table_after: None,
        readable: readable.to_vec(),
        trouble: None,
    }
}

#[test]
fn what_comes_from_elsewhere_is_no_answer() {
    let external = |device_type, queues: std::ops::Range<u8>| -> Vec<u8> {
        let rules = Rules::new(Some(device_type), &[]);
        queues.filter(|queue| rules.is_external(*queue)).collect()
    };
    assert_eq!(external(DeviceType::NET, 0..4), [0, 2]);
    assert_eq!(external(DeviceType::CONSOLE, 0..4), [0, 2]);
    assert_eq!(external(DeviceType::VSOCK, 0..3), [0, 2]);
    assert_eq!(external(DeviceType::BLK, 0..4), [0; 0]);
    assert_eq!(external(DeviceType::SOUND, 0..4), [1, 3]);
}

#[test]
fn the_control_queue_of_a_network_device_is_behind_all_pairs() {
    let mut rules = Rules::new(Some(DeviceType::NET), &[]);
    rules.learn(&Item::Features(NET_CTRL_VQ));
    assert!(!rules.is_external(2));
    rules.learn(&Item::Features(NET_CTRL_VQ | NET_MQ));
    rules.learn(&Item::Config(Config {
        offset: 0,
        bytes: vec![0, 0, 0, 0, 0, 0, 1, 0, 3, 0],
    }));
    let external: Vec<u8> = (0..7).filter(|queue| rules.is_external(*queue)).collect();
    assert_eq!(external, [0, 2, 4]);
}

#[test]
fn entropy_and_the_name_of_a_disk_may_differ() {
    let rules = Rules::new(Some(DeviceType::RNG), &[]);
    assert_eq!(rules.of(&request(0, &[])).content, NOTHING);
    let rules = Rules::new(Some(DeviceType::BLK), &[]);
    assert_eq!(rules.of(&request(0, &[8; 1])).content, ALL);
    let get_id = [&8u32.to_le_bytes()[..], &[0; 12]].concat();
    let rule = rules.of(&request(0, &get_id));
    assert_eq!((rule.content, rule.has_status), (NOTHING, true));
}

#[test]
fn what_a_user_ignores_is_ignored() {
    let ignored = [Ignore::Content, Ignore::Length, Ignore::Order];
    let rule = Rules::new(Some(DeviceType::CONSOLE), &ignored).of(&request(1, b"x"));
    assert_eq!(
        rule,
        Rule {
            content: NOTHING,
            length: false,
            order: false,
            has_status: false,
            sense: None,
        }
    );
}

#[test]
fn the_room_for_sense_data_is_the_drivers_choice() {
    let mut rules = Rules::new(Some(DeviceType::SCSI), &[]);
    let config = |offset, bytes| Config { offset, bytes };
    assert_eq!(rules.of(&request(2, &[])).sense, Some(96));
    assert_eq!(rules.of(&request(0, &[])).sense, None);
    rules.learn(&Item::Config(config(0, vec![0; 36])));
    assert_eq!(rules.of(&request(2, &[])).sense, Some(0));
    rules.learn(&Item::ConfigWritten(config(20, vec![32, 0, 0, 0])));
    assert_eq!(rules.of(&request(2, &[])).sense, Some(32));
    rules.learn(&Item::ConfigWritten(config(u32::MAX, vec![1])));
}
